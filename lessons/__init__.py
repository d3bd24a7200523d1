"""The course: run `python -m lessons`, or read the .md files in order."""

import os
import signal
import sys


def stopped(*_):
    """Ctrl-C. Not a KeyboardInterrupt, which fit takes for the end of its training: the lesson would go on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
    os.write(2, b"\nstopped\n")
    sys.exit(130)


if sys.argv[0] == "-m":  # python -m lessons: from here on, so that it holds while NumPy is imported, too
    signal.signal(signal.SIGINT, stopped)
