"""What the tests of the checker share: verdicts on functions in this process, and on files in one of their own."""

import json

import numpy as np

from lessons.course.checking import judge, runner, tasks, worker
from lessons.course.checking.source import Source

EXERCISES = {number: tasks.load(number) for number in tasks.names()}
TASKS = [(e, t) for e in EXERCISES.values() for t in e.tasks]
SOLVED = all(e.solution.exists() for e in EXERCISES.values())


def verdict_on(exercise, source=None, **functions):
    """The verdict on an exercise where these functions take the place of the references."""
    records = []
    for task in exercise.tasks:
        function = functions.get(task.name, task.reference)
        for i, seed in task.cells:
            check = task.checks[i]
            with np.errstate(all="ignore"):
                record = worker.call(function, check, check.arguments(seed), check.arguments(seed), worker.Screen(), "")
            records.append(json.loads(json.dumps({"task": task.name, "check": i, "seed": seed, **record})))
    return judge.judge(exercise, runner.Run("ran", records), source)


def verdict_on_text(number, text):
    """The same of a file's functions: of the solution's, where text does not define them anew. In this process."""
    exercise, module = EXERCISES[number], {}
    source = exercise.solution.read_text(encoding="utf-8") + "\n\n" + text
    exec(compile(source, "exercise.py", "exec"), module)
    return verdict_on(exercise, Source(source), **{task.name: module[task.name] for task in exercise.tasks})


def verdict_of(tmp_path, number, text, timeout=20):
    """The verdict on the text of a student's file, run as it is for a student."""
    file = tmp_path / f"{EXERCISES[number].name}.py"
    file.write_text(text, encoding="utf-8")
    return judge.verdict(EXERCISES[number], file, timeout, file.name)


def with_function(number, text):
    """The solution of an exercise, with other functions at its end."""
    return EXERCISES[number].solution.read_text(encoding="utf-8") + "\n" + text
