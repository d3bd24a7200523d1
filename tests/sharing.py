"""A pytest plugin: several processes share the test files out. Each takes the next one that nobody has, see __main__.py."""

import itertools
import json
import os
import re
import time
from collections import Counter
from pathlib import Path

import pytest

counts = Counter()  # of the file that runs: {"passed": 3, …}


def pytest_addoption(parser):
    parser.addoption("--share", metavar="FOLDER", help="where the processes note which files they have taken")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    """As pytest's own loop, but file by file. What each gave is a line of JSON in a file of this process."""
    if session.testsfailed or session.config.option.collectonly:
        return None  # pytest's own loop sees to that
    folder = Path(session.config.option.share)
    for name, items in itertools.groupby(session.items, lambda item: item.nodeid.partition("::")[0]):
        if not take(folder, name):
            continue
        counts.clear()
        begin = time.perf_counter()
        for item, after in itertools.pairwise([*items, None]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
        with open(folder / f"{os.getpid()}.said", "a", encoding="utf-8") as file:
            print(json.dumps([name, counts, time.perf_counter() - begin]), file=file)
    return True


def take(folder, name):
    """Whether this file is this process's from here on; False where another process has it."""
    try:
        os.close(os.open(folder / (re.sub(r"[^\w.]", "+", name) + ".taken"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def pytest_runtest_logreport(report):
    if report.when == "call" or not report.passed:
        counts["error" if report.failed and report.when != "call" else report.outcome] += 1
