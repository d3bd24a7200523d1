"""Softmax and the negative log-likelihood in one operation: the derivative takes the exponentials of the loss."""

import numpy as np

from ..graph import ones
from ..support.checks import as_array
from ..tensor import node, operation
from .arrays import product, widened
from .layers import floating, in_range
from .softmax import stabilised


@operation
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
    counted, targets = counted_targets("cross_entropy", targets, ignore_index, V)
    n = len(targets)
    rows = np.arange(n)
    scores = stabilised("cross_entropy", logits.data.reshape(-1, V)[counted], -1, np.isneginf)
    losses, E, row_sums = likelihoods(scores, rows, targets)

    def to_logits(g):
        share = widened(g) / n
        d = E * (share / row_sums)[:, None]
        d[rows, targets] -= share
        return back_in_place(d, counted, shape)

    # Not .astype: called on a single number, it leaves a string in Python's cache of names now and then.
    return node("cross_entropy", np.asarray(losses.sum() / n, dtype), (logits, to_logits))


def likelihoods(scores, rows, targets, out=None):
    """(-log softmax(scores)[rows, targets], E, row sums of E) with E = exp(scores), of which out may hold the place."""
    at_targets = scores[rows, targets]
    E = np.exp(scores, out=out)
    row_sums = product(E, ones(E.shape[-1], E.dtype))  # sums rows several times faster than .sum(-1)
    return np.maximum(np.log(row_sums) - at_targets, 0), E, row_sums  # no loss is below 0, but rounding may be


def back_in_place(d, counted, shape):
    """The gradient d (n, V) of the rows that count as that of all rows, an array of this shape: 0 for the others."""
    if isinstance(counted, slice):
        return d.reshape(shape)
    out = np.zeros(shape, d.dtype)
    out.reshape(-1, shape[-1])[counted] = d
    return out


def counted_targets(name, targets, ignore_index, V):
    """(which of the flattened targets count, those as integers in 0 .. V-1)."""
    if not isinstance(ignore_index, (int, np.integer)) or isinstance(ignore_index, bool):
        raise TypeError(f"{name}: ignore_index must be an integer, got {ignore_index!r}")
    targets = targets.flatten()  # an array of our own
    counted = targets != ignore_index
    n = np.count_nonzero(counted)
    if not n:
        raise ValueError(f"{name}: all {targets.size} targets are {ignore_index}, which is ignored, and the mean of "
                         "nothing is undefined; leave such a batch out")
    counted = slice(None) if n == targets.size else counted
    return counted, in_range(name, targets[counted], V)
