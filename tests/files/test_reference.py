"""Our numbers against those of PyTorch, Transformers and PEFT, stored in reference/ by the script there."""

import numpy as np
import pytest

from lora_np import LoraConfig, lora, optim
from lora_np.checkpoint import load_adapter, load_model
from lora_np.extras import adapters, variants
from tests.files.stored import REFERENCE, Stored, check_round_trip

STORED = Stored(REFERENCE / "expected.safetensors", "inputs/ids", "inputs/targets")
IDS = STORED.ids
ADAPTERS = ["lora", "rslora", "patterns", "dora", "second"]


def adapted(name):
    model = load_model(REFERENCE / "base")
    load_adapter(model, REFERENCE / name)
    return model


def test_base_logits():
    model = load_model(REFERENCE / "base")
    assert model.embed_tokens.weight.dtype == np.float64
    STORED.check(model(IDS).data, "base/logits", 1e-12)


def test_a_base_in_bfloat16_and_in_several_files():
    model = load_model(REFERENCE / "sharded", dtype=np.float64)
    STORED.check(model(IDS).data, "sharded/logits", 1e-12)
    assert load_model(REFERENCE / "sharded").embed_tokens.weight.dtype == np.float32


@pytest.mark.parametrize("name", ADAPTERS)
def test_logits_loss_and_gradients(name):
    STORED.check_gradients(adapted(name), name)


@pytest.mark.parametrize("name", ADAPTERS)
def test_merged_weights(name):
    model = adapted(name)
    lora.merge(model)
    STORED.check({path: layer.weight.data for path, layer in lora.lora_layers(model).items()}, f"{name}/merged", 1e-12)
    STORED.check(model(IDS).data, f"{name}/logits", 1e-12)


@pytest.mark.parametrize("name", ADAPTERS)
def test_twenty_steps_of_adamw(name):
    model = adapted(name)
    optimizer = optim.AdamW(model.trainable_parameters(), lr=1e-2, weight_decay=0.01)
    STORED.check(STORED.steps(model, optimizer), f"{name}/after20", 1e-9)


def test_lora_plus():
    model = adapted("lora")
    optimizer = variants.LoraPlus(model, lr=1e-3, ratio=16, weight_decay=0.01)
    STORED.check(STORED.steps(model, optimizer), "loraplus/after20", 1e-9)


def test_combined_adapters():
    model = load_model(REFERENCE / "base")
    for name in ("lora", "second"):
        load_adapter(model, REFERENCE / name, name)
    adapters.combine(model, "both", {"lora": 0.75, "second": -0.5})
    STORED.check(model(IDS).data, "combined/logits", 1e-12)


def test_pissa():
    # In float32, as PEFT has it; singular vectors are unique up to their sign, so B A is compared, and |A|.
    model = load_model(REFERENCE / "base", dtype=np.float32)
    lora.add_lora(model, LoraConfig(r=4, lora_alpha=8), variants.PissaLinear)
    start, layers = STORED.part("pissa/start"), lora.lora_layers(model)
    STORED.check({path: layer.weight.data for path, layer in layers.items()}, "pissa/residual", 2e-6)
    for path, layer in layers.items():
        A, B = start[f"{path}.lora_A"], start[f"{path}.lora_B"]
        np.testing.assert_allclose(layer.lora_B.data @ layer.lora_A.data, B @ A, rtol=0, atol=2e-6)
        np.testing.assert_allclose(abs(layer.lora_A.data), abs(A), rtol=0, atol=1e-4)
    STORED.steps(model, optim.AdamW(model.trainable_parameters(), lr=1e-2, weight_decay=0.01))
    after = STORED.part("pissa/after20")
    for path, layer in layers.items():
        B_A = after[f"{path}.lora_B"] @ after[f"{path}.lora_A"]
        np.testing.assert_allclose(layer.lora_B.data @ layer.lora_A.data, B_A, rtol=0, atol=1e-4)
    STORED.check(model(IDS).data, "pissa/logits", 1e-3)


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_they_wrote_comes_back_the_same_from_our_files(name, tmp_path):
    check_round_trip(adapted(name), IDS, REFERENCE / name, tmp_path)


def test_reference_is_small():
    files = [path for path in REFERENCE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert STORED.versions.keys() == {"torch", "transformers", "peft"}
