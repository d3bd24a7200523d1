"""Benchmarks still run: three of the five, with few short rounds. A part of a measurement changes no page and no figure."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import whole_class

pytestmark = whole_class
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("arguments", "row"), [
    ("benchmarks --quick --sizes tiny --threads 1", "| / NumPy by hand"),
    ("benchmarks.scaling --quick --only r", "| rank r | 2, 128 | LoRA"),
    ("benchmarks.inside --sizes tiny", "| tiny, LoRA |"),
])
def test_a_benchmark_runs_to_its_end(arguments, row):
    kept = {path: path.read_bytes() for path in (ROOT / "tests/benchmarks").iterdir() if path.suffix in (".md", ".png")}
    done = subprocess.run([sys.executable, "-m", *f"tests.{arguments}".split()], cwd=ROOT, capture_output=True, text=True,
                          encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert row in done.stdout
    assert len(kept) == 4 and all(path.read_bytes() == before for path, before in kept.items())


@pytest.mark.parametrize("arguments", ["benchmarks --quick", "benchmarks.scaling --only r", "benchmarks.inside --sizes tiny",
                                       "benchmarks.targets --quick", "benchmarks.language_model --model other"])
def test_a_part_of_a_measurement_is_not_saved(arguments):
    done = subprocess.run([sys.executable, "-m", *f"tests.{arguments} --save".split()], cwd=ROOT, capture_output=True,
                          text=True, encoding="utf-8")
    assert done.returncode == 2 and f"leave out {arguments.split()[1]}\n" in done.stderr
