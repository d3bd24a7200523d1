"""Whether a student's answers are right, and what is known about those that are not.

It works on what a worker wrote down; no code of the student's runs here.
"""

import inspect
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from . import compare, runner
from .diagnosis import Outcome, diagnose, expected
from .tasks import SEEDS
from .transport import decode


@dataclass
class TaskVerdict:
    """state: "done", "wrong" or "not started". passed: names of the checks that hold. check: the first that does not.

    fact: what is wrong, in one line. inputs: on what. known: the Misconception that this is, or None.
    """

    name: str
    state: str
    passed: list
    check: str = ""
    fact: str = ""
    inputs: str = ""
    known: object = None
    trace: str = ""
    printed: str = ""


@dataclass
class Verdict:
    """status: pass, fail, not_started, missing, syntax_error, import_error, timeout or crash.

    message: the first thing wrong, in one line.
    """

    status: str
    total: int
    tasks: list = field(default_factory=list)
    message: str = ""
    trace: str = ""
    printed: str = ""

    @property
    def passed(self):
        return sum(len(t.passed) for t in self.tasks)

    @property
    def first(self):
        """The first task that is not done, or None."""
        return next((t for t in self.tasks if t.state == "wrong"), None) or next(
            (t for t in self.tasks if t.state != "done"), None)

    @property
    def diagnosis(self):
        return self.first.known.id if self.first and self.first.known else ""


def verdict(exercise, file, timeout, shown):
    """Run a student's file and judge it. shown: its name in messages."""
    if not Path(file).is_file():
        return Verdict("missing", exercise.total, message=str(shown))
    return judge(exercise, runner.run(file, exercise.number, timeout, shown))


def judge(exercise, run):
    """The Verdict on a Run."""
    total = exercise.total
    if run.status in ("syntax_error", "import_error"):
        return Verdict(run.status, total, message=_failed(run), trace=run.error["trace"], printed=run.printed)
    cells = {(r["task"], r["check"], r["seed"]): r for r in run.records}
    if run.status in ("timeout", "crash"):
        name, i = run.at or ("import", 0)
        check = next((task.checks[i].name for task in exercise.tasks if task.name == name), None)
        where = f"{name} ({check})" if check else "the file, on import,"
        return Verdict(run.status, total, message=f"{where} {run.error['text']}")
    with np.errstate(all="ignore"):
        verdicts = [_judge_task(task, cells) for task in exercise.tasks]
    states = {t.state for t in verdicts}
    status = {("done",): "pass", ("not started",): "not_started"}.get(tuple(states), "fail")
    this = Verdict(status, total, verdicts)
    if status == "fail":
        first = this.first
        this.message = f"{first.name}: {first.fact} ({first.check})" if first.check else f"{first.name}: not started"
    return this


def _failed(run):
    e = run.error
    what = e["text"] if run.status == "syntax_error" else f"{e['type']}: {e['text']}"
    if e["type"] == "SystemExit":
        what = "the file ends Python"
    if re.match(r"import of lessons|No module named 'lessons", e["text"]):
        what = "an exercise may import lora_np, NumPy and Python's own modules, but not the lessons"
    where = f"line {e['line']}, " if e["line"] else ""
    return where + what + (f", in: {e['code']}" if e["code"] else "")


def _judge_task(task, cells):
    outcomes = {cell: _outcome(cells.get((task.name, *cell), {"missing": True})) for cell in task.cells}
    found, passed = [], []
    for i, check in enumerate(task.checks):
        problems = [p for seed in SEEDS if (p := _problem(task, i, seed, outcomes[i, seed]))]
        passed += [check.name] if not problems else []
        found += problems[:1]
    if not found:
        return TaskVerdict(task.name, "done", passed)
    first = found[0]
    if first["fact"] == "not started":
        return TaskVerdict(task.name, "not started", [])
    known = None if first.get("plain") else diagnose(task, outcomes)
    return TaskVerdict(task.name, "wrong", passed, first["check"], first["fact"], first["inputs"], known,
                       first.get("trace", ""), first.get("printed", ""))


def _outcome(record):
    if "value" in record:
        return Outcome(decode(record["value"]), None, record)
    return Outcome(None, record.get("error", {"type": "missing"}), record)


def _problem(task, i, seed, outcome):
    """What is wrong with one call, as a dict; None if nothing is. plain: a mistake of Python and not of LoRA."""
    check, record = task.checks[i], outcome.record
    arguments, right = expected(task, i, seed)
    problem = {"check": check.name, "inputs": describe_inputs(task, arguments), "printed": record.get("printed", "")}
    if record.get("missing"):
        return {**problem, "fact": f"there is no function {task.name} in the file", "plain": True}
    if outcome.error:
        if outcome.error["type"] == "NotImplementedError":
            return {**problem, "fact": "not started"}
        if right.error and right.error["type"] == outcome.error["type"]:
            named = check.says(*arguments) if check.says else ""
            return None if named in outcome.error["text"] else {
                **problem, "fact": f"it raises {right.error['type']}, but its text does not name {named}"}
        return {**problem, "fact": _raised(outcome.error, right), "trace": outcome.error.get("trace", "")}
    value = outcome.value
    if right.error:
        return {**problem, "fact": f"it returned {compare.show(value)}, expected it to raise {right.error['type']}"}
    if value is None and right.value is not None:
        printed = record.get("printed", "").strip()
        fact = "it prints its result instead of returning it" if printed else "it returns None; is a return missing?"
        return {**problem, "plain": bool(printed), "fact": fact}
    fact = _difference(task, check, arguments, value, right.value)
    if fact:
        return {**problem, "fact": fact}
    if record.get("changed"):
        changed = ", ".join(list(inspect.signature(task.reference).parameters)[n] for n in record["changed"])
        arrays = all(isinstance(arguments[n], np.ndarray) for n in record["changed"])
        advice = "make new arrays" if arrays else "make a copy and change that"
        return {**problem, "fact": f"it changes its argument {changed}, which belongs to the caller; {advice}"}
    if record.get("again") is False:
        return {**problem, "plain": True, "fact": "called again with the same arguments, it gives another result"}
    return None


def _raised(error, right):
    where = f"line {error['line']} ({error['code']}) " if error.get("line") else ""
    if error["type"] == "SystemExit":
        return f"{where}ends Python instead of returning"
    if "read-only" in (error["text"] or ""):
        return (f"{where}changes an array in place that is read-only, as p.data is: give it a new one, "
                "p.data = p.data - …")
    wanted = f"; expected {right.error['type']}" if right.error else ""
    text = re.sub(r"matmul: .*\(size (\d+) is different from (\d+)\)", r"matmul: the inner sizes \2 and \1 differ",
                  error["text"] or "no message")
    return f"{where}raised {error['type']}: {text}".splitlines()[0] + wanted


def _difference(task, check, arguments, value, right):
    found = compare.difference(value, right, task.returns, check.exact)
    if not check.properties:
        if not found:
            return None
        if found[0] == "value" and check.parts and " right in " in found[1]:
            clear = [compare.sharp(g, w, name) for (name, w), g in zip(
                check.parts(right, *arguments).items(), check.parts(value, *arguments).values(), strict=True)
                if not compare.same(g, w)]
            if any(clear):
                return next(filter(None, clear))
        return found[1]
    if found and found[0] in ("type", "shape"):
        return found[1]
    return compare.properties(check.properties(value, *arguments), check.properties(right, *arguments))


def describe_inputs(task, arguments):
    """Arguments by name: "x (4, 5), r = 2"."""
    names = inspect.signature(task.reference).parameters
    return ", ".join(f"{name} {value.shape}" if hasattr(value, "shape") else f"{name} = {_brief(value)}"
                     for name, value in zip(names, arguments, strict=True))


def _brief(value):
    if hasattr(value, "shape"):
        return str(value.shape)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        inside = ", ".join(map(_brief, value[:6])) + ", …" * (len(value) > 6)
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_brief(v)}" for key, v in value.items()) + "}"
    if isinstance(value, (int, str)) or value is None:
        return repr(value)
    return (callable(value) and value.__doc__) or f"a {type(value).__name__}"
