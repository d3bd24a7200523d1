"""The safetensors format: a file of named arrays and nothing else, so that opening one runs nobody's code.

    8 bytes    n, the length of the header: an unsigned integer, little-endian
    n bytes    the header, JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …},
               and under "__metadata__" strings of one's own; spaces fill it up to a multiple of 8
    the rest   the numbers, row after row, little-endian; the offsets count from here
"""

import json

import numpy as np

from ..support.notation import brief
from .atomic import file_bytes

DTYPES = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
NAMES = {"float64": "F64", "float32": "F32", "float16": "F16"}
MAX_HEADER_BYTES = 100_000_000  # no honest file comes near


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
    """({name: array}, metadata) of a file. The arrays are read-only; a file of 64 MB or more stays where it is and is
    read as they are used, so it must not change meanwhile. Only bfloat16, which NumPy lacks, is copied, to float32.

    Raises ValueError, saying what is wrong, for a file that is cut short or whose header does not fit it.
    """
    raw = file_bytes(path)
    start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
    if len(raw) < 8 or not 8 < start <= min(len(raw), MAX_HEADER_BYTES):
        raise ValueError(f"{path}: not a whole safetensors file: it has {len(raw):,} bytes, and its header "
                         f"should end at byte {start:,}; was it cut short, or is it another kind of file?")
    try:
        header = json.loads(raw[8:start].tobytes().decode(), object_pairs_hook=_object, parse_int=_whole,
                            parse_float=_whole, parse_constant=_whole)
        metadata = header.pop("__metadata__", None) if isinstance(header, dict) else header
        metadata = {} if metadata is None else metadata
        if not (isinstance(header, dict) and isinstance(metadata, dict)
                and all(isinstance(text, str) for text in metadata.values())):
            raise ValueError("expected a JSON object, and in its __metadata__ nothing but strings")
        entries = sorted((_entry(name, entry) for name, entry in header.items()), key=lambda entry: entry[3:])
        end = 0
        for name, _, _, begin, stop in entries:
            if begin != end:
                raise ValueError(f"{brief(name)} begins at byte {begin:,}, but what is before it ends at {end:,}")
            end = stop
        if start + end != len(raw):
            raise ValueError(f"the arrays end at byte {start + end:,}, the file at {len(raw):,}; was it cut short?")
        arrays = {name: raw[start + begin:start + stop].view(DTYPES[dtype]).reshape(shape)
                  for name, dtype, shape, begin, stop in entries}
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: bad safetensors header: {error}") from None
    for name, dtype, *_ in entries:
        if dtype == "BF16":  # the upper half of a float32
            arrays[name] = (arrays[name].astype(np.uint32) << 16).view(np.float32)
    return arrays, metadata


# Whatever a header holds, it is judged in time that grows with its length alone, and in few words.

def _entry(name, entry):
    """One array's line of the header as (name, dtype, shape, begin, end), checked."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{brief(name)} is described by {brief(entry)}; expected dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{brief(name)} has dtype {brief(dtype)}; expected one of {', '.join(DTYPES)}")
    if not all(isinstance(part, list) and all(type(n) is int for n in part) for part in (shape, offsets)) or \
            len(offsets) != 2:
        raise ValueError(f"{brief(name)} has shape {brief(shape)} at {brief(offsets)}; expected whole numbers from 0")
    (begin, end), count = offsets, 1
    for n in shape:
        count *= n
        if count >= 1 << 64:
            raise ValueError(f"{brief(name)} has shape {brief(shape)}, more than 64 bits can count")
    size = count * DTYPES[dtype].itemsize
    if end - begin != size:
        raise ValueError(f"{brief(name)} is {dtype} {brief(shape)}: {size:,} bytes; but bytes {begin:,} to {end:,} are "
                         f"{end - begin:,}")
    return name, dtype, tuple(shape), begin, end


def _object(pairs):
    """The object of a JSON text, in which no name may come twice, and every text is one in Unicode."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"{brief(twice)} comes twice")
    for pair in pairs:
        for text in pair:
            if isinstance(text, str):
                text.encode()
    return found


def _whole(text):
    """The number of a JSON text: whole, not negative, and of 64 bits at most."""
    if not text.isdigit() or len(text) > 20 or int(text) >= 1 << 64:
        raise ValueError(f"{brief(text)} is there, where only whole numbers from 0 can be")
    return int(text)
