"""fit with several threads: what one thread does, to rounding, and the same each time."""

import threading

import numpy as np
import pytest

from lora_np import LoraConfig, Tensor, lora, ops, optim
from lora_np.data import count_targets
from lora_np.extras.fast import blas
from lora_np.extras.fast.parallel import data_parallel
from lora_np.train import evaluate, fit, next_token_loss
from tests.helpers import numbers, small_gpt

pytestmark = pytest.mark.filterwarnings("error")
needs_openblas = pytest.mark.skipif(blas._openblas() is None, reason="NumPy without an OpenBLAS of its own")


def pairs(seed=0, batch=5):
    rng = np.random.default_rng(seed)
    while True:
        x = (rng.integers(0, 7, (batch, 1)) + np.arange(6)) % 7
        yield x[:, :-1], x[:, 1:]


def trained(threads, dropout=0.0, batch=5, steps=20):
    model = small_gpt(dropout=dropout)
    lora.add_lora(model, LoraConfig(r=2, lora_dropout=dropout))
    history = fit(model, pairs(batch=batch), optim.AdamW(model.trainable_parameters(), 0.01), steps, quiet=True,
                  validation=[next(pairs(1))], every=10, threads=threads)
    return model, history


@needs_openblas
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing_but_rounding(threads, batch):
    (one, h1), (several, h2) = trained(1, batch=batch), trained(threads, batch=batch)
    np.testing.assert_allclose(h2.train_loss, h1.train_loss, rtol=1e-9)
    np.testing.assert_allclose(h2.validation_loss, h1.validation_loss, rtol=1e-9)
    for a, b in zip(one.parameters(), several.parameters(), strict=True):
        np.testing.assert_allclose(b.data, a.data, rtol=1e-6, atol=1e-9)
    assert h1.train_loss[-1] < h1.train_loss[0]


@needs_openblas
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_same_each_time(dropout):
    (a, ha), (b, hb) = trained(2, dropout), trained(2, dropout)
    assert numbers(a) == numbers(b) and ha == hb
    assert dropout == 0 or ha.train_loss != trained(1, dropout)[1].train_loss


@needs_openblas
@pytest.mark.parametrize("make", [lambda p: optim.AdamW(p, 0.01, weight_decay=0.1), lambda p: optim.SGD(p, 0.1)])
def test_an_optimizer_s_step_is_shared_out_and_the_same_to_the_bit(make, monkeypatch):
    monkeypatch.setattr(optim, "CHUNK", 100)
    (one, first), (several, second) = ((m, make(m.trainable_parameters())) for m in (small_gpt(), small_gpt()))
    first.momentum = second.momentum = 0.9  # SGD's, set later
    used, update = set(), type(second).update
    monkeypatch.setattr(type(second), "update", lambda *a: used.add(threading.get_ident()) or update(*a))
    x, y = next(pairs())
    for model, optimizer, threads in ((one, first, 1), (several, second, 2)):
        for _ in range(3):
            optimizer.zero_grad()
            next_token_loss(model, x, y).backward()
            with data_parallel(next_token_loss, threads):
                optimizer.step()
        assert len(used) >= threads
    assert numbers(one) == numbers(several)
    used.clear()
    second.step()
    assert used == {threading.get_ident()}


def losses(x, y, loss=next_token_loss, threads=2):
    model = small_gpt()
    with data_parallel(loss, threads) as shared:
        value = shared(model, x, y)
        value.backward()
    return value.item(), {name: t.grad for name, t in model.named_parameters()}


@needs_openblas
def test_parts_are_weighted_by_their_targets():
    x, y = (a.copy() for a in next(pairs(batch=4)))
    for hidden in [(0, slice(1, None)), (slice(0, 2), slice(None)), (3, 0)]:  # the second leaves a part without any
        y[hidden] = -100
        (one, g1), (two, g2) = losses(x, y, threads=1), losses(x, y)
        assert one == pytest.approx(two, rel=1e-12)
        for name in g1:
            np.testing.assert_allclose(g2[name], g1[name], rtol=1e-9, atol=1e-12)
    assert count_targets(x, y) == 9


@needs_openblas
def test_nothing_is_recorded_in_any_thread_while_evaluating():
    seen = []

    def loss(model, x, y):
        value = next_token_loss(model, x, y)
        seen.append((threading.get_ident(), value.requires_grad))
        return value

    model, (x, y) = small_gpt(), next(pairs())
    with data_parallel(loss, 2) as shared:
        together = evaluate(model, [(x, y)], shared)
    assert len({thread for thread, _ in seen}) == 2 and not any(recorded for _, recorded in seen)
    assert together == pytest.approx(evaluate(model, [(x, y)]), rel=1e-12)


@needs_openblas
def test_a_loss_may_be_a_leaf():
    t = Tensor(3.0, requires_grad=True)
    with data_parallel(lambda model, x, y: t, 2) as shared:
        shared(None, *next(pairs())).backward()
    assert t.grad == 1


@needs_openblas
def test_backward_touches_no_grad_until_it_is_called():
    model, (x, y) = small_gpt(), next(pairs())
    with data_parallel(next_token_loss, 2) as shared:
        value = shared(model, x, y)
        assert all(t.grad is None for t in model.parameters())
        value.backward(0.5)
    half = {name: t.grad for name, t in model.named_parameters()}
    for name, g in losses(x, y, threads=1)[1].items():
        np.testing.assert_allclose(half[name], g / 2, rtol=1e-9, atol=1e-12)


@needs_openblas
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("here", [True, False], ids=["main thread", "other thread"])
def test_an_error_of_a_part_ends_fit_and_puts_the_threads_back(here, error):
    get, _ = blas._openblas()
    before, main = get(), threading.get_ident()

    def loss(model, x, y):
        if (threading.get_ident() == main) == here:
            raise error("as it happens")
        return next_token_loss(model, x, y)

    model = small_gpt()
    kept = numbers(model)
    options = {"loss": loss, "quiet": True, "threads": 2}
    if error is KeyboardInterrupt:
        assert fit(model, pairs(), optim.SGD(model.parameters(), 0.1), 3, **options).interrupted
    else:
        with pytest.raises(ValueError, match="as it happens"):
            fit(model, pairs(), optim.SGD(model.parameters(), 0.1), 3, **options)
    assert get() == before and numbers(model) == kept


@needs_openblas
def test_products_take_one_thread_meanwhile():
    get, put = blas._openblas()
    before = get()
    put(2)
    try:
        with blas.one_blas_thread() as alone:
            assert alone and get() == 1
        assert get() == 2
    finally:
        put(before)


def test_without_openblas_one_thread_does_it_all_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(blas, "_openblas", lambda: None)
    with data_parallel(next_token_loss, 2) as loss:
        assert loss is next_token_loss
    assert "threads=1: the matrix library" in capsys.readouterr().out


def test_a_loss_of_ones_own_with_targets_that_are_no_ids():
    def loss(model, x, y):
        return ((ops.mul(model.layers[0].fc1.weight[:2], x) - y) ** 2).mean()

    x, y = np.ones((2, 6)), np.arange(12.0).reshape(2, 6)
    value, gradients = losses(x, y, loss, threads=1)
    assert value > 0 and gradients["layers.0.fc1.weight"].any()
