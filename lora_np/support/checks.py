"""Checks of what users give, with errors that say what was given, what was expected and what to try."""

import math

import numpy as np


def expect(name, value, kind, advice=""):
    """Raise TypeError unless the value is of a kind: a class, or (str, os.PathLike) for a path."""
    if not isinstance(value, kind):
        what = "path" if isinstance(kind, tuple) else kind.__name__
        raise TypeError(f"{name}: expected a {what}, got {type(value).__name__}{advice}")


def check_int(name, least=1, **values):
    """Raise ValueError unless each value is a whole number of at least `least`."""
    for key, value in values.items():
        if type(value) is int and value >= least:  # as nearly all are
            continue
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name}: {key} must be a whole number of at least {least}, got {value!r}")


def check_number(name, below=math.inf, **values):
    """Raise ValueError unless each value is a number from 0 to what is below `below`."""
    for key, value in values.items():
        if type(value) is float and 0 <= value < below:  # as nearly all are
            continue
        if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
            raise ValueError(f"{name}: {key} must be a number, got {value!r}")
        if below < math.inf and not 0 <= value < below:
            raise ValueError(f"{name}: {key} must be in [0, {below}), got {value}")
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: {key} must {'not be negative' if value < 0 else 'be finite'}, got {value}")


def check_float_type(name, dtype):
    """Raise ValueError unless dtype is a floating point type."""
    try:
        kind = None if dtype is None else np.dtype(dtype).kind
    except TypeError:
        kind = None
    if kind != "f":
        raise ValueError(f"{name}: dtype must be a floating point type such as np.float32, got {dtype!r}")


def check_generator(name, rng):
    """Raise TypeError unless rng draws random numbers as NumPy's generators do."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"{name}: rng must be a random generator, got {rng!r}; np.random.default_rng(0) makes one")


def as_array(name, data, copy=True):
    """The data as an array, a fresh one unless copy is None. Raises ValueError for lists of different lengths."""
    if _holds(data, _masked):
        raise TypeError(f"{name}: a masked array hides some of its numbers, which would be lost here; write "
                        "data.filled(0) for the number that is to stand there")
    try:
        return np.array(data, copy=copy)
    except ValueError as error:  # NumPy's text says where the nested lists part
        raise ValueError(f"{name}: the rows differ in length; {error}") from None


def compare(function, a, b):
    """function(a, b) of np.less and its like, as an array of bool."""
    b = as_array("compare", b, copy=None)
    try:
        return function(a, b)
    except ValueError:
        raise ValueError(f"compare: shapes {a.shape} and {b.shape} do not broadcast") from None
    except TypeError:
        raise TypeError(f"compare: expected numbers, got {b.dtype}: {str(b)[:40]!r}") from None


def as_numbers(name, data, dtype=None):
    """A fresh array of the data, in its own dtype or in the one given. Raises where it does not fit."""
    if _holds(data, lambda part: getattr(part, "requires_grad", False)) and isinstance(data, (list, tuple)):
        raise TypeError(f"{name}: a list of Tensors that require a gradient; copying their numbers would cut them from "
                        "the graph. Join them with ops.concatenate, or write t.data for the numbers alone")
    fresh = as_array(name, data)
    if fresh.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, got {type(data).__name__} "
                        f"(dtype {fresh.dtype}): {str(data)[:40]!r}")
    if dtype is None:
        return fresh.astype(fresh.dtype.newbyteorder("="), copy=False)  # gradients come in the machine's own order
    if not np.can_cast(fresh.dtype, dtype, "same_kind"):
        raise TypeError(f"{name}: numbers of {fresh.dtype} do not fit into {dtype} without loss")
    return fresh.astype(dtype, copy=False)


def _masked(data):
    return isinstance(data, np.ma.MaskedArray) and np.ma.is_masked(data)


def _holds(data, property):
    """Whether the data, or something in a list of it, has a property."""
    return any(_holds(part, property) for part in data) if isinstance(data, (list, tuple)) else property(data)


def as_upstream(gradient, value):
    """A fresh array of value's shape and dtype to start backward from."""
    if gradient is None:
        if value.size != 1:
            raise ValueError(f"backward: a result of shape {value.shape} needs a gradient of that shape; "
                             "did you mean loss.mean().backward()?")
        return np.ones_like(value)
    gradient = as_numbers("backward", gradient, value.dtype)
    if gradient.shape != value.shape:
        raise ValueError(f"backward: the gradient has shape {gradient.shape}, the result {value.shape}; they must be "
                         "equal")
    return gradient
