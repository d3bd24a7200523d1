"""What Llama's decoder computes beside a GPT's: RMSNorm in the place of layer normalisation, a gated unit in the place
of relu, and positions as rotations in the place of a table."""

import numpy as np

from ..graph import memoize_last
from ..support.checks import as_array, check_int, check_number
from ..tensor import as_tensor, node, operation
from .arrays import widened
from .layers import floating


@operation
def rms_norm(x, weight, eps=1e-5):
    """Root mean square normalisation over the last axis (Zhang and Sennrich 2019): layer_norm without mean and bias.

    x: (..., d). weight: (d,). A row of zeros gives 0 (eps keeps it finite), one with nan gives nan. Beyond 1e154 (1e19
    in float32) the mean square overflows, and the row gives 0, or nan where x is inf.

    rms = sqrt(mean(x**2) + eps)
    xhat = x / rms
    y = xhat * weight
    dx = (g * weight - xhat * mean(g * weight * xhat)) / rms
    dweight = g * xhat
    """
    x, weight = floating(x), floating(weight)
    d = x.shape[-1] if x.ndim else 0
    if not d or weight.shape != (d,):
        raise ValueError(f"rms_norm: x {x.shape}, weight {weight.shape}: expected (..., d) and (d,)")
    check_number("rms_norm", eps=eps)
    shape, W, X = x.shape, weight.data, x.data.reshape(-1, d)
    work = np.promote_types(X.dtype, np.float32)  # the squares of float16 soon pass its largest number, 65,504
    rrms = (np.vecdot(X, X, dtype=work) / d + float(eps))[:, None] ** -0.5  # (rows, 1)

    def to_x(g):
        g = widened(g.reshape(-1, d)) * W
        along = np.vecdot(g, X)[:, None] * (rrms ** 2 / d)
        g -= X * along
        g *= rrms
        return g.reshape(shape)

    value = (X * rrms).astype(X.dtype, copy=False)
    value = np.multiply(value, W, out=value if W.dtype == value.dtype else None)
    return node("rms_norm", value.reshape(shape),
                (x, to_x),
                (weight, lambda g: np.einsum("nd,nd->d", g.reshape(-1, d), X * rrms)))


@operation
def swiglu(gate, up):
    """silu(gate) * up: the gated unit of a Llama's MLP (Shazeer 2020, section 2). Both operands (..., d).

    Raises ValueError for two shapes. -inf in gate gives nan.

    s = 1 / (1 + exp(-gate))
    y = gate * s * up
    dgate = g * up * (s + gate * s * (1 - s))
    dup = g * gate * s
    """
    gate, up = floating(gate), floating(up)
    if gate.shape != up.shape or not gate.ndim:
        raise ValueError(f"swiglu: gate {gate.shape}, up {up.shape}: expected two of one shape (..., d)")
    # A few rows at a time stay in the processor's cache from one step to the next. Nothing but the operands is kept.
    shape, dtype = gate.shape, np.result_type(gate.data, up.data)
    a, b = (t.data.reshape(-1, shape[-1]) for t in (gate, up))
    blocks = [slice(i, i + 16) for i in range(0, len(a), 16)]
    y = np.empty(a.shape, dtype)
    for rows in blocks:
        np.multiply(a[rows], sigmoid(a[rows]), out=y[rows])
        y[rows] *= b[rows]

    @memoize_last
    def gradients(g):  # of gate and up
        g = g.reshape(a.shape)
        da, db = np.empty(a.shape, dtype), np.empty(a.shape, dtype)
        for rows in blocks:
            s = sigmoid(a[rows])
            silu = np.multiply(a[rows], s, out=db[rows])
            slope = np.subtract(1, s, out=da[rows])
            slope *= silu
            slope += s
            slope *= b[rows]
            slope *= g[rows]
            silu *= g[rows]
        return da.reshape(shape), db.reshape(shape)

    return node("swiglu", y.reshape(shape), (gate, lambda g: gradients(g)[0]), (up, lambda g: gradients(g)[1]))


@operation
def silu(a):
    """Sigmoid linear unit, also called swish (Hendrycks and Gimpel 2016, section 4): a, gated by its own sigmoid.

    -inf gives nan, and so does the gradient at inf, where the formula has inf times 0.

    s = 1 / (1 + exp(-a))
    y = a * s
    da = g * (s + y * (1 - s))
    """
    a = as_tensor(a)
    x = a.data
    s = sigmoid(x)
    y = x * s
    return node("silu", y, (a, lambda g: g * (s + y * (1 - s))))


@operation
def rotary(x, cos, sin, heads=1):
    """Rotary position embedding (Su et al. 2021, section 3.4.2): the vector of position t is turned by t's angles.

    x: (..., T, d), in which each head has c = d / heads columns of its own, c even. cos, sin: (T, c / 2), constants.
    Columns j and j + c / 2 of a head are the two coordinates of a point, which is turned by angle j of its position. So
    the product of a query and a key depends on how far apart they are, and on their places not at all. In the
    formulas of one head, rotate_half([x1, x2]) = [-x2, x1] on the two halves of the columns, and cos and sin stand
    for both. nan and inf reach both coordinates of their point.

    y = x * cos + rotate_half(x) * sin
    dx = g * cos - rotate_half(g) * sin
    """
    x = floating(x)
    cos, sin = (as_array("rotary", a, copy=None).astype(x.dtype, copy=False) for a in (cos, sin))
    check_int("rotary", heads=heads)
    T, d = x.shape[-2:] if x.ndim > 1 else (0, 0)
    if d < 1 or d % (2 * heads) or cos.shape != (T, d // heads // 2) or sin.shape != cos.shape:
        raise ValueError(f"rotary: x {x.shape}, cos {cos.shape}, sin {sin.shape}, {heads} heads: expected x (..., T, "
                         "d) and cos, sin (T, c / 2), where c = d / heads is even")
    shape = x.shape

    def turn(x, sin):  # (..., T, d)
        halves = x.reshape(*shape[:-1], heads, 2, d // heads // 2)
        y = halves * cos[:, None, None]
        y[..., 0, :] -= halves[..., 1, :] * sin[:, None]
        y[..., 1, :] += halves[..., 0, :] * sin[:, None]
        return y.reshape(shape)

    return node("rotary", turn(x.data, sin), (x, lambda g: turn(g, -sin)))


def sigmoid(x):
    """1 / (1 + exp(-x)) of an array."""
    with np.errstate(over="ignore"):  # 1 / (1 + inf) is 0, as it should be
        return 1 / (1 + np.exp(-x))
