"""The quick part of faults.py, and that every fault of mutations.py still fits the code."""

import os

import pytest

pytest.importorskip("resource", reason="processes, signals and limits as POSIX has them")

from tests.hard import faults, mutations


@pytest.mark.parametrize("check", [
    lambda: faults.kills(12), faults.full_disk, faults.read_only, lambda: faults.interrupted_fit(12),
    faults.line_endings, faults.two_processes,
], ids=["kills", "full disk", "read-only folder", "Ctrl-C in fit", "line endings", "two processes"])
def test_faults(check, capfd):
    assert check()


@pytest.mark.parametrize(("words", "changes"), [
    ("lessons list", {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "DISPLAY": ""}),
    ("lora_np.byhand", {"PYTHONIOENCODING": "ascii", "COLUMNS": "40"}),
])
def test_odd_terminals(words, changes):
    status, out, err = faults.run(words, **changes)
    assert status == 0 and out and not err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_command_that_cannot_write_says_so():
    assert faults.command_cannot_write()


def test_the_planted_faults_fit_the_code():
    assert not mutations.misfits(), "the code has changed; give these faults their new text"
    assert len(mutations.FAULTS) >= 80 and len({fault[:3] for fault in mutations.FAULTS}) == len(mutations.FAULTS)
    assert all(old != new and old.strip() for _, old, new, _ in mutations.FAULTS)
