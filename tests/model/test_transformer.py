"""The transformer: shapes, causality, its cache, its parameters, and generate."""

import numpy as np
import pytest

from lora_np import GPT, GPTConfig, Tensor, generate, no_grad, ops
from lora_np.train import next_token_loss
from tests.helpers import check_parameter_gradients, numbers, small_gpt

pytestmark = pytest.mark.filterwarnings("error")
IDS = np.array([[1, 5, 0, 6, 2], [3, 3, 4, 1, 0]])


def trained(**changes):
    """A model whose parameters are all random, so that none hides behind a zero."""
    model, rng = small_gpt(**changes), np.random.default_rng(9)
    for t in model.parameters():
        t.data = rng.normal(size=t.shape)
    return model


def test_logits_have_a_row_for_each_position():
    model = small_gpt()
    assert model(IDS).shape == (2, 5, 7) and model(IDS[:, :1]).shape == (2, 1, 7)
    assert np.array_equal(model(IDS.tolist()).data, model(Tensor(IDS)).data)


def test_a_batch_is_its_rows():
    model = trained()
    np.testing.assert_allclose(model(IDS).data, [model(row[None]).data[0] for row in IDS], rtol=1e-10, atol=1e-10)


def test_a_later_token_never_changes_an_earlier_logit():
    model = trained()
    before = model(IDS).data
    for position in range(1, 5):
        changed = IDS.copy()
        changed[:, position] = (changed[:, position] + 1) % 7
        after = model(changed).data
        np.testing.assert_allclose(after[:, :position], before[:, :position], rtol=1e-9, atol=1e-9)
        assert not np.allclose(after[:, position:], before[:, position:])


def test_the_forward_pass_by_hand():
    """OPT's decoder written with plain NumPy, one sequence and one head at a time."""
    model = trained()
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
    model = trained(n_layers=1)
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
    model, cache, logits, start = trained(), [], [], 0
    with no_grad():
        for n in pieces:
            logits.append(model(IDS[:, start:start + n], cache).data)
            start += n
    np.testing.assert_allclose(np.concatenate(logits, axis=1), model(IDS).data, rtol=1e-9, atol=1e-9)


def test_a_cache_knows_when_the_context_is_full():
    model, cache = trained(), []
    model(IDS[:, :4], cache)
    with pytest.raises(ValueError, match="GPT: 6 positions are more than the context of 5"):
        model(IDS[:, :2], cache)
    assert model(IDS[:, 4:], cache).shape == (2, 1, 7)  # and is as it was


# generate

def test_generate_is_deterministic_and_keeps_the_prompt():
    model = trained()
    first = generate(model, [1, 2], 12, seed=5)
    assert first.shape == (14,) and first[:2].tolist() == [1, 2] and first.dtype.kind == "i"
    assert np.array_equal(first, generate(model, [1, 2], 12, seed=5))
    assert any(not np.array_equal(first, generate(model, [1, 2], 12, seed=s)) for s in range(6, 9))
    batch = generate(model, IDS[:, :2], 4)
    assert batch.shape == (2, 6) and np.array_equal(batch[:, :2], IDS[:, :2])
    assert generate(model, [1, 2], 0).tolist() == [1, 2]


@pytest.mark.parametrize("prompt", [[4], [1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6, 0, 1, 2]])
def test_greedy_generation_takes_the_likeliest_also_past_the_context(prompt):
    model, context = trained(), 5
    ids, kept = list(prompt), list(prompt)[-context:]
    for _ in range(12):
        if len(kept) > context:  # the token that was sampled last made it too long: the later half goes on
            kept = kept[-(context + 1) // 2:]
        token = int(model([kept]).data[0, -1].argmax())
        ids.append(token)
        kept.append(token)
    assert generate(model, prompt, 12, temperature=0).tolist() == ids


def test_samples_follow_the_softmax():
    model = small_gpt()
    model.embed_tokens.weight.data = 3 * model.embed_tokens.weight.data
    n = 20_000
    for temperature in (0.5, 1.0, 2.0):
        drawn = generate(model, np.full((n, 1), 3), 1, temperature=temperature, seed=1)[:, 1]
        expected = ops.softmax(model([[3]]).data[0, -1] / temperature).data
        np.testing.assert_allclose(np.bincount(drawn, minlength=7) / n, expected, atol=5 * 0.5 / n ** 0.5)


def test_generate_leaves_the_model_as_it_was():
    model = trained(dropout=0.5)
    before = numbers(model)
    first = generate(model, [1], 40)
    assert model.training and numbers(model) == before and all(t.grad is None for t in model.parameters())
    assert np.array_equal(first, generate(model.eval(), [1], 40))  # no dropout either way
    assert not model.training
    model.train()
    with pytest.raises(IndexError):
        generate(model, [7], 1)
    assert model.training


@pytest.mark.parametrize("context", [1, 2, 3])
def test_generate_with_the_shortest_contexts(context):
    assert generate(small_gpt(context=context), [1, 2, 3, 4], 7).shape == (11,)


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


@pytest.mark.parametrize(("args", "options", "words"), [
    (([], 3), {}, r"generate: expected integer ids of shape \(T,\) or \(B, T\)"),
    (("text", 3), {}, "generate: expected integer ids"),
    (([1.0], 3), {}, "generate: expected integer ids"),
    (([[[1]]], 3), {}, "generate: expected integer ids"),
    (([1], -1), {}, "generate: n must be a whole number"),
    (([1], 2.5), {}, "generate: n must be a whole number"),
    (([1], 3), {"temperature": -0.1}, "generate: temperature must"),
    (([1], 3), {"temperature": np.nan}, "generate: temperature must"),
    (([1], 3), {"temperature": np.inf}, "generate: temperature must"),
])
def test_generate_errors(args, options, words):
    with pytest.raises(ValueError, match=words):
        generate(small_gpt(), *args, **options)
