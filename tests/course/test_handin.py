"""What a class hands in: whose it is, which file is graded, and what is there where none can be."""

import io
import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import pytest

from lessons.course.checking import tasks
from lessons.course.classroom import choice, entries, grading, names

NAMES = tasks.names()
N8, N9 = f"{NAMES['08']}.py", f"{NAMES['09']}.py"
STUB8 = tasks.stubs()[NAMES["08"]]
W8 = STUB8.replace("raise NotImplementedError", "return 1")                  # work, whatever it is worth
W9 = tasks.stubs()[NAMES["09"]].replace("raise NotImplementedError", "return 1")
CHECKS = "from lessons.course.checking.tasks import Check\ndef lora_count(d, k, r):\n    return 1\n"
ROOT = tasks.LESSONS.parent


def make(folder, files):
    """Files of these texts, bytes or None for a folder; each a second newer than the one before."""
    now = time.time() - len(files) - 10
    for i, (name, text) in enumerate(files.items()):
        path = folder / name
        if text is None:
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        os.utime(path, (now + i, now + i))
    return folder


def zipped(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return data.getvalue()


def found(folder, numbers=()):
    """{(student, number): path of the file that is graded, or what is said in its place}."""
    collection = grading.collect(folder, numbers)
    return {(student.name, number): c.where or c.problem or ", ".join(c.there)
            for student, number, c in collection.hand_ins}


def notebook(*cells):
    return json.dumps({"cells": [{"cell_type": "code", "source": cell.splitlines(True)} for cell in cells]})


def project(folder, work=()):
    """A copy of the whole project, as a class clones it, with these files in it."""
    for part in ("lessons", "lora_np"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns(
            "__pycache__", "*.safetensors", "*.md", "corpora"))
    for number, name in NAMES.items():
        place = folder / "lessons" / tasks.folders()[number].name / f"{name}.py"
        place.write_text(tasks.stubs()[name], encoding="utf-8")
    for name, text in dict(work).items():
        (folder / name).write_text(text, encoding="utf-8")


PLACE8 = f"lessons/{tasks.folders()['08'].name}/{N8}"
ONE = {  # what one student hands in: (files, the one that is graded)
    "its name": ({N8: W8}, N8),
    "a short name": ({"ex08.py": W8}, "ex08.py"), "without a zero": ({"ex8_counts.py": W8}, "ex8_counts.py"),
    "the lesson's name": ({"08_parameter_counts.py": W8}, "08_parameter_counts.py"),
    "capitals": ({"EX08_PARAMETER_COUNTS.PY": W8}, "EX08_PARAMETER_COUNTS.PY"),
    "saved as text": ({f"{N8}.txt": W8}, f"{N8}.txt"), "a text": ({"ex08.txt": W8}, "ex08.txt"),
    "in words": ({"Exercise 8.py": W8}, "Exercise 8.py"), "a number": ({"8.py": W8}, "8.py"),
    "in German": ({"Übung_08.py": W8}, "Übung_08.py"), "no name at all": ({"untitled.py": W8}, "untitled.py"),
    "Canvas": ({"adal_12_34_ex08_parameter_counts-1.py": W8}, "adal_12_34_ex08_parameter_counts-1.py"),
    "Canvas, late": ({"adal_LATE_12_34_ex08.py": W8}, "adal_LATE_12_34_ex08.py"),
    "Blackboard": ({f"HW8_ada_attempt_2024-01-15-12-30-45_{N8}": W8, "HW8_ada_attempt_2024-01-15-12-30-45.txt": "x"},
                   f"HW8_ada_attempt_2024-01-15-12-30-45_{N8}"),
    "Moodle": ({f"Ada L_12_assignsubmission_file_{N8}": W8}, f"Ada L_12_assignsubmission_file_{N8}"),
    "a folder of its name": ({f"{N8}/{N8}": W8}, f"{N8}/{N8}"),
    "a level too many": ({f"HW8/final/{N8}": W8}, f"HW8/final/{N8}"),
    "a folder that names it": ({"ex08/main.py": W8}, "ex08/main.py"),
    "in its place": ({PLACE8: W8}, PLACE8),
    "in the place of before": ({f"lessons/exercises/{N8}": W8}, f"lessons/exercises/{N8}"),
    "a zip": ({"work.zip": zipped({f"deep/down/{N8}": W8})}, f"work.zip/deep/down/{N8}"),
    "a zip in a zip": ({"a.zip": zipped({"b.zip": zipped({N8: W8})})}, f"a.zip/b.zip/{N8}"),
    "a notebook": ({"ex08.ipynb": notebook(W8)}, "ex08.ipynb"), "all in one": ({"all.py": W9 + W8}, "all.py"),
    # several
    "(1)": ({"ex08_parameter_counts (1).py": W8, N8: W8 + "#"}, "ex08_parameter_counts (1).py"),
    "_v10": ({"ex08_v2.py": W8, "ex08_v10.py": W8, "ex08.py": W8}, "ex08_v10.py"),
    "-1 of Canvas": ({"a_1_9_ex08-1.py": W8, "a_1_8_ex08-2.py": W8, "a_1_7_ex08.py": W8}, "a_1_8_ex08-2.py"),
    "attempts": ({f"attempt 1/{N8}": W8, f"attempt 2/{N8}": W8, N8: W8}, f"attempt 2/{N8}"),
    "a stub as the last attempt": ({f"attempt 1/{N8}": W8, f"attempt 2/{N8}": STUB8}, f"attempt 1/{N8}"),
    "copy, older": ({"ex08 (copy).py": W8, "ex08.py": W8}, "ex08.py"),
    "copy, newer": ({"ex08.py": W8, "ex08 - Copy.py": W8}, "ex08 - Copy.py"),
    "times in names": ({"ex08_20240102-0900.py": W8, "ex08_20240101-1000.py": W8}, "ex08_20240102-0900.py"),
    "times of Blackboard": ({f"H_a_attempt_2024-01-{day}-00-00-00_{N8}": W8 for day in (16, 15)},
                            f"H_a_attempt_2024-01-16-00-00-00_{N8}"),
    "marked as old": ({"ex08.py": W8, "ex08_old.py": W8}, "ex08.py"),
    "times of files": ({"ex08_monday.py": W8, "ex08_tuesday.py": W8}, "ex08_tuesday.py"),
    "in its place and elsewhere": ({PLACE8: W8, f"old/{N8}": W8}, PLACE8),
    "a stub in its place": ({f"work/{N8}": W8, PLACE8: STUB8}, f"work/{N8}"),
    "an empty file in its place": ({f"work/{N8}": W8, PLACE8: "\n# later\n"}, f"work/{N8}"),
    "the course's own files": ({PLACE8: W8, PLACE8.replace(N8, "checks.py"): CHECKS, "lora_np/x.py": W8,
                                PLACE8.replace(N8, "solution.py"): W8.replace("return", "# <solution>\n    return"),
                                f"lessons/checks/{N8}": CHECKS, f"lessons/solutions/{N8}": W8}, PLACE8),
    "a stub and the course's own files": ({PLACE8: STUB8, f"lessons/checks/{N8}": CHECKS, "lora_np/x.py": W8}, PLACE8),
    "only a stub": ({N8: STUB8}, N8), "a broken file": ({N8: "def lora_count(:"}, N8),
    "notes beside it": ({"ex08.py": W8, "ex08_notes.py": "x = 1", "test_ex08.py": "import ex08"}, "ex08.py"),
    # none
    "a PDF": ({"ex08.pdf": "x"}, "ex08.pdf"), "an archive that stays closed": ({"work.rar": "x"}, "work.rar"),
    "a Word file": ({"answers.docx": "x"}, "answers.docx"),
    "a broken archive": ({"work.zip": "x"}, "work.zip is no archive that can be opened"),
    "a broken notebook": ({"ex08.ipynb": "{}"}, "ex08.ipynb is no notebook that can be read"),
    "two halves": ({"ex08_a.py": "def lora_count(d, k, r):\n    return 1",
                    "ex08_b.py": "def break_even(d, k):\n    return 1"},
                   "ex08_b.py with break_even, ex08_a.py with lora_count"),
    "too large": ({N8: b"#" * (2 << 20)}, f"{N8} is too large (2 MB)"), "nothing": ({"empty": None}, ""),
    "hidden files": ({".progress/backups/ex08.py": W8, "__pycache__/ex08.py": W8, "._ex08.py": W8}, ""),
}


@pytest.mark.parametrize("what", ONE)
def test_one_student(what, tmp_path):
    files, graded = ONE[what]
    make(tmp_path, {f"ada/{name}": text for name, text in files.items()} | {f"bob/{N8}": W8})
    where = found(tmp_path, ["08"])
    is_file = any(f"{graded}/".startswith(f"{name}/") for name in files) and not graded.endswith(choice.CLOSED)
    assert where["bob", "08"] == f"bob/{N8}"
    assert where["ada", "08"] == (f"ada/{graded}" if is_file else graded)


CLASSES = {  # what lies in the folder: {path: student}
    "folders": {f"ada/{N8}": "ada", f"bob/{N8}": "bob"},
    "one level too many": {f"HW8/ada/{N8}": "ada", f"HW8/bob/{N8}": "bob"},
    "one level, one student": {f"HW8/ada/{N8}": "ada"},
    "one level of any name": {f"stuff/ada/{N8}": "ada", f"stuff/bob/{N8}": "bob"},
    "two sections, one name": {f"group 1/ada/{N8}": "group 1/ada", f"group 1/bob/{N8}": "bob",
                               f"group 2/ada/{N8}": "group 2/ada", f"group 2/cy/{N8}": "cy"},
    "Canvas, flat": {f"adal_12_1_{N8}": "adal", f"bobb_LATE_13_2_{N8}": "bobb", f"cyc_14_3_work.zip/{N8}": "cyc",
                     "roster.csv": ""},
    "Canvas, two of one name": {f"smithj_1_1_{N8}": "smithj_1", f"smithj_2_2_{N8}": "smithj_2"},
    "Moodle, flat": {f"Ada L_1_assignsubmission_file_{N8}": "Ada L",
                     f"van_der_B_2_assignsubmission_file_{N8}": "van_der_B"},
    "Moodle": {f"Ada L_1_assignsubmission_file_/{N8}": "Ada L_1_assignsubmission_file_",
               "Ada L_1_assignsubmission_onlinetext_/onlinetext.html": ""},
    "Blackboard": {f"Ex 8_a_b_attempt_2024-01-15-12-30-45_{N8}": "a_b", f"Ex 8_c_attempt_2024-01-15-12-30-45_{N8}": "c",
                   "Ex 8_c_attempt_2024-01-15-12-30-45.txt": ""},
    "people's names, flat": {"ada_ex08.py": "ada", "ex08_parameter_counts_bob_v2.py": "bob", "Cy D - ex08.py": "Cy D"},
    "archives": {f"ada.zip/ada/{N8}": "ada", f"bob (1).zip/{N8}": "bob"},
    "an archive of all": {f"download.zip/ada/{N8}": "ada", f"download.zip/bob/{N8}": "bob"},
    "names that nearly agree": {f"{name}/{N8}": name for name in (
        "Ada  B", "Ada B", "ada b", "Jose\u0301", "Jos\u00e9")},
    "numbers": {f"00123/{N8}": "00123", f"123/{N8}": "123"},
    "signs": {f"{name}/{N8}": name for name in ("=1+1", "-x", "a,b;c", "@d")},
}


def packed(paths):
    """{path: text}, where a folder with the name of an archive becomes one."""
    files, archives = {}, {}
    for path in paths:
        outer, dot, inner = path.partition(".zip/")
        (archives.setdefault(f"{outer}.zip", {}) if dot else files)[inner or path] = W8 if path.endswith(".py") else "x"
    return files | {name: zipped(inside) for name, inside in archives.items()}


@pytest.mark.parametrize("what", CLASSES)
def test_a_class(what, tmp_path):
    expected = {(student, "08"): path for path, student in CLASSES[what].items() if student}
    files = packed(CLASSES[what])
    assert found(make(tmp_path / "in", files)) == expected
    (tmp_path / "class.zip").write_bytes(zipped(files))  # and all of it as one archive
    assert found(tmp_path / "class.zip") == expected


def test_copies_of_the_whole_project(tmp_path):
    project(tmp_path / "hw-ada", {PLACE8: W8})
    project(tmp_path / "hw-bob", {N8: W8})
    project(tmp_path / "hw-cy")
    assert found(tmp_path) == {("hw-ada", "08"): f"hw-ada/{PLACE8}", ("hw-bob", "08"): f"hw-bob/{N8}",
                               ("hw-cy", "08"): f"hw-cy/{PLACE8}"}  # what nobody has begun was never set
    assert not grading.collect(tmp_path).strange and len(found(tmp_path / "hw-ada")) == 1
    shutil.rmtree(tmp_path / "hw-ada")
    shutil.rmtree(tmp_path / "hw-bob")
    assert len(found(tmp_path)) == len(NAMES)


def test_exercises_are_those_that_somebody_handed_in_or_those_that_are_asked_for(tmp_path):
    make(tmp_path, {f"ada/{N8}": W8, "bob": None})
    assert list(found(tmp_path)) == [("ada", "08"), ("bob", "08")]
    assert list(found(tmp_path, ["09", "08"])) == [("ada", "09"), ("ada", "08"), ("bob", "09"), ("bob", "08")]
    assert grading.collect(tmp_path).without == ["bob"]


@pytest.mark.skipif(os.name != "posix", reason="needs links and pipes")
def test_odd_files_are_a_row_each_in_bounded_time(tmp_path):
    outside = make(tmp_path / "outside", {N8: W8})
    folder = make(tmp_path / "in", {f"{n}/x": "" for n in ("device", "pipe", "out", "loop", "gone", "large", "link")})
    os.symlink("/dev/zero", folder / "device" / N8)
    os.mkfifo(folder / "pipe" / N8)
    os.symlink(outside / N8, folder / "out" / N8)
    os.symlink("..", folder / "loop" / "loop")
    os.symlink("nowhere", folder / "gone" / N8)
    os.symlink(outside, folder / "linked")
    with open(folder / "large" / N8, "wb") as file:
        file.truncate(100 << 20)
    (folder / "link" / "own.py").write_text(W8)
    os.symlink("own.py", folder / "link" / N8)
    os.makedirs(os.fsencode(folder) + b"/\xff\xfe")
    with open(os.fsencode(folder) + b"/\xff\xfe/ex08.py", "w") as file:
        file.write(W8)
    said = {student: words for (student, _), words in found(folder).items()}
    assert said["link"] == f"link/{N8}" and said["\\udcff\\udcfe"] == "\\udcff\\udcfe/ex08.py"
    for student, words in {
            "device": "link to /dev/zero", "pipe": "a named pipe", "out": "a link to", "loop": "link to ..",
            "gone": "link to nowhere", "large": "too large (105 MB)", "linked": "a link to"}.items():
        assert words in said[student], said


def test_archives_are_bounded_and_lead_nowhere(tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../out.py", W8)
        archive.writestr("/abs.py", W8)
        archive.writestr("C:\\abs2.py", W8)
        archive.writestr("bomb.py", b"0" * (64 << 20))
        link = zipfile.ZipInfo("ex08.py")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("ex08_parameter_counts.py", W8)
    nested = zipped({N8: W8})
    for _ in range(6):
        nested = zipped({"deeper.zip": nested})
    make(tmp_path / "in", {"ada/a.zip": data.getvalue(), "bob/b.zip": nested,
                           "cy/c.zip": zipped({f"{i}.txt": "" for i in range(entries.MOST + 1)})})
    collection = grading.collect(tmp_path / "in")
    said = {s.name: c.where or c.problem or c.there for s, n, c in collection.hand_ins}
    assert said["ada"] == f"ada/a.zip/{N8}" and "more than 20,000 files" in said["cy"] and said["bob"]
    assert sorted(p.name for p in tmp_path.rglob("*.py")) == []
    assert {p.rsplit("/", 1)[1] for p in collection.strange} >= {"out.py", "abs.py", "abs2.py", "bomb.py", "ex08.py"}


def test_encrypted_archives_and_names_in_other_encodings(tmp_path):
    data = bytearray(zipped({N8: W8}))
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + offset] |= 1  # the bit that says encrypted
    unmarked = bytearray(zipped({"Übung_08.py": W8}))
    for mark, offset in ((b"PK\3\4", 7), (b"PK\1\2", 9)):
        unmarked[unmarked.index(mark) + offset] &= ~8  # the bit that says UTF-8
    make(tmp_path, {"ada/a.zip": bytes(data), "bob/b.zip": bytes(unmarked)})
    assert found(tmp_path, ["08"]) == {("ada", "08"): f"{N8} is encrypted", ("bob", "08"): "bob/b.zip/Übung_08.py"}


def test_a_notebook_gives_what_its_cells_define():
    cells = ("%matplotlib inline\nimport numpy as np\nnp.show()\n", "!pip install x\nRANK = 4\nprint(RANK)",
             "@cache\ndef f(x):\n    # why\n    return x\n\nf?\nf(3)", "while True: pass", "def broken(:", "x = = 1")
    code = choice.notebook_code(notebook(*cells))
    assert code == "import numpy as np\n\nRANK = 4\n\n@cache\ndef f(x):\n    # why\n    return x\n\ndef broken(:\n"
    for text in ("", "[]", '{"cells": 3}', '{"cells": [{}]}', "[" * 100_000):
        assert choice.notebook_code(text) is None


@pytest.mark.parametrize(("name", "says"), [
    ("a_1_2_b.py", ("a", "1", "", "b.py")), ("A B_7_assignsubmission_file_", ("A B", "7", "", "")),
    ("H_a_attempt_2024-01-15-12-30-45_b.py", ("H_a", "", "20240115123045", "b.py")),
    ("12-34 - A B - Jan 5, 2024 130 PM - b.py", ("A B", "12-34", "20240105133000", "b.py")),
])
def test_what_platforms_write(name, says):
    owner = names.owner(name)
    assert (owner.student, owner.id, owner.time, owner.rest) == says


def test_a_name_says_nothing_it_does_not_say():
    reader = names.Reader()
    for name in ("lora.py", "hw8.py", "week 8.py", "v8.py", "lora (8).py", "ada-8.py", "2008.py", "ex80.py"):
        assert not reader.exercises(name), name
    assert list(reader.exercises("ex08_and_ex09.py")) == ["08", "09"]
    assert names.owner("ada_ex08.py") is None and names.owner("alike 1") is None


def test_where_there_are_no_students(tmp_path):
    (tmp_path / "x.csv").write_text("")
    for path, words in ((tmp_path, "holds no folders"), (tmp_path / "x.csv", "is no folder and no .zip"),
                        (tmp_path / "no", "is no folder")):
        with pytest.raises(ValueError, match=words):
            grading.collect(path)
    (tmp_path / N8).write_text(W8)
    assert list(found(tmp_path)) == [(tmp_path.name, "08")]  # a class of one


def test_files_of_the_grader_s_own_are_left_aside(tmp_path):
    make(tmp_path, {f"ada/{N8}": W8, "grades.csv": "x", "grades_feedback/ada.txt": W8})
    ignored = [tmp_path / "grades.csv", tmp_path / "grades_feedback"]
    collection = grading.collect(tmp_path, (), ignored)
    assert [s.name for s, *_ in collection.hand_ins] == ["ada"] and not collection.strange


def test_paths_may_be_long(tmp_path):
    deep = Path(*["d" * 40] * 5)
    make(tmp_path, {f"ada/{deep}/{N8}": W8})
    assert found(tmp_path)["ada", "08"].endswith(N8)
