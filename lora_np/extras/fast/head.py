"""The head of a language model and its loss in one, for large vocabularies: cross_entropy(linear(x, weight), targets)
in less memory. The tests hold it against that."""

import numpy as np

from ...graph import grad_enabled, ignore_stale_flag
from ...ops.layers import floating
from ...ops.loss import back_in_place, counted_targets, likelihoods
from ...ops.softmax import stabilised
from ...support.checks import as_array
from ...tensor import node, operation

MAX_LOGITS = 1 << 24  # that it holds at a time


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
    counted, targets = counted_targets("linear_cross_entropy", targets, ignore_index, V)
    X, n, dtype = x.data.reshape(-1, k)[counted], len(targets), np.result_type(x.data, W)  # X: (n, k)
    share = np.promote_types(dtype, np.float32).type(1) / n
    dX = np.empty((n, k), dtype) if x.requires_grad and grad_enabled() else None
    dW = np.zeros((V, k), dtype) if weight.requires_grad and grad_enabled() else None
    loss, size = 0.0, max(1, MAX_LOGITS // V)
    for start in range(0, n, size):
        rows = slice(start, start + size)
        scores = (X[rows] @ W.T).astype(np.promote_types(dtype, np.float32), copy=False)  # (rows, V)
        scores = stabilised("linear_cross_entropy", scores, -1, np.isneginf, out=scores)
        places = np.arange(len(scores)), targets[rows]
        losses, E, row_sums = likelihoods(scores, *places, out=scores)
        loss += losses.sum()
        if dX is None and dW is None:
            continue
        E *= (share / row_sums)[:, None]
        E[places] -= share
        dlogits = E.astype(dtype, copy=False)
        if dX is not None:
            np.matmul(dlogits, W, out=dX[rows])
        if dW is not None:
            dW += dlogits.T @ X[rows]

    return node("linear_cross_entropy", np.asarray(loss / n, dtype),
                (x, lambda g: back_in_place(g * dX, counted, shape)),
                (weight, lambda g: g * dW))
