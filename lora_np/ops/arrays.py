"""Operations on whole arrays: products, reductions, and moving elements about."""

import math

import numpy as np

from ..graph import ignore_stale_flag
from ..support.checks import as_array
from ..tensor import Tensor, as_tensor, node, operation


@operation
def matmul(a, b):
    """Matrix product, as np.matmul: vectors, matrices, or stacks of matrices that broadcast.

    a: (..., m, n) or (n,). b: (..., n, p) or (n,). Gives (..., m, p), less the axis that a vector lacks.
    Raises ValueError where the inner sizes differ.
    One inf or nan reaches its whole row or column of the result; 0 times inf is nan.

    y = a @ b
    da = g @ b.T
    db = a.T @ g
    """
    a, b = as_tensor(a), as_tensor(b)
    if not a.ndim or not b.ndim:
        raise ValueError(f"matmul: {a.shape} @ {b.shape}: a single number has no matrix product; did you mean a * b?")
    X = a.data if a.ndim > 1 else a.data[None]     # (..., m, n): a vector on the left is a row,
    Y = b.data if b.ndim > 1 else b.data[:, None]  # (..., n, p): on the right a column
    try:
        y = product(X, Y)                          # (..., m, p)
    except ValueError:
        raise ValueError(_product_advice(a.data, b.data)) from None
    row, column = (slice(None) if t.ndim > 1 else 0 for t in (a, b))  # the axis that a vector lacks goes again
    shape = y.shape
    return node("matmul", y[..., row, column],
                (a, lambda g: g.reshape(shape) @ Y.swapaxes(-1, -2)),
                (b, lambda g: (X.swapaxes(-1, -2) @ g.reshape(shape))[..., column]))


def product(x, y):
    """x @ y, two arrays, without the flag that 5 columns of x may raise for nothing (graph.py).

    The way back ignores that flag as a whole, and writes x.dot(y) for a vector y, which costs less than @."""
    return ignore_stale_flag(np.matmul)(x, y) if x.shape[-1] == 5 else x @ y


def widened(x):
    """The array x, float16 as float32: its sums soon pass 65,504, where float16 ends, or stand still before that."""
    return x.astype(np.float32) if x.dtype.char == "e" else x


def _product_advice(x, y):
    n, m = x.shape[-1], y.shape[0 if y.ndim == 1 else -2]
    if n == m:
        return f"matmul: {x.shape} @ {y.shape}: the stacks {x.shape[:-2]} and {y.shape[:-2]} do not broadcast"
    text = f"matmul: {x.shape} @ {y.shape}: inner sizes {n} and {m} differ"
    if x.ndim == y.ndim == 2:
        advice = {"a.T @ b": x.shape[0] == m, "a @ b.T": n == y.shape[1], "b @ a": x.shape[0] == y.shape[1]}
        for expression, fits in advice.items():
            if fits:
                return f"{text}; did you mean {expression}?"
    return f"{text}; the last size of a must equal the {'only' if y.ndim == 1 else 'last but one'} of b"


@operation
def sum(a, axis=None, keepdims=False):
    """Sum over all elements, over one axis (negative counts from the end) or over a tuple of axes.

    A sum beyond the range is inf; nan stays nan.

    y = sum(a, axis)
    da = g, repeated along the axes that were summed
    """
    a = as_tensor(a)
    axes = as_axes("sum", a, axis, keepdims)
    shape = a.shape
    value = widened(a.data).sum(axis=axes, keepdims=keepdims)
    return node("sum", value.astype(a.dtype) if a.dtype.char == "e" else value,
                (a, lambda g: np.broadcast_to(with_axes(g, axes, shape), shape)))


@operation
def mean(a, axis=None, keepdims=False):
    """Mean over all elements, one axis or a tuple of axes. Raises ValueError over no elements.

    inf where the sum is beyond the range, even if the mean is not; nan stays nan.

    y = sum(a, axis) / n
    da = g / n, repeated along the axes that were averaged
    """
    a = as_tensor(a)
    axes = as_axes("mean", a, axis, keepdims)
    shape = a.shape
    n = math.prod(shape[i] for i in axes)
    if n == 0:
        raise ValueError(f"mean: shape {shape} has no elements along axis {axis}; the mean of nothing is undefined")
    return node("mean", a.data.mean(axis=axes, keepdims=keepdims),
                (a, lambda g: np.broadcast_to(widened(with_axes(g, axes, shape)) / n, shape)))


def as_axes(name, a, axis, keepdims=False):
    """axis as a tuple of axes counted from 0. Raises ValueError where there is no such axis."""
    if keepdims is not False and not isinstance(keepdims, (bool, np.bool_)):
        raise TypeError(f"{name}: keepdims must be True or False, got {keepdims!r}; several axes are a tuple: "
                        f"{name}(axis=(0, 1))")
    axes = range(a.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    for i in axes:
        if not isinstance(i, (int, np.integer)) or isinstance(i, bool):
            raise TypeError(f"{name}: axis must be None, an integer or a tuple of integers, got {axis!r}")
        if not -a.ndim <= i < a.ndim:
            raise ValueError(f"{name}: axis {i} is out of range for shape {a.shape}; "
                             + (f"use {-a.ndim} to {a.ndim - 1}" if a.ndim else "a single number has no axes"))
    axes = tuple(int(i) % a.ndim for i in axes)
    if len(set(axes)) < len(axes):
        raise ValueError(f"{name}: axis {axis} names the same axis of shape {a.shape} twice")
    return axes


def with_axes(g, axes, shape):
    """g with size 1 at the axes that a reduction took away, so that it broadcasts against the operand."""
    return np.reshape(g, tuple(1 if i in axes else n for i, n in enumerate(shape)))


@operation
def reshape(a, *shape):
    """The same elements in another shape, in row-major order; one size may be -1.

    All elements stay unchanged, inf and nan too.

    y = reshape(a, shape)
    da = reshape(g, a.shape)
    """
    a = as_tensor(a)
    shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape
    try:
        value = a.data.reshape(tuple(shape))
    except TypeError:
        raise TypeError(f"reshape: sizes must be whole numbers, got {shape!r}; write n // 2 for n / 2") from None
    except ValueError:
        value = None
    if value is None or min(shape, default=0) < -1:  # NumPy takes any size below 0 for -1
        raise ValueError(f"reshape: shape {a.shape} has {a.size} elements, which {tuple(shape)} cannot hold") from None
    before = a.shape
    return node("reshape", value, (a, lambda g: g.reshape(before)))


@operation
def transpose(a, *axes):
    """The axes in another order: axis i of the result is axis axes[i] of a. Without axes: reversed.

    All elements stay unchanged, inf and nan too.

    y = transpose(a, axes)
    da = transpose(g, inverse(axes))
    """
    a = as_tensor(a)
    axes = tuple(axes[0]) if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
    order = as_axes("transpose", a, axes or tuple(range(a.ndim))[::-1])
    if len(order) != a.ndim:
        raise ValueError(f"transpose: shape {a.shape} has {a.ndim} axes, got an order for {len(order)}: {axes}")
    inverse = np.argsort(order)  # for a cycle of three axes the way back is another one than the way there
    return node("transpose", a.data.transpose(order), (a, lambda g: g.transpose(inverse)))


@operation
def getitem(a, index):
    """a[index], with slices, integers, integer arrays, boolean masks, None and Ellipsis, as in NumPy.

    An element that was taken twice gets both gradients.
    All elements stay unchanged, inf and nan too.

    y = a[index]
    da = zeros, with g added at index
    """
    a = as_tensor(a)
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(_picked(p) if isinstance(p, (list, tuple, range, np.ndarray, Tensor)) else p for p in parts)
    try:
        value = a.data[parts]
    except IndexError as error:
        raise IndexError(f"getitem: shape {a.shape} has no [{index}]: {error}") from None
    shape = a.shape
    repeats = any(isinstance(p, np.ndarray) and p.dtype != bool for p in parts)

    def to_a(g):
        d = np.zeros(shape, np.result_type(g, np.float32))
        if repeats:
            np.add.at(d, parts, g)  # d[parts] += g would add only one of several g for the same element
        else:
            d[parts] = g
        return d

    return node("getitem", value, (a, to_a))


def _picked(part):
    """A sequence within an index, as an array of our own; the empty list holds no integers, but stands for them."""
    part = as_array("getitem", part)
    return part if part.size or part.dtype == bool else part.astype(int)


@operation
def concatenate(tensors, axis=0):
    """Join along an axis that exists. All other sizes must be equal.

    All elements stay unchanged, inf and nan too.

    y = concatenate(tensors, axis)
    dtensors = split(g, axis)
    """
    try:
        tensors = list(tensors)
    except TypeError:
        raise TypeError(f"concatenate: expected a list of Tensors, got {tensors!r}") from None
    if not tensors:
        raise ValueError("concatenate: got no tensors; expected at least one")
    tensors = [as_tensor(t) for t in tensors]
    shapes = [t.shape for t in tensors]
    (axis,) = as_axes("concatenate", tensors[0], (axis,))
    if any(s[:axis] + s[axis + 1:] != shapes[0][:axis] + shapes[0][axis + 1:] for s in shapes):
        raise ValueError(f"concatenate: shapes {', '.join(map(str, shapes))} differ beside axis {axis}")
    ends = np.cumsum([s[axis] for s in shapes])
    before = (slice(None),) * axis

    def part(start, end):
        return lambda g: g[(*before, slice(start, end))]

    edges = [(t, part(end - s[axis], end)) for t, s, end in zip(tensors, shapes, ends, strict=True)]
    return node("concatenate", np.concatenate([t.data for t in tensors], axis), *edges)
