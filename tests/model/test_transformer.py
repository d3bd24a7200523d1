"""OPT's decoder: its formulas by hand, causality, its cache, its parameters."""

import numpy as np
import pytest

from lora_np import GPT, GPTConfig, Tensor
from lora_np.train import next_token_loss
from tests.helpers import check_parameter_gradients, in_pieces, numbers, randomized, small_gpt

pytestmark = pytest.mark.filterwarnings("error")
IDS = np.array([[1, 5, 0, 6, 2], [3, 3, 4, 1, 0]])


def test_logits_have_a_row_for_each_position():
    model = small_gpt()
    assert model(IDS).shape == (2, 5, 7) and model(IDS[:, :1]).shape == (2, 1, 7)
    assert np.array_equal(model(IDS.tolist()).data, model(Tensor(IDS)).data)


def test_a_batch_is_its_rows():
    model = randomized(small_gpt())
    np.testing.assert_allclose(model(IDS).data, [model(row[None]).data[0] for row in IDS], rtol=1e-10, atol=1e-10)


def test_a_later_token_never_changes_an_earlier_logit():
    model = randomized(small_gpt())
    before = model(IDS).data
    for position in range(1, 5):
        changed = IDS.copy()
        changed[:, position] = (changed[:, position] + 1) % 7
        after = model(changed).data
        np.testing.assert_allclose(after[:, :position], before[:, :position], rtol=1e-9, atol=1e-9)
        assert not np.allclose(after[:, position:], before[:, position:])


def test_the_forward_pass_by_hand():
    """OPT's decoder written with plain NumPy, one sequence and one head at a time."""
    model = randomized(small_gpt())
    p = model.state_dict()
    ids = IDS[0]

    def norm(x, name):
        centred = x - x.mean(axis=-1, keepdims=True)
        return centred / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    x = p["embed_tokens.weight"][ids] + p["embed_positions.weight"][:5]
    for layer in ("layers.0", "layers.1"):
        h = norm(x, f"{layer}.self_attn_layer_norm")
        q, k, v = (linear(h, f"{layer}.self_attn.{name}_proj") for name in "qkv")
        heads = []
        for columns in (slice(0, 3), slice(3, 6)):
            scores = (q[:, columns] * 3 ** -0.5) @ k[:, columns].T
            scores[np.triu_indices(5, 1)] = -np.inf
            e = np.exp(scores - scores.max(axis=-1, keepdims=True))
            heads.append(e / e.sum(axis=-1, keepdims=True) @ v[:, columns])
        x = x + linear(np.concatenate(heads, axis=-1), f"{layer}.self_attn.out_proj")
        h = np.maximum(linear(norm(x, f"{layer}.final_layer_norm"), f"{layer}.fc1"), 0)
        x = x + linear(h, f"{layer}.fc2")
    logits = norm(x, "final_layer_norm") @ p["embed_tokens.weight"].T
    np.testing.assert_allclose(model(IDS).data[0], logits, rtol=1e-9, atol=1e-9)


def test_gradients_of_every_parameter_against_central_differences():
    model = randomized(small_gpt(n_layers=1))
    for t in model.parameters():
        t.data = t.data / 3  # scores small enough for differences to be exact
    check_parameter_gradients(model, lambda: next_token_loss(model, IDS[:, :-1], IDS[:, 1:]))


def test_the_head_is_tied():
    model = small_gpt()
    names = [name for name, _ in model.named_parameters()]
    assert len(set(names)) == len(names) and not any("head" in name for name in names)
    before = model(IDS).data
    model.embed_tokens.weight.data = 2 * model.embed_tokens.weight.data
    assert not np.allclose(model(IDS).data, before)


def test_parameter_names_are_those_of_opt():
    layer = [f"self_attn.{name}_proj.{kind}" for name in ("k", "v", "q", "out") for kind in ("weight", "bias")]
    layer += [f"{name}.{kind}" for name in ("self_attn_layer_norm", "fc1", "fc2", "final_layer_norm")
              for kind in ("weight", "bias")]
    expected = {"embed_tokens.weight", "embed_positions.weight", "final_layer_norm.weight", "final_layer_norm.bias"}
    expected |= {f"layers.{i}.{name}" for i in range(2) for name in layer}
    assert set(small_gpt().state_dict()) == expected


def test_the_model_of_the_lessons_has_its_known_size():
    config = GPTConfig(vocab_size=96, context=64, d_model=64, n_heads=4, n_layers=2, d_ff=256)
    assert sum(t.size for t in GPT(config).parameters()) == 110_336


def test_a_seed_decides_the_weights_and_the_precision_does_not():
    assert numbers(small_gpt(seed=3)) == numbers(small_gpt(seed=3)) != numbers(small_gpt(seed=4))
    single, double = small_gpt(dtype=np.float32), small_gpt()
    assert all(np.array_equal(a.data, b.data.astype(np.float32))
               for a, b in zip(single.parameters(), double.parameters(), strict=True))
    assert {t.dtype for t in single.parameters()} == {np.dtype(np.float32)}
    logits = single(IDS)
    assert logits.dtype == np.float32
    logits.sum().backward()
    assert {t.grad.dtype for t in single.parameters()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(logits.data, double(IDS).data, rtol=1e-3, atol=1e-4)


def test_dropout_in_training_only():
    model = small_gpt(dropout=0.5)
    assert not np.array_equal(model(IDS).data, model(IDS).data)
    model.eval()
    assert np.array_equal(model(IDS).data, model(IDS).data)


# The cache

@pytest.mark.parametrize("pieces", [[1] * 5, [5], [2, 3], [3, 1, 1]])
def test_a_cache_changes_nothing(pieces):
    model = randomized(small_gpt())
    np.testing.assert_allclose(in_pieces(model, IDS, pieces), model(IDS).data, rtol=1e-9, atol=1e-9)


def test_a_cache_knows_when_the_context_is_full():
    model, cache = randomized(small_gpt()), []
    model(IDS[:, :4], cache)
    with pytest.raises(ValueError, match="GPT: 6 positions are more than the context of 5"):
        model(IDS[:, :2], cache)
    assert model(IDS[:, 4:], cache).shape == (2, 1, 7)  # and is as it was


# Errors

SIZES = {"vocab_size": 7, "context": 5, "d_model": 6, "n_heads": 2, "n_layers": 1, "d_ff": 9}


@pytest.mark.parametrize(("change", "words"), [
    *[({name: value}, f"GPTConfig: {name} must be a whole number of at least 1, got {value}")
      for name in SIZES for value in (0, 2.0)],
    ({"d_model": 7}, "d_model 7 is not a multiple of n_heads 2"),
    ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1\.0"),
    ({"dropout": -0.1}, r"dropout must be in \[0, 1\)"),
    ({"dtype": int}, "dtype must be a floating point type"),
])
def test_config_errors(change, words):
    with pytest.raises(ValueError, match=words):
        GPTConfig(**{**SIZES, **change})


@pytest.mark.parametrize(("ids", "error", "words"), [
    ([1, 2], ValueError, r"GPT: expected ids of shape \(batch, time\), got \(2,\); one sequence is ids\[None\]"),
    (3, ValueError, r"GPT: expected ids.*got \(\)"),
    (np.zeros((1, 0), int), ValueError, "GPT: expected ids"),
    (np.zeros((1, 6), int), ValueError, "GPT: 6 positions are more than the context of 5; shorten the input"),
    ([[7]], IndexError, "expected integers from 0 to 6, got 7"),
    ([[-1]], IndexError, "expected integers from 0 to 6"),
    ([[1.0]], TypeError, "expected integers, got float64"),
])
def test_ids_that_do_not_fit(ids, error, words):
    with pytest.raises(error, match=words):
        small_gpt()(ids)
