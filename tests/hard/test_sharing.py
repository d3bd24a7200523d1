"""python -m tests: each test runs once, in one of the processes, and what went wrong in any of them is said."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import whole_class

pytestmark = whole_class
ROOT = Path(__file__).resolve().parents[2]
FILE = """
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="module", autouse=True)
def ran():
    yield
    with open(Path(__file__).with_suffix(".ran"), "a") as file:
        file.write("once")


@pytest.mark.parametrize("n", range(3))
def test_right(n):
    pass


def test_skipped():
    pytest.skip("not here")
"""
WRONG = """

def test_wrong():
    assert 2 + 2 == 5, "the text of a failure"
"""


def run(folder, *words):
    """(exit status, standard output) of the command on a folder of tests."""
    done = subprocess.run([sys.executable, "-m", "tests", str(folder), *words], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


@pytest.fixture
def three(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -q\n")
    for name in "abc":
        (tmp_path / f"test_{name}.py").write_text(FILE)
    return tmp_path


def test_each_file_runs_once(three):
    status, out = run(three)
    assert status == 0 and "9 passed, 3 skipped in " in out.splitlines()[-1] and len(out.splitlines()) == 4, out
    assert [path.read_text() for path in three.glob("*.ran")] == ["once"] * 3


def test_a_failure_in_one_of_them_is_shown_and_is_the_status(three):
    (three / "test_b.py").write_text(FILE + WRONG)
    status, out = run(three)
    assert status == 1 and "the text of a failure" in out and "9 passed, 1 failed, 3 skipped in " in out.splitlines()[-1]


@pytest.mark.parametrize(("text", "status", "words"), [
    ("import nothing_like_it", 2, "nothing_like_it"), ("import os\ndef test_end(): os._exit(3)", 3, "ended with status 3")])
def test_a_process_that_does_not_come_to_its_end_is_told_of(three, text, status, words):
    (three / "test_b.py").write_text(text)
    found, out = run(three)
    assert found == status and words in out, out


def test_no_tests_at_all_is_no_success(three):
    status, out = run(three, "-k", "nothing_of_the_kind")
    assert status == 5 and out.startswith("no tests ran")
