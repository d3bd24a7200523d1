"""The calculus: nodes, and the backward walk over them. Nothing here knows what a Tensor is.

A computation is a graph. A Node stands for one result and holds an edge for each operand that
needs a gradient: the operand, and its vjp (vector-Jacobian product), a function that maps
g = dL/d(result) to dL/d(operand). `backpropagate` walks the nodes from last to first and adds up
what arrives at each. A leaf is whatever the walk ends at: an object without edges.
"""

import math
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from itertools import count
from operator import attrgetter

import numpy as np

_serial = count(1)
unrecorded = ContextVar("unrecorded", default=())  # each `with no_grad():` around, as a list that empties at its end
open_blocks = set()  # the ids of all open no_grad() and record() blocks, of any thread; without any, node is fast
# OpenBLAS's float32 product of a matrix of exactly 5 columns and a vector loads stale memory beside its numbers (on
# AVX-512). No result rests on it, but it can raise the processor's flag "invalid", and where warnings are errors a
# right result would be lost.
ignore_stale_flag = np.errstate(invalid="ignore")


class Node:
    """How one result was computed: the operation's name and the edges back to its operands.

    edges: a list of (target, vjp). The target is the operand's own Node, or the operand itself where
    it is a leaf. A Node holds no arrays itself; only its vjps do. Once freed, edges is None.
    """

    __slots__ = ("name", "edges", "shape", "dtype", "serial", "__weakref__")

    def __init__(self, name, edges, value):
        self.name, self.edges = name, edges
        self.shape, self.dtype = value.shape, value.dtype
        self.serial = next(_serial)


@ignore_stale_flag
def backpropagate(start, gradient, retain_graph=False):
    """The gradients {leaf: dL/d(leaf)} that a gradient dL/d(start) gives. Frees the nodes it has used.

    start: a Node or a leaf. gradient: a fresh array of its shape and dtype. Raises RuntimeError, before
    anything is computed, where an earlier backward freed part of the graph.
    """
    arrived, summed = {start: gradient}, {start}
    walk = _oldest_first(start)
    while walk:
        this, edges = walk.pop()
        g = arrived.pop(this).view()  # complete: all that was computed from `this` has been walked
        g.setflags(False)  # read-only, since several vjps read it; what it shows stays as writeable as it was
        for target, vjp in edges:
            d = vjp(g)  # the chain rule: this node's share of dL/d(target)
            if type(d) is not np.ndarray or d.shape != target.shape or d.dtype is not target.dtype:  # "is" is faster
                d = _fitted(d, target, this.name)
            if target not in arrived:
                arrived[target] = d
            elif target in summed:
                arrived[target] += d
            else:  # a new array: neither share is ours to write to
                arrived[target] = np.asarray(arrived[target] + d)
                summed.add(target)
        if not retain_graph:
            this.edges = None
    # What is left has arrived at leaves. What a vjp gave may belong to somebody else.
    return {leaf: g if leaf in summed else g.copy() for leaf, g in arrived.items()}


def _oldest_first(start):
    """[(node, its edges)] of all nodes from which start was computed, each before what was computed from it.

    A node's serial number is larger than its operands', because they existed first. So sorting by
    it is a topological order, without recursion: 50,000 operations in a row are no problem.
    """
    found, walk = {start}, [start]
    for this in walk:  # which grows meanwhile
        if this.edges is None:
            raise RuntimeError(f"backward: an earlier backward freed the graph at this {this.name}; run the "
                               "forward pass again, or use retain_graph=True in the first backward")
        for target, _ in this.edges:
            if target not in found:
                found.add(target)
                walk.append(target)
    return [(this, this.edges) for this in sorted(walk, key=attrgetter("serial")) if this.edges]


def unbroadcast(g, shape, name="unbroadcast"):
    """Sum g over the axes along which an operand of this shape was broadcast.

    Broadcasting copies a number to several places; its gradient is the sum over those places.
    Raises ValueError where no broadcast leads from that shape to g's: a vjp is then wrong.
    """
    extra = g.ndim - len(shape)
    if shape and g.shape[extra:] == shape:  # a product with ones sums rows several times faster than .sum
        rows = g.reshape(math.prod(g.shape[:extra]), math.prod(shape))
        return ones(len(rows), g.dtype if g.dtype.kind == "f" else float).dot(rows).reshape(shape)
    if extra < 0 or any(n not in (1, m) for n, m in zip(shape, g.shape[extra:], strict=True)):
        raise ValueError(f"{name}: its vjp gave a gradient of shape {g.shape} for an operand of shape {shape}; they "
                         "must be equal, or the operand must broadcast to the gradient. Is a transpose missing?")
    stretched = [i + extra for i, n in enumerate(shape) if n == 1 and g.shape[i + extra] != 1]
    return g.sum(axis=(*range(extra), *stretched), dtype=np.result_type(g, np.float32)).reshape(shape)


@lru_cache(maxsize=64)
def ones(n, dtype):
    """(n,) of 1: a product with it is a sum, several times faster than .sum."""
    array = np.ones(n, dtype)
    array.setflags(write=False)
    return array


@contextmanager
def no_grad():
    """Inside `with no_grad():` nothing is recorded: results need no gradient and keep no operands."""
    this = [True]
    unrecorded.set((*unrecorded.get(), this))
    open_blocks.add(id(this))
    try:
        yield
    finally:  # emptied, not put back: a generator that waits inside may end in any order, and in another thread
        this.clear()
        unrecorded.set(tuple(filter(None, unrecorded.get())))
        open_blocks.discard(id(this))


def grad_enabled():
    """Whether operations are recorded here."""
    return not any(unrecorded.get())


def memoize_last(function):
    """Remember what a function last returned, an array or a tuple of arrays and None: work on one g that several
    vjps of a node share."""
    last = [(None, None)]

    def remembered(g):
        before, result = last[0]
        if before is not g:
            result = function(g)
            for array in result if isinstance(result, tuple) else (result,):
                if array is not None:
                    array.setflags(write=False)
            last[0] = g, result
        return result  # this thread's own, whatever another has remembered meanwhile

    return remembered


def _fitted(d, target, name):
    """What a vjp gave for a target, as an array of the target's shape and dtype."""
    d = np.asarray(d)
    if d.dtype.kind not in "fiub":
        raise TypeError(f"{name}: its vjp gave {d} instead of a gradient; does it return one?")
    if d.shape != target.shape:
        d = unbroadcast(d, target.shape, name)
    return np.asarray(d, target.dtype)
