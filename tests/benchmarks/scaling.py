"""python -m tests.benchmarks.scaling: time and memory of a step against d, context, batch, r and layers.

Each is varied alone, by a factor of at least 8. Beside the exponent fitted to what was measured, y ~ x^exponent,
stands the one that counting gives over the same points: multiplications for the time, kept numbers for the memory.
"""

import argparse
import statistics
import sys
from dataclasses import astuple, replace

import numpy as np

from . import drawing
from .__main__ import machine, paired
from .work import VOCABULARY, Size
from .worker import Worker

BASE = Size(d_model=128, n_heads=4, n_layers=2, d_ff=512, context=64, batch=8)
AXES = {"d_model": (32, 64, 128, 256, 512), "context": (16, 32, 64, 128, 256, 512), "batch": (2, 4, 8, 16, 32),
        "r": (2, 4, 8, 16, 32, 64, 128), "n_layers": (1, 2, 4, 8)}
LABELS = {"d_model": "width d", "context": "context T", "batch": "batch B", "r": "rank r", "n_layers": "layers"}
MODES = {"lora": "LoRA", "full": "full"}


def at(axis, value):
    """BASE with one size changed; the hidden layer is always 4 d wide."""
    size = replace(BASE, **{axis: value})
    return replace(size, d_ff=4 * size.d_model)


def multiplications(size, mode):
    """The multiply-adds of a step's matrix products.

    A weight (d, k) costs N d k forward, as much for dL/dx and as much again for dL/dW, with N = B T positions.
    Attention costs N T d for each of its two products forward and four backward. What lies below the first trained
    weight has no backward.
    """
    N, d, T, L, r = size.batch * size.context, size.d_model, size.context, size.n_layers, size.r
    layer, head, attention = 4 * d * d + 2 * d * size.d_ff, VOCABULARY * d, T * d
    if mode == "full":
        return N * (3 * (L * layer + head) + 6 * L * attention)
    q_k_v, adapters = 3 * d * d, 2 * 2 * r * d
    return N * (2 * (L * layer + head) + 6 * L * attention - q_k_v - attention + 3 * L * adapters - 2 * r * d)


def numbers_kept(size, mode):
    """The 4-byte numbers held when backward begins: weights, AdamW's three arrays, and what the operations keep.

    In each layer both modes keep two normalised inputs, q, k, v and y of attention, its T x T table for each head,
    and one byte for each hidden unit. LoRA adds the inputs of A and of B; full adds the inputs of all weights.
    """
    N, d, T, L, r = size.batch * size.context, size.d_model, size.context, size.n_layers, size.r
    weights = drawing.parameters(size)
    both = N * (6 * d + size.n_heads * T + size.d_ff / 4)
    adapters = L * 2 * 2 * r * d
    if mode == "full":
        return 4 * weights + L * (both + N * (3 * d + size.d_ff)) + N * (2 * d + VOCABULARY)
    return weights + 4 * adapters + L * (both + N * (d + 2 * r)) + N * (d + VOCABULARY)


def exponent(x, y):
    """The slope of log y against log x by least squares."""
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def measure(axis, values, rounds, seconds):
    """{mode: (seconds a step, peak bytes)} with one entry for each value."""
    times, peaks = {mode: [] for mode in MODES}, {mode: [] for mode in MODES}
    for value in values:
        size = astuple(at(axis, value))
        with Worker("lora_np", size, "lora", keep=True) as lora, Worker("lora_np", size, "full", keep=True) as full:
            for mode, taken in zip(MODES, paired(lora, full, rounds, seconds), strict=True):
                times[mode].append(statistics.median(taken))
            for mode, worker in zip(MODES, (lora, full), strict=True):
                peaks[mode].append(worker.ask("peak"))
    return {mode: (times[mode], peaks[mode]) for mode in MODES}


def steady(steps=5000):
    """Print what is held after 500 and after all steps of the tiny model; raise AssertionError where it grows."""
    for mode in MODES:
        with Worker("lora_np", "tiny", mode, keep=True) as worker:
            (early, before), (late, after) = worker.ask("steady", steps)
        print(f"{steps} {MODES[mode]} steps of the tiny model: {early:,} bytes held after 500, {late:,} at the end; "
              f"resident {before / 1e6:.1f} and {after / 1e6:.1f} MB")
        assert late < early + 4096 and after <= before + 1e6, "memory grows with the number of steps"


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few short rounds: shows that all works, measures little")
    parser.add_argument("--only", nargs="+", choices=AXES, default=list(AXES))
    options = parser.parse_args()
    rounds, seconds = (2, 0.02) if options.quick else (9, 0.1)
    print(f"{machine()}; 1 thread\nbase: {BASE}\n")
    steady()
    print("\n| varied | from, to | mode | time: measured | counted | memory: measured | counted "
          "| LoRA / full, time | memory |\n|---|---|---|---|---|---|---|---|---|")
    results = {}
    for axis in options.only:
        values = AXES[axis]
        results[axis] = measured = measure(axis, values, rounds, seconds)
        shares = [f"{measured['lora'][i][0] / measured['full'][i][0]:.2f} to "
                  f"{measured['lora'][i][-1] / measured['full'][i][-1]:.2f}" for i in (0, 1)]
        for mode, label in MODES.items():
            sizes = [at(axis, value) for value in values]
            counted = [[count(size, mode) for size in sizes] for count in (multiplications, numbers_kept)]
            pairs = [(exponent(values, y), exponent(values, c)) for y, c in zip(measured[mode], counted, strict=True)]
            cells = [f"{value:.2f}" for pair in pairs for value in pair] + (shares if mode == "lora" else ["", ""])
            print(f"| {LABELS[axis]} | {values[0]}, {values[-1]} | {label} | {' | '.join(cells)} |")
            sys.stdout.flush()
    if options.only == list(AXES):
        print(f"\nfigure: {drawing.scaling(results, AXES, LABELS)}")


if __name__ == "__main__":
    main()
