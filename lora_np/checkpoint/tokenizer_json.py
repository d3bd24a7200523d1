"""tokenizer.json, the tokenizers library's one file for a tokenizer: what it says, and how ours are said in it."""

import json
import re

from ..support.notation import brief
from ..support.patterns import compile_pattern
from ..tokenizer import GPT2, SPLITS

NORMALIZERS = ("NFC", "NFD", "NFKC", "NFKD")
UNSUPPORTED = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")  # in the model
WIDE = ("single_word", "lstrip", "rstrip")  # added tokens that look at what stands beside them


def kind(given):
    """The kind of tokenizer that a tokenizer.json describes: "char", "bpe", or the name of an unsupported one."""
    model = given.get("model") if isinstance(given.get("model"), dict) else {}
    vocab, name = model.get("vocab"), model.get("type", "BPE" if "merges" in model else None)
    if name == "BPE":
        return "bpe" if "'ByteLevel'" in str(given.get("pre_tokenizer")) else "BPE without ByteLevel"
    if name == "WordLevel" and isinstance(vocab, dict) and {*map(len, vocab)} == {1} \
            and [*vocab.values()] == [*range(len(vocab))]:
        return "char"
    return str(name)


def arguments(given):
    """A tokenizer.json as the arguments of BPETokenizer. Raises ValueError for what is not supported, by its name."""
    model, special, added = given["model"], {}, {}
    for name in [*UNSUPPORTED, *["fuse_unk"] * (model.get("unk_token") is not None)]:
        if model.get(name):
            raise ValueError(f"model.{name} is {brief(model[name])}, which is not supported")
    for token in given.get("added_tokens") or ():
        (special if token.get("special") else added)[text_of(token)] = token["id"]
    forms = [step["type"] for step in _steps(given.get("normalizer"), "normalizers")]
    if len(forms) > 1 or not {*forms} <= {*NORMALIZERS}:
        raise ValueError(f"normalizer {', '.join(forms)} is not supported; NFC is")
    prefix, suffix = _around(_steps(given.get("post_processor"), "processors"))
    return {"vocab": model["vocab"], "merges": model["merges"], "special": special, "added": added,
            "split": _split(_steps(given["pre_tokenizer"], "pretokenizers")), "normalize": forms[0] if forms else None,
            "ignore_merges": bool(model.get("ignore_merges")), "unknown": model.get("unk_token"),
            "prefix": prefix, "suffix": suffix}


def text_of(token):
    """The text of a special token, which files give as such or as an object."""
    if isinstance(token, str):
        return token
    if wide := [name for name in WIDE if token.get(name)]:
        raise ValueError(f"the token {token['content']!r} has {', '.join(wide)}, which is not supported")
    return token["content"]


def _steps(given, inside):
    """The steps of a Sequence, one after the other; a single step, or none, as a list."""
    if given is None:
        return []
    return [given] if given["type"] != "Sequence" else [s for step in given[inside] for s in _steps(step, inside)]


def _split(steps):
    """The patterns by which pre-tokenizers cut, as a key of SPLITS or a tuple; the last step must be ByteLevel."""
    patterns = []
    for step in steps:
        if step["type"] == "Digits":
            patterns.append(r"\p{N}" if step.get("individual_digits") else r"\p{N}+")
        elif step["type"] == "Split" and step["behavior"] == "Isolated" and not step.get("invert"):
            pattern = step["pattern"]
            patterns.append(pattern["Regex"] if "Regex" in pattern else re.escape(pattern["String"]))
        elif step["type"] == "ByteLevel" and step is steps[-1] and not step.get("add_prefix_space"):
            patterns += [GPT2] * step.get("use_regex", True)
        else:
            raise ValueError(f"pre_tokenizer {json.dumps(step)[:160]} is not supported")
    if steps[-1]["type"] != "ByteLevel":
        raise ValueError("pre_tokenizer does not end with ByteLevel")
    names = {known: name for name, known in SPLITS.items()}
    if tuple(patterns) in names:
        return names[tuple(patterns)]
    return tuple(pattern for pattern in patterns if compile_pattern(pattern))  # which refuses what it cannot read


def _around(steps):
    """(ids before, ids after a text) that post-processors add to it."""
    prefix, suffix = [], []
    for step in steps:
        if step["type"] == "TemplateProcessing":
            side = prefix
            for part in step["single"]:
                if "Sequence" in part:
                    side = suffix
                else:
                    side += step["special_tokens"][part["SpecialToken"]["id"]]["ids"]
        elif step["type"] in ("RobertaProcessing", "BertProcessing"):
            prefix, suffix = [step["cls"][1]], [step["sep"][1]]
        elif step["type"] != "ByteLevel":
            raise ValueError(f"post_processor {step['type']} is not supported")
    return prefix, suffix


def of_bytes(tokenizer):
    """A BPETokenizer as tokenizer.json."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    whole, flags = {**tokenizer.added, **tokenizer.special}, dict.fromkeys((*WIDE, "normalized"), False)
    added = [{"id": i, "content": token, **flags, "special": token in tokenizer.special}
             for token, i in sorted(whole.items(), key=lambda entry: entry[1])]
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": added, "normalizer": {"type": tokenizer.normalize} if tokenizer.normalize else None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*map(_cut, tokenizer.patterns), level]},
            "post_processor": _template(tokenizer), "decoder": level,
            "model": {"type": "BPE", "dropout": None, "unk_token": tokenizer.unknown, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "ignore_merges": tokenizer.ignore_merges, "vocab": tokenizer.ids,
                      "merges": [" ".join(pair) for pair in sorted(tokenizer.ranks, key=tokenizer.ranks.get)]}}


def _cut(pattern):
    """The pre-tokenizer that cuts a text at both ends of each match of a pattern."""
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _template(tokenizer):
    """The post-processor that puts prefix and suffix around a text, or None."""
    tokens = {tokenizer.tokens[i]: i for i in (*tokenizer.prefix, *tokenizer.suffix)}
    before, after = ([{"SpecialToken": {"id": tokenizer.tokens[i], "type_id": 0}} for i in side]
                     for side in (tokenizer.prefix, tokenizer.suffix))
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {"type": "TemplateProcessing", "single": [*before, first, *after], "pair": [*before, first, second, *after],
            "special_tokens": {token: {"id": token, "ids": [i], "tokens": [token]} for token, i in tokens.items()}
            } if tokens else None


def of_characters(tokenizer):
    """A CharTokenizer as tokenizer.json: split into characters, look each up."""
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": _cut(r"[\s\S]"), "post_processor": None, "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": {c: i for i, c in enumerate(tokenizer.alphabet)},
                      "unk_token": "?"}}
