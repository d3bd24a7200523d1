"""python -m tests.benchmarks.targets: what this project wants to reach, measured, and whether it is.

Ratios of adjacent turns as in __main__.py, three runs in a row; a cell holds if the median of the three does.
"""

import argparse
import statistics

from . import work
from .__main__ import check, paired, spread
from .report import Report, check_whole
from .work import MODES
from .worker import Worker, installed

RUNS = 3
HAND, PEER = "NumPy by hand, both on one thread", "PyTorch eager, 2 threads each"
# what, (contender, mode, threads, keep freed memory) over another, and for each size the most it may be and the aim
ROWS = [
    (f"LoRA step / {PEER}", "lora", ("pytorch", 2, False), {"tiny": (0.50, 0.42), "small": (1.00, 0.85), "large": (1.08, 1.00)}),
    (f"full step / {PEER}", "full", ("pytorch", 2, False), {"tiny": (0.43, 0.38), "small": (1.00, 0.90), "large": (1.20, 1.05)}),
    (f"LoRA step / {HAND}", "lora", ("by_hand", 1, True), {"tiny": (1.75, 1.50), "small": (1.06, 1.06), "large": (1.02, 1.02)}),
    ("LoRA step, threads=2 over two BLAS threads", "lora", ("lora_np", 2, True), {"small": (0.95, 0.80), "large": (0.80, 0.80)}),
]


def ours(size, threads):
    """What is compared: of two threads, two Python threads from the small model on, and at the tiny one BLAS's own."""
    return "lora_np_shared" if threads == 2 and size != "tiny" else "lora_np"


def ratio(a, b, size, mode, threads, keep, rounds):
    with Worker(a, size, mode, threads, keep=True) as one, Worker(b, size, mode, threads, keep) as other:
        x, y = paired(one, other, rounds, 0.15, 0.1 * (threads > 1))
    return x / y


def row(report, what, mode, peer, wanted, rounds, name=ours):
    """A line of the table: for each size the three medians, and whether the middle one holds."""
    other, threads, keep = peer
    cells = []
    for size in work.SIZES:
        if size not in wanted:
            cells.append("")
            continue
        runs = [ratio(name(size, threads), other, size, mode, threads, keep, rounds) for _ in range(RUNS)]
        medians = [statistics.median(run) for run in runs]
        middle, (must, aim) = statistics.median(medians), wanted[size]
        _, low, high = spread([r for run in runs for r in run])
        verdict = "" if must is None else f": {'holds' if round(middle, 2) <= must else 'not reached'}, must {must:.2f} ({aim:.2f})"
        cells.append(f"{' '.join(f'{m:.2f}' for m in medians)} [{low:.2f}, {high:.2f}]{verdict}")
    report.line(f"| {what} | {' | '.join(cells)} |")


def memory(report, wanted):
    cells = []
    for size, (must, aim) in wanted.items():
        peaks = []
        for mode in MODES:
            with Worker("lora_np", size, mode, keep=True) as worker:
                peaks.append(worker.ask("peak"))
        share = peaks[0] / peaks[1]
        cells.append(f"{share:.3f}: {'holds' if round(share, 2) <= must else 'not reached'}, must {must:.2f} ({aim:.2f})")
    report.line(f"| LoRA / full, peak memory | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.targets", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that all works, measures little")
    parser.add_argument("--save", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    check_whole(parser, options)
    rounds, report = 3 if options.quick else 9, Report("targets")
    peers = installed("pytorch")
    for size in work.SIZES:
        check(size, ["lora_np", "lora_np_shared", "by_hand", "by_hand_shared", *["pytorch"] * peers])
    report.line("All agree on loss, gradients and three steps, in float64.\n")
    report.line(f"| {RUNS} runs: medians [quartiles] | {' | '.join(work.SIZES)} |\n|---|---|---|---|")
    for what, mode, peer, wanted in ROWS:
        if peer[0] != "pytorch" or peers:
            row(report, what, mode, peer, wanted, rounds)
    memory(report, {"tiny": (0.68, 0.68), "small": (0.75, 0.70), "large": (0.56, 0.56)})
    for mode, label in MODES.items():  # what NumPy itself can do, for the cells that are not reached
        sizes = dict.fromkeys(("small", "large"), (None, None))
        if peers:
            row(report, f"NumPy by hand, shared out: {label} step / {PEER}", mode, ("pytorch", 2, False), sizes, rounds,
                lambda size, threads: "by_hand_shared")
    report.line()
    report.line(f"In a cell: the median ratio of each of {RUNS} runs of {rounds} rounds, and the quartiles of all.")
    if options.save:
        report.save()


if __name__ == "__main__":
    main()
