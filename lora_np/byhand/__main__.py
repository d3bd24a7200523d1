"""A LoRA layer worked with pencil and paper: python -m lora_np.byhand

It prints the forward pass and the backward pass line by line (formula, values substituted, value), then every
gradient in three ways: the slope between two losses, the formula, and the engine. With --answer it checks
what a student worked out. Exit status: 0, or 1 where an answer is wrong, or 2 for bad input.
"""

import argparse
import re
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..support import terminal
from ..support.notation import matrix
from .handout import as_key, as_markdown, as_text, key_table
from .mistakes import diagnose, draw
from .worksheet import at_start, by_hand, worked_example


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message):
        self.exit(2, f"byhand: {message}\n")


def parser():
    p = Parser(prog="python -m lora_np.byhand", description="A LoRA layer worked with pencil and paper.")
    p.add_argument("--seed", type=_int_at_least(0), metavar="N", help="another sheet: number N")
    p.add_argument("--rank", type=_int_at_least(1), default=1, metavar="R",
                   help="1 or 2; only 2 tells alpha from alpha/r")
    p.add_argument("--init", action="store_true", help="as LoRA starts, with B = 0")
    p.add_argument("--merge", action="store_true", help="also the merged weight W' = W0 + s B A")
    p.add_argument("--markdown", action="store_true", help="print Markdown, for a handout")
    what = p.add_mutually_exclusive_group()
    what.add_argument("--worksheet", action="store_true", help="the same lines with blanks")
    what.add_argument("--key", action="store_true", help="the values alone")
    what.add_argument("--answer", nargs="+", metavar="NAME=NUMBERS",
                      help='check answers: "dB=12,-18" "dx=8,-4"; a semicolon ends a row, 1/2 is a number')
    what.add_argument("--class", type=_int_at_least(1), dest="students", metavar="N",
                      help="write N different worksheets and one key, with --out")
    p.add_argument("--out", type=Path, metavar="FOLDER", help="where --class writes")
    return p


def _int_at_least(least):
    def convert(text):
        if not re.fullmatch(r"\d{1,9}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
        return int(text)
    return convert


def choose(seed, rank, init):
    """The sheet that the options name: the worked example where they name none."""
    sheet = worked_example() if seed is None and rank == 1 else draw(seed or 0, rank)
    return at_start(sheet) if init else sheet


def parse_answer(text, right):
    """"dB=12,-18" as (name, array). right: {name: right value}. Raises ValueError for what it cannot read."""
    name, equals, numbers = text.partition("=")
    name = re.sub(r"^dL/|\s", "", name.strip(), flags=re.IGNORECASE)
    name = {q.lower(): q for q in right}.get(name.lower(), name)
    if not equals or not numbers.strip():
        raise ValueError(f"cannot read the answer {text!r}: expected a name, = and numbers, as in dB=12,-18")
    if name == "dW0":
        raise ValueError("dW0 is not computed: W0 is frozen, so there is nothing to answer")
    if name not in right:
        raise ValueError(f"there is no {name!r} on the sheet; its lines are {', '.join(right)}")
    bare = numbers.strip().replace("\u2212", "-")
    if bare[0] + bare[-1] in ("[]", "()"):
        bare = bare[1:-1]
    try:
        rows = [[float(Fraction(n)) for n in re.split(r"[,\s]+", row.strip())] for row in bare.split(";")]
        value = np.array(rows)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(f"cannot read the numbers of {text!r}: expected them as in dB=12,-18 or dA=1,2;3,4") from None
    shape, n = np.shape(right[name]), np.size(right[name])
    if value.size != n:
        comma = re.fullmatch(r"([+-]?\d+),(\d+)", bare) if n == 1 else None
        advice = f"; a fraction is written {comma[1]}.{comma[2]} or as in 5/2" if comma else ""
        raise ValueError(f"{name} has {n} number{'s' * (n != 1)}, got {value.size} in {text!r}{advice}")
    return name, value.reshape(shape) if len(rows) == 1 or len(shape) < 2 else value


def check(sheet, texts):
    """(report, whether all is right) for answers such as "dB=12,-18". Raises ValueError as parse_answer does."""
    answers = {}
    for text in texts:
        name, value = parse_answer(text, by_hand(sheet))
        if name in answers:
            raise ValueError(f"{name} is answered twice")
        answers[name] = value
    verdicts = diagnose(sheet, answers)
    shown = {name: f"  {name} = {matrix(value)}" for name, value in answers.items()}
    width, lines = max(map(len, shown.values())), [f"LoRA by hand: {sheet.title}"]
    for name, found in verdicts.items():
        lines.append(f"{shown[name]:<{width}}   " + (f"wrong: {found[0]}" if found else "right"))
        lines += ["      " + text for text in found[1:]]
    return "\n".join(lines) + "\n", not any(verdicts.values())


def write_class(folder, students, seed, rank, init, merge):
    """Write sheet_01.md, sheet_02.md, … from different seeds, and key.md. Returns a line about it.

    Raises ValueError where the folder holds sheets beyond these, which key.md would not list.
    """
    sheets, seen, width = [], set(), max(2, len(str(students)))
    names = [f"sheet_{i:0{width}}.md" for i in range(1, students + 1)]
    if others := sorted({f.name for f in folder.glob("sheet_*.md")}.difference(names)):
        raise ValueError(f"{folder} holds other sheets, {others[0]} to {others[-1]}, which the new key would not list: "
                         "choose another folder, or delete them")
    while len(sheets) < students:
        sheet = choose(seed, rank, init)
        given = tuple(float(v) for part in (sheet.x, sheet.y, sheet.W0, sheet.A, sheet.B) for v in part.flat)
        if given not in seen:
            seen.add(given)
            sheets.append(sheet)
        seed += 1
    folder.mkdir(parents=True, exist_ok=True)
    for name, sheet in zip(names, sheets, strict=True):
        (folder / name).write_text(as_markdown(sheet, blank=True, merge=merge), encoding="utf-8", newline="\n")
    (folder / "key.md").write_text(key_table(sheets, merge), encoding="utf-8", newline="\n")
    return f"{folder}: {students} different sheet{'s' * (students > 1)} and key.md\n"


def main(arguments=None):
    """The command; returns its exit status."""
    p = parser()
    o = p.parse_args(arguments)
    if (o.students is None) != (o.out is None):
        p.error("--class and --out go together: --class 30 --out folder/")
    try:
        if o.students:
            sys.stdout.write(write_class(o.out, o.students, 1 if o.seed is None else o.seed, o.rank, o.init, o.merge))
            return 0
        sheet = choose(o.seed, o.rank, o.init)
        if o.answer:
            report, right = check(sheet, o.answer)
            sys.stdout.write(report)
            return 0 if right else 1
    except ValueError as error:
        p.error(str(error))
    except OSError as error:
        p.error(f"cannot write to {o.out}: {error.strerror}")
    if o.key:
        sys.stdout.write(key_table([sheet], o.merge) if o.markdown else as_key(sheet, o.merge))
    else:
        sys.stdout.write((as_markdown if o.markdown else as_text)(sheet, blank=o.worksheet, merge=o.merge))
    return 0


if __name__ == "__main__":
    terminal.run("byhand", main)
