"""Run a student's file in a fresh process: a temporary directory, limits, nothing inherited.

This isolates accidents (endless loops, crashes, runaway memory). It is not a sandbox: code that means harm can do
what the user who grades it can do.
"""

import contextlib
import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from .. import ROOT
from . import processes, tasks

MEMORY = 2 << 30    # bytes
STARTING = 60       # seconds that Python and NumPy may take to start on a busy machine
PATIENCE = 3        # times the limit of a call, for all calls of a function together
LONGEST = 1 << 23   # characters of a record
STARVED = f"needs more than {MEMORY >> 30} GB of memory"
BOOT = """import json, sys
sys.path[:] = json.loads(sys.argv[1])
from lessons.course.checking.worker import main
main()"""
KEPT = ("SYSTEMROOT", "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # what Python itself may need to start
live = {}  # {process that runs now: its mark, and on Windows the job that holds it}


class CannotRun(OSError):
    """A student's file was not run, for a reason that is not the student's: no room on the disk, no more processes.

    Nobody catches it where there is one student: the command then ends with its one line, as with any OSError.
    """


@dataclass
class Run:
    """What a run gave. status: "ran", "timeout", "crash", "syntax_error" or "import_error".

    records: what the worker wrote about each call. stopped: {function: Stop} of those that did not come to their end.
    error: of the import, where that failed. names: {name in the file: whether it is a function written there}.
    """

    status: str
    records: list = field(default_factory=list)
    error: dict | None = None
    printed: str = ""
    stopped: dict = field(default_factory=dict)
    names: dict = field(default_factory=dict)


@dataclass
class Stop:
    """A function, or the import, that did not come to its end. status: "timeout" or "crash". text: what it did."""

    function: str
    status: str
    check: int
    text: str
    line: int | None = None


def run(path, number, timeout, shown=None, root=ROOT):
    """Run exercise `number` of a student's file; returns a Run.

    timeout: the seconds that one call may take. shown: the file's name in messages. root: the course that it runs in.
    A function that hangs or ends its process costs only itself: those after it run in a process of their own. Raises
    CannotRun.
    """
    result, todo = Run("ran"), [task.name for task in tasks.load(number).tasks]
    job = {"shown": shown or Path(path).name, "exercise": number, "memory": MEMORY, "timeout": timeout}
    try:
        with tempfile.TemporaryDirectory(prefix="lesson-", ignore_cleanup_errors=True) as folder:
            while todo and result.status == "ran":
                home = Path(folder) / todo[0]
                home.mkdir()
                shutil.copyfile(path, home / "exercise.py")
                stop = _process({**job, "todo": todo, "file": str(home / "exercise.py")}, home, root, result)
                if stop and stop.function == "import":
                    result.status, result.error = stop.status, {"text": stop.text, "line": stop.line}
                elif stop:
                    result.stopped[stop.function] = stop
                todo = todo[todo.index(stop.function) + 1:] if stop and stop.function in todo else []
    except OSError as error:
        raise CannotRun(str(error)) from None
    return result


def _process(job, home, root, result):
    """Let a worker do a job, and add what it says to a Run. Returns the Stop of a function that did not end."""
    mark = uuid.uuid4().hex
    clean = {name: os.environ[name] for name in KEPT if name in os.environ}
    clean |= {processes.MARK: mark, **dict.fromkeys(("HOME", "TMPDIR", "TEMP", "TMP"), str(home))}
    clean |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = [str(root), *(p for p in map(os.path.abspath, filter(None, sys.path)) if p != str(ROOT))]
    process = subprocess.Popen([sys.executable, "-I", "-B", "-c", BOOT, json.dumps(path)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=home, env=clean,
                               start_new_session=True)
    live[process] = mark, processes.hold(process)
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()  # and left open: the worker ends itself when this end is closed
        stop = _listen(process, job, result)
        if process not in live:
            raise CannotRun("it was stopped")
        return stop
    finally:
        if held := live.pop(process, None):
            processes.end(process, *held)
        process.wait()
        with contextlib.suppress(OSError):
            process.stdin.close()


def stop():
    """End all processes that run now."""
    for process in list(live):
        if held := live.pop(process, None):
            processes.end(process, *held)


def _listen(process, job, result):
    """Read what a worker says until it ends or has to be ended; returns a Stop, or None if it came to its end."""
    lines, dumps, limit = queue.Queue(100), [], job["timeout"]
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    (function, check), deadline, began = (None, 0), time.monotonic() + STARTING, None
    while True:
        line = _next(lines, deadline, process)
        now = time.monotonic()
        if line is None and function is None:
            raise CannotRun(f"Python did not start within {STARTING} s to run the file, or ended at once")
        if line is None:
            ended = now < deadline
            return Stop(function, "crash" if ended else "timeout", check,
                        _ending(process) if ended else f"did not end within {limit:g} s",
                        None if ended else _line(dumps, job["shown"]))
        try:
            record = json.loads(line)
        except ValueError:
            dumps.append(line.decode(errors="replace"))
            continue
        if "begin" in record:
            began = now if record["begin"][0] != function else began
            (function, check), deadline, dumps = record["begin"], now + limit, []
            if function != "import" and now > began + PATIENCE * limit:
                return Stop(function, "timeout", check, f"is slow: after {now - began:.0f} s not all of its calls have "
                            "been made. Those before are right")
        elif "failed" in record:
            starved = record["error"]["type"] == "MemoryError"
            result.status, result.error, result.printed = record["failed"], record["error"], record["printed"]
            return Stop("import", "crash", 0, STARVED) if starved else None
        elif "names" in record:
            result.names = record["names"]
        elif "end" in record:
            return None
        elif record.get("error", {}).get("type") == "MemoryError":
            return Stop(function, "crash", check, STARVED)
        else:
            result.records.append(record)


def _read(stream, lines):
    """Put the lines of a stream into a queue, and None at its end."""
    with contextlib.suppress(ValueError, OSError), stream:
        for line in iter(lambda: stream.readline(LONGEST), b""):
            lines.put(line)
    lines.put(None)


def _next(lines, deadline, process):
    """The next line; None where none comes until the deadline or because the process has ended."""
    while (left := deadline - time.monotonic()) > 0:
        ended = process.poll() is not None  # a process that it started may hold the stream open
        try:
            return lines.get(timeout=min(left, 0.1))
        except queue.Empty:
            if ended:
                return None
    return None


def _ending(process):
    code = process.wait()
    if code < 0:
        return f"makes Python crash (signal {-code})"
    if code >= 0xC0000000:  # how Windows counts what ended a process
        return f"makes Python crash (code {code:#x})"
    return "ends Python itself, as os._exit does"


def _line(dumps, shown):
    """The line of the student's file that a dump of all stacks tells of, the innermost first; None without one."""
    name = re.escape(shown.encode("ascii", "backslashreplace").decode())
    found = [int(m[1]) for dump in dumps if (m := re.search(rf'File "{name}", line (\d+) in', dump))]
    return found[0] if found else None
