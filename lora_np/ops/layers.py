"""The layers of a transformer as single operations: each has one clean derivative that is worth meeting
as such, and costs a fraction of its composition from primitives. The tests hold each against that."""

import math
from functools import lru_cache

import numpy as np

from ..support.checks import as_array, check_generator, check_number
from ..tensor import Tensor, as_tensor, node, operation
from .arrays import product, widened


def floating(x):
    """x as a Tensor of floating point; integers become float64."""
    if type(x) is Tensor and x._data.dtype.kind == "f":  # as nearly all are
        return x
    x = as_tensor(x)
    return x if x.dtype.kind == "f" else as_tensor(x.data.astype(float))


def in_range(name, ids, size):
    """The array ids as one of integers, all of them in 0 .. size-1."""
    if ids.dtype.kind not in "iu" and ids.size:
        raise TypeError(f"{name}: expected integers, got {ids.dtype}")
    index = ids.astype(np.intp, copy=False)
    if ids.size and index.view(np.uintp).max() >= size:  # without its sign, a negative number is a huge one
        raise IndexError(f"{name}: expected integers from 0 to {size - 1}, got {ids.min()} to {ids.max()}")
    return index


@operation
def linear(x, weight, bias=None):
    """x W^T + b on the last axis, for any number of leading axes.

    x: (..., k). weight: (d, k). bias: (d,), or any shape that broadcasts to the result (..., d). In the formulas x
    and g are matrices of rows; dbias is g summed over them, which backward does.
    Raises ValueError where k or d do not match.
    One inf or nan in a row of x reaches that whole row of the result, and no other row.

    y = x @ weight.T + bias
    dx = g @ weight
    dweight = g.T @ x
    dbias = g
    """
    x, weight = floating(x), floating(weight)
    X, W = x.data, weight.data
    shape = X.shape
    if W.ndim != 2 or shape[-1:] != W.shape[1:]:
        raise ValueError(f"linear: x {shape}, weight {W.shape}: expected x (..., k) and weight (d, k) of equal k")
    # One flat product (N, k) @ (k, d): NumPy would run a stack of matrices as many small products.
    rows, (d, k) = math.prod(shape[:-1]), W.shape
    X = X.reshape(rows, k)
    value = product(X, W.T).reshape(*shape[:-1], d)
    # The vjp of x needs only the shape: capturing X would keep it although W is frozen.
    edges = [(x, lambda g: (g.reshape(rows, d) @ W).reshape(shape)),
             (weight, lambda g: g.reshape(rows, d).T @ X)]
    if bias is not None:
        bias = as_tensor(bias, like=x)
        if bias.dtype != value.dtype:  # += alone would round a float64 bias to float32
            value = value.astype(np.result_type(value, bias.data), copy=False)
        try:
            value += bias.data
        except ValueError:
            raise ValueError(f"linear: bias {bias.shape} does not broadcast to the result {value.shape}") from None
        edges.append((bias, lambda g: g))
    return node("linear", value, *edges)


@operation
def embedding(weight, ids):
    """Rows of a table. ids are integers and have no gradient; a row taken twice gets both gradients.

    weight: (V, d). ids: (...) in 0 .. V-1. Gives (..., d). Raises IndexError outside that range.
    Rows stay unchanged, inf and nan too.

    y = weight[ids]
    dweight = zeros, with g added at row ids
    """
    weight = as_tensor(weight)
    if weight.ndim != 2:
        raise ValueError(f"embedding: expected a table (V, d), got {weight.shape}")
    V, d = weight.shape
    ids = in_range("embedding", as_array("embedding", ids), V)  # an array of our own

    def to_weight(g):
        g = widened(g).ravel()
        places, dweight = (ids[..., None] * d + np.arange(d)).ravel(), np.zeros(V * d, g.dtype)
        np.add.at(dweight, places, g)  # which is fast where table, places and g are all flat
        return dweight.reshape(V, d)

    return node("embedding", weight.data.take(ids, axis=0), (weight, to_weight))


@operation
def layer_norm(x, weight, bias, eps=1e-5):
    """Layer normalisation over the last axis (Ba et al. 2016): mean 0 and variance 1, then scale and shift.

    x: (..., d). weight, bias: (d,). The variance is the biased one: divided by d, not d - 1.
    A row of equal numbers gives the bias (eps keeps it finite), one with inf or nan gives nan. Beyond 1e154 (1e19 in
    float32) the variance overflows, and the row gives the bias; where the difference of two of its numbers does, nan.

    std = sqrt(var(x) + eps)
    xhat = (x - mean(x)) / std
    y = xhat * weight + bias
    dx = (g * weight - mean(g * weight) - xhat * mean(g * weight * xhat)) / std
    dweight = g * xhat
    dbias = g
    """
    x, weight, bias = floating(x), floating(weight), floating(bias)
    X, W, b = x.data, weight.data, bias.data
    shape = X.shape
    d = shape[-1] if shape else 0
    if not d or W.shape != (d,) or b.shape != (d,):
        raise ValueError(f"layer_norm: x {shape}, weight {W.shape}, bias {b.shape}: expected (..., d), (d,) and (d,)")
    check_number("layer_norm", eps=eps)
    # Rows as one matrix: a mean is then a product with a vector of 1/d, several times faster than .mean(-1).
    X = widened(X.reshape(-1, d))
    average = averaging(d, X.dtype)
    xhat = X - X[:, :1]  # first less one of its own, so that in a row far from 0 the rounding of the mean does not show
    xhat -= product(xhat, average)[:, None]
    rstd = 1 / np.sqrt(np.vecdot(xhat, xhat) / d + eps)[:, None]  # 1 / std: to multiply is faster than to divide
    xhat *= rstd
    xhat = xhat.astype(x.dtype, copy=False)

    def to_x(g):
        g = widened(g.reshape(-1, d)) * W
        along = np.vecdot(g, xhat)[:, None] / d
        g -= g.dot(average)[:, None]
        g -= xhat * along
        g *= rstd
        return g.reshape(shape)

    value = xhat * W
    if b.dtype != value.dtype:
        value = value.astype(np.result_type(value, b), copy=False)
    value += b
    return node("layer_norm", value.reshape(shape),
                (x, to_x),
                (weight, lambda g: np.einsum("nd,nd->d", widened(g.reshape(-1, d)), xhat)),
                (bias, lambda g: g))


@lru_cache(maxsize=64)
def averaging(d, dtype):
    """(d,) of 1/d: a product with it is a mean."""
    average = np.full(d, 1 / d, dtype)
    average.setflags(write=False)
    return average


@operation
def dropout(x, p, rng):
    """Set each element to 0 with probability p and scale the others by 1 / (1 - p), so that the mean stays.

    p: in [0, 1). rng: an np.random.Generator. mask holds 0 or 1 / (1 - p).
    An inf that is set to 0 becomes nan; nan stays nan.

    y = x * mask
    dx = g * mask
    """
    x = floating(x)
    check_number("dropout", below=1, p=p)
    check_generator("dropout", rng)
    mask = (rng.random(x.shape, dtype=np.float32) >= p).astype(x.dtype)
    mask *= 1 / (1 - p)
    return node("dropout", x.data * mask, (x, lambda g: g * mask))
