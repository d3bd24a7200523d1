"""What the tests of the course share."""

import pytest

from lessons.course.checking import runner, tasks
from lessons.course.classroom import progress


@pytest.fixture
def files_run_here(monkeypatch):
    """Students' files run in this process: for tests of what is made of a run."""
    from .desk import run_here
    monkeypatch.setattr(runner, "run", run_here)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A student's own folders: the stubs, and progress."""
    monkeypatch.setattr(tasks.Exercise, "file", property(lambda exercise: tmp_path / f"{exercise.name}.py"))
    monkeypatch.setattr(progress, "FOLDER", tmp_path / ".progress")
    for name, text in tasks.stubs().items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    return tmp_path
