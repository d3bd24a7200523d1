"""Text to ids and back: one character a token, or byte-level byte-pair encoding (BPE)."""

import codecs
import re
import unicodedata
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import pairwise

import numpy as np

from .support.checks import as_array, expect
from .support.notation import brief
from .support.patterns import compile_pattern
from .support.token_ids import noted

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))  # 96 characters: newline and printable ASCII

# The patterns that cut a text into pieces, one after the other, before BPE merges the bytes of each.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPLITS = {"gpt2": (GPT2,), "smollm": (r"\p{N}", GPT2), "llama3": (LLAMA3,), "qwen2": (LLAMA3.replace("{1,3}", ""),)}

# One printable character for each byte: those of Latin-1 that print stand for themselves, 256, 257, ... for the others.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
CHARACTER = {byte: chr(byte) for byte in PRINTABLE}
CHARACTER |= {byte: chr(256 + i) for i, byte in enumerate(sorted({*range(256)} - {*PRINTABLE}))}
BYTE = {character: byte for byte, character in CHARACTER.items()}
CONTROL = ("<|im_start|>", "<|im_end|>")  # of ChatML: special tokens even where a file calls them merely added


class CharTokenizer:
    """One token for each character of an alphabet; the id of a character is its place there."""

    kind = "char"
    special, eos_ids, prefix, suffix, files = {}, (), (), (), {}  # it has no special tokens
    bos_id = eos_id = pad_id = chat_template = None

    def __init__(self, alphabet=ALPHABET):
        expect("CharTokenizer", alphabet, str, '; the characters go into one text, as in CharTokenizer("abc")')
        if not alphabet or len(set(alphabet)) < len(alphabet):
            raise ValueError("CharTokenizer: the alphabet must hold at least one character, and each only once; "
                             f"got {brief(alphabet)}")
        self.alphabet, self.tokens = alphabet, dict(enumerate(alphabet))
        self._points = np.frombuffer(alphabet.encode("utf-32-le", "surrogatepass"), np.uint32)
        self._order = np.argsort(self._points)

    def __len__(self):
        return len(self.alphabet)

    def encode(self, text, special=True, add_special_tokens=False):
        """The ids of a text: integers (len(text),). Raises ValueError for a character outside the alphabet."""
        expect("encode", text, str)
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        ids = self._order[np.searchsorted(self._points, points, sorter=self._order).clip(max=len(self) - 1)]
        wrong = np.flatnonzero(self._points[ids] != points)
        if len(wrong):
            raise ValueError(f"encode: character {text[wrong[0]]!r} at position {wrong[0]} is not one of the "
                             f"{len(self)} of this tokenizer; use data.clean(text), or an alphabet of your own")
        return noted("char", ids)

    def decode(self, ids, skip_special=False):
        """The text of integers (n,). Raises IndexError for an id outside the alphabet."""
        return "".join(self.tokens[i] for i in _checked_ids(ids, self.tokens))

    def decode_stream(self, ids, skip_special=False):
        """Yield the text of ids as they come."""
        return map(self.decode, ([i] for i in ids))


class BPETokenizer:
    """Byte-level BPE, the tokenizer of GPT-2, OPT, SmolLM2, Qwen2 and Llama 3.

    Patterns cut a text into pieces. The bytes of a piece are its first parts; then, of all neighbours, the two that
    stand first in the list of merges are joined to one part, until no neighbours are in the list. Each part has an id.
    So any text can be written, and decode gives it back byte for byte.
    Source: Sennrich, Haddow & Birch 2016, section 3.2; on bytes: Radford et al. 2019, section 2.2.

    vocab: {part: id}. merges: "left right" or (left, right), the first to be joined first. split: one of SPLITS, or
    patterns. special: {text: id} of control tokens, which encode reads as such or not, by choice; added: of other texts
    that are always one token. normalize: the form of Unicode that a text is brought to, such as "NFC". ignore_merges:
    a piece that is in the vocabulary stays whole. unknown: the token for a byte that has none; by default such a byte
    is left out, as the tokenizers library does (SmolLM2 has none for some control characters). bos_id, pad_id, eos_ids
    (each ends a text; the first is the one to write): where there are any. prefix, suffix: what add_special_tokens puts
    around a text. files: {name: bytes} that it was read from. Raises ValueError for tables that do not fit together.
    """

    kind = "bpe"

    def __init__(self, vocab, merges, split="gpt2", special=(), added=(), normalize=None, ignore_merges=False,
                 unknown=None, bos_id=None, eos_ids=(), pad_id=None, prefix=(), suffix=(), chat_template=None,
                 files=()):
        self.special, self.added, self.files = dict(special), dict(added), dict(files)
        self.split, self.normalize, self.ignore_merges, self.unknown = split, normalize, ignore_merges, unknown
        self.bos_id, self.eos_ids, self.pad_id = bos_id, tuple(eos_ids), pad_id
        self.prefix, self.suffix, self.chat_template = tuple(prefix), tuple(suffix), chat_template
        control = {bos_id, pad_id, *eos_ids, *prefix, *suffix}
        for token in [t for t, i in self.added.items() if i in control or t in CONTROL]:
            self.special[token] = self.added.pop(token)
        whole = {**self.added, **self.special}
        self.vocab = {part: i for part, i in vocab.items() if part not in whole}
        self.ids = {**self.vocab, **whole}
        self.tokens = {i: token for token, i in self.ids.items()}
        _check_tables(self, vocab, control - {None})
        self.ranks = _ranks(merges, self.ids, self.special)
        self.patterns = SPLITS[split] if isinstance(split, str) else split
        self._size, self._cache = 1 + max(self.tokens, default=-1), {}

    @property
    def eos_id(self):
        return self.eos_ids[0] if self.eos_ids else None

    def __len__(self):
        return self._size

    def encode(self, text, special=True, add_special_tokens=False):
        """The ids of a text, integers (n,). special: whether control tokens in it are read as such, or as text."""
        expect("encode", text, str)
        if half := re.search("[\ud800-\udfff]", text):
            raise ValueError(f"encode: {half[0]!r} at position {half.start()} is half a surrogate pair")
        whole = {**self.added, **self.special} if special else self.added
        ids = []
        for part in _any_of(tuple(whole)).split(text):
            if part in whole:
                ids.append(whole[part])
                continue
            for piece in self._pieces(part):
                ids += self._cache.get(piece) or self._piece_ids(piece)
        return noted("bpe", [*self.prefix, *ids, *self.suffix] if add_special_tokens else ids)

    def _pieces(self, text):
        pieces = [unicodedata.normalize(self.normalize, text) if self.normalize else text]
        for pattern in map(compile_pattern, self.patterns):
            pieces = [part for piece in pieces for part in pattern.split(piece) if part]
        return pieces

    def _piece_ids(self, piece):
        word = "".join([CHARACTER[byte] for byte in piece.encode()])
        if self.ignore_merges and word in self.vocab:
            ids = [self.vocab[word]]
        else:
            parts = (character if character in self.ids else self.unknown for character in word)
            ids = [self.ids[part] for part in self._merged([part for part in parts if part is not None])]
        if len(self._cache) < 100_000:
            self._cache[piece] = ids
        return ids

    def _merged(self, parts):
        """Join the neighbours of the lowest rank, the leftmost of several; a heap makes it O(n log n) for n parts."""
        before, after = list(range(-1, len(parts) - 1)), list(range(1, len(parts) + 1))
        heap = [(self.ranks[pair], i, pair) for i, pair in enumerate(pairwise(parts)) if pair in self.ranks]
        heapify(heap)
        while heap:
            _, i, (left, right) = heappop(heap)
            j = after[i]
            if parts[i] != left or j == len(parts) or parts[j] != right:
                continue  # one of the two has been joined to another part
            parts[i], parts[j], after[i] = left + right, None, after[j]
            if after[i] < len(parts):
                before[after[i]] = i
            for a, b in ((before[i], i), (i, after[i])):
                if a >= 0 and b < len(parts) and (pair := (parts[a], parts[b])) in self.ranks:
                    heappush(heap, (self.ranks[pair], a, pair))
        return [part for part in parts if part]

    def decode(self, ids, skip_special=False):
        """The text of integers (n,), U+FFFD for bytes that are none. Raises IndexError for an id without a token."""
        return self.decode_bytes(ids, skip_special).decode(errors="replace")

    def decode_bytes(self, ids, skip_special=False):
        """The bytes of integers (n,), those of special tokens included unless they are to be skipped."""
        tokens = [self.tokens[i] for i in _checked_ids(ids, self.tokens)]
        return b"".join([bytes([BYTE[c] for c in token]) if token in self.vocab else token.encode()
                         for token in tokens if not (skip_special and token in self.special)])

    def decode_stream(self, ids, skip_special=False):
        """Yield the text of ids as they come; the bytes of a character are held back until it is whole."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for i in ids:
            yield decoder.decode(self.decode_bytes([i], skip_special))
        yield decoder.decode(b"", final=True)


@lru_cache(16)
def _any_of(texts):
    """A pattern that finds each of the texts, of several at one place the longest."""
    return re.compile(f"({'|'.join(map(re.escape, sorted(texts, key=len, reverse=True)))})" if texts else "(?!)")


def _ranks(merges, ids, special):
    """{(left, right): rank}, without those that would write a control token."""
    ranks = {}
    for rank, merge in enumerate(merges):
        pair = tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge)
        if len(pair) != 2 or pair[0] not in ids or pair[1] not in ids or pair[0] + pair[1] not in ids:
            raise ValueError(f"BPETokenizer: merge {rank} is {merge!r}; it should be two parts of the vocabulary that "
                             "make a third")
        ranks[pair] = rank
    return {pair: rank for pair, rank in ranks.items() if pair[0] + pair[1] not in special} if special else ranks


def _check_tables(tokenizer, vocab, control):
    """Raise ValueError for what is not a byte-level vocabulary with one id for each token."""
    tokens, split = tokenizer.tokens, tokenizer.split
    for token, i in tokenizer.ids.items():
        if not isinstance(token, str) or not token or not isinstance(i, (int, np.integer)) or i < 0:
            raise ValueError(f"BPETokenizer: a token must be a text with an id from 0, got {token!r} with {i!r}")
        if tokens[i] != token:
            raise ValueError(f"BPETokenizer: {token!r} has the id {i}, but so has {tokens[i]!r}")
        if vocab.get(token, i) != i:
            raise ValueError(f"BPETokenizer: {token!r} has two ids, {vocab[token]} and {i}")
    if strange := sorted(set().union(*tokenizer.vocab) - BYTE.keys()):
        raise ValueError(f"BPETokenizer: {strange[0]!r} in the vocabulary stands for no byte; is this BPE without "
                         "ByteLevel, as of Llama 2?")
    if absent := control - tokens.keys():
        raise ValueError(f"BPETokenizer: {min(absent)} is to begin, end or fill a text, but no token has this id")
    if isinstance(split, str) and split not in SPLITS:
        raise ValueError(f"BPETokenizer: split must be one of {', '.join(SPLITS)}, or patterns; got {split!r}")


def _checked_ids(ids, tokens):
    """Ids as a list. Raises TypeError for other than integers, IndexError for ids that no token has."""
    ids = as_array("decode", ids, copy=None).ravel()
    if ids.size and ids.dtype.kind not in "iu":
        raise TypeError(f"decode: expected integers, got {ids.dtype}")
    ids = ids.tolist()
    if absent := [i for i in ids if i not in tokens]:
        raise IndexError(f"decode: no token has the id {absent[0]}; ids go from 0 to {max(tokens, default=0)}")
    return ids
