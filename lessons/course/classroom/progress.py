"""What a student has done so far: the hints they have taken and backups of their files, in .progress/."""

import json
import os
import time

from .. import ROOT
from ..checking import tasks

FOLDER = ROOT / ".progress"
RUNGS = 4


def _read():
    try:
        taken = json.loads((FOLDER / "hints.json").read_text(encoding="utf-8"))
        return taken if isinstance(taken, dict) else {}
    except (OSError, ValueError):
        return {}


def hints_taken(exercise, task):
    """How many hints on a function were shown."""
    taken = _read().get(f"{exercise.number} {task.name}", 0)
    return taken if isinstance(taken, int) else 0


def next_hint(exercise, task, keep=True):
    """(number, text) of the next hint on a function, which then counts as taken (keep); the last stays the last."""
    rung = min(hints_taken(exercise, task) + 1, RUNGS)
    if keep:
        FOLDER.mkdir(exist_ok=True)
        partial = FOLDER / "hints.json.partial"
        partial.write_text(json.dumps({**_read(), f"{exercise.number} {task.name}": rung}, indent=1), encoding="utf-8",
                           newline="\n")
        os.replace(partial, FOLDER / "hints.json")
    return rung, task.hints[rung - 1] if rung < RUNGS else _solution(exercise, task)


def _solution(exercise, task):
    if not exercise.solution.exists():
        return "The solution is not in this copy of the course; ask for it."
    lines = exercise.solution.read_text(encoding="utf-8").splitlines()
    line = next(i for i, text in enumerate(lines, 1) if text.startswith(f"def {task.name}("))
    return (f"The solution is lessons/{exercise.folder.name}/{exercise.solution.name}, line {line}. Read it, close it, "
            "and write yours from memory.")


def reset(exercise):
    """Put the stub in the place of a student's file. Returns the path of its backup; None if there was none to make."""
    stub, kept = tasks.stubs()[exercise.name], None
    if exercise.file.exists() and _text(exercise.file) != stub.encode():
        kept = backup(exercise.file, exercise.name)
    exercise.file.write_text(stub, encoding="utf-8", newline="\n")
    return kept


def _text(file):
    """What a file holds, whatever an editor or a checkout has made of its line ends and its first bytes."""
    return file.read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")


def backup(file, name):
    """Keep a copy of a file, under a name and the time. Returns its path."""
    (FOLDER / "backups").mkdir(parents=True, exist_ok=True)
    stamp, n = time.strftime("%Y%m%d-%H%M%S"), 0
    copy = FOLDER / "backups" / f"{name}.{stamp}{file.suffix}"
    while copy.exists():
        n += 1
        copy = copy.with_name(f"{name}.{stamp}-{n}{file.suffix}")
    copy.write_bytes(file.read_bytes())
    return copy
