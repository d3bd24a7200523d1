"""Tokenizers on disk: in a folder as Transformers has them, and in the metadata of a GGUF file."""

from contextlib import contextmanager
from pathlib import Path

from ..tokenizer import BPETokenizer, CharTokenizer
from . import gguf, tokenizer_json
from .atomic import find_model, json_bytes, read_json
from .tokenizer_json import text_of

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                   "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja")
NAMED = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
KINDS = {"gpt-2": {}, "smollm": {"split": "smollm"}, "qwen2": {"split": "qwen2", "normalize": "NFC"},
         "llama-bpe": {"split": "llama3", "ignore_merges": True}}  # under the names that GGUF gives them
CLASSES = {"GPT2Tokenizer": "gpt-2", "Qwen2Tokenizer": "qwen2"}  # those read from vocab.json and merges.txt
UNSUPPORTED = ("; not a tokenizer of single characters, and not byte-level BPE. Make ids elsewhere, such as with "
               "Transformers' AutoTokenizer")
UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 2, 3, 4, 5  # GGUF's types of tokens other than plain parts


def load_tokenizer(path) -> CharTokenizer | BPETokenizer:
    """The tokenizer of a folder, from tokenizer.json or vocab.json and merges.txt, or of a GGUF file.

    path: as for load_model. eos_ids are those that config.json, generation_config.json and the tokenizer's own files
    name, in this order. Raises ValueError that names what is not supported, FileNotFoundError without a tokenizer.
    """
    path = find_model("load_tokenizer", path, "tokenizer.json")
    if path.is_file():
        with _named(path):
            return from_gguf(gguf.read(path)[1])
    plain = (path / "vocab.json").exists() and not (path / "tokenizer.json").exists()
    main = path / ("vocab.json" if plain else "tokenizer.json")
    if not main.exists() and (path / "tokenizer.model").exists():
        raise ValueError(f"{path / 'tokenizer.model'}: a tokenizer of the kind SentencePiece{UNSUPPORTED}")
    given = read_json(main)
    kind = "bpe" if plain else tokenizer_json.kind(given)
    if kind == "char":
        return CharTokenizer("".join(given["model"]["vocab"]))
    if kind != "bpe":
        raise ValueError(f"{main}: a tokenizer of the kind {kind}{UNSUPPORTED}")
    with _named(main):
        settings = _settings(path)
        tables = _plain_files(given, path, settings) if plain else tokenizer_json.arguments(given)
        files = {name: (path / name).read_bytes() for name in TOKENIZER_FILES if (path / name).is_file()}
        return BPETokenizer(**_with_special_tokens(tables, settings, _ends(path)), files=files)


def tokenizer_kind(path):
    """The kind of tokenizer that a folder holds: "char", "bpe", the name of one that is not supported, or None."""
    folder = Path(path)
    if (folder / "tokenizer.json").exists():
        return tokenizer_json.kind(read_json(folder / "tokenizer.json"))
    if (folder / "vocab.json").exists():
        return "bpe"
    return "SentencePiece" if (folder / "tokenizer.model").exists() else None


def save_tokenizer(tokenizer):
    """{file name: bytes} from which Transformers' AutoTokenizer gives the same ids: the files that a tokenizer was
    read from, or else tokenizer.json and tokenizer_config.json."""
    if tokenizer.files:
        return dict(tokenizer.files)
    named = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id, "pad_token": tokenizer.pad_id}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
                **{name: tokenizer.tokens[i] for name, i in named.items() if i is not None}}
    if tokenizer.chat_template is not None:
        settings["chat_template"] = tokenizer.chat_template
    described = (tokenizer_json.of_characters if tokenizer.kind == "char" else tokenizer_json.of_bytes)(tokenizer)
    return {"tokenizer.json": json_bytes(described), "tokenizer_config.json": json_bytes(settings)}


def from_gguf(metadata):
    """The BPETokenizer of a GGUF file, from its metadata {key: value}. Raises ValueError for other kinds, by name."""
    given = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
    if given.get("model") != "gpt2":
        raise ValueError(f"tokenizer.ggml.model is {given.get('model')!r}; supported here: 'gpt2', byte-level BPE")
    if given.get("pre") not in KINDS:
        raise ValueError(f"tokenizer.ggml.pre is {given.get('pre')!r}; supported here: {', '.join(KINDS)}")
    tokens, types = given.get("tokens", ()), given.get("token_type", ())
    if len(tokens) != len(types) or len(set(tokens)) != len(tokens):
        raise ValueError(f"tokenizer.ggml.tokens: {len(tokens)} tokens, {len(set(tokens))} different ones, and "
                         f"{len(types)} types; expected as many of each")
    special, added = ({t: i for i, t in enumerate(tokens) if types[i] in kinds}
                      for kinds in ((UNKNOWN, CONTROL), (USER_DEFINED,)))
    bos, eos, pad, *others = (given.get(f"{name}_token_id") for name in ("bos", "eos", "padding", "eot", "eom"))
    starts = bos is not None and given.get("add_bos_token", given["pre"] == "llama-bpe")
    ends = eos is not None and given.get("add_eos_token", False)
    return BPETokenizer({t: i for i, t in enumerate(tokens) if types[i] != UNUSED}, given.get("merges", ()),
                        special=special, added=added, bos_id=bos, pad_id=pad, prefix=[bos] * starts,
                        suffix=[eos] * ends, eos_ids=dict.fromkeys(i for i in (eos, *others) if i is not None),
                        chat_template=metadata.get("tokenizer.chat_template"), **KINDS[given["pre"]])


@contextmanager
def _named(path):
    """Inside, errors name the file; what it lacks, or has of another kind than expected, raises ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not laid out as a tokenizer's file is; {error!r}") from None


def _settings(folder):
    """tokenizer_config.json, with what stands in files of its own: names of special tokens, the chat template."""
    settings = {**_optional(folder / "special_tokens_map.json"), **_optional(folder / "tokenizer_config.json")}
    if isinstance(settings.get("chat_template"), list):  # several, by name
        settings["chat_template"] = {t["name"]: t["template"] for t in settings["chat_template"]}.get("default")
    if (folder / "chat_template.jinja").exists():
        settings["chat_template"] = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    return settings


def _plain_files(vocab, folder, settings):
    """vocab.json, merges.txt and added_tokens.json as the arguments of BPETokenizer."""
    name = settings.get("tokenizer_class", "GPT2Tokenizer").removesuffix("Fast")
    if name not in CLASSES or settings.get("add_prefix_space"):
        raise ValueError(f"{name} with add_prefix_space {settings.get('add_prefix_space', False)} is not supported; "
                         f"{' and '.join(CLASSES)} without it are")
    if not {*NAMED} & {*settings}:
        settings["eos_token"] = "<|endoftext|>"  # GPT2Tokenizer's own
    if not (merges := folder / "merges.txt").exists():
        raise FileNotFoundError(f"{merges}: there is no such file, and vocab.json is of no use without it")
    lines = merges.read_text(encoding="utf-8").splitlines()
    return {"vocab": vocab, "merges": [line for line in lines if line and not line.startswith("#version")],
            "special": {}, "added": _optional(folder / "added_tokens.json"), **KINDS[CLASSES[name]]}


def _with_special_tokens(tables, settings, ends):
    """The arguments of BPETokenizer, completed by what the settings say of special tokens."""
    special, added = tables["special"], tables["added"]
    ids = {**tables["vocab"], **added, **special}
    for i, token in settings.get("added_tokens_decoder", {}).items():
        text = text_of(token)
        (special if token.get("special") else added)[text] = ids.setdefault(text, int(i))
    named = {name: text_of(settings[name]) for name in NAMED if settings.get(name) is not None}
    more = [*settings.get("additional_special_tokens", ()), *settings.get("extra_special_tokens", ())]
    special |= {text: ids[text] for text in [*named.values(), *map(text_of, more)] if text in ids}
    tables["added"] = {text: i for text, i in added.items() if text not in special}
    bos, eos, pad = (ids.get(named.get(name)) for name in ("bos_token", "eos_token", "pad_token"))
    around = {"prefix": [bos] * (bos is not None and settings.get("add_bos_token", False)),
              "suffix": [eos] * (eos is not None and settings.get("add_eos_token", False))}
    return {**around, **tables, "bos_id": bos, "pad_id": pad, "chat_template": settings.get("chat_template"),
            "eos_ids": dict.fromkeys(i for i in (*ends, eos) if i in {*ids.values()})}


def _ends(folder):
    """The ids that end a text by the model's own settings."""
    found = [_optional(folder / name).get("eos_token_id") for name in ("config.json", "generation_config.json")]
    return [i for ids in found for i in (ids if isinstance(ids, list) else [ids])]


def _optional(path):
    return read_json(path) if path.exists() else {}
