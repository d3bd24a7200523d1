"""A contender in a process of its own, and the driver's end of it.

The thread count has to be in the environment before NumPy or PyTorch starts, and one library's threads or
memory settings must not touch another's. So each contender runs in its own process, which builds its model
and then does what it is asked, one command at a time:

    with Worker("pytorch", "small", "lora", threads=2) as worker:
        worker.ask("time", 50)   # the seconds that 50 steps take
"""

import gc
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"lora_np": "numpy", "by_hand": "numpy", "pytorch": "torch", "hips": "autograd", "mygrad_": "mygrad"}


def installed(contender):
    return find_spec(PACKAGES[contender]) is not None


class Process:
    """A Python process of its own that runs a module and answers commands; the first ones set it up."""

    def __init__(self, module, threads, *setup):
        threads = {f"{name}_NUM_THREADS": str(threads) for name in ("OPENBLAS", "OMP", "MKL")}
        self.process = subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, env=os.environ | threads,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.name = " ".join(map(str, setup))
        self.version = self.ask(*setup)

    def ask(self, *command):
        pickle.dump(command, self.process.stdin)
        self.process.stdin.flush()
        try:
            return pickle.load(self.process.stdout)
        except EOFError:
            raise RuntimeError(f"the worker for {self.name} ended at {command}; its error is above") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Worker(Process):
    """A process that holds one contender's model. keep: let its C library keep freed memory, as lora_np does."""

    def __init__(self, contender, size, mode, threads=1, keep=False, dtype="float32"):
        super().__init__("tests.benchmarks.worker", threads, contender, size, mode, keep, dtype)


def serve(commands):
    """The other end of a Process: commands(…) takes what set it up and has a version; its methods answer the rest."""
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up among the answers
    commands = commands(*pickle.load(asked))
    answer = commands.version
    while True:
        pickle.dump(answer, answers)
        answers.flush()
        try:
            name, *arguments = pickle.load(asked)
        except EOFError:
            return
        answer = getattr(commands, name)(*arguments)


def resident():
    """Bytes of this process that lie in memory; 0 where /proc does not tell."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


class Commands:
    """What a worker for one contender does when it is asked."""

    def __init__(self, name, size, mode, keep, dtype):
        if keep:
            import_module("lora_np.support.memory").keep_freed_memory()
        module, work = import_module(f"tests.benchmarks.contenders.{name}"), import_module("tests.benchmarks.work")
        if name == "pytorch":
            module.torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        size = work.SIZES[size] if isinstance(size, str) else work.Size(*size)
        self.batches = work.batches(size)
        self.build = lambda: module.Contender(size, work.weights(size, mode, dtype), mode)
        self.contender, self.version = self.build(), module.VERSION

    def gradients(self):
        return self.contender.loss_and_gradients(*self.batches[0])

    def losses(self, steps):
        """Over the first steps of a new model."""
        new = self.build()
        return [new.step(x, y).item() for x, y in self.batches[:steps]]

    def time(self, steps):
        for x, y in self.batches[:max(1, steps // 8)]:  # the other process had the caches: fill them again
            self.contender.step(x, y)
        begin = time.perf_counter()
        for i in range(steps):
            self.contender.step(*self.batches[i % len(self.batches)])
        return time.perf_counter() - begin

    def steady(self, steps):
        """(bytes held, resident memory, objects that only the cycle collector could free) after 500 steps and more."""
        gc.collect()
        gc.disable()
        tracemalloc.start()
        held = []
        for n in (500, steps - 500):
            for i in range(n):
                self.contender.step(*self.batches[i % len(self.batches)])
            in_cycles = gc.collect()  # which also empties Python's stock of freed tuples, up to 2,000 of each length
            held.append((tracemalloc.get_traced_memory()[0], resident(), in_cycles))
        return held

    def peak(self):
        """Bytes held at most in a step: weights, optimizer, activations, gradients."""
        self.contender = None
        tracemalloc.start()
        self.contender = self.build()
        tracemalloc.reset_peak()  # what building took for a moment is not training
        for x, y in self.batches[:4]:
            self.contender.step(x, y)
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held


if __name__ == "__main__":
    serve(Commands)
