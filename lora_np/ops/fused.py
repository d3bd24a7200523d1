"""The layers of a transformer as single operations: each has one clean derivative that is worth meeting
as such, and costs a fraction of its composition from primitives. The tests hold each against that."""

import math
from functools import lru_cache

import numpy as np

from ..graph import once
from ..tensor import as_tensor, node, operation


def _floating(x):
    """x as a Tensor of floating point: integers become float64."""
    x = as_tensor(x)
    return x if x.dtype.kind == "f" else as_tensor(x.data.astype(float))


@operation
def linear(x, weight, bias=None):
    """x W^T + b on the last axis, for any number of leading axes.

    x: (..., k). weight: (d, k). bias: (d,), or any shape that broadcasts to the result (..., d).
    Raises ValueError where k or d do not match.

    y = x @ weight.T + bias
    dx = g @ weight
    dweight = g.T @ x
    dbias = g
    """
    x, weight = _floating(x), _floating(weight)
    X, W = x.data, weight.data
    if W.ndim != 2 or not X.ndim or X.shape[-1] != W.shape[1]:
        raise ValueError(f"linear: x {X.shape}, weight {W.shape}: expected x (..., k) and weight (d, k) of equal k")
    # One flat product (N, k) @ (k, d): NumPy would run a stack of matrices as many small products.
    shape, rows, (d, k) = X.shape, math.prod(X.shape[:-1]), W.shape
    value = (X.reshape(rows, k) @ W.T).reshape(*shape[:-1], d)
    # The vjp of x needs only X's shape: capturing X would keep it although W is frozen.
    edges = [(x, lambda g: (g.reshape(rows, d) @ W).reshape(shape)),
             (weight, lambda g: g.reshape(rows, d).T @ X.reshape(rows, k))]
    if bias is not None:
        bias = as_tensor(bias, like=x)
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

    y = weight[ids]
    dweight = zeros, with g added at row ids
    """
    weight = as_tensor(weight)
    if weight.ndim != 2:
        raise ValueError(f"embedding: expected a table (V, d), got {weight.shape}")
    V, d = weight.shape
    ids = _indices("embedding", ids, V)

    def to_weight(g):
        # Sort the rows by id, then sum each run of equal ids: np.add.at does the same several times slower.
        out, flat = np.zeros((V, d), g.dtype), ids.ravel()
        order = np.argsort(flat, kind="stable")
        rows, starts = np.unique(flat[order], return_index=True)
        if len(rows):
            out[rows] = np.add.reduceat(g.reshape(len(flat), d)[order], starts)
        return out

    return node("embedding", weight.data[ids], (weight, to_weight))


def _indices(name, ids, size):
    """ids as an integer array of our own, all of them in 0 .. size-1."""
    ids = np.array(ids)
    if ids.dtype.kind not in "iu" and ids.size:
        raise TypeError(f"{name}: expected integers, got {ids.dtype}")
    if ids.size and not 0 <= ids.min() <= ids.max() < size:
        raise IndexError(f"{name}: expected integers from 0 to {size - 1}, got {ids.min()} to {ids.max()}")
    return ids.astype(np.intp, copy=False)


def _shifted(name, x, axis):
    """x minus its largest element along the axis, so that exp cannot overflow; softmax does not change."""
    if not isinstance(axis, (int, np.integer)):
        raise TypeError(f"{name}: axis must be one integer, got {axis!r}")
    if not -x.ndim <= axis < x.ndim or not x.shape[axis]:
        raise ValueError(f"{name}: shape {x.shape} has no elements along axis {axis}")
    top = x.max(axis=axis, keepdims=True)
    if np.isinf(top).any():
        raise ValueError(f"{name}: a row is all -inf (everything is masked) or holds +inf, so it has no softmax; "
                         "leave each row something finite")
    return x - top


@operation
def softmax(a, axis=-1):
    """exp(a), scaled to sum to 1 along the axis. An element of -inf gives exactly 0, and gradient 0.

    Raises ValueError where a row is all -inf (everything is masked) or holds +inf; nan stays nan.

    y = exp(a) / sum(exp(a), axis)
    da = y * (g - sum(g * y, axis))
    """
    a = _floating(a)
    y = np.exp(_shifted("softmax", a.data, axis))
    y /= y.sum(axis=axis, keepdims=True)
    return node("softmax", y, (a, lambda g: y * (g - (g * y).sum(axis=axis, keepdims=True))))


@operation
def log_softmax(a, axis=-1):
    """log(softmax(a)), without the detour that would lose small probabilities. Raises as softmax does.

    y = a - log(sum(exp(a), axis))
    da = g - exp(y) * sum(g, axis)
    """
    a = _floating(a)
    y = _shifted("log_softmax", a.data, axis)
    y -= np.log(np.exp(y).sum(axis=axis, keepdims=True))
    return node("log_softmax", y, (a, lambda g: g - np.exp(y) * g.sum(axis=axis, keepdims=True)))


@operation
def cross_entropy(logits, targets):
    """Mean negative log-likelihood of the target classes under softmax(logits), in nats.

    logits: (..., V). targets: integers (...), in 0 .. V-1. Gives a scalar.
    Raises ValueError where the shapes do not match, IndexError for a class outside the range.

    y = mean(-log_softmax(logits)[targets])
    dlogits = g * (softmax(logits) - onehot(targets)) / n
    """
    logits, targets = _floating(logits), np.asarray(targets)
    if not logits.ndim or logits.shape[:-1] != targets.shape or not logits.size:
        raise ValueError(f"cross_entropy: logits {logits.shape}, targets {targets.shape}: expected logits (..., V) "
                         "and targets (...), one integer class for each row of V, and at least one row")
    V = logits.shape[-1]
    targets = _indices("cross_entropy", targets, V).ravel()
    n = len(targets)
    p = _shifted("cross_entropy", logits.data.reshape(n, V), -1)
    picked = p[np.arange(n), targets]
    np.exp(p, out=p)
    total = p.sum(axis=-1)
    shape = logits.shape

    def to_logits(g):
        d = p * (g / n / total)[:, None]
        d[np.arange(n), targets] -= g / n
        return d.reshape(shape)

    return node("cross_entropy", (np.log(total) - picked).mean(dtype=p.dtype), (logits, to_logits))


@operation
def layer_norm(x, weight, bias, eps=1e-5):
    """Layer normalisation over the last axis (Ba et al. 2016): mean 0 and variance 1, then scale and shift.

    x: (..., d). weight, bias: (d,). The variance is the biased one: divided by d, not d - 1.

    std = sqrt(var(x) + eps)
    xhat = (x - mean(x)) / std
    y = xhat * weight + bias
    dx = (g * weight - mean(g * weight) - xhat * mean(g * weight * xhat)) / std
    dweight = g * xhat
    dbias = g
    """
    x, weight, bias = _floating(x), _floating(weight), _floating(bias)
    d = x.shape[-1] if x.ndim else 0
    if not d or weight.shape != (d,) or bias.shape != (d,):
        raise ValueError(f"layer_norm: x {x.shape}, weight {weight.shape}, bias {bias.shape}: expected (..., d), "
                         "(d,) and (d,)")
    shape, W = x.shape, weight.data
    # Rows as one matrix: a mean is then a product with a vector of 1/d, several times faster than .mean(-1).
    average = np.full(d, 1 / d, x.dtype)
    xhat = x.data.reshape(-1, d)
    xhat = xhat - (xhat @ average)[:, None]
    rstd = 1 / np.sqrt(np.einsum("nd,nd->n", xhat, xhat) / d + eps)[:, None]
    xhat *= rstd

    def to_x(g):
        g = g.reshape(-1, d) * W
        along = np.einsum("nd,nd->n", g, xhat)[:, None] / d
        g -= (g @ average)[:, None]
        g -= xhat * along
        g *= rstd
        return g.reshape(shape)

    value = xhat * W
    value += bias.data
    return node("layer_norm", value.reshape(shape),
                (x, to_x),
                (weight, lambda g: np.einsum("nd,nd->d", g.reshape(-1, d), xhat)),
                (bias, lambda g: g))


@operation
def dropout(x, p, rng):
    """Set each element to 0 with probability p and scale the others by 1 / (1 - p), so that the mean stays.

    p: in [0, 1). rng: an np.random.Generator. mask holds 0 or 1 / (1 - p).

    y = x * mask
    dx = g * mask
    """
    x = _floating(x)
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p must be in [0, 1), got {p}")
    mask = (rng.random(x.shape, dtype=np.float32) >= p).astype(x.dtype)
    mask *= 1 / (1 - p)
    return node("dropout", x.data * mask, (x, lambda g: g * mask))


@lru_cache(maxsize=16)
def _visible(queries, keys, dtype):
    """(queries, keys) of 1 where a query may look: at itself and at what comes before; 0 elsewhere."""
    mask = np.tri(queries, keys, keys - queries, dtype)
    mask.flags.writeable = False
    return mask


@operation
def causal_attention(q, k, v):
    """Scaled dot-product attention in which no position sees a later one (Vaswani et al. 2017, equation 1).

    q: (..., T, c). k, v: (..., S, c) with S >= T; the queries are the last T of S positions. Gives (..., T, c).

    P = softmax(q @ k.T / sqrt(c) + mask)
    y = P @ v
    dS = P * (g @ v.T - sum(g * y))
    dq = dS @ k / sqrt(c)
    dk = dS.T @ q / sqrt(c)
    dv = P.T @ g
    """
    q, k, v = _floating(q), _floating(k), _floating(v)
    (*stack, T, c), (*rest, S, _) = (q.shape, k.shape) if min(q.ndim, k.ndim) > 1 else ((0, 0), (1, 0))
    if k.shape != v.shape or stack != rest or not 0 < c == k.shape[-1] or not 0 < T <= S:
        raise ValueError(f"causal_attention: q {q.shape}, k {k.shape}, v {v.shape}: expected q (..., T, c) and "
                         "k, v (..., S, c) with S >= T >= 1 and c >= 1")
    K, V = k.data, v.data
    root = c ** -0.5
    Q = q.data * root  # scaling q costs T * c products, scaling the scores T * S
    visible = _visible(T, S, q.dtype)
    E = Q @ K.swapaxes(-1, -2)
    if max(E.max(initial=0), -E.min(initial=0)) < 30:  # exp is safe as it is, and a product the fastest mask
        np.exp(E, out=E)
        E *= visible
    else:
        E = np.where(visible, E, -np.inf)
        E -= E.max(axis=-1, keepdims=True)
        np.exp(E, out=E)
    total = (E @ np.ones(S, E.dtype))[..., None]
    y = E @ V
    y /= total  # P is E / total, but is never formed: dividing y costs T * c, dividing E would cost T * S

    @once
    def scores(g):
        dS = (g / total) @ V.swapaxes(-1, -2)
        dS -= np.einsum("...tc,...tc->...t", g, y)[..., None] / total
        dS *= E
        return dS

    return node("causal_attention", y,
                (q, lambda g: scores(g) @ K * root),
                (k, lambda g: scores(g).swapaxes(-1, -2) @ Q),
                (v, lambda g: E.swapaxes(-1, -2) @ (g / total)))
