"""Operations that act on each element by itself. Two operands are broadcast against each other as in
NumPy; a vjp may then return a gradient of the broadcast shape, and backward sums it down."""

import numpy as np

from ..tensor import as_tensor, node, operation


def operands(a, b):
    """Both operands as Tensors. A single number takes the other's precision."""
    return as_tensor(a, like=b), as_tensor(b, like=a)


def broadcast(name, function, *arrays):
    """function(*arrays), with an error that speaks of shapes when they do not broadcast."""
    try:
        return function(*arrays)
    except TypeError:
        raise TypeError(f"{name}: {' and '.join(str(x.dtype) for x in arrays)} is not for arithmetic; write 1.0 for "
                        "True, or mask.astype(float)") from None
    except ValueError:
        shapes = " and ".join(str(x.shape) for x in arrays)
        raise ValueError(f"{name}: shapes {shapes} do not broadcast: aligned at the right, two sizes must be "
                         "equal or one of them 1. Reshape, or index with None to add an axis") from None


@operation
def add(a, b):
    """Sum, with broadcasting. Overflow gives inf, inf - inf nan; nan stays nan.

    y = a + b
    da = g
    db = g
    """
    a, b = operands(a, b)
    return node("add", broadcast("add", np.add, a.data, b.data), (a, lambda g: g), (b, lambda g: g))


@operation
def sub(a, b):
    """Difference, with broadcasting. Overflow gives inf, inf - inf nan; nan stays nan.

    y = a - b
    da = g
    db = -g
    """
    a, b = operands(a, b)
    return node("sub", broadcast("sub", np.subtract, a.data, b.data), (a, lambda g: g), (b, lambda g: -g))


@operation
def mul(a, b):
    """Product, elementwise with broadcasting.

    Overflow gives inf; underflow a subnormal number, then 0; 0 times inf is nan.

    y = a * b
    da = g * b
    db = g * a
    """
    a, b = operands(a, b)
    x, y = a.data, b.data
    return node("mul", broadcast("mul", np.multiply, x, y),
                (a, lambda g: g * y),
                (b, lambda g: g * x))


@operation
def div(a, b):
    """Quotient, with broadcasting. Division by zero gives inf or nan and NumPy's warning.

    y = a / b
    da = g / b
    db = -g * a / b**2
    """
    a, b = operands(a, b)
    x, y = a.data, b.data
    value = broadcast("div", np.divide, x, y)
    return node("div", value,
                (a, lambda g: g / y),
                (b, lambda g: -g * value / y))


@operation
def neg(a):
    """Minus a. inf and nan keep their size.

    y = -a
    da = -g
    """
    a = as_tensor(a)
    return node("neg", broadcast("neg", np.negative, a.data), (a, lambda g: -g))


@operation
def pow(a, b):
    """Power, with broadcasting. b is a number or a Tensor; only where a >= 0 has b a gradient.

    At the edges: a ** 0 has slope 0 in a, also at a = 0; 0 ** b has slope 0 in b for b >= 0, and -inf below.
    0 to a negative power is inf, a negative number to a fraction nan.

    y = a ** b
    da = g * b * a ** (b - 1)
    db = g * y * log(a)
    """
    a, b = operands(a, b)
    x, n = a.data, b.data
    if x.dtype.kind in "iu" and n.dtype.kind in "iu" and (n < 0).any():
        raise ValueError("pow: an integer has no integer power below 0; write 2.0 for 2")
    # A 0-d exponent goes in as a number: NumPy squares and takes roots faster than it raises to a power.
    value = x ** n.item() if n.ndim == 0 else broadcast("pow", np.power, x, n)

    def slope(g):
        down = np.where(n == 0, 1, n - 1)  # for n = 0 any finite power will do: n times it is 0
        return g * (n * (x ** down.item() if n.ndim == 0 else x ** down))

    return node("pow", value, (a, slope), (b, lambda g: g * value * np.log(np.where((x == 0) & (n >= 0), 1, x))))


@operation
def exp(a):
    """Exponential. Overflows to inf above 709 in float64, 88 in float32.

    Underflows to 0 below -745 in float64, -103 in float32; inf and nan stay.

    y = exp(a)
    da = g * y
    """
    a = as_tensor(a)
    y = np.exp(a.data)
    return node("exp", y, (a, lambda g: g * y))


@operation
def log(a):
    """Natural logarithm. log(0) is -inf, log of a negative number nan, with NumPy's warning.

    y = log(a)
    da = g / a
    """
    a = as_tensor(a)
    x = a.data
    return node("log", np.log(x), (a, lambda g: g / x))


@operation
def sqrt(a):
    """Square root. The slope at 0 is inf. A negative number gives nan.

    y = sqrt(a)
    da = g / (2 * y)
    """
    a = as_tensor(a)
    y = np.sqrt(a.data)
    return node("sqrt", y, (a, lambda g: g / (2 * y)))


@operation
def tanh(a):
    """Hyperbolic tangent.

    Saturates at -1 and 1, with gradient 0 beyond about 19 in float64, 9 in float32; nan stays nan.

    y = tanh(a)
    da = g * (1 - y**2)
    """
    a = as_tensor(a)
    y = np.tanh(a.data)
    return node("tanh", y, (a, lambda g: g * (1 - y * y)))


@operation
def relu(a):
    """Rectified linear unit; its slope at 0 is taken as 0.

    nan stays nan, with gradient 0.

    y = maximum(a, 0)
    da = g * (a > 0)
    """
    a = as_tensor(a)
    positive = a.data > 0  # one byte an element; multiplying by it is much faster than indexing with it
    return node("relu", np.maximum(a.data, 0), (a, lambda g: g * positive))
