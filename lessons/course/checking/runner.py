"""Run a student's file in a fresh process: a temporary directory, limits, nothing inherited.

This isolates accidents (endless loops, crashes, runaway memory). It is not a sandbox: code that means harm can do
what the user who grades it can do.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

MEMORY = 2 << 30  # bytes
BOOT = """import json, sys
job = json.load(sys.stdin)
sys.path[:] = job["path"]
from lessons.course.checking.worker import main
main(job)"""
KEPT = ("SYSTEMROOT", "PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")  # what Python itself may need to start
live = set()  # the processes that run now


@dataclass
class Run:
    """What a run gave. status: "ran", "timeout", "crash", "syntax_error" or "import_error".

    records: what the worker wrote about each call. at: [task or "import", check] that it was in when it ended.
    """

    status: str
    records: list = field(default_factory=list)
    at: list | None = None
    error: dict | None = None
    seconds: float = 0.0
    printed: str = ""


def run(path, number, timeout, shown=None):
    """Run exercise `number` of a student's file; returns a Run. shown: the file's name in messages."""
    start, folder = time.perf_counter(), Path(tempfile.mkdtemp(prefix="lesson-"))
    try:
        home, result = folder / "home", folder / "result"
        home.mkdir()
        shutil.copyfile(path, home / Path(path).name)
        root = str(Path(__file__).resolve().parents[3])
        job = {"path": [root, *(os.path.abspath(p) for p in sys.path if p)], "file": str(home / Path(path).name),
               "shown": shown or Path(path).name, "exercise": number, "result": str(result), "memory": MEMORY,
               "timeout": timeout}
        finished, code = _process(job, home, timeout)
        lines = result.read_text(encoding="utf-8", errors="replace").splitlines() if result.exists() else []
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    this = _read(lines, finished, code, timeout)
    this.seconds = time.perf_counter() - start
    return this


def _process(job, home, timeout):
    """(whether it ended in time, exit code) of a worker that does this job."""
    clean = {name: os.environ[name] for name in KEPT if name in os.environ}
    clean |= dict.fromkeys(("HOME", "TMPDIR", "TEMP", "TMP"), str(home))
    clean |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    process = subprocess.Popen([sys.executable, "-I", "-B", "-c", BOOT], stdin=subprocess.PIPE, cwd=home, env=clean,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    live.add(process)
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job).encode())
            process.stdin.close()
        try:
            process.wait(timeout)
            return True, process.returncode
        except subprocess.TimeoutExpired:
            return False, None
    finally:
        kill(process)
        process.wait()
        live.discard(process)


def kill(process):
    """End a process and whatever it started."""
    if os.name == "posix":
        for _ in range(5):  # processes that were being born may be left by the first
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return
            time.sleep(0.01)
    elif process.poll() is None:
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True)


def stop():
    """End all processes that run now."""
    for process in list(live):
        kill(process)


def _read(lines, finished, code, timeout):
    """The Run that a worker's lines tell of."""
    this, ended = Run("ran"), False
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # cut off while it was written
            break
        if "begin" in record:
            this.at = record["begin"]
        elif "failed" in record:
            this.status, this.error, this.printed = record["failed"], record["error"], record["printed"]
        elif "end" in record:
            ended = True
        else:
            this.records.append(record)
    starved = [r for r in this.records if r.get("error", {}).get("type") == "MemoryError"]
    if starved or (this.error and this.error["type"] == "MemoryError"):
        this.at = [starved[0]["task"], starved[0]["check"]] if starved else this.at
        this.status, this.error = "crash", {"text": f"needs more than {MEMORY >> 30} GB of memory"}
    elif not ended:
        this.status = "crash" if finished else "timeout"
        this.error = {"text": f"did not end within {timeout:g} s" if not finished else
                      f"makes Python crash (signal {-code})" if code < 0 else "ends Python itself, as os._exit does"}
    return this
