"""`python -m lessons` and the package from wherever they are called, and what they load."""

import os
import shutil
import subprocess
import sys

import pytest

from lessons.course.checking.tasks import LESSONS
from tests.helpers import whole_class

pytestmark = whole_class
ROOT = LESSONS.parent
LOADED = """
import runpy, sys
for command in sys.argv[1:]:
    name, *sys.argv[1:] = command.split()
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert end.code in (0, 2, None), end.code
    print("loaded:", command, *(name for name in ("matplotlib", "pydoc_data", "http") if name in sys.modules))
"""
QUICK = ["lora_np.byhand", "lessons list", "lessons next", "lessons check 08", "lessons hint 08", "lessons reset 08"]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project in a folder whose name is as awkward as systems allow."""
    copy = tmp_path_factory.mktemp("places") / "-a [1] #%20 'q' & $x, größer 数"
    for part in ("lora_np", "lessons"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__", ".progress"))
    return copy


@pytest.fixture
def elsewhere(tmp_path):
    """A folder with folders of the same names as ours."""
    for name in ("lessons", "tests", "lora_np"):
        (tmp_path / name).mkdir()
    return tmp_path


def run(*words, cwd, path=""):
    """(exit status, stdout, stderr) of Python with these words."""
    clean = {**os.environ, "PYTHONPATH": str(path), "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1",
             "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, *map(str, words)], cwd=cwd, env=clean, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_a_file_that_cannot_be_run_is_one_line():
    code = ("from lessons import __main__ as command\nfrom lessons.course.checking import runner\n"
            "from lora_np.support import terminal\nrunner.BOOT = 'raise SystemExit(3)'\n"
            "terminal.run('python -m lessons', lambda: command.main(['check', '08']))")
    assert run("-c", code, cwd=ROOT) == (
        1, "", "python -m lessons: Python did not start within 60 s to run the file, or ended at once\n")


def test_the_course_runs_in_a_folder_with_any_name(project):
    assert run("-m", "lessons", "list", cwd=project)[1].startswith("01. ")
    solution = "lessons/08_parameter_counts/solution.py"
    status, out, err = run("-m", "lessons", "check", "08", "--file", solution, cwd=project)
    assert status == 0 and "done" in out and not err
    status, out, err = run("-m", "lessons", "08", cwd=project)
    assert status == 0 and "1 of 1 lessons ran through" in out, err


@pytest.mark.parametrize("encoding", ["cp932", "cp437", "ascii"])
def test_a_lesson_as_a_script_prints_into_a_file_of_any_encoding(project, encoding):
    script = next((project / "lessons").glob("01_*/lesson.py"))
    assert "·" in script.read_text(encoding="utf-8"), "which neither ASCII nor cp932 has"
    with open(project / "out", "wb") as out:
        done = subprocess.run([sys.executable, script], cwd=project, check=False, stdout=out, stderr=subprocess.PIPE,
                              env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "MPLBACKEND": "Agg",
                                   "PYTHONPATH": str(project), "OPENBLAS_NUM_THREADS": "1"})
    assert done.returncode == 0 and (project / "out").stat().st_size and not done.stderr, done.stderr.decode()


def test_folders_of_the_same_names_elsewhere_are_no_hindrance(project, elsewhere):
    for words in (["-m", "lessons", "list"], ["-m", "lora_np.byhand", "--key"]):
        status, out, err = run(*words, cwd=elsewhere, path=project)  # as an editable install puts it on the path
        assert status == 0 and out and not err


def test_nor_are_packages_where_the_course_is_called_by_its_path(project, elsewhere):
    for name in ("lessons", "tests", "lora_np"):
        (elsewhere / name / "__init__.py").write_text("raise RuntimeError('somebody else')\n")
    status, out, err = run(project / "lessons", "list", cwd=elsewhere)
    assert status == 0 and out.startswith("01. ") and not err
    status, out, err = run(project / "lessons", "check", "09", cwd=elsewhere)
    assert status == 2 and "not started" in out and not err
    status, out, err = run(project / "lessons", "check", "99", cwd=elsewhere)
    assert status == 2 and not out and "there is no exercise 99" in err


def test_quick_commands_load_no_matplotlib(project):
    """One after the other in one process: what the last one has not loaded, none has."""
    status, out, err = run("-c", LOADED, *QUICK, cwd=project)
    loaded = [line for line in out.splitlines() if line.startswith("loaded:")]
    assert status == 0 and loaded == [f"loaded: {words}" for words in QUICK], "\n".join(loaded) + err


def test_importing_lora_np_changes_nothing(project):
    code = ("import ctypes, signal, sys, warnings, numpy as np\n"
            "def refuse(*_): raise AssertionError('a setting of the C library was changed')\n"
            "ctypes.CDLL = refuse\n"
            "def settings(): return np.geterr(), np.get_printoptions(), warnings.filters[:], signal.getsignal(2)\n"
            "before = settings()\n"
            "import lora_np\n"
            "assert before == settings()\n"
            "print(*[m for m in ('matplotlib', 'pydoc_data', 'lzma', 'lessons') if m in sys.modules])\n")
    assert run("-c", code, cwd=project) == (0, "\n", "")
