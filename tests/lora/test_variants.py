"""LoRA+, PiSSA and DoRA against their definitions; against PEFT's numbers they are held in test_reference.py."""

import numpy as np
import pytest

from lora_np import LoraConfig, Tensor, lora, nn, ops, optim
from lora_np.checkpoint import load_adapter, load_model, save_adapter, save_model
from lora_np.extras import adapters, variants
from lora_np.gradcheck import gradcheck
from lora_np.train import fit, next_token_loss
from tests.helpers import IDS, logits, numbers, small_gpt


def shaken(model, seed=1):
    rng = np.random.default_rng(seed)
    for t in model.trainable_parameters():
        t.data = t.data + rng.normal(size=t.shape)
    return model


def linear(layer, **settings):
    """One layer of d = 5, k = 4, and its input (3, 4)."""
    rng = np.random.default_rng(0)
    base = nn.Linear(4, 5, rng=rng)
    base.bias.data = rng.normal(size=5)
    return layer(base, LoraConfig(**{"r": 2, "lora_alpha": 6, **settings})), base, rng.normal(size=(3, 4))


# LoRA+


def test_lora_plus_is_two_adamws():
    plus, plain = (shaken(small_gpt()) for _ in range(2))
    for model in (plus, plain):
        lora.add_lora(model, LoraConfig(r=2))
        shaken(model)
    optimizer = variants.LoraPlus(plus, lr=0.01, ratio=4, weight_decay=0.1)
    layers = lora.lora_layers(plain).values()
    groups = [optim.AdamW([layer.lora_A for layer in layers], 0.01, weight_decay=0.1),
              optim.AdamW([layer.lora_B for layer in layers], 0.04, weight_decay=0.1)]
    for _ in range(3):
        for model, steppers in ((plus, [optimizer]), (plain, groups)):
            for stepper in steppers:
                stepper.zero_grad()
            next_token_loss(model, IDS, IDS).backward()
            for stepper in steppers:
                stepper.step()
    assert numbers(plus) == numbers(plain)


def test_lora_plus_in_fit_keeps_its_ratio_under_a_schedule():
    model = small_gpt()
    lora.add_lora(model, LoraConfig(r=2))
    optimizer = variants.LoraPlus(model, lr=1, ratio=4)
    assert {id(t) for t in optimizer.parameters} == {id(t) for t in model.trainable_parameters()}
    history = fit(model, iter([(IDS, IDS)] * 30), optimizer, 30, schedule=lambda step: 0.02, quiet=True)
    assert history.train_loss[-1] < history.train_loss[0]
    assert [group.lr for group in optimizer.groups] == [0.02, 0.08] and optimizer.lr == 0.02


# PiSSA


def test_pissa_starts_at_the_largest_singular_parts_of_w0():
    layer, base, x = linear(variants.PissaLinear)
    W0 = base.weight.data
    np.testing.assert_allclose(layer(x).data, base(x).data, atol=1e-14)
    kept = np.linalg.svd(layer.delta())[1]
    rest = np.linalg.svd(layer.weight.data)[1]
    whole = np.linalg.svd(W0)[1]
    np.testing.assert_allclose(kept[:2], whole[:2], atol=1e-14)
    np.testing.assert_allclose(rest[:2], whole[2:], atol=1e-14)
    np.testing.assert_allclose(layer.lora_A.data @ layer.lora_A.data.T, layer.lora_B.data.T @ layer.lora_B.data,
                               atol=1e-14)  # the singular values are shared out evenly
    assert base.weight.data is W0


def test_pissa_learns_and_the_base_stays():
    model = small_gpt()
    base, weights = logits(model), model.state_dict()
    lora.add_lora(model, LoraConfig(r=2), variants.PissaLinear)
    model(IDS).sum().backward()
    assert all(abs(t.grad).max() > 0 for t in model.trainable_parameters())
    shaken(model)
    lora.remove(model)
    assert (logits(model) == base).all() and all(model.state_dict()[k] is v for k, v in weights.items())


def test_pissa_becomes_an_ordinary_adapter(tmp_path):
    model = small_gpt()
    save_model(model, tmp_path / "base")
    adapters.add_adapter(model, "pissa", LoraConfig(r=2, lora_alpha=6), variants.PissaLinear)
    y = logits(shaken(model))
    variants.pissa_to_lora(model, "plain")
    np.testing.assert_allclose(logits(model), y, atol=1e-12)
    assert {len(layer.lora_A.data) for layer in lora.lora_layers(model).values()} == {4}
    save_adapter(model, tmp_path / "adapter")
    again = load_model(tmp_path / "base")
    load_adapter(again, tmp_path / "adapter")
    assert (logits(again) == logits(model)).all()
    with pytest.raises(ValueError, match="LoraLinear, not a PissaLinear"):
        variants.pissa_to_lora(model, "again")


def test_pissa_merges_into_the_base():
    model = small_gpt()
    lora.add_lora(model, LoraConfig(r=2), variants.PissaLinear)
    y = logits(shaken(model))
    lora.merge(model)
    np.testing.assert_allclose(logits(model), y, atol=1e-12)
    lora.remove(model)
    np.testing.assert_allclose(logits(model), y, atol=1e-12)


# DoRA


def test_dora_starts_as_the_base():
    layer, base, x = linear(variants.DoraLinear)
    np.testing.assert_allclose(layer(x).data, base(x).data, atol=1e-14)
    np.testing.assert_allclose(layer.lora_magnitude_vector.data, np.linalg.norm(base.weight.data, axis=1))


@pytest.mark.parametrize("bias", [True, False])
def test_dora_is_its_formula(bias):
    layer, base, x = linear(variants.DoraLinear)
    if not bias:
        layer.bias = None
    shaken(layer)
    W = base.weight.data + 3 * layer.lora_B.data @ layer.lora_A.data
    m = layer.lora_magnitude_vector.data
    expected = x @ (m[:, None] * W / np.linalg.norm(W, axis=1, keepdims=True)).T + (base.bias.data if bias else 0)
    np.testing.assert_allclose(layer(x).data, expected, atol=1e-13)
    layer.eval().merge()
    np.testing.assert_allclose(layer(x).data, expected, atol=1e-13)
    np.testing.assert_allclose(np.linalg.norm(layer.weight.data, axis=1), abs(m))


def test_dora_gradients_take_the_row_lengths_as_constants():
    layer, base, x = linear(variants.DoraLinear)
    shaken(layer)
    lengths = np.linalg.norm(base.weight.data + layer.scaling * layer.lora_B.data @ layer.lora_A.data, axis=1)
    upstream = np.random.default_rng(2).normal(size=(3, 5))

    def by_hand(A, B, m):
        W = base.weight + layer.scaling * (B @ A)
        return ops.linear(x, W) * (m / lengths) + base.bias

    layer(x).backward(upstream)
    copies = [Tensor(t.data, requires_grad=True) for t in layer.trainable_parameters()]
    by_hand(*copies).backward(upstream)
    for t, copy in zip(layer.trainable_parameters(), copies, strict=True):
        np.testing.assert_allclose(t.grad, copy.grad, atol=1e-12)
    assert gradcheck(by_hand, *copies)


def test_dora_in_a_model_trains_counts_and_merges_once():
    model = small_gpt()
    lora.add_lora(model, LoraConfig(r=2), variants.DoraLinear)
    assert lora.count_parameters(model)[0] == 4 * (2 * 2 * 6 + 6)
    y = logits(shaken(model))
    for _ in range(2):
        lora.merge(model)
        np.testing.assert_allclose(logits(model), y, atol=1e-12)
    lora.unmerge(model)
    assert (logits(model) == y).all()
    lora.merge(model)
    model.train()
    with pytest.raises(RuntimeError, match="merged"):
        model(IDS)
