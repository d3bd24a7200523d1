"""The training loop: loss, backward, step; and what it reports on the way."""

import math
import sys
import time
from dataclasses import dataclass, field

import numpy as np

from . import ops
from .graph import no_grad
from .optim import clip_grad_norm


@dataclass
class History:
    """What fit recorded: the loss of each step, and the validation loss after each of `steps`."""

    train: list = field(default_factory=list)
    steps: list = field(default_factory=list)
    validation: list = field(default_factory=list)
    interrupted: bool = False


def next_token_loss(model, x, y):
    """Mean cross-entropy in nats. x: ids (B, T). y: the ids to predict at the last positions of x, (B, S), S <= T."""
    logits = model(x)
    return ops.cross_entropy(logits if y.shape[1] == x.shape[1] else logits[:, -y.shape[1]:], y)


def evaluate(model, batches, loss=next_token_loss):
    """The mean loss over a list of (x, y), in evaluation mode and without recording."""
    was_training = model.training
    model.eval()
    try:
        with no_grad():
            return float(np.mean([loss(model, x, y).item() for x, y in batches]))
    finally:
        model.train(was_training)


def fit(model, batches, optimizer, steps, schedule=None, validation=(), every=100, clip=1.0,
        loss=next_token_loss, label="fit", quiet=False):
    """Train for a number of steps; returns a History.

    batches: an iterator of (x, y). schedule: step -> learning rate, or None for the optimizer's own.
    validation: a list of (x, y), evaluated before the first step, after every `every` steps and at the
    end. clip: the largest joint length of the gradients, or None. Progress goes to stderr: one live line
    on a terminal, a plain line at each evaluation elsewhere, nothing if quiet.
    Raises FloatingPointError when the loss, or the gradient that is to be clipped, is no longer finite; that step is
    not taken. Ctrl-C ends the training and returns what there is.
    """
    if not all(isinstance(n, (int, np.integer)) for n in (steps, every)) or steps < 0 or every < 1:
        raise ValueError(f"fit: steps must be a whole number of at least 0 and every of at least 1, got steps={steps}, "
                         f"every={every}")
    batches, history, progress = iter(batches), History(), Progress(label, steps, quiet)
    model.train()
    try:
        for step in range(steps + 1):
            if validation and (step % every == 0 or step == steps):
                history.steps.append(step)
                history.validation.append(evaluate(model, validation, loss))
            if step % every == 0 or step == steps:
                progress.milestone(step, history)
            if step == steps:
                break
            if schedule is not None:
                optimizer.lr = schedule(step)
            optimizer.zero_grad()
            batch = next(batches, None)
            if batch is None:
                raise ValueError(f"fit: the batches ended after {step} of {steps} steps; give an endless iterator, "
                                 "such as data.batches(ids, batch, context)")
            value = loss(model, *batch)
            _check_finite("loss", value.item(), step, optimizer)
            value.backward()
            if clip is not None:
                _check_finite("length of the gradient", clip_grad_norm(optimizer.parameters, clip), step, optimizer)
            optimizer.step()
            history.train.append(value.item())
            progress.live(step + 1, history)
    except KeyboardInterrupt:
        history.interrupted = True
        progress.say(f"{label}: stopped at step {len(history.train)} of {steps}; the model is as that step left it")
    finally:
        progress.end()
        model.eval()
    return history


def _check_finite(what, number, step, optimizer):
    if not math.isfinite(number):
        raise FloatingPointError(f"fit: the {what} is {number} at step {step}, with a learning rate of "
                                 f"{optimizer.lr:g}; try a tenth of it, or a longer warm-up")


class Progress:
    """How far fit has come, on stderr."""

    def __init__(self, label, steps, quiet, stream=None):
        self.label, self.steps, self.quiet = label, steps, quiet
        self.stream = stream or sys.stderr
        self.on_terminal = self.stream.isatty()
        self.begin = self.last = time.perf_counter()
        self.open = False

    def text(self, step, history):
        parts = [f"{self.label}: step {step}/{self.steps}"]
        if history.train:
            parts.append(f"loss {np.mean(history.train[-20:]):.3f}")
        if history.validation:
            parts.append(f"validation {history.validation[-1]:.3f}")
        if step:
            rate = step / (time.perf_counter() - self.begin)
            parts += [f"{rate:.0f} steps/s", f"{(self.steps - step) / rate:.0f} s left"]
        return "  ".join(parts)

    def live(self, step, history):
        """Rewrite the line, ten times a second at most."""
        now = time.perf_counter()
        if self.quiet or not self.on_terminal or now - self.last < 0.1:
            return
        self.last, self.open = now, True
        print("\r\x1b[K" + self.text(step, history), end="", file=self.stream, flush=True)

    def milestone(self, step, history):
        """A plain line where there is no terminal to rewrite one on."""
        if not self.quiet and not self.on_terminal:
            print(self.text(step, history), file=self.stream, flush=True)

    def say(self, text):
        self.end()
        print(text, file=self.stream, flush=True)

    def end(self):
        """Leave the live line."""
        if self.open:
            print(file=self.stream, flush=True)
            self.open = False
