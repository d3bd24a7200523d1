"""Tokenizers on disk, in the tokenizers library's tokenizer.json, which Transformers' AutoTokenizer opens."""

import os
from pathlib import Path

from ..support.checks import expect
from ..tokenizer import CharTokenizer
from .atomic import read_json


def load_tokenizer(folder):
    """The CharTokenizer that save_model wrote into a folder."""
    expect("load_tokenizer", folder, (str, os.PathLike))
    path = Path(folder) / "tokenizer.json"
    given = read_json(path).get("model")
    vocab = given.get("vocab") if isinstance(given, dict) and given.get("type") == "WordLevel" else None
    alphabet = list(vocab) if isinstance(vocab, dict) else []
    if not alphabet or any(len(c) != 1 for c in alphabet) or list(vocab.values()) != list(range(len(alphabet))):
        raise ValueError(f"{path}: not a tokenizer of single characters; use Transformers' AutoTokenizer for its ids")
    return CharTokenizer("".join(alphabet))


def save_tokenizer(tokenizer):
    """{file name: its JSON value} of a tokenizer, from which AutoTokenizer gives the same ids."""
    return {"tokenizer.json": _characters_json(tokenizer),
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast",
                                      "clean_up_tokenization_spaces": False}}


def _characters_json(tokenizer):
    """A CharTokenizer in the words of the tokenizers library: split into characters, look each up."""
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated",
                              "invert": False},
            "post_processor": None, "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": {c: i for i, c in enumerate(tokenizer.alphabet)},
                      "unk_token": "?"}}
