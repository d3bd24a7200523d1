"""python -m tests.benchmarks: step times of lora_np against peers, as one table and one figure.

First every contender must agree on loss, gradients and the first optimizer steps, in float64. Then pairs
are timed in alternating turns, so that whatever the machine does meets both; a ratio is the median over the rounds
of (time of one turn of the first) / (time of the adjacent turn of the second), in brackets the quartiles.
"""

import argparse
import statistics
import sys
import time

import numpy as np

from . import drawing, work
from .contenders import NAMES
from .report import Report, check_whole
from .work import MODES
from .worker import PACKAGES, Worker, installed


def check(size, contenders):
    """Hold all contenders against the first: loss, gradients, and the losses of three steps, in float64.

    Raises AssertionError that names the contender and the gradient.
    """
    for mode in MODES:
        first = None
        for name in contenders:
            with Worker(name, size, mode, dtype="float64") as worker:
                loss, gradients = worker.ask("gradients")
                losses = worker.ask("losses", 3)
            if first is None:
                first = gradients, losses, max(np.abs(g).max() for g in gradients.values())
                continue
            what = f"{name} {mode} {size}"
            np.testing.assert_allclose([loss, *losses], [first[1][0], *first[1]], rtol=1e-9, err_msg=what)
            assert set(gradients) == set(first[0]), f"{what}: other gradients: {set(gradients) ^ set(first[0])}"
            for key, g in gradients.items():
                np.testing.assert_allclose(g, first[0][key], rtol=1e-8, atol=1e-10 * first[2], err_msg=f"{what}: {key}")


def steps_for(worker, seconds):
    """How many steps take about so long."""
    worker.ask("time", 3)
    return max(1, min(1000, round(seconds * 3 / worker.ask("time", 3))))


def paired(a, b, rounds, seconds, rest=0):
    """Time workers a and b in alternating turns. Returns the step times of a and of b, an array for each.

    rest: seconds before each turn. Idle threads of OpenBLAS and OpenMP wait in a loop for some hundredths of a second
    before they sleep, and would take a core from the other process's turn.
    """
    n, m, times = steps_for(a, seconds), steps_for(b, seconds), []
    for i in range(rounds):
        turns = [(a, n), (b, m)][::1 if i % 2 else -1]  # each goes first every other time
        measured = {}
        for worker, count in turns:
            time.sleep(rest)
            measured[worker] = worker.ask("time", count) / count
        times.append((measured[a], measured[b]))
    return np.array(times).T


def spread(values):
    """(median, lower quartile, upper quartile)."""
    return statistics.median(values), *np.quantile(values, (0.25, 0.75))


def compare(size, threads, contenders, rounds, seconds):
    """{(mode, contender, keep, threads): (ratios, its step times, ours)} of lora_np to each contender at one size."""
    out, rest = {}, 0.1 * (threads > 1)
    for mode in MODES:
        with Worker("lora_np", size, mode, threads, keep=True) as ours:
            for name in contenders:
                for keep in (False, True):  # as it is installed, and with keep_freed_memory
                    with Worker(name, size, mode, threads, keep) as other:
                        a, b = paired(ours, other, rounds, seconds, rest)
                        out[mode, name, keep, threads] = a / b, b, a
            if mode == "lora":
                with Worker("lora_np", size, "full", threads, keep=True) as full:
                    a, b = paired(ours, full, rounds, seconds, rest)
                    out["lora", "full", True, threads] = a / b, b, a
    return out


def ratios(results, sizes, t):
    """The lines of the table of ratios on t threads: what, and a text for each size in LoRA mode, then in full mode."""

    def cells(value, modes=MODES):
        return [value(mode, results[size]) if mode in modes else "" for mode in MODES for size in sizes]

    def ratio(name, keep):
        return lambda mode, result: "{:.2f} [{:.2f}, {:.2f}]".format(*spread(result[mode, name, keep, t][0]))

    def ours(mode, result):  # measured beside each other
        return f"{1000 * statistics.median(result['lora', 'full', True, t][2 if mode == 'lora' else 1]):.3g} ms"

    yield "lora_np", cells(ours)
    yield "/ own full step", cells(ratio("full", True), ["lora"])
    for mode, name, keep, at in results[sizes[0]]:
        if (mode, at) == ("lora", t) and name != "full":
            yield f"/ {NAMES[name]}{', keeping freed memory' * keep}", cells(ratio(name, keep))


def memory(peaks, sizes):
    """The lines of the table of peak memory."""
    for name, by_size in peaks.items():
        yield NAMES[name], [f"{by_size[size][mode] / 1e6:.3g} MB" for mode in MODES for size in sizes]
        shares = [f"{by_size[size]['lora'] / by_size[size]['full']:.2f}" for size in sizes]
        yield f"{NAMES[name]}, LoRA / full", shares + [""] * len(sizes)


def table(title, sizes, lines):
    """Markdown, with columns that line up."""
    lines = [[title, *(f"{label}, {size}" for label in MODES.values() for size in sizes)],
             *([what, *cells] for what, cells in lines)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([text[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *text[1:], ""])


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few short rounds: shows that all works, measures little")
    parser.add_argument("--sizes", nargs="+", choices=work.SIZES, default=list(work.SIZES))
    parser.add_argument("--threads", nargs="+", type=int, default=[2, 1])
    parser.add_argument("--only", nargs="+", choices=list(PACKAGES)[1:], default=list(PACKAGES)[1:],
                        help="time lora_np against these alone")
    parser.add_argument("--save", action="store_true", help="put table and figure into README.md")
    options = parser.parse_args()
    check_whole(parser, options)
    rounds, seconds = (3, 0.05) if options.quick else (15, 0.15)

    def say(text):
        print(text, file=sys.stderr, flush=True)

    begin, report = time.perf_counter(), Report("steps")
    contenders = [name for name in options.only if installed(name)]
    for name in sorted(set(options.only) - set(contenders)):
        report.line(f"not installed, left out: {NAMES[name]} (pip install {PACKAGES[name]})")
    versions = []
    for name in contenders:
        with Worker(name, "tiny", "lora") as worker:
            versions.append(worker.version)
    report.line(", ".join(dict.fromkeys(versions)) + ".")
    for size in options.sizes:
        check(size, ["lora_np", *contenders])
    report.line(f"lora_np and {len(contenders)} others agree on loss, gradients and three steps, in float64.\n")
    results = {size: {} for size in options.sizes}
    for size in options.sizes:
        for threads in options.threads:
            say(f"{size}, {threads} threads ({time.perf_counter() - begin:.0f} s)")
            results[size] |= compare(size, threads, contenders, rounds, seconds)
    peaks = {}
    for name in ("lora_np", "by_hand"):
        peaks[name] = {size: {} for size in options.sizes}
        for size in options.sizes:
            for mode in MODES:
                with Worker(name, size, mode, keep=True) as worker:
                    peaks[name][size][mode] = worker.ask("peak")
    for t in options.threads:
        report.line(table(f"{t} thread{'s' * (t > 1)}", options.sizes, ratios(results, options.sizes, t)))
    report.line(table("peak memory", options.sizes, memory(peaks, options.sizes)))
    report.line(f"Times: medians of {rounds} rounds, as ratios [with quartiles].")
    say(f"{time.perf_counter() - begin:.0f} s in all")
    if options.save:
        report.save(drawing.step_times(results, options.sizes, options.threads),
                    "Left, milliseconds a step against the number of parameters; right, each contender's step time in "
                    "multiples of lora_np's.")


if __name__ == "__main__":
    main()
