"""GGUF files: every type that is read, made with the gguf package by reference/make_gguf.py, and malformed ones."""

import hashlib
import json
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lora_np.checkpoint import gguf, load_model, load_tokenizer, safetensors, save_model
from lora_np.llama import frequencies

FOLDER = Path(__file__).parents[1] / "reference" / "gguf"
EXPECTED, METADATA = safetensors.read(FOLDER / "expected.safetensors")
DIGESTS = json.loads(METADATA["digests"])
IDS = EXPECTED["ids"].astype(int)
BLOCKS = ["Q8_0", "Q4_0", "Q4_1"]
V, D, HEADS, KV, C, FF = 36, 32, 4, 2, 8, 32  # sizes of those files


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array, "<f4")).hexdigest()[:16]


# A writer of one's own, for what the gguf package would not write. tensors: {name: (lengths, type, numbers or bytes)}.


def string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(v):
    if isinstance(v, bytes):
        return v  # as it is
    if isinstance(v, list):
        return struct.pack("<IIQ", 9, struct.unpack("<I", value(v[0])[:4])[0], len(v)) + b"".join(value(x)[4:] for x in v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + string(v)
    return struct.pack("<I", 6) + struct.pack("<f", v) if isinstance(v, float) else struct.pack("<II", 4, v)


def write(path, keys, tensors, counts=(None, None), version=3, align=32):
    n_tensors, n_keys = (given if n is None else n for n, given in zip(counts, (len(tensors), len(keys)), strict=True))
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys)
    head += b"".join(string(key) + value(v) for key, v in keys)
    numbers = b""
    for name, (lengths, kind, array, *at) in tensors:
        raw = array if isinstance(array, bytes) else np.asarray(array, "<f4").tobytes()
        head += string(name) + struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths)
        head += struct.pack("<IQ", kind, at[0] if at else len(numbers))
        numbers += raw + b"\0" * (-len(raw) % align)
    path.write_bytes(head + b"\0" * (-len(head) % align) + numbers)
    return path


KEYS = {"general.architecture": "llama", "llama.context_length": 16, "llama.embedding_length": D,
        "llama.block_count": 1, "llama.feed_forward_length": FF, "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV, "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 100.0}


def tensors():
    rng = np.random.default_rng(0)
    shapes = {"token_embd": (V, D), "blk.0.attn_norm": (D,), "blk.0.attn_q": (HEADS * C, D), "blk.0.attn_k": (KV * C, D),
              "blk.0.attn_v": (KV * C, D), "blk.0.attn_output": (D, HEADS * C), "blk.0.ffn_norm": (D,),
              "blk.0.ffn_gate": (FF, D), "blk.0.ffn_up": (FF, D), "blk.0.ffn_down": (D, FF), "output_norm": (D,)}
    return {f"{name}.weight": (shape[::-1], 0, rng.normal(size=shape)) for name, shape in shapes.items()}


def small(path, keys=(), more=(), **options):
    """A file with a Llama in it, some keys changed (None takes one out) and some tensors added or changed."""
    keys = {key: v for key, v in {**KEYS, **dict(keys)}.items() if v is not None}
    return write(path, keys.items(), {**tensors(), **dict(more)}.items(), **options)


# Every type


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", *BLOCKS])
def test_numbers_and_logits_of_every_type(kind):
    arrays, metadata = gguf.read(FOLDER / f"{kind}.gguf")
    found = {name: digest(a.data if kind in BLOCKS and a.ndim == 2 else a) for name, a in arrays.items()}
    assert found == DIGESTS[kind] and metadata["llama.block_count"] == 1 and metadata["tokenizer.ggml.merges"][0] == "h e"
    for quantized in (False, True)[:1 + (kind in BLOCKS)]:
        model = load_model(FOLDER / f"{kind}.gguf", dtype=np.float64, quantized=quantized)
        np.testing.assert_allclose(model(IDS).data, EXPECTED[kind], rtol=0, atol=1e-12)
        assert model.config.norm_eps == 1e-5 and not model.training
        assert [t.requires_grad for t in model.parameters()] == [not quantized] * 11
    assert load_model(FOLDER / f"{kind}.gguf").config.dtype is np.float32


def test_a_file_written_by_hand_is_the_same_model_as_one_in_blocks_of_the_package(tmp_path):
    model = load_model(small(tmp_path / "x.gguf"))
    assert model.config == load_model(FOLDER / "F32.gguf").config
    untied = load_model(small(tmp_path / "y.gguf", more={"output.weight": ((D, V), 0, np.ones((V, D)))}))
    assert not untied.config.tied and (untied.lm_head.weight.data == 1).all()


@pytest.mark.parametrize("kind", ["F16", "Q4_1"])
def test_a_folder_made_from_a_gguf_has_its_ids_its_tokenizer_and_its_template(tmp_path, kind):
    model = load_model(FOLDER / f"{kind}.gguf")
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert (again(IDS).data == model(IDS).data).all() and again.config == model.config
    config, generation, tokenizer = (json.loads((tmp_path / f"{name}.json").read_text()) for name in (
        "config", "generation_config", "tokenizer_config"))
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    assert {name: config[name] for name in ids} == ids == {**generation, "eos_token_id": generation["eos_token_id"][0]}
    assert "<|im_start|>" in tokenizer["chat_template"]
    ours, theirs = load_tokenizer(FOLDER / f"{kind}.gguf"), load_tokenizer(tmp_path)
    text = "the hen<|im_end|>in the"
    assert ours.encode(text).tolist() == theirs.encode(text).tolist() and ours.eos_ids == theirs.eos_ids == (2,)
    assert (model.tokenizer, model.pad_id) == (again.tokenizer, again.pad_id) == ("bpe", 2)
    assert not len(model.lacking) and not len(again.lacking)


# Malformed files


@pytest.mark.parametrize("kind", ["Q4_1", "F32"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path, kind):
    raw, path = (FOLDER / f"{kind}.gguf").read_bytes(), tmp_path / "x.gguf"
    for n in [*range(0, 2000, 13), *range(2000, len(raw), 997), len(raw) - 40]:
        path.write_bytes(raw[:n])
        with pytest.raises(ValueError, match=r"x\.gguf: ") as error:
            load_model(path)
        assert len(str(error.value)) < 400


def test_random_damage_is_refused_or_harmless(tmp_path):
    raw, path, rng = (FOLDER / "Q4_1.gguf").read_bytes(), tmp_path / "x.gguf", np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(raw)
        for at in rng.integers(0, 2600, rng.integers(1, 4)):
            damaged[at:at + 1] = bytes([rng.integers(256)])
        path.write_bytes(damaged)
        try:
            arrays, _ = gguf.read(path)
        except ValueError as error:
            assert str(path) in str(error) and len(str(error)) < 400
        else:
            assert sum(a.size for a in arrays.values()) <= 2 * len(raw)


HUGE = 1 << 60
LIES = {
    "many tensors": {"counts": (HUGE, None)}, "many keys": {"counts": (None, HUGE)},
    "one key more": {"counts": (None, len(KEYS) + 1)}, "one tensor more": {"counts": (12, None)},
    "a long name": {"more": {b"": ((D,), 0, np.ones(D))}}, "a long string": {"keys": {"x": struct.pack("<IQ", 8, HUGE)}},
    "a long list": {"keys": {"x": struct.pack("<IIQ", 9, 4, HUGE)}},
    "a long list of strings": {"keys": {"x": struct.pack("<IIQ", 9, 8, HUGE)}},
    "a list of lists": {"keys": {"x": struct.pack("<IIQ", 9, 9, 2)}},
    "an unknown kind of value": {"keys": {"x": struct.pack("<I", 13)}},
    "many axes": {"more": {"x": ((1,) * 9, 0, np.ones(1))}},
    "long axes": {"more": {"x": ((HUGE, HUGE), 0, np.ones(1))}},
}


@pytest.mark.parametrize("lie", LIES)
def test_counts_and_lengths_that_lie_cost_neither_time_nor_memory(tmp_path, lie):
    path = small(tmp_path / "x.gguf", **LIES[lie])
    if lie == "a long name":
        raw = path.read_bytes()
        at = raw.rindex(b"output_norm") - 8
        path.write_bytes(raw[:at] + struct.pack("<Q", HUGE) + raw[at + 8:])
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"x\.gguf: ") as error:
        load_model(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(str(error.value)) < 400 and peak < 4 * path.stat().st_size


@pytest.mark.parametrize(("changes", "says"), [
    ({"version": 3 << 24}, "big-endian"), ({"version": 1}, "version 1"), ({"version": 4}, "version 4"),
    ({"keys": {"split.count": 2}}, "one of 2 files"),
    ({"keys": {"general.alignment": 0}}, "general.alignment is 0"), ({"keys": {"general.alignment": 12}}, "alignment is 12"),
    ({"keys": {"general.alignment": "x"}}, "alignment is 'x'"),
    ({"more": {"x.weight": ((256,), 12, b"\0" * 144)}}, r"'x.weight' is Q4_K; supported here: F32, F16, BF16, Q4_0, Q4_1, Q8_0"),
    ({"more": {"x.weight": ((4,), 99, b"\0" * 16)}}, "'x.weight' is of type 99"),
    ({"more": {"x.weight": ((4,), 26, b"\0" * 16)}}, "'x.weight' is I32"),
    ({"more": {"x.weight": ((33, 2), 2, b"\0" * 36)}}, r"'x.weight' is Q4_0 of shape \(2, 33\)"),
    ({"more": {"x.weight": ((32,), 8, b"\0" * 34)}}, r"'x.weight' is Q8_0 of shape \(32,\)"),
    ({"more": {"x.weight": ((4,), 0, np.ones(4), 1 << 50)}}, "'x.weight' should end at byte"),
    ({"more": {"x.weight": ((4,), 0, np.ones(4), 1 << 63)}}, "'x.weight' should end at byte"),
    ({"more": {"x.weight": ((4,), 0, np.ones(4), 64)}}, "begins at byte 64 of the numbers, inside another tensor"),
    ({"more": {"x.weight": ((4,), 0, np.ones(4), 7)}}, "begins at byte 7 of the numbers"),
    ({"keys": {"x": struct.pack("<I", 8) + string(b"\xff")}}, "'x': 'utf-8' codec"),
    ({"more": {"x.weight": ((4,), 0, np.ones(4))}}, "unexpected: x.weight"),
    ({"more": {"blk.0.attn_q.bias": ((D,), 0, np.ones(D))}}, "unexpected: layers.0.self_attn.q_proj.bias"),
    ({"more": {"blk.0.attn_q.weight": ((D, 12), 0, np.ones((12, D)))}}, r"q_proj.weight is \(12, 32\), expected \(32, 32\)"),
    ({"keys": {"llama.block_count": 2}}, "num_hidden_layers is 2, but the weights beside it have 1"),
    ({"keys": {"llama.vocab_size": 40}}, "vocab_size is 40, but the weights beside it have 36"),
])
def test_what_is_wrong_or_not_read_is_refused_by_its_name(tmp_path, changes, says):
    path = small(tmp_path / "x.gguf", **changes)
    with pytest.raises(ValueError, match=says) as error:
        load_model(path)
    assert str(error.value).startswith(f"{path}: ")


def test_names_that_come_twice_are_refused(tmp_path):
    names, twice = tensors(), ("output_norm.weight", ((D,), 0, np.ones(D)))
    with pytest.raises(ValueError, match=r"'output_norm.weight': this name comes twice"):
        load_model(write(tmp_path / "x.gguf", KEYS.items(), [*names.items(), twice]))
    with pytest.raises(ValueError, match=r"'llama.block_count': this name comes twice"):
        load_model(write(tmp_path / "y.gguf", [*KEYS.items(), ("llama.block_count", 1)], names.items()))


@pytest.mark.parametrize(("keys", "says"), [
    ({"general.architecture": "qwen2"}, "general.architecture is 'qwen2'"), ({"general.architecture": None}, "is None"),
    ({"llama.block_count": None}, "lacks llama.block_count"),
    ({"llama.attention.head_count_kv": [2, 2]}, r"llama.attention.head_count_kv is \[2, 2\]; expected a number"),
    ({"llama.attention.head_count": 0}, "llama.attention.head_count is 0; expected a number above 0"),
    ({"llama.embedding_length": "32"}, "llama.embedding_length is '32'; expected a number"),
    ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type is 'yarn', which is not supported"),
    ({"llama.rope.scaling.factor": 2.0}, "llama.rope.scaling.factor is 2.0"),
    ({"llama.expert_count": 8}, "llama.expert_count is 8"), ({"llama.rope.dimension_count": 4}, "dimension_count is 4"),
    ({"llama.attention.sliding_window": 8}, "llama.attention.sliding_window is 8"),
    ({"llama.attention.key_length": 7}, "d_head 7 is odd"),
    ({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "deepseek"}, "tokenizer.ggml.pre is 'deepseek'"),
])
def test_settings_that_are_not_supported_are_refused_by_their_names(tmp_path, keys, says):
    path = small(tmp_path / "x.gguf", keys)
    with pytest.raises(ValueError, match=says) as error:
        load_model(path)
    assert str(error.value).startswith(f"{path}: ")


def test_settings_without_effect_are_let_through(tmp_path):
    load_model(small(tmp_path / "x.gguf", {"llama.rope.scaling.type": "none", "llama.expert_count": 0, "general.name": "x",
                                           "llama.rope.dimension_count": C, "tokenizer.ggml.model": "llama"}))


def test_rope_factors_are_the_llama3_scaling_or_refused(tmp_path):
    keys = {"llama.rope.freq_base": 500000.0}
    plain = frequencies(load_model(small(tmp_path / "x.gguf", keys)).config)
    f = 8192 * plain / (2 * np.pi)
    kept = np.clip((f - 1) / 3, 0, 1)
    factors = 1 / ((1 - kept) / 32 + kept)
    assert ((factors > 1) & (factors < 32)).any()
    model = load_model(small(tmp_path / "x.gguf", keys, {"rope_freqs.weight": ((C // 2,), 0, factors)}))
    assert model.config.rope_scaling["rope_type"] == "llama3" and model.config.rope_scaling["factor"] == 32
    np.testing.assert_allclose(frequencies(model.config), plain / factors, rtol=1e-6)
    ones = load_model(small(tmp_path / "x.gguf", keys, {"rope_freqs.weight": ((C // 2,), 0, np.ones(C // 2))}))
    assert ones.config.rope_scaling is None
    for wrong in (np.arange(1, 1 + C // 2), -np.ones(C // 2), np.full(C // 2, np.nan), np.ones(3)):
        with pytest.raises(ValueError, match=r"x\.gguf: rope_freqs.weight"):
            load_model(small(tmp_path / "x.gguf", keys, {"rope_freqs.weight": ((len(wrong),), 0, wrong)}))


def test_other_files_are_refused(tmp_path):
    for raw in (b"", b"GGU", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n", b"PK\3\4" * 99):
        (tmp_path / "x.gguf").write_bytes(raw)
        with pytest.raises(ValueError, match=r"x\.gguf: "):
            load_model(tmp_path / "x.gguf")
    with pytest.raises(FileNotFoundError, match=r"y\.gguf: there is no such file"):
        load_model(tmp_path / "y.gguf")
    with pytest.raises(FileNotFoundError, match=r"give its own path, such as .*x\.gguf"):
        load_model(tmp_path)
