"""Memory on paper against the paper's figures, and against what the engine really keeps."""

import gc
import tracemalloc

import numpy as np
import pytest

from lora_np import GPT, GPTConfig, LoraConfig, lora, optim
from lora_np.checkpoint import save_adapter
from lora_np.extras.budget import MODELS, memory_budget, model_config, readable
from lora_np.train import next_token_loss

EVERY = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def small(dtype=np.float32):
    return GPTConfig(vocab_size=50, context=40, d_model=64, n_heads=4, n_layers=6, d_ff=200, dtype=dtype)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("fc1",), EVERY, ()])
def test_parameters_are_counted_as_in_a_model(targets):
    model = GPT(small())
    if targets:
        lora.add_lora(model, LoraConfig(r=3, target_modules=targets))
    budget = memory_budget(small(), targets, 3)
    assert (budget.trainable, budget.parameters) == lora.count_parameters(model)
    optimizer = optim.AdamW(model.trainable_parameters(), lr=1)
    assert budget.weights == sum(t.data.nbytes for t in model.parameters())
    assert budget.gradients == sum(t.data.nbytes for t in model.trainable_parameters())
    assert budget.optimizer == optimizer.m.nbytes + optimizer.v.nbytes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), EVERY, ()])
def test_activations_are_what_the_engine_keeps(targets, dtype):
    model = GPT(small(dtype))
    if targets:
        lora.add_lora(model, LoraConfig(r=4, target_modules=targets))
    ids = np.random.default_rng(0).integers(0, 50, (8, 40))
    next_token_loss(model, ids, ids)  # fills caches
    gc.collect()
    tracemalloc.start()
    loss = next_token_loss(model, ids, ids)
    measured = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    estimate = memory_budget(small(dtype), targets, 4, np.dtype(dtype).name, batch=8).activations
    assert loss.item() > 0
    assert measured == pytest.approx(estimate, rel=0.05)


OPTIMIZERS = {"adamw": lambda p: optim.AdamW(p, 1e-3), "momentum": lambda p: optim.SGD(p, 1e-3, momentum=0.9),
              "sgd": lambda p: optim.SGD(p, 1e-3)}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("targets", [EVERY, ()])
def test_an_optimizer_holds_what_the_budget_says(name, targets):
    model = GPT(small())
    if targets:
        lora.add_lora(model, LoraConfig(r=8, target_modules=targets))
    parameters = model.trainable_parameters()
    ids = np.random.default_rng(0).integers(0, 50, (2, 40))
    next_token_loss(model, ids, ids).backward()
    for p in parameters:  # a step gives each a new array: counted from before, and not as the optimizer's
        p.data = p.data
    gc.collect()
    tracemalloc.start()
    optimizer = OPTIMIZERS[name](parameters)
    optimizer.step()
    gc.collect()  # until then, Python keeps some of the tuples it has freed
    held = tracemalloc.get_traced_memory()[0] - sum(p.data.nbytes for p in parameters)
    tracemalloc.stop()
    expected = memory_budget(small(), targets, 8, optimizer=name).optimizer
    assert held == pytest.approx(expected, rel=0.02, abs=30_000)


def test_the_file_is_as_long_as_it_says(tmp_path):
    model = GPT(small())
    lora.add_lora(model, LoraConfig(r=4))
    save_adapter(model, tmp_path)
    length = (tmp_path / "adapter_model.safetensors").stat().st_size
    header = int.from_bytes((tmp_path / "adapter_model.safetensors").read_bytes()[:8], "little")
    assert length == memory_budget(small(), r=4).file + 8 + header


def test_gpt3_as_in_the_paper():
    full = memory_budget(model_config("175B"), (), precision="float16")
    adapted = memory_budget(model_config("175B"), r=4, precision="float16")
    assert round(full.file / 1e9) == 349 and adapted.trainable == 18_874_368
    assert round(adapted.file / 2**20) == 36 and adapted.file == 37_748_736
    without_activations = [b.training - b.activations for b in (full, adapted)]
    assert [readable(n) for n in without_activations] == ["1.40 TB", "349.4 GB"]
    assert round(without_activations[0] / 2**40, 2) == 1.27
    assert readable(without_activations[0] - full.gradients) == "1.05 TB"
    assert memory_budget(model_config("175B"), r=1).trainable == 4_718_592


@pytest.mark.parametrize("name", MODELS)
def test_models_have_about_the_size_in_their_name(name):
    said = float(name[:-1]) * {"M": 1e6, "B": 1e9}[name[-1]]
    assert memory_budget(model_config(name), ()).parameters == pytest.approx(said, rel=0.02)


def test_precision_and_optimizer():
    one = {name: memory_budget(small(), precision=name) for name in ("float64", "float32", "float16", "mixed")}
    assert [b.optimizer // b.trainable for b in one.values()] == [16, 8, 4, 12]
    assert one["mixed"].weights == one["float16"].weights == one["float64"].weights // 4
    assert memory_budget(small(), optimizer="sgd").optimizer == 0
    assert memory_budget(small(), batch=3).activations == 3 * memory_budget(small()).activations
    text = str(memory_budget(small(), r=2))
    assert all(line.split()[0] in "weights gradients optimizer activations training file" for line in text.split("\n"))


@pytest.mark.parametrize(("settings", "says"), [
    ({"precision": "int4"}, "precision 'int4' is none of float64"), ({"optimizer": "adam"}, "optimizer 'adam'"),
    ({"targets": ("c_attn",)}, "target 'c_attn'"), ({"r": 0}, "r must be"), ({"r": 65}, "r=65 is more than 64"),
    ({"batch": 0}, "batch must"), ({"context": 41}, "context must"), ({"context": 0}, "context must")])
def test_what_it_does_not_know_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        memory_budget(small(), **settings)


def test_readable():
    assert [readable(n) for n in (0, 999, 1000, 349.2e9, 999.96e9, 1.4e12)] == [
        "0.0 B", "999.0 B", "1.0 kB", "349.2 GB", "1.00 TB", "1.40 TB"]
