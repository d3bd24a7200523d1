"""Tokenizers from files: our ids against the tokenizers library's, stored and live; what is read, written, refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lora_np.checkpoint import load_model, load_tokenizer, save_model
from lora_np.checkpoint.tokenizers import from_gguf, save_tokenizer, tokenizer_kind
from lora_np.extras.tuning.chatml import chat_ids
from lora_np.tokenizer import BPETokenizer, CharTokenizer
from tests.helpers import live, real, small_gpt
from tests.texts import texts

FOLDER = Path(__file__).parents[1] / "reference" / "tokenizers"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
KINDS = {"gpt2": "gpt-2", "smollm": "smollm", "qwen2": "qwen2", "llama3": "llama-bpe", "opt": "gpt-2"}  # GGUF's names
CONVERSATION = [{"role": "user", "content": "What is\n\n2+2?"}, {"role": "assistant", "content": "4, of course."},
                {"role": "user", "content": " And 3'000 × ½? "}, {"role": "assistant", "content": "1'500"}]


@pytest.fixture
def folder(tmp_path):
    """A function that copies a tokenizer's folder and changes its files: JSON by keys, dotted for inner ones."""
    def copy(name, **files):
        shutil.copytree(FOLDER / name, tmp_path / name, dirs_exist_ok=True)
        for file, changes in files.items():
            path = tmp_path / name / f"{file}.json"
            given = json.loads(path.read_text()) if path.exists() else {}
            for key, value in changes.items():
                *outer, last = key.split("__")
                inner = given
                for part in outer:
                    inner = inner[part]
                inner[last] = value
            path.write_text(json.dumps(given))
        return tmp_path / name
    return copy


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": [*steps]}


def numbers(ids):
    return " ".join(map(str, ids))


def check_stored(tokenizer, name, **parts):
    for part, options in (("ids", {}), ("plain", {"special": False}), ("added", {"add_special_tokens": True})):
        for text, expected in zip(EXPECTED["texts"], EXPECTED[name][part], strict=True):
            assert numbers(tokenizer.encode(text, **options)) == expected, (name, part, text)


@pytest.mark.parametrize("name", KINDS)
def test_ids_are_those_that_are_stored(name):
    tokenizer = load_tokenizer(FOLDER / name)
    check_stored(tokenizer, name)
    assert tokenizer_kind(FOLDER / name) == tokenizer.kind == "bpe"
    assert all(name == "qwen2" or name == "smollm" or tokenizer.decode(tokenizer.encode(text)) == text
               for text in EXPECTED["texts"])


def metadata(name):
    """A tokenizer as a GGUF file has it."""
    t = load_tokenizer(FOLDER / name)
    tokens = [t.tokens[i] for i in range(len(t))]
    types = [3 if token in t.special else 4 if token in t.added else 1 for token in tokens]
    given = {"model": "gpt2", "pre": KINDS[name], "tokens": tokens, "token_type": types,
             "merges": [" ".join(pair) for pair in sorted(t.ranks, key=t.ranks.get)], "bos_token_id": t.bos_id,
             "eos_token_id": t.eos_id, "padding_token_id": t.pad_id}
    return {**{f"tokenizer.ggml.{key}": value for key, value in given.items() if value is not None},
            **({"tokenizer.chat_template": t.chat_template} if t.chat_template else {})}


@pytest.mark.parametrize("name", KINDS)
def test_a_gguf_has_the_same_ids(name):
    given = metadata(name) | ({"tokenizer.ggml.add_bos_token": True} if name == "opt" else {})
    tokenizer = from_gguf(given)
    check_stored(tokenizer, name)
    original = load_tokenizer(FOLDER / name)
    for attribute in ("special", "added", "bos_id", "eos_ids", "pad_id", "prefix", "suffix", "chat_template", "ids"):
        assert getattr(tokenizer, attribute) == getattr(original, attribute), attribute


@pytest.mark.parametrize("name", KINDS)
def test_what_is_written_is_read_again(name, tmp_path):
    for tokenizer in (load_tokenizer(FOLDER / name), from_gguf(metadata(name) | {"tokenizer.ggml.add_bos_token":
                                                                                 name in ("opt", "llama3")})):
        for file, content in save_tokenizer(tokenizer).items():
            (tmp_path / file).write_bytes(content)
        again = load_tokenizer(tmp_path)
        check_stored(again, name)
        assert (again.eos_ids, again.bos_id, again.chat_template) == (
            tokenizer.eos_ids, tokenizer.bos_id, tokenizer.chat_template)
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


def test_files_are_handed_on_as_they_came(tmp_path):
    tokenizer = load_tokenizer(FOLDER / "smollm")
    names = ("tokenizer.json", "tokenizer_config.json")
    assert save_tokenizer(tokenizer) == {name: (FOLDER / "smollm" / name).read_bytes() for name in names}
    assert {*save_tokenizer(load_tokenizer(FOLDER / "opt"))} == {"vocab.json", "merges.txt", "tokenizer_config.json"}
    save_model(small_gpt(vocab_size=len(tokenizer)), tmp_path / "model", tokenizer)
    model = load_model(tmp_path / "model")
    assert model.tokenizer == "bpe" and load_tokenizer(tmp_path / "model").special == tokenizer.special


def test_a_model_notes_the_tokenizer_that_came_with_it(tmp_path):
    for tokenizer, kind in ((CharTokenizer("abc"), "char"), (load_tokenizer(FOLDER / "opt"), "bpe"), (None, None)):
        save_model(small_gpt(vocab_size=700), tmp_path / str(kind), tokenizer)
        assert load_model(tmp_path / str(kind)).tokenizer == kind == tokenizer_kind(tmp_path / str(kind))


def test_a_model_is_read_without_the_tokenizer_that_cannot_be(tmp_path):
    save_model(small_gpt(), tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(FileNotFoundError, match=r"merges\.txt: there is no such file, and vocab\.json is of no use"):
        load_tokenizer(tmp_path)
    assert load_model(tmp_path).tokenizer == "bpe"


# Special tokens, ends, templates


def test_the_end_is_the_models_own_then_the_tokenizers(folder):
    assert load_tokenizer(folder("smollm", config={"eos_token_id": 1})).eos_ids == (1, 2)
    assert load_tokenizer(folder("smollm", config={"eos_token_id": [0, 1]})).eos_ids == (0, 1, 2)
    path = folder("smollm", config={"eos_token_id": 2}, generation_config={"eos_token_id": [0, 2]})
    assert load_tokenizer(path).eos_ids == (2, 0) and load_tokenizer(path).eos_id == 2
    path = folder("smollm", config={"eos_token_id": None}, generation_config={"eos_token_id": 100_000})
    assert load_tokenizer(path).eos_ids == (2,)


def test_ends_of_a_gguf():
    assert from_gguf(metadata("smollm") | {"tokenizer.ggml.eot_token_id": 0}).eos_ids == (2, 0)
    assert from_gguf(metadata("llama3")).prefix == (640,)  # llama.cpp's default for this kind
    assert from_gguf(metadata("llama3") | {"tokenizer.ggml.add_bos_token": False}).prefix == ()
    assert from_gguf(metadata("smollm") | {"tokenizer.ggml.add_eos_token": True}).suffix == (2,)


def test_what_fills_a_gguf_up_is_no_token():
    given = metadata("smollm")
    given["tokenizer.ggml.tokens"] = [*given["tokenizer.ggml.tokens"], "[PAD640]", "[PAD641]"]
    given["tokenizer.ggml.token_type"] = np.array([*given["tokenizer.ggml.token_type"], 5, 5])
    tokenizer = from_gguf(given)
    assert len(tokenizer) == 640 and 640 not in tokenizer.encode("[PAD640]")


def test_special_tokens_stand_in_several_files(folder):
    path = folder("opt", special_tokens_map={"unk_token": "<unk>", "pad_token": {"content": "<pad>"}},
                  added_tokens={"<new>": 640, "<more>": 641}, tokenizer_config={
                      "added_tokens_decoder": {"640": {"content": "<new>", "special": False},
                                               "641": {"content": "<more>", "special": True}},
                      "additional_special_tokens": ["<s>"]})
    tokenizer = load_tokenizer(path)
    assert tokenizer.special.keys() >= {"</s>", "<pad>", "<s>", "<more>"} and tokenizer.added == {"<new>": 640}
    assert len(tokenizer) == 642 and tokenizer.encode("a<new><more><s>").tolist()[1:] == [640, 641, 0]


def test_without_settings_the_end_is_gpt2s_own(folder):
    path = folder("opt", vocab={"<|endoftext|>": 640})
    (path / "tokenizer_config.json").unlink()
    tokenizer = load_tokenizer(path)
    assert tokenizer.special == {"<|endoftext|>": 640} and tokenizer.eos_ids == (640,) and tokenizer.prefix == ()


def test_merges_with_carriage_returns_and_without_a_version(folder):
    path = folder("opt")
    merges = (path / "merges.txt").read_text(encoding="utf-8")
    (path / "merges.txt").write_bytes(merges.partition("\n")[2].replace("\n", "\r\n").encode())
    check_stored(load_tokenizer(path), "opt")


def test_old_and_new_forms_of_tokenizer_json(folder):
    given = json.loads((FOLDER / "gpt2" / "tokenizer.json").read_text(encoding="utf-8"))
    merges = [" ".join(merge) for merge in given["model"]["merges"]]
    level = {"type": "ByteLevel", "add_prefix_space": False}
    path = folder("gpt2", tokenizer={"model__merges": merges, "pre_tokenizer": level})
    check_stored(load_tokenizer(path), "gpt2")
    del given["model"]["type"]
    (path / "tokenizer.json").write_text(json.dumps(given))
    check_stored(load_tokenizer(path), "gpt2")
    nested = {"type": "Sequence", "pretokenizers": [{"type": "Sequence", "pretokenizers": [given["pre_tokenizer"]]}]}
    check_stored(load_tokenizer(folder("gpt2", tokenizer={"pre_tokenizer": nested})), "gpt2")


def test_a_split_of_its_own(folder):
    split = sequence({"type": "Split", "pattern": {"String": "."}, "behavior": "Isolated", "invert": False},
                     {"type": "Split", "pattern": {"Regex": r"\s?\p{Lu}+"}, "behavior": "Isolated"},
                     {"type": "Digits", "individual_digits": False}, {"type": "ByteLevel", "use_regex": False})
    tokenizer = load_tokenizer(folder("gpt2", tokenizer={"pre_tokenizer": split}))
    assert tokenizer._pieces("a.b CD 123") == ["a", ".", "b", " CD", " ", "123"]


def test_chat_templates(folder):
    several = [{"name": "tools", "template": "x"}, {"name": "default", "template": "y"}]
    assert load_tokenizer(folder("smollm", tokenizer_config={"chat_template": several})).chat_template == "y"
    path = folder("smollm")
    (path / "chat_template.jinja").write_text("z", encoding="utf-8")
    assert load_tokenizer(path).chat_template == "z"
    assert load_tokenizer(FOLDER / "gpt2").chat_template is None


def test_what_is_put_around(folder):
    roberta = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True}
    tokenizer = load_tokenizer(folder("smollm", tokenizer={"post_processor": roberta}))
    assert (tokenizer.prefix, tokenizer.suffix) == ((1,), (2,))
    side = lambda text: {"SpecialToken": {"id": text, "type_id": 0}}
    both = {"type": "TemplateProcessing", "pair": [], "special_tokens": {
        text: {"id": text, "ids": [i], "tokens": [text]} for i, text in ((1, "<|im_start|>"), (2, "<|im_end|>"))},
        "single": [side("<|im_start|>"), {"Sequence": {"id": "A", "type_id": 0}}, side("<|im_end|>")]}
    tokenizer = load_tokenizer(folder("smollm", tokenizer={"post_processor": both}))
    assert (tokenizer.prefix, tokenizer.suffix) == ((1,), (2,))
    assert load_tokenizer(folder("opt", tokenizer_config={"add_eos_token": True})).suffix == (2,)
    tokenizer = load_tokenizer(folder("llama3", tokenizer_config={"add_bos_token": False}))
    assert tokenizer.prefix == (640,)  # by tokenizer.json, as in Transformers


# What is refused


@pytest.mark.parametrize(("name", "changes", "words"), [
    ("gpt2", {"model": {"type": "Unigram", "vocab": [["a", 0.0]]}}, "of the kind Unigram; not a tokenizer of single"),
    ("gpt2", {"model": {"type": "WordPiece", "vocab": {"a": 0}}}, "WordPiece; .*not byte-level BPE.*AutoTokenizer"),
    ("gpt2", {"pre_tokenizer": {"type": "Metaspace"}}, "of the kind BPE without ByteLevel"),
    ("gpt2", {"pre_tokenizer": None}, "of the kind BPE without ByteLevel"),
    ("gpt2", {"model__byte_fallback": True}, "model.byte_fallback is True, which is not supported"),
    ("gpt2", {"model__dropout": 0.1}, "model.dropout is 0.1"),
    ("gpt2", {"model__end_of_word_suffix": "</w>"}, "model.end_of_word_suffix is '</w>'"),
    ("gpt2", {"model__continuing_subword_prefix": "##"}, "continuing_subword_prefix"),
    ("gpt2", {"model__fuse_unk": True, "model__unk_token": "<|endoftext|>"}, "model.fuse_unk is True"),
    ("gpt2", {"pre_tokenizer__add_prefix_space": True}, '"add_prefix_space": true.* is not supported'),
    ("gpt2", {"pre_tokenizer": sequence({"type": "Whitespace"}, {"type": "ByteLevel"})}, '"Whitespace"} is not supported'),
    ("gpt2", {"pre_tokenizer": sequence({"type": "ByteLevel"}, {"type": "Digits"})}, "is not supported"),
    ("qwen2", {"pre_tokenizer": sequence({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Removed"},
                                         {"type": "ByteLevel"})}, '"Removed".* is not supported'),
    ("qwen2", {"pre_tokenizer": sequence({"type": "Split", "pattern": {"Regex": r"\p{Han}"}, "behavior": "Isolated"},
                                         {"type": "ByteLevel"})}, r"\\p\{Han\} is not supported"),
    ("qwen2", {"normalizer": {"type": "Lowercase"}}, "normalizer Lowercase is not supported; NFC is"),
    ("llama3", {"post_processor": {"type": "Strange"}}, "post_processor Strange is not supported"),
    ("gpt2", {"added_tokens": [{"id": 0, "content": "<mask>", "lstrip": True}]}, "'<mask>' has lstrip, which is not"),
    ("gpt2", {"model__merges": ["zz qq"]}, "merge 0 is 'zz qq'"),
    ("gpt2", {"model__vocab": {"▁the": 7}, "model__merges": []}, "'▁' in the vocabulary stands for no byte"),
    ("gpt2", {"model__merges": None}, "not laid out as a tokenizer's file is"),
    ("gpt2", {"model__vocab": ["a"]}, "not laid out as a tokenizer's file is"),
    ("gpt2", {"added_tokens": [{"id": 0}]}, "not laid out as a tokenizer's file is; KeyError"),
    ("gpt2", {"added_tokens": ["x"]}, "not laid out as a tokenizer's file is"),
    ("gpt2", {"pre_tokenizer": {"type": "Sequence", "pretokenizers": "'ByteLevel'"}}, "not laid out as a tokenizer's file is"),
    ("opt", {"tokenizer_class": "RobertaTokenizer"}, "RobertaTokenizer with add_prefix_space False is not supported"),
    ("opt", {"add_prefix_space": True}, "GPT2Tokenizer with add_prefix_space True is not supported"),
])
def test_what_is_not_supported_is_named(folder, name, changes, words):
    path = folder(name, **{"tokenizer_config" if name == "opt" else "tokenizer": changes})
    with pytest.raises(ValueError, match=words) as error:
        load_tokenizer(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_folders_without_a_tokenizer_that_is_read(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json: there is no such file"):
        load_tokenizer(tmp_path)
    assert tokenizer_kind(tmp_path) is None
    (tmp_path / "tokenizer.model").write_bytes(b"\n")
    with pytest.raises(ValueError, match=r"tokenizer\.model: a tokenizer of the kind SentencePiece; .*Make ids"):
        load_tokenizer(tmp_path)
    assert tokenizer_kind(tmp_path) == "SentencePiece"
    (tmp_path / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(FileNotFoundError, match=r"merges\.txt"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not valid JSON"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("changes", "words"), [
    ({"model": "llama"}, "tokenizer.ggml.model is 'llama'; supported here: 'gpt2', byte-level BPE"),
    ({"model": None}, "tokenizer.ggml.model is None"),
    ({"pre": "deepseek-llm"}, "tokenizer.ggml.pre is 'deepseek-llm'; supported here: gpt-2, smollm, qwen2, llama-bpe"),
    ({"pre": "default"}, "tokenizer.ggml.pre is 'default'"),
    ({"tokens": ["a", "a"], "token_type": [1, 1]}, "2 tokens, 1 different ones, and 2 types"),
    ({"token_type": [1]}, "640 tokens, 640 different ones, and 1 types"),
    ({"eos_token_id": 9999}, "9999 is to begin, end or fill a text"),
    ({"merges": ["a b c"]}, "merge 0 is 'a b c'"),
])
def test_what_a_gguf_may_not_say(changes, words):
    given = metadata("smollm") | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    with pytest.raises(ValueError, match=words):
        from_gguf(given)


# The real things, where they are installed


def library(tokenizer, tokenizers):
    """The same tokenizer in the tokenizers library, from what save_tokenizer writes."""
    plain = BPETokenizer(tokenizer.ids, sorted(tokenizer.ranks, key=tokenizer.ranks.get), **{name: getattr(
        tokenizer, name) for name in ("split", "special", "added", "normalize", "ignore_merges", "unknown")})
    return tokenizers.Tokenizer.from_str(save_tokenizer(plain)["tokenizer.json"].decode())


def compare_live(tokenizer, theirs, hard):
    for special in (True, False):
        theirs.encode_special_tokens = not special
        found = [tokenizer.encode(text, special=special).tolist() for text in hard]
        for text, ids, expected in zip(hard, found, theirs.encode_batch(hard, add_special_tokens=False), strict=True):
            assert ids == expected.ids, text
    for ids in found[:1000]:
        for skip in (True, False):
            assert tokenizer.decode(ids, skip_special=skip) == theirs.decode(ids, skip_special_tokens=skip)


@live("tokenizers")
@pytest.mark.parametrize("name", KINDS)
def test_live_ten_thousand_texts(name):
    import tokenizers
    tokenizer, hard = load_tokenizer(FOLDER / name), texts(10_000, seed=4)
    if name == "opt":
        theirs = library(tokenizer, tokenizers)
    else:
        theirs = tokenizers.Tokenizer.from_file(str(FOLDER / name / "tokenizer.json"))
    compare_live(tokenizer, theirs, hard)


@live("transformers")
@pytest.mark.parametrize(("name", "kind"), [("gpt2", "opt"), ("opt", "opt"), ("smollm", "llama"), ("llama3", "llama"),
                                            ("qwen2", "qwen2"), ("qwen2", "qwen3")])
def test_live_transformers_opens_what_is_written(name, kind, tmp_path):
    import transformers
    ours = from_gguf(metadata(name) | {"tokenizer.ggml.add_bos_token": name in ("opt", "llama3")})
    for file, content in save_tokenizer(ours).items():
        (tmp_path / file).write_bytes(content)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in texts(300, seed=5):
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text).tolist(), text
        assert theirs.encode(text) == ours.encode(text, add_special_tokens=True).tolist()
    assert (theirs.eos_token_id, theirs.bos_token_id, theirs.chat_template, len(theirs)) == (
        ours.eos_id, ours.bos_id, ours.chat_template, len(ours))


@live("transformers")
@pytest.mark.parametrize("name", ["smollm", "qwen2"])
@pytest.mark.parametrize("system", [[], [{"role": "system", "content": "Be brief."}]])
def test_live_conversations_are_rendered_alike(name, system):
    import transformers
    theirs, ours = transformers.AutoTokenizer.from_pretrained(FOLDER / name), load_tokenizer(FOLDER / name)
    for reply in (False, True):
        expected = theirs.apply_chat_template(system + CONVERSATION, tokenize=True, add_generation_prompt=reply)
        assert chat_ids(system + CONVERSATION, ours, reply=reply)[0].tolist() == list(
            expected if isinstance(expected, list) else expected["input_ids"])


@pytest.fixture(scope="module")
def smollm2():
    return load_tokenizer("smollm2")


@real
def test_the_real_smollm2(smollm2):
    assert (len(smollm2), smollm2.eos_ids, smollm2.bos_id, smollm2.prefix) == (49_152, (2,), 1, ())
    assert smollm2.encode("The capital of France is").tolist() == [504, 3575, 282, 4649, 314]
    assert [smollm2.decode([i]) for i in smollm2.encode(" in 1999")] == [" in", " ", "1", "9", "9", "9"]
    ids, target = chat_ids(CONVERSATION[:2], smollm2)
    assert smollm2.decode(ids).startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by "
                                          "Hugging Face<|im_end|>\n<|im_start|>user\nWhat")
    assert smollm2.decode(ids[target]) == "4, of course.<|im_end|>" and ids[:2].tolist() == [1, 9690]


@real
@live("tokenizers")
def test_live_the_real_smollm2_on_ten_thousand_texts(smollm2):
    import tokenizers
    compare_live(smollm2, library(smollm2, tokenizers), texts(10_000, seed=6))
