"""Checking again whenever a file is saved."""

import os
import sys
import time

from . import feedback

PAUSE = 0.5  # seconds between two looks at the files


def watch(exercises, judge, shown, pause=time.sleep):
    """Show the first exercise that is not done, again whenever its file is saved, until all are done.

    judge: exercise -> Verdict. shown: exercise -> the name of its file in messages. Saving the file of another exercise
    makes that one the current one.
    """
    current, news, undone = None, [], list(exercises)
    while undone:
        current = current if current in undone else undone[0]
        stamps = {exercise: _stamp(exercise.file) for exercise in exercises}
        verdict = judge(current)
        if verdict.status == "pass":
            undone.remove(current)
            news.append(f"{current.number} {current.title}: done, {verdict.passed} of {current.total} checks pass")
            continue
        _clear()
        print("\n".join([*news, *[""] * bool(news), feedback.page(current, verdict, shown(current))]))
        print(f"\n{len(exercises) - len(undone)} of {len(exercises)} done. This page is made anew whenever the file is "
              "saved; Ctrl-C ends it.", flush=True)
        news = []
        while not (saved := [e for e in exercises if _stamp(e.file) != stamps[e]]):
            pause(PAUSE)
        current = saved[0]
        undone = [e for e in exercises if e in undone or e is current]
    print("\n".join([*news, "", "All exercises are done." if len(exercises) > 1 else "Done."]))


def _stamp(file):
    """What changes when a file is saved; None while it is not there, as between the two steps of some editors."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _clear():
    """Clear a terminal; anything else that is written to gets a line between two pages."""
    if not sys.stdout.isatty():
        print("-" * 80)
        return
    if os.name == "nt":
        os.system("")  # makes the terminal take the code that follows
    print("\033[2J\033[3J\033[H", end="")
