"""Ending a process and all that it started."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from ctypes import wintypes
from pathlib import Path

WINDOWS = os.name == "nt"
PROC = Path("/proc")
MARK = "LORA_NP_LESSONS_RUN"  # a variable in the environment of a worker, which what it starts inherits


def hold(process):
    """On Windows a job, which holds a process and all that it starts, even after the process itself has ended."""
    if not WINDOWS:
        return None
    kernel = ctypes.WinDLL("kernel32")
    kernel.CreateJobObjectW.restype = wintypes.HANDLE
    job = wintypes.HANDLE(kernel.CreateJobObjectW(None, None))
    return job if job and kernel.AssignProcessToJobObject(job, wintypes.HANDLE(int(process._handle))) else None


def end(process, mark, job=None):
    """End a process, its group, and what it started in groups and sessions of their own, as far as it can be found.

    mark: the value of MARK in its environment. job: what hold gave for it.
    """
    if job:
        ctypes.WinDLL("kernel32").TerminateJobObject(job, 1)
        ctypes.WinDLL("kernel32").CloseHandle(job)
        return
    if WINDOWS:
        if process.poll() is None:
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True)
        return
    for _ in range(5):  # processes that were being born may be left by the first
        others = end_started(process.pid, mark)
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            if not others:
                return
        time.sleep(0.01)


def end_started(pid, mark):
    """End what a process started, wherever it can be found; returns how many that were."""
    others = _started(pid, mark)
    for other in others:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(other, signal.SIGKILL)
    return len(others)


def _started(pid, mark):
    """The processes below this one, and those that carry the mark; empty where there is no /proc to look in."""
    parents, marked = {}, set()
    for folder in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            state, parent = (folder / "stat").read_text(errors="replace").rsplit(")", 1)[1].split()[:2]
            if state != "Z":
                parents[int(folder.name)] = int(parent)
                if f"{MARK}={mark}\0".encode() in (folder / "environ").read_bytes():
                    marked.add(int(folder.name))
    below, grown = {pid}, True
    while grown:
        new = {child for child, parent in parents.items() if parent in below} - below
        below |= new
        grown = bool(new)
    return (below | marked) - {pid, os.getpid()}
