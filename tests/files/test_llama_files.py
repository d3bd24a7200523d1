"""Llamas from Transformers' folders: our numbers against those that reference/make_llama.py stored, and what is refused."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from lora_np import LoraConfig, lora, optim
from lora_np.checkpoint import load_adapter, load_model, safetensors, save_adapter, save_model
from lora_np.train import next_token_loss

FOLDER = Path(__file__).parents[1] / "reference" / "llama"
EXPECTED, VERSIONS = safetensors.read(FOLDER / "expected.safetensors")
IDS, TARGETS = (EXPECTED[name].astype(int) for name in ("ids", "targets"))
NAMES = ["tied", "untied", "llama3", "qwen2", "qwen3"]


def expected(prefix):
    return {key.removeprefix(prefix + "/"): array for key, array in EXPECTED.items() if key.startswith(prefix + "/")}


def adapted(name):
    model = load_model(FOLDER / name, dtype=np.float64)
    load_adapter(model, FOLDER / name / "adapter")
    return model


def assert_same(got, wanted, atol):
    assert got.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(got[name], wanted[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_logits_loss_gradients_and_twenty_steps(name):
    np.testing.assert_allclose(load_model(FOLDER / name, dtype=np.float64)(IDS).data, EXPECTED[f"{name}/base"], rtol=0,
                               atol=1e-12)
    model = adapted(name)
    np.testing.assert_allclose(model(IDS).data, EXPECTED[f"{name}/logits"], rtol=0, atol=1e-12)
    loss = next_token_loss(model, IDS, TARGETS)
    np.testing.assert_allclose(loss.item(), EXPECTED[f"{name}/loss"], rtol=0, atol=1e-12)
    loss.backward()
    trained = {key: t for key, t in model.named_parameters() if t.requires_grad}
    assert_same({key: t.grad for key, t in trained.items()}, expected(f"{name}/gradient"), 1e-12)
    optimizer = optim.AdamW(model.trainable_parameters(), lr=1e-2, weight_decay=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        next_token_loss(model, IDS, TARGETS).backward()
        optimizer.step()
    assert_same({key: t.data for key, t in trained.items()}, expected(f"{name}/after20"), 1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_folders_and_adapters_come_back_the_same_from_our_files(name, tmp_path):
    model = adapted(name)
    logits = model(IDS).data
    save_adapter(model, tmp_path / "adapter")
    lora.remove(model)
    save_model(model, tmp_path / "base")
    again = load_model(tmp_path / "base")
    assert again.config == model.config and again.embed_tokens.weight.dtype == np.float64
    load_adapter(again, tmp_path / "adapter")
    assert (again(IDS).data == logits).all()
    theirs, ours = (safetensors.read(folder / "adapter_model.safetensors")[0] for folder in (
        FOLDER / name / "adapter", tmp_path / "adapter"))
    assert theirs.keys() == ours.keys() and all((theirs[key] == ours[key]).all() for key in ours)
    theirs, ours = (json.loads((folder / "config.json").read_text()) for folder in (FOLDER / name, tmp_path / "base"))
    changed = {"dtype", "transformers_version", "initializer_range", "use_cache", "pretraining_tp", "layer_types",
               "max_window_layers", "sliding_window"}
    assert {key: ours[key] for key in theirs.keys() - changed} == {key: theirs[key] for key in theirs.keys() - changed}
    assert ((tmp_path / "base" / "generation_config.json").read_bytes()
            == (FOLDER / name / "generation_config.json").read_bytes())
