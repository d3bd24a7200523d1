"""What a run prints, and its place in README.md."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

README = Path(__file__).with_name("README.md")


class Report:
    """Prints its lines as they come, and puts them into README.md, below a figure, where <!-- name --> says."""

    def __init__(self, name):
        self.name, self.lines = name, []
        self.line(machine() + "\n")

    def line(self, text=""):
        print(text, flush=True)
        self.lines.append(text)

    def save(self, figure=None, alt=None):
        before, found, rest = README.read_text(encoding="utf-8").partition(f"<!-- {self.name} -->\n")
        _, end, after = rest.partition(f"<!-- /{self.name} -->")
        if not found or not end:
            raise ValueError(f"README.md: no place <!-- {self.name} --> … <!-- /{self.name} -->")
        text = "\n".join([*(["", f"![{alt}]({figure})"] if figure else []), "", *self.lines, "", ""])
        README.write_text(before + found + text + end + after, encoding="utf-8")
        print(f"saved in {README}")


def check_whole(parser, options):
    """With --save, an error where other options narrow the measurement: the page and its figures hold whole ones."""
    narrowed = [f"--{name}" for name, value in vars(options).items() if name != "save" and value != parser.get_default(name)]
    if options.save and narrowed:
        parser.error(f"--save is for a whole measurement; leave out {', '.join(narrowed)}")


def machine():
    """What the numbers depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    entries = [line.partition(":")[::2] for line in cpuinfo.read_text().splitlines()] if cpuinfo.exists() else []
    facts = {key.strip(): value.strip() for key, value in reversed(entries)}
    processor = facts.get("model name", platform.processor()) + ", AVX-512" * ("avx512f" in facts.get("flags", ""))
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    return (f"{platform.system()}, {processor}, {os.cpu_count()} cores, Python {platform.python_version()}, "
            f"NumPy {version('numpy')}{load}.")
