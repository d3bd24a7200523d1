"""The process in which a student's file runs: it calls the functions, writes down what happened, and judges nothing.

Started by runner.py, which writes a job to its standard input and reads its standard output: a line of JSON for each
call, written as soon as it is known, so that whatever ends this process, the lines before it stay.
"""

import ast
import codecs
import contextlib
import faulthandler
import json
import linecache
import os
import signal
import sys
import threading
import time
import traceback
import types

from . import processes, tasks
from .source import Source
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
    return {"type": kind, "kinds": [c.__name__ for c in type(error).__mro__], "text": text,
            "line": frames[-1].lineno if frames else None, "inside": frames[-1].name if frames else "",
            "code": (frames[-1].line or "").strip()[:200] if frames else "", "trace": "".join(trace.format())[:6000]}


def import_file(path, shown):
    """Run a student's file as a module, under the name by which messages show it."""
    with open(path, "rb") as file:
        source = file.read()
    module = types.ModuleType("exercise")
    module.__file__ = shown
    sys.modules["exercise"] = module
    text = source.decode("utf-8-sig", "replace")
    linecache.cache[shown] = (len(text), None, text.splitlines(True), shown)
    try:
        if source.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise SyntaxError("the file is saved as UTF-16; save it as UTF-8, which Python reads")
        code = compile(source, shown, "exec")
    except (SyntaxError, ValueError) as error:  # null bytes give either, without the name of the file
        if getattr(error, "filename", None):
            raise
        raise SyntaxError(str(error), (shown, None, None, None)) from None
    exec(code, module.__dict__)
    return module


def call(function, check, first, second, screen, shown, patience=None):
    """The record of one call, repeated with equal arguments unless it took longer than patience, in seconds."""
    record, before, returned = {}, [encode(a) for a in first], []

    def watched(*arguments):
        returned.append(function(*arguments))
        return returned[-1]

    screen.take()
    start = time.perf_counter()
    try:
        record["value"] = encode(check.perform(watched, first))
        if not check.call:
            record["changed"] = [i for i, a in enumerate(first) if encode(a) != before[i]]
    except BaseException as error:
        record = {"error": describe(error, shown)}
        if returned and not record["error"]["line"]:  # the check itself could not go on with what came back
            record = {"odd": encode(returned[-1])}
    record["printed"] = screen.take()
    if record.get("value", 0) is None:
        record["returned"] = executed_return(function, second)
    elif "value" in record and not (patience and time.perf_counter() - start > patience):
        try:
            record["again"] = json.dumps(encode(check.perform(function, second))) == json.dumps(record["value"])
        except BaseException:
            record["again"] = False
    return record


def executed_return(function, arguments):
    """The line of the return statement with which a call ends; None where it ends without one."""
    frames, last = [], []

    def trace(frame, event, argument):
        if event == "call" and not frames:
            frame.f_trace_lines = False
            frames.append(frame)
            return trace
        if event == "return" and frame is frames[0]:
            last.append(frame.f_lineno)
        return None

    sys.settrace(trace)
    try:
        function(*arguments)
    except BaseException:
        return None
    finally:
        sys.settrace(None)
    if not last or frames[0].f_code.co_name == "<lambda>":
        return last[-1] if last else None
    text = "".join(linecache.getlines(frames[0].f_code.co_filename))
    returns = [node for node in ast.walk(Source(text).tree) if isinstance(node, ast.Return)]
    return next((node.lineno for node in returns if node.lineno <= last[-1] <= node.end_lineno), None)


def check(path, shown, calls, patience, screen, begin, say):
    """Import a student's file and make the calls: begin(name, i) before each, say(**record) of what came out."""
    begin("import", 0)
    try:
        module = import_file(path, shown)
    except BaseException as error:
        kind = "syntax_error" if isinstance(error, SyntaxError) and error.filename == shown else "import_error"
        return say(failed=kind, error=describe(error, shown), printed=screen.take())
    there = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    say(names={name: callable(value) and getattr(value, "__module__", "") in ("exercise", None)
               for name, value in there.items() if isinstance(name, str)})
    for task, i, seed, first, second in calls:
        function = there.get(task.name)
        if callable(function):
            begin(task.name, i)
            say(task=task.name, check=i, seed=seed, **call(function, task.checks[i], first, second, screen, shown,
                                                           patience))
        else:
            say(task=task.name, check=i, seed=seed, missing=True)
    return say(end=True)


def end_with_the_grader(pipe, mark):
    """End this process and those that it started when the process that reads from it is gone, however that ended."""
    def wait():
        os.read(pipe, 1)  # nothing is ever written: this returns when the other end is closed
        if os.name == "posix":
            processes.end_started(os.getpid(), mark)
            os.killpg(0, signal.SIGKILL)
        os._exit(1)
    threading.Thread(target=wait, daemon=True).start()


def main():
    """Do a job of runner.py and end this process."""
    job, owner = json.loads(sys.stdin.buffer.readline()), os.getpid()
    exercise = tasks.load(job["exercise"])
    # Everything that comes from the checks is made before the student's file can change anything.
    calls = [(task, i, seed, task.checks[i].arguments(seed), task.checks[i].arguments(seed))
             for task in exercise.tasks if task.name in job["todo"] for i, seed in task.cells]
    pipe, out = os.dup(0), os.fdopen(os.dup(1), "w", encoding="ascii")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    sys.stdin, screen = open(os.devnull), Screen()  # noqa: SIM115
    sys.stdout = sys.stderr = screen

    def say(**record):
        if os.getpid() != owner:
            os._exit(0)  # a copy of this process that the student's code made
        out.write(json.dumps(record) + "\n")
        out.flush()

    def begin(name, i):
        """Before each call: say so, and set what ends it should nobody else. Where it is by then is written, too."""
        say(begin=[name, i])
        if hasattr(signal, "alarm"):
            signal.alarm(int(job["timeout"]) + 5)
        faulthandler.dump_traceback_later(0.9 * job["timeout"], file=out.fileno())

    end_with_the_grader(pipe, os.environ[processes.MARK])
    limit(job["memory"], job["timeout"] * (len(calls) + 1))
    for name in [name for name in sys.modules if name.partition(".")[0] == "lessons"]:
        sys.modules[name] = None  # importing the checks, answers and all, is an error from here on
    check(job["file"], job["shown"], calls, job["timeout"] / 4, screen, begin, say)
    os._exit(0)  # whatever threads the student's code started
