import pytest

from lessons.course.checking import runner

from . import desk


@pytest.fixture
def files_run_here(monkeypatch):
    """Students' files run in this process: for tests of what is made of it."""
    monkeypatch.setattr(runner, "run", desk.run_here)
