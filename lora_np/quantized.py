"""A frozen matrix kept in blocks of 4 or 8 bits: QLoRA's idea (Dettmers et al. 2023, arXiv 2305.14314).

    w = scale (q - zero) + shift        q: a whole number of 4 or 8 bits; scale and shift serve 32 weights of a row

The weights are unpacked where they are used, forward and again backward, and kept nowhere. LoRA's A and B beside
them are floats, so that training takes the memory of the blocks in the place of W0's.
"""

from functools import reduce

import numpy as np

from .graph import ignore_stale_flag
from .nn import Embedding, Linear
from .ops.layers import floating, in_range
from .support.checks import as_array
from .tensor import Tensor, node

CACHED = 1 << 16  # weights unpacked at a time: a quarter of a megabyte, which a processor keeps close by
PART = 1 << 21  # weights that a product holds unpacked: all of most matrices, a part of an output head


class Packed(Tensor):
    """A frozen matrix W (d, k) in blocks of 32 weights, unpacked whenever its numbers are asked for.

    codes: (k / 32, 16, d) uint8, in each the q of places j (its low four bits) and j + 16 (its high ones) of a block;
    or (k / 32, 32, d) int8, a q each. scale, shift: (k / 32, d) float16. The rows of W are the last axis: NumPy then
    works on d numbers at a time, in half the time that it takes for the 32 of one block after the other.
    """

    __slots__ = ("_dtype", "codes", "scale", "shift", "zero")

    def __init__(self, codes, scale, shift=None, zero=0, dtype=np.float32):
        self.codes, self.scale, self.shift, self.zero, self._dtype = codes, scale, shift, zero, np.dtype(dtype)
        self._node, self._requires_grad, self.grad, self.name = None, False, None, None

    @property
    def _data(self):  # (d, k), column after column in memory
        n, _, d = self.codes.shape
        W, step = np.empty((n, 32, d), np.float32), max(1, CACHED // (32 * max(d, 1)))
        for some in (slice(i, i + step) for i in range(0, n, step)):
            q, w = self.codes[some], W[some]
            if self.bits == 4:
                w[:, :16], w[:, 16:] = q & 15, q >> 4
            else:
                w[:] = q
            if self.zero:
                w -= self.zero
            w *= self.scale[some, None].astype(np.float32)
            if self.shift is not None:
                w += self.shift[some, None].astype(np.float32)
        return W.reshape(32 * n, d).T.astype(self.dtype, copy=False)

    def rows(self, index, dtype=None):
        """Some of the rows, packed, in arrays of their own."""
        return Packed(*(array if array is None else np.ascontiguousarray(array[..., index])
                        for array in (self.codes, self.scale, self.shift)), self.zero, dtype or self.dtype)

    def parts(self, size):
        """(rows, their numbers (…, k)) for all rows of W, about so many weights at a time."""
        d, k = self.shape
        step = max(1, size // k)
        for some in (slice(i, i + step) for i in range(0, d, step)):
            yield some, self.rows(some).data

    def unpack(self, dtype):
        """W as an ordinary array."""
        W = np.empty(self.shape, dtype)
        for rows, numbers in self.parts(CACHED):
            W[rows] = numbers
        return W

    bits = property(lambda self: 4 if self.codes.dtype == np.uint8 else 8)
    shape = property(lambda self: (self.codes.shape[2], 32 * len(self.codes)))
    ndim = property(lambda self: 2)
    size = property(lambda self: self.shape[0] * self.shape[1])
    dtype = property(lambda self: self._dtype)
    nbytes = property(lambda self: sum(a.nbytes for a in (self.codes, self.scale, self.shift) if a is not None))
    requires_grad = property(lambda self: False, lambda self, flag: self.replace_array(None) if flag else None)

    def refuse_update(self, name, delta):
        """Raise ValueError, saying what would be left of an update (d, k) that is merged into these blocks."""
        step = np.abs(self.scale).astype(np.float32)[:, None]  # from one q to the next
        lost = np.mean(np.abs(delta.T.reshape(-1, 32, len(delta))) < step / 2)
        raise ValueError(f"merge: {name} is kept in {self.bits} bits, in steps of about {np.median(step):.2g}: rounded "
                         f"to them, {lost:.0%} of the update's numbers would be lost. Load the model without "
                         "quantized=True, then load_adapter and merge")

    def replace_array(self, array):
        raise RuntimeError(f"this weight is kept in {self.bits} bits and cannot be trained or replaced; adapt it with "
                           "LoRA, or load the model without quantized=True")

    def __reduce__(self):
        return Packed, (self.codes, self.scale, self.shift, self.zero, self.dtype)


class QuantizedLinear(Linear):
    """y = x W^T + b, W packed."""

    def __init__(self, weight, bias=None):
        self.weight, self.bias = weight, bias

    def forward(self, x) -> Tensor:
        """(..., k) -> (..., d)"""
        y = product(x, self.weight)
        return y if self.bias is None else y + self.bias


class QuantizedEmbedding(Embedding):
    """A packed table of V vectors of size d: ids (...) give (..., d)."""

    def __init__(self, weight):
        self.weight = weight

    def forward(self, ids) -> Tensor:
        """Integers (...) in 0 .. V-1 -> (..., d)"""
        V, d = self.weight.shape
        ids = in_range("embedding", as_array("embedding", ids), V)
        return node("embedding", self.weight.rows(ids.ravel()).data.reshape(*ids.shape, d))

    def logits(self, h):
        """The table as an output head: h (..., d) to (..., V)."""
        return product(h, self.weight)


@ignore_stale_flag
def product(x, weight):
    """x W^T for a packed W (d, k), which is unpacked forward and again backward, and kept by neither.

    x: (..., k). Gives (..., d). Raises ValueError where k differs.

    y = x @ W.T
    dx = g @ W
    """
    x = floating(x)
    shape, (d, k) = x.shape, weight.shape
    if not x.ndim or shape[-1] != k:
        raise ValueError(f"linear: x {shape}, weight {(d, k)}: expected x (..., k) and weight (d, k) of equal k")
    X = x.data.reshape(-1, k)
    y = np.empty((len(X), d), np.result_type(X.dtype, weight.dtype))
    for rows, W in weight.parts(PART):
        np.matmul(X, W.T, out=y[:, rows])

    def to_x(g):
        g = g.reshape(-1, d)
        return reduce(np.add, (g[:, rows] @ W for rows, W in weight.parts(PART))).reshape(shape)

    return node("quantized_linear", y.reshape(*shape[:-1], d), (x, to_x))
