"""Several adapters on one base: switching, disabling, deleting, combining."""

import numpy as np
import pytest

from lora_np import LoraConfig, lora, optim
from lora_np.extras import variants
from lora_np.extras.adapters import (
    active_adapter,
    adapters,
    add_adapter,
    combine,
    delete_adapter,
    disable_adapter,
    set_adapter,
)
from tests.helpers import IDS, logits, numbers, small_gpt


def add(model, name, seed=0, layer=lora.LoraLinear, **settings):
    """Add an adapter that does something; returns the model's output with it."""
    rng = np.random.default_rng(seed)
    add_adapter(model, name, LoraConfig(**{"r": 2, "lora_alpha": 6, **settings}), layer)
    for t in model.trainable_parameters():
        t.data = t.data + rng.normal(size=t.shape)
    return logits(model)


def test_each_adapter_gives_its_own_output_bit_for_bit():
    model = small_gpt()
    base = numbers(model.freeze())
    outputs = {None: logits(model)}
    outputs["a"] = add(model, "a", 1)
    outputs["b"] = add(model, "b", 2, r=1, target_modules=["fc1", "layers.1.self_attn.out_proj"])
    outputs["c"] = add(model, "c", 3, variants.DoraLinear, target_modules="v_proj")
    assert len({y.tobytes() for y in outputs.values()}) == 4
    assert list(adapters(model)) == ["a", "b", "c"]
    for name in ("a", "c", "b", "a"):
        set_adapter(model, name)
        assert active_adapter(model) == name and (logits(model) == outputs[name]).all()
        assert {id(t) for t in model.trainable_parameters()} == {
            id(getattr(layer, f)) for layer in adapters(model)[name].values() for f in layer.factors}
    with disable_adapter(model):
        assert active_adapter(model) is None and (logits(model) == outputs[None]).all()
        assert numbers(model) == base
    assert active_adapter(model) == "a"
    delete_adapter(model, "a")
    assert active_adapter(model) is None and (logits(model) == outputs[None]).all()
    assert list(adapters(model)) == ["b", "c"]


def test_adapters_share_the_base_and_training_one_leaves_the_others():
    model = small_gpt()
    add(model, "a", 1)
    before = adapters(model)["a"]
    kept = {path: (layer.lora_A.data, layer.lora_B.data) for path, layer in before.items()}
    add(model, "b", 2)
    weights = {path: {id(layers[path].weight) for layers in adapters(model).values()} for path in before}
    assert all(len(ids) == 1 for ids in weights.values())
    model.train()
    optimizer = optim.AdamW(model.trainable_parameters(), lr=0.1)
    model(IDS).sum().backward()
    optimizer.step()
    assert all(layer.lora_A.data is kept[path][0] and layer.lora_B.data is kept[path][1] and layer.lora_A.grad is None
               for path, layer in before.items())


def test_layers_of_add_lora_are_the_adapter_default():
    model = small_gpt()
    lora.add_lora(model, LoraConfig(r=2))
    assert active_adapter(model) == "default"
    add(model, "b")
    set_adapter(model, "default")
    assert list(adapters(model)) == ["default", "b"]
    lora.remove(model)
    assert adapters(model) == {} and active_adapter(model) is None


def test_a_parked_adapter_takes_the_mode_of_the_model():
    model = small_gpt()
    add(model, "a", lora_dropout=0.5)
    model.train()
    add(model, "b")
    model.eval()
    set_adapter(model, "a")
    assert (logits(model) == logits(model)).all()
    assert not any(m.training for _, m in model.named_modules())


def test_lora_added_in_evaluation_mode_has_no_dropout():
    model = small_gpt().eval()
    add(model, "a", lora_dropout=0.5)
    assert (logits(model) == logits(model)).all()


def test_disabled_takes_a_merged_update_out_and_brings_it_back():
    model = small_gpt()
    base = logits(model)
    y = add(model, "a")
    lora.merge(model)
    merged = logits(model)
    np.testing.assert_allclose(merged, y, atol=1e-12)
    with pytest.raises(KeyError), disable_adapter(model):
        assert (logits(model) == base).all()
        raise KeyError
    assert (logits(model) == merged).all()
    lora.unmerge(model)
    assert (logits(model) == y).all()


def test_no_switching_while_merged():
    model = small_gpt()
    add(model, "a")
    add(model, "b")
    lora.merge(model)
    before = numbers(model)
    for change in (lambda: set_adapter(model, "a"), lambda: delete_adapter(model, "b"),
                   lambda: add_adapter(model, "c", LoraConfig(r=1)), lambda: combine(model, "c", {"a": 1})):
        with pytest.raises(RuntimeError, match="unmerge"):
            change()
    assert numbers(model) == before and list(adapters(model)) == ["a", "b"] and active_adapter(model) == "b"


def test_a_combination_is_exact():
    model = small_gpt()
    add(model, "a", 1)
    add(model, "b", 2, r=1, lora_alpha=5, use_rslora=True, target_modules=["v_proj", "fc2"])
    deltas = {name: {path: layer.delta() for path, layer in layers.items()} for name, layers in adapters(model).items()}
    combine(model, "both", {"a": 0.5, "b": np.int64(-2)})
    assert active_adapter(model) == "both"
    layers = lora.lora_layers(model)
    assert layers.keys() == {*deltas["a"], *deltas["b"]}
    for path, layer in layers.items():
        wanted = 0.5 * deltas["a"].get(path, 0) - 2 * deltas["b"].get(path, 0)
        np.testing.assert_allclose(layer.delta(), wanted, rtol=0, atol=1e-14)
        assert layer.scaling == 1 and len(layer.lora_A.data) == 2 * (path in deltas["a"]) + (path in deltas["b"])


def test_adding_the_factors_is_not_adding_the_updates():
    model = small_gpt()
    add(model, "a", 1)
    add(model, "b", 2)
    combine(model, "both", {"a": 1, "b": 1})
    for path, layer in lora.lora_layers(model).items():
        a, b = (adapters(model)[name][path] for name in "ab")
        right = a.delta() + b.delta()
        summed = a.scaling * (a.lora_B.data + b.lora_B.data) @ (a.lora_A.data + b.lora_A.data)
        cross = a.scaling * (a.lora_B.data @ b.lora_A.data + b.lora_B.data @ a.lora_A.data)
        np.testing.assert_allclose(layer.delta(), right, rtol=0, atol=1e-14)
        np.testing.assert_allclose(summed - right, cross, rtol=0, atol=1e-13)
        assert abs(cross).max() > 1


def test_a_weight_of_zero_gives_the_base():
    model = small_gpt()
    base = logits(model)
    add(model, "a")
    combine(model, "nothing", {"a": 0})
    assert (logits(model) == base).all()


@pytest.mark.parametrize(("change", "says"), [
    (lambda m: add_adapter(m, "a", LoraConfig(r=1)), "expected a new name, got 'a'; there are 'd', 'a'"),
    (lambda m: add_adapter(m, "", LoraConfig(r=1)), "expected a new name"),
    (lambda m: add_adapter(m, 3, LoraConfig(r=1)), "expected a new name"),
    (lambda m: add_adapter(m, "b", LoraConfig(r=7)), "r=7 is more than"),
    (lambda m: add_adapter(m, "b", LoraConfig(target_modules="c_attn")), "names no Linear layer"),
    (lambda m: set_adapter(m, "b"), "no adapter 'b' in this model; there are 'd', 'a'"),
    (lambda m: delete_adapter(m, "b"), "no adapter 'b'"),
    (lambda m: combine(m, "b", {"a": 1, "x": 1}), "no adapter 'x'"),
    (lambda m: combine(m, "b", {}), "no factors"),
    (lambda m: combine(m, "a", {"a": 1}), "expected a new name"),
    (lambda m: combine(m, "b", {"a": 1, "d": 1}), "'d' has DoraLinear layers"),
])
def test_what_cannot_be_done_changes_nothing(change, says):
    model = small_gpt()
    add(model, "d", layer=variants.DoraLinear)
    add(model, "a")
    before = numbers(model)
    with pytest.raises(ValueError, match=says):
        change(model)
    assert numbers(model) == before and active_adapter(model) == "a" and list(adapters(model)) == ["d", "a"]


def test_ranks_may_not_add_up_to_more_than_a_weight_has():
    model = small_gpt()
    for name in "abcd":
        add(model, name)
    with pytest.raises(ValueError, match="r=8 is more than"):
        combine(model, "all", dict.fromkeys("abcd", 1))
    assert active_adapter(model) == "d"


def test_without_any_adapter():
    model = small_gpt()
    y = logits(model)
    with disable_adapter(model):
        assert (logits(model) == y).all()
    with pytest.raises(ValueError, match="none yet; see add_adapter"):
        set_adapter(model, "a")
