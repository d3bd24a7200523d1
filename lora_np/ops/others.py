"""Operations that no model or lesson here calls: for models of your own, and for the tests, which compose fused
operations from them."""

import numpy as np

from ..support.checks import as_array
from ..tensor import as_tensor, node, operation
from .arrays import as_axes, widened, with_axes
from .elementwise import broadcast, operands
from .layers import floating
from .softmax import stabilised


@operation
def gelu(a):
    """Gaussian error linear unit, in the tanh form that GPT-2 uses (Hendrycks and Gimpel 2016, section 2).

    -inf gives nan, and beyond 1e154 (1e19 in float32) so does the gradient: a**2 overflows.

    t = tanh(sqrt(2 / pi) * (a + 0.044715 * a**3))
    y = a / 2 * (1 + t)
    da = g * ((1 + t) / 2 + a / 2 * (1 - t**2) * sqrt(2 / pi) * (1 + 0.134145 * a**2))
    """
    a = as_tensor(a)
    x = a.data
    c = (2 / np.pi) ** 0.5  # a Python float: an np.float64 here would turn float32 into float64
    t = np.tanh(c * (x + 0.044715 * x * x * x))  # x * x * x: x**3 would cost more than all the rest

    def slope(g):
        return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 0.134145 * x * x))

    return node("gelu", 0.5 * x * (1 + t), (a, slope))


@operation
def where(condition, a, b):
    """a where the condition holds, b elsewhere, with broadcasting. The condition has no gradient.

    The side that was not chosen gets exactly 0, even where its own value is nan.

    y = where(condition, a, b)
    da = where(condition, g, 0)
    db = where(condition, 0, g)
    """
    a, b = operands(a, b)
    chosen = as_array("where", condition)
    if chosen.dtype.kind not in "biuf":
        raise TypeError(f"where: the condition must be an array of True and False, got {chosen.dtype}: "
                        f"{str(condition)[:40]!r}")
    chosen = chosen.astype(bool, copy=False)
    return node("where", broadcast("where", np.where, chosen, a.data, b.data),
                (a, lambda g: np.where(chosen, g, 0)),
                (b, lambda g: np.where(chosen, 0, g)))


@operation
def max(a, axis=None, keepdims=False):
    """Largest element, over all, one axis or a tuple of axes. Elements that tie share the gradient evenly.

    One nan among the elements makes value and gradient nan.

    y = max(a, axis)
    da = g * (a == y) / sum(a == y)
    """
    a = as_tensor(a)
    axes = as_axes("max", a, axis, keepdims)
    x = a.data
    if 0 in (x.shape[i] for i in axes):
        raise ValueError(f"max: shape {x.shape} has no elements along axis {axis}; the largest of nothing is undefined")
    value = x.max(axis=axes, keepdims=keepdims)

    def to_a(g):
        ties = x == with_axes(value, axes, x.shape)
        n = ties.sum(axis=axes, keepdims=True, dtype=np.result_type(g, np.float32))
        return ties * (with_axes(g, axes, x.shape) / n)

    return node("max", value, (a, to_a))


@operation
def log_softmax(a, axis=-1):
    """log(softmax(a)), without the detour that would lose small probabilities. Raises as softmax does.

    An element of -inf stays -inf, and nan makes its row nan.

    y = a - log(sum(exp(a), axis))
    da = g - exp(y) * sum(g, axis)
    """
    a = floating(a)
    x = stabilised("log_softmax", a.data, axis)
    y = x - np.log(np.exp(x).sum(axis=axis, keepdims=True))
    y = np.minimum(y, 0, dtype=y.dtype).astype(a.dtype, copy=False)  # no probability is above 1, but rounding may be
    return node("log_softmax", y, (a, lambda g: g - np.exp(y) * widened(g).sum(axis=axis, keepdims=True)))
