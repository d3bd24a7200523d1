"""A base kept in blocks computes and trains as the float one of the same numbers, keeps none of them, and stays as it is."""

import copy
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lora_np import LoraConfig, Tensor, generate, lora, no_grad, optim, quantized
from lora_np.checkpoint import load_adapter, load_model, save_adapter, save_model
from lora_np.extras import variants
from lora_np.quantized import Packed, QuantizedEmbedding, QuantizedLinear
from lora_np.train import next_token_loss
from tests.helpers import check_gradients, numbers

FOLDER = Path(__file__).parents[1] / "reference" / "gguf"
IDS = np.array([[3, 9, 20, 35, 0], [1, 1, 2, 7, 30]])


def packed(d, k, bits=4, zero=0, shift=True, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    codes = (rng.integers(0, 256, (k // 32, 16, d), np.uint8) if bits == 4 else
             rng.integers(-128, 128, (k // 32, 32, d), np.int8))
    scale, shift = (rng.normal(size=(k // 32, d)).astype(np.float16) if used else None for used in (True, shift))
    return Packed(codes, scale, shift, zero, dtype)


def unpacked_one_by_one(W):
    d, k = W.shape
    out = np.zeros((d, k))
    for i, j in np.ndindex(d, k):
        block, place = divmod(j, 32)
        if W.bits == 8:
            q = int(W.codes[block, place, i])
        else:
            q = int(W.codes[block, place % 16, i]) >> 4 * (place // 16) & 15
        out[i, j] = float(W.scale[block, i]) * (q - W.zero) + (0 if W.shift is None else float(W.shift[block, i]))
    return out


@pytest.fixture(params=["Q4_0", "Q4_1", "Q8_0"])
def pair(request):
    """(a model in blocks, the float model of the same numbers), both in float64."""
    return [load_model(FOLDER / f"{request.param}.gguf", np.float64, quantized) for quantized in (True, False)]


@pytest.mark.parametrize("options", [{}, {"zero": 8, "shift": False}, {"bits": 8, "shift": False}, {"bits": 8}])
@pytest.mark.parametrize("cached", [1 << 16, 40])
def test_numbers_are_those_of_the_formula(options, cached, monkeypatch):
    monkeypatch.setattr(quantized, "CACHED", cached)
    W = packed(5, 96, **options)
    assert W.shape == W.data.shape == (5, 96) and W.size == 480 and W.ndim == 2 and not W.requires_grad
    np.testing.assert_allclose(W.data, unpacked_one_by_one(W), rtol=1e-6, atol=1e-6)
    some = np.array([4, 0, 0])
    assert (W.rows(some).data == W.data[some]).all() and (W.unpack(np.float32) == W.data).all()
    assert packed(5, 96, **options, dtype=np.float32).data.dtype == np.float32


@pytest.mark.parametrize("part", [1 << 21, 200])
@pytest.mark.parametrize("bias", [None, np.arange(7.0)])
def test_layer_forward_and_backward(part, bias, monkeypatch):
    monkeypatch.setattr(quantized, "PART", part)
    W = packed(7, 64)
    layer = QuantizedLinear(W, None if bias is None else Tensor(bias))
    x = np.random.default_rng(1).normal(size=(2, 3, 64))
    np.testing.assert_allclose(layer(Tensor(x)).data, x @ W.data.T + (0 if bias is None else bias), rtol=1e-12)
    check_gradients(layer, x, atol=1e-6)
    table = QuantizedEmbedding(W)
    assert (table([[6, 0], [3, 3]]).data == W.data[[[6, 0], [3, 3]]]).all()
    np.testing.assert_allclose(table.logits(Tensor(x)).data, x @ W.data.T, rtol=1e-12)
    with pytest.raises(ValueError, match=r"linear: x \(2, 32\), weight \(7, 64\)"):
        layer(np.ones((2, 32)))
    with pytest.raises(IndexError, match="from 0 to 6, got 7"):
        table([7])


def test_nothing_unpacked_is_kept_for_backward():
    layer, x = QuantizedLinear(packed(512, 512, dtype=np.float32)), Tensor(np.ones((1, 512), np.float32), requires_grad=True)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    y = layer(x)
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept < 20_000  # the float matrix has a million bytes
    y.sum().backward()
    np.testing.assert_allclose(x.grad, layer.weight.data.sum(axis=0)[None], rtol=1e-4)


def test_training_is_that_of_the_float_model(pair):
    found = []
    for model in pair:
        lora.add_lora(model, LoraConfig(r=2, target_modules=["q_proj", "k_proj", "down_proj"]))
        optimizer = optim.SGD(model.trainable_parameters(), lr=1e-2, momentum=0.9)
        for _ in range(5):
            optimizer.zero_grad()
            next_token_loss(model, IDS[:, :-1], IDS[:, 1:]).backward()
            optimizer.step()
        found.append(({name: t.data for name, t in model.named_parameters() if t.requires_grad}, model(IDS).data,
                      generate(model, IDS, 6, temperature=0)))
    (ours, logits, ids), (floats, float_logits, float_ids) = found
    assert ours.keys() == floats.keys() and (ids == float_ids).all()
    for name in ours:
        np.testing.assert_allclose(ours[name], floats[name], rtol=0, atol=1e-10)
    np.testing.assert_allclose(logits, float_logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize("layer", [lora.LoraLinear, variants.DoraLinear, variants.PissaLinear])
def test_every_kind_of_adapter_works_on_it(pair, layer):
    logits, counts = [], []
    for model in pair:
        lora.add_lora(model, LoraConfig(r=2), layer)
        for t in model.trainable_parameters():
            t.data = t.data + np.random.default_rng(2).normal(size=t.shape) / 8
        logits.append(model(IDS).data)
        counts.append(lora.count_parameters(model))
        (w0,) = {lora.lora_layers(model)[path].w0().shape for path in ["layers.0.self_attn.q_proj"]}
        assert w0 == (32, 32)
    np.testing.assert_allclose(*logits, rtol=0, atol=1e-10)
    assert counts[0] == counts[1]


def test_adapters_go_from_one_to_the_other_and_know_their_base(pair, tmp_path):
    ours, floats = pair
    lora.add_lora(ours, LoraConfig(r=2))
    for t in ours.trainable_parameters():
        t.data = t.data + np.random.default_rng(2).normal(size=t.shape)
    save_adapter(ours, tmp_path)
    load_adapter(floats, tmp_path)
    np.testing.assert_allclose(floats(IDS).data, ours(IDS).data, rtol=0, atol=1e-10)
    save_adapter(floats, tmp_path)
    load_adapter(ours, tmp_path, "again")
    with pytest.raises(ValueError, match="made for another base"):
        load_adapter(load_model(FOLDER / "F32.gguf"), tmp_path)


def test_merging_says_what_it_would_lose_and_merges_nothing(pair, tmp_path):
    model, _ = pair
    lora.add_lora(model, LoraConfig(r=2))
    for layer in lora.lora_layers(model).values():
        layer.lora_B.data = np.full(layer.lora_B.shape, 1e-4)
    before = numbers(model)
    with pytest.raises(ValueError, match=r"merge: layers.0.self_attn.q_proj is kept in [48] bits, .* (100|9\d)% of the "
                                         "update's numbers would be lost. Load the model without quantized=True"):
        lora.merge(model)
    with pytest.raises(ValueError, match="merge: this layer is kept in"):
        lora.lora_layers(model)["layers.0.self_attn.v_proj"].merge()
    assert numbers(model) == before and not any(layer.merged for layer in lora.lora_layers(model).values())
    lora.remove(model)
    with pytest.raises(ValueError, match="save_model: this model is kept in blocks of 4 or 8 bits"):
        save_model(model, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_its_numbers_cannot_be_replaced_or_trained(pair):
    model, floats = pair
    before, weight = numbers(model), model.layers[0].mlp.up_proj.weight
    with pytest.raises(RuntimeError, match=r"kept in [48] bits and cannot be trained or replaced"):
        weight.data = np.zeros(weight.shape)
    with pytest.raises(RuntimeError, match=r"kept in [48] bits"):
        weight.requires_grad = True
    with pytest.raises(ValueError, match=r"kept in blocks: embed_tokens.weight"):
        model.load_state_dict(floats.state_dict())
    assert numbers(model) == before
    floats.load_state_dict(model.state_dict())  # the other way round is a load like any other


def test_copies_stay_packed(pair):
    model, _ = pair
    with no_grad():
        logits = model(IDS).data
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert isinstance(again.embed_tokens.weight, Packed) and isinstance(again.layers[0].mlp.up_proj.weight, Packed)
        assert (again(IDS).data == logits).all()
    assert len(pickle.dumps(model)) < 40_000


def test_folders_and_files_of_floats_are_refused():
    for path in (FOLDER.parent / "llama" / "tied", FOLDER.parent / "base", FOLDER / "F16.gguf"):
        with pytest.raises(ValueError, match=f"{path.name}: quantized=True keeps the blocks .* leave it out"):
            load_model(path, quantized=True)
