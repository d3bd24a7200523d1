"""The formulas of an operation, as its docstring has them: what trace prints and the tests evaluate."""

import inspect
import re
import sys
from dataclasses import dataclass, field

from ..tensor import operations


@dataclass
class Formulas:
    """An operation's formulas: y, the gradient of each operand by its parameter name, and what they abbreviate."""

    y: str
    gradients: dict = field(default_factory=dict)
    where: dict = field(default_factory=dict)


def formula_lines(name):
    """[(symbol, expression)] of an operation, in order, from its docstring's lines such as "da = g * b"."""
    text = inspect.getdoc(operations[name])
    if text is None and sys.flags.optimize > 1:
        raise RuntimeError("trace: the formulas are read from docstrings, which python -OO leaves out; use python or "
                           "python -O")
    return re.findall(r"^ *(\w+) = (.+)$", text or "", re.MULTILINE)


def formulas(name):
    """The Formulas of an operation; for one that is not registered, just y = name(…)."""
    found = Formulas(f"{name}(…)")
    for symbol, expression in formula_lines(name) if name in operations else ():
        if symbol == "y":
            found.y = expression
        elif symbol[0] == "d" and symbol[1:] in inspect.signature(operations[name]).parameters:
            found.gradients[symbol[1:]] = expression
        else:
            found.where[symbol] = expression
    return found
