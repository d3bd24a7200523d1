"""What a teacher wants to know of a class that has been graded."""

import re
from collections import Counter, defaultdict

from ..checking import tasks
from ..checking.source import Source
from . import choice
from .table import folded

STATUSES = ("pass", "fail", "not_started", "missing", "unreadable", "syntax_error", "import_error", "timeout", "crash",
            "not_graded")
COMPARED = 200_000  # characters of a file that is compared with others
MOST = 30           # lines of a list


def summary(rows, collection):
    """What a teacher wants to know of a class, as text."""
    numbers = sorted({r["exercise"] for r in rows})
    counts = {n: Counter(r["status"] for r in rows if r["exercise"] == n) for n in numbers}
    columns = [s for s in STATUSES if any(counts[n][s] for n in numbers)]
    people = {r["student"] for r in rows}
    out = [f"\n{len(people)} students, {len(numbers)} exercise{'s' * (len(numbers) != 1)}", "",
           " ".join(["exercise", *(f"{s.replace('_', ' '):>12}" for s in columns)])]
    out += [" ".join([f"{n:8}", *(f"{counts[n][s] or '':>12}" for s in columns)]) for n in numbers]
    if common := misconceptions(rows):
        out += ["", "Misconceptions, the most common first:"]
        for (number, name), n in common[:10]:
            known = misconception(number, name)
            out.append(f"  {n:>3}  {number} {name}: {known.sentence if known else ''}")
    return "\n".join(out + _equal_files(collection) + _not_graded(collection, people))


def misconceptions(rows):
    """[((exercise, id), number of students)], the most common first."""
    return sorted(Counter((r["exercise"], r["diagnosis"]) for r in rows if r["diagnosis"]).items(),
                  key=lambda item: (-item[1], item[0]))


def misconception(number, name):
    """The Misconception of an id in a table; None where its exercise has none of that id."""
    return next((m for task in tasks.load(number).tasks for m in task.misconceptions if m.id == name), None)


def title(number, name):
    """The name of a misconception as a text shows it."""
    known = misconception(number, name)
    return known.title if known else name.replace("-", " ")


def _equal_files(collection):
    """Who handed in equal files, and who the course's own solution; stubs and empty files are everybody's."""
    asked, bytes_, codes, official = choice.functions(), defaultdict(list), defaultdict(list), []
    solutions = {n: code(s.read_text(encoding="utf-8")) for n, folder in tasks.folders().items()
                 if (s := folder / "solution.py").exists()}
    for student, number, found in collection.hand_ins:
        text = found.file.text if found.file else ""
        if not text or choice.is_empty(text) or choice.is_stub(Source(text), asked[number]):
            continue
        bytes_[number, found.sha256].append(student.name)
        codes[number, code(text)].append(student.name)
        if code(text) == solutions.get(number):
            official.append(f"  {number}  {student.name}")
    same = [f"  {number}  {', '.join(sorted(some))}" for (number, _), some in sorted(bytes_.items()) if len(some) > 1]
    alike = [f"  {number}  {', '.join(sorted(some))}" for (number, _), some in sorted(codes.items()) if len(some) > 1]
    return [line for title, some in (
        ("Files that are equal byte for byte (a short function may well come out the same):", same),
        ("Files that are equal but for comments, blank lines and layout:", alike if set(alike) - set(same) else []),
        ("Files that are the course's own solution:", official)) if some for line in ("", title, *some)]


def code(text):
    """A file's code without comments, docstrings, blank lines and layout; of what is no Python, its words."""
    return (len(text) <= COMPARED and Source(text).plain()) or " ".join(re.sub(r"#.*", "", text).split())


def _not_graded(collection, people):
    """Who handed in nothing, whose names are hard to tell apart, and which files were left aside."""
    alike = defaultdict(set)
    for name in people:
        alike[folded(name)].add(name)
    left = [("Students of whom there is nothing to grade:", sorted(collection.without)),
            ("Students whose names differ in spaces, case or the form of accents alone:",
             [" / ".join(map(repr, sorted(some))) for some in alike.values() if len(some) > 1]),
            ("Of several files the newest was graded:",
             [f"{student.name} {number}: {found.where}; not {', '.join(found.others)}"
              for student, number, found in collection.hand_ins if found.others]),
            ("Files that were not understood:", collection.strange)]
    return [line for title, some in left if some for line in (
        "", title, *(f"  {one}" for one in some[:MOST]), *[f"  and {len(some) - MOST} more"] * (len(some) > MOST))]
