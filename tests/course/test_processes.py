"""What a student's file starts ends with it, and with its grader, however that ends."""

import os
import select
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from lessons.course.checking import judge, processes, tasks
from tests.helpers import whole_class

pytestmark = [whole_class, pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux's /proc and pidfd_open")]
STARTS = """
import os, subprocess, sys
def lora_count(d, k, r):
    own = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
    bare = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True, env={{}})
    plain = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    daemon = int(subprocess.run([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE).stdout)
    with open({fifo!r}, "w") as pipe:
        pipe.write(" ".join(map(str, [os.getpid(), own.pid, bare.pid, plain.pid, daemon])))
    {then}
DAEMON = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'], "
DAEMON += "start_new_session=True, stdout=subprocess.DEVNULL).pid)"
"""


@pytest.fixture
def started(tmp_path):
    """write(then): the path of a file that starts processes. pids(): its own and theirs. ended(pids)."""
    fifo = tmp_path / "pids"
    os.mkfifo(fifo)

    class Started:
        folder = tmp_path / "in"

        def write(self, then):
            (self.folder / "ada").mkdir(parents=True)
            path = self.folder / "ada" / f"{tasks.names()['08']}.py"
            path.write_text(STARTS.format(fifo=str(fifo), then=then), encoding="utf-8")
            return path

        def pids(self):
            return [int(pid) for pid in fifo.read_text().split()]

        def ended(self, pids, seconds=20):
            """Whether all of these have ended, or do within so many seconds."""
            for pid in pids:
                try:
                    fd = os.pidfd_open(pid)
                except ProcessLookupError:
                    continue
                try:
                    if not select.select([fd], [], [], seconds)[0]:
                        return False
                finally:
                    os.close(fd)
            return True

    return Started()


@pytest.mark.parametrize("sent", ["SIGKILL", "SIGTERM", "SIGHUP", "SIGINT"])
def test_they_end_with_the_grader(started, sent, tmp_path):
    started.write("while True: pass")
    grader = subprocess.Popen([sys.executable, "-m", "lessons", "grade", str(started.folder), "--out",
                               str(tmp_path / "g.csv"), "--timeout", "100"], cwd=tasks.LESSONS.parent,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    pids = started.pids()
    number = getattr(signal, sent)
    grader.send_signal(number)
    out, _ = grader.communicate(timeout=20)
    assert grader.returncode == (-9 if sent == "SIGKILL" else 128 + number)
    assert sent == "SIGKILL" or "the same command goes on from there" in out
    assert started.ended(pids)


@pytest.mark.parametrize("then", ["while True: pass", "os._exit(1)"])
def test_they_end_with_the_file(started, then):
    path = started.write(then)
    with ThreadPoolExecutor(1) as pool:
        verdict = pool.submit(judge.verdict, tasks.load("08"), path, 2, "x.py")
        worker, own, bare, plain, daemon = started.pids()
        assert verdict.result().status == ("crash" if "exit" in then else "timeout")
    assert started.ended([worker, own, plain, daemon])
    if "exit" in then:  # without parent, session, group or environment in common it cannot be found
        os.kill(bare, signal.SIGKILL)
    assert started.ended([bare])


def test_what_was_started_is_found_by_its_mark_or_its_parents(started):
    code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'], start_new_session=True).wait()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True,
                          env={**os.environ, processes.MARK: "some mark"}) as process:
        below = []
        while not below:
            below = sorted(processes._started(process.pid, "some mark"))
        processes.end(process, "some mark")
    assert started.ended([process.pid, *below]) and process.wait() == -9
    assert processes._started(process.pid, "some mark") == set()
