"""Values as JSON, to carry what a student's function returned from one process to another.

JSON and not pickle: reading it runs no code, whatever a submission wrote. Numbers arrive bit for bit. What is not data
arrives as its description, so that every answer, of whatever type, can be talked about.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Rational, Real

import numpy as np

from lora_np import Tensor

LARGEST = 1 << 20  # bytes of a value, all that it holds included
DEEPEST = 30       # lists in lists


@dataclass(frozen=True)
class Other:
    """A value that is not carried over, by its description."""

    text: str


class _TooLarge(Exception):
    pass


def encode(value):
    """A value in JSON's types; what is not data becomes its description."""
    try:
        return _encode(value, [LARGEST], 0)
    except _TooLarge as error:
        return {"other": f"{_kind(value)}, {error}"}
    except Exception:  # a list or dict of the student's own making, as above all
        return {"other": _kind(value)}


def _encode(value, room, depth):
    """room: [bytes that are left]."""
    room[0] -= 8
    if room[0] < 0:
        raise _TooLarge("more than 1 MB")
    if depth > DEEPEST:
        raise _TooLarge(f"nested more than {DEEPEST} deep")
    if value is None or isinstance(value, (bool, np.bool_)):
        return None if value is None else bool(value)
    if isinstance(value, np.ndarray) or (isinstance(value, np.floating) and value.dtype.itemsize < 8):
        return _array(value, room)
    if isinstance(value, Real):  # floats and integers of Python and NumPy, and fractions
        value = int(value) if isinstance(value, Rational) and value.denominator == 1 else float(value)
        return value if isinstance(value, float) or abs(value) < 1 << 63 else {"other": "a very large int"}
    if isinstance(value, str):
        room[0] -= len(value)
        return str.__str__(value) if room[0] >= 0 else {"other": f"a text of {len(value):,} characters"}
    if isinstance(value, Tensor):
        return {"tensor": _array(value.data, room), "trains": value.requires_grad}
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(v, room, depth + 1) for v in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_key(k), _encode(v, room, depth + 1)] for k, v in value.items()]}
    return {"other": _kind(value)}


def _array(value, room):
    if isinstance(value, (np.matrix, np.ma.MaskedArray)):  # which compute by other rules
        return {"other": _kind(value)}
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        return {"other": f"an array of dtype {array.dtype} and shape {array.shape}"}
    room[0] -= array.nbytes
    if room[0] < 0:
        return {"other": f"an array of shape {array.shape}, more than 1 MB"}
    return {"array": [array.dtype.str, list(array.shape), base64.b64encode(array.tobytes()).decode()]}


def _key(key):
    """A key of a dict: one that can be a key again."""
    if isinstance(key, tuple):
        return {"tuple": [_key(k) for k in key]}
    if isinstance(key, np.floating):
        return float(key)
    return _encode(key, [LARGEST], 0) if isinstance(key, (type(None), bool, Real, str)) else {"other": _kind(key)}


def _kind(value):
    """What sort of thing a value is, with its article: "a generator", "a torch.Tensor of shape (4, 5)"."""
    try:
        return _described(value)
    except Exception:  # an object of the student's own that does not answer when it is looked at
        return f"a value of type {type(value).__name__}"


def _described(value):
    kind = type(value)
    if isinstance(value, type):
        return "a class"
    if isinstance(value, (complex, np.complexfloating)):
        return f"the complex number {complex(value):.6g}"
    if callable(value) and kind.__module__ in ("builtins", "functools", "numpy"):
        return "a function"
    name, home = kind.__name__, kind.__module__.partition(".")[0]
    if home in ("builtins", "itertools"):
        name = f"{name} object" if hasattr(kind, "__next__") and name != "generator" else name
    elif home not in ("exercise", "collections", "lora_np") and kind is not np.ndarray:
        name = f"{'np' if home == 'numpy' else home}.{name}"
    shape, length = getattr(value, "shape", None), getattr(value, "__len__", None)
    size = f" of shape {shape}" if isinstance(shape, tuple) else f" of {length()}" if length else ""
    return f"{'an' if name[:1] in 'aeiouAEIOU' or name.startswith('np.') else 'a'} {name}{size}"


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


def printable(text, keep="\n\t"):
    """A text that any file and terminal takes: what cannot be written as UTF-8, and control characters, as escapes."""
    return "".join(c if c in keep or c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
                   for c in str(text))
