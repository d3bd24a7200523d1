"""Grade a class: one folder for each student, one row for each student and exercise."""

import csv
import hashlib
import io
import sys
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from lora_np.checkpoint.atomic import atomic_write

from ..checking import judge, runner, tasks
from . import feedback

COLUMNS = ("student", "exercise", "status", "score", "passed", "total", "diagnosis", "seconds", "message", "sha256")


def submissions(folder):
    """[(student, number, path of the file or None)]. Raises ValueError where there are no folders of students."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; expected one that holds a folder for each student")
    students = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))
    if not students:
        raise ValueError(f"{folder} holds no folders; expected one for each student, with exercise files in it")
    return [(student.name, number, _find(student, name)) for student in students
            for number, name in tasks.names().items()]


def _find(student, name):
    """A student's file of an exercise: of its own name and nearest to the top, or else the only one of its number."""
    named = sorted(student.rglob(f"{name}.py"), key=lambda p: (len(p.parts), p))
    return (named or (others if len(others := list(student.rglob(f"{name[:4]}[!0-9]*.py"))) == 1 else [None]))[0]


def read(table):
    """{(student, exercise): row} of an earlier run; empty if there is none.

    Raises ValueError for a file that is something else, or where there is no folder for it.
    """
    if not Path(table).exists():
        if not Path(table).absolute().parent.is_dir():
            raise ValueError(f"there is no folder {Path(table).parent} for the table; make it first")
        return {}
    with open(table, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{table} is not a table of grades; give another name with --out")
        return {(row["student"], row["exercise"]): row for row in rows}


def write(table, rows):
    """Write all rows, or leave the file as it was."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows[key] for key in sorted(rows))
    with atomic_write(Path(table).absolute().parent) as create:
        create(Path(table).name).write(text.getvalue().encode("utf-8-sig"))  # with the mark that spreadsheets look for


def _cell(text):
    """Text for a table cell: one line, and no formula to a spreadsheet."""
    text = " ".join(str(text).split())[:300]
    return "'" + text if text.startswith(("=", "+", "-", "@")) else text


def _row(student, number, path, timeout):
    """The row of one file. Whatever goes wrong becomes a row, too."""
    row = {"student": _cell(student), "exercise": number, "sha256": _sha256(path), "seconds": "0.00", "diagnosis": ""}
    start = time.perf_counter()
    try:
        exercise = tasks.load(number)
        name = f"{exercise.name}.py"
        verdict = judge.verdict(exercise, path or name, timeout, path.name if path else name)
        row |= {"status": verdict.status, "score": f"{verdict.passed / exercise.total:.2f}", "passed": verdict.passed,
                "total": exercise.total, "diagnosis": verdict.diagnosis, "message": _cell(feedback.headline(verdict))}
    except Exception as error:
        row |= {"status": "crash", "score": "0.00", "passed": 0, "total": tasks.load(number).total,
                "message": _cell(f"the checker itself failed: {type(error).__name__}: {error}")}
    row["seconds"] = f"{time.perf_counter() - start:.2f}"
    return row


def _sha256(path):
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() if path else ""
    except OSError:
        return ""


def grade(submissions, table, kept, timeout, jobs):
    """Grade all submissions into a table, with a figure beside it. kept: rows of an earlier run, by read.

    A row of the same file is not graded again. Returns 0, or 130 if it was stopped: the table then holds what there
    is, and the same command goes on from there.
    """
    rows, todo = {}, []
    for student, number, path in submissions:
        old = kept.get((_cell(student), number))
        if old and path and old["sha256"] == _sha256(path):
            rows[_cell(student), number] = old
        else:
            todo.append((student, number, path))
    if rows:
        print(f"{len(rows)} rows of {table} are of files that have not changed; --fresh grades them again")
    write(table, rows)
    stopped, last = False, time.monotonic()
    pool = ThreadPoolExecutor(jobs)
    futures = [pool.submit(_row, *one, timeout) for one in todo]
    try:
        for n, future in enumerate(as_completed(futures), start=1):
            row = future.result()
            rows[row["student"], row["exercise"]] = row
            if time.monotonic() - last > 2 or n == len(futures):
                last = time.monotonic()
                write(table, rows)
                now = f"{row['student']} {row['exercise']} {row['status']}"
                print(f"  {n} of {len(futures)}: {now}", file=sys.stderr, flush=True)
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C
        stopped = True
    pool.shutdown(wait=False, cancel_futures=True)
    if stopped:
        runner.stop()
        write(table, rows)
        print(f"stopped; {table} holds {len(rows)} of {len(submissions)} rows, and the same command goes on from there")
        return 130
    rows, drawing = [rows[key] for key in sorted(rows)], Path(table).with_suffix(".png")
    print(summary(rows))
    print(f"\n{table}: {len(rows)} rows" + (f"; {drawing}: the figure" if draw(rows, drawing) else ""))
    return 0


def _misconceptions(rows):
    """[((exercise, id), number of students)], the most common first."""
    return sorted(Counter((r["exercise"], r["diagnosis"]) for r in rows if r["diagnosis"]).items(),
                  key=lambda item: (-item[1], item[0]))


def identical(rows):
    """{(exercise, sha256): students} of files that several students handed in, other than the untouched stub."""
    stubs = {hashlib.sha256(text.encode()).hexdigest() for text in tasks.stubs().values()}
    same = defaultdict(list)
    for r in rows:
        if r["sha256"] and r["sha256"] not in stubs:
            same[r["exercise"], r["sha256"]].append(r["student"])
    return {key: students for key, students in sorted(same.items()) if len(students) > 1}


def summary(rows):
    """What a teacher wants to know of a class, as text."""
    exercises = sorted({r["exercise"] for r in rows})
    counts = {e: Counter(r["status"] for r in rows if r["exercise"] == e) for e in exercises}
    columns = ("pass", "fail", "not_started", "missing", "syntax_error", "import_error", "timeout", "crash")
    columns = [c for c in columns if any(counts[e][c] for e in exercises)]
    students = {r["student"] for r in rows}
    out = [f"\n{len(students)} students, {len(exercises)} exercise{'s' * (len(exercises) != 1)}", "",
           " ".join(["exercise", *(f"{c.replace('_', ' '):>12}" for c in columns)])]
    out += [" ".join([f"{e:8}", *(f"{counts[e][c] or '':>12}" for c in columns)]) for e in exercises]
    common = _misconceptions(rows)
    if common:
        out += ["", "Misconceptions, the most common first:"]
        for (number, name), n in common[:10]:
            known = next((m for t in tasks.load(number).tasks for m in t.misconceptions if m.id == name), None)
            out.append(f"  {n:>3}  {number} {name}: {known.sentence if known else ''}")
    if same := identical(rows):
        out += ["", "Files that are equal byte for byte (a short function may well come out the same):"]
        out += [f"  {number}  {', '.join(names)}" for (number, _), names in same.items()]
    return "\n".join(out)


def draw(rows, path):
    """A bar for each of the most common misconceptions. Returns whether there was one to draw."""
    common = _misconceptions(rows)[:8]
    if not common:
        return False
    from ..pages import figures  # Matplotlib: only where something is drawn
    (number, _), n = common[0]
    students = len({r["student"] for r in rows})
    fig, ax = figures.new("", width=11, height=1.8 + 0.5 * len(common))
    fig.suptitle(f"Exercise {number}: {n} of {students} students have one misconception in common", x=0.01, ha="left",
                 fontweight="bold", fontsize=15)
    labels = [f"{number}  {name.replace('-', ' ')}" for (number, name), _ in common][::-1]
    ax.barh(labels, [n for _, n in common][::-1], color=figures.FULL)
    for i, (_, n) in enumerate(common[::-1]):
        figures.label(ax, n, i, str(n), figures.INK)
    ax.set(xlabel="students with this misconception")
    ax.grid(False)
    ax.xaxis.get_major_locator().set_params(integer=True)
    figures.write(fig, Path(path))
    return True
