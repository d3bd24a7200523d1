"""python -m tests.benchmarks.language_model: a real language model, SmolLM2-135M, in lora_np and in PEFT."""

import sys
import time

import numpy as np

from .worker import serve

VOCABULARY = 49152


class Commands:
    """What a worker for one contender does when it is asked. task: "all" or "quarter", of which targets a loss is taken;
    or "generate"."""

    def __init__(self, name, path, task, *options):
        from importlib import import_module
        module = import_module(f"tests.benchmarks.contenders.llama_{name}")
        self.contender, self.task, self.version = module.Contender(path, 8 * (task != "generate"), *options), task, module.VERSION
        rng = np.random.default_rng(0)
        self.prompt = rng.integers(3, VOCABULARY, 32)
        ids = rng.integers(3, VOCABULARY, (16, 4, 65))
        x, y = ids[:, :, :-1], ids[:, :, 1:].copy()
        if task == "quarter":
            y[:, :, :48] = -100
        self.batches = [(np.ascontiguousarray(a), np.ascontiguousarray(b)) for a, b in zip(x, y)]

    def time(self, n):
        begin = time.perf_counter()
        for i in range(n):
            if self.task == "generate":
                self.contender.generate(self.prompt, 64)
            else:
                self.contender.step(*self.batches[i % 16])
        return time.perf_counter() - begin

    def start(self): return self.contender.start()
    def start_at(self, a): self.contender.start_at(a)
    def losses(self, n): return [self.contender.step(*b) for b in self.batches[:n]]
    def generated(self): return self.contender.generate(self.prompt, 64)

    def peak(self):
        for b in self.batches[:4]: self.contender.step(*b)
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if len(sys.argv) == 1 or sys.argv[1] == "worker":
        serve(Commands)
