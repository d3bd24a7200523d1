"""Whether a student's answers are right, and what is known about those that are not.

It works on what a worker wrote down; no code of the student's runs here.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .. import ROOT
from . import problems, runner
from .diagnosis import Outcome, diagnose
from .source import Source
from .transport import decode, printable

LARGEST = 1 << 20  # bytes of a file


@dataclass
class TaskVerdict:
    """state: "done", "wrong" or "not started". passed: names of the checks that hold. check: the first that does not.

    fact: what is wrong, in one line. inputs: on what. known: the Misconception that this is, or None. example: what the
    example of the docstring gives, where that is wrong too. rests_on: functions that it calls and that are not done.
    stop: "timeout" or "crash" where it did not come to its end.
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
    example: str = ""
    rests_on: tuple = ()
    stop: str = ""


@dataclass
class Verdict:
    """status: pass, fail, not_started, missing, syntax_error, import_error, timeout or crash.

    message: the first thing wrong, in one line. line: where a file that does not run stops; 0 where that is not known.
    """

    status: str
    total: int
    tasks: list = field(default_factory=list)
    message: str = ""
    trace: str = ""
    printed: str = ""
    line: int = 0

    @property
    def passed(self):
        return sum(len(t.passed) for t in self.tasks)

    @property
    def first(self):
        """The first task that is wrong by itself, else the first that is wrong, else that is not started; or None."""
        undone = [t for t in self.tasks if t.state != "done"]
        wrong = [t for t in undone if t.state == "wrong"]
        by_itself = [t for t in wrong if not t.rests_on]
        return next(iter(by_itself or wrong or undone), None)

    @property
    def diagnosis(self):
        return self.first.known.id if self.first and self.first.known else ""


def verdict(exercise, file, timeout, shown, root=ROOT):
    """Run a student's file and judge it. shown: its name in messages. root: the course that it runs in.

    Raises runner.CannotRun.
    """
    file = Path(file)
    if not file.is_file():
        return Verdict("missing", exercise.total, message=str(shown))
    if file.stat().st_size > LARGEST:
        return Verdict("syntax_error", exercise.total,
                       message=f"the file is {file.stat().st_size / 1e6:.0f} MB large; 1 MB is the most")
    return judge(exercise, runner.run(file, exercise.number, timeout, shown, root),
                 Source(file.read_bytes().decode("utf-8-sig", "replace")))


def judge(exercise, run, source=None):
    """The Verdict on a Run. source: the Source of the file, where there is one."""
    total = exercise.total
    if run.status in ("syntax_error", "import_error"):
        return Verdict(run.status, total, message=_failed(run), trace=run.error["trace"], printed=run.printed,
                       line=run.error["line"] or 0)
    if run.status in ("timeout", "crash"):
        line = run.error.get("line") or 0
        return Verdict(run.status, total, message=f"the file, on import, {run.error['text']}"
                                                  + (f": line {line}" if line else ""), line=line)
    records = {(r["task"], r["check"], r["seed"]): r for r in run.records}
    with np.errstate(all="ignore"):
        verdicts = [_judge_task(task, records, run, source) for task in exercise.tasks]
    undone = {t.name for t in verdicts if t.state != "done"}
    for t in verdicts:
        t.rests_on = tuple(sorted(undone & source.calls(t.name))) if source and t.state == "wrong" else ()
    states, stops = {t.state for t in verdicts}, [t for t in verdicts if t.stop]
    status = "pass" if states == {"done"} else "not_started" if states == {"not started"} else (
        "crash" if any(t.stop == "crash" for t in stops) else "timeout" if stops else "fail")
    result = Verdict(status, total, verdicts)
    if status not in ("pass", "not_started"):
        first = next((t for t in stops if t.stop == status), result.first)
        result.message = printable(f"{first.name}: {first.fact} ({first.check})" if first.check else
                                 f"{first.name}: not started")
    return result


def _failed(run):
    e = run.error
    what = e["text"] if run.status == "syntax_error" else f"{e['type']}: {e['text']}"
    if e["type"] == "SystemExit":
        what = "the file ends Python"
    if re.match(r"import of lessons|No module named 'lessons", e["text"]):
        what = "an exercise may import lora_np, NumPy and Python's own modules, but not the lessons"
    where = f"line {e['line']}, " if e["line"] else ""
    return printable(where + what + (f", in: {e['code']}" if e["code"] else ""))


def _judge_task(task, records, run, source):
    """The TaskVerdict on a function."""
    try:
        outcomes = {cell: outcome(records.get((task.name, *cell), {"unmade": True})) for cell in task.cells}
        found = {cell: problems.find(task, *cell, outcomes[cell], run, source) for cell in task.cells}
    except Exception as error:  # whatever an answer is, it must not end the checking of the others
        fact = f"the checker cannot read what it returns ({type(error).__name__}: {error})"
        return TaskVerdict(task.name, "wrong", [], task.checks[0].name, fact)
    wrong = {i for (i, _), problem in found.items() if problem}
    passed = [check.name for i, check in enumerate(task.checks) if i not in wrong]
    if not wrong:
        return TaskVerdict(task.name, "done", passed)
    first, example = problems.chosen(found)
    if not first.fact:
        return TaskVerdict(task.name, "not started", [])
    stop = run.stopped.get(task.name)
    known = first.known or (None if first.plain or stop else diagnose(
        task, outcomes, source.code(task.name) if source else None))
    return TaskVerdict(task.name, "wrong", passed, first.check, printable(first.fact), printable(first.inputs), known,
                       first.trace, first.printed, printable(example), stop=stop.status if stop else "")


def outcome(record):
    for kind in ("value", "odd"):
        if kind in record:
            return Outcome(decode(record[kind]), None, record)
    return Outcome(None, record.get("error"), record)
