"""Llama's decoder: its formulas by hand, its relatives, its cache, its parameters; that it trains and takes LoRA."""

import numpy as np
import pytest

from lora_np import Llama, LlamaConfig, LoraConfig, Tensor, llama, lora, no_grad, ops
from lora_np.optim import AdamW
from lora_np.train import fit, next_token_loss
from tests.helpers import check_parameter_gradients, in_pieces, numbers, randomized, small_llama

pytestmark = pytest.mark.filterwarnings("error")
IDS = np.array([[1, 5, 0, 6, 2], [3, 3, 4, 1, 0]])
SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 16}
KINDS = {"llama": {}, "untied": {"tied": False}, "llama3": {"rope_scaling": SCALING, "rope_theta": 100.0},
         "qwen2": {"qkv_bias": True}, "qwen3": {"qk_norm": True, "tied": False}, "one group": {"n_kv_heads": 1},
         "no groups": {"n_kv_heads": 4}}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def forward_by_hand(model, ids):
    """Llama's decoder in plain NumPy, one sequence and one head at a time: the logits (T, vocab_size)."""
    p, c = model.state_dict(), model.config
    half = c.d_head // 2
    frequency = [c.rope_theta ** (-2 * j / c.d_head) for j in range(half)]
    if c.rope_scaling:
        lo, hi, n = (c.rope_scaling[key] for key in ("low_freq_factor", "high_freq_factor",
                                                     "original_max_position_embeddings"))
        for j, f in enumerate(frequency):
            wavelength = 2 * np.pi / f
            t = (n / wavelength - lo) / (hi - lo)
            slow = f / c.rope_scaling["factor"]
            frequency[j] = slow if wavelength > n / lo else f if wavelength < n / hi else (1 - t) * slow + t * f

    def norm(x, name):
        return x / np.sqrt((x ** 2).mean(axis=-1, keepdims=True) + c.norm_eps) * p[f"{name}.weight"]

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0)

    def heads(x, name, n):  # each (T, d_head), normed where the model does so
        parts = np.split(x, n, axis=-1)
        return [norm(part, name) for part in parts] if c.qk_norm else parts

    def turned(x):
        out = np.empty_like(x)
        for t in range(len(x)):
            for j, f in enumerate(frequency):
                a, b = x[t, j], x[t, j + half]
                out[t, j] = a * np.cos(t * f) - b * np.sin(t * f)
                out[t, j + half] = b * np.cos(t * f) + a * np.sin(t * f)
        return out

    x = p["embed_tokens.weight"][ids]
    for i in range(c.n_layers):
        at = f"layers.{i}"
        h = norm(x, f"{at}.input_layernorm")
        q = heads(linear(h, f"{at}.self_attn.q_proj"), f"{at}.self_attn.q_norm", c.n_heads)
        k = heads(linear(h, f"{at}.self_attn.k_proj"), f"{at}.self_attn.k_norm", c.n_kv_heads)
        v = np.split(linear(h, f"{at}.self_attn.v_proj"), c.n_kv_heads, axis=-1)
        y = []
        for head in range(c.n_heads):
            shared = head // (c.n_heads // c.n_kv_heads)
            scores = turned(q[head]) @ turned(k[shared]).T / c.d_head ** 0.5
            scores[np.triu_indices(len(ids), 1)] = -np.inf
            e = np.exp(scores - scores.max(axis=-1, keepdims=True))
            y.append(e / e.sum(axis=-1, keepdims=True) @ v[shared])
        x = x + linear(np.concatenate(y, axis=-1), f"{at}.self_attn.o_proj")
        h = norm(x, f"{at}.post_attention_layernorm")
        gate = linear(h, f"{at}.mlp.gate_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(h, f"{at}.mlp.up_proj"), f"{at}.mlp.down_proj")
    return norm(x, "norm") @ p["embed_tokens.weight" if c.tied else "lm_head.weight"].T


@every_kind
def test_the_forward_pass_by_hand(kind):
    model = randomized(small_llama(**kind))
    for row, logits in zip(IDS, model(IDS).data, strict=True):
        np.testing.assert_allclose(logits, forward_by_hand(model, row), rtol=1e-9, atol=1e-9)


@every_kind
def test_gradients_of_every_parameter_against_central_differences(kind):
    model = randomized(small_llama(**{"n_layers": 1, "d_model": 5, "d_ff": 3, **kind}))
    for t in model.parameters():
        t.data = t.data / 3  # scores small enough for differences to be exact
    check_parameter_gradients(model, lambda: next_token_loss(model, IDS[:, :-1], IDS[:, 1:]))


@every_kind
@pytest.mark.parametrize("pieces", [[1] * 5, [5], [2, 3], [3, 1, 1]], ids=str)
def test_a_cache_changes_nothing(kind, pieces):
    model = randomized(small_llama(**kind))
    np.testing.assert_allclose(in_pieces(model, IDS, pieces), model(IDS).data, rtol=1e-9, atol=1e-9)


def test_a_batch_is_its_rows_and_padding_on_the_right_changes_nothing_before_it():
    model = randomized(small_llama())
    whole = model(IDS).data
    np.testing.assert_allclose(whole, [model(row[None]).data[0] for row in IDS], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(model(IDS[:, :3]).data, whole[:, :3], rtol=1e-10, atol=1e-10)
    targets = np.array([[5, 0, 6, -100, -100], [3, 4, 1, 0, -100]])
    alone = [next_token_loss(model, row[None, :n], y[None, :n]).item() for row, y, n in zip(IDS, targets, (3, 4),
                                                                                           strict=True)]
    assert next_token_loss(model, IDS, targets).item() == pytest.approx(np.average(alone, weights=(3, 4)), rel=1e-12)


def test_only_the_distance_between_positions_counts():
    """Rotary positions: what all positions have in common cancels out, which learned positions do not offer."""
    model, T = randomized(small_llama(context=9)), 4
    here = model.hidden(IDS[:, :T]).data
    moved = model.prepare

    def further(ids, cache):
        ids, start, caches = moved(ids, cache)
        return ids, start + 5, caches

    model.prepare = further
    np.testing.assert_allclose(model.hidden(IDS[:, :T]).data, here, rtol=1e-9, atol=1e-9)


def test_frequencies():
    config = small_llama(d_head=8, rope_theta=10_000.0).config
    np.testing.assert_allclose(llama.frequencies(config), [1, 0.1, 0.01, 0.001])
    scaled = llama.frequencies(LlamaConfig(**{**vars(config), "rope_scaling": SCALING}))
    # turns in 16 positions: 2.5, 0.25, …; between 1 and 4 the ramp, below 1 eight times slower
    kept = (16 / (2 * np.pi) - 1) / 3
    np.testing.assert_allclose(scaled, [(1 - kept) / 8 + kept, 0.1 / 8, 0.01 / 8, 0.001 / 8])
    fast = llama.frequencies(LlamaConfig(**{**vars(config), "rope_scaling": {**SCALING, "high_freq_factor": 2.0}}))
    assert fast[0] == 1  # 2.5 turns are above 2: as it was


def test_parameter_names_are_those_of_transformers():
    layer = [f"self_attn.{name}_proj.weight" for name in "qkvo"] + [f"mlp.{name}_proj.weight" for name in (
        "gate", "up", "down")] + ["input_layernorm.weight", "post_attention_layernorm.weight"]
    expected = {"embed_tokens.weight", "norm.weight", *(f"layers.{i}.{name}" for i in range(2) for name in layer)}
    shapes = {name: t.shape for name, t in small_llama().named_parameters()}
    assert set(shapes) == expected
    expected_shapes = {"self_attn.q_proj": (24, 10), "self_attn.k_proj": (12, 10), "self_attn.o_proj": (10, 24),
                       "mlp.down_proj": (10, 9)}
    assert {name: shapes[f"layers.1.{name}.weight"] for name in expected_shapes} == expected_shapes
    assert set(small_llama(tied=False).state_dict()) == expected | {"lm_head.weight"}
    biases = {f"layers.{i}.self_attn.{name}_proj.bias" for i in range(2) for name in "qkv"}
    assert set(small_llama(qkv_bias=True).state_dict()) == expected | biases
    norms = {f"layers.{i}.self_attn.{name}_norm.weight" for i in range(2) for name in "qk"}
    assert set(small_llama(qk_norm=True).state_dict()) == expected | norms


def test_the_head_is_tied_or_not():
    for tied in (True, False):
        model = randomized(small_llama(tied=tied))
        h = model.hidden(IDS)
        weight = model.embed_tokens.weight if tied else model.lm_head.weight
        np.testing.assert_allclose(model(IDS).data, h.data @ weight.data.T)
        assert model.head_weight() is weight


def test_a_seed_decides_the_weights_and_the_precision_does_not():
    assert numbers(small_llama(seed=3)) == numbers(small_llama(seed=3)) != numbers(small_llama(seed=4))
    single, double = small_llama(dtype=np.float32), small_llama()
    assert all(np.array_equal(a.data, b.data.astype(np.float32))
               for a, b in zip(single.parameters(), double.parameters(), strict=True))
    loss = next_token_loss(single, IDS[:, :-1], IDS[:, 1:])
    loss.backward()
    assert {loss.dtype, single(IDS).dtype, *(t.grad.dtype for t in single.parameters())} == {np.dtype(np.float32)}
    np.testing.assert_allclose(single(IDS).data, double(IDS).data, rtol=1e-3, atol=1e-4)


@every_kind
def test_lora_trains_and_leaves_the_base_alone(kind):
    model = small_llama(vocab_size=11, context=8, **kind)
    before = model.state_dict()
    lora.add_lora(model, LoraConfig(r=2, target_modules=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                                                         "down_proj")))
    ids = np.arange(16).reshape(2, 8) % 11
    x, y = ids[:, :-1], np.where(np.arange(7) < 3, -100, ids[:, 1:])
    history = fit(model, iter([(x, y)] * 40), AdamW(model.trainable_parameters(), 0.02), 40, quiet=True)
    assert history.train_loss[-1] < 0.75 * history.train_loss[0]
    after = model.state_dict()
    assert all(np.array_equal(array, after[name]) for name, array in before.items())


# The head and its loss

@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_in_blocks_is_that_of_the_logits(tied):
    model, targets = randomized(small_llama(tied=tied)), np.array([[-100, 0, 6, 2, 1], [3, -100, -100, 0, -100]])
    loss = next_token_loss(model, IDS, targets)
    loss.backward()
    gradients = [t.grad for t in model.parameters()]
    for t in model.parameters():
        t.grad = None
    logits = model(IDS)
    whole = ops.cross_entropy(logits, targets)
    whole.backward()
    assert loss.item() == pytest.approx(whole.item(), rel=1e-12)
    for got, t in zip(gradients, model.parameters(), strict=True):
        np.testing.assert_allclose(got, t.grad, rtol=1e-9, atol=1e-12)


def test_an_adapted_head_is_in_the_loss():
    model = randomized(small_llama(tied=False))
    lora.add_lora(model, LoraConfig(r=2, target_modules=("lm_head",)))
    model.lm_head.lora_B.data = np.ones(model.lm_head.lora_B.shape)
    assert model.head_weight() is None
    loss = next_token_loss(model, IDS[:, :-1], IDS[:, 1:])
    assert loss.item() == pytest.approx(ops.cross_entropy(model(IDS[:, :-1]), IDS[:, 1:]).item(), rel=1e-12)
    loss.backward()
    assert model.lm_head.lora_A.grad is not None


def test_a_head_of_ones_own_is_in_the_loss():
    class Capped(Llama):
        def forward(self, ids, cache=None):
            return 3 * ops.tanh(super().forward(ids, cache) / 3)

    model = randomized(Capped(small_llama().config))
    expected = ops.cross_entropy(model(IDS[:, :-1]), IDS[:, 1:]).item()
    assert next_token_loss(model, IDS[:, :-1], IDS[:, 1:]).item() == pytest.approx(expected, rel=1e-12)


def test_no_target_at_all_is_an_error():
    model = small_llama()
    with pytest.raises(ValueError, match="all 10 targets are -100, which is ignored, and the mean of nothing"):
        next_token_loss(model, IDS, np.full((2, 5), -100))


# The cache

def test_a_cache_is_not_copied_for_each_token():
    model, cache = randomized(small_llama(context=100)), []
    with no_grad():
        model(np.zeros((1, 10), int), cache)
        model([[1]], cache)
        rooms = [kept.room for kept in cache]
        for _ in range(11):
            model([[1]], cache)
        assert all(kept.room is room for kept, room in zip(cache, rooms, strict=True))  # room for 22 positions
        model([[1]], cache)
        assert all(kept.room is not room for kept, room in zip(cache, rooms, strict=True))
        assert cache[0].shape == (1, 23)


def test_what_came_out_of_a_cache_stays():
    model, cache = randomized(small_llama()), []
    with no_grad():
        for i in range(3):
            model(IDS[:, i:i + 1], cache)
        keys = cache[0].kept[0]
        before = keys.numpy()
        model(IDS[:, 3:], cache)
    assert np.array_equal(keys.data, before) and not keys.data.flags.writeable


def test_backward_goes_through_a_cache():
    model, cache = randomized(small_llama()), []
    pieces = [model(IDS[:, start:stop], cache) for start, stop in ((0, 2), (2, 3), (3, 5))]
    ops.concatenate(pieces, axis=1).sum().backward()
    got = [t.grad for t in model.parameters()]
    for t in model.parameters():
        t.grad = None
    model(IDS).sum().backward()
    for g, t in zip(got, model.parameters(), strict=True):
        np.testing.assert_allclose(g, t.grad, rtol=1e-9, atol=1e-9)


def test_a_cache_that_was_recorded_serves_without_recording_too():
    model, cache = randomized(small_llama()), []
    first = model(IDS[:, :2], cache).data
    with no_grad():
        rest = [model(IDS[:, i:i + 1], cache).data for i in range(2, 5)]
    np.testing.assert_allclose(np.concatenate([first, *rest], axis=1), model(IDS).data, rtol=1e-9, atol=1e-9)


# Errors

SIZES = {"vocab_size": 7, "context": 5, "d_model": 8, "n_heads": 4, "n_kv_heads": 2, "n_layers": 1, "d_ff": 9}


@pytest.mark.parametrize(("change", "error", "words"), [
    *[({name: value}, ValueError, f"LlamaConfig: {name} must be a whole number of at least 1, got {value}")
      for name in SIZES for value in (0, 2.0)],
    ({"d_model": 9}, ValueError, "d_model 9 is not a multiple of n_heads 4; give d_head"),
    ({"d_model": 12}, ValueError, "d_head 3 is odd, but rotary positions turn pairs of columns"),
    ({"d_head": 5}, ValueError, "d_head 5 is odd"),
    ({"d_head": 0}, ValueError, "d_head must be a whole number of at least 1, got 0"),
    ({"n_kv_heads": 3}, ValueError, "n_heads 4 is not a multiple of n_kv_heads 3"),
    ({"n_kv_heads": 8}, ValueError, "n_heads 4 is not a multiple of n_kv_heads 8"),
    ({"norm_eps": -1e-5}, ValueError, "norm_eps must not be negative"),
    ({"rope_theta": 0}, ValueError, "rope_theta must be above 0"),
    ({"rope_theta": "x"}, ValueError, "rope_theta must be a number"),
    ({"tied": None}, TypeError, "tied must be True or False, got None"),
    ({"qkv_bias": 1}, TypeError, "qkv_bias must be True or False, got 1"),
    ({"seed": -1}, ValueError, "seed must be a whole number"),
    ({"dtype": int}, ValueError, "dtype must be a floating point type"),
    ({"rope_scaling": "llama3"}, TypeError, 'expected a dict, got str for rope_scaling; write {"rope_type": "llama3"'),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, ValueError, "rope_type 'yarn' is not supported"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, ValueError, "rope_scaling lacks low_freq_factor, high"),
    ({"rope_scaling": {**SCALING, "factor": "x"}}, ValueError, "rope_scaling: factor must be a number, got 'x'"),
    ({"rope_scaling": {**SCALING, "factor": 0}}, ValueError, "needs a factor above 0"),
    ({"rope_scaling": {**SCALING, "low_freq_factor": 4.0}}, ValueError, "low_freq_factor below high_freq_factor"),
])
def test_config_errors(change, error, words):
    with pytest.raises(error, match=words):
        LlamaConfig(**{**SIZES, **change})


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda m: Llama(SIZES), TypeError, "Llama: expected a LlamaConfig, got dict; write Llama"),
    (lambda m: m([1, 2]), ValueError, r"Llama: expected ids of shape \(batch, time\), got \(2,\); one sequence is ids"),
    (lambda m: m(np.zeros((1, 6), int)), ValueError, "Llama: 6 positions are more than the context of 5; shorten"),
    (lambda m: m([[7]]), IndexError, "expected integers from 0 to 6, got 7"),
    (lambda m: m([[-100, 1]]), IndexError, "expected integers from 0 to 6, got -100"),
    (lambda m: m([[1.0]]), TypeError, "expected integers, got float64"),
    (lambda m: m([[1]], {}), TypeError, "Llama: expected a list, got dict; the cache starts as an empty list"),
    (lambda m: [small_llama()([[1]], cache := []), m([[1]], cache)], ValueError, "not one that this model filled"),
    (lambda m: [m([[1], [2]], cache := []), m([[1]], cache)], ValueError, "the cache holds 2 sequences, the ids 1"),
    (lambda m: next_token_loss(m, IDS, IDS[0]), ValueError, "expected targets of shape"),
    (lambda m: next_token_loss(m, IDS[:, :2], IDS), ValueError, "linear_cross_entropy: x"),
    (lambda m: next_token_loss(m, IDS, IDS + 1), IndexError, "expected integers from 0 to 6, got 1 to 7"),
])
def test_what_does_not_fit(call, error, words):
    with pytest.raises(error, match=words):
        call(small_llama())


def test_left_padding_is_refused_where_the_padding_is_known():
    model = randomized(small_llama())
    padded = np.array([[0, 0, 1, 2], [3, 4, 1, 2]])
    assert model(padded).shape == (2, 4, 7)  # 0 may be a token like any other
    model.pad_id = 0
    for call in (lambda: model(padded), lambda: model(Tensor(padded)), lambda: next_token_loss(model, padded, padded)):
        with pytest.raises(ValueError, match=r"Llama: row 0 begins with padding \(id 0\).*Pad on the right"):
            call()
    for fine in ([[1, 2, 0, 0], [3, 4, 1, 2]], [[0, 1, 2, 0]], [[0, 0, 0]], [[0]]):
        model(np.array(fine))
