"""Text to ids and back, one character a token."""

import numpy as np

from .support.checks import as_array, expect

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))  # 96 characters: newline and printable ASCII


class CharTokenizer:
    """One token for each character of an alphabet; the id of a character is its place there."""

    def __init__(self, alphabet=ALPHABET):
        expect("CharTokenizer", alphabet, str, '; the characters go into one text, as in CharTokenizer("abc")')
        if not alphabet or len(set(alphabet)) < len(alphabet):
            raise ValueError("CharTokenizer: the alphabet must hold at least one character, and each only once; "
                             f"got {alphabet[:40]!r}")
        self.alphabet = alphabet
        self._points = np.frombuffer(alphabet.encode("utf-32-le", "surrogatepass"), np.uint32)
        self._order = np.argsort(self._points)

    def __len__(self):
        return len(self.alphabet)

    def encode(self, text):
        """The ids of a text: integers (len(text),). Raises ValueError for a character outside the alphabet."""
        expect("encode", text, str)
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        ids = self._order[np.searchsorted(self._points, points, sorter=self._order).clip(max=len(self) - 1)]
        wrong = np.flatnonzero(self._points[ids] != points)
        if len(wrong):
            raise ValueError(f"encode: character {text[wrong[0]]!r} at position {wrong[0]} is not one of the "
                             f"{len(self)} of this tokenizer; use data.clean(text), or an alphabet of your own")
        return ids

    def decode(self, ids):
        """The text of integers (n,). Raises IndexError for an id outside the alphabet."""
        ids = as_array("decode", ids, copy=None).ravel()
        if ids.size and ids.dtype.kind not in "iu":
            raise TypeError(f"decode: expected integers, got {ids.dtype}")
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self):
            raise IndexError(f"decode: ids must be in 0 .. {len(self) - 1}, got {ids.min()} to {ids.max()}")
        return "".join(self.alphabet[i] for i in ids)
