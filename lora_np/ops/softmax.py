"""Softmax, its logarithm, and the exponentials of attention."""

from functools import lru_cache

import numpy as np

from ..tensor import node, operation
from .arrays import widened
from .layers import floating


@operation
def softmax(a, axis=-1):
    """exp(a), scaled to sum to 1 along the axis. An element of -inf gives exactly 0, and gradient 0.

    Raises ValueError where a row is all -inf (everything is masked) or holds +inf; nan stays nan.

    y = exp(a) / sum(exp(a), axis)
    da = y * (g - sum(g * y, axis))
    """
    a = floating(a)
    E = np.exp(stabilised("softmax", a.data, axis))
    y = (E / E.sum(axis=axis, keepdims=True)).astype(a.dtype, copy=False)
    return node("softmax", y, (a, lambda g: y * (g - (widened(g) * y).sum(axis=axis, keepdims=True))))


def exp_is_safe(x):
    """Whether no exp(x) overflows, nor a row's sum of them, and no row vanishes."""
    return x.max(initial=0) < 30 and x.min(initial=0) > -30


def stabilised(name, x, axis, refused=np.isinf, out=None):
    """x, less its largest element along the axis where exp could overflow without; softmax does not change.

    float16 becomes float32, in which a sum of its exponentials has room.
    """
    if not isinstance(axis, (int, np.integer)):
        raise TypeError(f"{name}: axis must be one integer, got {axis!r}")
    if not -x.ndim <= axis < x.ndim or not x.shape[axis]:
        raise ValueError(f"{name}: shape {x.shape} has no elements along axis {axis}")
    x = widened(x)
    if exp_is_safe(x):
        return x
    top = x.max(axis=axis, keepdims=True)
    if refused(top).any():
        raise ValueError(f"{name}: a row is all -inf (everything is masked) or holds +inf, so it has no softmax; "
                         "leave each row something finite")
    return np.subtract(x, top, out=out)


def masked_exp(scores):
    """exp(scores) where the query may look, 0 elsewhere; where that would overflow, each row comes out scaled.

    scores: (..., n, keys), overwritten. The n queries are the last of the keys' positions.
    """
    n = scores.shape[-2]
    mask = causal_mask(n, scores.dtype)
    if exp_is_safe(scores):
        np.exp(scores, out=scores)
        scores[..., -n:] *= mask  # np.where would take several times as long
        return scores
    scores[..., -n:] = np.where(mask, scores[..., -n:], -np.inf)
    scores -= scores.max(axis=-1, keepdims=True)
    return np.exp(scores, out=scores)


@lru_cache(maxsize=64)
def causal_mask(n, dtype):
    """(n, n) of 1 on and below the diagonal, 0 above: the last n of all positions, and which of them each may see."""
    mask = np.tri(n, dtype=dtype)
    mask.setflags(write=False)
    return mask
