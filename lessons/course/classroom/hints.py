"""What `python -m lessons hint` says, and hint in a notebook."""

import re
import textwrap

from . import feedback, progress


def page(exercise, verdict=None, name=None, code="", file="the file"):
    """The next hint on a function: the one that is named, or the first that the verdict finds not to work yet.

    Of a file that does not run it says why, and gives the hint that is next on the function in which it stops, else on
    the first one; none is used up. code: the text of the file; file: what to call it. Raises ValueError where there is
    no such function.
    """
    functions = {task.name: task for task in exercise.tasks}
    if name not in (None, *functions):
        raise ValueError(f"exercise {exercise.number} has no function {name}; there are {', '.join(functions)}")
    if name or verdict.first:
        return _rung(exercise, functions[name or verdict.first.name])
    title = f"{exercise.number} {exercise.title}"
    if verdict.status == "pass":
        return f"{title}: done, there is nothing left to hint at"
    if verdict.status == "missing":
        return (f"{title}: {feedback.headline(verdict)}\n\n"
                f"The exercise to start from: python -m lessons reset {exercise.number}")
    what = "cannot be read as Python" if verdict.status == "syntax_error" else "does not run to its end"
    return (f"{title}: {file} {what}; mend this first:\n\n{_indented(feedback.headline(verdict))}\n\n"
            + _rung(exercise, functions[_around(verdict.line, code, functions)], keep=False))


def _rung(exercise, task, keep=True):
    number, text = progress.next_hint(exercise, task, keep)
    return f"{exercise.number} {task.name}, hint {number} of {progress.RUNGS}:\n\n{_indented(text)}\n"


def _around(line, code, functions):
    """The function in which a line stands, going by the last `def` before it; else the first of all."""
    above = [m[1] for text in code.splitlines()[:line] if (m := re.match(r"def\s+(\w+)", text)) and m[1] in functions]
    return above[-1] if above else next(iter(functions))


def _indented(text):
    return textwrap.fill(text, feedback.WIDTH, initial_indent="    ", subsequent_indent="    ")
