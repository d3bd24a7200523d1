"""The corpora, the tokenizer, the batches and the toy task."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from lora_np import data

pytestmark = pytest.mark.filterwarnings("error")
IDS = np.arange(100, 120)


def test_english_is_there_without_a_download():
    text = data.english()
    assert 400_000 < len(text) < 700_000 and set(text) <= set(data.ALPHABET) and text == data.english()
    assert text.count(" the ") > 3000


def test_python_source_is_there_without_a_download():
    text = data.python_source()
    assert len(text) > 1_000_000 and set(text) <= set(data.ALPHABET) and text == data.python_source()
    assert text.count("def ") > 3000


def test_the_corpora_are_the_same_on_every_machine():
    for text, length, digest in ((data.english(), 465_048, "5782935fa9368285"),
                                 (data.python_source(), 3_000_000, "a6894115516dbfdd")):
        assert len(text) == length and hashlib.sha256(text.encode()).hexdigest().startswith(digest)
    files = [*(Path(data.__file__).parent / "corpora").iterdir()]
    assert sum(file.stat().st_size for file in files) < 900_000 and "LICENSE.txt" in [file.name for file in files]


def test_text_of_ones_own(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes("a\tb\r\né — \x00\u3042".encode() + b"\xff")
    assert data.clean(data.read(path)) == "a   b\n? ? ???"
    with pytest.raises(FileNotFoundError):
        data.read(tmp_path / "absent.txt")


def test_the_alphabet():
    assert len(data.ALPHABET) == len(set(data.ALPHABET)) == 96 and data.clean(data.ALPHABET) == data.ALPHABET


@pytest.mark.parametrize("alphabet", [data.ALPHABET, "ba\n", "x", "aé€\U0001f600"])
def test_encode_and_decode_are_inverse(alphabet):
    tokenizer = data.CharTokenizer(alphabet)
    assert len(tokenizer) == len(alphabet)
    ids = tokenizer.encode(alphabet)
    assert ids.tolist() == list(range(len(alphabet))) and ids.dtype.kind == "i"
    text = "".join(np.random.default_rng(0).choice(list(alphabet), 500))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(text).tolist()) == text
    assert tokenizer.encode("").shape == (0,) and tokenizer.decode([]) == ""


@pytest.mark.parametrize(("text", "character", "position"), [
    ("aé", "é", 1), ("\x7f", r"\\x7f", 0), ("ab\tc", r"\\t", 2), ("\ud800", r"\\ud800", 0),
    ("a\U0001f600", "\U0001f600", 1),
])
def test_a_character_outside_the_alphabet_is_named(text, character, position):
    with pytest.raises(ValueError, match=rf"encode: character '{character}' at position {position}.*data\.clean"):
        data.CharTokenizer().encode(text)


@pytest.mark.parametrize(("function", "error", "words"), [
    (lambda: data.CharTokenizer(""), ValueError, "at least one character"),
    (lambda: data.CharTokenizer("abca"), ValueError, "each only once; got 'abca'"),
    (lambda: data.CharTokenizer("ab").decode([2]), IndexError, "decode: no token has the id 2; ids go from 0 to 1"),
    (lambda: data.CharTokenizer("ab").decode([-1, 0]), IndexError, "no token has the id -1"),
    (lambda: data.CharTokenizer("ab").decode([1.0]), TypeError, "decode: expected integers, got float64"),
    (lambda: data.split(IDS, 1.5), ValueError, r"split: fraction must be in \[0, 1\], got 1\.5"),
    (lambda: data.split(IDS, -0.1), ValueError, "split: fraction"),
    (lambda: next(data.batches(IDS[:5], 2, 5)), ValueError, "5 tokens are too few for windows of 5"),
    (lambda: data.windows(IDS[:5], 2, 5), ValueError, "use a longer text or a smaller context"),
    (lambda: next(data.batches("some text", 2, 5)), TypeError, r"expected ids.*CharTokenizer\(\)\.encode\(text\)"),
    (lambda: data.windows(IDS.astype(float), 2, 5), TypeError, r"expected ids.*float64 \(20,\)"),
    (lambda: data.windows(IDS[None], 2, 5), TypeError, r"got int64 \(1, 20\)"),
])
def test_errors(function, error, words):
    with pytest.raises(error, match=words):
        function()


def test_split_holds_out_the_end():
    train, validation = data.split(IDS, 0.25)
    assert train.tolist() == IDS[:15].tolist() and validation.tolist() == IDS[15:].tolist()
    assert [len(part) for part in data.split(IDS)] == [18, 2]
    assert [len(part) for part in data.split(IDS, 0)] == [20, 0]


def test_batches_come_from_a_seed_and_y_is_the_next_token():
    stream = data.batches(IDS, 64, 4, seed=3)
    x, y = next(stream)
    assert x.shape == y.shape == (64, 4)
    assert (y == x + 1).all() and (x[:, 1:] == y[:, :-1]).all()
    assert set(x[:, 0]) == set(range(100, 116)) and y.max() == 119  # every place, up to the last
    again = data.batches(IDS, 64, 4, seed=3)
    assert np.array_equal(next(again)[0], x) and not np.array_equal(next(again)[0], x)
    assert not np.array_equal(next(data.batches(IDS, 64, 4, seed=4))[0], x)
    assert next(data.batches(IDS.tolist(), 2, 19))[0].tolist() == [IDS[:19].tolist()] * 2


def test_windows_are_even_and_the_same():
    x, y = data.windows(IDS, 4, 4)
    assert x[:, 0].tolist() == [100, 105, 110, 115] and (y == x + 1).all()
    assert np.array_equal(x, data.windows(IDS, 4, 4)[0])


@pytest.mark.parametrize("descending", [False, True])
def test_sorting_asks_for_its_own_answer(descending):
    x, y = next(data.sorting(50, seed=1, descending=descending))
    assert x.shape == (50, data.SORT_CONTEXT) and y.shape == (50, data.SORT_DIGITS)
    assert (x[:, 8] == 10).all() and x.max() < data.SORT_VOCABULARY and (x[:, :8] < 10).all()
    assert y.tolist() == [sorted(row, reverse=descending) for row in x[:, :8].tolist()]
    assert np.array_equal(x[:, 9:], y[:, :-1])
    assert np.array_equal(x, next(data.sorting(50, seed=1, descending=descending))[0])
