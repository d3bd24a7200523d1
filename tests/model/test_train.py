"""fit and evaluate: one run that must learn, what is recorded and printed, and how a run ends early."""

import io
import re
import subprocess
import sys
from itertools import count

import numpy as np
import pytest

from lora_np import LoraConfig, Tensor, data, lora, ops, optim
from lora_np.support import progress
from lora_np.support.memory import peak_memory
from lora_np.train import History, evaluate, fit, next_token_loss
from tests.helpers import numbers, small_gpt

pytestmark = pytest.mark.filterwarnings("error")


def pairs(seed=0, batch=8):
    """An endless stream in which each token is the one before plus 1 (mod 7): it can be learned to loss 0."""
    rng = np.random.default_rng(seed)
    while True:
        ids = (rng.integers(0, 7, (batch, 1)) + np.arange(6)) % 7
        yield ids[:, :-1], ids[:, 1:]


VALIDATION = [next(pairs(seed=99))]


def run(model=None, steps=5, lr=0.01, batches=None, **options):
    model = model or small_gpt()
    return fit(model, pairs() if batches is None else batches, optim.AdamW(model.trainable_parameters(), lr), steps,
               **{"quiet": True, **options})


class Terminal(io.StringIO):
    def __init__(self, on_terminal):
        super().__init__()
        self.on_terminal = on_terminal

    def isatty(self):
        return self.on_terminal


@pytest.fixture
def screen(monkeypatch):
    """Put a fake terminal or a fake file in the place of stderr; every look at the clock finds it some seconds on."""
    def fake(on_terminal, seconds=1.0):
        ticks = count()
        monkeypatch.setattr(progress.time, "perf_counter", lambda: next(ticks) * seconds)
        stream = Terminal(on_terminal)
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return fake


def test_a_short_run_learns():
    model = small_gpt(d_model=16, dtype=np.float32)
    schedule = optim.warmup_cosine(0.02, steps=120, warmup=10)
    history = run(model, steps=120, schedule=schedule, validation=VALIDATION, every=40)
    assert history.train_loss[0] > 1.8 and history.validation_loss[0] > 1.8  # log 7 is 1.95
    assert history.validation_loss[-1] < 0.1 and np.mean(history.train_loss[-10:]) < 0.1
    assert history.validation_steps == [0, 40, 80, 120] and len(history.validation_loss) == 4
    assert len(history.train_loss) == 120
    assert not history.interrupted and not model.training


def test_a_history_in_a_notebook_is_a_line():
    assert repr(History([3.0, 1.0], [0, 2], [2.5, 1.5])) == (
        "<History: 2 steps, train loss 3 to 1, validation loss 2.5 to 1.5>")
    assert repr(History(interrupted=True)) == "<History: 0 steps, interrupted>"


def test_lora_adapts_a_trained_model():
    model = small_gpt(d_model=16)
    run(model, steps=120, lr=0.02)
    backwards = [(x[:, ::-1], y[:, ::-1] - 2) for x, y in VALIDATION]  # each token is the one before minus 1
    backwards = [(x, y % 7) for x, y in backwards]
    lora.add_lora(model, LoraConfig(r=8, lora_alpha=8, target_modules=("q_proj", "v_proj", "fc1", "fc2")))
    before = evaluate(model, backwards)
    run(model, steps=150, lr=0.02, batches=((x[:, ::-1], (y[:, ::-1] - 2) % 7) for x, y in pairs()))
    assert evaluate(model, backwards) < before / 5


def test_a_run_is_deterministic():
    first, second = small_gpt(), small_gpt()
    assert run(first, validation=VALIDATION, every=2) == run(second, validation=VALIDATION, every=2)
    assert numbers(first) == numbers(second)


def test_old_gradients_do_not_count():
    fresh, stale = small_gpt(), small_gpt()
    for t in stale.parameters():
        t.grad = np.ones(t.shape)
    run(fresh, steps=2)
    run(stale, steps=2)
    assert numbers(fresh) == numbers(stale)


def test_validation_comes_first_then_at_intervals_and_last():
    model = small_gpt()
    before = evaluate(model, VALIDATION)
    history = run(model, steps=5, every=2, validation=VALIDATION)
    assert history.validation_steps == [0, 2, 4, 5] and history.validation_loss[0] == before
    assert history.validation_loss[-1] == evaluate(model, VALIDATION)
    assert run(steps=0, validation=VALIDATION).validation_steps == [0] and run(steps=2).validation_steps == []


def test_the_schedule_sets_the_rate_of_each_step():
    model, seen = small_gpt(), []
    optimizer = optim.SGD(model.trainable_parameters(), lr=5.0)
    fit(model, pairs(), optimizer, 4, schedule=lambda step: seen.append(step) or 0.1 / (step + 1), quiet=True)
    assert seen == [0, 1, 2, 3] and optimizer.lr == 0.025


def test_gradients_are_clipped_unless_told_otherwise():
    def moved(**options):
        model = small_gpt()
        before = np.concatenate([t.data.ravel() for t in model.parameters()])
        fit(model, pairs(), optim.SGD(model.trainable_parameters(), lr=1.0), 1, quiet=True, **options)
        return np.linalg.norm(np.concatenate([t.data.ravel() for t in model.parameters()]) - before)

    assert moved(clip=0.01) == pytest.approx(0.01) and moved(clip=1e9) == moved(clip=None) > 0.01


def test_the_loss_is_of_the_last_positions():
    model, (x, y) = small_gpt(), VALIDATION[0]
    whole, last = next_token_loss(model, x, y).item(), next_token_loss(model, x, y[:, -2:]).item()
    assert whole == pytest.approx(ops.cross_entropy(model(x), y).item())
    assert last == pytest.approx(ops.cross_entropy(model(x)[:, -2:], y[:, -2:]).item()) and last != whole


def test_evaluate_records_nothing_and_keeps_the_mode():
    model = small_gpt(dropout=0.5)
    first = evaluate(model, VALIDATION)
    assert model.training and first == evaluate(model, VALIDATION) and isinstance(first, float)
    assert all(t.grad is None for t in model.parameters())
    assert evaluate(model.eval(), VALIDATION * 3) == pytest.approx(first) and not model.training
    model.train()
    with pytest.raises(IndexError):
        evaluate(model, [(np.array([[99]]), np.array([[0]]))])
    assert model.training


def test_evaluate_weights_batches_by_their_targets():
    model, (x, y) = small_gpt(), next(pairs(batch=5))
    together = evaluate(model, [(x, y)])
    assert evaluate(model, [(x[:4], y[:4]), (x[4:], y[4:])]) == pytest.approx(together, rel=1e-12)
    assert np.mean([evaluate(model, [(x[:4], y[:4])]), evaluate(model, [(x[4:], y[4:])])]) != pytest.approx(together)


@pytest.mark.parametrize("as_targets", [lambda y: y, lambda y: None, lambda y: {"of": y}], ids=["floats", "None", "a dict"])
def test_evaluate_weights_batches_whatever_their_targets_are(as_targets):
    x = np.array([3.0, -100.0, 2.0, 5.0, 1.0])  # in floats, -100 is a target like others

    def loss(model, x, y):
        return Tensor(x).mean()

    batches = [(x[rows], as_targets(x[rows])) for rows in (slice(0, 4), slice(4, 5))]
    assert evaluate(small_gpt(), batches, loss) == pytest.approx(x.mean())


def test_a_loss_of_ones_own():
    seen = []

    def loss(model, x, y):
        seen.append(x.shape)
        return (model(x) ** 2).mean()

    history = run(steps=3, loss=loss, validation=VALIDATION)
    assert len(seen) == 5 and history.train_loss[-1] < history.train_loss[0]


def test_batches_may_be_a_list():
    assert len(run(steps=2, batches=[next(pairs()), next(pairs())]).train_loss) == 2
    with pytest.raises(ValueError, match=r"fit: the batches ended after 2 of 5 steps.*data\.batches"):
        run(steps=5, batches=[next(pairs()), next(pairs())])


@pytest.mark.parametrize("options", [{"every": 0}, {"steps": -1}, {"steps": 2.0}])
def test_settings_that_cannot_be(options):
    with pytest.raises(ValueError, match=r"fit: (steps|every) must be a whole number of at least [01], got"):
        run(**options)


def test_two_fits_that_go_on_are_one():
    def schedule(step):
        return 0.02 / (step + 1)

    one, two, seen = small_gpt(), small_gpt(), []
    first = run(one, steps=6, schedule=schedule, after=lambda *now: seen.append((now[0], len(now[1].train_loss))))
    optimizer, stream = optim.AdamW(two.trainable_parameters(), 0.01), pairs()
    fit(two, stream, optimizer, 4, schedule=schedule, quiet=True)
    second = fit(two, stream, optimizer, 6, schedule=schedule, quiet=True, start=4, validation=VALIDATION)
    assert numbers(one) == numbers(two) and first.train_loss[4:] == second.train_loss
    assert seen == [(n, n) for n in range(1, 7)] and second.validation_steps == [4, 6]


# Runs that end early

@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step(bad):
    model, calls = small_gpt(), count()
    after = {}

    def loss(model, x, y):
        step = next(calls)
        if step == 3:
            after.update(numbers(model))
        return next_token_loss(model, x, y) * (bad if step == 3 else 1)

    with pytest.raises(FloatingPointError, match=rf"the loss is {bad} at step 3, with a learning rate of 0\.01; try"):
        run(model, loss=loss)
    assert numbers(model) == after and not model.training


@pytest.mark.parametrize("dtype, lr", [(np.float32, 1e30), (np.float64, 1e200)])  # products of two weights overflow
@pytest.mark.parametrize("clip", [1.0, None])
def test_a_rate_that_is_far_too_high_is_named(dtype, lr, clip):
    model = small_gpt(dtype=dtype)
    words = rf"fit: the (loss|length of the gradient) is (nan|inf) at step [1-9].* learning rate of {re.escape(str(lr))}"
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=words):
        fit(model, pairs(), optim.SGD(model.trainable_parameters(), lr=lr), 20, clip=clip, quiet=True)


@pytest.mark.parametrize("on_terminal", [True, False])
def test_ctrl_c_returns_what_there_is(on_terminal, screen):
    stream, model, calls = screen(on_terminal), small_gpt(), count()

    def loss(model, x, y):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return next_token_loss(model, x, y)

    history = run(model, steps=9, loss=loss, quiet=False)
    assert history.interrupted and len(history.train_loss) == 3 and not model.training
    assert "fit: stopped at step 3 of 9; the model is as that step left it\n" in stream.getvalue()
    assert "\r" not in stream.getvalue().splitlines(keepends=True)[-1]  # on a line of its own
    reference = small_gpt()
    run(reference, steps=3)
    assert numbers(model) == numbers(reference)


def test_an_error_leaves_the_live_line(screen):
    stream, calls = screen(True), count()

    def loss(model, x, y):
        return next_token_loss(model, x, y) * (np.nan if next(calls) == 2 else 1)

    with pytest.raises(FloatingPointError):
        run(steps=5, loss=loss, quiet=False)
    assert stream.getvalue().endswith("\n")


# Progress

def test_one_live_line_on_a_terminal(screen):
    stream = screen(True)
    history = run(steps=4, quiet=False, validation=VALIDATION, every=2, label="base")
    text = stream.getvalue()
    lines = text.split("\r\x1b[K")
    assert lines[0] == "" and len(lines) == 5 and text.count("\n") == 1 and text.endswith("\n")
    for step, line in enumerate(lines[1:], 1):
        assert line.startswith(f"base: step {step}/4  loss {np.mean(history.train_loss[:step]):.3f}  validation ")
        assert "steps/s" in line and line.rstrip("\n").endswith("s left")
    assert lines[-1].rstrip("\n").endswith("0 s left")


def test_the_live_line_is_not_written_at_every_step(screen):
    stream = screen(True, seconds=0.04)
    run(steps=9, quiet=False)
    assert 1 < stream.getvalue().count("\r") < 6


def test_plain_lines_elsewhere(screen):
    stream = screen(False)
    history = run(steps=4, quiet=False, validation=VALIDATION, every=2, label="base")
    lines = stream.getvalue().splitlines()
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()
    assert [line.split("  ")[0] for line in lines] == ["base: step 0/4", "base: step 2/4", "base: step 4/4"]
    assert f"  validation {history.validation_loss[0]:.3f}" in lines[0]  # memory follows, from half a gigabyte on
    assert f"validation {history.validation_loss[-1]:.3f}" in lines[-1] and "steps/s" in lines[-1]


@pytest.mark.parametrize("on_terminal", [True, False])
def test_quiet_prints_nothing(on_terminal, screen):
    stream = screen(on_terminal)
    run(validation=VALIDATION)
    assert stream.getvalue() == ""


def test_history_starts_empty():
    assert History() == History([], [], [], False) and History().train_loss is not History().train_loss


def test_real_text_goes_down():
    ids = data.CharTokenizer().encode(data.english()[:20_000])
    model = small_gpt(vocab_size=96, context=16, d_model=32, d_ff=64, dtype=np.float32)
    history = run(model, steps=150, lr=0.01, batches=data.batches(ids, 8, 16))
    assert history.train_loss[0] > 4 and np.mean(history.train_loss[-20:]) < 2.9


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux hands the most that a process held to its children")
def test_the_peak_of_memory_is_that_of_this_process_alone():
    held = np.ones(40_000_000)
    assert peak_memory() > held.nbytes
    child = subprocess.run([sys.executable, "-c", "from lora_np.support import memory; print(memory.peak_memory())"],
                           capture_output=True, text=True, check=True)
    assert 1e6 < int(child.stdout) < held.nbytes / 2
