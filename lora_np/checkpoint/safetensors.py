"""The safetensors format: a file of named arrays and nothing else, so that opening one runs nobody's code.

    8 bytes    n, the length of the header: an unsigned integer, least byte first
    n bytes    the header, JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …},
               and under "__metadata__" strings of one's own; spaces fill it up to a multiple of 8
    the rest   the numbers, row after row, least byte first; the offsets count from here
"""

import json
import math
import os

import numpy as np

DTYPES = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
NAMES = {"float64": "F64", "float32": "F32", "float16": "F16"}
MAX_HEADER_BYTES = 100_000_000  # bytes of header; no honest file comes near


def write(file, arrays, metadata=None):
    """Write {name: array} to an open binary file. metadata: {string: string}."""
    header, end = {"__metadata__": {"format": "pt", **(metadata or {})}}, 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype.name], "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers then begin at a multiple of 8, as processors like them
    file.write(len(text).to_bytes(8, "little") + text)
    for array in arrays.values():
        file.write(np.ascontiguousarray(array, DTYPES[NAMES[array.dtype.name]]))


def read(path):
    """({name: array}, metadata) of a file. The arrays are read-only windows into the file, which the system
    reads when they are used; only bfloat16, which NumPy lacks, is copied, to float32.

    Raises ValueError, saying what is wrong, for a file that is cut short or whose header does not fit it.
    """
    raw = np.memmap(path, np.uint8, "r") if os.path.getsize(path) else np.zeros(0, np.uint8)
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    if len(raw) < 8 or not 8 < start <= min(len(raw), MAX_HEADER_BYTES):
        raise ValueError(f"{path}: not a whole safetensors file: it has {len(raw):,} bytes, and its header "
                         f"should end at byte {start:,}; was it cut short, or is it a placeholder for a large file?")
    try:
        header = json.loads(raw[8:start].tobytes(), object_pairs_hook=_once_each)
        metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError("expected a JSON object, and in its __metadata__ nothing but strings")
        entries = sorted((_entry(name, entry) for name, entry in header.items()), key=lambda entry: entry[3:])
        end = 0
        for name, _, _, begin, stop in entries:
            if begin != end:
                raise ValueError(f"{name!r} begins at byte {begin:,}, but what is before it ends at {end:,}")
            end = stop
        if start + end != len(raw):
            raise ValueError(f"the arrays end at byte {start + end:,}, the file at {len(raw):,}; was it cut short?")
        arrays = {name: raw[start + begin:start + stop].view(np.ndarray).view(DTYPES[dtype]).reshape(shape)
                  for name, dtype, shape, begin, stop in entries}
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path}: bad safetensors header: {error}") from None
    for name, dtype, *_ in entries:
        if dtype == "BF16":  # the upper half of a float32
            arrays[name] = (arrays[name].astype(np.uint32) << 16).view(np.float32)
    return arrays, metadata


def _entry(name, entry):
    """One array's line of the header as (name, dtype, shape, begin, end), checked."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name!r} is described by {entry}; expected dtype, shape and data_offsets")
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in DTYPES:
        raise ValueError(f"{name!r} has dtype {dtype}; expected one of {', '.join(DTYPES)}")
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f"{name!r} has shape {shape} at {[begin, end]}; expected whole numbers from 0")
    if end - begin != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"{name!r} is {dtype} {shape}: {math.prod(shape) * DTYPES[dtype].itemsize:,} bytes; "
                         f"but bytes {begin:,} to {end:,} are {end - begin:,}")
    return name, dtype, tuple(shape), begin, end


def _once_each(pairs):
    """The object of a JSON text, in which no name may come twice."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} comes twice")
    return dict(pairs)
