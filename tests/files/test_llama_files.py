"""Llamas from Transformers' folders: our numbers against those that reference/make_llama.py stored, and what is refused."""

import json
import shutil
import warnings

import numpy as np
import pytest

from lora_np import Llama, LlamaConfig, LoraConfig, lora, optim
from lora_np.checkpoint import atomic, load_adapter, load_model, load_tokenizer, safetensors, save_adapter, save_model
from lora_np.nn import Linear
from tests.files.stored import REFERENCE, Stored, check_round_trip, edit, rewrite
from tests.helpers import live

FOLDER = REFERENCE / "llama"
STORED = Stored(FOLDER / "expected.safetensors")
IDS = STORED.ids
NAMES = ["tied", "untied", "llama3", "qwen2", "qwen3"]


def adapted(name):
    model = load_model(FOLDER / name, dtype=np.float64)
    load_adapter(model, FOLDER / name / "adapter")
    return model


@pytest.mark.parametrize("name", NAMES)
def test_logits_loss_gradients_and_twenty_steps(name):
    model = adapted(name)
    STORED.check_gradients(model, name)
    optimizer = optim.AdamW(model.trainable_parameters(), lr=1e-2, weight_decay=0.01)
    STORED.check(STORED.steps(model, optimizer), f"{name}/after20", 1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_folders_and_adapters_come_back_the_same_from_our_files(name, tmp_path):
    model = adapted(name)
    assert model.embed_tokens.weight.dtype == np.float64
    check_round_trip(model, IDS, FOLDER / name / "adapter", tmp_path)
    theirs, ours = (json.loads((folder / "config.json").read_text()) for folder in (FOLDER / name, tmp_path / "base"))
    changed = {"dtype", "transformers_version", "initializer_range", "use_cache", "pretraining_tp", "layer_types",
               "max_window_layers", "sliding_window"}
    assert {key: ours[key] for key in theirs.keys() - changed} == {key: theirs[key] for key in theirs.keys() - changed}
    assert ((tmp_path / "base" / "generation_config.json").read_bytes()
            == (FOLDER / name / "generation_config.json").read_bytes())


# What is not supported, by its name


@pytest.fixture
def base(tmp_path):
    shutil.copytree(FOLDER / "qwen2", tmp_path / "qwen2")
    return shutil.copytree(FOLDER / "tied", tmp_path / "base")


@pytest.mark.parametrize(("changes", "says"), [
    ({"model_type": "gemma3"}, "model_type is 'gemma3'; supported here: opt, llama, qwen2, qwen3"),
    ({"model_type": None}, "model_type is None"), ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ({"attention_bias": True}, "attention_bias is True"), ({"mlp_bias": True}, "mlp_bias is True"),
    ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling of type 'yarn' is not supported"),
    ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, "rope_scaling of type 'linear'"),
    ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "rope_parameters is {'full_attention'"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling lacks low_freq_factor, high_freq_factor"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"), ({"attention_dropout": 0.1}, "attention_dropout is 0.1"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "use_sliding_window: some layers see only"),
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config is {'quant_method': 'gptq'"),
    ({"intermediate_size": None}, "lacks intermediate_size"), ({"rms_norm_eps": "x"}, "norm_eps"),
    ({"num_hidden_layers": 10 ** 9}, "num_hidden_layers is 1000000000, but the weights beside it have 2"),
    ({"num_key_value_heads": 3}, "n_heads 4 is not a multiple of n_kv_heads 3"), ({"vocab_size": "30"}, "vocab_size is '30'"),
    ({"tie_word_embeddings": False}, "missing: lm_head.weight"), ({"num_attention_heads": 8}, r"q_proj.weight is \(16, 16\), expected \(32, 16\)"),
    ({"head_dim": 5}, "d_head 5 is odd"), ({"model_type": "qwen2"}, "missing: layers.0.self_attn.q_proj.bias"),
    ({"model_type": "qwen3", "head_dim": 4}, "missing: layers.0.self_attn.q_norm.weight"),
])
def test_settings_that_are_not_supported_are_refused_by_their_names(base, changes, says):
    edit(base / "config.json", **changes)
    with pytest.raises(ValueError, match=says) as error:
        load_model(base)
    assert str(error.value).startswith(str(base))


def test_sliding_windows_are_refused_where_they_are_in_use(base):
    folder = base.parent / "qwen2"
    before = load_model(folder)(IDS).data
    for unused in ({"sliding_window": 8}, {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}):
        edit(folder / "config.json", layer_types=None, **unused)
        assert (load_model(folder)(IDS).data == before).all()
    edit(folder / "config.json", use_sliding_window=True, sliding_window=8, max_window_layers=1)
    with pytest.raises(ValueError, match="some layers see only the last 8 positions"):
        load_model(folder)


def test_settings_of_older_files_and_absent_ones_mean_what_they_mean_in_transformers(base):
    old = base.parent / "old"
    shutil.copytree(FOLDER / "llama3", old)
    rope = json.loads((old / "config.json").read_text())["rope_parameters"]
    rope["type"] = rope.pop("rope_type")
    edit(old / "config.json", rope_parameters=None, rope_theta=rope.pop("rope_theta"), rope_scaling=rope)
    assert load_model(old).config == load_model(FOLDER / "llama3").config
    edit(base / "config.json", rope_parameters=None, rms_norm_eps=None, head_dim=None, hidden_act=None)
    config = load_model(base).config
    assert (config.rope_theta, config.norm_eps, config.d_head, config.rope_scaling) == (1e4, 1e-6, 4, None)


def test_names_in_files_of_other_makers_are_understood(base):
    model = load_model(base)
    rewrite(base / "model.safetensors", lambda arrays: {
        "lm_head.weight": arrays["model.embed_tokens.weight"], "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(2),
        **{name.removeprefix("model."): array for name, array in arrays.items()}})
    assert (load_model(base)(IDS).data == model(IDS).data).all()
    rewrite(base / "model.safetensors", lambda arrays: {**arrays, "lm_head.weight": arrays["lm_head.weight"] + 1})
    with pytest.raises(ValueError, match=r"lm_head.weight differs from embed_tokens.weight; by config.json they are one"):
        load_model(base)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtypes_and_shards(base, dtype):
    model = load_model(base)
    assert model.config.dtype is np.float32  # from bfloat16
    arrays = {name: a.astype(dtype) for name, a in safetensors.read(base / "model.safetensors")[0].items()}
    parts = [dict(list(arrays.items())[i::3]) for i in range(3)]
    with atomic.atomic_write(base) as create:
        for i, part in enumerate(parts):
            safetensors.write(create(f"model-{i}.safetensors"), part)
    (base / "model.safetensors").unlink()
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {
        name: f"model-{i}.safetensors" for i, part in enumerate(parts) for name in part}}))
    again = load_model(base)
    assert again.config.dtype is (np.float64 if dtype is np.float64 else np.float32)
    np.testing.assert_allclose(again(IDS).data, model(IDS).data, atol=1e-5 if dtype != np.float16 else 1e-2)
    (base / "model-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"index.json: lists model-1.safetensors, which is not there"):
        load_model(base)


def test_what_files_cannot_say_is_not_saved(tmp_path):
    model = Llama(LlamaConfig(8, 8, 8, 2, 1, 1, 8, qkv_bias=True, qk_norm=True))
    with pytest.raises(ValueError, match="both qkv_bias and qk_norm"):
        save_model(model, tmp_path / "x")
    with pytest.raises(TypeError, match="save_model: expected a Decoder, got Linear"):
        save_model(Linear(2, 2), tmp_path / "x")
    with pytest.raises(ValueError, match="dtype must be a floating point type"):
        load_model(FOLDER / "tied", dtype="int8")
    assert not (tmp_path / "x").exists()


# Targets


def test_all_linear_is_every_layer_but_the_head(tmp_path):
    model = load_model(FOLDER / "untied")
    paths = lora.add_lora(model, LoraConfig(r=1, target_modules="all-linear"))
    assert len(paths) == 14 and "lm_head" not in paths
    save_adapter(model, tmp_path)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert sorted(json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]) == sorted(names)
    edit(tmp_path / "adapter_config.json", target_modules="ALL-LINEAR")
    rewrite(tmp_path / "adapter_model.safetensors", dict)
    assert sorted(load_adapter(load_model(FOLDER / "untied"), tmp_path)) == sorted(paths)


def test_the_head_is_a_target_where_it_is_a_layer_of_its_own(tmp_path):
    model = load_model(FOLDER / "untied", np.float64)
    assert lora.add_lora(model, LoraConfig(r=1, target_modules=["lm_head"])) == ["lm_head"]
    model.lm_head.lora_B.data = np.ones(model.lm_head.lora_B.shape)
    save_adapter(model, tmp_path)
    again = load_model(FOLDER / "untied", np.float64)
    load_adapter(again, tmp_path)
    assert "base_model.model.lm_head.lora_A.weight" in safetensors.read(tmp_path / "adapter_model.safetensors")[0]
    assert (again(IDS).data == model(IDS).data).all()
    for target in ("lm_head", "embed_tokens", "model.embed_tokens"):
        with pytest.raises(ValueError, match=f"target '{target}' names no Linear"):
            lora.add_lora(load_model(FOLDER / "tied"), LoraConfig(target_modules=[target, "q_proj"]))
    with pytest.raises(ValueError, match="names lm_head, which here is the embedding, or tied to it"):
        load_adapter(load_model(FOLDER / "tied"), tmp_path)


def test_a_rank_above_that_of_one_layer_names_it():
    with pytest.raises(ValueError, match=r"layers.0.self_attn.k_proj: r=5 is more than min\(d, k\)=4 of a weight \(4, 16\)"):
        lora.add_lora(load_model(FOLDER / "untied"), LoraConfig(r=5, target_modules=["q_proj", "k_proj"]))


# The real thing, where it is installed


@pytest.fixture
def transformers():
    import transformers
    transformers.utils.logging.disable_progress_bar()
    return transformers


@live("torch", "transformers", "peft")
@pytest.mark.parametrize("name", NAMES)
def test_live_folders_and_adapters_both_ways(transformers, name, tmp_path):
    import peft
    import torch
    model, tolerance = adapted(name), {"rtol": 0, "atol": 1e-4}  # Transformers computes parts in float32
    save_adapter(model, tmp_path / "adapter")
    base = load_model(FOLDER / name, np.float64)
    save_model(base, tmp_path / "base")
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", output_loading_info=True)
    assert not any(info.values()), info
    assert type(theirs).__name__ == type(transformers.AutoModelForCausalLM.from_pretrained(FOLDER / name)).__name__
    with torch.no_grad():
        np.testing.assert_allclose(theirs(torch.tensor(IDS)).logits, base(IDS).data, **tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # PEFT's way to say that keys are missing or unexpected
        theirs = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter")
    with torch.no_grad():
        np.testing.assert_allclose(theirs(torch.tensor(IDS)).logits, model(IDS).data, **tolerance)
    theirs.save_pretrained(tmp_path / "theirs")
    load_adapter(base, tmp_path / "theirs")
    assert (base(IDS).data == model(IDS).data).all()
    merged = theirs.merge_and_unload()
    for kind in ("bfloat16", "float16"):
        merged.to(getattr(torch, kind)).save_pretrained(tmp_path / kind, max_shard_size="6KB")
        assert (tmp_path / kind / "model.safetensors.index.json").exists()
        ours = load_model(tmp_path / kind)
        reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / kind, dtype=torch.float32)
        with torch.no_grad():
            np.testing.assert_allclose(ours(IDS).data, reference(torch.tensor(IDS)).logits, **tolerance)


@live("torch", "transformers")
def test_live_folder_from_a_gguf(transformers, tmp_path):
    import torch
    model = load_model(REFERENCE / "gguf" / "Q4_1.gguf")
    save_model(model, tmp_path)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and theirs.generation_config.eos_token_id == [2]
    with torch.no_grad():
        np.testing.assert_allclose(theirs(torch.tensor(IDS[:, :16])).logits, model(IDS[:, :16]).data, rtol=0, atol=1e-3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = tokenizer.apply_chat_template([{"role": "in", "content": "the hen"}], tokenize=False)
    assert text == "<|im_start|>in\nthe hen<|im_end|>\n" and tokenizer.eos_token == "<|im_end|>"
    assert tokenizer(text)["input_ids"] == load_tokenizer(tmp_path).encode(text).tolist()
