"""Values as JSON, to carry what a student's function returned from one process to another.

JSON and not pickle: reading it runs no code, whatever a submission wrote. Numbers arrive bit for bit.
"""

import base64
from dataclasses import dataclass

import numpy as np

from lora_np import Tensor

LARGEST = 1 << 20  # bytes of an array, elements of a list, characters of a text


@dataclass(frozen=True)
class Other:
    """A value that is not carried over, by its description."""

    text: str


def encode(value):
    """A value in JSON's types; what is not data becomes its description."""
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value) if abs(value) < 1 << 63 else {"other": "a very large int"}
    if isinstance(value, np.floating):
        return float(value)
    if kind is str and len(value) < LARGEST:
        return value
    if kind is np.ndarray:
        if value.dtype.kind not in "fiub" or value.nbytes > LARGEST:
            return {"other": f"an array of dtype {value.dtype} and shape {value.shape}"}
        return {"array": [value.dtype.str, list(value.shape), base64.b64encode(value.tobytes()).decode()]}
    if kind is Tensor:
        return {"tensor": encode(value.data), "trains": value.requires_grad}
    if kind in (list, tuple) and len(value) < LARGEST:
        return {kind.__name__: [encode(v) for v in value]}
    if kind is dict and len(value) < LARGEST:
        return {"dict": [[encode(k), encode(v)] for k, v in value.items()]}
    return {"other": "a function" if callable(value) else f"a value of type {kind.__name__}"}


def decode(data):
    """The value that encode was given."""
    if not isinstance(data, dict):
        return data
    if "array" in data:
        dtype, shape, numbers = data["array"]
        return np.frombuffer(base64.b64decode(numbers), dtype).reshape(shape).copy()
    if "tensor" in data:
        return Tensor(decode(data["tensor"]), requires_grad=data["trains"])
    if "list" in data:
        return [decode(v) for v in data["list"]]
    if "tuple" in data:
        return tuple(decode(v) for v in data["tuple"])
    if "dict" in data:
        return {decode(k): decode(v) for k, v in data["dict"]}
    return Other(data["other"])
