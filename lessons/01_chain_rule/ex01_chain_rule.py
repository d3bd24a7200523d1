"""Exercise 01: the chain rule, on graphs of single numbers.

Multiply the slopes along a way through the graph; add over the ways. Plain Python.
Check your work with: python -m lessons check 01
"""


def one_neuron(x, w, b, t):
    """(dL/dx, dL/dw, dL/db) of L = (x w + b - t)^2.

    Example: one_neuron(2.0, 3.0, 1.0, 5.0): the error x w + b - t is 2, L is 4, and the result (12.0, 8.0, 4.0).
    """
    raise NotImplementedError


def reused(a, b):
    """(dy/da, dy/db) of y = u u + a with u = a b. Both a and u are used twice.

    Example: reused(2.0, 3.0): u is 6, y is 38, and the result (37.0, 24.0).
    """
    raise NotImplementedError


def backward(steps):
    """{name: dL/d(name)} for every name in a graph, the last result L itself included.

    steps: a list of (result, operand, slope), in the order of the computation; slope is d(result)/d(operand).
    L is the result of the last step, whatever its name. An operand that is used several times has several steps.

    Example: backward([("u", "x", 3.0), ("L", "u", 2.0)]) is {"L": 1.0, "u": 2.0, "x": 6.0}.
    """
    raise NotImplementedError
