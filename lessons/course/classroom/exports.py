"""What is written beside the table of grades: a figure, a wide table for a platform, and a text for each student."""

import csv
import io
import re
import unicodedata
from pathlib import Path

from ..checking.transport import printable
from . import report
from .table import write

SECTION = re.compile(r"^== (\d\d)$", re.M)  # what an exercise begins with in a student's text


def paths(table):
    """(figure, wide table, folder of texts) beside a table: the grader's own, should they lie among the hand-ins."""
    return (table.with_suffix(".png"), table.with_name(f"{table.stem}_wide.csv"),
            table.with_name(f"{table.stem}_feedback"))


def export(table, here, collection, pages, points):
    """Write all three. here: the rows of this class. Returns what was written, or why it was not, in a line each."""
    figure, wide, folder = paths(table.path)
    ids = {student.name: student.id for student, *_ in collection.hand_ins}
    lines = []
    for path, what, make in (
            (figure, "the figure", lambda: draw(here, figure)),
            (wide, "a row a student, a column an exercise", lambda: write_wide(table.rows.values(), ids, wide, points)),
            (folder, "what check says, a text a student", lambda: write_texts(here, pages, folder))):
        try:
            lines += [f"{path}: {what}"] if make() else []
        except OSError as error:
            lines.append(f"{path} could not be written: {error.strerror}")
    return lines


def write_wide(rows, ids, path, points):
    """A row for each student, and a column for each exercise: the share of checks that pass, times points."""
    rows = list(rows)
    numbers = sorted({row["exercise"] for row in rows})
    scores = {(row["student"], row["exercise"]): row["score"] for row in rows}
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["student", "id", *numbers])
    for student in sorted({row["student"] for row in rows}):
        worth = [_points(scores.get((student, n), ""), points) for n in numbers]
        writer.writerow([student, ids.get(student, ""), *worth])
    write(path, text.getvalue().encode("utf-8-sig", "backslashreplace"))
    return True


def _points(score, points):
    try:
        return f"{float(score) * points:.2f}"
    except ValueError:
        return score


def write_texts(rows, pages, folder):
    """A text for each student: what check says of each exercise. pages: {(student, number): page} of this run.

    What an earlier run wrote of an exercise that was not graded again stays.
    """
    folder.mkdir(exist_ok=True)
    taken = set()
    for student in sorted({row["student"] for row in rows}):
        path = folder / f"{_file_name(student, taken)}.txt"
        old = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        parts = SECTION.split(old)[1:]
        sections = {n: text.strip() for n, text in zip(parts[::2], parts[1::2], strict=True)}
        for row in rows:
            if row["student"] == student:
                number, brief = row["exercise"], f"{row['status'].replace('_', ' ')}: {row['message']}"
                sections[number] = pages.get((student, number)) or sections.get(number) or brief
        text = "\n\n".join(f"== {n}\n{SECTION.sub('', sections[n])}" for n in sorted(sections))
        path.write_text(printable(f"{student}\n\n{text}\n"), encoding="utf-8", errors="backslashreplace",
                        newline="\n")
    return bool(taken)


def _file_name(student, taken):
    """A name that every file system takes, and that differs from the others in more than case."""
    name = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", student).strip(". ")[:100] or "_"
    if re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", name):
        name += "_"
    plain, n = name, 1
    while (key := unicodedata.normalize("NFKC", name).casefold()) in taken:
        n += 1
        name = f"{plain} ({n})"
    taken.add(key)
    return name


def draw(rows, path):
    """A bar for each of the most common misconceptions. Returns whether there was one to draw."""
    common = report.misconceptions(rows)[:8]
    if not common:
        return False
    from ..pages import figures  # Matplotlib: only where something is drawn
    exercises, ids, counts = zip(*((*key, n) for key, n in common), strict=True)
    titles = list(map(report.title, exercises, ids))
    students = len({r["student"] for r in rows})
    with figures.style():
        fig, ax = figures.new("", width=11, height=1.8 + 0.5 * len(common))
        fig.suptitle(f"Exercise {exercises[0]}: “{titles[0]}”, {counts[0]} of {students} students", x=0.01, ha="left",
                     fontweight="bold", fontsize=15)
        ax.barh(list(map("{}  {}".format, exercises, titles)), counts, color=figures.FULL)
        ax.invert_yaxis()
        for i, n in enumerate(counts):
            figures.label(ax, n, i, str(n), figures.INK)
        ax.set(xlabel="students with this misconception")
        ax.grid(False)
        ax.xaxis.get_major_locator().set_params(integer=True)
    figures.write(fig, Path(path))
    return True
