"""Optimizers against torch's numbers (reference/adamw.py made them), schedules and clipping."""

import copy
import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from lora_np import Tensor, optim
from lora_np.train import next_token_loss
from tests.helpers import numbers, small_gpt

pytestmark = pytest.mark.filterwarnings("error")
REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "adamw.json").read_text())


def leaves(*arrays, dtype=np.float64):
    return [Tensor(np.array(a, dtype), requires_grad=True) for a in arrays]


@pytest.mark.parametrize("run", REFERENCE["runs"], ids=lambda run: run["name"] + (" and gaps" if run["skip"] else ""))
@pytest.mark.parametrize("chunk", [optim.CHUNK, 3], ids=["one chunk", "chunks of 3"])
def test_steps_are_those_of_torch(run, chunk, monkeypatch):
    monkeypatch.setattr(optim, "CHUNK", chunk)
    parameters = leaves(*REFERENCE["start"])
    optimizer = getattr(optim, run["optimizer"])(parameters, **run["options"])
    skip = dict(run["skip"])
    for step, (given, after) in enumerate(zip(REFERENCE["gradients"], run["after"], strict=True)):
        optimizer.zero_grad()
        for i, (p, g) in enumerate(zip(parameters, given, strict=True)):
            p.grad = None if skip.get(step) == i else np.array(g)
        optimizer.step()
        for p, expected in zip(parameters, after, strict=True):
            np.testing.assert_allclose(p.data, expected, rtol=1e-12, atol=1e-14)


def test_adamw_by_hand():
    (p,) = leaves([2.0])
    optimizer = optim.AdamW([p], lr=0.1, weight_decay=0.5)
    for g, expected in [(3.0, 2 - 0.1 * 0.5 * 2 - 0.1), (3.0, 1.8 - 0.1 * 0.5 * 1.8 - 0.1)]:  # mhat / sqrt(vhat) is 1
        p.grad = np.array([g])
        optimizer.step()
        assert p.data[0] == pytest.approx(expected, abs=1e-8)
    assert optimizer.weight_decay == 0.5 and optim.AdamW(leaves([1.0]), lr=1).weight_decay == 0


def test_sgd_by_hand():
    (p,) = leaves([2.0])
    optimizer = optim.SGD([p], lr=0.5, momentum=0.5)
    for g, expected in [(1.0, 1.5), (1.0, 0.75), (0.0, 0.375)]:  # v = 1, 1.5, 0.75
        p.grad = np.array([g])
        optimizer.step()
        assert p.data[0] == expected


@pytest.mark.parametrize("optimizer", [lambda p: optim.SGD(p, 0.1, momentum=0.9), lambda p: optim.AdamW(p, 0.1)])
def test_an_optimizer_finds_the_minimum(optimizer):
    p, q = leaves([2.0, -1.0], 0.0)
    steps = optimizer([p, q])
    for step in range(600):
        steps.lr = 0.1 * 0.99 ** step
        steps.zero_grad()
        (((p - 1) ** 2).sum() + (q + 2) ** 2).backward()
        steps.step()
    np.testing.assert_allclose([*p.data, q.data], [1, 1, -2], atol=1e-3)


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 0.1, 0.9), lambda p: optim.AdamW(p, 0.1, weight_decay=0.1)])
def test_shapes_and_precision_stay(make):
    parameters = [*leaves(np.ones((2, 3)), 1.5, np.zeros((0, 2))), *leaves([1.0, 2.0], dtype=np.float32)]
    before = [(p.shape, p.dtype) for p in parameters]
    optimizer = make(parameters)
    for p in parameters:
        p.grad = np.ones(p.shape, p.dtype)
    optimizer.step()
    assert [(p.shape, p.dtype) for p in parameters] == before
    assert all(isinstance(p.data, np.ndarray) and (p.data < 2).all() and p.requires_grad for p in parameters)
    with pytest.raises(ValueError, match="read-only"):
        parameters[0].data[...] = 0


def test_half_precision_learns_as_single_precision_does():
    half, single = small_gpt(dtype=np.float16), small_gpt(dtype=np.float32)
    ids = np.random.default_rng(0).integers(0, half.config.vocab_size, (4, half.config.context + 1))
    losses = []
    for model in half, single:
        optimizer = optim.AdamW(model.trainable_parameters(), 0.01)
        for _ in range(20):
            optimizer.zero_grad()
            loss = next_token_loss(model, ids[:, :-1], ids[:, 1:])
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
        assert {p.dtype for p in model.parameters()} == {np.dtype(model.config.dtype)}
    assert losses[0] == pytest.approx(losses[1], rel=0.05) and losses[0] < 0.9 * np.log(half.config.vocab_size)


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 1.0, momentum=0.9), lambda p: optim.AdamW(p, 1e-3, weight_decay=0.3)],
                         ids=["SGD", "AdamW"])
def test_half_precision_takes_the_same_steps(make):
    start = np.random.default_rng(0).normal(size=50).astype(np.float16)
    moved = []
    for dtype in np.float16, np.float32:
        (p,) = leaves(start, dtype=dtype)
        optimizer = make([p])
        for _ in range(100):
            p.data = start.astype(dtype)  # so that rounding does not add up
            p.grad = (start * np.float16(1e-3)).astype(dtype)
            optimizer.step()
        moved.append(p.data.astype(float))
    assert (moved[0] != start).mean() > 0.5
    np.testing.assert_allclose(*moved, rtol=2**-11)  # half a unit in the last place: float16 keeps 11 bits


def test_a_graph_from_before_the_step_still_has_its_numbers():
    (w,) = leaves([2.0])
    x, = leaves([5.0])
    y = w * x
    w.grad = np.array([1.0])
    optim.SGD([w], lr=1.0).step()
    y.backward()
    assert x.grad.tolist() == [2] and w.data.tolist() == [1]


def test_a_step_leaves_gradients_and_moves_only_what_has_one():
    model = small_gpt()
    before = numbers(model)
    optimizer = optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    name, reached = next(model.named_parameters())
    reached.grad = np.ones(reached.shape)
    optimizer.step()
    assert [n for n, after in numbers(model).items() if after != before[n]] == [name]
    assert (reached.grad == 1).all()
    optimizer.zero_grad()
    assert all(t.grad is None for t in model.parameters())
    with pytest.raises(RuntimeError, match=r"AdamW.step: no parameter has a gradient; call loss.backward\(\) first"):
        optimizer.step()


def test_the_order_of_numbers_in_memory_does_not_matter():
    """Arrays that come transposed, as from a vjp or a file, move as others do."""
    start, g = np.arange(12.0).reshape(3, 4), np.arange(12.0).reshape(3, 4) ** 2 - 30
    plain, turned = (leaves(start, 0.5) for _ in range(2))
    turned[0].data = np.asfortranarray(start)
    for parameters, gradient in ((plain, g), (turned, np.asfortranarray(g))):
        optimizer = optim.AdamW(parameters, 0.1)
        for _ in range(2):
            parameters[0].grad, parameters[1].grad = gradient, np.array(2.0)
            optimizer.step()
    assert [p.data.tolist() for p in turned] == [p.data.tolist() for p in plain]


@pytest.mark.parametrize("turns", [[0, 1, 2, 0], [2, 0, 1, 1], [1, 1, 0, 2, 0, 2]])
def test_parameters_reached_in_turn_move_as_each_would_alone(turns):
    """In each list there comes a moment when all have taken equally many steps, and yet one alone has a gradient."""
    together, apart = leaves([1.0, 2.0], 3.0, [4.0]), leaves([1.0, 2.0], 3.0, [4.0])
    optimizer, own = optim.AdamW(together, 0.1), [optim.AdamW([p], 0.1) for p in apart]
    for step, turn in enumerate(turns):
        optimizer.zero_grad()
        together[turn].grad = apart[turn].grad = np.full(apart[turn].shape, step - 0.5)
        optimizer.step()
        own[turn].step()
    assert [p.data.tolist() for p in together] == [p.data.tolist() for p in apart]


@pytest.mark.parametrize("kind", [optim.SGD, optim.AdamW])
@pytest.mark.parametrize(("parameters", "error", "words"), [
    ([], ValueError, r"got no parameters to train; pass model.trainable_parameters\(\)"),
    ([Tensor([1.0, 2.0])], TypeError, r"parameter 0 is frozen, of shape \(2,\); pass model.trainable_parameters\(\)"),
    ([*leaves([1.0]), np.ones(2)], TypeError, "parameter 1 is a ndarray"),
    (leaves([1.0, 2.0])[0], TypeError, "parameter 0 is the result of getitem"),
    ([leaves([1.0])[0] * 2], TypeError, "parameter 0 is the result of mul"),
    (leaves([1.0]) * 2, ValueError, "same parameter was given twice"),
])
def test_what_cannot_be_trained(kind, parameters, error, words):
    with pytest.raises(error, match=f"{kind.__name__}: .*{words}"):
        kind(parameters, lr=0.1)


@pytest.mark.parametrize(("make", "words"), [
    (lambda p: optim.SGD(p, lr=-1), "SGD: lr must not be negative, got -1"),
    (lambda p: optim.SGD(p, lr=math.nan), "SGD: lr must be finite, got nan"),
    (lambda p: optim.SGD(p, lr=1, momentum=-0.1), "SGD: momentum must not be negative"),
    (lambda p: optim.AdamW(p, lr=1, weight_decay=-0.1), "AdamW: weight_decay must not be negative"),
    (lambda p: optim.AdamW(p, lr=1, eps=-1e-8), "AdamW: eps must not be negative"),
    (lambda p: optim.AdamW(p, lr=1, betas=(-0.1, 0.9)), "AdamW: beta1 must not be negative"),
    (lambda p: optim.AdamW(p, lr=1, betas=(0.9, 1.0)), r"AdamW: betas must be below 1, got \(0\.9, 1\.0\)"),
])
def test_settings_that_cannot_be(make, words):
    with pytest.raises(ValueError, match=words):
        make(leaves([1.0]))


# Schedules and clipping

def test_warmup_cosine():
    rate = optim.warmup_cosine(0.4, steps=13, warmup=4, final=0.1)  # the last step is 12
    np.testing.assert_allclose([rate(s) for s in range(5)], [0.1, 0.2, 0.3, 0.4, 0.4])
    assert rate(8) == pytest.approx(0.25)  # half way down
    assert rate(12) == rate(100) == pytest.approx(0.1)
    values = [rate(s) for s in range(4, 13)]
    assert values == sorted(values, reverse=True)
    assert optim.warmup_cosine(1.0, steps=4)(0) == 1
    assert optim.warmup_cosine(1.0, steps=4)(3) == pytest.approx(0)
    for steps in (2, 5, 13):  # however long the warm-up is
        assert all(optim.warmup_cosine(1.0, steps, warmup, 0.1)(steps - 1) == pytest.approx(0.1) for warmup in range(steps))
    assert optim.warmup_cosine(1.0, steps=1)(0) == 1  # a single step is taken at the full rate


@pytest.mark.parametrize(("steps", "warmup"), [(0, 0), (5, 5), (5, -1)])
def test_warmup_must_fit(steps, warmup):
    with pytest.raises(ValueError, match=rf"warmup must be in 0 .. steps - 1, got warmup={warmup}, steps={steps}"):
        optim.warmup_cosine(1.0, steps, warmup)


def test_clipping_scales_all_gradients_together():
    p, q, unused = leaves([0.0, 0.0], 0.0, [1.0])
    p.grad, q.grad = np.array([3.0, 0.0]), np.array(4.0)
    assert optim.clip_grad_norm([p, q, unused], 10) == 5
    assert p.grad.tolist() == [3, 0] and q.grad == 4
    given = p.grad
    assert optim.clip_grad_norm([p, q, unused], 1) == 5
    np.testing.assert_allclose([*p.grad, q.grad], [0.6, 0, 0.8])
    assert given.tolist() == [3, 0] and unused.grad is None  # a new array: the old one may be the caller's
    (r,) = leaves([1.0], dtype=np.float32)
    r.grad = np.array([5], np.float32)
    optim.clip_grad_norm([r], 1.0)
    assert r.grad.dtype == np.float32
    (h,) = leaves([1.0] * 10, dtype=np.float16)
    h.grad = np.full(10, 3e-5, np.float16)  # whose squares float16 cannot hold
    assert optim.clip_grad_norm([h], 1.0) == pytest.approx(3e-5 * 10 ** 0.5, rel=1e-2) and h.grad.dtype == np.float16
    assert optim.clip_grad_norm([unused], 1) == 0


@pytest.mark.parametrize("gradient", [[np.inf, 1.0], [np.nan, 1.0], [1e200, 1.0]])
def test_a_length_that_is_not_finite_is_told_and_not_hidden(gradient):
    (p,) = leaves([0.0, 0.0])
    p.grad = np.array(gradient)
    with np.errstate(all="ignore"):
        assert not math.isfinite(optim.clip_grad_norm([p], 1.0))
    assert np.array_equal(p.grad, gradient, equal_nan=True)  # times 1 / inf: all 0, and nothing learns


@pytest.mark.parametrize("norm", [0, -1, math.nan])
def test_a_norm_to_clip_to_is_above_0(norm):
    (p,) = leaves([1.0])
    p.grad = np.array([5.0])
    with pytest.raises(ValueError, match="clip_grad_norm: max_norm must be above 0"):
        optim.clip_grad_norm([p], norm)
    assert p.grad == 5


# Copies

OPTIMIZERS = {"SGD": lambda p: optim.SGD(p, 0.01), "momentum": lambda p: optim.SGD(p, 0.01, momentum=0.9),
              "AdamW": lambda p: optim.AdamW(p, 0.01, weight_decay=0.1)}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
                         ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_a_copy_goes_on_as_if_it_had_never_been_made(make, copied):
    def train(model, optimizer, steps):
        for seed in steps:
            x = np.random.default_rng(seed).integers(0, 7, (2, 5))
            optimizer.zero_grad()
            next_token_loss(model, x, x).backward()
            optimizer.step()
        return numbers(model)

    model = small_gpt()
    optimizer = make(model.trainable_parameters())
    train(model, optimizer, range(3))
    again = copied((model, optimizer))
    assert train(model, optimizer, range(3, 7)) == train(*again, range(3, 7))


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_state_goes_into_another_optimizer(make):
    rng, parameters = np.random.default_rng(0), [*leaves([1.0, 2.0], [[3.0]]), *leaves([0.1], dtype=np.float32)]
    first = make(parameters)

    def step(optimizer):
        for p in optimizer.parameters:
            p.grad = rng.normal(size=p.shape)
        optimizer.step()

    step(first)
    step(first)
    others = [Tensor(p.data, requires_grad=True) for p in parameters]
    second = make(others)
    second.load_state_dict({name: array.copy() for name, array in first.state_dict().items()})
    for p, q in zip(parameters, others, strict=True):
        p.grad = rng.normal(size=p.shape)
        q.grad = p.grad
    first.step()
    second.step()
    assert all((p.data == q.data).all() for p, q in zip(parameters, others, strict=True))
    with pytest.raises(ValueError, match=r"load_state_dict: .* expected"):
        make(leaves([1.0])).load_state_dict(first.state_dict())


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_state_is_a_copy_and_is_taken_over_whole_or_not_at_all(make):
    (p,) = leaves([1.0, 2.0])
    optimizer = make([p])
    p.grad = np.array([3.0, -5.0])
    optimizer.step()
    state = optimizer.state_dict()
    before = {name: array.copy() for name, array in state.items()}
    optimizer.step()
    assert all((state[name] == array).all() for name, array in before.items())
    after = optimizer.state_dict()
    for wrong in (None, [1], {**after, "steps": ["x"]}, {**after, list(after)[-1]: np.full_like(after["steps"], 1j, complex)}):
        with pytest.raises((TypeError, ValueError), match="load_state_dict: "):
            optimizer.load_state_dict(wrong)
        assert all((array == after[name]).all() for name, array in optimizer.state_dict().items())
    optimizer.load_state_dict(state)
    state["steps"][:] = 7
    assert optimizer.steps == [1]


def test_momentum_may_be_set_later():
    (p,) = leaves([1.0])
    optimizer = optim.SGD([p], lr=0.1)
    for momentum in (0, 0.5, 0.5):
        optimizer.momentum, p.grad = momentum, np.ones(1)
        optimizer.step()
    np.testing.assert_allclose(p.data, 1 - 0.1 - 0.1 - 0.15)


def test_an_optimizer_holds_nothing_that_it_does_not_need():
    (p,) = leaves(np.ones(1000))
    arrays = {name: [v for v in vars(make([p])).values() if isinstance(v, np.ndarray)]
              for name, make in OPTIMIZERS.items()}
    assert {name: sum(a.nbytes for a in held) / p.data.nbytes for name, held in arrays.items()} == {
        "SGD": 0, "momentum": 1, "AdamW": 2}


def test_a_norm_of_float32_does_not_overflow_on_the_way():
    (p,) = leaves([0.0, 0.0], dtype=np.float32)
    p.grad = np.array([3e25, 4e25], np.float32)
    assert optim.clip_grad_norm([p], 1.0) == pytest.approx(5e25)
    np.testing.assert_allclose(p.grad, [0.6, 0.8], rtol=1e-6)
