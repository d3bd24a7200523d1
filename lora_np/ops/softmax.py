"""Softmax and its loss, each a single operation with one clean derivative, as in layers.py."""

from functools import lru_cache

import numpy as np

from ..support.checks import as_array
from ..tensor import node, operation
from .layers import floating, indices


@operation
def softmax(a, axis=-1):
    """exp(a), scaled to sum to 1 along the axis. An element of -inf gives exactly 0, and gradient 0.

    Raises ValueError where a row is all -inf (everything is masked) or holds +inf; nan stays nan.

    y = exp(a) / sum(exp(a), axis)
    da = y * (g - sum(g * y, axis))
    """
    a = floating(a)
    E = np.exp(_stabilised("softmax", a.data, axis))
    y = (E / E.sum(axis=axis, keepdims=True)).astype(a.dtype, copy=False)
    return node("softmax", y, (a, lambda g: y * (g - (g * y).sum(axis=axis, keepdims=True))))


@operation
def log_softmax(a, axis=-1):
    """log(softmax(a)), without the detour that would lose small probabilities. Raises as softmax does.

    An element of -inf stays -inf, and nan makes its row nan.

    y = a - log(sum(exp(a), axis))
    da = g - exp(y) * sum(g, axis)
    """
    a = floating(a)
    x = _stabilised("log_softmax", a.data, axis)
    y = (x - np.log(np.exp(x).sum(axis=axis, keepdims=True))).astype(a.dtype, copy=False)
    return node("log_softmax", y, (a, lambda g: g - np.exp(y) * g.sum(axis=axis, keepdims=True)))


@operation
def cross_entropy(logits, targets):
    """Mean negative log-likelihood of the target classes under softmax(logits), in nats.

    logits: (..., V). targets: integers (...), in 0 .. V-1. Gives a scalar.
    Raises ValueError where the shapes do not match, IndexError for a class outside the range.
    A target of -inf gives inf; +inf or nan among the logits give nan.

    y = mean(-log_softmax(logits)[targets])
    dlogits = g * (softmax(logits) - onehot(targets)) / n
    """
    logits, targets = floating(logits), as_array("cross_entropy", targets, copy=None)
    if not logits.ndim or logits.shape[:-1] != targets.shape or not logits.size:
        raise ValueError(f"cross_entropy: logits {logits.shape}, targets {targets.shape}: expected logits (..., V) "
                         "and targets (...), one integer class for each row of V, and at least one row")
    V, shape, dtype = logits.shape[-1], logits.shape, logits.dtype
    targets = indices("cross_entropy", targets, V).ravel()
    n, rows = len(targets), np.arange(len(targets))
    scores = _stabilised("cross_entropy", logits.data.reshape(n, V), -1, np.isneginf)
    E = np.exp(scores)
    row_sums = E @ np.ones(V, E.dtype)  # (n,): a product with ones sums rows several times faster than .sum(-1)
    losses = np.log(row_sums) - scores[rows, targets]  # no loss is below 0, but rounding may be

    def to_logits(g):
        d = E * (g / n / row_sums)[:, None]
        d[rows, targets] -= g / n
        return d.reshape(shape)

    return node("cross_entropy", (np.maximum(losses, 0).sum() / n).astype(dtype), (logits, to_logits))


def exp_is_safe(x):
    """Whether no exp(x) overflows, nor a row's sum of them, and no row vanishes."""
    return max(x.max(initial=0), -x.min(initial=0)) < 30


def _stabilised(name, x, axis, refused=np.isinf):
    """x, less its largest element along the axis where exp could overflow without; softmax does not change.

    float16 becomes float32: a sum of its exponentials soon passes the largest float16, 65,504.
    """
    if not isinstance(axis, (int, np.integer)):
        raise TypeError(f"{name}: axis must be one integer, got {axis!r}")
    if not -x.ndim <= axis < x.ndim or not x.shape[axis]:
        raise ValueError(f"{name}: shape {x.shape} has no elements along axis {axis}")
    x = x.astype(np.float32) if x.itemsize == 2 else x
    if exp_is_safe(x):
        return x
    top = x.max(axis=axis, keepdims=True)
    if refused(top).any():
        raise ValueError(f"{name}: a row is all -inf (everything is masked) or holds +inf, so it has no softmax; "
                         "leave each row something finite")
    return x - top


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
