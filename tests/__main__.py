"""The quick tests on all cores: python -m tests [what pytest takes, as tests/lora, -k WORD or -m class]

Without -m all that is not marked real, live or class; with -m "" everything. As many pytest processes as there are
cores, at most four, share the test files out (sharing.py). Exit status: pytest's, 0 where all tests pass.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

QUICK = "not real and not live and not class"
NAMES = {"passed": "passed", "failed": "failed", "skipped": "skipped", "error": "errors"}


def main(arguments):
    words = arguments if any(word.startswith("-m") for word in arguments) else ["-m", QUICK, *arguments]
    clean = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each process has a core of its own
    begin, total, processes = time.perf_counter(), Counter(), []
    with tempfile.TemporaryDirectory(prefix="tests-") as folder, contextlib.ExitStack() as stack:
        folder = Path(folder)
        for number in range(min(4, os.cpu_count() or 1)):
            out = stack.enter_context(open(folder / f"{number}.out", "w+", encoding="utf-8", errors="replace"))
            processes.append((out, subprocess.Popen(
                [sys.executable, "-m", "pytest", "-p", "tests.sharing", f"--share={folder}", "-p", "no:cacheprovider",
                 *words], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=clean)))
        said, stopped = {}, False
        while any(process.poll() is None for _, process in processes):
            try:
                time.sleep(0.1)
                show(folder, said, total)
            except KeyboardInterrupt:  # they have been sent it too, and end by themselves
                stopped = True
        show(folder, said, total)
        for out, process in processes:
            out.seek(0)
            report(out.read(), process.returncode)
    counts = ", ".join(f"{total[kind]} {name}" for kind, name in NAMES.items() if total[kind]) or "no tests ran"
    print(f"{counts} in {time.perf_counter() - begin:.2f}s")
    statuses = {process.returncode for _, process in processes} - {0}
    if statuses == {5} and total:  # one of them came too late for any file
        return 0
    return 130 if stopped else next((abs(s) for s in statuses if s != 5), 5) if statuses else 0


def show(folder, said, total):
    """Print a line for each test file that has come to its end since the last time."""
    for path in folder.glob("*.said"):
        lines = path.read_text(encoding="utf-8").splitlines(True)
        for line in lines[said.get(path, 0):]:
            if line.endswith("\n"):
                name, counts, seconds = json.loads(line)
                total.update(counts)
                said[path] = said.get(path, 0) + 1
                print(f"{name:<42}", ", ".join(f"{n} {kind}" for kind, n in counts.items()), f"in {seconds:.1f} s",
                      flush=True)


def report(text, status):
    """Print what pytest says of failures, errors and warnings; all of it where it did not come to its end."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("===")), len(lines) - 1)
    if status not in (0, 1, 5):
        print(f"a process ended with status {status}:")
        first = 0
    if lines[first:-1]:
        print("\n".join(lines[first:-1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
