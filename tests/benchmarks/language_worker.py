"""A contender of language_model.py in a process of its own, and what it is asked to do."""

import time
from importlib import import_module

import numpy as np

from lora_np.support.memory import peak_memory

from .worker import serve

BATCH, CONTEXT, PROMPT, NEW = 4, 64, 32, 64


class Commands:
    """What a worker for one contender does when it is asked.

    task: "all" or "quarter", by how many of the positions have a target, or "generate". options: for the contender.
    """

    def __init__(self, name, path, task, options):
        module = import_module(f"tests.benchmarks.contenders.llama_{name}")
        begin = time.perf_counter()
        self.contender = module.Contender(path, task != "generate", **options)
        self.version, self.task, self.loading = module.VERSION, task, time.perf_counter() - begin
        self.prompt = np.random.default_rng(0).integers(3, 1000, PROMPT)
        self.batches = language_batches(task)

    def start(self):
        return self.contender.start()

    def start_at(self, arrays):
        self.contender.start_at(arrays)

    def losses(self, steps):
        return [self.contender.step(x, y) for x, y in self.batches[:steps]]

    def generated(self):
        return self.contender.generate(self.prompt, NEW)

    def first_token(self):
        """(seconds that loading took, and then the first token)."""
        begin = time.perf_counter()
        self.contender.generate(self.prompt[:5], 1)
        return self.loading, time.perf_counter() - begin

    def time(self, times):
        begin = time.perf_counter()
        for i in range(times):
            if self.task == "generate":
                self.contender.generate(self.prompt, NEW)
            else:
                self.contender.step(*self.batches[i % len(self.batches)])
        return time.perf_counter() - begin

    def peak(self):
        """The most bytes of the process that lay in memory, from its start to the end of four steps."""
        self.losses(4)
        return peak_memory()


def language_batches(task):
    """[(x, y)], each (BATCH, CONTEXT), of ids that every model has: the time does not depend on what they say."""
    ids = np.random.default_rng(0).integers(3, 1000, (16, BATCH, CONTEXT + 1))
    x, y = np.ascontiguousarray(ids[..., :-1]), np.ascontiguousarray(ids[..., 1:])
    if task == "quarter":
        y[..., :CONTEXT * 3 // 4] = -100
    return list(zip(x, y, strict=True))


if __name__ == "__main__":
    serve(Commands)
