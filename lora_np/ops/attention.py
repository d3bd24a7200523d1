"""Softmax and what is made of it: probabilities, their loss, and attention. Fused as in layers.py."""

from functools import lru_cache

import numpy as np

from ..graph import memoize_last
from ..support.checks import as_array, check_int
from ..tensor import node, operation
from .layers import floating, indices


def _shifted(name, x, axis, refused=np.isinf):
    """x, less its largest element along the axis where exp could overflow without; softmax does not change."""
    if not isinstance(axis, (int, np.integer)):
        raise TypeError(f"{name}: axis must be one integer, got {axis!r}")
    if not -x.ndim <= axis < x.ndim or not x.shape[axis]:
        raise ValueError(f"{name}: shape {x.shape} has no elements along axis {axis}")
    if _moderate(x):
        return x
    top = x.max(axis=axis, keepdims=True)
    if refused(top).any():
        raise ValueError(f"{name}: a row is all -inf (everything is masked) or holds +inf, so it has no softmax; "
                         "leave each row something finite")
    return x - top


def _moderate(x):
    """Whether no exp(x) overflows, nor a row's sum of them, and no row vanishes."""
    return max(x.max(initial=0), -x.min(initial=0)) < (30 if x.itemsize > 2 else 3)  # in float16 exp(11.1) is inf


@operation
def softmax(a, axis=-1):
    """exp(a), scaled to sum to 1 along the axis. An element of -inf gives exactly 0, and gradient 0.

    Raises ValueError where a row is all -inf (everything is masked) or holds +inf; nan stays nan.

    y = exp(a) / sum(exp(a), axis)
    da = y * (g - sum(g * y, axis))
    """
    a = floating(a)
    y = np.exp(_shifted("softmax", a.data, axis))
    y /= y.sum(axis=axis, keepdims=True)
    return node("softmax", y, (a, lambda g: y * (g - (g * y).sum(axis=axis, keepdims=True))))


@operation
def log_softmax(a, axis=-1):
    """log(softmax(a)), without the detour that would lose small probabilities. Raises as softmax does.

    An element of -inf stays -inf, and nan makes its row nan.

    y = a - log(sum(exp(a), axis))
    da = g - exp(y) * sum(g, axis)
    """
    a = floating(a)
    y = _shifted("log_softmax", a.data, axis)
    y = y - np.log(np.exp(y).sum(axis=axis, keepdims=True))
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
    V = logits.shape[-1]
    targets = indices("cross_entropy", targets, V).ravel()
    n = len(targets)
    scores = _shifted("cross_entropy", logits.data.reshape(n, V), -1, np.isneginf)
    E = np.exp(scores)
    total = E @ np.ones(V, E.dtype)  # (n,): a product with ones sums rows several times faster than .sum(-1)
    rows, shape = np.arange(n), logits.shape

    def to_logits(g):
        d = E * (g / n / total)[:, None]
        d[rows, targets] -= g / n
        return d.reshape(shape)

    return node("cross_entropy", (np.log(total) - scores[rows, targets]).sum() / n, (logits, to_logits))


BLOCK = 32  # queries that attention takes at a time: for long sequences, nearly half of the T x T weights are left out


@lru_cache(maxsize=64)
def _triangle(n, dtype):
    """(n, n) of 1 on and below the diagonal, 0 above: the last n of all positions, and which of them each may see."""
    mask = np.tri(n, dtype=dtype)
    mask.setflags(write=False)
    return mask


@operation
def causal_attention(q, k, v, heads=1):
    """Scaled dot-product attention in which no position sees a later one (Vaswani et al. 2017, section 3.2).

    q: (..., T, d). k, v: (..., S, d) with S >= T; the queries are the last T of S positions. Gives (..., T, d).
    Each head has c = d / heads columns of q, k, v and y to itself; the formulas are those of one head.
    mask is 0 where a query may look (at itself and before), and -inf elsewhere.
    Scores of any finite size are safe; one that is nan or +inf makes its row nan. nan or inf in v reaches the rows that
    see it, and all others of their block of 32.

    P = softmax(q @ k.T / sqrt(c) + mask)
    y = P @ v
    dS = P * (g @ v.T - sum(g * y))
    dq = dS @ k / sqrt(c)
    dk = dS.T @ q / sqrt(c)
    dv = P.T @ g
    """
    q, k, v = floating(q), floating(k), floating(v)
    check_int("causal_attention", heads=heads)
    T, d = q.shape[-2:] if q.ndim > 1 else (0, 0)
    S = k.shape[-2] if k.ndim > 1 else 0
    if not 0 < T <= S or d < 1 or d % heads or k.shape != (*q.shape[:-2], S, d) or v.shape != k.shape:
        raise ValueError(f"causal_attention: q {q.shape}, k {k.shape}, v {v.shape}, {heads} heads: expected q (..., T, "
                         "d) and k, v (..., S, d) with S >= T >= 1 and d >= 1, a multiple of heads")
    c, shape, dtype = d // heads, q.shape, np.result_type(q.data, k.data, v.data)
    root = c ** -0.5
    need_q, need_k, need_v = q.requires_grad, k.requires_grad, v.requires_grad

    def split(x):  # (..., T, heads * n) -> (..., heads, T, n); of a fresh array it is a view, so it can be written to
        return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads).swapaxes(-2, -3)

    def joined(a, b):  # a @ b of each head, the heads side by side again
        out = np.empty((*shape[:-2], a.shape[-2], d), dtype)
        np.matmul(a, b, out=split(out))
        return out

    Q, K, V = split(q.data * root), split(k.data), split(v.data)  # scaling q costs T * c products, the scores T * S
    KT = np.ascontiguousarray(K.swapaxes(-1, -2))  # many small products are faster with an array of its own
    y, total, blocks = np.empty(shape, dtype), np.empty((*shape[:-1], heads), dtype), []
    for start in range(0, T, BLOCK):
        rows = slice(start, min(start + BLOCK, T))
        seen = S - T + rows.stop  # what lies beyond is hidden from all these rows: not computed, not kept
        E = _masked_exp(Q[..., rows, :] @ KT[..., :seen])
        split(total)[..., rows, :] = E @ np.ones((seen, 1), dtype)
        np.matmul(E, V[..., :seen, :], out=split(y)[..., rows, :])
        blocks.append((rows, seen, E))
    Y = split(y)
    Y /= split(total)  # P is E / total, but is never formed: dividing y costs T * c, dividing E would cost T * S

    @memoize_last
    def gradients(g):  # of q, k and v, of each that needs one
        # With D = sum(g * y), [g / total, D / total] @ [v, -1].T is (g @ v.T - D) / total, so dS is this times E: D is
        # taken off within the product, without a pass over T x S numbers.
        G = split(np.empty((*shape[:-1], heads * (c + 1)), dtype))
        np.divide(split(g), split(total), out=G[..., :c])
        G[..., c] = np.einsum("...c,...c->...", G[..., :c], Y)
        VT = np.full((*V.shape[:-2], c + 1, S), -1, dtype)
        VT[..., :c, :] = V.swapaxes(-1, -2)
        dq, dk, dv = np.zeros(shape, dtype), None, None
        for rows, seen, E in reversed(blocks):  # the last block saw all keys, the others fewer
            if need_q or need_k:
                dS = G[..., rows, :] @ VT[..., :seen]
                dS *= E
            if need_q:
                np.matmul(dS, K[..., :seen, :], out=split(dq)[..., rows, :])
            if need_k:
                dk = _sum(dk, joined(dS.swapaxes(-1, -2), Q[..., rows, :]))
            if need_v:
                dv = _sum(dv, joined(E.swapaxes(-1, -2), G[..., rows, :c]))  # P.T @ g = E.T @ (g / total)
        dq *= root
        return dq, dk, dv

    return node("causal_attention", y,
                (q, lambda g: gradients(g)[0]), (k, lambda g: gradients(g)[1]), (v, lambda g: gradients(g)[2]))


def _masked_exp(scores):
    """exp(scores) where the query may look, 0 elsewhere; where it would overflow, each row comes out scaled.

    scores: (..., n, keys), overwritten. The n queries are the last of the keys' positions.
    """
    n = scores.shape[-2]
    visible = _triangle(n, scores.dtype)
    if _moderate(scores):
        np.exp(scores, out=scores)
        scores[..., -n:] *= visible  # np.where would take several times as long
        return scores
    scores[..., -n:] = np.where(visible, scores[..., -n:], -np.inf)
    scores -= scores.max(axis=-1, keepdims=True)
    return np.exp(scores, out=scores)


def _sum(so_far, part):
    """so_far, None at first, with part added to it; part may lack the last rows."""
    if so_far is None:
        return part
    so_far[..., :part.shape[-2], :] += part
    return so_far
