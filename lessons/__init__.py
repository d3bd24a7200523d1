"""The course: run `python -m lessons`, or read the .md files in order."""

import os
import signal
import sys


def stopped(*_):
    """Ctrl-C. Not a KeyboardInterrupt, which fit takes for the end of its training: the lesson would go on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
    os.write(2, b"\nstopped\n")
    sys.exit(130)


def stopped_at_once(*_):
    """Ctrl-C while modules are imported, some of which would make an ImportError of it."""
    os.write(2, b"\nstopped\n")
    os._exit(130)


if sys.argv[0] == "-m":  # python -m lessons, which imports this before all else
    signal.signal(signal.SIGINT, stopped_at_once)
