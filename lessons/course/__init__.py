"""The code behind `python -m lessons`: exercises and their checking, pages and figures, and what a class needs."""

from pathlib import Path

LESSONS = Path(__file__).resolve().parents[1]
ROOT = LESSONS.parent  # the project's own folder


def shown(path):
    """A path as messages show it: from the project's folder where it is inside."""
    path = Path(path).resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
