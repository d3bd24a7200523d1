"""The course: run `python -m lessons`, or read the README.md of each folder in order."""

import os
import signal
import sys


def stopped(number=signal.SIGINT, *_):
    """Ctrl-C, or another signal to end. Not a KeyboardInterrupt, which fit takes for the end of its training: the lesson
    would go on."""
    signal.signal(number, signal.SIG_IGN)  # once is enough
    os.write(2, b"\nstopped\n")
    sys.exit(128 + number)


def stopped_at_once(*_):
    """Ctrl-C while modules are imported, some of which would make an ImportError of it."""
    os.write(2, b"\nstopped\n")
    os._exit(130)


if os.path.basename(os.path.normpath(sys.argv[0])) in ("-m", "lessons"):  # as a command, which imports this first
    signal.signal(signal.SIGINT, stopped_at_once)
