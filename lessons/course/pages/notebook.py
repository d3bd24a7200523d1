"""A lesson as a Jupyter notebook: a set-up cell, the cells of its page, and its exercise, to be checked there."""

import hashlib
import json

from ..checking import tasks
from . import scripts

SETUP = '''\
# Run this first. It finds the project that this notebook belongs to, or says what to do.
import importlib.util
import sys
from pathlib import Path

for folder in (Path.cwd(), *Path.cwd().parents):
    if (folder / "lora_np").is_dir() and (folder / "lessons").is_dir():
        sys.path.insert(0, str(folder))
        break
missing = [name for name in ("numpy", "matplotlib", "lora_np", "lessons")
           if not importlib.util.find_spec(name)]
if {"lora_np", "lessons"} & {*missing}:
    raise ModuleNotFoundError("lora_np is not here. Open this notebook in the folder of its lesson, or "
                              "run sys.path.insert(0, '/path/to/the/project') with the folder that "
                              "holds lora_np and lessons.")
if missing:
    raise ModuleNotFoundError(f"{' and '.join(missing)} must be installed: run "
                              f"%pip install {' '.join(missing)} in a cell, then restart the kernel.")
print(f"the project: {Path(importlib.util.find_spec('lessons').origin).parents[1]}")'''
TO_DO = "Write the functions in the next cell and run it. The cell after it checks them: run both as often as you like."
CHECK = '''\
from lessons.course.classroom.notebook import check, hint

check("{}")'''


def write(path, target, keep):
    """Write the notebook of a lesson. One that was changed goes to keep(target) first; returns what that returns."""
    cells = _cells(path)
    kept = keep(target) if target.exists() and _was_changed(target) else None
    target.write_text(_text(cells), encoding="utf-8", newline="\n")
    return kept


def _cells(path):
    """[(kind, source)] of a lesson's notebook."""
    number = path.parent.name[:2]
    cells = [("code", SETUP), *((cell.kind, cell.shown) for cell in scripts.parse(path) if cell.shown)]
    if number in tasks.names():
        stub = tasks.stubs()[tasks.names()[number]].rstrip().replace(
            f"Check your work with: python -m lessons check {number}", "The next cell checks your work.")
        cells += [("markdown", TO_DO), ("code", stub), ("code", CHECK.format(number))]
    return cells


def _text(cells):
    """Format 4.5, as JSON. The sum of the cells tells later whether somebody has changed them."""
    made = [{"cell_type": kind, "id": f"cell-{i}", "metadata": {}, "source": source.splitlines(True)}
            | ({"outputs": [], "execution_count": None} if kind == "code" else {})
            for i, (kind, source) in enumerate(cells)]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
                "language_info": {"name": "python"}, "lora_np": {"cells": _sum(cells)}}
    return json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=1,
                      ensure_ascii=False) + "\n"


def _was_changed(target):
    """Whether the cells of a notebook are others than those that it was written with."""
    try:
        notebook = json.loads(target.read_text(encoding="utf-8"))
        cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
        return notebook["metadata"]["lora_np"]["cells"] != _sum(cells)
    except (ValueError, KeyError, TypeError):  # whatever it is, it is not ours to throw away
        return True


def _sum(cells):
    return hashlib.sha256(json.dumps([list(cell) for cell in cells]).encode()).hexdigest()
