"""Positions as rotations: what today's decoders have in place of a table of learned positions."""

import numpy as np

from ..support.checks import as_array, check_int
from ..tensor import node, operation
from .layers import floating


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
        y += halves[..., ::-1, :] * np.stack([-sin, sin], axis=1)[:, None]
        return y.reshape(shape)

    return node("rotary", turn(x.data, sin), (x, lambda g: turn(g, -sin)))
