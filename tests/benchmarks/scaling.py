"""python -m tests.benchmarks.scaling: time and memory of a step against d, context, batch, r and layers.

Each is varied alone, by a factor of at least 8. Beside the exponent fitted to what was measured, y ~ x^exponent,
stands the one that counting gives over the same points: multiplications for the time, bytes for the memory.
"""

import argparse
from contextlib import ExitStack
from dataclasses import astuple, replace

import numpy as np

from lora_np import GPTConfig
from lora_np.extras.budget import attention_weights, memory_budget

from . import drawing
from .__main__ import paired
from .report import Report, check_whole
from .work import MODES, TARGETS, VOCABULARY, Size
from .worker import Worker

BASE = Size(d_model=128, n_heads=4, n_layers=2, d_ff=512, context=64, batch=8)
AXES = {"d_model": (32, 64, 128, 256, 512), "context": (16, 32, 64, 128, 256, 512), "batch": (2, 4, 8, 16, 32),
        "r": (2, 4, 8, 16, 32, 64, 128), "n_layers": (1, 2, 4, 8)}
LABELS = {"d_model": "width d", "context": "context T", "batch": "batch B", "r": "rank r", "n_layers": "layers"}


def at(axis, value):
    """BASE with one size changed; the hidden layer is always 4 d wide."""
    size = replace(BASE, **{axis: value})
    return replace(size, d_ff=4 * size.d_model)


def multiplications(size, mode):
    """The multiply-adds of a step's matrix products.

    A weight (d, k) costs N d k forward, as much for dL/dx and as much again for dL/dW, with N = B T positions.
    Attention costs B d times its weights for each of its two products forward and four backward. Below the first
    trained weight there is no backward.
    """
    N, d, T, L, r = size.batch * size.context, size.d_model, size.context, size.n_layers, size.r
    layer, head, attention = 4 * d * d + 2 * d * size.d_ff, VOCABULARY * d, attention_weights(T) * d / T
    if mode == "full":
        return N * (3 * (L * layer + head) + 6 * L * attention)
    q_k_v, adapters = 3 * d * d, 2 * 2 * r * d
    return N * (2 * (L * layer + head) + 6 * L * attention - q_k_v - attention + 3 * L * adapters - 2 * r * d)


def bytes_held(size, mode):
    """What extras/budget.py counts: weights, gradients, AdamW's states, and what the operations keep for backward."""
    config = GPTConfig(VOCABULARY, size.context, size.d_model, size.n_heads, size.n_layers, size.d_ff)
    return memory_budget(config, TARGETS if mode == "lora" else (), size.r, batch=size.batch).training


def exponent(x, y):
    """The slope of log y against log x by least squares."""
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def measure(axis, values, rounds, seconds):
    """{mode: (seconds a step, peak bytes)} with one entry for each value. All take turns in each round, so that slow
    moments of the machine affect them alike; this needs the memory of all at once."""
    with ExitStack() as stack:
        pairs = [[stack.enter_context(Worker("lora_np", astuple(at(axis, value)), mode, keep=True)) for mode in MODES]
                 for value in values]
        times = np.concatenate([[paired(*pair, 2, seconds) for pair in pairs] for _ in range(rounds)], axis=2)
        times = np.median(times, axis=2)  # (values, modes)
        peaks = [[worker.ask("peak") for worker in pair] for pair in pairs]
    return {mode: (times[:, i].tolist(), [peak[i] for peak in peaks]) for i, mode in enumerate(MODES)}


def steady(report, steps):
    """Report what is held after 500 and after all steps of the tiny model; raise AssertionError where it grows."""
    for mode in MODES:
        with Worker("lora_np", "tiny", mode, keep=True) as worker:
            (early, before, found), (late, after, more) = worker.ask("steady", steps)
        report.line(f"{steps:,} {MODES[mode]} steps of the tiny model: {early:,} bytes held after 500, {late:,} at the "
                    f"end; resident {before / 1e6:.1f} and {after / 1e6:.1f} MB.")
        assert late < early + 4096 and after <= before + 1e6, "memory grows with the number of steps"
        assert not found and not more, "steps leave objects behind that refer to each other"


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few short rounds: shows that all works, measures little")
    parser.add_argument("--only", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--save", action="store_true", help="put table and figure into README.md")
    options = parser.parse_args()
    check_whole(parser, options)
    rounds, seconds = (1, 0.02) if options.quick else (6, 0.1)
    report = Report("scaling")
    report.line(f"1 thread. Where nothing else is said: {BASE}.\n")
    steady(report, 1000 if options.quick else 5000)
    report.line("\n| varied | from, to | mode | time: measured | counted | memory: measured | counted "
                "| LoRA / full, time | memory |\n|---|---|---|---|---|---|---|---|---|")
    results = {}
    for axis in options.only:
        values = AXES[axis]
        results[axis] = measured = measure(axis, values, rounds, seconds)
        shares = [f"{measured['lora'][i][0] / measured['full'][i][0]:.2f} to "
                  f"{measured['lora'][i][-1] / measured['full'][i][-1]:.2f}" for i in (0, 1)]
        for mode, label in MODES.items():
            sizes = [at(axis, value) for value in values]
            counted = [[count(size, mode) for size in sizes] for count in (multiplications, bytes_held)]
            pairs = [(exponent(values, y), exponent(values, c)) for y, c in zip(measured[mode], counted, strict=True)]
            cells = [f"{value:.2f}" for pair in pairs for value in pair] + (shares if mode == "lora" else ["", ""])
            report.line(f"| {LABELS[axis]} | {values[0]}, {values[-1]} | {label} | {' | '.join(cells)} |")
    if options.save:
        report.save(drawing.scaling(results, AXES, LABELS),
                    "Time and memory of a LoRA and a full step, by width, context, batch, rank and layers.")


if __name__ == "__main__":
    main()
