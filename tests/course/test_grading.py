"""Grading a class: every kind of submission gets its row, and harms no other."""

import csv
import os
import re
import sys

import pytest

from lessons import __main__ as command
from lessons.course.checking import judge, tasks
from lessons.course.classroom import grading, report
from tests.helpers import whole_class

from .desk import RIGHT, here

NAME = "ex08_parameter_counts"
right = RIGHT.format("pass")
STUB = tasks.stubs()[NAME]
CLASS = {  # student: (file, status, a word of the message)
    "all right": (right, "pass", ""),
    "another": ("# also\n" + right, "pass", ""),
    "alike 1": ("# alike\n" + right, "pass", ""),
    "alike 2": ("# alike\n" + right, "pass", ""),
    "one factor": (right.replace("r * (d + k)\n", "r * d\n", 1), "fail", "the count is"),
    "=one factor": (right.replace("r * (d + k)\n", "r * d\n", 1), "fail", "the count is"),
    "untouched": (STUB, "not_started", ""),
    "absent": (None, "missing", "no file"),
    "syntax": (right + "def f(:", "syntax_error", "line"),
    "import": ("import nothing_like_it\n" + right, "import_error", "nothing_like_it"),
    "claims": ("print('DONE')\nprint('{\"end\": true}')\n" + STUB, "not_started", ""),
    "os._exit": (RIGHT.format("import os; os._exit(0)"), "crash", "ends Python itself"),
    "os._exit at once": ("import os\nos._exit(0)", "crash", "on import"),
    "sys.exit": ("import sys\nsys.exit(0)\n" + right, "import_error", "ends Python"),
    "sys.exit inside": (RIGHT.format("import sys; sys.exit(0)"), "fail", "ends Python"),
    "patches numpy": ("import numpy as np\nnp.isclose = np.allclose = lambda *a, **k: True\n"
                      "np.array_equal = np.isclose\n" + STUB.replace("raise NotImplementedError", "return 1"),
                      "fail", "the count is 1"),
    "imports the checks": ("import importlib\nimportlib.import_module('lessons.08_parameter_counts.checks')",
                           "import_error", "but not the lessons"),
    "patches the checker": (
        "import sys\nworker = sys._getframe(1).f_globals\n"
        "worker['call'] = lambda *a: {'value': 1, 'again': True}\n" + STUB, "fail", "the count is 1"),
    "loops": (RIGHT.format("while True: pass"), "timeout", "lora_count"),
    "10 GB": (RIGHT.format("bytearray(10 << 30)"), "crash", "memory"),
    "forks": (RIGHT.format("import os, time\n    for _ in range(4):\n        os.fork()\n"
                           "    open(PIDS + str(os.getpid()), 'w').close()\n    time.sleep(100)"), "timeout", ""),
    "forks on import": ("import os\nfor _ in range(3):\n    os.fork()\n" + right, "pass", ""),
    "forks a copy that answers otherwise": ("""
import os
copy = os.fork() == 0
def lora_count(d, k, r):
    return 0 if copy else r * (d + k)
def break_even(d, k):
    return (d * k - 1) // (d + k)
def largest_rank(d, k, saving):
    try:
        os.wait()  # until the copy has written what it can
    except ChildProcessError:
        pass
    return sum(1 - r * (d + k) / (d * k) > saving for r in range(1, min(d, k)))
""", "pass", ""),
    "prints 10 MB": (RIGHT.format("for _ in range(10):\n        print('x' * 10 ** 6)"), "pass", ""),
    "leaves a thread": ("import threading, time\nthreading.Thread(target=time.sleep, args=[100]).start()\n" + right,
                        "pass", ""),
    "closes all files": ("import os\nos.closerange(0, 100)\n" + right, "crash", ""),
    "formula": (RIGHT.format("raise ValueError('=1+1\\nand more')"), "fail", "=1+1"),
}
if os.name != "posix":
    CLASS = {k: v for k, v in CLASS.items() if "fork" not in k and k != "10 GB"}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """(folder, {student: row}, what was printed) of the class, graded by the command."""
    folder = tmp_path_factory.mktemp("class")
    (folder / "pids").mkdir()
    for student, (text, *_) in CLASS.items():
        (folder / "hand-ins" / student).mkdir(parents=True)
        if text:
            text = f"PIDS = {str(folder / 'pids') + os.sep!r}\n" + text if "PIDS" in text else text
            (folder / "hand-ins" / student / f"{NAME}.py").write_text(text, encoding="utf-8")
    printed, out = [], sys.stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "names", lambda: {"08": NAME})
        patch.setattr("builtins.print", lambda *a, **k: printed.append(" ".join(map(str, a))))
        status = command.main(["grade", str(folder / "hand-ins"), "--out", str(folder / "grades.csv"),
                               "--timeout", "3"])
    assert status == 0 and sys.stdout is out
    return folder, rows_of(folder / "grades.csv"), "\n".join(printed)


def rows_of(table):
    with open(table, encoding="utf-8-sig", newline="") as file:
        return {row["student"].lstrip("'"): row for row in csv.DictReader(file)}


@whole_class
@pytest.mark.parametrize("student", CLASS)
def test_row(student, graded):
    _, status, words = CLASS[student]
    row = graded[1][student]
    assert (row["status"], row["exercise"], row["total"]) == (status, "08", "12")
    assert words in row["message"] and "\n" not in row["message"]
    assert (row["score"] == "1.00") == (status == "pass") == (row["passed"] == "12")
    assert re.fullmatch(r"\d+\.\d\d", row["seconds"])
    assert re.fullmatch(r"[0-9a-f]{64}", row["sha256"]) or status == "missing"
    assert row["diagnosis"] == ("one-factor-counted" if "one factor" in student else "")


@whole_class
def test_table(graded):
    folder, rows, _ = graded
    text = (folder / "grades.csv").read_text(encoding="utf-8-sig")
    assert text.splitlines()[0] == "student,exercise,status,score,passed,total,diagnosis,seconds,message,sha256,file"
    assert len(rows) == len(CLASS)
    assert not re.search(r"(^|,)=", text, re.M)  # no cell that a spreadsheet would take for a formula
    assert not list(folder.glob("*.partial"))


@whole_class
@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc")
def test_no_process_is_left(graded):
    pids = [p.name for p in (graded[0] / "pids").iterdir()]
    assert len(pids) == 16
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                assert file.read().rsplit(")")[1].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            pass


@whole_class
def test_summary_and_figure(graded):
    folder, _, printed = graded
    assert f"{len(CLASS)} students, 1 exercise\n" in printed
    assert re.search(r"  2  08 one-factor-counted: Both factors are trained", printed)
    assert re.search(r"08 +alike 1, alike 2", printed) and "untouched" not in printed.split("byte for byte")[1]
    assert (folder / "grades.png").read_bytes()[:4] == b"\x89PNG"


def test_the_figure_names_misconceptions_as_check_does():
    assert report.title("03", "divided-by-h-alone") == "divided by eps alone"
    assert report.title("04", "mutable-default") == "mutable default"  # which is of no exercise


@pytest.fixture
def two(tmp_path, monkeypatch):
    """A class of two and its table."""
    monkeypatch.setattr(tasks, "names", lambda: {"08": NAME})
    for student in ("ada", "bob"):
        (tmp_path / "in" / student).mkdir(parents=True)
        (tmp_path / "in" / student / f"{NAME}.py").write_text(right)
    return tmp_path


def grade(folder, *options):
    return command.main(["grade", str(folder / "in"), "--out", str(folder / "grades.csv"), *options])


@here
def test_resume_grades_only_what_changed(two, monkeypatch, capsys):
    assert grade(two) == 0
    (two / "in" / "bob" / f"{NAME}.py").write_text(STUB)
    seen, verdict = [], judge.verdict
    monkeypatch.setattr(judge, "verdict", lambda e, file, *a: seen.append(file.parent.name) or verdict(e, file, *a))
    assert grade(two) == 0 and seen == ["bob"]
    assert {s: r["status"] for s, r in rows_of(two / "grades.csv").items()} == {"ada": "pass", "bob": "not_started"}
    assert "1 rows of" in capsys.readouterr().out
    assert grade(two, "--fresh") == 0 and sorted(seen) == ["ada", "bob", "bob"]


@here
def test_stopping_keeps_what_there_is(two, monkeypatch, capsys):
    def verdict(exercise, file, *rest, right=judge.verdict):
        if file.parent.name == "bob":
            raise KeyboardInterrupt
        return right(exercise, file, *rest)

    assert grade(two, "--jobs", "1") == 0
    (two / "in" / "bob" / f"{NAME}.py").write_text(STUB)
    monkeypatch.setattr(judge, "verdict", verdict)
    assert grade(two) == 130 and "1 of 2 rows" in capsys.readouterr().out
    assert list(rows_of(two / "grades.csv")) == ["ada"]


def test_a_fault_of_the_checker_is_a_row(two, monkeypatch):
    monkeypatch.setattr(judge, "verdict", lambda *a: 1 / 0)
    assert grade(two) == 0
    assert {r["status"] for r in rows_of(two / "grades.csv").values()} == {"crash"}
    assert "the checker itself failed: ZeroDivisionError" in rows_of(two / "grades.csv")["ada"]["message"]


def test_files_are_found_where_students_put_them(two):
    (two / "in" / "ada" / f"{NAME}.py").rename(two / "in" / "ada" / "ex08_final (2).py")
    (two / "in" / "bob" / "lessons" / "exercises").mkdir(parents=True)
    (two / "in" / "bob" / f"{NAME}.py").rename(two / "in" / "bob" / "lessons" / "exercises" / f"{NAME}.py")
    found = {student: path.name for student, _, path in grading.submissions(two / "in")}
    assert found == {"ada": "ex08_final (2).py", "bob": f"{NAME}.py"}


def test_wrong_folders_and_tables_are_errors(two, capsys):
    (two / "grades.csv").write_text("a,b\n1,2\n")
    (two / "empty").mkdir()
    for words, expected in [([str(two / "in"), "--out", str(two / "grades.csv")], "not a table of grades"),
                            ([str(two / "no")], "is no folder"), ([str(two / "empty")], "holds no folders"),
                            ([str(two / "in"), "--out", str(two / "no" / "g.csv")], "no folder"),
                            ([str(two / "in"), "--jobs", "0"], "above 0")]:
        with pytest.raises(SystemExit) as end:
            command.main(["grade", *words])
        assert end.value.code == 2 and expected in capsys.readouterr().err
    assert (two / "grades.csv").read_text() == "a,b\n1,2\n"
