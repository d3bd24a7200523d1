"""Running a command in whatever terminal there is: characters it lacks, a full disk, a reader who has gone."""

import os
import sys


def run(name, main):
    """Call main() and end the process with the status that it returns; 1, after one line, where output cannot be
    written. A character that the terminal cannot show becomes a question mark."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    try:
        status = main()
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left when it ends
        if not isinstance(error, BrokenPipeError):  # as in `… | head`: nobody reads on
            print(f"{name}: {error}", file=sys.stderr)
        status = 1
    sys.exit(status)
