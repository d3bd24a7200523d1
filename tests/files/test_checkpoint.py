"""Files: what a round trip keeps, and that no malformed or mismatched file gets near a model."""

import json
import os
import shutil
import warnings

import numpy as np
import pytest

from lora_np import LoraConfig, data, lora
from lora_np.checkpoint import atomic, load_adapter, load_model, load_tokenizer, safetensors, save_adapter, save_model
from lora_np.extras import variants
from tests.files.stored import edit, rewrite
from tests.helpers import IDS, live, logits, numbers, small_gpt


@pytest.fixture
def base(tmp_path):
    save_model(small_gpt(), tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(base):
    model = adapted(load_model(base))
    save_adapter(model, base.parent / "adapter", base=base)
    return base.parent / "adapter"


def adapted(model, layer=lora.LoraLinear, **settings):
    """The model with LoRA layers that do something."""
    rng = np.random.default_rng(1)
    lora.add_lora(model, LoraConfig(**{"r": 2, "lora_alpha": 6, **settings}), layer)
    for t in model.trainable_parameters():
        t.data = t.data + rng.normal(size=t.shape)
    return model


# Round trips


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_model_round_trip_is_exact(tmp_path, dtype):
    model = small_gpt(dtype=dtype, dropout=0.1)
    save_model(model, tmp_path)
    again = load_model(tmp_path)
    assert again.config == model.config and not again.training
    assert numbers(again) == numbers(model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_arrays_of_a_large_model_stay_in_the_file_and_survive_its_replacement(base, monkeypatch):
    monkeypatch.setattr(atomic, "MAPPED", 0)
    model = load_model(base)
    before = logits(model)
    window = model.embed_tokens.weight.data
    while isinstance(window.base, np.ndarray):
        window = window.base
    assert isinstance(window, np.memmap) and not window.flags.writeable
    save_model(small_gpt(seed=1), base)  # a new file takes the name; the old one lives on while it is mapped
    assert (logits(model) == before).all() and (logits(load_model(base)) != before).any()


def test_half_precision_bases_load_as_float32(base):
    rewrite(base / "model.safetensors", lambda arrays: {k: a.astype(np.float16) for k, a in arrays.items()})
    model = load_model(base)
    assert model.config.dtype is np.float32 and model.embed_tokens.weight.dtype == np.float32
    np.testing.assert_allclose(logits(model), logits(small_gpt()), atol=1e-2)


def test_a_loaded_model_trains(base):
    model = load_model(base)
    model(IDS).sum().backward()
    assert all(t.grad is not None for t in model.parameters())


@pytest.mark.parametrize("settings", [
    {}, {"use_rslora": True}, {"lora_dropout": 0.25}, {"target_modules": ["fc1", "layers.1.self_attn.q_proj"]},
    {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"layers.0.self_attn.v_proj": 1.5}}])
def test_adapter_round_trip_is_exact(base, settings):
    model, again = adapted(load_model(base), **settings), load_model(base)
    save_adapter(model, base.parent / "adapter")
    paths = load_adapter(again, base.parent / "adapter")
    assert paths == list(lora.lora_layers(model)) and numbers(again) == numbers(model)
    assert (logits(again) == logits(model)).all()
    for path, layer in lora.lora_layers(again).items():
        was = lora.lora_layers(model)[path]
        assert (layer.scaling, layer.lora_dropout.p) == (was.scaling, was.lora_dropout.p)
        assert not layer.training


def test_a_merged_model_saves_the_same_adapter(base, adapter):
    model = load_model(base)
    load_adapter(model, adapter)
    before = safetensors.read(adapter / "adapter_model.safetensors")
    lora.merge(model)
    save_adapter(model, adapter)
    after = safetensors.read(adapter / "adapter_model.safetensors")
    assert before[1] == after[1] and all((before[0][key] == after[0][key]).all() for key in before[0])


def test_tokenizer_round_trip(tmp_path):
    save_model(small_gpt(vocab_size=5), tmp_path, data.CharTokenizer("é\nab "))
    assert load_tokenizer(tmp_path).alphabet == "é\nab "
    with pytest.raises(ValueError, match="6 tokens, the model 5"):
        save_model(small_gpt(vocab_size=5), tmp_path, data.CharTokenizer("abcdef"))
    edit(tmp_path / "tokenizer.json", model={"type": "BPE", "vocab": {"ab": 0}, "merges": []})
    with pytest.raises(ValueError, match="not a tokenizer of single characters"):
        load_tokenizer(tmp_path)


def test_safetensors_keeps_every_shape_and_layout(tmp_path):
    arrays = {"scalar": np.array(1.5), "empty": np.zeros((0, 3), np.float32), "turned": np.arange(6.0).reshape(2, 3).T,
              "half": np.array([1, 2, 3], np.float16), "after": np.array([-1.0]), "end": np.zeros((4, 0))}
    with atomic.atomic_write(tmp_path) as create:
        safetensors.write(create("x"), arrays, {"note": "kept"})
    again, metadata = safetensors.read(tmp_path / "x")
    assert metadata == {"format": "pt", "note": "kept"} and list(again) == list(arrays)
    for name, array in arrays.items():
        assert again[name].shape == array.shape and again[name].dtype == array.dtype
        assert (again[name] == array).all() and not again[name].flags.writeable


# Writing is whole or not at all


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_full_disk_leaves_the_old_files_whole_and_nothing_new(base, monkeypatch, failing):
    before = {path.name: path.read_bytes() for path in base.iterdir()}

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((safetensors, "write", full) if failing == "write" else (os, "fsync", full)))
    for folder in (base, base / "new", base / "new" / "deep"):
        with pytest.raises(OSError, match="No space left"):
            save_model(small_gpt(seed=1), folder)
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before


def test_a_model_with_lora_layers_is_not_saved_as_a_base(base):
    with pytest.raises(ValueError, match="has LoRA layers"):
        save_model(adapted(small_gpt()), base)
    with pytest.raises(ValueError, match="no LoRA layers"):
        save_adapter(small_gpt(), base)


# Malformed safetensors files


def header_of(path):
    raw = path.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:8 + n]), raw[8 + n:]


def with_header(path, header, numbers):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-1])


def cut_inside_the_header(path):
    path.write_bytes(path.read_bytes()[:100])


def empty(path):
    path.write_bytes(b"")


def seven_bytes(path):
    path.write_bytes(b"\x08\0\0\0\0\0\0")


def placeholder(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")


def huge_header_length(path):
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def too_long_for_the_file(path):
    path.write_bytes((1 << 20).to_bytes(8, "little") + path.read_bytes()[8:])


def extra_bytes(path):
    path.write_bytes(path.read_bytes() + b"\0" * 8)


def not_json(path):
    with_header(path, b"{oops   ", header_of(path)[1])


def not_an_object(path):
    with_header(path, b"[1, 2]  ", header_of(path)[1])


def deeply_nested(path):
    with_header(path, b"[" * 100_000, b"")


def a_name_twice(path):
    header, numbers = header_of(path)
    name, value = next((k, v) for k, v in header.items() if k != "__metadata__")
    with_header(path, f'{json.dumps(header)[:-1]}, "{name}": {json.dumps(value)}}}'.encode(), numbers)


def entry(**changes):
    def change(path):
        header, numbers = header_of(path)
        name = next(k for k in header if k != "__metadata__")
        header[name] = {**header[name], **changes}
        with_header(path, header, numbers)
    change.__name__ = "entry " + " ".join(f"{k}={v}" for k, v in changes.items())
    return change


def overlap(path):
    header, numbers = header_of(path)
    names = [k for k in header if k != "__metadata__"]
    same = next(n for n in names[1:] if header[n]["shape"] == header[names[0]]["shape"])
    header[same] = header[names[0]]
    with_header(path, header, numbers)


def metadata_is_a_number(path):
    header, numbers = header_of(path)
    with_header(path, {**header, "__metadata__": 5}, numbers)


def metadata_holds_a_number(path):
    header, numbers = header_of(path)
    with_header(path, {**header, "__metadata__": {"settings": 5}}, numbers)


def entry_is_a_number(path):
    header, numbers = header_of(path)
    with_header(path, {**header, "x": 5}, numbers)


BROKEN = [truncated, cut_inside_the_header, empty, seven_bytes, placeholder, huge_header_length, too_long_for_the_file,
          extra_bytes, not_json, not_an_object, deeply_nested, a_name_twice, overlap, entry_is_a_number,
          metadata_is_a_number, metadata_holds_a_number,
          entry(shape=[0, 10 ** 30], data_offsets=[0, 0]), entry(shape=[1] * 99 + [42]),
          entry(dtype="I64"), entry(dtype=["F32"]), entry(shape=[3]), entry(shape=[-1]), entry(shape="ab"),
          entry(shape=[1.5]), entry(shape=[10 ** 30]), entry(data_offsets=[0]), entry(data_offsets=[8, 0]),
          entry(data_offsets=["a", "b"]), entry(shape=None), entry(more=1)]


@pytest.mark.parametrize("damage", BROKEN, ids=lambda f: f.__name__)
@pytest.mark.parametrize("which", ["model", "adapter"])
def test_a_malformed_file_is_refused_by_name(base, adapter, which, damage):
    model = load_model(base)
    before = numbers(model)
    path = base / "model.safetensors" if which == "model" else adapter / "adapter_model.safetensors"
    with open(path, "rb") as file:
        copy = file.read()
    path.unlink()  # the model above looks into the old file
    path.write_bytes(copy)
    damage(path)
    with pytest.raises(ValueError) as error:
        load_model(base) if which == "model" else load_adapter(model, adapter)
    assert str(path) in str(error.value)
    assert numbers(model) == before


def test_numbers_may_begin_at_an_odd_byte(base):
    expected = logits(load_model(base))
    header, numbers = header_of(base / "model.safetensors")
    text = json.dumps(header).encode()
    with_header(base / "model.safetensors", text + b" " * (1 - len(text) % 2), numbers)
    model = load_model(base)
    assert (logits(model) == expected).all() and all(t.data.flags.aligned for t in model.parameters())


def test_random_damage_is_refused_or_harmless(tmp_path):
    path = tmp_path / "x"
    with atomic.atomic_write(tmp_path) as create:
        safetensors.write(create("x"), {"a": np.ones((2, 3)), "b": np.ones(4, np.float32)})
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(400):
        raw = bytearray(whole[:rng.integers(len(whole) + 1)] if rng.random() < 0.3 else whole)
        for at in rng.integers(0, max(len(raw), 1), rng.integers(1, 4)):
            raw[at:at + 1] = bytes([rng.integers(256)])
        path.unlink()
        path.write_bytes(raw)
        try:
            arrays, _ = safetensors.read(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert sum(array.nbytes for array in arrays.values()) <= len(raw)


# Bases that do not fit


@pytest.mark.parametrize(("changes", "says"), [
    ({"model_type": "gpt2"}, "model_type is 'gpt2'"), ({"do_layer_norm_before": False}, "do_layer_norm_before"),
    ({"activation_function": "gelu"}, "activation_function"), ({"word_embed_proj_dim": 3}, "word_embed_proj_dim"),
    ({"tie_word_embeddings": False}, "tie_word_embeddings"), ({"hidden_size": None}, "lacks hidden_size"),
    ({"num_attention_heads": 4}, "d_model 6 is not a multiple of n_heads 4"),
    ({"num_hidden_layers": 10 ** 9}, "num_hidden_layers is 1000000000, but the weights beside it have 2"),
    ({"hidden_size": 12, "word_embed_proj_dim": 12}, "hidden_size is 12, but the weights beside it have 6"),
    ({"vocab_size": "7"}, "vocab_size is '7'"), ({"dropout": "x"}, "config.json"),
])
def test_a_config_that_does_not_fit_is_refused(base, changes, says):
    edit(base / "config.json", **changes)
    with pytest.raises(ValueError, match=says):
        load_model(base)


@pytest.mark.parametrize(("change", "says"), [
    (lambda a: {k: v for k, v in a.items() if not k.endswith("0.fc2.bias")}, r"missing: layers.0.fc2.bias \(6,\)"),
    (lambda a: {**a, "model.decoder.layers.0.extra": np.ones(2)}, r"unexpected: layers.0.extra \(2,\)"),
    (lambda a: {**a, "model.decoder.layers.1.fc2.weight": np.ones((9, 6))},
     r"layers.1.fc2.weight is \(9, 6\), expected \(6, 9\)"),
    (lambda a: {**a, "lm_head.weight": np.ones((7, 6))}, "lm_head.weight differs"),
    (lambda a: {}, "but the weights beside it have 0"),
    (lambda a: {**a, "model.decoder.embed_tokens.weight": np.array(1.0)}, "but the weights beside it have 1"),
])
def test_weights_that_do_not_fit_are_refused(base, change, says):
    rewrite(base / "model.safetensors", change)
    with pytest.raises(ValueError, match=says):
        load_model(base)


def test_other_names_that_transformers_uses_are_understood(base):
    expected = logits(load_model(base))
    rewrite(base / "model.safetensors", lambda a: {
        "lm_head.weight": a["model.decoder.embed_tokens.weight"],
        **{k.removeprefix("model."): v for k, v in a.items()}})
    assert (logits(load_model(base)) == expected).all()


def shard(base, change=lambda places: places):
    """Split model.safetensors in two, with an index."""
    arrays, places = safetensors.read(base / "model.safetensors")[0], {}
    with atomic.atomic_write(base) as create:
        for i, part in enumerate((list(arrays)[:9], list(arrays)[9:])):
            safetensors.write(create(f"{i}.safetensors"), {name: arrays[name] for name in part})
            places |= dict.fromkeys(part, f"{i}.safetensors")
    (base / "model.safetensors").unlink()
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": change(places)}))


def test_a_base_in_several_files(base):
    expected = logits(load_model(base))
    shard(base)
    assert (logits(load_model(base)) == expected).all()
    (base / "1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"1.safetensors"):
        load_model(base)


@pytest.mark.parametrize("change", [
    lambda places: {**places, "model.decoder.final_layer_norm.bias": "0.safetensors"},
    lambda places: {**places, "more": "0.safetensors"}, lambda places: dict(list(places.items())[:-1]),
    lambda places: {**places, "more": "../base/0.safetensors"}, lambda places: {**places, "more": 3},
    lambda places: []])
def test_an_index_that_does_not_fit_is_refused(base, change):
    shard(base, change)
    with pytest.raises(ValueError, match=r"model.safetensors.index.json"):
        load_model(base)


def test_pickles_are_never_opened(base, adapter):
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="a pickle, which could run any code"):
        load_model(base)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ValueError, match="a pickle, which could run any code"):
        load_adapter(small_gpt(), adapter)


@pytest.mark.parametrize("text", ["{", "[1]", "", "\x00", "[" * 100_000])
def test_a_config_that_is_no_json_object_is_refused(base, adapter, text):
    model = load_model(base)
    (base / "config.json").write_text(text)
    (adapter / "adapter_config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: (not valid JSON|expected a JSON object)"):
        load_model(base)
    with pytest.raises(ValueError, match=r"adapter_config\.json: (not valid JSON|expected a JSON object)"):
        load_adapter(model, adapter)


# Adapters that do not fit


def refused(folder, model, says):
    """load_adapter raises a ValueError that says so, and the model is as it was."""
    before, modules = numbers(model), list(model.named_modules())
    with pytest.raises(ValueError, match=says):
        load_adapter(model, folder)
    assert numbers(model) == before and list(model.named_modules()) == modules


@pytest.mark.parametrize(("option", "value"), [
    ("modules_to_save", ["embed_tokens"]), ("bias", "all"), ("bias", "lora_only"), ("init_lora_weights", "pissa"),
    ("init_lora_weights", "pissa_niter_4"), ("init_lora_weights", "olora"), ("layer_replication", [[0, 1]]),
    ("trainable_token_indices", [1]), ("exclude_modules", ["v_proj"]), ("target_parameters", ["weight"]),
    ("use_qalora", True), ("lora_bias", True), ("layers_pattern", "blocks"), ("layers_pattern", "layers"),
    ("exclude_modules", r".*q_proj"), ("init_lora_weights", "loftq"), ("enable_lora", [True, False, True]), ("alora_invocation_tokens", [1]), ("use_something_new", True),
    ("peft_type", "LOHA"), ("megatron_config", {"a": 1})])
def test_options_that_would_change_the_result_are_refused_by_name(base, adapter, option, value):
    edit(adapter / "adapter_config.json", **{option: value})
    refused(adapter, load_model(base), f"{option} is {value!r}".replace("[", r"\[").replace("(", r"\("))


@pytest.mark.parametrize(("option", "value"), [
    ("fan_in_fan_out", True), ("merge_weights", True), ("corda_config", {"corda_method": "kpm"}), ("eva_config", {"rho": 2}),
    ("loftq_config", {"loftq_bits": 4}), ("lora_ga_config", {"scale": "stable"}), ("ensure_weight_tying", True),
    ("exclude_modules", ["fc1"]), ("exclude_modules", r".*fc\d"), ("init_lora_weights", "mica"), ("runtime_config", {"a": 1}),
    ("qalora_group_size", 8), ("layers_pattern", ""), ("layers_to_transform", []), ("modules_to_save", []),
    ("layer_replication", None), ("use_something_new", False)])
def test_options_without_effect_are_let_through(base, adapter, option, value):
    model = load_model(base)
    load_adapter(model, adapter)
    edit(adapter / "adapter_config.json", **{option: value})
    again = load_model(base)
    load_adapter(again, adapter)
    assert (logits(again) == logits(model)).all()


@pytest.mark.parametrize(("changes", "says"), [
    ({"lora_alpha": None}, "lacks lora_alpha"), ({"r": None}, "lacks r"), ({"peft_type": None}, "lacks peft_type"),
    ({"target_modules": None}, "lacks target_modules"),
    ({"r": 3}, "r is 3, but the weights beside it were saved with 2"),
    ({"lora_alpha": 8}, "lora_alpha is 8, but the weights beside it were saved with 6"),
    ({"use_rslora": True}, "use_rslora is True, but the weights beside it were saved with False"),
    ({"use_dora": True}, "use_dora is True, but the weights beside it were saved with False"),
    ({"alpha_pattern": {"q_proj": 1}}, "alpha_pattern is"),
])
def test_a_config_that_disagrees_with_its_weights_is_refused(base, adapter, changes, says):
    edit(adapter / "adapter_config.json", **changes)
    refused(adapter, load_model(base), says)


@pytest.mark.parametrize(("changes", "says"), [
    ({"r": 3}, r"the rank 3, but its lora_A is \(2, 6\)"), ({"r": 0}, "r must be"), ({"r": "2"}, "r must be"),
    ({"rank_pattern": {"v_proj": 1}}, r"the rank 1, but its lora_A is \(2, 6\)"),
    ({"lora_alpha": "8"}, r"adapter_config\.json"), ({"lora_dropout": 1.5}, "lora_dropout"),
    ({"use_dora": True}, "missing: layers.0.self_attn.q_proj.lora_magnitude_vector"),
    ({"target_modules": ["q_proj"]}, "unexpected: layers.0.self_attn.v_proj.lora_A"),
    ({"target_modules": ["q_proj", "v_proj", "fc1"]}, "missing: layers.0.fc1.lora_A"),
    ({"target_modules": ["c_attn"]}, "names no Linear layer"), ({"target_modules": "("}, r"adapter_config\.json"),
    ({"target_modules": 5}, r"adapter_config\.json"), ({"use_rslora": "false"}, "use_rslora is 'false'"),
    ({"target_modules": [5]}, r"adapter_config\.json"), ({"rank_pattern": "x"}, r"adapter_config\.json"),
    ({"layers_to_transform": "a"}, "names no Linear layer"), ({"lora_dropout": "x"}, r"adapter_config\.json"),
    ({"rank_pattern": {"(": 4}}, r"adapter_config\.json"),
    ({"rank_pattern": [4]}, r"adapter_config\.json"), ({"layers_to_transform": 1}, "unexpected: layers.0"),
    ({"layers_to_transform": ["0"]}, r"names no Linear layer of this model in the layers \['0'\]"),
    ({"layers_to_transform": [0], "target_modules": r".*q_proj"}, "layers_to_transform goes with a list of names"),
    ({"layers_to_transform": [0], "target_modules": "all-linear"}, "layers_to_transform goes with a list of names"),
    ({"layers_to_transform": [0], "layers_pattern": "blocks"}, "names no Linear layer"),
    ({"lora_alpha": float("nan")}, "lora_alpha must be finite"), ({"lora_alpha": float("inf")}, "must be finite"),
    ({"target_modules": ["q_proj", "v_proj", "embed_tokens"]}, "names model.decoder.embed_tokens, which here is the emb"),
    ({"target_modules": ["q_proj", "v_proj", "lm_head"]}, "names lm_head, which here is the embedding, or tied to it"),
])
def test_a_config_that_disagrees_with_tensors_of_no_record_is_refused(base, adapter, changes, says):
    rewrite(adapter / "adapter_model.safetensors", dict)
    edit(adapter / "adapter_config.json", **changes)
    refused(adapter, load_model(base), says)


@pytest.mark.parametrize(("change", "says"), [
    (lambda a: dict(list(a.items())[1:]), r"missing: layers.0.self_attn.\w_proj.lora_A"),
    (lambda a: {**a, "base_model.model.lm_head.lora_A.weight": np.ones((2, 6))},
     "unexpected: base_model.model.lm_head.lora_A.weight"),
    (lambda a: {k: v.T for k, v in a.items()}, "lora_A is"),
    (lambda a: {k: v[:, :-1] if "lora_A" in k else v for k, v in a.items()}, r"is \(2, 5\), expected \(2, 6\)"),
    (lambda a: {k.removeprefix("base_model.model."): v for k, v in a.items()}, "no name begins with base_model.model."),
    (lambda a: {}, "missing"),
])
def test_adapter_weights_that_do_not_fit_are_refused(base, adapter, change, says):
    rewrite(adapter / "adapter_model.safetensors", change)
    refused(adapter, load_model(base), says)


@pytest.mark.parametrize("text", ["{", "5", "[1]", "[" * 100_000])
def test_a_bad_record_of_settings_is_refused(base, adapter, text):
    path = adapter / "adapter_model.safetensors"
    arrays = dict(safetensors.read(path)[0])
    with atomic.atomic_write(adapter) as create:
        safetensors.write(create(path.name), arrays, {"settings": text})
    refused(adapter, load_model(base), "bad record of settings")


def test_an_adapter_for_another_base_is_refused(base, adapter):
    refused(adapter, small_gpt(seed=1), "made for another base .*base weights of this model")
    refused(adapter, small_gpt(d_ff=10), "made for another base .*base shapes of this model")
    load_adapter(small_gpt(seed=1), adapter, check_base=False)
    same_in_float64 = load_model(base, dtype=np.float64)
    load_adapter(same_in_float64, adapter)  # more digits of the same numbers are the same base
    merged = load_model(base)
    load_adapter(merged, adapter)
    lora.merge(merged)
    lora.remove(merged)
    refused(adapter, merged, "made for another base")


@pytest.mark.parametrize("dtype", [np.float16, "bfloat16"])
def test_a_rounded_copy_of_a_base_is_the_same_base(base, adapter, dtype):
    def rounded(array):
        if dtype != "bfloat16":
            return array.astype(dtype)
        scale = 2.0 ** (np.floor(np.log2(np.maximum(abs(array), 1e-30))) - 7)
        return (np.round(array / scale) * scale).astype(np.float32)

    rewrite(base / "model.safetensors", lambda arrays: {name: rounded(a) for name, a in arrays.items()})
    load_adapter(load_model(base), adapter)
    rewrite(base / "model.safetensors", lambda arrays: {name: a * 1.01 for name, a in arrays.items()})
    refused(adapter, load_model(base), "made for another base .*base weights of this model")


def test_one_tensor_under_two_names_is_refused(base, adapter):
    name = "model.decoder.layers.0.fc1.weight"
    model = load_model(base)
    rewrite(base / "model.safetensors", lambda a: {**a, name.removeprefix("model."): a[name]})
    with pytest.raises(ValueError, match=r"layers.0.fc1.weight is there under two names, of which decoder.layers.0.fc1"):
        load_model(base)
    rewrite(adapter / "adapter_model.safetensors", lambda a: {
        **a, **{key.replace("model.model.decoder", "model.decoder"): array for key, array in a.items()}})
    refused(adapter, model, r"layers.0.self_attn.q_proj.lora_A is there under two names")


def test_missing_and_unexpected_names_are_both_shown(base, adapter):
    for old, new in ((".lora_A.", ".lora_A.default."), ("lora_A", "lora_down"), ("base_model.model.", "base_model.model.x.")):
        folder = adapter.parent / new
        shutil.copytree(adapter, folder)
        rewrite(folder / "adapter_model.safetensors", lambda a, o=old, n=new: {k.replace(o, n): v for k, v in a.items()})
        refused(folder, load_model(base), rf"(?s)missing: layers.0.self_attn.q_proj.lora_A.*unexpected: .*{new}")
    rewrite(base / "model.safetensors", lambda a: {f"_orig_mod.{k}": v for k, v in a.items()})
    edit(base / "config.json")
    with pytest.raises(ValueError, match="vocab_size is 7, but the weights beside it have 0") as error:
        load_model(base)
    assert "_orig_mod" in str(error.value)


def test_what_is_missing_or_of_another_kind_is_said(base, adapter, tmp_path):
    model, file = load_model(base), tmp_path / "file"
    file.write_bytes(b"x")
    (base / "model.safetensors").rename(base / "pytorch_model-00001-of-00002.bin")
    for path, says in ((base, "only pytorch_model-00001-of-00002.bin, a pickle"), (tmp_path / "none", "there is no such file"),
                       ("smol", "smol/config.json: there is no such file; is smol the folder .* Nothing is downloaded")):
        with pytest.raises(FileNotFoundError, match=says):
            load_model(path)
    with pytest.raises(ValueError, match=r"file: not a GGUF file: it begins with b'x'.*goes by the name of its folder"):
        load_model(file)
    (adapter / "adapter_model.safetensors").rename(adapter / "adapters.safetensors")
    for path, says in ((adapter, "no adapter_model.safetensors, but adapters.safetensors: not the layout of PEFT"),
                       (file, "there is no such file"), (tmp_path / "none", "there is no such file")):
        with pytest.raises(FileNotFoundError, match=says):
            load_adapter(model, path)
    (base / "config.json").unlink()
    (base / "config.json").mkdir()
    with pytest.raises(ValueError, match=r"config\.json: a folder, where a file is expected"):
        load_model(base)
    for write in (lambda: save_model(model, file), lambda: save_adapter(adapted(model), file / "adapter")):
        with pytest.raises(FileExistsError, match="is a file; expected a folder to write to"):
            write()


NOT_FILES = {  # what stands in the place of a file, and what is said of it
    "a folder": (lambda path: path.mkdir(), ValueError, "a folder, where a file is expected"),
    "a link that leads nowhere": (lambda path: path.symlink_to("gone"), FileNotFoundError, "a link to gone, which is not"),
    "a Git LFS pointer": (lambda path: path.write_bytes(atomic.LFS + b".github.com/spec/v1\n"), ValueError, "git lfs pull"),
    "a pipe": (lambda path: os.mkfifo(path), ValueError, "a pipe or a device, where a file is expected"),
}


@pytest.mark.parametrize(("put", "error", "says"), NOT_FILES.values(), ids=NOT_FILES.keys())
def test_what_stands_in_the_place_of_a_file_is_named(base, adapter, put, error, says):
    model = load_model(base)
    before = numbers(model)
    for folder, name, load in ((base, "config.json", load_model), (base, "model.safetensors", load_model),
                               (adapter, "adapter_config.json", lambda folder: load_adapter(model, folder)),
                               (adapter, "adapter_model.safetensors", lambda folder: load_adapter(model, folder))):
        (folder / name).rename(folder / "kept")
        try:
            put(folder / name)
        except (AttributeError, OSError):
            pytest.skip("this system has no such thing")
        with pytest.raises(error, match=rf"{name}: .*{says}"):
            load(folder)
        (folder / name).rmdir() if (folder / name).is_dir() else (folder / name).unlink()
        (folder / "kept").rename(folder / name)
    assert numbers(model) == before


def test_an_adapter_is_not_taken_for_a_model(adapter):
    with pytest.raises(FileNotFoundError, match="an adapter, without the model that it is for"):
        load_model(adapter)


def test_a_long_value_is_cut_in_an_error(base, adapter):
    model = load_model(base)
    edit(adapter / "adapter_config.json", something="x" * 1_000_000)
    with pytest.raises(ValueError, match="something is 'xxx") as refused:
        load_adapter(model, adapter)
    assert len(str(refused.value)) < 1000
    for name in ("activation_function", "hidden_size", "model_type"):
        edit(base / "config.json", **{name: "x" * 1_000_000})
        with pytest.raises(ValueError, match=f"{name} is 'xxx") as refused:
            load_model(base)
        assert len(str(refused.value)) < 1000


def test_what_a_config_lacks_is_named_with_the_kind_of_model(base):
    edit(base / "config.json", model_type="llama")
    with pytest.raises(ValueError, match="lacks intermediate_size, which a model of type 'llama' has"):
        load_model(base)


def test_what_came_with_a_model_goes_on_with_it(base, tmp_path):
    """Ids of special tokens, generation settings and the tokenizer: through load, merge, remove and save."""
    save_model(small_gpt(), base, data.CharTokenizer("abcdefg"))
    edit(base / "config.json", bos_token_id=0, eos_token_id=[2, 3])
    (base / "generation_config.json").write_text('{"eos_token_id": [2, 3], "temperature": 0.6}')
    model = adapted(load_model(base))
    assert (model.tokenizer, model.lacking.tolist(), model.pad_id) == ("char", [], None)
    lora.merge(model)
    lora.remove(model)
    save_model(model, tmp_path / "again")
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (0, [2, 3])
    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (base / name).read_bytes()
    save_model(model, tmp_path / "other", data.CharTokenizer("gfedcba"))
    assert load_tokenizer(tmp_path / "other").alphabet == "gfedcba"


def test_a_name_in_use_is_refused(base, adapter):
    model = load_model(base)
    load_adapter(model, adapter)
    refused(adapter, model, "expected a new name, got 'default'")
    lora.remove(model)
    load_adapter(model, adapter)


def test_pissa_and_changed_scalings_cannot_be_saved_as_they_are(tmp_path):
    with pytest.raises(ValueError, match="pissa_to_lora"):
        save_adapter(adapted(small_gpt(), variants.PissaLinear), tmp_path)
    model = adapted(small_gpt())
    lora.lora_layers(model)["layers.1.self_attn.v_proj"].scaling = 7
    with pytest.raises(ValueError, match=r"scaling of layers.1.self_attn.v_proj is 7, its config gives 3.0"):
        save_adapter(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_targets_are_read_as_peft_reads_them(base, adapter):
    """A regular expression, whole names, part of the layers: what PEFT writes for the same tensors."""
    rewrite(adapter / "adapter_model.safetensors", lambda a: {k: v for k, v in a.items() if "1.self_attn.q" in k})
    for changes in ({"target_modules": r"model\.decoder\.layers\.1\..*q_proj"},
                    {"target_modules": ["model.decoder.layers.1.self_attn.q_proj"]},
                    {"target_modules": ["1.self_attn.q_proj"]}, {"target_modules": r".*\.1\.self_attn\.q_proj"},
                    {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "decoder.layers"},
                    {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["h", "layers"]},
                    {"target_modules": ["model.decoder.layers.1.self_attn.q_proj"], "layers_to_transform": [0]},
                    {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
                    {"target_modules": ["q_proj"], "layers_to_transform": 1}):
        folder = adapter.parent / "other"
        shutil.copytree(adapter, folder, dirs_exist_ok=True)
        edit(folder / "adapter_config.json", **changes)
        assert load_adapter(load_model(base), folder) == ["layers.1.self_attn.q_proj"]


# The real thing, where it is installed


@live("torch", "transformers", "peft")
def test_live_round_trip(tmp_path):
    import peft
    import torch
    import transformers
    transformers.utils.logging.disable_progress_bar()
    tokenizer = data.CharTokenizer()
    model = small_gpt(vocab_size=len(tokenizer), context=32, d_model=16, d_ff=24)
    save_model(model, tmp_path / "base", tokenizer)
    for name, layer, settings in (
            ("lora", lora.LoraLinear, {}), ("dora", variants.DoraLinear, {"target_modules": "fc1"}),
            ("mixed", lora.LoraLinear, {"rank_pattern": {"layers.1.self_attn.q_proj": 3}, "use_rslora": True,
                                        "alpha_pattern": {"v_proj": 1}})):
        ours = adapted(load_model(tmp_path / "base"), layer, **settings)
        save_adapter(ours, tmp_path / name, base=tmp_path / "base")
        theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", output_loading_info=True)
        assert not any(info.values()), info
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # PEFT's way to say that keys are missing or unexpected
            theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / name)
        text = "Open in the ecosystem,\n and back."[:30]
        ids = transformers.AutoTokenizer.from_pretrained(tmp_path / "base")(text, return_tensors="pt")["input_ids"]
        assert ids[0].tolist() == tokenizer.encode(text).tolist()
        with torch.no_grad():
            expected = theirs(ids).logits.numpy()
        np.testing.assert_allclose(ours(ids.numpy()).data, expected, rtol=0, atol=1e-12)
        theirs.save_pretrained(tmp_path / "theirs" / name)
        back = load_model(tmp_path / "base")
        load_adapter(back, tmp_path / "theirs" / name)
        np.testing.assert_allclose(back(ids.numpy()).data, expected, rtol=0, atol=1e-12)
        theirs.merge_and_unload().save_pretrained(tmp_path / "merged" / name)
        merged = load_model(tmp_path / "merged" / name)
        np.testing.assert_allclose(merged(ids.numpy()).data, expected, rtol=0, atol=1e-12)
