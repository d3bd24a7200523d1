"""The tape in words: every step of a small computation forward, then backward with the rule and the numbers.

    trace(lambda: ((layer(x) - y) ** 2).sum())      runs the function and prints its tape
    with record():                                  or: record what you compute,
        loss = …
    trace(loss)                                     and print it afterwards

The graph that backward walks has no edge to a frozen operand; the tape has, and shows that it is skipped.
"""

import re
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count

import numpy as np

from ..graph import open_blocks, unbroadcast
from ..support.notation import matrix, number
from ..tensor import Tensor, operations, tape
from .formulas import formulas

_recorded = deque(maxlen=8)  # the latest tapes, in which a loss is looked up
SMALL, DIGITS = 12, 4  # up to so many elements are printed, to so many digits; larger arrays by shape and range


@contextmanager
def record():
    """Inside `with record():` every operation is kept for trace and draw_graph, the frozen ones too."""
    steps = []
    tape.set((*tape.get(), steps))
    open_blocks.add(id(steps))
    try:
        yield steps
    finally:
        tape.set(tuple(other for other in tape.get() if other is not steps))  # in whatever order they end
        open_blocks.discard(id(steps))
        _recorded.append(steps)


@dataclass
class Operand:
    """What a step takes in. rule: the formula of its gradient; gradient: what this step sends it, or None."""

    name: str
    tensor: Tensor
    rule: str
    constant: bool  # a single number, named by its value
    gradient: np.ndarray | None = None
    total: np.ndarray | None = None  # what it has received up to this step of the backward pass


@dataclass
class Step:
    """One operation: the names and formulas with its operands substituted, and g = dL/d(result), or None."""

    number: int
    operation: str
    name: str
    tensor: Tensor
    formula: str
    where: list
    operands: list
    g: np.ndarray | None = None


class Trace:
    """A tape worked through: leaves {name: Tensor}, steps in forward order, gradients {name: array}.

    target: a function without arguments that returns the loss, or a loss computed inside `with record():`.
    model: where given, its parameters keep their names. No Tensor's grad is touched.
    Raises ValueError where the loss was not recorded or has more than one element.
    """

    def __init__(self, target, model=None):
        self.loss, entries = _entries(target)
        self._given = {id(t): name for name, t in model.named_parameters()} if model is not None else {}
        self._names, self.leaves, self.steps, self.gradients = {}, {}, [], {}
        results = {id(out) for _, out, _ in entries}
        for i, (operation, out, edges) in enumerate(entries, start=1):
            for t, _ in edges:
                if id(t) not in results and id(t) not in self._names:
                    self._add_leaf(t)
            self._name(out, out.name or ("L" if out is self.loss else f"t{i}"))
            self.steps.append(self._step(i, operation, out, edges, results))
        self._backward([edges for *_, edges in entries])

    def _add_leaf(self, t):
        name = self._given.get(id(t)) or t.name
        if name is None and t.size == 1 and not t.requires_grad:
            self._names[id(t)] = text(t.data)  # a constant goes by its value and is no leaf of its own
            return
        letter = "p" if t.requires_grad else "c"
        self._name(t, name or f"{letter}{1 + sum(n[0] == letter and n[1:].isdigit() for n in self.leaves)}")
        self.leaves[self._names[id(t)]] = t

    def _name(self, t, name):
        """Note the name of t, with _2, _3, … behind it where another has it."""
        taken = set(self._names.values())
        self._names[id(t)] = next(n for n in chain([name], (f"{name}_{i}" for i in count(2))) if n not in taken)

    def _step(self, i, operation, out, edges, results):
        rules = formulas(operation)
        parameters, absent = list(rules.gradients)[:len(edges)], list(rules.gradients)[len(edges):]
        if len(edges) > len(parameters):  # a list of Tensors, or an operation without formulas
            parameters = (parameters[:1] or ["?"]) * len(edges)
        operands = [self._names[id(t)] for t, _ in edges]

        def substitute(formula):
            for name in absent:  # linear without a bias
                formula = formula.replace(f" + {name}", "")
            names = {"y": self._names[id(out)]}
            for parameter, operand in zip(parameters, operands, strict=True):
                names[parameter] = f"{names[parameter]}, {operand}" if parameter in names else operand
            return re.sub(r"\b[A-Za-z]\w*", lambda m: names.get(m[0], m[0]), formula)

        return Step(i, operation, self._names[id(out)], out,
                    substitute(rules.y) if operation in operations else f"{operation}({', '.join(operands)})",
                    [f"{left} = {substitute(right)}" for left, right in rules.where.items()],
                    [Operand(name, t, substitute(rules.gradients.get(parameter, "vjp(g)")),
                             constant=id(t) not in results and name not in self.leaves)
                     for (t, _), name, parameter in zip(edges, operands, parameters, strict=True)])

    def _backward(self, edges):
        received = {id(self.loss): np.ones_like(self.loss.data)} if self.loss.requires_grad else {}
        for step, pairs in zip(reversed(self.steps), reversed(edges), strict=True):
            step.g = received.get(id(step.tensor))
            for operand, (t, vjp) in zip(step.operands, pairs, strict=True):
                if step.g is None or not t.requires_grad:
                    continue
                operand.gradient = unbroadcast(np.asarray(vjp(step.g)), t.shape, step.operation).astype(t.dtype)
                before = received.get(id(t))
                operand.total = received[id(t)] = operand.gradient if before is None else before + operand.gradient
        self.gradients = {name: received.get(id(t)) for name, t in self.leaves.items()}
        self.gradients |= {step.name: step.g for step in self.steps}

    def role(self, t):
        """What a leaf is: trainable, frozen, or an input whose gradient is asked for (told apart by the model)."""
        if not t.requires_grad:
            return "frozen"
        return "trainable" if id(t) in self._given or not self._given else "input"

    def __str__(self):
        leaves = [(name, str(t.shape), self.role(t), text(t.data)) for name, t in self.leaves.items()]
        lines = ["Leaves", *_columns(leaves), "", "Forward", *_columns(self._forward_rows()), ""]
        if not self.loss.requires_grad:
            return "\n".join([*lines, "Backward: nothing here requires a gradient, so every step is skipped"])
        lines += [f"Backward: g is dL/d(result), from dL/d{self.steps[-1].name} = 1", *_columns(self._backward_rows())]
        return "\n".join(lines)

    def __repr__(self):
        return f"<Trace: {len(self.leaves)} leaves, {len(self.steps)} steps>"

    def _forward_rows(self):
        for step in self.steps:
            shapes = ", ".join(str(o.tensor.shape) for o in step.operands)
            yield (str(step.number), step.operation, f"{step.name} = {step.formula}",
                   f"{shapes} -> {step.tensor.shape}", text(step.tensor.data))
            yield from (("", "", f"  where {definition}", "", "") for definition in step.where)

    def _backward_rows(self):
        for step in reversed(self.steps):
            if step.g is None:
                yield str(step.number), step.operation, f"d{step.name}", "frozen: skipped"
                continue
            yield str(step.number), step.operation, f"g = d{step.name}", text(step.g)
            for o in step.operands:
                if o.constant:
                    yield "", "", f"  {o.name}", "constant: skipped"
                elif o.gradient is None:
                    yield "", "", f"  d{o.name}", "frozen: skipped"
                elif o.total is o.gradient:
                    yield "", "", f"  d{o.name} = {o.rule}", text(o.gradient)
                else:
                    yield "", "", f"  d{o.name} += {o.rule}", f"{text(o.gradient)}, together {text(o.total)}"


def trace(target, model=None):
    """Print the tape of target, forward and backward, as Trace takes it; returns the Trace."""
    worked = Trace(target, model)
    print(worked)
    return worked


def _entries(target):
    """The loss, and the entries of its tape that lead to it."""
    loss = target
    if callable(target):
        with record():
            loss = target()
    if not isinstance(loss, Tensor):
        raise TypeError(f"trace: expected a loss or a function that returns one, got {type(loss).__name__}")
    if loss.size != 1:
        raise ValueError(f"trace: the loss has shape {loss.shape}, expected one number; did you mean loss.sum()?")
    found = next((steps for steps in reversed(_recorded) if any(out is loss for _, out, _ in steps)), None)
    if found is None:
        raise ValueError("trace: this loss was not recorded while it was computed. Write trace(lambda: …) around the "
                         "computation, or compute it inside `with record():`")
    needed, kept = {id(loss)}, []
    for entry in reversed(found):
        if id(entry[1]) in needed:
            needed.update(id(t) for t, _ in entry[2])
            kept.append(entry)
    return loss, kept[::-1]


def text(array):
    """A small array as [a b; c d], rows parted by semicolons; a larger one by its range."""
    array = np.asarray(array)
    if not array.size:
        return "empty"
    if array.size > SMALL or array.ndim > 2:
        return f"{number(array.min(), DIGITS)} to {number(array.max(), DIGITS)}"
    return matrix(array, DIGITS)


def _columns(rows):
    """Lines of cells, each column as wide as its widest cell, if that is no more than 50."""
    rows = list(rows)
    widths = [min(50, max(map(len, column))) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
