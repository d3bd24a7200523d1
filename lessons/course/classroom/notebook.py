"""Exercises in a notebook: check what its cells have defined, with the words of `python -m lessons check`.

    from lessons.course.classroom.notebook import check, hint
    check("03")
"""

import ast
import builtins
import re
import tempfile
from pathlib import Path

from ..checking import judge, tasks
from ..checking.source import first_line
from . import feedback, hints

SHOWN = "your cell"


def check(number, verbose=False, timeout=10):
    """Check the functions of an exercise as they were defined last, in the cell that came with it or in a later one."""
    exercise, verdict, written = _judged(number, timeout)
    if verdict:
        text, n = written.lines_of_cells(feedback.page(exercise, verdict, SHOWN, verbose)), exercise.number
        for command, here in ((f"python -m lessons hint {n}", f'hint("{n}")'),
                              (f"python -m lessons check {n} -v", f'check("{n}", verbose=True)'),
                              ("--timeout gives", f'check("{n}", timeout=60) gives')):
            text = text.replace(command, here)
        print(text)


def hint(number, name=None, timeout=10):
    """One more hint on a function of an exercise: the one that is named, or the first that does not work yet."""
    exercise, verdict, written = _judged(number, timeout)
    if verdict:
        print(written.lines_of_cells(hints.page(exercise, verdict, name, written.text, SHOWN)))


def _judged(number, timeout):
    """The exercise, the verdict on what the notebook defines, and that as Written; None, after a word, if nothing."""
    exercise = tasks.load(str(number).zfill(2))
    cells = _cells(f'"""Exercise {exercise.number}:')
    if not cells:
        print(f'Nothing to check yet: run the cell that begins with """Exercise {exercise.number}, then this one.')
        return exercise, None, None
    written = Written([task.name for task in exercise.tasks], cells)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{exercise.name}.py"
        file.write_text(written.text, encoding="utf-8", newline="\n")
        return exercise, judge.verdict(exercise, file, timeout, SHOWN), written


def _cells(start):
    """The cells that were run, from the first that begins so: the lesson has functions of the same names before it."""
    try:
        from IPython import get_ipython
        cells = get_ipython().user_ns["In"]
    except (ImportError, AttributeError, KeyError):
        raise RuntimeError("this checks the cells of a notebook; elsewhere use: python -m lessons check") from None
    return cells[next((i for i, cell in enumerate(cells) if cell.lstrip().startswith(start)), len(cells)):]


class Written:
    """The source of these names and of all that they use: of each the statement that bound it last, in order.

    Where the cell that was to define one of them last cannot be read as Python, it is that cell.
    """

    def __init__(self, names, cells):
        bound, broken = {}, {}  # name: (where, statement); name: cell
        for i, cell in enumerate(cells):
            try:
                statements = ast.parse(cell).body
            except SyntaxError:  # Jupyter has shown it
                broken |= dict.fromkeys(set(re.findall(r"^def\s+(\w+)", cell, re.M)) & {*names}, i)
                continue
            for statement in statements:
                for name in _binds(statement):
                    bound[name] = (i, first_line(statement)), statement
                    broken.pop(name, None)
        self.numbers = [0]  # the line of its cell that each line has, from line 1 on
        if broken:
            lines = cells[max(broken.values())].splitlines()
            self.text = self._put(lines, 1)
            return
        needed, wanted = {}, [*names]
        while wanted:
            where, statement = bound.get(wanted.pop(), (None, None))
            if where is not None and where not in needed:
                needed[where] = statement
                wanted += {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)} - {*dir(builtins)}
        self.text = "\n".join(self._put(cells[i].splitlines()[line - 1:needed[i, line].end_lineno], line)
                              for i, line in sorted(needed))

    def _put(self, lines, first):
        self.numbers += [*range(first, first + len(lines)), 0]  # an empty line follows
        return "\n".join(lines) + "\n"

    def lines_of_cells(self, text):
        """What is said of the file, with the lines that its cells have."""
        def there(found):
            elsewhere = found[1] and SHOWN not in found[1]
            line = int(found[3])
            return found[0] if elsewhere or line >= len(self.numbers) else (
                f"{found[1] or ''}line{found[2]}{self.numbers[line]}")

        return re.sub(r'(File "[^"]*", )?\bline(\s+)(\d+)(?=[\s,:;()]|$)', there, text)


def _binds(statement):
    """The names that a statement at the top of a cell gives a meaning to."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return [statement.name]
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return [(alias.asname or alias.name).split(".")[0] for alias in statement.names]
    return [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
