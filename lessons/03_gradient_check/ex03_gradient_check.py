"""Exercise 03: measuring a slope, and saying how far off a gradient is.

Check your work with: python -m lessons check 03
"""

import numpy as np


def central_difference(f, x, eps):
    """The slope of f in each entry of x: (f(x + eps there) - f(x - eps there)) / (2 eps), an array of the shape of x.

    f: takes an array of the shape of x and returns a number. x: an array of any shape; it stays as it is.

    Example: with f = lambda v: (v ** 2).sum(), x = np.array([1.0, 3.0]) and eps = 0.1, about [2, 6].
    """
    raise NotImplementedError


def relative_error(a, n):
    """The largest of |a - n| / max(|a|, |n|) over all entries; an entry where both are 0 has an error of 0.

    a, n: arrays of one shape, the gradient by formula and by measuring. Gives one number.

    Example: relative_error(np.array([2.0, 4.0]), np.array([2.0, 5.0])) is 0.2.
    """
    raise NotImplementedError


def best_step(f, slope, x, steps):
    """The step of a list with which a central difference of f at the number x comes closest to the known slope.

    x: a plain float, not an array. f: takes a number and returns one.

    Example: best_step(np.sin, np.cos(1.0), 1.0, [0.1, 1e-5, 1e-13]) is 1e-5.
    """
    raise NotImplementedError
