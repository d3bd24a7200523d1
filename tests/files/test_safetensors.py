"""The reader of safetensors: what the official one refuses is refused here, in linear time and in few words."""

import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lora_np.checkpoint import atomic, load_model, safetensors, save_model
from tests.helpers import live, small_gpt

VALID = ('{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},'
         '"b":{"dtype":"F16","shape":[2],"data_offsets":[24,28]}}')
NUMBERS = bytes(range(28))


def file(header, numbers=NUMBERS, length=None):
    """The bytes of a file."""
    header = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return (len(header) if length is None else length).to_bytes(8, "little") + header + numbers


def read(path, raw):
    """What the reader makes of these bytes; None where it refuses them, as it has to."""
    path.write_bytes(raw)
    try:
        return safetensors.read(path)
    except ValueError as error:
        assert str(path) in str(error) and len(str(error)) < len(str(path)) + 300
        return None


def replaced(old, new):
    assert old in VALID
    return file(VALID.replace(old, new, 1))


REFUSED = {
    # texts that are not strict UTF-8
    **{encoding: file(VALID.encode(encoding)) for encoding in (
        "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "utf-8-sig")},
    "an encoded surrogate": replaced('"a"', '"\ud800"'),
    "a pair of encoded surrogates": replaced('"pt"', '"\ud83d\ude00"'),
    "an escaped surrogate in a name": replaced('"a"', '"\\ud800"'),
    "an escaped surrogate in the metadata": replaced('"pt"', '"\\udfff"'),
    "an escaped surrogate as a key of the metadata": replaced('"format"', '"x\\ud800"'),
    "an overlong form": file(VALID.encode().replace(b'"pt"', b'"\xc0\xaf"')),
    "a byte of Latin-1": file(VALID.encode().replace(b'"pt"', b'"\xe9"')),
    "a byte order mark": file("\ufeff" + VALID), "a control character": replaced('"a"', '"\t"'),
    # numbers that are not whole, or not written so
    "-0": replaced("[2,3]", "[-0,3]"), "-0 as an offset": replaced("[0,24]", "[-0,24]"),
    "-1": replaced("[0,24]", "[-1,24]"),
    "3.0": replaced("[2,3]", "[2,3.0]"), "2e0": replaced("[2,3]", "[2e0,3]"), "02": replaced("[2,3]", "[02,3]"),
    "+2": replaced("[2,3]", "[+2,3]"), "NaN": replaced("[2,3]", "[NaN]"), "Infinity": replaced("[2,3]", "[Infinity]"),
    "true": replaced("[2,3]", "[true,6]"), "a text": replaced("[2,3]", '["2",3]'),
    "in a list": replaced("[2,3]", "[[2,3]]"),
    "65 bits": replaced("[2,3]", "[18446744073709551616,0]"),
    "64 bits, squared": replaced("[2,3]", f"[{2 ** 40},{2 ** 40},0]"),
    # JSON of another form
    "a comma at the end": replaced("[2,3]", "[2,3,]"), "a name twice": replaced('"b"', '"a"'),
    "a field twice": replaced('"shape"', '"shape":[2,3],"shape"'), "a field less": replaced('"dtype":"F32",', ""),
    "a field of another name": replaced('"shape"', '"sizes"'), "one size, no list": replaced("[2,3]", "6"),
    "no sizes": replaced("[2,3]", "null"), "one offset": replaced("[0,24]", "[0]"),
    "three": replaced("[0,24]", "[0,24,24]"),
    "offsets by name": replaced("[0,24]", '{"begin":0,"end":24}'), "an unknown type": replaced('"F32"', '"F31"'),
    "a type in small letters": replaced('"F32"', '"f32"'), "a type that is a list": replaced('"F32"', '["F32"]'),
    "metadata that is a list": replaced('{"format":"pt"}', "[]"), "metadata of a number": replaced('"pt"', "1"),
    "metadata of null": replaced('"pt"', "null"), "metadata twice": replaced('"a"', '"__metadata__"'),
    "a list": file("[]", b""), "a number": file("1", b""), "null": file("null", b""), "nothing": file("", b""),
    "a zero byte behind": file(VALID + "\0"), "more behind": file(VALID + "{}"),
    "a space of Unicode": file(VALID + "\u00a0"),
    "a comment": file("/**/" + VALID), "depth": file("[" * 100_000, b""),
    "depth in objects": file('{"a":' * 100_000, b""),
    # offsets that do not fit
    "a gap": replaced("[24,28]", "[25,29]"), "an overlap": replaced("[24,28]", "[20,24]"),
    "a wrong size": replaced('[2],"data', '[3],"data'), "more numbers": file(VALID, NUMBERS + b"1"),
    "fewer numbers": file(VALID, NUMBERS[:-1]), "a length too small": file(VALID, length=len(VALID) - 1),
    "a length too large": file(VALID, length=len(VALID) + 1), "2^63": file(VALID, length=1 << 63),
    "no bytes": b"", "seven bytes": b"\x01\0\0\0\0\0\0",
}
READ = {
    "plain": file(VALID), "an emoji, escaped": replaced('"a"', '"\\ud83d\\ude00"'),
    "spaces": file(f"  {VALID}\n\t \r"),
    "an empty name": replaced('"a"', '""'), "a zero in a name": replaced('"a"', '"\\u0000"'),
    "nothing in it": file("{}", b""),
    "no metadata": replaced('"__metadata__":{"format":"pt"},', ""),
    "metadata null": replaced('{"format":"pt"}', "null"),
    "a scalar": file('{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', bytes(4)),
    "no rows": file('{"a":{"dtype":"F32","shape":[0,4294967296],"data_offsets":[0,0]}}', b""),
}


def sized(sizes, dtype='"F32"', name='"a"'):
    return f'{{{name}:{{"dtype":{dtype},"shape":{sizes},"data_offsets":[0,4]}}}}'


X, ONES, MANY = "x" * 5_000_000, "1" * 5_000_000, range(60_000)
LONG = {  # headers of megabytes that a reader may take minutes over
    "40,000 sizes": sized([1 << 60] * 40_000), "40,000 sizes of 1": sized([1] * 40_000),
    "60,000 names, one twice": "{" + ",".join(sized([0], name=f'"n{i}"')[1:-1] for i in (*MANY, 7)) + "}",
    "one name 60,000 times": "{" + ",".join('"a":0' for _ in MANY) + "}",
    "60,000 numbers in the metadata": '{"__metadata__":{' + ",".join(f'"{i}":0' for i in MANY) + "}}",
    "a long value": f'{{"a":"{X}"}}', "a long name": sized([1, 2], name=f'"{X}"'), "a long type": sized([1], f'"{X}"'),
    "a long shape": sized(f'"{X}"'), "many digits": sized(f"[{ONES}]"), "many decimals": sized(f"[1.{ONES}]"),
    "long garbage": X, "spaces": " " * 5_000_000,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_official_reader_refuses_is_refused(tmp_path, name):
    assert read(tmp_path / "x", REFUSED[name]) is None


@pytest.mark.parametrize("name", READ)
def test_odd_files_that_it_reads_are_read(tmp_path, name):
    assert read(tmp_path / "x", READ[name]) is not None


@pytest.mark.parametrize("name", LONG)
def test_long_headers_are_judged_at_once_and_in_few_words(tmp_path, name):
    assert read(tmp_path / "x", file(LONG[name])) is None


@live("safetensors")
def test_both_lists_are_those_of_the_official_reader():
    import safetensors as official
    for files, accepted in ((REFUSED, False), (READ, True)):
        for name, raw in files.items():
            assert accepts(official, raw) is accepted, name


def accepts(official, raw):
    try:
        official.deserialize(raw)
    except Exception:
        return False
    return True


TOKENS = [*(bytes([c]) for c in b'01-.e"\\{}[],: \n/9\x00\xff'), b"\xed\xa0\x80", b"\\ud800", b"\\u0041", b"null",
          b"true", b"NaN", b"24", b"F32", b"BF16", b'"a"', b'"shape"', str(1 << 64).encode(), b"\xef\xbb\xbf"]


def mutated(rng):
    """The header with one to three random things put in, taken out, put in the place of others or copied."""
    text = bytearray(VALID.encode())
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at, to = rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            text[at:at] = rng.choice(TOKENS)
        elif kind == 1:
            del text[at:at + rng.choice([1, 1, 2, 5])]
        elif kind == 2:
            text[at:at + 1] = rng.choice(TOKENS)
        else:
            text[at:at] = text[to:to + rng.randrange(1, 30)]
    return bytes(text)


def test_random_headers(tmp_path):
    try:
        import safetensors as official
    except ImportError:
        official = None
    rng, found = random.Random(0), 0
    for _ in range(1500):
        raw = file(mutated(rng), NUMBERS if rng.random() < 0.9 else NUMBERS[:rng.randrange(28)])
        result = read(tmp_path / "x", raw)
        if result is not None:
            found += 1
            arrays, metadata = result
            assert sum(a.nbytes for a in arrays.values() if a.dtype != np.float32) <= 28
            assert all(isinstance(text, str) for text in (*arrays, *metadata, *metadata.values()))
            assert official is None or accepts(official, raw), raw
    assert 25 < found < 750


# Small files are copied into memory, large ones stay where they are


def test_a_small_file_may_change_or_go_once_it_is_read(tmp_path):
    save_model(small_gpt(), tmp_path)
    model = load_model(tmp_path)
    before = model.state_dict()
    kept = {name: array.copy() for name, array in before.items()}
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"\xff" * weights.stat().st_size)  # in place, as cp and rsync --inplace do
    os.truncate(weights, 10)
    weights.unlink()
    assert all((before[name] == kept[name]).all() for name in kept)
    assert not any(array.flags.writeable for array in before.values())


def test_a_large_file_is_mapped(tmp_path, monkeypatch):
    with atomic.atomic_write(tmp_path) as create:
        safetensors.write(create("x"), {"a": np.arange(6.0), "b": np.ones(2, np.float32)})
    size = (tmp_path / "x").stat().st_size

    def mapped():
        array = safetensors.read(tmp_path / "x")[0]["a"]
        assert (array == np.arange(6)).all() and not array.flags.writeable
        while isinstance(array.base, np.ndarray):
            array = array.base
        return isinstance(array, np.memmap)

    assert not mapped() and atomic.MAPPED == 64 << 20
    for most, expected in ((size + 1, False), (size, True)):
        monkeypatch.setattr(atomic, "MAPPED", most)
        assert mapped() is expected


def test_a_model_can_be_saved_over_the_one_it_was_loaded_from(tmp_path):
    """Also where a mapped file could not be replaced, as on Windows: nothing of a small file is mapped."""
    save_model(small_gpt(), tmp_path / "a")
    code = ("import sys, mmap; from lora_np.checkpoint import load_model, save_model\n"
            "def none(*a, **k): raise OSError('no mapping here')\n"
            "mmap.mmap = none\n"
            "model = load_model(sys.argv[1]); save_model(model, sys.argv[1])")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=True)
    shutil.rmtree(tmp_path / "a")


def test_a_header_that_is_written_is_read(tmp_path):
    names = ["plain", "größer 数 😀", "\x7f", 'a "quote" \\ and a\nline', ""]
    with atomic.atomic_write(tmp_path) as create:
        arrays = {name: np.full(i, i, np.float32) for i, name in enumerate(names)}
        safetensors.write(create("x"), arrays, {"é": "\u2028"})
    again, metadata = safetensors.read(tmp_path / "x")
    assert list(again) == names and metadata == {"format": "pt", "é": "\u2028"}
    assert all((again[name] == arrays[name]).all() for name in names)
