"""Reading GGUF, llama.cpp's format: metadata and named tensors in one file, many of them in blocks of 4 or 8 bits.

    "GGUF", u32 version, u64 number of tensors, u64 number of keys
    each key       its name, u32 type, value       a string: u64 length, bytes; a list: u32 type, u64 length, values
    each tensor    its name, u32 number of axes, u64 the length of each, innermost first, u32 type, u64 offset
    the rest       from the next multiple of general.alignment on: the tensors' numbers, each at its offset

All little-endian. A block stands for 32 numbers of a row: quantized.py says how.
"""

import math
import struct

import numpy as np

from ..quantized import Packed
from ..support.notation import brief
from .atomic import file_bytes

SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, LIST = 8, 9
FLOATS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
BLOCKS = {"Q4_0": np.dtype([("scale", "<f2"), ("codes", "u1", 16)]),
          "Q4_1": np.dtype([("scale", "<f2"), ("shift", "<f2"), ("codes", "u1", 16)]),
          "Q8_0": np.dtype([("scale", "<f2"), ("codes", "i1", 32)])}
NAMES = ("F32 F16 Q4_0 Q4_1 Q4_2 Q4_3 Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S "
         "IQ4_NL IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16")
TYPES = {**dict(enumerate(NAMES.split())), 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4"}


def read(path):
    """({name: array or Packed}, {key: value}) of a GGUF file. The arrays are read-only windows into its bytes, but for
    BF16, which becomes float32. Raises ValueError for a file that is malformed or cut short, and for what is not read.
    """
    raw = file_bytes(path)
    try:
        return _parse(raw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _parse(raw):
    reader = _Reader(raw)
    if raw[:4].tobytes() != b"GGUF":
        raise ValueError(f"not a GGUF file: it begins with {raw[:4].tobytes()}; a model of Transformers goes by the "
                         "name of its folder")
    reader.take(4)
    version = reader.number("<I")
    if version not in (2, 3):
        kind = "big-endian" if version in (2 << 24, 3 << 24) else f"version {version}"
        raise ValueError(f"a GGUF file of {kind}; supported here: versions 2 and 3, little-endian")
    n_tensors, n_keys = reader.number("<Q"), reader.number("<Q")
    metadata = reader.named(n_keys, reader.value)
    align = _alignment(metadata)
    entries = reader.named(n_tensors, reader.tensor)
    start = end = -(-reader.at // align) * align
    tensors = {}
    for name, (shape, kind, offset) in sorted(entries.items(), key=lambda entry: entry[1][2]):
        if start + offset < end or offset % align:
            raise ValueError(f"{brief(name)} begins at byte {offset:,} of the numbers, inside another tensor or at no "
                             f"multiple of {align}")
        end = start + offset + _size(name, shape, kind)
        if end > len(raw):
            raise ValueError(f"{brief(name)} should end at byte {end:,}, the file at {len(raw):,}; was it cut short?")
        tensors[name] = _numbers(raw[start + offset:end], shape, kind)
    return tensors, metadata


class _Reader:
    """Takes one value after the other from the bytes of a file, and none from behind their end."""

    def __init__(self, raw):
        self.raw, self.at = memoryview(raw), 0

    def take(self, n):
        self.at += n
        if self.at > len(self.raw):
            raise ValueError(f"a value of {n:,} bytes should end at byte {self.at:,}, but the file has "
                             f"{len(self.raw):,}; was it cut short?")
        return self.raw[self.at - n:self.at]

    def number(self, code):
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def string(self):
        return str(self.take(self.number("<Q")), "utf-8")

    def value(self):
        kind = self.number("<I")
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind == LIST:
            inner, n = self.number("<I"), self.number("<Q")
            if inner in SCALARS:
                return np.frombuffer(self.take(n * struct.calcsize(SCALARS[inner])), SCALARS[inner]).tolist()
            if inner == STRING:
                return [self.string() for _ in range(n)]
            kind = f"{kind} of type {inner}"
        raise ValueError(f"a value of type {kind}, which is not read")

    def tensor(self):
        """(shape, type, offset) of a tensor."""
        if (axes := self.number("<I")) > 4:
            raise ValueError(f"{axes:,} axes, more than the 4 that there can be")
        shape = tuple(self.number("<Q") for _ in range(axes))[::-1]
        kind, offset = self.number("<I"), self.number("<Q")
        return shape, TYPES.get(kind, f"of type {kind}"), offset

    def named(self, n, value):
        """{name: value()} for n names, none of which may come twice."""
        found = {}
        for i in range(n):
            name = f"entry {i:,} of {n:,}"
            try:
                name = self.string()
                if name in found:
                    raise ValueError("this name comes twice")
                found[name] = value()
            except ValueError as error:
                raise ValueError(f"{brief(name)}: {error}") from None
        return found


def _numbers(raw, shape, kind):
    if kind in FLOATS:
        array = raw.view(FLOATS[kind]).reshape(shape)
        return (array.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else array
    block = raw.view(BLOCKS[kind]).reshape(shape[0], shape[1] // 32)  # (d, k / 32)
    return Packed(block["codes"].transpose(1, 2, 0), block["scale"].T,
                  block["shift"].T if kind == "Q4_1" else None, zero=8 if kind == "Q4_0" else 0)


def _size(name, shape, kind):
    """Bytes of a tensor."""
    if kind in FLOATS:
        return math.prod(shape) * FLOATS[kind].itemsize
    if kind not in BLOCKS:
        raise ValueError(f"{brief(name)} is {kind}; supported here: {', '.join([*FLOATS, *BLOCKS])}")
    if len(shape) != 2 or shape[1] % 32:
        raise ValueError(f"{brief(name)} is {kind} of shape {shape}; expected rows of a multiple of 32 numbers")
    return math.prod(shape) // 32 * BLOCKS[kind].itemsize


def _alignment(metadata):
    parts, align = metadata.get("split.count", 1), metadata.get("general.alignment", 32)
    if parts not in (0, 1):
        raise ValueError(f"one of {parts} files that a model was split into; llama-gguf-split --merge joins them")
    if type(align) is not int or align <= 0 or align % 8:
        raise ValueError(f"general.alignment is {align!r}; expected a multiple of 8")
    return align
