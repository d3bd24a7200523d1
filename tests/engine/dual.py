"""Forward-mode differentiation with dual numbers, written apart from the engine: a second opinion on every gradient.

A Dual is x + x' eps with eps^2 = 0: an array and its derivative along one direction of the inputs. Each function here
has the name and the arguments of one in lora_np.ops; the fused ones are put together from the primitives. `kink` is
the least distance to a point where something has no derivative (relu at 0, a tie of max): near it, differences lie.
"""

import numpy as np

kink = [np.inf]


class Dual:
    def __init__(self, value, slope=None):
        self.value = np.asarray(value, float)
        self.slope = np.zeros(self.value.shape) if slope is None else np.broadcast_to(slope, self.value.shape)

    shape = property(lambda self: self.value.shape)


def lift(a):
    return a if isinstance(a, Dual) else Dual(a)


def near(distance):
    kink[0] = min(kink[0], np.min(np.abs(distance), initial=np.inf))


def add(a, b):
    a, b = lift(a), lift(b)
    return Dual(a.value + b.value, a.slope + b.slope)


def neg(a):
    return Dual(-a.value, -a.slope)


def sub(a, b):
    return add(a, neg(lift(b)))


def mul(a, b):
    a, b = lift(a), lift(b)
    return Dual(a.value * b.value, a.slope * b.value + a.value * b.slope)


def div(a, b):
    a, b = lift(a), lift(b)
    return Dual(a.value / b.value, (a.slope * b.value - a.value * b.slope) / b.value ** 2)


def exp(a):
    return Dual(np.exp(a.value), a.slope * np.exp(a.value))


def log(a):
    return Dual(np.log(a.value), a.slope / a.value)


def pow(a, b):
    if not isinstance(b, Dual):  # a number: also of a negative base
        return Dual(a.value ** b, a.slope * b * a.value ** (b - 1) if b else 0)
    return exp(mul(b, log(a)))


def sqrt(a):
    root = np.sqrt(a.value)
    return Dual(root, a.slope / 2 / root)


def tanh(a):
    return Dual(np.tanh(a.value), a.slope * (1 - np.tanh(a.value)) * (1 + np.tanh(a.value)))


def relu(a):
    near(a.value)
    return Dual(np.where(a.value > 0, a.value, 0), np.where(a.value > 0, a.slope, 0))


def gelu(a):
    inner = mul((2 / np.pi) ** 0.5, add(a, mul(0.044715, pow(a, 3))))
    return mul(mul(0.5, a), add(1, tanh(inner)))


def silu(a):
    return div(a, add(1, exp(neg(a))))


def where(condition, a, b):
    a, b = lift(a), lift(b)
    return Dual(np.where(condition, a.value, b.value), np.where(condition, a.slope, b.slope))


def matmul(a, b):
    return Dual(a.value @ b.value, a.slope @ b.value + a.value @ b.slope)


def sum(a, axis=None, keepdims=False):
    return Dual(a.value.sum(axis, keepdims=keepdims), a.slope.sum(axis, keepdims=keepdims))


def mean(a, axis=None, keepdims=False):
    return Dual(a.value.mean(axis, keepdims=keepdims), a.slope.mean(axis, keepdims=keepdims))


def max(a, axis=None, keepdims=False):
    top = a.value.max(axis, keepdims=True)
    ties = a.value == top
    near(np.where(ties & (ties.sum(axis, keepdims=True) == 1), np.inf, top - a.value))
    slope = np.where(ties, a.slope, 0).sum(axis, keepdims=True) / ties.sum(axis, keepdims=True)
    shape = a.value.max(axis, keepdims=keepdims).shape
    return Dual(top.reshape(shape), slope.reshape(shape))


def reshape(a, *shape):
    return Dual(a.value.reshape(*shape), a.slope.reshape(*shape))


def transpose(a, *axes):
    return Dual(a.value.transpose(*axes), a.slope.transpose(*axes))


def getitem(a, index):
    return Dual(a.value[index], a.slope[index])


def concatenate(tensors, axis=0):
    parts = [lift(t) for t in tensors]
    return Dual(np.concatenate([p.value for p in parts], axis), np.concatenate([p.slope for p in parts], axis))


def linear(x, weight, bias=None):
    y = matmul(reshape(x, (1, *x.shape)) if x.value.ndim == 1 else x, transpose(weight))
    y = reshape(y, y.shape[1:]) if x.value.ndim == 1 else y
    return y if bias is None else add(y, bias)


def embedding(weight, ids):
    return getitem(weight, np.array(ids))


def layer_norm(x, weight, bias, eps=1e-5):
    centred = sub(x, mean(x, -1, True))
    return add(mul(div(centred, sqrt(add(mean(mul(centred, centred), -1, True), eps))), weight), bias)


def rms_norm(x, weight, eps=1e-5):
    return mul(div(x, sqrt(add(mean(mul(x, x), -1, True), eps))), weight)


def swiglu(gate, up):
    return mul(silu(gate), up)


def rotary(x, cos, sin, heads=1):
    half = x.shape[-1] // heads // 2
    parts = [getitem(x, (..., slice(i * half, (i + 1) * half))) for i in range(2 * heads)]
    turned = [part for a, b in zip(parts[::2], parts[1::2], strict=True)
              for part in (sub(mul(a, cos), mul(b, sin)), add(mul(b, cos), mul(a, sin)))]
    return concatenate(turned, axis=-1)


def dropout(x, p, rng):
    return mul(x, (rng.random(x.shape, dtype=np.float32) >= p) / (1 - p))


def softmax(a, axis=-1):
    e = exp(sub(a, a.value.max(axis, keepdims=True)))
    return div(e, sum(e, axis, True))


def log_softmax(a, axis=-1):
    shifted = sub(a, a.value.max(axis, keepdims=True))
    return sub(shifted, log(sum(exp(shifted), axis, True)))


def cross_entropy(logits, targets, ignore_index=-100):
    rows, targets = reshape(log_softmax(logits), (-1, logits.shape[-1])), np.ravel(targets)
    (counted,) = np.nonzero(targets != ignore_index)
    return neg(mean(getitem(rows, (counted, targets[counted]))))


def linear_cross_entropy(x, weight, targets, ignore_index=-100):
    return cross_entropy(linear(x, weight), targets, ignore_index)


def causal_attention(q, k, v):
    T, S, c = q.shape[-2], k.shape[-2], q.shape[-1]
    turned = Dual(k.value.swapaxes(-1, -2), k.slope.swapaxes(-1, -2))
    scores = div(matmul(q, turned), c ** 0.5)
    hidden = np.arange(S) > np.arange(S - T, S)[:, None]
    return matmul(softmax(where(hidden, -1e30, scores)), v)
