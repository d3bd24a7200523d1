"""Grade a class: find what each student handed in, run it, and write a row for each student and exercise."""

import atexit
import compileall
import contextlib
import functools
import re
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from .. import ROOT
from ..checking import judge, runner, tasks
from ..checking.transport import printable
from . import choice, entries, exports, feedback, names, report, students
from .table import cell, label

INTERVAL = 2  # seconds between two writings of the table
FAILED = "the checker itself failed"


@dataclass
class Collection:
    """What a class handed in. hand_ins: [(Student, number, Choice)]. without: students who handed in nothing at all.

    strange: files that are nobody's, or no exercise.
    """

    hand_ins: list
    strange: list = field(default_factory=list)
    without: list = field(default_factory=list)


def collect(folder, numbers=(), ignored=()):
    """The Collection in a folder or archive, of these exercises, or else of those of which somebody has a file.

    ignored: paths in it that are the grader's own. Raises ValueError where there are no students.
    """
    reader, asked = names.Reader(), choice.functions()
    found = [e for e in entries.collect(folder) if not (e.path and any(map(e.path.is_relative_to, ignored)))]
    people, loose = students.divide(found, reader, Path(folder).resolve().stem)
    if not people:
        raise ValueError(f"{folder} holds no folders; expected one for each student, with exercise files in it")
    chosen, strange = [], [e for e in loose if names.kind(e.name) or e.name.lower().endswith(choice.CLOSED)]
    for student in people:
        choices, odd = choice.choose(student, reader, asked)
        chosen.append((student, choices))
        strange += odd
    given = [n for n in asked if any(c[n].deliberate for _, c in chosen)] or [
        n for n in asked if any(c[n].file for _, c in chosen)]
    return Collection([(student, n, choices[n]) for student, choices in chosen for n in numbers or given or asked],
                      [printable("/".join(entry.parts)) for entry in strange],
                      [student.name for student, choices in chosen if not any(c.file for c in choices.values())])


def submissions(folder):
    """[(a student's name, number, Choice)] of every exercise that somebody handed in."""
    return [(student.name, number, found) for student, number, found in collect(folder).hand_ins]


def grade(collection, table, timeout, jobs, fresh=False, points=1.0):
    """Grade a Collection into a Table, and write what a teacher needs beside it. fresh: also what is graded already.

    Returns 0; 130 or so if it was stopped, and 1 if the table cannot be written: the same command goes on from there.
    """
    todo, kept = [], 0
    for student, number, found in collection.hand_ins:
        old = table.find(label(student.name), number)
        if old and not fresh and _stands(old, found, timeout):
            table.put({**old, "student": label(student.name)})
            kept += 1
        else:
            todo.append((student, number, found))
            table.set_aside(label(student.name), number)
    _say_what_is_kept(collection, table, kept)
    pages, status = {}, 0
    try:
        table.save()
        status = _grade_all(todo, table, pages, timeout, jobs)
        table.save()
    except OSError as error:
        print(f"{table.path} cannot be written ({error}), nor {table.beside}: stopped", file=sys.stderr)
        return 1
    wanted = [(label(student.name), number) for student, number, _ in collection.hand_ins]
    here = [table.rows[key] for key in sorted(wanted) if key in table.rows]
    if status:
        print(f"stopped; {table.saved_as} holds {len(here)} of {len(wanted)} rows, and the same command goes on from "
              "there")
        return status
    print(report.summary(here, collection))
    print("\n".join(["", f"{table.saved_as}: {len(table.rows)} rows",
                     *exports.export(table, here, collection, pages, points)]))
    if table.saved_as != table.path:
        print(f"\n{table.path} could not be written, as while it is open in a spreadsheet; all rows are in "
              f"{table.saved_as}. Close it and give the same command again.")
    return 0


def _say_what_is_kept(collection, table, kept):
    if kept:
        print(f"{kept} rows of {table.path} are of files that have not changed; --fresh grades them again")
    here = {(label(student.name), number) for student, number, _ in collection.hand_ins}
    others = len(set(table.rows) - here)
    if others:
        print(f"{others} rows of {table.path} are of other students or exercises, and stay as they are")


def _grade_all(todo, table, pages, timeout, jobs):
    """Grade what there is to do, and save the table from time to time. Returns the exit status if it was stopped."""
    pool, root, saved, done = ThreadPoolExecutor(jobs), course_without_solutions(), time.monotonic(), 0
    futures = [pool.submit(_row, *one, timeout, root) for one in todo]
    try:
        for future in as_completed(futures):
            row, page = future.result()
            table.put(row)
            pages[row["student"], row["exercise"]] = page
            done += 1
            if time.monotonic() - saved > INTERVAL or done == len(futures):
                table.save()
                saved = time.monotonic()
                print(f"  {done} of {len(futures)}: {row['student']} {row['exercise']} {row['status']}",
                      file=sys.stderr, flush=True)
    except (KeyboardInterrupt, SystemExit) as error:  # Ctrl-C, or an end from outside
        return error.code if isinstance(error, SystemExit) and error.code else 130
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        if done < len(futures):
            runner.stop()
    return 0


def _stands(old, found, timeout):
    """Whether a row still says what a file is worth."""
    limit = re.search(r"within ([\d.]+) s", old["message"])
    return old["sha256"] == found.sha256 and old["status"] != "not_graded" and FAILED not in old["message"] and not (
        old["status"] == "timeout" and timeout > float(limit[1] if limit else old["seconds"] or 0)) and (
        found.file is not None or float(old["score"] or 0) > 0)


def _row(student, number, found, timeout, root):
    """(row, page for the student) of one hand-in. Whatever goes wrong becomes a row, too."""
    start, exercise = time.perf_counter(), tasks.load(number)
    row = {"student": label(student.name), "exercise": number, "score": "0.00", "passed": 0, "total": exercise.total,
           "diagnosis": "", "message": "", "sha256": found.sha256, "file": cell(found.where)}
    page = ""
    try:
        if found.file:
            with _staged(found) as file:
                verdict = judge.verdict(exercise, file, timeout, printable(found.name), root)
            others = f"graded is the newest of {len(found.others) + 1} files" if found.others else ""
            message = "; ".join(filter(None, (cell(feedback.headline(verdict), 280), others)))
            row |= {"status": verdict.status, "score": f"{verdict.passed / exercise.total:.2f}",
                    "passed": verdict.passed, "diagnosis": verdict.diagnosis, "message": cell(message, 400)}
            page = feedback.page(exercise, verdict, found.where)
        else:
            row |= {"status": "unreadable" if found.problem else "missing", "message": cell(_nothing(exercise, found))}
    except runner.CannotRun as error:
        row |= {"status": "not_graded", "score": "", "passed": "", "message": cell(f"it could not be run: {error}")}
    except Exception as error:
        row |= {"status": "crash", "message": cell(f"{FAILED}: {type(error).__name__}: {error}")}
    row["seconds"] = f"{time.perf_counter() - start:.2f}"
    return row, page or f"{exercise.number} {exercise.title}: {row['message']}"


def _nothing(exercise, found):
    """Why there is nothing to grade."""
    if found.problem:
        return found.problem
    if found.there:
        return f"there is no file that is clearly exercise {exercise.number}; there is " + ", ".join(found.there[:6])
    return f"there is no file {exercise.name}.py"


@contextlib.contextmanager
def _staged(found):
    """The path of a file that is real, and as Python reads it."""
    entry = found.file.entry
    if entry.path and names.kind(entry.name) == "py":
        yield entry.path
        return
    notebook = names.kind(entry.name) == "ipynb"
    try:
        folder = tempfile.TemporaryDirectory(prefix="hand-in-", ignore_cleanup_errors=True)
        path = Path(folder.name) / "exercise.py"
        path.write_bytes(found.file.text.encode("utf-8", "replace") if notebook else found.file.data)
    except OSError as error:
        raise runner.CannotRun(str(error)) from None
    with folder:
        yield path


@functools.cache
def course_without_solutions():
    """A copy of the course in which files are run, so that no solution stands beside the code that runs them."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="course-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        left_out = shutil.ignore_patterns("solution*", "lesson.py", "ex[0-9][0-9]*", "*.md", "__pycache__", ".*")
        for part in ("lora_np", "lessons"):
            shutil.copytree(ROOT / part, folder / part, ignore=left_out)
        compileall.compile_dir(folder, quiet=2)
        return folder
    except OSError:  # no room: then the files that are graded say so, too
        return ROOT
