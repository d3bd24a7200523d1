"""The calculus: nodes, and the backward walk over them. Nothing here knows what a Tensor is.

A computation is a graph. A Node stands for one result and holds an edge for each operand that
needs a gradient: the operand, and its vjp (vector-Jacobian product), a function that maps
g = dL/d(result) to dL/d(operand). `backpropagate` walks the nodes from last to first and adds up
what arrives at each. A leaf is whatever the walk ends at: an object without edges.
"""

import math
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from operator import attrgetter

import numpy as np

grad_enabled = ContextVar("grad_enabled", default=True)
_serial = count(1)


@contextmanager
def no_grad():
    """Inside `with no_grad():` nothing is recorded: results need no gradient and keep no operands."""
    token = grad_enabled.set(False)
    try:
        yield
    finally:
        grad_enabled.reset(token)


class Node:
    """How one result was computed: the operation's name and the edges back to its operands.

    edges: a list of (target, vjp). The target is the operand's own Node, or the operand itself where
    it is a leaf. No array is held but what the vjps captured. Once freed, edges is None.
    """

    __slots__ = ("name", "edges", "shape", "dtype", "serial", "__weakref__")

    def __init__(self, name, edges, value):
        self.name, self.edges = name, edges
        self.shape, self.dtype = value.shape, value.dtype
        self.serial = next(_serial)


def backpropagate(start, gradient, retain_graph=False):
    """The gradients {leaf: dL/d(leaf)} that a gradient dL/d(start) gives. Frees the nodes it has used.

    start: a Node or a leaf. gradient: a fresh array of its shape and dtype. Raises RuntimeError, before
    anything is computed, where an earlier backward freed part of the graph.
    """
    pending, gradients = {start: gradient}, {}
    for this in _newest_first(start):
        g = pending.pop(this)  # complete: all that was computed from `this` has been walked
        if not this.edges:
            gradients[this] = g
            continue
        for target, vjp in this.edges:
            d = np.asarray(vjp(g))
            ours = d is not g and d.base is None and d.flags.writeable  # a fresh array, in nobody else's hands
            if d.shape != target.shape or d.dtype != target.dtype:
                d, ours = _fitted(d, target, this.name), True
            if target in pending:
                d = np.asarray(np.add(pending[target], d, out=d if ours and d.ndim else None))
            elif not ours and not target.edges:
                d = d.copy()  # a leaf's gradient shares memory with nothing else
            pending[target] = d
        if not retain_graph:
            this.edges = None
    return gradients


def _fitted(d, target, name):
    """What a vjp gave for a target, as a fresh array of the target's shape and dtype."""
    if d.dtype.kind not in "fiub":
        raise TypeError(f"{name}: its vjp gave {d} instead of a gradient; does it return one?")
    if d.shape != target.shape:
        d = unbroadcast(d, target.shape, name)
    return np.asarray(d, target.dtype)


def _newest_first(start):
    """Every node and leaf behind start, each after all that was computed from it.

    A node's serial number is larger than its operands', because they existed first. So sorting by
    it is a topological order, without recursion: 50,000 operations in a row are no problem.
    """
    found, todo = {start}, [start]
    while todo:
        this = todo.pop()
        if this.edges is None:
            raise RuntimeError(f"backward: an earlier backward freed the graph at this {this.name}; run the "
                               "forward pass again, or use retain_graph=True in the first backward")
        for target, _ in this.edges:
            if target not in found:
                found.add(target)
                todo.append(target)
    return sorted(found, key=attrgetter("serial"), reverse=True)


def unbroadcast(g, shape, name="unbroadcast"):
    """Sum g over the axes along which an operand of this shape was broadcast.

    Broadcasting copies a number to several places; its gradient is the sum over those places.
    Raises ValueError where no broadcast leads from that shape to g's: a vjp is then wrong.
    """
    extra = g.ndim - len(shape)
    if extra < 0 or any(n not in (1, m) for n, m in zip(shape, g.shape[extra:], strict=True)):
        raise ValueError(f"{name}: its vjp gave a gradient of shape {g.shape} for an operand of shape {shape}; they "
                         "must be equal, or the operand must broadcast to the gradient. Is a transpose missing?")
    stretched = [i + extra for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1]
    if shape and not stretched:  # a product with ones sums the rows several times faster than .sum
        rows = np.ones(math.prod(g.shape[:extra]), g.dtype if g.dtype.kind == "f" else float)
        return (rows @ g.reshape(len(rows), math.prod(shape))).reshape(shape)
    return g.sum(axis=(*range(extra), *stretched)).reshape(shape)


def memoize_last(function):
    """Remember the arrays (or None) that a function last returned: work on one g that several vjps of a node share."""
    last = [None, ()]

    def remembered(g):
        if last[0] is not g:
            last[:] = g, function(g)
            for array in last[1]:
                if array is not None:
                    array.setflags(write=False)
        return last[1]

    return remembered
