"""Attention in blocks of queries, for long sequences: what ops/attention.py computes, in less time and memory.

A block of 32 queries looks at the keys up to its own end; what lies beyond is hidden from all of them, so nearly
half of the T x S weights are neither computed nor kept. Nor are the weights P = E / row_sums ever formed: dividing y
by the row sums costs T c divisions, dividing E would cost T S.
"""

import math

import numpy as np

from ...graph import memoize_last, ones
from ...ops.softmax import masked_exp
from ...tensor import node

BLOCK = 32  # queries at a time


def blocked_attention(q, k, v, heads, kv_heads):
    """causal_attention of Tensors that were checked: q (..., T, heads c), k and v (..., S, kv_heads c)."""
    shape, kv_shape = q.shape, k.shape  # the closures below hold shapes, and not q and k, of which they need no number
    T, S, c, group = shape[-2], kv_shape[-2], shape[-1] // heads, heads // kv_heads
    dtype = np.result_type(q.data, k.data, v.data)
    work = np.promote_types(dtype, np.float32)  # float16 would overflow in the sums
    need_q, need_k, need_v = q.requires_grad, k.requires_grad, v.requires_grad

    def split(x, group=group, n=c):  # (..., T, heads n) -> (batch, kv_heads, group, T, n); a view of x, if contiguous
        return x.reshape(-1, x.shape[-2], kv_heads, group, n).transpose(0, 2, 3, 1, 4)

    def empty(length, columns):
        return np.empty((math.prod(shape[:-2]), length, columns), work)

    def transposed_product(a, b):  # a.T @ b of each key/value head, over its group too, the heads side by side again
        *stack, _, rows, keys = a.shape
        out = empty(keys, kv_heads * c)
        np.matmul(a.reshape(*stack, group * rows, keys).swapaxes(2, 3), b.reshape(*stack, group * rows, c),
                  out=split(out, 1)[:, :, 0])
        return out

    Q, K, V = split(q.data * work.type(c ** -0.5)), split(k.data, 1), split(v.data, 1)
    KT = np.ascontiguousarray(K.swapaxes(3, 4), work)  # many small products are faster with an array of its own
    y, row_sums, blocks = empty(T, shape[-1]), split(empty(T, heads), n=1), []
    Y = split(y)
    for start in range(0, T, BLOCK):
        rows = slice(start, min(start + BLOCK, T))
        n_keys = S - T + rows.stop
        E = masked_exp(Q[..., rows, :] @ KT[..., :n_keys])  # (batch, kv_heads, group, rows, n_keys)
        np.matmul(E, ones(n_keys, work)[:, None], out=row_sums[..., rows, :])
        np.matmul(E, V[..., :n_keys, :], out=Y[..., rows, :])
        blocks.append((rows, n_keys, E))
    Y /= row_sums
    if not need_k:
        Q = None  # dk alone would take it

    @memoize_last
    def gradients(g):  # of q, k and v, of each that needs one
        # With D = sum(g * y), [g / row_sums, D / row_sums] @ [v, -1].T is (g @ v.T - D) / row_sums, so dS is this times
        # E: D is taken off within the product, without a pass over T x S numbers.
        G = split(empty(T, heads * (c + 1)), n=c + 1)
        np.divide(split(g), row_sums, out=G[..., :c])
        G[..., c] = np.einsum("...c,...c->...", G[..., :c], Y)
        VT = np.full((*V.shape[:3], c + 1, S), -1, work)
        VT[..., :c, :] = V.swapaxes(3, 4)
        dq, dk, dv = empty(T, shape[-1]), None, None
        dQ = split(dq)
        for rows, n_keys, E in reversed(blocks):  # the last block saw all keys, the others fewer
            if need_q or need_k:
                dS = G[..., rows, :] @ VT[..., :n_keys]
                dS *= E
            if need_q:
                np.matmul(dS, K[..., :n_keys, :], out=dQ[..., rows, :])
            if need_k:
                dk = _sum(dk, transposed_product(dS, Q[..., rows, :]))
            if need_v:  # P.T @ g = E.T @ (g / row_sums)
                dv = _sum(dv, transposed_product(E, G[..., rows, :c]))
        dq *= c ** -0.5
        return dq.reshape(shape), *(d if d is None else d.reshape(kv_shape) for d in (dk, dv))

    return node("causal_attention", y.reshape(shape).astype(dtype, copy=False),
                (q, lambda g: gradients(g)[0]), (k, lambda g: gradients(g)[1]), (v, lambda g: gradients(g)[2]))


def _sum(so_far, part):
    """so_far, None at first, with part added to it; part may lack the last rows."""
    if so_far is None:
        return part
    so_far[..., :part.shape[-2], :] += part
    return so_far
