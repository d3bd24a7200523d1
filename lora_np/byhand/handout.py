"""The pages of a sheet: as text or Markdown, worked out or with blanks for a pencil, and its key."""

from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from ..support.notation import matrix, number
from .worksheet import by_engine, by_hand, by_slope

BLANK, WIDE_BLANK = "[____]", "[" + 38 * "_" + "]"  # for a value; for the values substituted


class Line(NamedTuple):
    """One quantity: its name, formula, remark, and for each entry its index, the values substituted, its value."""

    name: str
    formula: str
    remark: str
    rows: list


def dot(a, b):
    """The products of a and b with the values substituted: (2)(3) + (-1)(0.5)."""
    return " + ".join(f"({number(p)})({number(q)})" for p, q in zip(a, b, strict=True))


def _line(name, formula, remark, value, substituted):
    """substituted: (*index) -> the formula of that entry with the values substituted."""
    rows = [(_index(at), substituted(*at), np.asarray(value)[at]) for at in np.ndindex(np.shape(value))]
    return Line(name, formula, remark, rows)


def _index(at):
    """An index as the sheets write it: [0,1], and nothing for a single number."""
    return f"[{','.join(map(str, at))}]" if at else ""


def forward_lines(sheet):
    q = by_hand(sheet)
    squares = " + ".join(f"({number(e)})^2" for e in q["e"])
    return [
        _line("s", "s = alpha / r", "", q["s"], lambda: f"{number(sheet.alpha)} / {sheet.r}"),
        _line("W0x", "W0 x", "", q["W0x"], lambda i: dot(sheet.W0[i], sheet.x)),
        _line("u", "u = A x", "", q["u"], lambda i: dot(sheet.A[i], sheet.x)),
        _line("v", "v = B u", "", q["v"], lambda i: dot(sheet.B[i], q["u"])),
        _line("h", "h = W0 x + s v", "", q["h"], lambda i: f"{number(q['W0x'][i])} + {dot([q['s']], [q['v'][i]])}"),
        _line("e", "e = h - y", "", q["e"], lambda i: _minus(q["h"][i], sheet.y[i])),
        _line("L", "L = 1/2 (e[0]^2 + e[1]^2)", "", q["L"], lambda: f"1/2 ({squares})"),
    ]


def backward_lines(sheet):
    q = by_hand(sheet)
    return [
        _line("dh", "dh = h - y", "local slope of L", q["dh"], lambda i: _minus(q["h"][i], sheet.y[i])),
        _line("dv", "dv = s dh", "local s, upstream dh", q["dv"], lambda i: dot([q["s"]], [q["dh"][i]])),
        _line("dB", "dB = dv u^T", "local u, upstream dv", q["dB"], lambda i, j: dot([q["dv"][i]], [q["u"][j]])),
        _line("du", "du = B^T dv", "local B, upstream dv", q["du"], lambda i: dot(sheet.B[:, i], q["dv"])),
        _line("dA", "dA = du x^T", "local x, upstream du", q["dA"], lambda i, j: dot([q["du"][i]], [sheet.x[j]])),
        _line("dx", "dx = W0^T dh + A^T du", "two paths lead to x", q["dx"], lambda i:
              f"{dot(sheet.W0[:, i], q['dh'])} + {dot(sheet.A[:, i], q['du'])}"),
    ]


def merged_lines(sheet):
    q, W = by_hand(sheet), by_hand(sheet)["W'"]
    return [
        _line("W'", "W' = W0 + s B A", "", W, lambda i, j:
              f"{number(sheet.W0[i, j])} + ({number(q['s'])})({dot(sheet.B[i], sheet.A[:, j])})"),
        _line("", "W' x", "is h again", W @ sheet.x, lambda i: dot(W[i], sheet.x)),
        _line("", "W'^T dh", "is dx again", W.T @ q["dh"], lambda i: dot(W[:, i], q["dh"])),
    ]


def _minus(a, b):
    return f"{number(a)} - {number(b) if b >= 0 else f'({number(b)})'}"


def three_ways(sheet):
    """Rows (entry, L(+1), L(-1), slope, by hand, engine, verdict) for every entry of A, B and x."""
    hand, engine, rows = by_hand(sheet), by_engine(sheet), []
    for name, (above, below) in by_slope(sheet).items():
        for at in np.ndindex(above.shape):
            slope = (above[at] - below[at]) / 2
            three = slope, hand[f"d{name}"][at], engine[f"d{name}"][at]
            spread = max(three) - min(three)
            verdict = f"differ by {spread:.3g}" if spread > 1e-9 else "agree" if any(three) else "vacuous: both zero"
            rows.append((name + _index(at), *map(number, (above[at], below[at], *three)), verdict))
    return rows


FORMULAS = "h = W0 x + s B A x,    s = alpha / r,    L = 1/2 (e[0]^2 + e[1]^2)  with  e = h - y"
WORDS = """\
W0 is frozen; A and B are trained. x is the input, y the target, L the loss, r the rank. A gradient
is written with a d: dB is dL/dB, and has the shape of B. Vectors are columns. Indices start at 0:
B[1,0] is row 1, column 0. ^T transposes: rows become columns. Entry [i,j] of dv u^T is dv[i] u[j]."""
SLOPE = """\
L(+1) is L with this one entry raised by 1, L(-1) with it lowered by 1.
slope = (L(+1) - L(-1)) / 2: the exact gradient here, as L is quadratic in each single entry."""
FROZEN = "not computed (frozen)"
FLOWS = "The error still flows through W0 to x: that is W0^T dh in dx."
VACUOUS = "Both zero proves nothing: many a wrong formula gives zero too. Check where B is not zero."


def sections(sheet, merge):
    """(title, lines) of a sheet, in order."""
    parts = [("Forward", forward_lines(sheet)), ("Backward (upstream gradient times local derivative)",
                                                  backward_lines(sheet))]
    return [*parts, ("Merged", merged_lines(sheet))] if merge else parts


def as_text(sheet, blank=False, merge=False):
    """The whole sheet, at most 100 columns wide; blank: for a pencil."""
    title = f"LoRA by hand: {sheet.title}"
    out = [f"{title:<60}Name:" if blank else title, "", FORMULAS, WORDS, "", *_given(sheet)]
    for title, lines in sections(sheet, merge):
        out += ["", title]
        for line in lines:
            left = [line.formula, *([f"  {line.remark}"] if line.remark else [])]
            for text, row in zip_longest(left, line.rows, fillvalue=""):
                index, substituted, value = row or ("", "", 0)
                cells = (WIDE_BLANK, BLANK) if blank else (substituted, number(value))
                out.append(f"  {text:<28}{index:<6}" + (f"{cells[0]:<40} = {cells[1]}" if row else ""))
        if title.startswith("Backward"):
            out += [f"  {'dW0':<28}{FROZEN}", f"    {FLOWS}"]
    out += ["", "Each gradient in three ways", *(f"  {text}" for text in SLOPE.splitlines()), ""]
    for row in _table(sheet, blank):
        out.append("  " + "".join(cell.ljust(9) for cell in row))
    return _finish(out + _closing(sheet, blank))


def _table(sheet, blank):
    """The rows of three_ways under their headings; without the engine, which a pencil does not have, if blank."""
    if blank:
        return [("entry", "L(+1)", "L(-1)", "slope", "by hand"), *((row[0], *[BLANK] * 4) for row in three_ways(sheet))]
    return [("entry", "L(+1)", "L(-1)", "slope", "by hand", "engine", ""), *three_ways(sheet),
            ("W0", *["-"] * 4, str(by_engine(sheet)["dW0"]), FROZEN)]


def _closing(sheet, blank):
    if not blank:
        return ["", VACUOUS] if any("vacuous" in row[-1] for row in three_ways(sheet)) else []
    right = by_hand(sheet)
    marks = {name: ";".join(",".join("?" * len(row)) for row in np.atleast_2d(right[name]))
             for name in ("h", "dB", "dA", "dx")}
    answers = " ".join(f'"{name}={blanks}"' for name, blanks in marks.items())
    return ["", "The engine is the third way. Put in what you found:", "",
            "    " + " ".join(["python -m lora_np.byhand", *sheet.options.split(), "--answer", answers])]


def _given(sheet):
    """x, y, W0, A and B side by side, with their rows below each other."""
    blocks = []
    for name in ("x", "y", "W0", "A", "B"):
        rows = _cells(sheet, name)
        width = max(len(v) for row in rows for v in row)
        text = ["[" + " ".join(v.rjust(width) for v in row) + "]" for row in rows]
        blocks.append([f"{name} = {text[0]}", *(" " * (len(name) + 3) + t for t in text[1:])])
    blocks.append([f"alpha = {number(sheet.alpha)}", f"r = {sheet.r}"])
    return ["  " + "   ".join(part.ljust(max(map(len, block))) for part, block in zip(line, blocks, strict=True))
            for line in zip_longest(*blocks, fillvalue="")]


def _cells(sheet, name):
    """The rows of what is given, each a list of numbers as text; a vector is a column."""
    array = getattr(sheet, name)
    return [[number(v) for v in row] for row in array.reshape(len(array), -1)]


def as_markdown(sheet, blank=False, merge=False):
    """The whole sheet in Markdown; blank: for a pencil."""
    out = [f"# LoRA by hand: {sheet.title}", "", *(["Name:", ""] if blank else []), f"`{FORMULAS}`", "", WORDS,
           "", "$$"]
    next_row = r" \\ "
    for name in ("x", "y", "W0", "A", "B"):
        rows = map(" & ".join, _cells(sheet, name))
        out.append(rf"{name.replace('W0', 'W_0')} = \begin{{bmatrix}} {next_row.join(rows)} \end{{bmatrix}} \quad")
    out += [rf"\alpha = {number(sheet.alpha)} \quad r = {sheet.r}", "$$"]
    for title, lines in sections(sheet, merge):
        out += ["", f"## {title}", "", "| | index | values substituted | value |", "|---|---|---|---|"]
        for line in lines:
            for i, (index, substituted, value) in enumerate(line.rows):
                cells = (WIDE_BLANK, BLANK) if blank else (substituted, number(value))
                first = f"`{line.formula}`" + (f" {line.remark}" if line.remark else "") if i == 0 else ""
                out.append(f"| {first} | {index} | {cells[0]} | {cells[1]} |")
        if title.startswith("Backward"):
            out += [f"| `dW0` | | {FROZEN} | |", "", FLOWS]
    out += ["", "## Each gradient in three ways", "", SLOPE, ""]
    for i, row in enumerate(_table(sheet, blank)):
        out += ["| " + " | ".join(row) + " |", *(["|---" * len(row) + "|"] if i == 0 else [])]
    return _finish(out + _closing(sheet, blank))


def as_key(sheet, merge=False):
    """Only the values, in the sheet's order."""
    values = by_hand(sheet)
    out = [f"Key: {sheet.title}", "", *(f"  {name:<4} = {matrix(values[name])}" for name in _names(sheet, merge)), ""]
    return _finish([*out, *(f"  {e:<7} L(+1) {a:<8} L(-1) {b:<8} slope {s}" for e, a, b, s, *_ in three_ways(sheet))])


def key_table(sheets, merge=False):
    """One key for many sheets, in Markdown: a row for each, a column for each line of the sheets, in their order."""
    names = _names(sheets[0], merge)
    out = ["# Key", "", "A semicolon ends a row of a matrix. The slopes are the entries of dA, dB and dx.", "",
           "| sheet | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for sheet in sheets:
        values = by_hand(sheet)
        out.append("| " + " | ".join([sheet.title, *(matrix(values[name]) for name in names)]) + " |")
    return _finish(out)


def _names(sheet, merge):
    return [line.name for _, lines in sections(sheet, merge) for line in lines if line.name]


def _finish(lines):
    return "\n".join(line.rstrip() for line in lines) + "\n"
