"""The table of grades: read in whatever form a spreadsheet or a teacher left it, and written without loss."""

import csv
import io
import re
import unicodedata
from pathlib import Path

from lora_np.checkpoint.atomic import atomic_write

from ..checking.transport import printable
from .entries import encoding

COLUMNS = ("student", "exercise", "status", "score", "passed", "total", "diagnosis", "seconds", "message", "sha256",
           "file")
NEEDED = {"student", "exercise", "status", "score", "sha256"}


class Table:
    """Rows of grades, {(student, exercise): row}, and the file that holds them.

    Where the file cannot be written, as while a spreadsheet has it open, the rows go into one beside it, and are put
    together again the next time.
    """

    def __init__(self, path):
        """Read what there is. Raises ValueError for a name or a file that is no table, or where there is no folder."""
        self.path = Path(path)
        self.beside = self.path.with_name(f"{self.path.stem}-new{self.path.suffix}")
        if self.path.suffix.lower() not in ("", ".csv", ".tsv", ".txt"):
            raise ValueError(f"{path}: a table of grades ends in .csv")
        if not self.path.absolute().parent.is_dir():
            raise ValueError(f"there is no folder {self.path.parent} for the table; make it first")
        if self.path.is_dir():
            raise ValueError(f"{path} is a folder; expected the name of a table such as grades.csv")
        self.rows, self.extra, self.saved_as, self._last = {}, [], None, b""
        self._adopt(self.path)
        if self.beside.exists():
            newer = self.rows
            self.rows = {}
            self._adopt(self.beside)
            self.rows = {**self.rows, **{key: row for key, row in newer.items()
                                         if row["sha256"] == self.rows.get(key, row)["sha256"]}}
        self._last = self._bytes()

    def _adopt(self, path):
        """Take the rows of a file, if it is there."""
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        rows, columns = parse(data, path)
        self.extra += [c for c in columns if c not in (*COLUMNS, *self.extra)]
        self.rows |= rows

    def find(self, student, exercise):
        """The row of a student and exercise; a spreadsheet may have changed the student's name (00123 to 123)."""
        if (student, exercise) in self.rows:
            return self.rows[student, exercise]
        same = [key for key in self.rows if key[1] == exercise and _loose(key[0]) == _loose(student)]
        return self.rows[same[0]] if len(same) == 1 else None

    def put(self, row):
        """Take a row in the place of what there is of its student and exercise; columns of the teacher's own stay."""
        old = self.find(row["student"], row["exercise"]) or {}
        self.rows.pop((old.get("student"), row["exercise"]), None)
        self.rows[row["student"], row["exercise"]] = {**{c: old.get(c, "") for c in self.extra}, **row}

    def set_aside(self, student, exercise):
        """Take out the row of a file that has changed; it stays, as not graded, where a teacher wrote columns to it."""
        if (old := self.find(student, exercise)) and any(old[c] for c in self.extra):
            self.put({**old, "status": "not_graded", "score": "", "passed": "", "message": "the file has changed"})
        elif old:
            del self.rows[old["student"], exercise]

    def save(self):
        """Write all rows to the file, or to the one beside it. Raises OSError where neither can be written.

        What was changed in the file by hand since it was read or written is kept.
        """
        self._take_changes()
        data = self._bytes()
        try:
            write(self.path, data)
            self.saved_as, self._last = self.path, data
            self.beside.unlink(missing_ok=True)
        except OSError:
            write(self.beside, data)
            self.saved_as = self.beside

    def _take_changes(self):
        """Rows that somebody changed in the file meanwhile, of files that are still the same."""
        try:
            data = self.path.read_bytes()
            if data == self._last:
                return
            now, before = parse(data, self.path)[0], parse(self._last, self.path)[0]
        except (OSError, ValueError):
            return
        for key, row in now.items():
            ours = self.rows.get(key)
            if row != before.get(key) and (ours is None or ours["sha256"] == row["sha256"]):
                self.rows[key] = row

    def _bytes(self):
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, [*COLUMNS, *self.extra], restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(self.rows[key] for key in sorted(self.rows))
        return text.getvalue().encode("utf-8-sig", "backslashreplace")  # with the mark that spreadsheets look for


def parse(data, path):
    """({(student, exercise): row}, columns) of a table in whatever form a spreadsheet saves it. Raises ValueError."""
    try:
        text = data.decode(encoding(data))
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    head = text.splitlines()[0] if text.strip() else ""
    try:
        reader = csv.DictReader(io.StringIO(text.replace("\0", ""), newline=""),
                                delimiter=max(",;\t", key=head.count))
        columns = [c for c in reader.fieldnames or [] if c]
        rows = [{c: row[c] or "" for c in columns} for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path} is not a table of grades ({error}); give another name with --out") from None
    if data and not NEEDED.issubset(columns):
        raise ValueError(f"{path} is not a table of grades: it has no column {min(NEEDED.difference(columns))}; give "
                         "another name with --out")
    found = {}
    for row in rows:
        number = re.fullmatch(r"(\d+)(?:[.,]0*)?", row["exercise"].strip())
        row["exercise"] = number[1].zfill(2) if number else row["exercise"]
        row["score"] = _number(row["score"])
        row |= {c: "" for c in COLUMNS if c not in row}
        found[row["student"], row["exercise"]] = row
    return found, columns


def _number(text):
    """A score with a point and two places, whatever a spreadsheet made of it."""
    try:
        return f"{float(text.replace(',', '.')):.2f}"
    except ValueError:
        return text


def folded(name):
    """A name as it is compared: without regard to case, to spaces, and to the form of its accents."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _loose(student):
    """A student's name as far as a spreadsheet leaves it alone."""
    return folded(student.lstrip("'")).lstrip("0") or "0"


def write(path, data):
    """Write a file, whole or not at all."""
    with atomic_write(path.absolute().parent) as create:
        create(path.name).write(data)


def cell(text, most=300):
    """A message for a table: one line, and no formula to a spreadsheet."""
    return label(" ".join(printable(text).split())[:most])


def label(text):
    """A name for a table, as it is but for what would be a formula to a spreadsheet."""
    return "'" + text if text.startswith(("=", "+", "-", "@")) else text
