"""Two corpora of real text, batches of them, and a toy task whose answers can be checked."""

from functools import cache
from pathlib import Path

import numpy as np

from .support.checks import as_array, check_int, check_number, expect
from .support.token_ids import check_tokenizer
from .tokenizer import ALPHABET, CharTokenizer  # noqa: F401 - importable from here, too


def english() -> str:
    """Python's own language reference as its help() shows it: 465,048 characters of English."""
    return _corpus("english")


def python_source() -> str:
    """The first 3,000,000 characters of Python's standard library, its top-level modules in order of name."""
    return _corpus("python")


@cache
def _corpus(name):
    """A text of corpora/, both of Python 3.11.7 (corpora/LICENSE.txt) as clean leaves it: the same on every machine."""
    import lzma  # not every Python has it, and nothing else here needs it
    return lzma.decompress((Path(__file__).parent / "corpora" / f"{name}.txt.xz").read_bytes()).decode()


def read(path):
    """The text of a file of your own, UTF-8, to take the place of either corpus: clean(read(path))."""
    return Path(path).read_text(encoding="utf-8", errors="replace")


def clean(text):
    """The text within ALPHABET: tabs become spaces, and any other character outside it a question mark."""
    expect("clean", text, str)
    text = text.replace("\r\n", "\n").expandtabs(4)
    table = {ord(c): "?" for c in set(text) - set(ALPHABET)}
    return text.translate(table)


def split(ids, fraction=0.1):
    """(train, validation): the last fraction of the ids is held out."""
    ids = as_array("split", ids, copy=None)
    if not ids.ndim:
        raise TypeError(f"split: expected ids, integers of shape (n,), got {ids.dtype} {ids.shape}")
    check_number("split", fraction=fraction)
    if fraction > 1:
        raise ValueError(f"split: fraction must be in [0, 1], got {fraction}")
    cut = int(len(ids) * (1 - fraction))
    return ids[:cut], ids[cut:]


def batches(ids, batch, context, seed=0, model=None):
    """An endless stream of (x, y), each (batch, context), from random places; y is x moved on by one.

    model: the one to be trained; ids that cannot be meant for it raise ValueError.
    """
    ids = _checked(ids, context)
    if model is not None:
        check_tokenizer(model, ids)
    check_int("batches", batch=batch)
    check_int("batches", least=0, seed=seed)
    rng, offsets = np.random.default_rng(seed), np.arange(context)

    def stream():
        while True:
            at = rng.integers(0, len(ids) - context, (batch, 1)) + offsets
            yield ids[at], ids[at + 1]

    return stream()


def windows(ids, n, context):
    """n evenly spaced (x, y) windows as one batch (n, context): the same ones each time, to validate on."""
    ids = _checked(ids, context)
    check_int("windows", n=n)
    at = np.linspace(0, len(ids) - context - 1, n).astype(int)[:, None] + np.arange(context)
    return ids[at], ids[at + 1]


def count_targets(x, y):
    """How many targets of a batch (x, y) count: of integers all but those that are -100; where y is not an array of
    numbers, as many as x has rows."""
    y = np.asarray(y)
    if y.dtype.kind not in "fiub":
        return len(x)
    return y.size if y.dtype.kind == "f" else int(np.count_nonzero(y != -100))


def _checked(ids, context):
    check_int("data", context=context)
    ids = as_array("data", ids, copy=None)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise TypeError(f"data: expected ids, integers of shape (n,), got {ids.dtype} {ids.shape}; "
                        "a text becomes ids with CharTokenizer().encode(text)")
    if len(ids) <= context:
        raise ValueError(f"data: {len(ids)} tokens are too few for windows of {context} and the token after; "
                         "use a longer text or a smaller context")
    return ids


SORT_DIGITS, SORT_VOCABULARY, SORT_CONTEXT = 8, 11, 16  # the digits 0 to 9, and 10 for "now sort"


def sorting(batch, seed=0, descending=False):
    """An endless stream of (x, y): eight digits, the mark 10, and the digits in order, to be completed.

    x: (batch, 16), the digits, the mark and the first seven of the answer. y: (batch, 8), the answer: it
    is to be predicted at the last eight positions of x.
    """
    check_int("sorting", batch=batch)
    check_int("sorting", least=0, seed=seed)
    rng = np.random.default_rng(seed)

    def stream():
        while True:
            digits = rng.integers(0, 10, (batch, SORT_DIGITS))
            answer = np.sort(digits, axis=1)[:, ::-1 if descending else 1]
            x = np.concatenate([digits, np.full((batch, 1), 10), answer[:, :-1]], axis=1)
            yield x, answer

    return stream()


def __getattr__(name):
    if name != "completions":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .extras.tuning.rows import completions  # which nothing else here needs, and which takes a while to load
    return completions
