"""The process in which a student's file runs: it calls the functions, writes down what happened, and judges nothing.

Started by runner.py. Each line of the result file is one JSON record, written as soon as it is known, so that
whatever ends this process, the lines before it stay.
"""

import contextlib
import json
import linecache
import os
import sys
import traceback
import types

from . import tasks
from .transport import encode

try:
    import resource
except ImportError:  # not on Windows; the time limit still holds there
    resource = None

PRINTED = 2000  # characters kept of what a call printed


class Screen:
    """Stands in for stdout and stderr, and keeps the first characters."""

    encoding = "utf-8"

    def __init__(self):
        self.text = ""

    def write(self, text):
        if len(self.text) < PRINTED:
            self.text += str(text)[:PRINTED - len(self.text)]
        return len(text)

    def flush(self):
        pass

    def isatty(self):
        return False

    def take(self):
        text, self.text = self.text, ""
        return text


def limit(memory, seconds):
    """Limit this process's memory (bytes), processor time and the size of files, where the system can."""
    if resource:
        for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, int(seconds) + 2),
                           (resource.RLIMIT_FSIZE, 1 << 26), (resource.RLIMIT_CORE, 0)):
            _, hard = resource.getrlimit(what)
            with contextlib.suppress(ValueError, OSError):  # macOS does not limit memory
                resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def describe(error, shown):
    """What an exception says, and where in the student's file (shown) it came from."""
    try:
        text = str(error)[:500]
    except Exception:
        text = ""
    if isinstance(error, SyntaxError) and error.filename == shown:
        return {"type": type(error).__name__, "text": error.msg, "line": error.lineno,
                "code": (error.text or "").strip()[:200], "trace": ""}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == shown]
    # The trace starts where the student's file does: what is above is the checker's own.
    trace = traceback.TracebackException.from_exception(error)
    trace.stack = traceback.StackSummary.from_list(
        trace.stack[next((i for i, f in enumerate(trace.stack) if f.filename == shown), 0):][-12:])
    kind = "MemoryError" if isinstance(error, MemoryError) else type(error).__name__  # NumPy has one of its own
    return {"type": kind, "text": text, "line": frames[-1].lineno if frames else None,
            "code": (frames[-1].line or "").strip()[:200] if frames else "", "trace": "".join(trace.format())[:6000]}


def import_file(path, shown):
    """Run a student's file as a module, under the name by which messages show it."""
    with open(path, "rb") as file:
        source = file.read()
    module = types.ModuleType("exercise")
    module.__file__ = shown
    sys.modules["exercise"] = module
    text = source.decode("utf-8", "replace")
    linecache.cache[shown] = (len(text), None, text.splitlines(True), shown)
    try:
        code = compile(source, shown, "exec")
    except (SyntaxError, ValueError) as error:  # null bytes give either, without the name of the file
        if getattr(error, "filename", None):
            raise
        raise SyntaxError(str(error), (shown, None, None, None)) from None
    exec(code, module.__dict__)
    return module


def call(function, check, first, second, screen, shown):
    """The record of one call, repeated with equal arguments."""
    record, before = {}, [encode(a) for a in first]
    screen.take()
    try:
        record["value"] = encode(check.perform(function, first))
        if not check.observe:
            record["changed"] = [i for i, a in enumerate(first) if encode(a) != before[i]]
    except BaseException as error:
        record = {"error": describe(error, shown)}
    record["printed"] = screen.take()
    if "value" in record:
        try:
            record["again"] = json.dumps(encode(check.perform(function, second))) == json.dumps(record["value"])
        except BaseException:
            record["again"] = False
    return record


def main(job):
    """Do a job of runner.py and end this process."""
    exercise = tasks.load(job["exercise"])
    # Everything that comes from the checks is made before the student's file can change anything.
    calls = [(task, i, seed, task.checks[i].arguments(seed), task.checks[i].arguments(seed))
             for task in exercise.tasks for i, seed in task.cells]
    owner, out = os.getpid(), open(job["result"], "w", encoding="utf-8")  # noqa: SIM115

    def say(**record):
        if os.getpid() != owner:
            os._exit(0)  # a copy of this process that the student's code made
        out.write(json.dumps(record) + "\n")
        out.flush()

    screen = sys.stdout = sys.stderr = Screen()
    limit(job["memory"], job["timeout"])
    for name in [name for name in sys.modules if name.partition(".")[0] == "lessons"]:
        sys.modules[name] = None  # importing the checks, answers and all, is an error from here on
    say(begin=["import", 0])
    try:
        module = import_file(job["file"], job["shown"])
    except BaseException as error:
        kind = "syntax_error" if isinstance(error, SyntaxError) and error.filename == job["shown"] else "import_error"
        say(failed=kind, error=describe(error, job["shown"]), printed=screen.take())
        say(end=True)
        os._exit(0)
    for task, i, seed, first, second in calls:
        function = vars(module).get(task.name)
        if not callable(function):
            say(task=task.name, check=i, seed=seed, missing=True)
            continue
        say(begin=[task.name, i])
        say(task=task.name, check=i, seed=seed, **call(function, task.checks[i], first, second, screen, job["shown"]))
    say(end=True)
    os._exit(0)  # whatever threads the student's code started
