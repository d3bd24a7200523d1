"""Which misconception an answer comes from.

One is named where every answer is the one that it gives, on at least two inputs on which that is wrong, and where the
code that it speaks of stands in the file. Where two explain the answers, the one whose code is there; otherwise nothing
is guessed.
"""

import json
import re
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from . import compare
from .tasks import Misconception
from .transport import decode, encode

EVIDENCE = 2
MUTABLE_DEFAULT = Misconception(
    "mutable-default", None, "A default value is made once, when the function is defined, and all calls share it: what "
    "one call puts in, the next one finds. Make the list or dict inside the function.",
    "call the function twice in the same way, and print the default before each call.")


@dataclass
class Outcome:
    """What one call gave: a value, or the error that it raised."""

    value: object = None
    error: dict | None = None
    record: dict = field(default_factory=dict)


@cache
def expected(task, i, seed):
    """(arguments, Outcome) of the reference."""
    check = task.checks[i]
    right = _perform(check, task.reference, check.arguments(seed))
    if right.error and not check.raises:
        raise RuntimeError(f"the reference of {task.name} fails at {check.name}: {right.error}")
    return check.arguments(seed), right


@cache
def predicted(task, known, i, seed):
    """The Outcome that a misconception gives."""
    return _perform(task.checks[i], known.wrong, task.checks[i].arguments(seed))


def _perform(check, function, arguments):
    with np.errstate(all="ignore"):
        try:
            return Outcome(decode(encode(check.perform(function, arguments))))
        except Exception as error:
            return Outcome(None, {"type": type(error).__name__, "text": str(error)})


def diagnose(task, outcomes, code=None):
    """The Misconception that gives all of these outcomes {(index of the check, seed): Outcome}, or None.

    code: the function's own code, where it is known; a misconception that speaks of code has to be seen in it.
    """
    found = [known for known in task.misconceptions
             if (code is None or re.search(known.source, code)) and fits(task, known, outcomes)]
    seen = [known for known in found if known.source and code is not None]
    return next((some[0] for some in (found, seen) if len(some) == 1), None)


def fits(task, known, outcomes):
    """Whether a misconception gives all of these outcomes, and is wrong on enough different inputs to tell."""
    evidence = set()
    for (i, seed), outcome in outcomes.items():
        theirs = predicted(task, known, i, seed)
        if not _alike(task, i, seed, outcome, theirs):
            return False
        if not theirs.error and not _alike(task, i, seed, theirs, expected(task, i, seed)[1]):
            inputs = json.dumps([encode(a) for a in task.checks[i].arguments(seed)])
            evidence.add((inputs, seed if '"other"' in inputs else ""))
    return len(evidence) >= EVIDENCE


def _alike(task, i, seed, a, b):
    """Whether two outcomes are equal as far as check i looks. Errors are alike if they are of one type."""
    if a.error or b.error:
        return bool(a.error and b.error) and a.error["type"] == b.error["type"]
    check, (arguments, right) = task.checks[i], expected(task, i, seed)
    if not check.properties or right.error:
        return compare.same(a.value, b.value, check.exact)
    signatures = [compare.signature(v) for v in (a.value, b.value, right.value)]
    if signatures[0] == signatures[1] == signatures[2]:
        return compare.same(check.properties(a.value, *arguments), check.properties(b.value, *arguments))
    return signatures[0] == signatures[1]
