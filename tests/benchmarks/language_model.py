"""python -m tests.benchmarks.language_model: fine-tuning and generating with a real model, against PEFT in PyTorch.

Both load the same folder in float32 and start from the same A and B; first their losses over three steps and what they
generate are compared. Then pairs are timed in alternating turns, each in a process of its own, as in __main__.py.
"""

import argparse
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from lora_np.checkpoint import load_model, save_model

from .__main__ import paired, spread
from .language_worker import BATCH, CONTEXT, NEW, PROMPT
from .report import Report, check_whole
from .worker import Process


def worker(name, path, task, threads=2, **options):
    return Process("tests.benchmarks.language_worker", threads, name, str(path), task, options)


def agree(folder):
    """Raise AssertionError where losses of three steps or generated tokens differ. Returns the peer's versions."""
    with worker("lora_np", folder, "all") as ours, worker("peft", folder, "all") as theirs:
        ours.ask("start_at", theirs.ask("start"))
        np.testing.assert_allclose(ours.ask("losses", 3), theirs.ask("losses", 3), rtol=1e-4)
        versions = theirs.version
    with worker("lora_np", folder, "generate") as ours, worker("peft", folder, "generate") as theirs:
        np.testing.assert_array_equal(ours.ask("generated"), theirs.ask("generated"))
    return versions


class Table:
    """Rows of what was measured here, there, and in what ratio."""

    def __init__(self, report, rounds):
        self.report, self.rounds = report, rounds
        report.line("| | lora_np | PEFT | ratio | must (aim) |\n|---|---|---|---|---|")

    def time(self, what, must, ours, theirs, tokens=None):
        """Time two workers in alternating turns. tokens: report tokens a second, and the ratio of these."""
        with ours, theirs:
            a, b = paired(ours, theirs, self.rounds, 0.5, rest=0.1)
        if tokens:
            a, b = tokens / a, tokens / b
        unit = "{:.1f} tokens/s" if tokens else "{:.2f} s"
        cells = [*(unit.format(np.median(x)) for x in (a, b)), "{:.2f} [{:.2f}, {:.2f}]".format(*spread(a / b))]
        self.report.line(f"| {what} | {' | '.join(cells)} | {must} |")

    def memory(self, what, must, ours, theirs):
        a, b = (x / 1e9 for x in (ours, theirs))
        self.report.line(f"| {what} | {a:.2f} GB | {b:.2f} GB | {a / b:.2f} | {must} |")


def peak(name, path, **options):
    with worker(name, path, "all", **options) as one:
        return one.ask("peak")


def compare(table, path, folder):
    """Measure row after row. path: a GGUF file or a folder; folder: the same in floats."""
    def ours(task="all", threads=2, place=folder, **options):
        return worker("lora_np", place, task, threads, **options)

    def theirs(task="all", threads=2):
        return worker("peft", folder, task, threads)

    step = f"LoRA step, {BATCH} x {CONTEXT} tokens"
    table.time(f"{step}, loss on all, 2 threads", "1.15 (1.0)", ours(), theirs())
    table.time("the same, the threads sharing the batch out", "1.15 (1.0)", ours(share=2), theirs())
    table.time("the same, 1 thread", "1.15 (1.05)", ours(threads=1), theirs(threads=1))
    table.time("loss on a quarter of the positions, 2 threads", "1.0 (0.9)", ours("quarter"), theirs("quarter"))
    table.time("the same, the threads sharing the batch out", "1.0 (0.9)", ours("quarter", share=2), theirs("quarter"))
    table.time(f"greedy generation, {NEW} tokens after {PROMPT}, 2 threads", "1.1 (1.3)", ours("generate"),
               theirs("generate"), tokens=NEW)
    whole = peak("peft", folder)
    table.memory("peak memory of the process", "0.70", peak("lora_np", folder), whole)
    if Path(path).is_dir():
        return
    table.memory("the same with quantized=True", "0.45", peak("lora_np", path, quantized=True), whole)
    table.time("step with quantized=True (left) over the float step of lora_np (right)", "1.4 (1.2)",
               ours(place=path, quantized=True), ours())


def loading(report, path):
    """Report how long it takes from the file to the first token."""
    for text, options in (("", {}), (" with quantized=True", {"quantized": True})):
        with worker("lora_np", path, "generate", **options) as one:
            seconds, more = one.ask("first_token")
        report.line(f"Load of the file to the first token{text}: {seconds:.2f} + {more:.2f} s.")


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.language_model",
                                     description=__doc__.splitlines()[0].partition(": ")[2])
    parser.add_argument("--model", default="smollm2", help="a GGUF file, a Transformers folder, or smollm2")
    parser.add_argument("--quick", action="store_true", help="two rounds: shows that all works, measures little")
    parser.add_argument("--save", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    check_whole(parser, options)
    missing = [name for name in ("torch", "transformers", "peft") if find_spec(name) is None]
    report = Report("language_model")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.model)
        if not folder.is_dir():
            folder = Path(temporary)
            save_model(load_model(options.model), folder)
        if missing:
            report.line(f"Not installed: {', '.join(missing)}. So there is nothing to compare with.\n")
        else:
            report.line(f"{agree(folder)}. Losses of three steps and {NEW} tokens agree.\n")
            compare(Table(report, 2 if options.quick else 9), options.model, folder)
        report.line()
        loading(report, options.model)
    report.line("Times: medians, and of the ratios of adjacent turns the median [with quartiles].")
    if options.save:
        report.save()


if __name__ == "__main__":
    main()
