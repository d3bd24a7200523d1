import pytest


@pytest.fixture
def files_run_here(monkeypatch):
    """Students' files run in this process: for tests of what is made of a run."""
    from lessons.course.checking import runner

    from .desk import run_here
    monkeypatch.setattr(runner, "run", run_here)
