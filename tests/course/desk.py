"""What the tests of the checker share: verdicts on functions and texts in this process, and on files in one of their own.

A process takes as long to start as a hundred calls: only what needs one, an end, a loop, a crash, has one here.
"""

import contextlib
import json
import os
import sys
import tempfile
import threading
import warnings
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from lessons.course.checking import judge, runner, tasks, worker
from lessons.course.checking.source import Source

EXERCISES = {number: tasks.load(number) for number in tasks.names()}
TASKS = [(e, t) for e in EXERCISES.values() for t in e.tasks]

# Exercise 08 solved, with a place for a line that does something else as well.
RIGHT = """
def lora_count(d, k, r):
    {}
    return r * (d + k)
def break_even(d, k):
    return (d * k - 1) // (d + k)
def largest_rank(d, k, saving):
    return sum(1 - r * (d + k) / (d * k) > saving for r in range(1, min(d, k)))
"""

LOCK = threading.Lock()
solved = pytest.mark.skipif(not all(e.solution.exists() for e in EXERCISES.values()),
                            reason="a copy of the course without solutions")


def calls(task):
    """The calls that the checks of a task make, as worker.check takes them."""
    return [(task, i, seed, task.checks[i].arguments(seed), task.checks[i].arguments(seed)) for i, seed in task.cells]


def records(task, function):
    """What a worker writes down about a function in the place of a task's."""
    with np.errstate(all="ignore"):
        return json.loads(json.dumps([
            {"task": task.name, "check": i, "seed": seed,
             **worker.call(function, task.checks[i], first, second, worker.Screen(), "")}
            for task, i, seed, first, second in calls(task)]))


@cache
def records_of_the_reference(task):
    return records(task, task.reference)


def verdict_on(exercise, **functions):
    """The verdict on an exercise where these functions take the place of the references."""
    return judge.judge(exercise, runner.Run("ran", [
        record for task in exercise.tasks for record in (
            records(task, functions[task.name]) if task.name in functions else records_of_the_reference(task))]))


class Divided:
    """Stands in for a stream: what this thread writes goes to the screen, what others write to where it went."""

    def __init__(self, screen, stream):
        self.screen, self.stream, self.thread = screen, stream, threading.get_ident()

    def __getattr__(self, name):
        return getattr(self.screen if threading.get_ident() == self.thread else self.stream, name)


def run_here(path, number, timeout=20, shown=None, root=None):
    """What runner.run gives, from the same code, but without a process of its own."""
    exercise, screen, run = EXERCISES[number], worker.Screen(), runner.Run("ran")

    def say(**record):
        record = json.loads(json.dumps(record))
        run.names = record.get("names", run.names)
        run.records += [record] if "task" in record else []
        if "failed" in record:
            run.status, run.error, run.printed = record["failed"], record["error"], record["printed"]

    with LOCK, open(os.devnull) as nothing, mock.patch.object(sys, "stdin", nothing), np.errstate(all="ignore"), \
            contextlib.redirect_stdout(Divided(screen, sys.stdout)), \
            contextlib.redirect_stderr(Divided(screen, sys.stderr)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        worker.check(path, shown or Path(path).name, [call for task in exercise.tasks for call in calls(task)], None,
                     screen, lambda *at: None, say)
        sys.modules.pop("exercise", None)
    return run


here = pytest.mark.usefixtures("files_run_here")  # of a test to which it does not matter where a student's file runs


def verdict_on_text(number, text):
    """The verdict on the text of a student's file, run in this process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{EXERCISES[number].name}.py"
        file.write_text(text, encoding="utf-8")
        return judge.judge(EXERCISES[number], run_here(file, number), Source(text))


def verdict_of(tmp_path, number, text, timeout=20):
    """The verdict on the text of a student's file, run as it is for a student."""
    file = tmp_path / f"{EXERCISES[number].name}.py"
    file.write_text(text, encoding="utf-8")
    return judge.verdict(EXERCISES[number], file, timeout, file.name)


def with_function(number, text):
    """The solution of an exercise, with other functions at its end."""
    return EXERCISES[number].solution.read_text(encoding="utf-8") + "\n" + text
