"""What is wrong with one call of a student's function, in a sentence."""

import difflib
import re
from dataclasses import dataclass

import numpy as np

from . import compare, describe
from .diagnosis import MUTABLE_DEFAULT, expected
from .tasks import EXAMPLE

SHORT = 160  # characters of numbers that are shown in full
CLEARER = (  # what NumPy says, and what a beginner understands
    (r"matmul: .*\(size (\d+) is different from (\d+)\)", r"matmul: the inner sizes \2 and \1 differ"),
    (r"Use a\.any\(\) or a\.all\(\)", "Use a.any() or a.all(), or a is not None where a may be None"))


@dataclass
class Problem:
    """fact: what is wrong; "" where the function is not started. check and inputs: at what.

    plain: it is a mistake of Python and not of LoRA. known: the Misconception that it shows by itself. stop: it did not
    come to its end. unsteady: it was right, and not so when called again. numbers: what came and what should have.
    """

    check: str
    fact: str
    inputs: str = ""
    plain: bool = False
    known: object = None
    stop: bool = False
    unsteady: bool = False
    numbers: str = ""
    trace: str = ""
    printed: str = ""


def chosen(found):
    """(the Problem to show, a sentence on the example if that fails too) of {(check, seed): Problem or None}.

    A call that did not end comes first, and what gives another result from the second call on; then the checks in their
    order, whose inputs tell more mistakes apart than the few numbers of an example; the example where it alone fails.
    """
    calls = [problem for (_, seed), problem in found.items() if problem and seed != EXAMPLE]
    examples = [problem for (_, seed), problem in found.items() if problem and seed == EXAMPLE]
    earliest = next(problem for problem in found.values() if problem)
    first = next((p for p in calls + examples if p.stop), earliest if earliest.unsteady else (calls + examples)[0])
    also = next((p for p in examples if p is not first and p.fact and not p.plain and not p.stop), None)
    return first, f"with {also.inputs}: {also.numbers or also.fact}" if also else ""


def find(task, i, seed, outcome, run, source):
    """The Problem of one call, or None. run: the Run that it belongs to. source: the file's Source, if there is one."""
    check, record = task.checks[i], outcome.record
    arguments, right = expected(task, i, seed)
    name = "the example in its docstring" if seed == EXAMPLE else check.name
    inputs = describe.inputs(task.reference, arguments, describe.written if seed == EXAMPLE else None)

    def problem(fact, **more):
        return Problem(name, fact, **{"inputs": inputs, "printed": record.get("printed", ""), **more})

    if record.get("unmade"):
        stop = run.stopped.get(task.name)
        where = f"; it was at line {stop.line}{_quoted(source, stop.line)}" if stop and stop.line else ""
        return problem(f"it {stop.text}{where}", stop=True) if stop else problem("it was not called", plain=True)
    if record.get("missing"):
        return problem(_missing(task.name, run, source), inputs="", plain=True)
    if outcome.error:
        return _of_error(task, check, arguments, outcome.error, right, source, problem)
    if right.error:
        return problem(f"it returned {describe.show(outcome.value)}, expected it to raise {right.error['type']}")
    if "odd" in record:
        wanted = _returned(check, task.reference, check.arguments(seed))
        found = compare.difference(outcome.value, wanted, task.returns)
        return problem(found[1] if found else f"it returned {describe.show(outcome.value)}", plain=True)
    return _of_value(task, check, arguments, outcome, right, source, problem)


def _of_value(task, check, arguments, outcome, right, source, problem):
    value, record = outcome.value, outcome.record
    if value is None and right.value is not None:
        line, printed = record.get("returned"), record.get("printed", "").strip()
        if printed and not line:
            return problem("it prints its result instead of returning it", plain=True)
        return problem(f"it returns None in line {line}{_quoted(source, line)}" if line else
                       "it returns None; is a return missing?", plain=not line)
    fact = _difference(task, check, arguments, value, right.value)
    if fact:
        given, wanted = describe.written(value), describe.written(right.value)
        return problem(fact, numbers="" if check.properties or len(given + wanted) > SHORT else
                       f"it gives {given}, expected {wanted}")
    if record.get("changed"):
        changed = ", ".join(describe.parameters(task.reference)[n] for n in record["changed"])
        arrays = all(isinstance(arguments[n], np.ndarray) for n in record["changed"])
        advice = "make new arrays" if arrays else "make a copy and change that"
        return problem(f"it changes its argument {changed}, which belongs to the caller; {advice}")
    if record.get("again") is False:
        shared = source.mutable_default(task.name) if source else None
        why = f": all calls share the default {shared}" if shared else ""
        if source and "rng" in describe.parameters(task.reference) and "np.random." in source.code(task.name):
            why = ": draw from the rng that is given, and not from np.random"
        return problem(f"called again with the same arguments, it gives another result{why}", plain=True,
                       unsteady=True, known=MUTABLE_DEFAULT if shared else None)
    return None


def _of_error(task, check, arguments, error, right, source, problem):
    if error["type"] == "NotImplementedError":
        return _not_implemented(task, error, source, problem)
    if right.error and right.error["type"] in error.get("kinds", [error["type"]]) and error["type"] != "RecursionError":
        word = check.says(*arguments) if check.says else ""
        return None if word in error["text"] else problem(
            f"it raises {right.error['type']}, but its text does not name {word}")
    return problem(_raised(error, right), trace=error.get("trace", ""))


def _not_implemented(task, error, source, problem):
    inside = error.get("inside") or task.name
    if inside != task.name and source and inside in source.functions:
        return problem(f"it calls {inside}, which is not written yet (line {error['line']})", plain=True)
    lines = source.forgotten_raise(task.name) if source else None
    if not lines:
        return problem("")
    where = "before" if lines[0] < lines[1] else "after"
    return problem(f"raise NotImplementedError still stands in line {lines[0]}, {where} your code in line {lines[1]}: "
                   "delete it", inputs="", plain=True)


def _missing(name, run, source):
    fact = f"there is no function {name} in the file"
    if name in run.names:
        return f"{fact}: {name} is there, and is no function"
    if source and (nested := source.nested(name)):
        return f"{fact} itself: it stands inside {nested[1]} (line {nested[0]}); indent it less"
    there = [other for other, own in run.names.items() if own]
    near = difflib.get_close_matches(name, there, 1, 0.7)
    return f"{fact}; is {near[0]} meant?" if near else f"{fact}; there are {', '.join(there[:6])}" if there else fact


def _quoted(source, line):
    text = source.line(line) if source and line else ""
    return f" ({text[:100]})" if text else ""


def _returned(check, function, arguments):
    """What a function gave back last while a check was performed with it."""
    returned = []
    check.perform(lambda *a: returned.append(function(*a)) or returned[-1], arguments)
    return returned[-1]


def _raised(error, right):
    where = f"line {error['line']} ({error['code']}) " if error.get("line") else ""
    if error["type"] == "SystemExit":
        return f"{where}ends Python instead of returning"
    if "read-only" in (error["text"] or ""):
        return (f"{where}changes an array in place that is read-only, as p.data is: give it a new one, "
                "p.data = p.data - …")
    wanted = f"; expected {right.error['type']}" if right.error else ""
    text = error["text"] or "no message"
    for pattern, clearer in CLEARER:
        text = re.sub(pattern, clearer, text)
    return f"{where}raised {error['type']}: {text}".splitlines()[0] + wanted


def _difference(task, check, arguments, value, right):
    found = compare.difference(value, right, check.returns or task.returns, check.exact)
    if check.properties and not (found and found[0] in ("type", "shape")):
        return compare.properties(check.properties(value, *arguments), check.properties(right, *arguments))
    if found and found[0] == "value" and check.parts and " right in " in found[1]:
        clear = [describe.sharp(g, w, name) for (name, w), g in zip(
            check.parts(right, *arguments).items(), check.parts(value, *arguments).values(), strict=True)
            if not compare.same(g, w)]
        return next(filter(None, clear), found[1])
    return found[1] if found else None
