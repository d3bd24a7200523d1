"""Attention, as the papers write it; extras/fast/attention.py computes the same in less time for long sequences."""

import numpy as np

from ..extras.fast.attention import BLOCK, blocked_attention
from ..graph import memoize_last, ones
from ..support.checks import check_int
from ..tensor import node, operation
from .arrays import product, widened
from .layers import floating
from .softmax import masked_exp


@operation
def causal_attention(q, k, v, heads=1, kv_heads=None):
    """Scaled dot-product attention in which no position sees a later one (Vaswani et al. 2017, section 3.2).

    q: (..., T, d). k, v: (..., S, d) with S >= T; the queries are the last T of S positions. Gives (..., T, d).
    Each head has c = d / heads columns of q, k, v and y to itself; the formulas are those of one head. With kv_heads
    below heads (grouped-query attention, Ainslie et al. 2023), k and v are (..., S, kv_heads c), and heads / kv_heads
    query heads in a row share one key/value head; their gradients add up in it.
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
    kv_heads = heads if kv_heads is None else kv_heads
    _check_attention(q, k, v, heads, kv_heads)
    if q.shape[-2] > BLOCK:  # up to there the textbook form is as fast, and below it faster
        return blocked_attention(q, k, v, heads, kv_heads)
    dtype = np.result_type(q.data, k.data, v.data)
    shape, c = q.shape, q.shape[-1] // heads

    def split(x):  # (..., T, heads c) -> (batch, kv_heads, group, T, c), where the group of keys and values is 1
        T, d = x.shape[-2:]
        return widened(x).reshape(-1, T, kv_heads, d // (kv_heads * c), c).transpose(0, 2, 3, 1, 4)

    def join(x):  # (batch, kv_heads, group, T, c) -> (..., T, heads c)
        x = x.transpose(0, 3, 1, 2, 4)
        return x.reshape(*shape[:-2], x.shape[1], kv_heads * x.shape[3] * c).astype(dtype, copy=False)

    def summed(x):  # over the query heads that share a key/value head
        return x if heads == kv_heads else x.sum(axis=-3, keepdims=True)

    root = c ** 0.5
    Q, K, V = split(q.data), split(k.data), split(v.data)  # (batch, kv_heads, group or 1, T or S, c)
    scores = product(Q, K.swapaxes(-1, -2)) / root         # (batch, kv_heads, group, T, S)
    P = _causal_softmax(scores)
    y = join(product(P, V))                                # (..., T, heads c)

    @memoize_last
    def to_scores(g):  # dS / sqrt(c), which dq and dk share
        G = split(g)
        return P * (G @ V.swapaxes(-1, -2) - np.vecdot(G, split(y))[..., None]) / root

    return node("causal_attention", y,
                (q, lambda g: join(to_scores(g) @ K)),
                (k, lambda g: join(summed(to_scores(g).swapaxes(-1, -2) @ Q))),
                (v, lambda g: join(summed(P.swapaxes(-1, -2) @ split(g)))))


def _causal_softmax(scores):
    """softmax(scores + mask): each row over the positions that its query may see. scores (..., T, S), overwritten."""
    E = masked_exp(scores)
    E /= E @ ones(E.shape[-1], E.dtype)[:, None]  # sums rows faster than .sum
    return E


def _check_attention(q, k, v, heads, kv_heads):
    check_int("causal_attention", heads=heads, kv_heads=kv_heads)
    if heads % kv_heads:
        raise ValueError(f"causal_attention: {heads} heads cannot share {kv_heads} key/value heads evenly; heads must "
                         "be a multiple of kv_heads")
    T, d = q.shape[-2:] if q.ndim > 1 else (0, 0)
    S = k.shape[-2] if k.ndim > 1 else 0
    width = d * kv_heads // heads
    if not 0 < T <= S or d < 1 or d % heads or k.shape != (*q.shape[:-2], S, width) or v.shape != k.shape:
        narrow = "d" if heads == kv_heads else f"d * {kv_heads} / {heads}"
        raise ValueError(f"causal_attention: q {q.shape}, k {k.shape}, v {v.shape}, {heads} heads: expected q (..., T, "
                         f"d) and k, v (..., S, {narrow}) with S >= T >= 1 and d >= 1, a multiple of heads")
