"""Modules: what they hold, under which names, and what loads into them."""

import numpy as np
import pytest

from lora_np import Tensor, nn, ops
from tests.helpers import check_gradients, numbers, small_gpt

pytestmark = pytest.mark.filterwarnings("error")


class Mlp(nn.Module):
    def __init__(self):
        self.layers = [nn.Linear(3, 4), nn.Linear(4, 2, bias=False)]
        self.norm = nn.LayerNorm(4)
        self.scale = Tensor(1.0, requires_grad=True)
        self.dropout = nn.Dropout(0.5)
        self._private = nn.Linear(1, 1)
        self._secret = Tensor([1.0], requires_grad=True)
        self.width = 4

    def forward(self, x):
        return self.layers[1](self.dropout(ops.relu(self.norm(self.layers[0](x))))) * self.scale


NAMES = ["scale", "layers.0.weight", "layers.0.bias", "layers.1.weight", "norm.weight", "norm.bias"]


def test_parameters_are_found_under_their_paths_in_order():
    model = Mlp()
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert [path for path, _ in model.named_modules()] == ["", "layers.0", "layers.1", "norm", "dropout"]
    assert model.parameters() == model.trainable_parameters() and model.parameters()[0] is model.scale
    assert list(model.state_dict()) == NAMES


def test_a_tensor_in_two_places_counts_once():
    model = Mlp()
    model.layers[1].weight = model.layers[0].weight
    assert [name for name, _ in model.named_parameters()] == [n for n in NAMES if n != "layers.1.weight"]


def test_freeze_and_thaw():
    model = Mlp()
    assert model.freeze() is model and model.trainable_parameters() == []
    model.norm.weight.requires_grad = True
    assert model.trainable_parameters() == [model.norm.weight]
    model.eval()(np.ones((2, 3))).sum().backward()
    assert [name for name, t in model.named_parameters() if t.grad is not None] == ["norm.weight"]


def test_train_and_eval_reach_every_module():
    model = Mlp()
    assert model.training and model.eval() is model
    assert not any(m.training for _, m in model.named_modules())
    x = np.ones((50, 3))
    assert np.array_equal(model(x).data, model(x).data)
    assert model.train() is model and all(m.training for _, m in model.named_modules())
    assert not np.array_equal(model(x).data, model(x).data)


@pytest.mark.parametrize("held", [(nn.Linear(1, 1),), {"a": nn.Linear(1, 1)}, [Tensor([1.0])], (Tensor([1.0]),)],
                         ids=["tuple of Modules", "dict of Modules", "list of Tensors", "tuple of Tensors"])
def test_parameters_that_would_not_be_found_raise(held):
    model = Mlp()
    model.extra = held
    with pytest.raises(TypeError, match=f"Mlp.extra: parameters are not found inside a {type(held).__name__}"):
        model.parameters()


def test_other_lists_are_left_alone():
    model = Mlp()
    model.sizes, model.options, model.empty, model.mixed = [1, 2], {"a": 1}, (), [None, nn.Linear(1, 1)]
    assert [name for name, _ in model.named_parameters()][len(NAMES):] == ["mixed.1.weight", "mixed.1.bias"]


def test_state_dict_is_a_snapshot():
    model = Mlp()
    state = model.state_dict()
    before = state["norm.weight"].copy()
    with pytest.raises(ValueError, match="read-only"):
        state["norm.weight"][0] = 5
    model.norm.weight.data = np.zeros(4)
    assert np.array_equal(state["norm.weight"], before)
    model.load_state_dict(state)
    assert np.array_equal(model.norm.weight.data, before)


@pytest.mark.parametrize("convert", [np.copy, np.ndarray.tolist, Tensor, lambda a: a.astype(np.float32)],
                         ids=["arrays", "lists", "Tensors", "float32"])
def test_load_takes_what_holds_numbers(convert):
    ours, theirs = small_gpt(seed=0), small_gpt(seed=1)
    theirs.load_state_dict({name: convert(a) for name, a in ours.state_dict().items()})
    for name, a in theirs.state_dict().items():
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, ours.state_dict()[name], rtol=1e-6)
    assert theirs.embed_tokens.weight.requires_grad


@pytest.mark.parametrize(("change", "words"), [
    ({"scale": None}, ["missing: scale"]),
    ({"extra": np.ones(1)}, ["unexpected: extra"]),
    ({"norm.bias": np.ones(5)}, [r"wrong shape: norm.bias is \(5,\), expected \(4,\)"]),
    ({"layers.0.weight": np.ones((3, 4))}, [r"wrong shape: layers.0.weight is \(3, 4\), expected \(4, 3\)"]),
    ({"norm.bias": np.array(["x"] * 4)}, ["not real numbers: norm.bias is <U1"]),
    ({"norm.bias": np.ones(4, complex)}, ["not real numbers: norm.bias is complex128"]),
    ({"scale": None, "a": 1, "norm.bias": 2.0}, ["missing: scale", "unexpected: a", "wrong shape: norm.bias"]),
])
def test_load_is_strict_and_changes_nothing_on_failure(change, words):
    model = Mlp()
    state = {name: a + 1 for name, a in model.state_dict().items()} | change
    state = {name: a for name, a in state.items() if a is not None}
    before = numbers(model)
    with pytest.raises(ValueError, match="load_state_dict: nothing was loaded") as caught:
        model.load_state_dict(state)
    for part in words:
        caught.match(part)
    assert str(caught.value).count("\n") == len(words)
    assert numbers(model) == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_keep_their_precision(dtype):
    x = np.ones((2, 3), dtype)
    for layer, given in [(nn.Linear(3, 4, dtype=dtype), x), (nn.LayerNorm(3, dtype=dtype), x), (nn.Dropout(0.5), x),
                         (nn.Embedding(5, 3, dtype=dtype), [[1, 2]])]:
        y = layer(given)
        assert y.dtype == dtype
        if layer.parameters():
            y.sum().backward()
            assert all(t.grad.dtype == dtype for t in layer.parameters())


def test_initial_weights():
    weight = nn.Linear(400, 300, rng=np.random.default_rng(0)).weight.data
    assert weight.shape == (300, 400) and np.abs(weight).max() <= 400 ** -0.5
    assert weight.std() == pytest.approx(400 ** -0.5 / 3 ** 0.5, rel=0.01)  # of a uniform distribution
    assert (nn.Linear(4, 3).bias.data == 0).all() and nn.Linear(4, 3, bias=False).bias is None
    norm = nn.LayerNorm(4)
    assert (norm.weight.data == 1).all() and (norm.bias.data == 0).all()
    table = nn.Embedding(300, 400, rng=np.random.default_rng(0)).weight.data
    assert abs(table.mean()) < 0.02 * table.std()
    single, double = nn.Linear(4, 3, dtype=np.float32).weight.data, nn.Linear(4, 3).weight.data
    assert np.array_equal(single, double.astype(np.float32))  # both precisions start alike


def test_layers_compute_what_their_operations_do():
    rng = np.random.default_rng(0)
    layer, x = nn.Linear(3, 4, rng=rng), rng.normal(size=(2, 3))
    np.testing.assert_allclose(layer(x).data, x @ layer.weight.data.T + layer.bias.data, rtol=1e-12)
    np.testing.assert_allclose(nn.Linear(3, 4, bias=False)(x).data, x @ nn.Linear(3, 4).weight.data.T, rtol=1e-12)
    table = nn.Embedding(5, 2)
    assert np.array_equal(table([[4, 0]]).data, table.weight.data[[[4, 0]]])
    np.testing.assert_allclose(nn.LayerNorm(3)(x).data.mean(axis=-1), 0, atol=1e-12)
    check_gradients(lambda x: nn.Linear(3, 4)(x), x)


def test_dropout_is_active_in_training_only():
    layer, x = nn.Dropout(0.5, np.random.default_rng(0)), Tensor(np.ones(1000))
    assert 300 < (layer(x).data == 0).sum() < 700
    assert layer.eval()(x) is x
    assert nn.Dropout(0.0)(x) is x


@pytest.mark.parametrize(("function", "error", "words"), [
    (lambda: nn.Dropout(1.0), ValueError, r"Dropout: p must be in \[0, 1\), got 1\.0"),
    (lambda: nn.Dropout(-0.1), ValueError, "Dropout: p must be"),
    (lambda: nn.Dropout(np.nan), ValueError, "Dropout: p must be"),
    (lambda: nn.Linear(3, 2)(np.ones((2, 4))), ValueError, r"linear: x \(2, 4\), weight \(2, 3\)"),
    (lambda: nn.LayerNorm(3)(np.ones((2, 4))), ValueError, "layer_norm: x"),
    (lambda: nn.Embedding(3, 2)([3]), IndexError, "from 0 to 2, got 3"),
])
def test_errors(function, error, words):
    with pytest.raises(error, match=words):
        function()
