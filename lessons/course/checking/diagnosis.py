"""Which misconception an answer comes from.

One is named where every answer is the one that it gives, on at least two inputs on which that is wrong; otherwise
nothing is guessed.
"""

import json
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from . import compare
from .transport import encode

EVIDENCE = 2


@dataclass
class Outcome:
    """What one call gave: a value, or the error that it raised."""

    value: object = None
    error: dict | None = None
    record: dict = field(default_factory=dict)


@cache
def expected(task, i, seed):
    """(arguments, Outcome) of the reference."""
    arguments = task.checks[i].arguments(seed)
    check = task.checks[i]
    right = _perform(check, task.reference, arguments) if check.raises else Outcome(
        check.perform(task.reference, arguments))
    return check.arguments(seed), right


@cache
def predicted(task, known, i, seed):
    """The Outcome that a misconception gives."""
    return _perform(task.checks[i], known.wrong, task.checks[i].arguments(seed))


def _perform(check, function, arguments):
    with np.errstate(all="ignore"):
        try:
            return Outcome(check.perform(function, arguments))
        except Exception as error:
            return Outcome(None, {"type": type(error).__name__, "text": str(error)})


def diagnose(task, outcomes):
    """The Misconception that gives all of these outcomes {(index of the check, seed): Outcome}, or None."""
    return next((known for known in task.misconceptions if fits(task, known, outcomes)), None)


def fits(task, known, outcomes):
    """Whether a misconception gives all of these outcomes, and is wrong on enough different inputs to tell."""
    evidence = set()
    for (i, seed), outcome in outcomes.items():
        theirs = predicted(task, known, i, seed)
        if not _alike(task, i, seed, outcome, theirs):
            return False
        if not theirs.error and not _alike(task, i, seed, theirs, expected(task, i, seed)[1]):
            evidence.add(json.dumps([encode(a) for a in task.checks[i].arguments(seed)]))
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
