"""Byte-level BPE on tables small enough to follow, its patterns, and whose ids a model takes."""

import copy
import re
import unicodedata
from itertools import pairwise

import numpy as np
import pytest

from lora_np import data
from lora_np.support.patterns import SETS, compile_pattern
from lora_np.support.token_ids import check_tokenizer
from lora_np.tokenizer import BYTE, CHARACTER, SPLITS, BPETokenizer, CharTokenizer
from tests.helpers import small_gpt
from tests.texts import texts

pytestmark = pytest.mark.filterwarnings("error")
BYTES = {character: byte for byte, character in CHARACTER.items()}  # ids 0 to 255


def bpe(*merges, **options):
    """A tokenizer whose ids are the 256 bytes, then the merges in their order."""
    joined = {merge.replace(" ", ""): 256 + i for i, merge in enumerate(merges)}
    return BPETokenizer({**BYTES, **joined}, merges, **options)


def parts(tokenizer, text, **options):
    return [tokenizer.decode([i]) for i in tokenizer.encode(text, **options)]


def slowly_merged(ranks, text):
    """The definition: look for the pair of lowest rank, the leftmost of several, and join it, until there is none."""
    found = [CHARACTER[byte] for byte in text.encode()]
    while pairs := [(ranks[pair], i) for i, pair in enumerate(pairwise(found)) if pair in ranks]:
        i = min(pairs)[1]
        found[i:i + 2] = [found[i] + found[i + 1]]
    return found


@pytest.mark.parametrize(("merges", "text", "expected"), [
    (["l o", "lo w", "e r", "low er"], "lower low slow", ["lower", " ", "low", " ", "s", "low"]),
    (["b c", "a b"], "abc", ["a", "bc"]),
    (["a b", "b c"], "abc", ["ab", "c"]),
    (["a a"], "aaaaa", ["aa", "aa", "a"]),
    (["b c", "abc a", "a bc"], "abcabc", ["abca", "bc"]),  # one at a time: the second abc is never made
    (["h e"], "h e", ["h", " ", "e"]),  # never across pieces
    ([], "é", ["\ufffd", "\ufffd"]),
    (["Ã ©"], "é", ["é"]),
])
def test_pairs_are_joined_by_rank_the_leftmost_first(merges, text, expected):
    assert parts(bpe(*merges), text) == expected


def test_merging_is_its_definition_on_random_tables():
    rng = np.random.default_rng(0)
    for _ in range(200):
        known = list("abc")
        for _ in range(rng.integers(1, 12)):
            left, right = rng.choice(known, 2)
            known.append(left + right)
        vocab = {**BYTES, **{part: 1000 + i for i, part in enumerate(known) if len(part) > 1}}
        merges = [(part[:cut], part[cut:]) for part in dict.fromkeys(known) for cut in range(1, len(part))
                  if part[:cut] in vocab and part[cut:] in vocab]
        rng.shuffle(merges)  # in an order that no training would give
        tokenizer = BPETokenizer(vocab, merges)
        for text in ("".join(rng.choice(list("abc"), n)) for n in rng.integers(1, 40, 5)):
            expected = slowly_merged(tokenizer.ranks, text)
            assert tokenizer.encode(text).tolist() == [vocab[part] for part in expected], (merges, text)


def test_a_piece_of_any_length():
    tokenizer = bpe("a a", "aa aa")
    assert np.bincount(tokenizer.encode("a" * 50_003)).tolist()[256:] == [1, 12_500]
    assert tokenizer.decode(tokenizer.encode("a" * 50_003)) == "a" * 50_003


def test_every_byte_has_a_printable_character():
    assert sorted(BYTE.values()) == list(range(256)) and all(c.isprintable() and not c.isspace() for c in BYTE)
    assert CHARACTER[ord("A")] == "A" and CHARACTER[ord(" ")] == "Ġ" and CHARACTER[ord("\n")] == "Ċ"
    assert bpe().decode_bytes(range(256)) == bytes(range(256))


@pytest.mark.parametrize("split", SPLITS)
def test_texts_come_back(split):
    tokenizer = bpe("t h", "th e", "Ġ the", "Ã ©", split=split)
    for text in texts(300, seed=3):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == "".join(tokenizer.decode_stream(ids)) == text
        assert tokenizer.decode_bytes(ids) == text.encode()
    assert tokenizer.encode("").shape == (0,) and tokenizer.encode("").dtype.kind == "i" and tokenizer.decode([]) == ""


@pytest.mark.parametrize(("split", "text", "pieces"), [
    ("gpt2", "I'll pay  3000 €!\n\n x", ["I", "'ll", " pay", " ", " 3000", " €!", "\n\n", " x"]),
    ("gpt2", "WE'LL a\x1cb", ["WE", "'", "LL", " a", "\x1c", "b"]),  # U+001C is no white space to the library
    ("smollm", "x 3000 ½", ["x", " ", "3", "0", "0", "0", " ", "½"]),
    ("qwen2", "WE'LL\u00a0do 120\r\n\r\nok", ["WE", "'LL", "\u00a0do", " ", "1", "2", "0", "\r\n\r\n", "ok"]),
    ("llama3", "in 12345 (x)\n", ["in", " ", "123", "45", " (", "x", ")\n"]),
    ((r"\d+", r"[^\S\n]+"), "ab 12\n c", ["ab", " ", "12", "\n", " ", "c"]),
    ((), "ab 12", ["ab 12"]),
])
def test_pieces(split, text, pieces):
    tokenizer = bpe(split=split)
    assert tokenizer._pieces(text) == pieces


def test_special_tokens_by_choice():
    tokenizer = bpe("e n", special={"<|end|>": 300, "<|end|>>": 301}, added={"<think>": 302}, eos_ids=[300])
    assert parts(tokenizer, "a<|end|>>b<|end|><think>") == ["a", "<|end|>>", "b", "<|end|>", "<think>"]
    plain = tokenizer.encode("<|end|><think>", special=False).tolist()
    assert plain[-1] == 302 and not {300, 301} & {*plain} and tokenizer.decode(plain) == "<|end|><think>"
    assert tokenizer.encode("en<|end|>").tolist() == [256, 300]
    assert tokenizer.decode([300, 97, 302], skip_special=True) == "a<think>"
    assert len(tokenizer) == 303 and tokenizer.eos_id == 300 and tokenizer.bos_id is None


def test_no_merge_writes_a_special_token():
    tokenizer = BPETokenizer({**BYTES, "EO": 256, "EOS": 257}, ["E O", "EO S"], special={"EOS": 257})
    assert tokenizer.encode("EOS").tolist() == [257]
    assert tokenizer.encode("EOS", special=False).tolist() == [256, ord("S")]
    whole = BPETokenizer({**BYTES, "EOS": 257}, [], special={"EOS": 257}, ignore_merges=True)
    assert whole.encode("EOS", special=False).tolist() == [ord(c) for c in "EOS"]


def test_what_ends_a_text_is_special_even_where_it_is_called_added():
    tokenizer = bpe(added={"</s>": 300, "<|im_start|>": 301, "<x>": 302}, eos_ids=[300], split="smollm")
    assert tokenizer.special == {"</s>": 300, "<|im_start|>": 301} and tokenizer.added == {"<x>": 302}
    assert not {300, 301} & {*tokenizer.encode("</s><|im_start|>", special=False).tolist()}


def test_ids_are_put_around_only_on_request():
    tokenizer = bpe(special={"<s>": 300, "</s>": 301}, prefix=[300], suffix=[301], bos_id=300)
    assert tokenizer.encode("a").tolist() == [97]
    assert tokenizer.encode("a", add_special_tokens=True).tolist() == [300, 97, 301]


def test_bytes_without_an_id_are_left_out_or_unknown():
    few = {character: i for character, i in BYTES.items() if i not in (4, 0xE9)}
    assert parts(BPETokenizer({**few, "ab": 256}, ["a b"], split=()), "xa\x04b") == ["x", "ab"]
    unknown = BPETokenizer({**few, "<unk>": 256}, [], unknown="<unk>", special={"<unk>": 256})
    assert unknown.encode("a\x04b", special=False).tolist() == [97, 256, 98]


def test_a_whole_piece_is_not_merged_where_merges_are_ignored():
    vocab, merges = {**BYTES, "ab": 256, "abc": 257}, ["a b"]
    assert BPETokenizer(vocab, merges).encode("abc").tolist() == [256, 99]
    assert BPETokenizer(vocab, merges, ignore_merges=True).encode("abc").tolist() == [257]
    assert BPETokenizer(vocab, merges, ignore_merges=True).encode("abcd").tolist() == [256, 99, 100]


def test_normalization_is_the_tokenizers_own():
    assert bpe().decode(bpe().encode("e\u0301")) == "e\u0301"
    composed = bpe(normalize="NFC", special={"<|end|>": 300})
    assert composed.decode(composed.encode("e\u0301<|end|>A\u030a")) == "é<|end|>Å"


def test_streams_hold_bytes_back_until_a_character_is_whole():
    text = "a€😀"
    ids = bpe().encode(text)
    assert [*bpe().decode_stream(ids)] == ["a", "", "", "€", "", "", "", "😀", ""]
    assert "".join(bpe().decode_stream(ids[:-1])) == "a€\ufffd" == bpe().decode(ids[:-1])
    assert "".join(bpe().decode_stream([0xE2, 97, 0xFF])) == "\ufffda\ufffd"
    stream = bpe().decode_stream(iter([97, 98]))
    assert next(stream) == "a"  # without waiting for what comes after
    assert "".join(CharTokenizer().decode_stream(CharTokenizer().encode("ab"))) == "ab"


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda t: t.encode(None), TypeError, "encode: expected a str, got NoneType"),
    (lambda t: t.encode(b"ab"), TypeError, "encode: expected a str, got bytes"),
    (lambda t: t.encode("ab\ud800"), ValueError, r"'\\ud800' at position 2 is half a surrogate pair"),
    (lambda t: t.encode("\udfff"), ValueError, "position 0"),
    (lambda t: t.decode([400]), IndexError, "decode: no token has the id 400; ids go from 0 to 300"),
    (lambda t: t.decode([-1]), IndexError, "no token has the id -1"),
    (lambda t: t.decode([299]), IndexError, "decode: no token has the id 299"),
    (lambda t: t.decode([1.5]), TypeError, "decode: expected integers, got float64"),
    (lambda t: t.decode("ab"), TypeError, "decode: expected integers"),
    (lambda t: [*t.decode_stream([400])], IndexError, "no token has the id 400"),
])
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call(bpe(special={"<s>": 300}))


@pytest.mark.parametrize(("options", "words"), [
    ({"vocab": {"▁the": 0}}, "'▁' in the vocabulary stands for no byte; is this BPE without ByteLevel, as of Llama 2"),
    ({"vocab": {"a": 0, "b": 0}}, "'a' has the id 0, but so has 'b'"),
    ({"vocab": {"a": 0.5}}, "a token must be a text with an id from 0, got 'a' with 0.5"),
    ({"vocab": {"a": -1}}, "got 'a' with -1"),
    ({"vocab": {"": 1}}, "got '' with 1"),
    ({"vocab": {3: 1}}, "got 3 with 1"),
    ({"special": {"<s>": 97}}, "'a' has the id 97, but so has '<s>'"),
    ({"vocab": {"a": 0, "<s>": 1}, "special": {"<s>": 2}}, "'<s>' has two ids, 1 and 2"),
    ({"merges": ["a b"]}, "merge 0 is 'a b'; it should be two parts of the vocabulary that make a third"),
    ({"merges": [("a",)]}, "merge 0"), ({"merges": ["a b c"]}, "merge 0"),
    ({"split": "bert"}, "split must be one of gpt2, smollm, llama3, qwen2, or patterns; got 'bert'"),
    ({"eos_ids": [300]}, "300 is to begin, end or fill a text, but no token has this id"),
    ({"prefix": [301]}, "301 is to begin"),
])
def test_tables_that_do_not_fit(options, words):
    with pytest.raises(ValueError, match=words):
        BPETokenizer(**{"vocab": BYTES, "merges": [], **options})


# Patterns


def test_white_space_is_that_of_unicode():
    everything = "".join(map(chr, range(0x110000)))
    white = set(compile_pattern(r"\s").findall(everything))
    assert white == {c for c in everything if c.isspace()} - set("\x1c\x1d\x1e\x1f")
    assert set(re.findall(f"[{SETS['s']}]", everything)) == white
    assert set(re.findall(f"[{SETS['S']}]", everything)) == set(everything) - white


@pytest.mark.parametrize(("pattern", "inside"), [
    (r"\p{L}", lambda c: c[0] == "L"), (r"\p{N}", lambda c: c[0] == "N"), (r"\P{L}", lambda c: c[0] != "L"),
    (r"\p{^Lu}", lambda c: c != "Lu"), (r"[\p{Lu}\p{Lt}]", lambda c: c in ("Lu", "Lt")), (r"\d", lambda c: c == "Nd"),
    (r"[^\P{M}]", lambda c: c[0] == "M"), (r"\w", lambda c: c[0] in "LM" or c in ("Nd", "Pc")),
])
def test_categories(pattern, inside):
    compiled = compile_pattern(pattern)
    for i in range(0x20000):
        assert bool(compiled.fullmatch(chr(i))) == inside(unicodedata.category(chr(i))), hex(i)


@pytest.mark.parametrize(("pattern", "text", "split"), [
    (r"(ab|c)+", "xabcy", ["x", "abc", "y"]), (r"[(|&~]", "a(b|c&d~e", ["a", "(", "b", "|", "c", "&", "d", "~", "e"]),
    (r"b$", "ab\nb", ["a", "b", "\n", "b", ""]),
    (r"(?i:'s)", "X'S", ["X", "'S", ""]), (r"a\.b", "a.b", ["", "a.b", ""]),
])
def test_patterns_mean_what_they_mean_in_the_library(pattern, text, split):
    assert compile_pattern(pattern).split(text) == split


@pytest.mark.parametrize(("pattern", "words"), [
    (r"\p{Han}", r"\\p\{Han\} is not supported"), (r"\bx", r"\\b is not supported"), (r"\h+", r"\\h is not supported"),
    (r"[a[bc]]", "a set within a set"), (r"[a&&b]", "a set within a set"), (r"(?m:.)", r"only \(\?i:\.\.\.\) is supported"),
    ("(a", "Python's re cannot read it"), ("\\", "Python's re cannot read it"), (r"(a)\1", r"\\1 is not supported"),
])
def test_patterns_that_are_not_supported(pattern, words):
    with pytest.raises(ValueError, match=words):
        compile_pattern(pattern)


# Whose ids a model takes


def test_ids_note_their_tokenizer_and_are_plain_integers_otherwise():
    ids = CharTokenizer().encode("some text")
    assert ids.dtype == np.int64 and repr(ids[:2]) == "array([84, 80])"
    kept = (ids[2:], ids[[0, 1]], copy.copy(ids), data.split(ids, 0.5)[0], ids.reshape(3, 3))
    assert all(array.dtype.metadata["tokenizer"] == "char" for array in kept)
    assert bpe().encode("x").dtype.metadata["tokenizer"] == "bpe"


@pytest.mark.parametrize(("own", "given", "words"), [
    (None, CharTokenizer(), None), ("char", CharTokenizer(), None), ("bpe", bpe(), None), (None, bpe(), None),
    ("bpe", CharTokenizer(), "the CharTokenizer: ids of the kind char.*of its own, of the kind bpe; load_tokenizer"),
    ("Unigram", bpe(), "of the kind Unigram"),
    ("char", bpe(), "of the kind char"),
    ("bpe", CharTokenizer().encode("text")[1:], "the data: ids of the kind char"),
    ("bpe", np.arange(5), None), ("bpe", [1, 2], None), ("Unigram", np.arange(0), None),
    (None, bpe(special={"<s>": 256, "</s>": 257}), "the BPETokenizer: ids go up to 257, but this model has 257"),
    (None, [256, 257], "the data: ids go up to 257, but this model has 257, from 0"),
])
def test_a_model_takes_its_own_ids(own, given, words):
    model = small_gpt(vocab_size=257)
    if own:
        model.tokenizer = own
    if words is None:
        check_tokenizer(model, given)
    else:
        with pytest.raises(ValueError, match=words):
            check_tokenizer(model, given)


def test_batches_compare_ids_with_the_model():
    model, ids = small_gpt(vocab_size=96), CharTokenizer().encode("some text to learn")
    assert next(data.batches(ids, 2, 4, model=model))[0].shape == (2, 4)
    model.tokenizer = "bpe"
    with pytest.raises(ValueError, match="a tokenizer of its own"):
        data.batches(data.split(ids)[0], 2, 4, model=model)
    with pytest.raises(ValueError, match="ids go up to 119, but this model has 96"):
        data.batches(np.arange(100, 120), 2, 4, model=model)
