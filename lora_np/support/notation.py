"""Numbers and small arrays as one writes them: 5, [5 2], [12; -18]; and values as errors show them."""

from reprlib import Repr

import numpy as np

_repr = Repr()
_repr.maxstring = _repr.maxother = 100


def number(value, digits=12):
    """A number without trailing zeros, and without a minus before zero."""
    return f"{value + 0.0:.{digits}g}"  # -0.0 + 0.0 is 0.0


def matrix(value, digits=12):
    """A number, a vector [5 2], or a matrix whose rows end with semicolons [12; -18]."""
    value = np.asarray(value)
    if not value.ndim:
        return number(value, digits)
    return "[" + "; ".join(" ".join(number(v, digits) for v in row) for row in np.atleast_2d(value)) + "]"


def brief(value):
    """Any value as an error shows it: its repr, cut in the middle where it is long."""
    return _repr.repr(value)
