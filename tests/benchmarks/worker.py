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


class Worker:
    """A process that holds one contender's model. keep: let its C library keep freed memory, as lora_np does."""

    def __init__(self, contender, size, mode, threads=1, keep=False, dtype="float32"):
        threads = {f"{name}_NUM_THREADS": str(threads) for name in ("OPENBLAS", "OMP", "MKL")}
        self.process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.worker"], cwd=ROOT,
                                        env=os.environ | threads, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.name = f"{contender} {mode} {size}"
        self.version = self.ask(contender, size, mode, keep, dtype)

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


def resident():
    """Bytes of this process that lie in memory; 0 where /proc does not tell."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


def main():
    commands, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up among the answers

    def answer(value):
        pickle.dump(value, answers)
        answers.flush()

    name, size, mode, keep, dtype = pickle.load(commands)
    if keep:
        import_module("lora_np.support.memory").keep_freed_memory()
    module, work = import_module(f"tests.benchmarks.contenders.{name}"), import_module("tests.benchmarks.work")
    if name == "pytorch":
        module.torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    size = work.SIZES[size] if isinstance(size, str) else work.Size(*size)
    batches = work.batches(size)

    def build():
        return module.Contender(size, work.weights(size, mode, dtype), mode)

    contender = build()
    answer(module.VERSION)
    while True:
        try:
            command, *arguments = pickle.load(commands)
        except EOFError:
            return
        if command == "gradients":
            answer(contender.loss_and_gradients(*batches[0]))
        elif command == "losses":  # over the first steps of a new model
            new = build()
            answer([new.step(x, y).item() for x, y in batches[:arguments[0]]])
        elif command == "time":
            for x, y in batches[:max(1, arguments[0] // 8)]:  # the other process had the caches: fill them again
                contender.step(x, y)
            begin = time.perf_counter()
            for i in range(arguments[0]):
                contender.step(*batches[i % len(batches)])
            answer(time.perf_counter() - begin)
        elif command == "steady":  # bytes held after 500 steps and after more; no cycle collector helps
            gc.disable()
            tracemalloc.start()
            held = []
            for steps in (500, arguments[0] - 500):
                for i in range(steps):
                    contender.step(*batches[i % len(batches)])
                held.append((tracemalloc.get_traced_memory()[0], resident()))
            answer(held)
        elif command == "peak":  # bytes held at most in a step: weights, optimizer, activations, gradients
            contender = None
            tracemalloc.start()
            contender = build()
            tracemalloc.reset_peak()  # what building took for a moment is not training
            for x, y in batches[:4]:
                contender.step(x, y)
            answer(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()


if __name__ == "__main__":
    main()
