"""The quick part of faults.py, and that every fault of mutations.py still fits the code."""

import os
import subprocess
import sys
import types

import pytest

pytest.importorskip("resource", reason="processes, signals and limits as POSIX has them")

from lessons.course.checking import processes, runner
from tests.hard import faults, mutations
from tests.helpers import whole_class


@whole_class
@pytest.mark.parametrize("check", [
    lambda: faults.kills(12), faults.full_disk, faults.read_only, lambda: faults.interrupted_fit(12),
    faults.line_endings, faults.line_endings_of_all, faults.windows, faults.matplotlib_settings, faults.umasks,
    faults.read_only_checkout, faults.two_processes,
], ids=["kills", "full disk", "read-only folder", "Ctrl-C in fit", "line endings", "line endings of a checkout",
        "Windows' rules for files", "a user's matplotlibrc", "umasks", "read-only checkout", "two processes"])
def test_faults(check, capfd):
    assert check()


@pytest.mark.parametrize(("words", "changes"), [
    ("lessons list", {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "DISPLAY": ""}),
    ("lora_np.byhand", {"PYTHONIOENCODING": "ascii", "COLUMNS": "40"}),
    ("lessons list", {"PYTHONIOENCODING": "cp932"}), ("lessons list", {"PYTHONIOENCODING": "cp437"}),
])
def test_odd_terminals(words, changes):
    status, out, err = faults.run(words, **changes)
    assert status == 0 and out and not err


def test_lessons_print_nothing_odd_before_terminals_are_seen_to():
    for lesson in (faults.ROOT / "lessons").glob("*/lesson.py"):
        code = [line for line in lesson.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
        seen_to = next(i for i, line in enumerate(code) if line.startswith(("from lessons", "import lessons")))
        assert all(line.isascii() for line in code[:seen_to]), lesson


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams(closed):
    done = subprocess.run(f"{sys.executable} -m lora_np.byhand {closed}", shell=True, cwd=faults.ROOT, check=False,
                          capture_output=True, env={**os.environ, **faults.QUIET})
    assert done.returncode == 0 and b"Traceback" not in done.stderr


@pytest.mark.parametrize(("code", "says"), [
    (-11, "signal 11"), (0xC0000005, "code 0xc0000005"), (0xC00000FD, "0xc00000fd"), (3, "as os._exit does"),
    (1, "as os._exit does"), (0, "as os._exit does")])
def test_how_a_process_ended(code, says):
    assert says in runner._ending(types.SimpleNamespace(wait=lambda: code))


def test_a_job_of_windows_ends_what_an_ended_worker_started(monkeypatch):
    calls = []

    class Kernel:
        def __getattr__(self, name):
            def function(*arguments):
                calls.append(name)
                return 7
            setattr(self, name, function)
            return function

    kernel = Kernel()
    monkeypatch.setattr(processes, "WINDOWS", True)
    monkeypatch.setattr(processes.ctypes, "WinDLL", lambda name: kernel, raising=False)
    ended = types.SimpleNamespace(_handle=5, pid=0, poll=lambda: 0)
    job = processes.hold(ended)
    assert job.value == 7
    processes.end(ended, "mark", job)
    assert calls == ["CreateJobObjectW", "AssignProcessToJobObject", "TerminateJobObject", "CloseHandle"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_command_that_cannot_write_says_so():
    assert faults.command_cannot_write()


def test_the_planted_faults_fit_the_code():
    assert not mutations.misfits(), "the code has changed; give these faults their new text"
    assert len(mutations.FAULTS) >= 80 and len({fault[:3] for fault in mutations.FAULTS}) == len(mutations.FAULTS)
    assert all(old != new and old.strip() for _, old, new, _ in mutations.FAULTS)
