"""Attention in blocks of queries, for long sequences: what ops/attention.py computes, in less time and memory.

A block of 32 queries looks at the keys up to its own end; what lies beyond is hidden from all of them, so nearly
half of the T x S weights are neither computed nor kept. Nor are the weights P = E / row_sums ever formed: dividing y
by the row sums costs T c divisions, dividing E would cost T S.
"""

import numpy as np

from ...graph import memoize_last
from ...ops.softmax import masked_exp
from ...tensor import node

BLOCK = 32  # queries at a time


def blocked_attention(q, k, v, heads, kv_heads):
    """causal_attention of Tensors that were checked: q (..., T, heads c), k and v (..., S, kv_heads c)."""
    *batch, T, d = shape = q.shape  # the closures below hold shapes, and not q and k, of which they need no number
    S, c, root = k.shape[-2], d // heads, (d // heads) ** -0.5
    dtype = np.result_type(q.data, k.data, v.data)
    work = np.promote_types(dtype, np.float32)  # float16 would overflow in the sums
    need_q, need_k, need_v = q.requires_grad, k.requires_grad, v.requires_grad

    def split(x, n=c):  # (..., T, heads n) -> (..., kv_heads, group, T, n); of a fresh array a view, to be written to
        return x.reshape(*x.shape[:-1], kv_heads, x.shape[-1] // (kv_heads * n), n).swapaxes(-4, -3).swapaxes(-3, -2)

    def transposed_product(a, b):  # a.T @ b of each key/value head, over its group too, the heads side by side again
        keys = a.shape[-1]
        a, b = (x.reshape(*x.shape[:-3], heads // kv_heads * x.shape[-2], x.shape[-1]) for x in (a, b))
        out = np.empty((*batch, keys, kv_heads * c), work)
        np.matmul(a.swapaxes(-1, -2), b, out=split(out)[..., 0, :, :])
        return out

    Q, K, V = split(q.data.astype(work, copy=False) * root), split(k.data), split(v.data)
    KT = np.ascontiguousarray(K.swapaxes(-1, -2), work)  # many small products are faster with an array of its own
    y, row_sums, blocks = np.empty(shape, work), np.empty((*batch, T, heads), work), []
    for start in range(0, T, BLOCK):
        rows = slice(start, min(start + BLOCK, T))
        n_keys = S - T + rows.stop
        E = masked_exp(Q[..., rows, :] @ KT[..., :n_keys])  # (..., kv_heads, group, rows, n_keys)
        split(row_sums, 1)[..., rows, :] = E @ np.ones((n_keys, 1), work)
        np.matmul(E, V[..., :n_keys, :], out=split(y)[..., rows, :])
        blocks.append((rows, n_keys, E))
    Y = split(y)
    Y /= split(row_sums, 1)

    @memoize_last
    def gradients(g):  # of q, k and v, of each that needs one
        # With D = sum(g * y), [g / row_sums, D / row_sums] @ [v, -1].T is (g @ v.T - D) / row_sums, so dS is this times
        # E: D is taken off within the product, without a pass over T x S numbers.
        G = split(np.empty((*batch, T, heads * (c + 1)), work), c + 1)
        np.divide(split(g), split(row_sums, 1), out=G[..., :c])
        G[..., c] = np.einsum("...c,...c->...", G[..., :c], Y)
        VT = np.full((*V.shape[:-2], c + 1, S), -1, work)
        VT[..., :c, :] = V.swapaxes(-1, -2)
        dq, dk, dv = np.zeros(shape, work), None, None
        for rows, n_keys, E in reversed(blocks):  # the last block saw all keys, the others fewer
            if need_q or need_k:
                dS = G[..., rows, :] @ VT[..., :n_keys]
                dS *= E
            if need_q:
                np.matmul(dS, K[..., :n_keys, :], out=split(dq)[..., rows, :])
            if need_k:
                dk = _sum(dk, transposed_product(dS, Q[..., rows, :]))
            if need_v:  # P.T @ g = E.T @ (g / row_sums)
                dv = _sum(dv, transposed_product(E, G[..., rows, :c]))
        dq *= root
        return dq, dk, dv

    return node("causal_attention", y.astype(dtype, copy=False),
                (q, lambda g: gradients(g)[0]), (k, lambda g: gradients(g)[1]), (v, lambda g: gradients(g)[2]))


def _sum(so_far, part):
    """so_far, None at first, with part added to it; part may lack the last rows."""
    if so_far is None:
        return part
    so_far[..., :part.shape[-2], :] += part
    return so_far
