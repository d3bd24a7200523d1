"""Exercises in a notebook: check what its cells have defined, with the words of `python -m lessons check`.

    from lessons.course.classroom.notebook import check, hint
    check("03")
"""

import ast
import builtins
import contextlib
import tempfile
import textwrap
from pathlib import Path

from ..checking import judge, tasks
from . import feedback, progress

SHOWN = "your cell"


def check(number, verbose=False, timeout=10):
    """Check the functions of an exercise as they were defined last, in the cell that came with it or in a later one."""
    exercise, verdict = _judged(number, timeout)
    if verdict:
        text = feedback.page(exercise, verdict, SHOWN, verbose)
        print(text.replace(f"python -m lessons hint {number}", f'hint("{number}")')
              .replace(f"python -m lessons check {number} -v", f'check("{number}", verbose=True)'))


def hint(number, timeout=10):
    """One more hint on the first function of an exercise that does not work yet."""
    exercise, verdict = _judged(number, timeout)
    if verdict and verdict.first:
        task = next(t for t in exercise.tasks if t.name == verdict.first.name)
        at, text = progress.next_hint(exercise, task)
        print(f"{exercise.number} {task.name}, hint {at} of {progress.RUNGS}:\n\n" + textwrap.fill(text, 110))
    elif verdict:
        print(f"{exercise.number} {exercise.title}: "
              + ("done, there is nothing left to hint at" if verdict.status == "pass" else feedback.headline(verdict)))


def _judged(number, timeout):
    """The exercise, and the verdict on what the notebook defines; None, after saying why, where that is nothing."""
    exercise = tasks.load(str(number).zfill(2))
    cells = _cells(f'"""Exercise {exercise.number}:')
    if not cells:
        print(f'Nothing to check yet: run the cell that begins with """Exercise {exercise.number}, then this one.')
        return exercise, None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{exercise.name}.py"
        file.write_text(_defined([task.name for task in exercise.tasks], cells), encoding="utf-8", newline="\n")
        return exercise, judge.verdict(exercise, file, timeout, SHOWN)


def _cells(start):
    """The cells that were run, from the first that begins so: the lesson has functions of the same names before it."""
    try:
        from IPython import get_ipython
        cells = get_ipython().user_ns["In"]
    except (ImportError, AttributeError, KeyError):
        raise RuntimeError("this checks the cells of a notebook; elsewhere use: python -m lessons check") from None
    return cells[next((i for i, cell in enumerate(cells) if cell.lstrip().startswith(start)), len(cells)):]


def _defined(names, cells):
    """The source of these names and of all that they use: of each the statement that bound it last, in order."""
    bound = {}  # name -> (where, statement, its source)
    for i, cell in enumerate(cells):
        with contextlib.suppress(SyntaxError):  # Jupyter has shown it
            for statement in ast.parse(cell).body:
                for name in _binds(statement):
                    bound[name] = (i, statement.lineno), statement, _source(cell, statement)
    needed, wanted = {}, [*names]
    while wanted:
        where, statement, source = bound.get(wanted.pop(), (None, None, None))
        if source is not None and where not in needed:
            needed[where] = source
            wanted += {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)} - {*dir(builtins)}
    return "\n\n\n".join(needed[where] for where in sorted(needed)) + "\n"


def _binds(statement):
    """The names that a statement at the top of a cell gives a meaning to."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return [statement.name]
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).split(".")[0] for alias in statement.names]
    return [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def _source(cell, statement):
    first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))])
    return "\n".join(cell.splitlines()[first - 1:statement.end_lineno])
