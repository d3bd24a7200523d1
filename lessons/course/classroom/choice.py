"""Which file of a student's is the one to grade, for each exercise; or what is there in its place.

It decides by what speaks for a file: that there is work in it and not the stub, a later attempt, the functions that it
defines, the lesson's own place, its name, and when it was changed.
"""

import ast
import hashlib
import json
import re
from dataclasses import dataclass, field

from ..checking import tasks
from ..checking.source import Source, first_line
from ..checking.transport import printable
from . import names
from .entries import LARGEST, Entry, Unreadable, encoding

DEFINED = re.compile(r"^[ \t]*(?:async[ \t]+)?def[ \t]+(\w+)|^(\w+)[ \t]*=[ \t]*lambda", re.M)
OWN_IMPORT = re.compile(r"^(?:from|import) lessons\.(?:course|checks)", re.M)  # what checks of the course begin with
OWN_MARK = re.compile(r"^ *# <solution>|^# %% \[markdown\]", re.M)              # what its solutions and lessons hold
OWN_PLACES = (("course",), ("checks",), ("solutions",))  # folders of lessons, in this or an older layout of the course
CLOSED = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".pdf", ".doc", ".docx", ".odt", ".rtf", ".pyc")
EMPTY, STUB, WORK = range(3)  # what is in a file, the better the larger


@dataclass(eq=False)
class Candidate:
    """A file that may be the one of an exercise. text: its code. key: what speaks for it.

    copied: it lies in a copy of the course.
    """

    parts: tuple
    entry: Entry
    data: bytes = b""
    text: str = ""
    defined: frozenset = frozenset()
    key: tuple = ()
    copied: bool = False


@dataclass(eq=False)
class Choice:
    """What is graded, or why nothing is. file: the Candidate or None. problem: why a file that is there cannot be read.

    there: names of what comes close to a file. others: further files with work in them. deliberate: somebody meant to
    hand this exercise in, and it did not only come along in a copy of the course.
    """

    file: Candidate | None = None
    problem: str = ""
    there: list = field(default_factory=list)
    others: list = field(default_factory=list)
    deliberate: bool = False

    @property
    def name(self):
        return self.file.entry.name if self.file else ""

    @property
    def where(self):
        """The path of the file in the collection."""
        return printable("/".join(self.file.entry.parts), keep="") if self.file else ""

    @property
    def sha256(self):
        return hashlib.sha256(self.file.data).hexdigest() if self.file else ""


def functions():
    """{number: names of the functions that an exercise asks for}, as its stub has them."""
    stubs = tasks.stubs()
    return {number: frozenset(Source(stubs.get(name, "")).functions) for number, name in tasks.names().items()}


def choose(student, reader, asked):
    """({number: Choice}, [Entry that is not understood]) of a Student. asked: functions()."""
    found, close, strange = {number: [] for number in asked}, {number: [] for number in asked}, []
    copies = {parts[:parts.index(part)] for parts, _ in student.entries for part in ("lora_np", "lessons")
              if part in parts[:-1]}
    for parts, entry in student.entries:
        if _belongs_to_the_course(parts, copies) or ((owner := names.owner(entry.name)) and not owner.rest):
            continue  # the second: a platform's receipt
        own, copied = reader.exercises(entry.name), any(parts[:len(copy)] == copy for copy in copies)
        candidate, unread = _read(parts, entry) if names.kind(entry.name) else (None, entry)
        if candidate:
            text = candidate.text
            if OWN_IMPORT.search(text) or (OWN_MARK.search(text) and "ex" not in entry.name.lower()):
                continue
            named = own or next((n for folder in parts[-2::-1] if (n := reader.exercises(folder))), {})
            held = {number for number, functions in asked.items()
                    if len(candidate.defined & functions) >= max(1, len(functions) / 2)}
            candidate.copied = copied
            for number in {*named, *held}:
                found[number].append(candidate)
            understood = named or held or is_empty(text)
        else:
            for number in own:
                close[number].append(unread)
            understood = not unread.problem and (own or not entry.name.lower().endswith(CLOSED))
        if not understood and not copied:
            strange.append(unread or entry)
    closed = [entry for entry in strange if entry.problem or not names.kind(entry.name)]
    return {number: _choice(number, found[number], close[number], closed, reader, asked[number])
            for number in asked}, strange


def _belongs_to_the_course(parts, copies):
    """Whether a file's place is that of one of the course's own, in a copy of the course or of a lesson."""
    folders, name = parts[:-1], parts[-1]
    if name.startswith("__") or (folders and re.match(r"\d\d_", folders[-1]) and name in ("lesson.py", "checks.py")):
        return True
    if "lessons" in folders and folders[folders.index("lessons") + 1:][:1] in OWN_PLACES:
        return True
    return any(parts[:len(copy)] == copy and parts[len(copy)] in ("lora_np", "tests") for copy in copies)


def _read(parts, entry):
    """(Candidate, None), or (None, Entry with what is wrong with it)."""
    try:
        data = entry.read() if not entry.problem else b""
    except Unreadable as error:
        return None, Entry(entry.parts, problem=str(error))
    if entry.problem or len(data) > LARGEST:
        return None, entry if entry.problem else Entry(entry.parts, problem="is too large")
    text = data.decode(encoding(data), "replace")
    if names.kind(entry.name) == "ipynb":
        text = notebook_code(text)
        if text is None:
            return None, Entry(entry.parts, problem="is no notebook that can be read")
    return Candidate(parts, entry, data, text, frozenset(a or b for a, b in DEFINED.findall(text))), None


def notebook_code(text):
    """What a notebook defines: imports, functions, classes and values of its code cells; None if it is no notebook.

    What else a cell does, such as printing or plotting, is left out, as are the commands that only a notebook knows.
    """
    try:
        cells = json.loads(text)["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return "\n\n".join(filter(None, map(_definitions, sources))) + "\n"


def _definitions(cell):
    cell = re.sub(r"^[ \t]*[%!?].*$|^.*\?\s*$", "", cell, flags=re.M)
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    try:
        tree = ast.parse(cell)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return cell if DEFINED.search(cell) else ""
    lines = cell.splitlines()
    return "\n".join("\n".join(lines[first_line(node) - 1:node.end_lineno])
                     for node in tree.body if isinstance(node, kept))


def _choice(number, found, close, closed, reader, functions):
    """The Choice among the Candidates of an exercise."""
    for candidate in found:
        candidate.key = _key(candidate, number, reader, functions)
    found.sort(key=lambda c: c.key, reverse=True)
    if not found:
        unread = next((entry for entry in [*close, *closed] if entry.problem), None)
        there = [printable(entry.name) for entry in close or closed]
        return Choice(problem=f"{printable(unread.name)} {unread.problem}" if unread else "", there=there,
                      deliberate=bool(close))
    best, *rest = found
    others = [c for c in rest if c.key[0] == WORK]
    rivals = [c for c in others if c.key[:2] == best.key[:2] and c.defined & functions - best.defined]
    if rivals and not best.defined >= functions:
        return Choice(there=[f"{printable(c.entry.name)} with {', '.join(sorted(c.defined & functions))}"
                             for c in (best, *rivals)], deliberate=True)
    return Choice(best, others=[printable("/".join(c.parts), keep="") for c in others],
                  deliberate=best.key[0] == WORK or not best.copied)


def _key(candidate, number, reader, functions):
    """What speaks for a candidate, the weightiest first."""
    parts, text = candidate.parts, candidate.text
    source = Source(text)
    written = candidate.defined & functions
    state = EMPTY if is_empty(text) else STUB if is_stub(source, functions) else WORK
    own_place = len(parts) > 1 and (bool(re.match(rf"0*{int(number)}_", parts[-2])) or parts[-3:-1] == (
        "lessons", "exercises"))
    named = number in reader.exercises(parts[-1])
    return (state, names.folder_version(parts[:-1]), bool(written), own_place, named,
            reader.version(parts[-1], number), candidate.entry.time, -len(parts), -len(parts[-1]))


def is_empty(text):
    """Whether a file holds nothing but comments and texts."""
    return not re.sub(r'#.*|"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'', "", text).strip()


def is_stub(source, functions):
    """Whether none of an exercise's functions has been begun."""
    there = functions & source.functions.keys()
    return bool(there) and all(source.is_stub(name) for name in there)
