"""Our numbers against those of PyTorch, Transformers and PEFT, stored in reference/ by the script there."""

from pathlib import Path

import numpy as np
import pytest

from lora_np import LoraConfig, lora, optim
from lora_np.checkpoint import load_adapter, load_model, safetensors, save_adapter, save_model
from lora_np.extras import adapters, variants
from lora_np.train import next_token_loss

FOLDER = Path(__file__).parents[1] / "reference"
EXPECTED, VERSIONS = safetensors.read(FOLDER / "expected.safetensors")
IDS, TARGETS = (EXPECTED[f"inputs/{name}"].astype(int) for name in ("ids", "targets"))
ADAPTERS = ["lora", "rslora", "patterns", "dora", "second"]


def expected(prefix):
    return {key.removeprefix(prefix + "/"): array for key, array in EXPECTED.items() if key.startswith(prefix + "/")}


def adapted(name):
    model = load_model(FOLDER / "base")
    load_adapter(model, FOLDER / name)
    return model


def assert_same(got, wanted, atol):
    assert got.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(got[name], wanted[name], rtol=0, atol=atol, err_msg=name)


def trained(model):
    return {name: t.data for name, t in model.named_parameters() if t.requires_grad}


def steps(model, optimizer, n=20):
    for _ in range(n):
        optimizer.zero_grad()
        next_token_loss(model, IDS, TARGETS).backward()
        optimizer.step()
    return trained(model)


def test_base_logits():
    model = load_model(FOLDER / "base")
    assert model.embed_tokens.weight.dtype == np.float64
    np.testing.assert_allclose(model(IDS).data, EXPECTED["base/logits"], rtol=0, atol=1e-12)


def test_a_base_in_bfloat16_and_in_several_files():
    model = load_model(FOLDER / "sharded", dtype=np.float64)
    np.testing.assert_allclose(model(IDS).data, EXPECTED["sharded/logits"], rtol=0, atol=1e-12)
    assert load_model(FOLDER / "sharded").embed_tokens.weight.dtype == np.float32


@pytest.mark.parametrize("name", ADAPTERS)
def test_logits_loss_and_gradients(name):
    model = adapted(name)
    np.testing.assert_allclose(model(IDS).data, EXPECTED[f"{name}/logits"], rtol=0, atol=1e-12)
    loss = next_token_loss(model, IDS, TARGETS)
    np.testing.assert_allclose(loss.item(), EXPECTED[f"{name}/loss"], rtol=0, atol=1e-12)
    loss.backward()
    gradients = {key: t.grad for key, t in model.named_parameters() if t.requires_grad}
    assert_same(gradients, expected(f"{name}/gradient"), 1e-12)
    assert all(t.grad is None for t in model.parameters() if not t.requires_grad)


@pytest.mark.parametrize("name", ADAPTERS)
def test_merged_weights(name):
    model = adapted(name)
    lora.merge(model)
    merged = {path: layer.weight.data for path, layer in lora.lora_layers(model).items()}
    assert_same(merged, expected(f"{name}/merged"), 1e-12)
    np.testing.assert_allclose(model(IDS).data, EXPECTED[f"{name}/logits"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ADAPTERS)
def test_twenty_steps_of_adamw(name):
    model = adapted(name)
    optimizer = optim.AdamW(model.trainable_parameters(), lr=1e-2, weight_decay=0.01)
    assert_same(steps(model, optimizer), expected(f"{name}/after20"), 1e-9)


def test_lora_plus():
    model = adapted("lora")
    optimizer = variants.LoraPlus(model, lr=1e-3, ratio=16, weight_decay=0.01)
    assert_same(steps(model, optimizer), expected("loraplus/after20"), 1e-9)


def test_combined_adapters():
    model = load_model(FOLDER / "base")
    for name in ("lora", "second"):
        load_adapter(model, FOLDER / name, name)
    adapters.combine(model, "both", {"lora": 0.75, "second": -0.5})
    np.testing.assert_allclose(model(IDS).data, EXPECTED["combined/logits"], rtol=0, atol=1e-12)


def test_pissa():
    # In float32, as PEFT has it; singular vectors are unique up to their sign, so B A is compared, and |A|.
    model = load_model(FOLDER / "base", dtype=np.float32)
    lora.add_lora(model, LoraConfig(r=4, lora_alpha=8), variants.PissaLinear)
    start, layers = expected("pissa/start"), lora.lora_layers(model)
    residual = {path: layer.weight.data for path, layer in layers.items()}
    assert_same(residual, expected("pissa/residual"), 2e-6)
    for path, layer in layers.items():
        A, B = start[f"{path}.lora_A"], start[f"{path}.lora_B"]
        np.testing.assert_allclose(layer.lora_B.data @ layer.lora_A.data, B @ A, rtol=0, atol=2e-6)
        np.testing.assert_allclose(abs(layer.lora_A.data), abs(A), rtol=0, atol=1e-4)
    steps(model, optim.AdamW(model.trainable_parameters(), lr=1e-2, weight_decay=0.01))
    after = expected("pissa/after20")
    for path, layer in layers.items():
        B_A = after[f"{path}.lora_B"] @ after[f"{path}.lora_A"]
        np.testing.assert_allclose(layer.lora_B.data @ layer.lora_A.data, B_A, rtol=0, atol=1e-4)
    np.testing.assert_allclose(model(IDS).data, EXPECTED["pissa/logits"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ADAPTERS)
def test_what_they_wrote_comes_back_the_same_from_our_files(name, tmp_path):
    model = adapted(name)
    logits = model(IDS).data
    save_adapter(model, tmp_path / "adapter")
    lora.remove(model)
    save_model(model, tmp_path / "base")
    again = load_model(tmp_path / "base")
    load_adapter(again, tmp_path / "adapter")
    assert (again(IDS).data == logits).all()
    theirs, _ = safetensors.read(FOLDER / name / "adapter_model.safetensors")
    ours, _ = safetensors.read(tmp_path / "adapter" / "adapter_model.safetensors")
    assert theirs.keys() == ours.keys() and all((theirs[key] == ours[key]).all() for key in ours)


def test_reference_is_small():
    files = [path for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert VERSIONS.keys() == {"torch", "transformers", "peft"}
