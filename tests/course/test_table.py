"""The grader as a program: nothing is lost, its own failures are not the students', and what it writes."""

import csv
import errno
import io
import os
import tempfile

import pytest

from lessons import __main__ as command
from lessons.course.checking import judge, runner, tasks
from lessons.course.classroom import exports, grading, report, table
from tests.helpers import whole_class

from .desk import RIGHT as TEMPLATE
from .desk import here

pytestmark = whole_class

NAME = tasks.names()["08"]
RIGHT = TEMPLATE.replace("    {}\n", "")
WRONG = RIGHT.replace("return r * (d + k)\n", "return r * d\n", 1)
ENDLESS = RIGHT.replace("return r * (d + k)\n", "__import__('time').sleep(1000)\n", 1)


@pytest.fixture
def school(tmp_path, monkeypatch):
    """hand_in(**{student: text}), grade(*options) and rows() of one folder and table."""
    monkeypatch.chdir(tmp_path)

    class School:
        path = tmp_path / "grades.csv"

        def hand_in(self, folder="in", **students):
            for student, text in students.items():
                (tmp_path / folder / student).mkdir(parents=True, exist_ok=True)
                (tmp_path / folder / student / f"{NAME}.py").write_text(text, encoding="utf-8")

        def grade(self, *options, folder="in"):
            return command.main(["grade", folder, "08", "--out", "grades.csv", *options])

        def rows(self):
            return {row["student"]: row for row in csv.DictReader(io.StringIO(self.path.read_text("utf-8-sig")))}

        def seen(self):
            """A list that grows by the student whenever a file is really run."""
            found, verdict = [], judge.verdict
            monkeypatch.setattr(judge, "verdict",
                                lambda e, file, *a: found.append(file.parent.name) or verdict(e, file, *a))
            return found

    return School()


def test_a_full_disk_is_a_status_of_its_own_and_graded_again(school, monkeypatch):
    school.hand_in(ada=RIGHT)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryDirectory", full)
        assert school.grade() == 0
    row = school.rows()["ada"]
    assert (row["status"], row["score"], row["passed"]) == ("not_graded", "", "") and "No space left" in row["message"]
    assert school.grade() == 0 and school.rows()["ada"]["status"] == "pass"


def test_a_longer_timeout_grades_timeouts_again(school):
    school.hand_in(ada=ENDLESS, bob=RIGHT)
    assert school.grade("--timeout", "1") == 0 and school.rows()["ada"]["status"] == "timeout"
    seen = school.seen()
    assert school.grade("--timeout", "1") == 0 and not seen
    assert school.grade("--timeout", "1.5") == 0 and seen == ["ada"]


def as_spreadsheet(text, sep=",", **changes):
    """A table as a spreadsheet would save it: numbers without zeros in front or behind."""
    rows = list(csv.reader(io.StringIO(text)))
    out = io.StringIO()
    csv.writer(out, delimiter=sep, lineterminator="\r\n").writerows(
        [changes.get(cell, cell.lstrip("0") if cell in ("08", "00123") else cell) for cell in row] for row in rows)
    return out.getvalue()


@here
@pytest.mark.parametrize(("sep", "coding"), [(",", "utf-8"), (";", "cp1252"), ("\t", "utf-16"), (";", "utf-8-sig")])
def test_a_table_that_a_spreadsheet_saved_keeps_corrections(school, sep, coding):
    school.hand_in(**{"00123": WRONG, "Jörg": WRONG})
    assert school.grade() == 0
    text = as_spreadsheet(school.path.read_text("utf-8-sig"), sep, **{"0.75": "0,9"})
    lines = text.splitlines()
    text = "\r\n".join([lines[0] + f"{sep}comment", *(line + f"{sep}see me" for line in lines[1:])])
    school.path.write_bytes(text.encode(coding))
    seen = school.seen()
    assert school.grade() == 0 and not seen
    rows = school.rows()
    assert set(rows) == {"00123", "Jörg"}
    assert {(r["exercise"], r["score"], r["comment"]) for r in rows.values()} == {("08", "0.90", "see me")}
    school.hand_in(Jörg=RIGHT)
    assert school.grade() == 0 and seen == ["Jörg"]
    assert (school.rows()["Jörg"]["score"], school.rows()["Jörg"]["comment"]) == ("1.00", "see me")


@here
def test_another_class_into_the_same_table_drops_nothing(school, capsys):
    school.hand_in(ada=RIGHT)
    school.hand_in("other", bob=WRONG)
    assert school.grade() == 0 and school.grade(folder="other") == 0
    assert set(school.rows()) == {"ada", "bob"}
    assert "1 rows of grades.csv are of other students or exercises, and stay as they are" in capsys.readouterr().out
    assert school.grade("--fresh", folder="other") == 0 and set(school.rows()) == {"ada", "bob"}
    wide = list(csv.reader(io.StringIO(exports.paths(school.path)[1].read_text("utf-8-sig"))))
    assert wide == [["student", "id", "08"], ["ada", "", "1.00"], ["bob", "", "0.75"]]


@pytest.fixture
def locked(monkeypatch):
    """A set of names of files that cannot be written, as while a spreadsheet has them open."""
    names, write = set(), table.write

    def refuse(path, data):
        if path.name in names:
            raise PermissionError(errno.EACCES, "Permission denied")
        write(path, data)

    monkeypatch.setattr(table, "write", refuse)
    return names


@here
def test_a_table_that_is_open_in_a_spreadsheet_loses_nothing(school, locked, capsys):
    school.hand_in(ada=RIGHT, bob=WRONG)
    locked.add("grades.csv")
    assert school.grade() == 0 and "all rows are in grades-new.csv" in capsys.readouterr().out
    assert not school.path.exists() and (school.path.parent / "grades-new.csv").exists()
    locked.clear()
    seen = school.seen()
    assert school.grade() == 0 and not seen and set(school.rows()) == {"ada", "bob"}
    assert not (school.path.parent / "grades-new.csv").exists()


def test_a_table_that_can_never_be_written_stops_the_work(school, locked, capsys):
    school.hand_in(ada=RIGHT, bob=WRONG)
    locked |= {"grades.csv", "grades-new.csv"}
    seen = school.seen()
    assert school.grade() == 1 and not seen and "grades.csv cannot be written" in capsys.readouterr().err


@here
def test_corrections_made_while_it_grades_are_kept(school, monkeypatch):
    school.hand_in(ada=WRONG, bob=RIGHT)
    assert school.grade() == 0
    school.hand_in(bob=WRONG)
    verdict = judge.verdict

    def meanwhile(*arguments):
        school.path.write_text(school.path.read_text("utf-8-sig").replace(",0.75,", ",0.80,"), encoding="utf-8")
        return verdict(*arguments)

    monkeypatch.setattr(judge, "verdict", meanwhile)
    assert school.grade() == 0
    assert {s: r["score"] for s, r in school.rows().items()} == {"ada": "0.80", "bob": "0.75"}


@pytest.mark.parametrize(("out", "words"), [
    ("x.png", "ends in .csv"), ("X.XLSX", "ends in .csv"), ("in", "is a folder"), ("no/x.csv", "no folder"),
    ("other.csv", "not a table of grades: it has no column score"), ("binary.csv", "not a table of grades")])
def test_a_table_that_is_none_is_refused(school, out, words, capsys):
    school.hand_in(ada=RIGHT)
    (school.path.parent / "other.csv").write_text("student,exercise\n1,2\n")
    (school.path.parent / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(SystemExit) as end:
        command.main(["grade", "in", "--out", out])
    assert end.value.code == 2 and words in capsys.readouterr().err
    assert (school.path.parent / "other.csv").read_text() == "student,exercise\n1,2\n"


@here
def test_only_the_exercises_that_are_named(school, capsys):
    school.hand_in(ada=RIGHT)
    assert command.main(["grade", "in", "8", "9", "--out", "grades.csv"]) == 0
    text = school.path.read_text("utf-8-sig")
    assert [line.split(",")[1:3] for line in text.splitlines()[1:]] == [["08", "pass"], ["09", "missing"]]
    with pytest.raises(SystemExit):
        command.main(["grade", "in", "77", "--out", "grades.csv"])
    assert "there is no exercise 77" in capsys.readouterr().err


@here
def test_no_student_s_text_ends_the_grading_of_the_class(school, capsys):
    school.hand_in(ada=RIGHT, nul=RIGHT.replace("return r", "raise ValueError('a\\0b') or r", 1),
                   lone=RIGHT.replace("return r", "raise ValueError('\\ud800\\x1b[2J') or r", 1),
                   text=RIGHT.replace("return r", "return '\\udfff' or r", 1), name=RIGHT + "\n# \\N{BELL}\x07\n")
    if os.name == "posix":
        folder = os.fsencode(school.path.parent) + b"/in/J\xf6rg\x01"
        os.mkdir(folder)
        with open(folder + b"/ex08.py", "w") as file:
            file.write(WRONG)
    assert school.grade() == 0
    rows = school.rows()
    assert rows["ada"]["status"] == "pass" and rows["lone"]["status"] == "fail"
    assert "\\x00" in rows["nul"]["message"] and "\\ud800\\x1b" in rows["lone"]["message"]
    for path in school.path.parent.rglob("*"):
        if path.suffix in (".csv", ".txt"):
            assert path.read_text("utf-8").isprintable() or "\0" not in path.read_text("utf-8")
    assert len(rows) == (6 if os.name == "posix" else 5) and capsys.readouterr().out.encode()


@here
def test_what_a_teacher_gets(school, capsys):
    school.hand_in(ada=RIGHT, bob=WRONG, cy=WRONG)
    school.path.parent.joinpath("in", "dan").mkdir()
    assert school.grade("--points", "20") == 0
    out = capsys.readouterr().out
    assert "Students of whom there is nothing to grade:\n  dan" in out
    folder = exports.paths(school.path)[2]
    assert sorted(p.name for p in folder.iterdir()) == ["ada.txt", "bob.txt", "cy.txt", "dan.txt"]
    text = (folder / "bob.txt").read_text("utf-8")
    assert text.startswith("bob\n\n== 08\n08 counting parameters: not yet, 9 of 12") and "the count is" in text
    assert "One mistake that gives this" in text and "there is no file" in (folder / "dan.txt").read_text("utf-8")
    wide = list(csv.reader(io.StringIO(exports.paths(school.path)[1].read_text("utf-8-sig"))))
    assert wide == [["student", "id", "08"], ["ada", "", "20.00"], ["bob", "", "15.00"], ["cy", "", "15.00"],
                    ["dan", "", "0.00"]]
    school.hand_in(cy=RIGHT)
    assert school.grade() == 0  # what is not graded again keeps its text
    assert (folder / "bob.txt").read_text("utf-8") == text
    assert "done, 12 of 12" in (folder / "cy.txt").read_text("utf-8")


@here
def test_ids_of_platforms_are_in_the_wide_table(school):
    school.hand_in(**{"Ada L_4711_assignsubmission_file_": RIGHT})
    assert school.grade() == 0
    wide = list(csv.reader(io.StringIO(exports.paths(school.path)[1].read_text("utf-8-sig"))))
    assert wide[1] == ["Ada L_4711_assignsubmission_file_", "4711", "1.00"]


def test_names_of_texts_differ_in_more_than_case():
    taken = set()
    names = [exports._file_name(student, taken) for student in (
        "ada", "Ada", "ADA", "a/b", "a:b", "con", "..", "Jose\u0301", "Jos\u00e9")]
    assert names == ["ada", "Ada (2)", "ADA (3)", "a_b", "a_b (2)", "con_", "_", "Jose\u0301", "Jos\u00e9 (2)"]


@here
def test_equal_files(school, capsys):
    solution = tasks.load("08").solution
    stub, official = tasks.stubs()[NAME], solution.read_text("utf-8") if solution.exists() else "x = 1"
    alike = "# mine\n\n" + RIGHT.replace("    return r * (d + k)", '    """Doc."""\n    return r*(d+k)  # ok', 1)
    school.hand_in(ada=RIGHT, bob=alike, cy=RIGHT.replace("\n", "\r\n"), dan=WRONG, empty1="", empty2="\n\n",
                   stub1=stub, stub2=stub + "\n# later\n", eve=official)
    assert school.grade() == 0
    out = capsys.readouterr().out
    assert "equal but for comments, blank lines and layout:\n  08  ada, bob, cy\n" in out
    assert "byte for byte" not in out and "stub" not in out.split("equal but")[1]
    assert not solution.exists() or "the course's own solution:\n  08  eve\n" in out


def test_code_is_compared_in_bounded_time():
    assert report.code("x = 1  # one") == report.code("\n\nx=1\n") == "x = 1"
    assert report.code("def (# a\n  b") == "def ( b" and report.code("x = " + "-" * 50_000 + "1")
    assert len(report.code("x = 1\n" * 200_000)) > 100_000


def test_files_run_where_no_solution_is(school):
    text = RIGHT.replace("return r * (d + k)\n", "import lora_np, pathlib\n    root = pathlib.Path(lora_np.__file__)."
                         "parents[1]\n    return str(sorted(p.name for p in root.rglob('*solution*')))\n", 1)
    school.hand_in(ada=text)
    assert school.grade() == 0 and "the count is '[]'" in school.rows()["ada"]["message"]


@here
def test_stopping_keeps_a_teacher_s_columns(school, monkeypatch):
    school.hand_in(ada=WRONG)
    assert school.grade() == 0
    lines = school.path.read_text("utf-8-sig").splitlines()
    school.path.write_text("\n".join([lines[0] + ",comment", lines[1] + ",good"]), encoding="utf-8")
    school.hand_in(ada=RIGHT)

    def stopped(*arguments):
        raise SystemExit(143)

    monkeypatch.setattr(judge, "verdict", stopped)
    assert school.grade() == 143
    assert (school.rows()["ada"]["status"], school.rows()["ada"]["comment"]) == ("not_graded", "good")


def test_a_run_that_cannot_start_is_not_the_student_s(monkeypatch, tmp_path):
    (tmp_path / "x.py").write_text(RIGHT)
    monkeypatch.setattr(runner, "BOOT", "raise SystemExit(3)")
    with pytest.raises(runner.CannotRun, match="did not start"):
        judge.verdict(tasks.load("08"), tmp_path / "x.py", 5, "x.py")


def test_submissions_are_triples(school):
    school.hand_in(ada=RIGHT)
    ((student, number, found),) = grading.submissions("in")
    assert (student, number, found.name, found.where) == ("ada", "08", f"{NAME}.py", f"ada/{NAME}.py")
