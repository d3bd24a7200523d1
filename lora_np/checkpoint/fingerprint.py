"""Which base an adapter belongs to: short digests of its weights, to be kept beside the adapter."""

import hashlib
import weakref

import numpy as np

from ..extras.adapters import disable_adapter
from ..quantized import Packed

_known = weakref.WeakKeyDictionary()  # model: (weak references to its weights, their digests)
KINDS = {"base_weights": lambda a: a.astype("<f4"), "base_weights_float16": lambda a: a.astype("<f2"),
         "base_weights_bfloat16": lambda a: _bfloat16(a)}


def fingerprint(model):
    """Short digests of the base: "base_shapes" of its parameters' names and shapes, "base_weights" of their numbers as
    float32, and of the same as float16 and bfloat16, in which a copy of that base may be kept."""
    with disable_adapter(model):
        base = list(model.named_parameters())
    numbers = [t if isinstance(t, Packed) else t.data for _, t in base]
    seen, digests = _known.get(model, ([], {}))
    if len(seen) == len(numbers) and all(ref() is array for ref, array in zip(seen, numbers, strict=True)):
        return digests
    hashes = {key: hashlib.sha256() for key in KINDS}
    with np.errstate(over="ignore"):
        for part in (part for _, t in base for part in _parts(t)):
            for key, rounded in KINDS.items():
                hashes[key].update(np.ascontiguousarray(rounded(part)))
    hashes["base_shapes"] = hashlib.sha256(repr([(name, t.shape) for name, t in base]).encode())
    digests = {key: digest.hexdigest()[:16] for key, digest in hashes.items()}
    _known[model] = [weakref.ref(array) for array in numbers], digests
    return digests


def other_base(recorded, base):
    """What tells a base from the recorded one, "base_shapes" or "base_weights", or None.

    A copy rounded to half precision is the same base; where nothing is recorded, any is.
    """
    if recorded.get("base_shapes", base["base_shapes"]) != base["base_shapes"]:
        return "base_shapes"
    kinds = [kind for kind in KINDS if kind in recorded]
    return "base_weights" if kinds and all(recorded[kind] != base[kind] for kind in kinds) else None


def _parts(t):
    """The numbers of a parameter, some rows after the other."""
    if isinstance(t, Packed):
        return (numbers for _, numbers in t.parts(1 << 20))
    rows = max(1, (1 << 20) * len(t.data) // max(t.size, 1))
    return (t.data[i:i + rows] for i in range(0, len(t.data), rows))


def _bfloat16(array):
    """Numbers as bfloat16, the upper half of a float32, rounded to even; as uint16."""
    bits = np.ascontiguousarray(array, "<f4").view("<u4")
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
