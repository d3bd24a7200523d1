"""The memory of this process: one setting that makes every training loop here faster, and how much it needed."""

import ctypes
import re
import sys
from pathlib import Path


def keep_freed_memory():
    """Ask glibc to keep large freed blocks for the next allocation instead of returning them to the system.

    A training step frees and allocates the same few large arrays again and again; handing each back costs
    thousands of page faults a step. Returns whether it took effect; without glibc it does nothing.
    The process then holds on to the most memory that it needed at any time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    # mallopt(3): M_MMAP_THRESHOLD is -3, M_TRIM_THRESHOLD is -1; both return 1 on success.
    return bool(mallopt(-3, 1 << 25) and mallopt(-1, (1 << 31) - 1))


def peak_memory():
    """The most bytes of this process that lay in memory at any time; 0 where the system does not tell."""
    status = Path("/proc/self/status")  # of Linux, whose ru_maxrss starts from what the parent process has
    if status.exists() and (peak := re.search(r"VmHWM:\s*(\d+) kB", status.read_text(errors="replace"))):
        return 1024 * int(peak[1])
    try:
        import resource  # POSIX alone has it
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
