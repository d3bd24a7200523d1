"""Softmax and the negative log-likelihood in one operation: the derivative takes the exponentials of the loss."""

import numpy as np

from ..graph import grad_enabled, ignore_stale_flag
from ..support.checks import as_array
from ..tensor import node, operation
from .layers import floating, indices
from .softmax import stabilised

MAX_LOGITS = 1 << 24  # that linear_cross_entropy holds at a time


@operation
@ignore_stale_flag
def cross_entropy(logits, targets, ignore_index=-100):
    """Mean negative log-likelihood of the target classes under softmax(logits), in nats.

    logits: (..., V). targets: integers (...), in 0 .. V-1, or ignore_index where nothing is to be predicted: such a row
    does not count, and n is the number of the others. Gives a scalar.
    Raises ValueError where the shapes do not match or no target is left, IndexError for a class outside the range.
    A target of -inf gives inf; +inf or nan among the logits give nan.

    y = mean(-log_softmax(logits)[targets])
    dlogits = g * (softmax(logits) - onehot(targets)) / n
    """
    logits, targets = floating(logits), as_array("cross_entropy", targets, copy=None)
    if not logits.ndim or logits.shape[:-1] != targets.shape or not logits.size:
        raise ValueError(f"cross_entropy: logits {logits.shape}, targets {targets.shape}: expected logits (..., V) "
                         "and targets (...), one integer class for each row of V, and at least one row")
    V, shape, dtype = logits.shape[-1], logits.shape, logits.dtype
    counted, targets = _counted("cross_entropy", targets, ignore_index, V)
    n = len(targets)
    scores = stabilised("cross_entropy", logits.data.reshape(-1, V)[counted], -1, np.isneginf)
    losses, E, row_sums = _likelihoods(scores, targets)

    def to_logits(g):
        d = _less_targets(E * (g / n / row_sums)[:, None], targets, g / n)
        return _back_in_place(d, counted, shape)

    return node("cross_entropy", (losses.sum() / n).astype(dtype), (logits, to_logits))


@operation
@ignore_stale_flag
def linear_cross_entropy(x, weight, targets, ignore_index=-100):
    """cross_entropy(linear(x, weight), targets): the head of a language model with its loss, a block of rows at a time.

    x: (..., k). weight: (V, k). targets: integers (...), as in cross_entropy. Gives a scalar. The logits of a large
    vocabulary take more memory than all else in a step; so a block's share of the gradients is computed as soon as its
    logits are there, and these are dropped. Rows without a target are not computed at all.
    Raises as linear and cross_entropy do. +inf or nan among the logits give nan.

    logits = x @ weight.T
    y = mean(-log_softmax(logits)[targets])
    dlogits = (softmax(logits) - onehot(targets)) / n
    dx = g * (dlogits @ weight)
    dweight = g * (dlogits.T @ x)
    """
    x, weight = floating(x), floating(weight)
    targets, shape, W = as_array("linear_cross_entropy", targets, copy=None), x.shape, weight.data
    if W.ndim != 2 or shape != (*targets.shape, W.shape[1]) or not targets.size or not W.size:
        raise ValueError(f"linear_cross_entropy: x {shape}, weight {W.shape}, targets {targets.shape}: expected x "
                         "(..., k), weight (V, k) and targets (...), one integer class for each of at least one row")
    V, k = W.shape
    counted, targets = _counted("linear_cross_entropy", targets, ignore_index, V)
    X, n, dtype = x.data.reshape(-1, k)[counted], len(targets), np.result_type(x.data, W)  # X: (n, k)
    share = dtype.type(1) / n
    dX = np.empty((n, k), dtype) if x.requires_grad and grad_enabled() else None
    dW = np.zeros((V, k), dtype) if weight.requires_grad and grad_enabled() else None
    loss, size = 0.0, max(1, MAX_LOGITS // V)
    for start in range(0, n, size):
        rows = slice(start, start + size)
        scores = (X[rows] @ W.T).astype(np.promote_types(dtype, np.float32), copy=False)  # (rows, V)
        scores = stabilised("linear_cross_entropy", scores, -1, np.isneginf, out=scores)
        losses, E, row_sums = _likelihoods(scores, targets[rows], out=scores)
        loss += losses.sum()
        if dX is None and dW is None:
            continue
        E *= (share / row_sums)[:, None]
        dlogits = _less_targets(E, targets[rows], share).astype(dtype, copy=False)
        if dX is not None:
            np.matmul(dlogits, W, out=dX[rows])
        if dW is not None:
            dW += dlogits.T @ X[rows]

    return node("linear_cross_entropy", np.asarray(loss / n, dtype),
                (x, lambda g: _back_in_place(g * dX, counted, shape)),
                (weight, lambda g: g * dW))


def _likelihoods(scores, targets, out=None):
    """(-log softmax(scores)[targets], E, row sums of E) with E = exp(scores), of which out may hold the place."""
    at_targets = scores[np.arange(len(targets)), targets]
    E = np.exp(scores, out=out)
    row_sums = E @ np.ones(E.shape[-1], E.dtype)  # a product with ones sums rows several times faster than .sum(-1)
    return np.maximum(np.log(row_sums) - at_targets, 0), E, row_sums  # no loss is below 0, but rounding may be


def _less_targets(d, targets, share):
    """d (n, V), from which share is taken off at each row's target, in place."""
    d[np.arange(len(targets)), targets] -= share
    return d


def _back_in_place(d, counted, shape):
    """The gradient d (n, V) of the rows that count as that of all rows, an array of this shape: 0 for the others."""
    if isinstance(counted, slice):
        return d.reshape(shape)
    out = np.zeros(shape, d.dtype)
    out.reshape(-1, shape[-1])[counted] = d
    return out


def _counted(name, targets, ignore_index, V):
    """(which of the flattened targets count, those as integers in 0 .. V-1)."""
    if not isinstance(ignore_index, (int, np.integer)) or isinstance(ignore_index, bool):
        raise TypeError(f"{name}: ignore_index must be an integer, got {ignore_index!r}")
    counted = (targets != ignore_index).ravel()
    n = np.count_nonzero(counted)
    if not n:
        raise ValueError(f"{name}: all {targets.size} targets are {ignore_index}, which is ignored, and the mean of "
                         "nothing is undefined; leave such a batch out")
    counted = slice(None) if n == targets.size else counted
    return counted, indices(name, targets.ravel()[counted], V)
