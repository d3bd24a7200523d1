"""The training loop: loss, backward, step; and what it reports on the way."""

import math
from dataclasses import dataclass, field

import numpy as np

from . import ops
from .data import count_targets
from .decoder import Decoder
from .extras.fast.parallel import data_parallel
from .graph import no_grad
from .nn import Module, evaluating
from .optim import clip_grad_norm
from .support.checks import as_array, check_int, check_number, expect
from .support.memory import keep_freed_memory
from .support.progress import Progress, defer_interrupt
from .tensor import Tensor


@dataclass
class History:
    """What fit recorded: the loss of each step, and the validation loss after each of validation_steps."""

    train_loss: list = field(default_factory=list)
    validation_steps: list = field(default_factory=list)
    validation_loss: list = field(default_factory=list)
    interrupted: bool = False

    def __repr__(self):  # not every loss
        ends = [f", {name} loss {losses[0]:.4g} to {losses[-1]:.4g}" for name, losses in (
            ("train", self.train_loss), ("validation", self.validation_loss)) if losses]
        return f"<History: {len(self.train_loss)} steps{''.join(ends)}{', interrupted' * self.interrupted}>"


def next_token_loss(model, x, y) -> Tensor:
    """Mean cross-entropy in nats. x: ids (B, T). y: the ids to predict at the last positions of x, (B, S), S <= T, or
    -100 where nothing is to be predicted; there a Decoder computes no logits.
    """
    y = as_array("next_token_loss", y, copy=None)
    if y.ndim != 2:
        raise ValueError(f"next_token_loss: expected targets of shape (batch, time), got {y.shape}")
    weight = model.head_weight() if isinstance(model, Decoder) else None
    out = model(x) if weight is None else model.hidden(x)  # (B, T, vocab_size), or (B, T, d)
    out = out if y.shape[1] == out.shape[1] else out[:, -y.shape[1]:]
    return ops.cross_entropy(out, y) if weight is None else ops.linear_cross_entropy(out, weight, y)


def fit(model, batches, optimizer, steps, schedule=None, validation=(), every=100, clip=1.0,
        loss=next_token_loss, label="fit", quiet=False, threads=1, start=0, after=None) -> History:
    """Train for a number of steps; returns a History.

    batches: an iterator of (x, y). schedule: step -> learning rate, or None for the optimizer's own.
    validation: a list of (x, y), evaluated before the first step, after every `every` steps and at the
    end. clip: the largest global L2 norm of the gradients, or None. Progress goes to stderr: one live line
    on a terminal, a plain line at each evaluation elsewhere, nothing if quiet. threads: how many share a batch out
    (extras/fast/parallel.py). start: how many of the steps an earlier fit has taken, which this one goes on with.
    after: called as after(step, history) when a step has been taken, counted from 1; Ctrl-C waits for its end.
    Raises FloatingPointError when the loss, or the gradient that is to be clipped, is no longer finite; that step is
    not taken. Ctrl-C ends the training and returns what there is.
    """
    _check_fit(model, batches, optimizer, steps, schedule, validation, every, clip, loss, threads, start)
    keep_freed_memory()
    batches, history, progress = iter(batches), History(), Progress(label, steps, quiet, start)
    model.train()
    try:
        with data_parallel(loss, threads, progress.say) as loss:
            for step in range(start, steps):
                if step % every == 0 or step == start:
                    _validate(model, validation, loss, step, history, progress)
                x, y = _next_batch(batches, step, steps)
                optimizer.lr = _rate(schedule, step, optimizer)

                optimizer.zero_grad()
                value = _checked_loss(loss(model, x, y), step, optimizer)
                value.backward()
                _clip(optimizer, clip, step)
                with defer_interrupt():
                    optimizer.step()
                    history.train_loss.append(value.item())
                    if after is not None:
                        after(step + 1, history)

                progress.live(step + 1, history)
            _validate(model, validation, loss, steps, history, progress)
    except KeyboardInterrupt:
        history.interrupted = True
        progress.say(f"{label}: stopped at step {start + len(history.train_loss)} of {steps}; the model is as that step"
                     " left it")
    finally:
        progress.end()
        model.eval()
    return history


def evaluate(model, batches, loss=next_token_loss) -> float:
    """The mean loss of a target over a list of (x, y), in evaluation mode and without recording.

    The loss of a batch is a mean over its targets, so batches are weighted by how many they hold.
    """
    _check_batches("evaluate", model, batches, loss)
    if not len(batches):
        raise ValueError("evaluate: got no batches, and the mean of nothing is undefined; pass a list such as "
                         "[data.windows(ids, 64, context)]")
    with evaluating(model), no_grad():
        losses = [loss(model, x, y).item() for x, y in batches]
    return float(np.average(losses, weights=[count_targets(x, y) for x, y in batches]))


def _validate(model, validation, loss, step, history, progress):
    if validation:
        history.validation_loss.append(evaluate(model, validation, loss))
        history.validation_steps.append(step)
    progress.milestone(step, history)


def _clip(optimizer, clip, step):
    if clip is not None:
        _check_finite("length of the gradient", clip_grad_norm(optimizer.parameters, clip), step, optimizer)


def _rate(schedule, step, optimizer):
    """The learning rate of a step: the schedule's, or what the optimizer has."""
    if schedule is None:
        return optimizer.lr
    rate = schedule(step)
    check_number(f"fit: the schedule at step {step}", lr=rate)
    return rate


def _check_fit(model, batches, optimizer, steps, schedule, validation, every, clip, loss, threads, start):
    """Raise for what fit cannot train with, before anything is changed."""
    check_int("fit", least=0, steps=steps, start=start)
    check_int("fit", every=every, threads=threads)
    _check_batches("fit", model, validation, loss)
    if clip is not None:
        check_number("fit", clip=clip)
    if schedule is not None and not callable(schedule):
        raise TypeError(f"fit: schedule must be a function step -> learning rate, got {schedule!r}; see warmup_cosine")
    if not hasattr(optimizer, "step") or isinstance(optimizer, type):
        raise TypeError("fit: expected an optimizer such as AdamW(model.trainable_parameters(), lr=1e-3), got "
                        f"{optimizer!r}")
    own = {t for t in model.parameters() if t.requires_grad}
    if not own.intersection(optimizer.parameters):
        raise ValueError("fit: the optimizer moves none of this model's trainable parameters; make it after add_lora, "
                         "with model.trainable_parameters()")
    if not hasattr(batches, "__iter__"):
        raise TypeError(f"fit: expected batches to iterate over, got {type(batches).__name__}; see data.batches")


def _next_batch(batches, step, steps):
    batch = next(batches, None)
    if batch is None:
        raise ValueError(f"fit: the batches ended after {step} of {steps} steps; give an endless iterator, "
                         "such as data.batches(ids, batch, context)")
    if not isinstance(batch, (tuple, list)):
        raise TypeError(f"fit: a batch must be a pair (x, y), got {type(batch).__name__}")
    return batch


def _checked_loss(value, step, optimizer):
    if not isinstance(value, Tensor) or value.size != 1:
        raise TypeError("fit: the loss must be a Tensor of one number, got "
                        + (f"shape {value.shape}; take its mean()" if isinstance(value, Tensor)
                           else type(value).__name__))
    _check_finite("loss", value.item(), step, optimizer)
    return value


def _check_batches(name, model, batches, loss):
    """Raise TypeError for what cannot be evaluated; a stream without an end would never be."""
    expect(name, model, Module)
    if not callable(loss):
        raise TypeError(f"{name}: loss must be a function of (model, x, y), got {loss!r}")
    if not isinstance(batches, (list, tuple)) or not all(isinstance(b, (list, tuple)) for b in batches):
        got = type(batches).__name__
        got += f" that holds a {type(batches[0]).__name__}" if isinstance(batches, (list, tuple)) else ""
        raise TypeError(f"{name}: expected a list of pairs (x, y) to evaluate on, such as [next(stream)], got a {got}")


def _check_finite(what, number, step, optimizer):
    if not math.isfinite(number):
        raise FloatingPointError(f"fit: the {what} is {number} at step {step}, with a learning rate of "
                                 f"{optimizer.lr:g}; try a tenth of it, or a longer warm-up")
