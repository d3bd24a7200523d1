"""Running a command in whatever terminal there is: characters it lacks, streams that are closed, a full disk, a reader
who has gone."""

import os
import sys


def run(name, main):
    """Call main() and end the process with the status that it returns; 1, after one line, where output cannot be
    written."""
    tolerate()
    try:
        status = main()
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left when it ends
        if not isinstance(error, BrokenPipeError):  # as in `… | head`: nobody reads on
            print(f"{name}: {error}", file=sys.stderr)
        status = 1
    sys.exit(status)


def tolerate():
    """Let a character that the terminal lacks become a question mark, and what goes to a closed stream be lost."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed; the next file to be opened would take its number, and be written to
            os.open(os.devnull, os.O_RDWR)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - to the end
        elif name != "stdin" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
