"""The course: run `python -m lessons`, or read the README.md of each folder in order."""

import contextlib
import os
import signal
import sys


def stopped(number, *_):
    """Ctrl-C, or another signal to end. Not a KeyboardInterrupt, which fit takes for the end of its training: the
    lesson would go on."""
    signal.signal(number, signal.SIG_IGN)  # once is enough
    _say_stopped()
    sys.exit(128 + number)


def stopped_at_once(*_):
    """Ctrl-C while modules are imported, some of which would make an ImportError of it."""
    _say_stopped()
    os._exit(130)


def _say_stopped():
    with contextlib.suppress(OSError):  # stderr may be closed
        os.write(2, b"\nstopped\n")


if os.path.basename(os.path.normpath(sys.argv[0])) in ("-m", "lessons"):  # as a command, which imports this first
    signal.signal(signal.SIGINT, stopped_at_once)
elif os.path.basename(sys.argv[0]) == "lesson.py":  # as a script, the output of which a Windows terminal may not show
    from lora_np.support.terminal import tolerate
    tolerate()
