"""What may become an array inside a Tensor, with errors that say what was given and what to do."""

import numpy as np


def numbers(name, data, dtype=None):
    """A fresh array of the data, in its own dtype or in the one given. Raises where it does not fit."""
    if _cuts_gradient(data):
        raise TypeError(f"{name}: a list of Tensors that require a gradient; copying their numbers would cut them from "
                        "the graph. Join them with ops.concatenate, or write t.data for the numbers alone")
    try:
        array = np.array(data)
    except ValueError as error:  # NumPy's text says where the nested lists part
        raise ValueError(f"{name}: the rows differ in length; {error}") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected numbers, got {type(data).__name__} "
                        f"(dtype {array.dtype}): {str(data)[:40]!r}")
    if dtype is None:
        return array
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise TypeError(f"{name}: numbers of {array.dtype} do not fit into {dtype} without loss")
    return array.astype(dtype, copy=False)


def _cuts_gradient(data):
    return isinstance(data, (list, tuple)) and any(
        getattr(t, "requires_grad", False) or _cuts_gradient(t) for t in data)


def checked_seed(seed, value):
    """A fresh array of value's shape and dtype to start backward from."""
    if seed is None:
        if value.size != 1:
            raise ValueError(f"backward: a result of shape {value.shape} needs a seed of that shape; "
                             "did you mean loss.mean().backward()?")
        return np.ones_like(value)
    seed = numbers("backward", seed, value.dtype)
    if seed.shape != value.shape:
        raise ValueError(f"backward: the seed has shape {seed.shape}, the result {value.shape}; they must be equal")
    return seed
