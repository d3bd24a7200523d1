"""What an exercise is, as data: functions to write, and for each its checks, hints and known misconceptions.

A lesson's checks.py declares its exercise. worker.py calls a student's functions on the inputs, in a
process of their own; judge.py compares what came out, in another. Stubs are made from the solutions here.
"""

import importlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from .. import LESSONS
from .compare import Measured

__all__ = ["Check", "Exercise", "Measured", "Misconception", "Task"]

STUBS = LESSONS / "course" / "checking" / "stubs.json"
SEEDS, EXAMPLE = (0, 1), "example"


@dataclass(frozen=True, eq=False)
class Check:
    """One thing that is checked, on inputs drawn from two seeds.

    name: what, in words. inputs: rng -> tuple of arguments.
    example: () -> the arguments of the example in the function's docstring, which are tried before the others.
    also: the same for special cases, which are tried after them.
    call: (function, *arguments) -> what to compare, where that is more than what one call returns.
    returns: names of what is compared, where they are not those of the task.
    properties: (result, *arguments) -> {name: value} to compare, where more than one result is right; a bool, or a
    Measured with its number.
    parts: (result, *arguments) -> {name: array} in which a wrong result may be easier to describe.
    exact: bit for bit. raises: the right thing to do here is to raise an error, of the type that the reference raises.
    says: arguments -> what the text of that error has to contain.
    """

    name: str
    inputs: Callable
    example: Callable | None = None
    also: tuple = ()
    call: Callable | None = None
    returns: str | tuple | None = None
    properties: Callable | None = None
    parts: Callable | None = None
    exact: bool = False
    raises: bool = False
    says: Callable | None = None

    @property
    def seeds(self):
        """What arguments takes: "example", seeds, and "case 0", "case 1", ..."""
        return (*[EXAMPLE] * (self.example is not None), *SEEDS, *(f"case {n}" for n in range(len(self.also))))

    def arguments(self, seed):
        """Fresh arguments; the same for the same seed."""
        if isinstance(seed, str):
            return self.example() if seed == EXAMPLE else self.also[int(seed.split()[1])]()
        return self.inputs(np.random.default_rng([seed, 2106, 9685]))

    def perform(self, function, arguments):
        """Call a function as this check does; returns what is to be compared."""
        return self.call(function, *arguments) if self.call else function(*arguments)


@dataclass(frozen=True, eq=False)
class Misconception:
    """A mistake with a name: a small wrong implementation, what is true instead, and an experiment that shows it.

    source: a regular expression that has to be found in the student's code, where the sentence speaks of code.
    called: the name in a text, where that is not the id.
    """

    id: str
    wrong: Callable
    sentence: str
    experiment: str
    source: str = ""
    called: str = ""

    @property
    def title(self):
        """The name as a text shows it: "W0 not kept"."""
        return self.called or self.id.replace("-", " ")


@dataclass(frozen=True, eq=False)
class Task:
    """One function to write. reference: another way to the right answer, under the same name and arguments.

    returns: the name of the result, or a tuple of names. hints: a question, the formula, a line with blanks.
    """

    reference: Callable
    returns: str | tuple
    checks: tuple
    hints: tuple
    misconceptions: tuple

    @property
    def name(self):
        return self.reference.__name__

    @cached_property
    def cells(self):
        """(index of the check, seed) of each call."""
        return [(i, seed) for i, check in enumerate(self.checks) for seed in check.seeds]


@dataclass(frozen=True, eq=False)
class Exercise:
    """The functions to write for a lesson, and where the files are."""

    number: str
    name: str
    title: str
    tasks: tuple
    folder: Path

    @property
    def total(self):
        return sum(len(task.checks) for task in self.tasks)

    @property
    def file(self):
        """Where a student works on it."""
        return self.folder / f"{self.name}.py"

    @property
    def solution(self):
        return self.folder / "solution.py"


def folders():
    """{"09": folder of the lesson} for each lesson that has an exercise, in order."""
    return {path.parent.name[:2]: path.parent for path in sorted(LESSONS.glob("[0-9][0-9]_*/checks.py"))}


def names():
    """{"09": "ex09_lora_layer"} for each exercise, in order; read and not imported, as that takes its time."""
    return {number: re.search(r'^NAME = "(\w+)"', (folder / "checks.py").read_text(encoding="utf-8"), re.M)[1]
            for number, folder in folders().items()}


def load(number):
    """The Exercise of a number such as "09". Raises ValueError for a number that no exercise has."""
    if number not in (known := folders()):
        raise ValueError(f"there is no exercise {number}; there are {', '.join(known)}")
    folder = known[number]
    module = importlib.import_module(f"lessons.{folder.name}.checks")
    return Exercise(number, module.NAME, module.TITLE, module.TASKS, folder)


def stub(solution):
    """A solution's text with each region from "# <solution>" to "# </solution>" replaced by NotImplementedError."""
    region = r"^( *)# <solution>\n.*?^\1# </solution>\n"
    return re.sub(region, r"\1raise NotImplementedError\n", solution, flags=re.S | re.M)


def stubs():
    """{"ex09_lora_layer": text of the stub}, as written by write_stubs; there also where solutions are not."""
    return json.loads(STUBS.read_text(encoding="utf-8")) if STUBS.exists() else {}


def write_stubs():
    """Make the stubs from the solutions. An exercise file that is more than a stub is left as it is.

    Returns a line for each exercise file.
    """
    old, new, lines = stubs(), {}, []
    for number, name in names().items():
        folder = folders()[number]
        if not (folder / "solution.py").exists():
            continue
        new[name] = text = stub((folder / "solution.py").read_text(encoding="utf-8"))
        path = folder / f"{name}.py"
        now = path.read_text(encoding="utf-8") if path.exists() else None
        shown = f"lessons/{folder.name}/{path.name}"
        if now in (None, old.get(name)) and now != text:
            path.write_text(text, encoding="utf-8", newline="\n")
            lines.append(f"{shown}: written")
        elif now != text:
            lines.append(f"{shown}: left as it is, because it is not the stub any more")
    if not new:
        return ["there are no solutions in this copy of the course, so the stubs stay as they are"]
    STUBS.write_text(json.dumps({**old, **new}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
    return lines or ["all stubs are up to date"]
