"""generate and stream, for both decoders: greedy and sampled, stops, top_p, ids that the tokenizer lacks, modes."""

import numpy as np
import pytest

from lora_np import LoraConfig, Tensor, generate, lora, no_grad, ops
from lora_np.generate import _choice, _nucleus, stream
from lora_np.nn import Dropout, Module, evaluating
from lora_np.train import evaluate
from tests.helpers import numbers, randomized, small_gpt, small_llama

pytestmark = pytest.mark.filterwarnings("error")
DECODERS = {"GPT": small_gpt, "Llama": small_llama}
every_decoder = pytest.mark.parametrize("make", DECODERS.values(), ids=DECODERS.keys())


class Scripted(Module):
    """Stands in for a head: logits that make greedy generation say `said` one after the other, in each row its own."""

    def __init__(self, said, V=7):
        self.said, self.at, self.V = np.atleast_2d(said), 0, V

    def forward(self, h):
        ids = self.said[:, self.at]
        self.at += 1
        return Tensor(np.where(np.arange(self.V) == ids[:, None], 5.0, 0.0))


def scripted(make, said):
    model = make()
    model.lm_head = Scripted(said)
    return model


@every_decoder
@pytest.mark.parametrize("prompt", [[4], [1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6, 0, 1, 2]], ids=len)
def test_greedy_is_argmax_without_a_cache_also_past_the_context(make, prompt):
    model, context = randomized(make()), 5
    ids, kept = list(prompt), list(prompt)[-context:]
    for _ in range(12):
        if len(kept) > context:  # the token that was sampled last made it too long: the later half goes on
            kept = kept[-(context + 1) // 2:]
        token = int(model([kept]).data[0, -1].argmax())
        ids.append(token)
        kept.append(token)
    assert generate(model, prompt, 12, temperature=0).tolist() == ids


@every_decoder
def test_generate_is_deterministic_and_keeps_the_prompt(make):
    model = randomized(make())
    first = generate(model, [1, 2], 12, seed=5)
    assert first.shape == (14,) and first[:2].tolist() == [1, 2] and first.dtype.kind == "i"
    assert np.array_equal(first, generate(model, [1, 2], 12, seed=5))
    assert any(not np.array_equal(first, generate(model, [1, 2], 12, seed=s)) for s in range(6, 9))
    prompts = np.array([[1, 5], [3, 3]])
    batch = generate(model, prompts, 4)
    assert batch.shape == (2, 6) and np.array_equal(batch[:, :2], prompts)
    assert generate(model, [1, 2], 0).tolist() == [1, 2]


@every_decoder
@pytest.mark.parametrize("context", [1, 2, 3])
def test_the_shortest_contexts(make, context):
    assert generate(make(context=context), [1, 2, 3, 4], 7).shape == (11,)


@every_decoder
def test_a_row_of_a_batch_is_continued_as_it_is_alone(make):
    model = randomized(make(context=20))
    prompts = np.array([[1, 5, 0], [3, 3, 4], [6, 2, 2]])
    together = generate(model, prompts, 10, temperature=0)
    assert together.tolist() == [generate(model, row, 10, temperature=0).tolist() for row in prompts]
    assert together.dtype.kind == "i" and together.shape == (3, 13)


@every_decoder
def test_stream_gives_what_generate_appends(make):
    model = randomized(make(context=20))
    for ids in ([1, 2], [[1, 2], [3, 4]]):
        whole = generate(model, ids, 8, seed=3)
        parts = list(stream(model, ids, 8, seed=3))
        assert np.array_equal(np.stack(parts, axis=-1), whole[..., 2:])
    assert all(type(token) is int for token in stream(model, [1, 2], 3))


# Stops

@every_decoder
@pytest.mark.parametrize(("stop", "expected"), [
    (2, [5, 1, 2, 2, 2, 2]), ([2], [5, 1, 2, 2, 2, 2]), ([4, 1], [5, 1, 1, 1, 1, 1]), (np.int64(6), [5, 1, 2, 4, 6, 6]),
    (np.array([5]), [5] * 6), (0, [5, 1, 2, 4, 6, 3]), (3, [5, 1, 2, 4, 6, 3]), ([], [5, 1, 2, 4, 6, 3]),
    (None, [5, 1, 2, 4, 6, 3]), ((6, 2), [5, 1, 2, 2, 2, 2])])
def test_a_stop_ends_the_row_and_fills_it(make, stop, expected):
    said = [5, 1, 2, 4, 6, 3]
    assert generate(scripted(make, said), [0, 2], 6, temperature=0, stop=stop).tolist() == [0, 2, *expected]
    streamed = list(stream(scripted(make, said), [0, 2], 6, temperature=0, stop=stop))
    assert streamed == expected[:len(streamed)] and streamed + streamed[-1:] * (6 - len(streamed)) == expected


@every_decoder
def test_each_row_of_a_batch_ends_at_its_own_stop(make):
    said = [[5, 1, 2, 4, 6], [3, 3, 3, 3, 0], [6, 5, 5, 5, 5]]
    whole = generate(scripted(make, said), [[2], [1], [6]], 5, temperature=0, stop=[2, 6])
    assert whole.tolist() == [[2, 5, 1, 2, 2, 2], [1, 3, 3, 3, 3, 0], [6, 6, 6, 6, 6, 6]]  # the prompt's 2 and 6: none
    model = scripted(make, said)
    parts = [part.tolist() for part in stream(model, [[2], [1], [6]], 5, temperature=0, stop=[2, 6, 3])]
    assert parts == [[5, 3, 6], [1, 3, 6], [2, 3, 6]] and model.lm_head.at == 3  # nothing is computed after the last


@every_decoder
def test_a_stopped_row_changes_nothing_for_the_others(make):
    model = randomized(make(context=20))
    prompts = np.array([[1, 5], [3, 3], [6, 2]])
    free = generate(model, prompts, 8, temperature=0)
    stop = int(free[0, 3])
    stopped = generate(model, prompts, 8, temperature=0, stop=stop)
    for row, whole in zip(stopped, free, strict=True):
        end = next((i for i in range(2, 10) if whole[i] == stop), 9)
        assert row.tolist() == [*whole[:end + 1], *[stop] * (9 - end)]


# top_p, temperature, ids that are never generated

@pytest.mark.parametrize(("p", "top_p", "kept"), [
    ([0.5, 0.3, 0.2], 0.5, [0]), ([0.5, 0.3, 0.2], 0.51, [0, 1]), ([0.5, 0.3, 0.2], 0.8, [0, 1]),
    ([0.5, 0.3, 0.2], 0.81, [0, 1, 2]), ([0.5, 0.3, 0.2], 1e-12, [0]), ([0.2, 0.5, 0.3], 0.4, [1]),
    ([0.2, 0.5, 0.3], 0.7, [1, 2]), ([0.5, 0.3, 0.2], 1.0, [0, 1, 2]), ([0.25] * 4, 0.5, [0, 1]),
    ([1.0, 0, 0], 0.9, [0]), ([0.1] * 10, 0.3, [0, 1, 2]), ([0.1] * 10, 0.7, range(7)),
    ([0.1] * 10, 0.999, range(10)), ([1.0], 0.3, [0])])
def test_top_p_keeps_the_fewest_that_reach_it(p, top_p, kept):
    with np.errstate(divide="ignore"):
        scores = np.log(p) - np.log(max(p))
    out = _nucleus(np.stack([scores, scores[::-1]]), top_p)
    assert np.flatnonzero(np.isfinite(out[0]) & (np.array(p) > 0)).tolist() == list(kept)
    assert np.array_equal(out[0][list(kept)], scores[list(kept)])
    if len(set(p)) == len(p):  # of tokens that tie, the first are kept
        assert np.array_equal(out[1], out[0][::-1])


def test_samples_follow_the_softmax():
    model = small_gpt()
    model.embed_tokens.weight.data = 3 * model.embed_tokens.weight.data
    n = 20_000
    for temperature in (0.5, 1.0, 2.0):
        drawn = generate(model, np.full((n, 1), 3), 1, temperature=temperature, seed=1)[:, 1]
        expected = ops.softmax(model([[3]]).data[0, -1] / temperature).data
        np.testing.assert_allclose(np.bincount(drawn, minlength=7) / n, expected, atol=5 * 0.5 / n ** 0.5)


def test_samples_with_top_p_follow_the_softmax_of_what_is_kept():
    n, logits = 20_000, np.log([0.1, 0.4, 0.2, 0.3])
    drawn = _choice(np.tile(logits, (n, 1)), 1.0, np.random.default_rng(0), 0.7, [])
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / n, [0, 4 / 7, 0, 3 / 7], atol=0.02)
    hot = _choice(np.tile(logits, (n, 1)), 0.5, np.random.default_rng(0), 0.8, [])  # 1, 16, 4, 9: temperature first
    np.testing.assert_allclose(np.bincount(hot, minlength=4) / n, [0, 16 / 25, 0, 9 / 25], atol=0.02)


@every_decoder
def test_top_p_of_1_changes_nothing_and_the_smallest_is_greedy(make):
    model = randomized(make(context=20))
    assert np.array_equal(generate(model, [1], 12, seed=4, top_p=1), generate(model, [1], 12, seed=4))
    greedy = generate(model, [1], 12, temperature=0)
    assert np.array_equal(generate(model, [1], 12, seed=4, top_p=1e-300), greedy)
    assert np.array_equal(generate(model, [1], 12, temperature=0, top_p=0.5), greedy)
    assert np.array_equal(generate(model, [1], 12, temperature=1e-320), greedy)


@every_decoder
def test_ids_that_the_tokenizer_lacks_are_never_generated(make):
    model = randomized(make(context=20))
    assert generate(model, np.ones((50, 1), int), 5, temperature=3.0).max() == 6
    model.lacking = np.array([4, 1, 6])
    sampled = generate(model, np.full((50, 1), 6), 5, temperature=3.0)[:, 1:]
    assert set(np.unique(sampled)) == {0, 2, 3, 5}
    logits = model([[6]]).data[0, -1]
    likeliest = max([0, 2, 3, 5], key=lambda i: logits[i])
    assert generate(model, [6], 1, temperature=0)[1] == likeliest
    assert generate(model, [6], 1, temperature=2.0, top_p=1e-9)[1] == likeliest


@every_decoder
def test_only_the_last_position_meets_the_head(make, monkeypatch):
    model, shapes = randomized(make(context=20)), []
    monkeypatch.setattr(model, "head", lambda h: shapes.append(h.shape) or type(model).head(model, h))
    generate(model, [[1, 2, 3], [4, 5, 6]], 3)
    assert set(shapes) == {(2, model.config.d_model)}


@every_decoder
def test_only_new_tokens_are_read(make, monkeypatch):
    model, lengths = randomized(make(context=6)), []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids, cache: lengths.append(np.shape(ids)[1]) or hidden(ids, cache))
    generate(model, [1, 2, 3], 8)
    assert lengths == [3, 1, 1, 1, 3, 1, 1, 1]  # at six positions the later half is read again


# What generate and evaluate leave behind

def test_generate_leaves_the_model_as_it_was():
    model = randomized(small_gpt(dropout=0.5))
    before = numbers(model)
    first = generate(model, [1], 40)
    assert model.training and numbers(model) == before and all(t.grad is None for t in model.parameters())
    assert np.array_equal(first, generate(model.eval(), [1], 40))  # no dropout either way
    assert not model.training
    model.train()
    with pytest.raises(IndexError):
        generate(model, [7], 1)
    assert model.training


def mixed(make):
    """A model some of whose modules are in evaluation mode, with a dropout that would show."""
    model = randomized(make())
    lora.add_lora(model, LoraConfig(r=2, lora_dropout=0.5))
    for layer in (model.layers[1], model.layers[0].self_attn):
        layer.eval()
    for t in model.parameters():
        t.data = np.ones(t.shape) / 3
    return model


def modes(model):
    return {path: module.training for path, module in model.named_modules()}


@every_decoder
def test_each_module_is_in_its_own_mode_again(make):
    model = mixed(make)
    before, parameters = modes(model), numbers(model)
    assert len(set(before.values())) == 2
    first = generate(model, [1, 2], 6)
    assert modes(model) == before and numbers(model) == parameters
    assert np.array_equal(first, generate(model, [1, 2], 6)), "dropout was active"
    loss = evaluate(model, [([[1, 2]], [[2, 3]])])
    assert modes(model) == before and loss == evaluate(model, [([[1, 2]], [[2, 3]])])
    for call in (lambda: generate(model, [7], 1), lambda: evaluate(model, [([[7]], [[1]])]),
                 lambda: list(stream(model, [7], 2))):
        with pytest.raises(IndexError):
            call()
        assert modes(model) == before


@every_decoder
def test_between_two_tokens_of_a_stream_the_model_is_as_it_was(make):
    model = mixed(make)
    before, seen = modes(model), []
    for token in stream(model, [1, 2], 4, temperature=0):
        assert modes(model) == before
        loss = ops.cross_entropy(model([[token]]), [[1]])  # recorded: no_grad ended before the token came
        assert loss.requires_grad
        seen.append(token)
    assert [1, 2, *seen] == generate(model, [1, 2], 4, temperature=0).tolist()
    begun = stream(model, [1, 2], 4)
    next(begun)
    assert modes(model) == before  # although nobody closes it


def test_evaluating_restores_each_mode_also_after_an_error():
    model = mixed(small_llama)
    before = modes(model)
    with pytest.raises(KeyError), evaluating(model):
        assert not any(modes(model).values())
        raise KeyError
    assert modes(model) == before
    dropout = Dropout(0.5)
    with evaluating(dropout):
        assert not dropout.training
    assert dropout.training


@every_decoder
def test_streams_do_not_disturb_each_other(make):
    model = randomized(make(context=20))
    first, second = stream(model, [1], 6, seed=1), stream(model, [2], 6, seed=2)
    both = [list(pair) for pair in zip(first, second, strict=True)]
    assert [a for a, _ in both] == generate(model, [1], 6, seed=1)[1:].tolist()
    assert [b for _, b in both] == generate(model, [2], 6, seed=2)[1:].tolist()


@every_decoder
def test_ids_of_any_integer_type(make):
    model = randomized(make(context=20))
    expected = generate(model, [1, 2], 4, seed=1)
    for dtype in (np.uint8, np.int8, np.uint64, np.int32):
        given = np.array([1, 2], dtype)
        assert np.array_equal(generate(model, given, 4, seed=1), expected) and given.tolist() == [1, 2]
    assert np.array_equal(generate(model, Tensor([1, 2]), 4, seed=1), expected)
    assert generate(model, [1, 2], 4).dtype == generate(model, [1, 2], 0).dtype == np.intp


# Errors

@every_decoder
@pytest.mark.parametrize(("options", "words"), [
    ({"stop": "end"}, "generate: stop must be an id, or a list of ids, from 0 to 6, got 'end'"),
    ({"stop": 7}, "stop must be an id, or a list of ids, from 0 to 6, got 7"),
    ({"stop": [1, -1]}, r"stop must be .* got \[1, -1\]"),
    ({"stop": 1.0}, "stop must be"), ({"stop": True}, "stop must be"), ({"stop": [[1]]}, "stop must be"),
    ({"stop": [None]}, "stop must be"), ({"stop": {1: 2}}, "stop must be"),
    ({"stop": [[1], [2, 3]]}, "differ in length"),
    ({"top_p": 0}, r"generate: top_p must be above 0 and at most 1, got 0"),
    ({"top_p": 1.1}, "top_p must be above 0 and at most 1, got 1.1"),
    ({"top_p": -0.5}, "top_p must"), ({"top_p": np.nan}, "top_p must"), ({"top_p": None}, "top_p must be a number"),
    ({"temperature": -1}, "generate: temperature must not be negative"),
    ({"temperature": np.nan}, "generate: temperature must"), ({"temperature": np.inf}, "generate: temperature must"),
    ({"n": -1}, "generate: n must be a whole number"), ({"n": 2.5}, "generate: n must be a whole number"),
    ({"seed": 1.5}, "seed must be a whole number"),
    ({"ids": []}, r"generate: expected integer ids of shape \(T,\) or \(B, T\)"),
    *[({"ids": ids}, "generate: expected integer ids") for ids in ([[[1]]], [True], [1.0], "text")],
])
def test_errors_come_before_the_first_token(make, options, words):
    given = {"ids": [1, 2], "n": 3, **options}
    for call in (generate, stream):
        with pytest.raises(ValueError, match=words):
            call(make(), **given)


@every_decoder
def test_padding_in_front_of_a_prompt_is_refused_where_it_is_known(make):
    model = randomized(make(context=20))
    padded = [[0, 0, 1], [2, 3, 1]]
    generate(model, padded, 1)
    model.pad_id = 0
    with pytest.raises(ValueError, match=r"generate: row 0 begins with padding \(id 0\)"):
        generate(model, padded, 1)
    with pytest.raises(ValueError, match="begins with padding"):
        stream(model, [0, 0, 1], 1)


@every_decoder
def test_prompts_that_are_padded_on_the_right_are_refused(make):
    model = make()
    model.pad_id = 0
    for start in (generate, stream):
        with pytest.raises(ValueError, match=r"generate: row 1 ends with padding \(id 0\).* one by one"):
            start(model, [[1, 2, 3], [4, 0, 0]], 2)
    for ids in ([4, 0, 0], [[4, 0, 0], [1, 0, 0]], [[1, 2, 3], [4, 5, 0]]):  # may be meant
        assert generate(model, ids, 1).shape[-1] == 4
    model.pad_id = None
    assert generate(model, [[1, 2, 3], [4, 0, 0]], 1).shape == (2, 4)


@every_decoder
def test_a_batch_that_ended_in_padding_ids_may_go_past_the_context(make):
    """Rows that stopped are filled with a stop that is the padding too, and are then read again."""
    model = scripted(make, [[0] * 12, [1] * 12])
    model.pad_id = 0
    whole = generate(model, [[2, 3], [4, 5]], 12, temperature=0, stop=0)
    assert whole.tolist() == [[2, 3] + [0] * 12, [4, 5] + [1] * 12]


@every_decoder
def test_logits_that_are_not_finite_are_named(make):
    model = randomized(make())
    t = next(t for name, t in model.named_parameters() if name.endswith("v_proj.weight"))
    t.data = np.full(t.shape, np.nan)
    with pytest.raises(FloatingPointError, match="generate: the model's logits are not finite"), \
            np.errstate(invalid="ignore"):
        generate(model, [1, 2], 3)


def test_what_is_no_decoder():
    with pytest.raises(TypeError, match="generate: expected a Decoder, got Dropout; a GPT or a Llama is one"):
        generate(Dropout(0.5), [1], 2)
    with no_grad(), pytest.raises(TypeError, match="expected a Decoder"):
        stream("model", [1], 2)
