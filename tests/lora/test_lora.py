"""What LoRA promises: the start, what trains, what stays, the rank, merging; and the errors."""

import copy

import numpy as np
import pytest

from lora_np import LoraConfig, Tensor, generate, lora, nn, no_grad, optim
from lora_np.train import next_token_loss
from tests.helpers import check_gradients, numbers, small_gpt

pytestmark = pytest.mark.filterwarnings("error")
IDS = np.array([[1, 5, 0, 6, 2], [3, 3, 4, 1, 0]])
CONFIG = LoraConfig(r=2, lora_alpha=6)


def adapted(config=CONFIG, randomize=False, **changes):
    """A small GPT with LoRA. randomize: B is not zero, so that the update is not either."""
    model = small_gpt(**changes)
    lora.add_lora(model, config)
    if randomize:
        for layer in lora.lora_layers(model).values():
            layer.lora_B.data = np.random.default_rng(1).normal(size=layer.lora_B.shape)
    return model


def step(model, optimizer):
    optimizer.zero_grad()
    loss = next_token_loss(model, IDS[:, :-1], IDS[:, 1:])
    loss.backward()
    optimizer.step()
    return loss.item()


def train(model, steps=5):
    optimizer = optim.AdamW(model.trainable_parameters(), lr=0.01, weight_decay=0.01)
    return [step(model, optimizer) for _ in range(steps)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_output_is_unchanged_at_the_start(dtype):
    model = small_gpt(dtype=dtype)
    before = model(IDS).data
    lora.add_lora(model, CONFIG)
    assert np.array_equal(model(IDS).data, before)
    assert {t.dtype for t in model.parameters()} == {np.dtype(dtype)}


def test_exactly_a_and_b_of_q_and_v_train():
    model = small_gpt()
    paths = lora.add_lora(model, CONFIG)
    assert sorted(paths) == [f"layers.{i}.self_attn.{name}_proj" for i in range(2) for name in "qv"]
    trainable = {name for name, t in model.named_parameters() if t.requires_grad}
    assert trainable == {f"{path}.lora_{matrix}" for path in paths for matrix in "AB"}
    assert set(model.trainable_parameters()) == {t for name, t in model.named_parameters() if name in trainable}
    before = numbers(model)
    losses = train(model)
    changed = {name for name, after in numbers(model).items() if after != before[name]}
    assert changed == trainable
    assert losses[-1] < losses[0]
    assert all((t.grad is not None) == t.requires_grad for t in model.parameters())


def test_w0_is_bit_identical_after_training():
    model = small_gpt()
    before = {name: a.tobytes() for name, a in model.state_dict().items()}
    lora.add_lora(model, CONFIG)
    train(model, 20)
    assert {name: a.tobytes() for name, a in model.state_dict().items() if "lora_" not in name} == before
    lora.remove(model)
    assert {name: a.tobytes() for name, a in model.state_dict().items()} == before


def test_the_first_step_moves_b_and_only_b():
    model = adapted()
    next_token_loss(model, IDS[:, :-1], IDS[:, 1:]).backward()
    for layer in lora.lora_layers(model).values():
        assert (layer.lora_A.grad == 0).all() and (layer.lora_B.grad != 0).any()
    optim.SGD(model.trainable_parameters(), lr=0.1).step()
    for t in model.trainable_parameters():
        t.grad = None
    next_token_loss(model, IDS[:, :-1], IDS[:, 1:]).backward()
    assert all((layer.lora_A.grad != 0).any() for layer in lora.lora_layers(model).values())


@pytest.mark.parametrize("r", [1, 2, 5])
def test_the_update_has_rank_r_at_most(r):
    model = adapted(LoraConfig(r=r, lora_alpha=8))
    base = {path: layer.weight.data.copy() for path, layer in lora.lora_layers(model).items()}
    train(model, 20)
    lora.merge(model)
    for path, layer in lora.lora_layers(model).items():
        values = np.linalg.svd(layer.weight.data - base[path], compute_uv=False)
        assert values[0] > 1e-3 and (values[r:] < 1e-12).all()
        assert layer.lora_A.shape == (r, 6) and layer.lora_B.shape == (6, r)


def test_the_layer_by_hand():
    """A calculation with a pencil: x = [2 3], y = [3 5], s = 2; every number is exact."""
    layer = lora.LoraLinear(nn.Linear(2, 2, bias=False), LoraConfig(r=1, lora_alpha=2))
    layer.weight.data, layer.lora_A.data, layer.lora_B.data = [[-2, -1], [1, -1]], [[3, -1]], [[2], [0.5]]
    x = Tensor([2.0, 3.0], requires_grad=True)
    h = layer(x)
    loss = ((h - [3, 5]) ** 2).sum() / 2
    loss.backward()
    assert h.data.tolist() == [5, 2] and loss.item() == 6.5
    assert layer.lora_B.grad.tolist() == [[12], [-18]] and layer.lora_A.grad.tolist() == [[10, 15]]
    assert x.grad.tolist() == [8, -4] and layer.weight.grad is None
    assert layer.delta().tolist() == [[12, -4], [3, -1]]
    layer.eval().merge()
    assert layer.weight.data.tolist() == [[10, -5], [4, -2]] and layer([2.0, 3.0]).data.tolist() == [5, 2]


def random_layer(**config):
    """d_in 5, d_out 3, r 2, alpha 5, B not zero: shapes and factors that no transposed matrix survives."""
    layer = lora.LoraLinear(nn.Linear(5, 3), LoraConfig(**{"r": 2, "lora_alpha": 5, **config}))
    rng = np.random.default_rng(0)
    layer.lora_B.data, layer.bias.data = rng.normal(size=(3, 2)), rng.normal(size=3)
    return layer


def test_forward_is_w0_plus_the_scaled_update():
    layer, x = random_layer(), np.random.default_rng(1).normal(size=(2, 4, 5))
    W0, A, B = layer.weight.data, layer.lora_A.data, layer.lora_B.data
    np.testing.assert_allclose(layer(x).data, x @ (W0 + 5 / 2 * B @ A).T + layer.bias.data, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(layer.delta(), 2.5 * B @ A, rtol=1e-12)
    assert np.array_equal(layer(x).data, layer(x).data)

    def of_all(x, A, B):
        layer.lora_A, layer.lora_B = A, B
        return layer(x)

    check_gradients(of_all, x, A, B)


@pytest.mark.parametrize(("config", "scaling"), [
    ({"r": 4, "lora_alpha": 8}, 2), ({"r": 4, "lora_alpha": 8, "use_rslora": True}, 4), ({"r": 3, "lora_alpha": 3}, 1),
    ({"r": 8}, 1), ({"lora_alpha": 0}, 0),
])
def test_scaling(config, scaling):
    assert LoraConfig(**config).scaling == scaling


def test_a_starts_uniform_and_b_at_zero():
    layer = lora.LoraLinear(nn.Linear(400, 300), LoraConfig(r=200))
    A = layer.lora_A.data
    assert np.abs(A).max() <= 400 ** -0.5 and A.std() == pytest.approx(400 ** -0.5 / 3 ** 0.5, rel=0.01)
    assert (layer.lora_B.data == 0).all()
    models = [adapted(LoraConfig(r=2, seed=seed)) for seed in (0, 0, 1)]
    assert numbers(models[0]) == numbers(models[1]) != numbers(models[2])
    layers = list(lora.lora_layers(models[0]).values())
    assert not np.array_equal(layers[0].lora_A.data, layers[1].lora_A.data)  # each layer draws its own


@pytest.mark.parametrize(("target", "expected"), [
    ("fc1", ["layers.0.fc1", "layers.1.fc1"]),
    ("layers.1.fc2", ["layers.1.fc2"]),
    (["layers.0.self_attn.q_proj", "fc2"], ["layers.0.fc2", "layers.0.self_attn.q_proj", "layers.1.fc2"]),
])
def test_targets_are_names_or_paths(target, expected):
    model = small_gpt()
    assert sorted(lora.add_lora(model, LoraConfig(r=2, target_modules=target))) == expected
    assert sorted(lora.lora_layers(model)) == expected


def test_patterns_give_layers_their_own_rank_and_alpha():
    for settings, expected in (
            ({"r": 2, "lora_alpha": 6, "rank_pattern": {"layers.1.self_attn.q_proj": 3}, "alpha_pattern": {"v_proj": 8}},
             {"0.q": (2, 3), "1.q": (3, 2), "0.v": (2, 4), "1.v": (2, 4)}),
            ({"r": 4, "lora_alpha": 8, "rank_pattern": {"layers.1.self_attn.q_proj": 2, "q_proj": 3},
              "alpha_pattern": {r"1\..*": 1}}, {"0.q": (3, 8 / 3), "1.q": (2, 1 / 2), "0.v": (4, 2), "1.v": (4, 1 / 4)})):
        layers = lora.lora_layers(adapted(LoraConfig(**settings)))
        assert {path: (layer.lora_A.shape[0], layer.scaling) for path, layer in layers.items()} == {
            f"layers.{i}.self_attn.{name}_proj": ranks for (i, _, name), ranks in expected.items()}


def test_layers_held_in_a_list_are_replaced_there():
    class Stack(nn.Module):
        def __init__(self):
            self.layers = [nn.Linear(3, 3), nn.Linear(3, 3)]

    model = Stack()
    base = model.layers[1]
    assert lora.add_lora(model, LoraConfig(r=1, target_modules="1")) == ["layers.1"]
    assert isinstance(model.layers[1], lora.LoraLinear) and np.array_equal(model.layers[1].w0(), base.weight.data)
    lora.remove(model)
    assert model.layers[1] is base


def test_add_lora_keeps_the_mode():
    for mode in (True, False):
        model = small_gpt().train(mode)
        lora.add_lora(model, CONFIG)
        assert {m.training for _, m in model.named_modules()} == {mode}


# Merging

def test_merged_equals_unmerged():
    model = adapted(randomize=True).eval()
    before = model(IDS).data
    lora.merge(model)
    np.testing.assert_allclose(model(IDS).data, before, rtol=1e-12, atol=1e-12)
    assert all(layer.merged for layer in lora.lora_layers(model).values())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unmerge_gives_the_bits_back(dtype):
    model = adapted(randomize=True, dtype=dtype)
    before = numbers(model)
    for _ in range(3):
        lora.merge(model)
        assert numbers(model) != before
        lora.unmerge(model)
        assert numbers(model) == before
    lora.unmerge(model)
    assert numbers(model) == before


def test_merging_twice_is_merging_once():
    model = adapted(randomize=True)
    lora.merge(model)
    once = numbers(model)
    lora.merge(model)
    assert numbers(model) == once
    assert {name for name in once if "lora" not in name} == set(small_gpt().state_dict())


def test_modes_never_merge():
    model = adapted(randomize=True)
    before = numbers(model)
    model.eval()
    model.train()
    generate(model, [1], 3)
    assert numbers(model) == before and not any(layer.merged for layer in lora.lora_layers(model).values())


def test_training_while_merged_raises():
    model = adapted(randomize=True)
    lora.merge(model)
    before = numbers(model)
    with pytest.raises(RuntimeError, match=r"merged.*no gradient.*unmerge\(model\).*model.eval\(\)"):
        model(IDS)
    assert numbers(model) == before
    with no_grad():
        model(IDS)
    model.eval()(IDS)
    lora.unmerge(model.train())
    train(model, 1)


def test_remove_drops_the_update_or_keeps_the_merged_weight():
    model = adapted(randomize=True).eval()
    y, base = model(IDS).data, small_gpt()(IDS).data
    other = copy.deepcopy(model)
    lora.remove(model)
    assert np.array_equal(model(IDS).data, base) and list(model.state_dict()) == list(small_gpt().state_dict())
    lora.merge(other)
    lora.remove(other)
    np.testing.assert_allclose(other(IDS).data, y, rtol=1e-12, atol=1e-12)
    for m in (model, other):
        assert m.trainable_parameters() == [] and not any(isinstance(x, lora.LoraLinear) for _, x in m.named_modules())
    lora.add_lora(other, CONFIG)
    assert len(other.trainable_parameters()) == 8


def test_a_deep_copy_is_a_model_of_its_own():
    model = adapted(randomize=True)
    lora.merge(model)
    other = copy.deepcopy(model)
    assert numbers(other) == numbers(model)
    assert not {id(t) for t in model.parameters()} & {id(t) for t in other.parameters()}
    before = numbers(model)
    lora.unmerge(other)
    train(other, 1)
    assert numbers(model) == before


# Dropout, saving, counting

def test_dropout_acts_on_the_update_in_training_only():
    layer, x = random_layer(lora_dropout=0.5), np.random.default_rng(1).normal(size=(40, 5))
    base = x @ layer.weight.data.T + layer.bias.data
    full = x @ layer.delta().T
    layer.eval()
    np.testing.assert_allclose(layer(x).data, base + full, rtol=1e-12, atol=1e-12)
    layer.train()
    dropped = layer(x).data - base
    assert not np.allclose(dropped, full) and not np.array_equal(layer(x).data, layer(x).data)
    mean = np.mean([layer(x).data - base for _ in range(2000)], axis=0)
    np.testing.assert_allclose(mean, full, atol=0.25 * np.abs(full).max())
    layer.eval().merge()
    np.testing.assert_allclose(layer(x).data, base + full, rtol=1e-12, atol=1e-12)


def test_state_dict_carries_an_adapter_over():
    model = adapted(randomize=True)
    other = adapted(LoraConfig(r=2, lora_alpha=6, seed=4), seed=5)
    assert numbers(other) != numbers(model)
    other.load_state_dict(model.state_dict())
    assert numbers(other) == numbers(model)
    with pytest.raises(ValueError, match=r"unexpected: .*lora_A"):
        small_gpt().load_state_dict(model.state_dict())


def test_counts_and_the_line_of_peft():
    model = small_gpt()
    total = sum(t.size for t in model.parameters())
    assert lora.count_parameters(model) == (total, total)
    lora.add_lora(model, CONFIG)
    added = 4 * 2 * (6 + 6)  # four matrices, r (d_in + d_out) each
    assert lora.count_parameters(model) == (added, total + added)
    assert lora.trainable_summary(model) == "trainable params: 96 || all params: 810 || trainable%: 11.8519"
    lora.merge(model)
    assert lora.count_parameters(model) == (added, total + added)


@pytest.mark.parametrize(("d", "r", "trainable"), [(64, 1, 128), (64, 8, 1024), (64, 32, 4096), (128, 8, 2048)])
def test_a_square_matrix_trains_2dr_of_d_squared(d, r, trainable):
    layer = lora.LoraLinear(nn.Linear(d, d, bias=False), LoraConfig(r=r))
    assert lora.count_parameters(layer) == (trainable, d * d + trainable)


# Errors

@pytest.mark.parametrize(("config", "words"), [
    ({"r": 0}, "r must be a whole number of at least 1, got 0"),
    ({"r": -2}, "r must be a whole number of at least 1, got -2"),
    ({"r": 2.0}, r"r must be a whole number of at least 1, got 2\.0"),
    ({"lora_alpha": -1}, "lora_alpha must not be negative, got -1"),
    ({"lora_alpha": np.nan}, "lora_alpha must be finite, got nan"),
    ({"lora_dropout": 1.0}, r"lora_dropout must be in \[0, 1\), got 1\.0"),
    ({"lora_dropout": -0.1}, r"lora_dropout must be in \[0, 1\)"),
    ({"target_modules": ()}, "target_modules is empty"),
    ({"rank_pattern": {"q_(proj": 2}}, r"the pattern 'q_\(proj' is not a regular expression"),
    ({"alpha_pattern": {"(": 2}}, r"the pattern '\(' is not a regular expression"),
    ({"rank_pattern": {"q_proj": 0}}, "r must be"), ({"alpha_pattern": {"q_proj": -1}}, "lora_alpha must not be negative"),
])
def test_a_config_that_cannot_be(config, words):
    with pytest.raises(ValueError, match=f"LoraConfig: {words}"):
        LoraConfig(**config)


@pytest.mark.parametrize(("config", "words"), [
    ({"target_modules": ["qproj"]}, "target 'qproj' names no Linear layer.*fc1, fc2, k_proj, out_proj, q_proj, v_proj"),
    ({"target_modules": ["q_proj", "proj"]}, r"target 'proj' names no Linear layer.*'layers\.0\.self_attn\.\w_proj'"),
    ({"target_modules": ["embed_tokens"]}, "target 'embed_tokens' names no Linear"),
    ({"target_modules": ["layers.2.fc1"]}, "target 'layers.2.fc1' names no Linear"),
    ({"target_modules": [""]}, "target '' names no Linear"),
    ({"alpha_pattern": {"fc1": 2}}, "the pattern 'fc1' matches none of the targeted layers"),
    ({"rank_pattern": {"fc1": 2}}, "the pattern 'fc1' matches none of the targeted layers"),
    ({"rank_pattern": {"_proj": 2}}, "the pattern '_proj' matches none"),
    ({"rank_pattern": {"q_proj": 7}}, r"r=7 is more than min\(d, k\)=6"),
    ({"r": 7}, r"r=7 is more than min\(d, k\)=6 of a weight \(6, 6\)"),
    ({"target_modules": ["q_proj", "fc1"], "r": 7}, r"r=7 is more than min\(d, k\)=6"),
])
def test_what_add_lora_refuses_changes_nothing(config, words):
    model = small_gpt()
    before, modules = numbers(model), [type(m) for _, m in model.named_modules()]
    with pytest.raises(ValueError, match=words):
        lora.add_lora(model, LoraConfig(**{"r": 2, **config}))
    assert numbers(model) == before and [type(m) for _, m in model.named_modules()] == modules


def test_adding_twice_raises_and_changes_nothing():
    model = adapted()
    before = numbers(model)
    with pytest.raises(ValueError, match=r"has LoRA layers already.*remove\(model\)"):
        lora.add_lora(model, CONFIG)
    assert numbers(model) == before


def test_a_layer_alone_has_nothing_to_adapt():
    with pytest.raises(ValueError, match="names no Linear layer inside this model; there are none"):
        lora.add_lora(nn.Linear(3, 4), LoraConfig(r=2))


@pytest.mark.parametrize("function", [lora.merge, lora.unmerge, lora.remove, lora.lora_layers])
def test_a_model_without_lora(function):
    model = small_gpt()
    before = numbers(model)
    with pytest.raises(ValueError, match=r"no LoRA layers in this model; call add_lora\(model, LoraConfig\(\)\)"):
        function(model)
    assert numbers(model) == before


def test_a_weight_that_two_layers_share_is_merged_in_each_by_itself():
    class Pair(nn.Module):
        def __init__(self):
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    pair, x = Pair(), np.random.default_rng(0).normal(size=(3, 4))
    w0 = pair.first.weight.data
    lora.add_lora(pair, LoraConfig(r=2, target_modules=("first", "second")))
    for i, layer in enumerate(lora.lora_layers(pair).values()):
        layer.lora_B.data = np.random.default_rng(i).normal(size=(4, 2))
    before = pair(x).data
    lora.merge(pair)
    np.testing.assert_allclose(pair.eval()(x).data, before, rtol=1e-12)
    lora.unmerge(pair)
    assert pair.first.weight is pair.second.weight and np.array_equal(pair.first.weight.data, w0)


def test_the_state_of_a_merged_model_holds_w0():
    model, other = adapted(randomize=True), adapted()
    x = np.arange(5)[None]
    before = model(x).data
    lora.merge(model)
    other.load_state_dict(model.state_dict())
    np.testing.assert_allclose(other(x).data, before, rtol=1e-12)
    assert model.state_dict().keys() == other.state_dict().keys()
