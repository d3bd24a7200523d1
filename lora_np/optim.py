"""Optimizers, learning-rate schedules and gradient clipping.

A step gives each parameter a new array and writes to none: a graph recorded before the step still
holds the numbers that it was computed from.
"""

import math
from contextvars import ContextVar
from operator import add, is_

import numpy as np

from .ops.arrays import widened
from .support.checks import as_numbers, check_int, check_number, expect
from .tensor import Tensor

CHUNK = 1 << 16  # numbers updated at a time: few enough to stay in the processor's cache throughout
for_each = ContextVar("for_each", default=lambda function, items: [function(item) for item in items])  # or by threads


class Optimizer:
    """What SGD and AdamW share. They treat all parameters as one long vector, as the papers do: a dozen operations on
    it cost far less than a dozen on each parameter (a full step of a small model 0.8 to 0.9 of the time).
    Parameters of float16 are moved in float32 and rounded back: steps below half a unit in the last place are lost.

    Raises ValueError for no parameters or a negative setting, TypeError for a frozen parameter.
    """

    weight_decay = 0.0

    def __init__(self, parameters, lr, **settings):
        self.parameters = _check_parameters(type(self).__name__, parameters)
        check_number(type(self).__name__, lr=lr, **settings)
        self.lr, self.steps = lr, [0] * len(self.parameters)  # steps: how many each has taken
        ends = np.cumsum([p.size for p in self.parameters]).tolist()
        self.spans = [(end - p.size, end) for p, end in zip(self.parameters, ends, strict=True)]  # in the vector
        self.dtype = np.result_type(np.float32, *(p.dtype for p in self.parameters))  # in float16, eps would be 0
        self._last = None, []  # the vector that a step left, and views of it, which are the parameters' arrays

    def zero_grad(self):
        """Forget all gradients; without it, the next backward adds to them."""
        for p in self.parameters:
            p.grad = None

    def step(self):
        """Move every parameter that has a gradient. Raises RuntimeError where none has one."""
        arrays, gradients = [p.data for p in self.parameters], [p.grad for p in self.parameters]
        self._check_gradients(arrays, gradients)
        reached = [g is not None for g in gradients]
        self.steps = list(map(add, self.steps, reached))
        alike = all(reached) and len(set(self.steps)) == 1  # all take the same step t: side by side, else one by one
        for some in [slice(None)] if alike else [slice(i, i + 1) for i in np.flatnonzero(reached)]:
            self._move(self.parameters[some], arrays[some], gradients[some], self.spans[some], self.steps[some][0])

    def _move(self, parameters, arrays, gradients, spans, t):
        """Take step t with some parameters, side by side in the vector."""
        begin, (before, parts) = spans[0][0], self._last
        if len(arrays) != len(parts) or not all(map(is_, arrays, parts)):  # new, or replaced since
            before = np.concatenate(arrays, axis=None, dtype=self.dtype)
        after = np.concatenate(gradients, axis=None, dtype=self.dtype, casting="same_kind")

        def work_out(start):
            g, p = after[start:start + CHUNK], before[start:start + CHUNK]
            step = self.update(g, slice(begin + start, begin + start + len(g)), t)
            if self.weight_decay:
                p = p * (1 - self.lr * self.weight_decay)
            np.subtract(p, step, out=g)  # which nobody needs any more

        for_each.get()(work_out, range(0, len(after), CHUNK))
        after.setflags(write=False)
        views = [after[start - begin:end - begin].reshape(old.shape)
                 for old, (start, end) in zip(arrays, spans, strict=True)]
        for p, old, view in zip(parameters, arrays, views, strict=True):
            p.replace_array(np.asarray(view, old.dtype))  # the view itself, unless the precisions differ
        self._last = after, views

    def update(self, g, part, t):
        """What step t = 1, 2, … subtracts from a part of the vector, a slice of it, where the gradient is g.

        With fit(…, threads=2) called for two parts at once."""
        raise NotImplementedError

    def _check_gradients(self, arrays, gradients):
        """Raise where no parameter has a gradient, or one that does not fit its array, before any is moved."""
        if ({*map(type, gradients)} == {np.ndarray} and [g.shape for g in gradients] == [a.shape for a in arrays]
                and {g.dtype.kind for g in gradients} == {"f"}):
            return  # as nearly always: what is asked below, of all at once
        name = type(self).__name__
        if all(g is None for g in gradients):
            raise RuntimeError(f"{name}.step: no parameter has a gradient; call loss.backward() first")
        for i, (g, array) in enumerate(zip(gradients, arrays, strict=True)):
            if g is not None and (not isinstance(g, np.ndarray) or g.shape != array.shape or g.dtype.kind != "f"):
                raise ValueError(f"{name}.step: the gradient of parameter {i} must be a floating point array of shape "
                                 f"{array.shape}, got {type(g).__name__} of {getattr(g, 'shape', 'no shape')}; nothing "
                                 "was moved")

    def state_dict(self):
        """{name: array} of all that the next step depends on, beside the parameters and their learning rate: a copy."""
        arrays = {name: array.copy() for name, array in vars(self).items() if isinstance(array, np.ndarray)}
        return {"steps": np.array(self.steps, float), **arrays}

    def load_state_dict(self, state):
        """Go on where the optimizer that gave this state_dict was. Raises ValueError where it does not fit."""
        expect("load_state_dict", state, dict, "; another optimizer's state_dict() is one")
        own = self.state_dict()
        if {name: np.shape(a) for name, a in state.items()} != {name: a.shape for name, a in own.items()}:
            raise ValueError(f"load_state_dict: got { {name: np.shape(a) for name, a in state.items()} }, expected "
                             f"{ {name: a.shape for name, a in own.items()} }; is it of the same parameters?")
        new = {name: np.array(as_numbers(f"load_state_dict: {name}", state[name]), a.dtype) for name, a in own.items()}
        self.steps = new.pop("steps").astype(int).tolist()
        vars(self).update(new)

    def zeros(self):
        """A number for each number of the vector."""
        return np.zeros(self.spans[-1][1], self.dtype)


class SGD(Optimizer):
    """Stochastic gradient descent: v = momentum v + g, then p = p - lr v."""

    def __init__(self, parameters, lr, momentum=0.0):
        super().__init__(parameters, lr, momentum=momentum)
        self.momentum, self.v = momentum, self.zeros() if momentum else None

    def step(self):
        if self.momentum and self.v is None:  # it was set later
            self.v = self.zeros()
        super().step()

    def update(self, g, part, t):
        if self.momentum:
            g = self.v[part] = self.momentum * self.v[part] + g
        return self.lr * g


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2):

        p = p - lr weight_decay p - lr mhat / (sqrt(vhat) + eps)

    On LoRA's B and A, weight decay pulls the update towards 0, that is the weight towards W0.
    """

    def __init__(self, parameters, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"AdamW: betas must be two numbers such as (0.9, 0.999), got {betas!r}")
        super().__init__(parameters, lr, beta1=betas[0], beta2=betas[1], eps=eps, weight_decay=weight_decay)
        if max(betas) >= 1:
            raise ValueError(f"AdamW: betas must be below 1, got {betas}")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.m, self.v = self.zeros(), self.zeros()

    def update(self, g, part, t):
        beta1, beta2 = self.betas
        m, v = self.m[part], self.v[part]
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * g * g
        mhat = m / (1 - beta1 ** t)
        vhat = v / (1 - beta2 ** t)
        return self.lr * mhat / (np.sqrt(vhat) + self.eps)


def warmup_cosine(lr, steps, warmup=0, final=0.0):
    """A schedule: step -> learning rate. Rises linearly to lr over the first warmup steps, then falls along half a
    cosine, to `final` at the last step. Steps count from 0. A single step is taken at lr."""
    check_number("warmup_cosine", lr=lr, final=final)
    check_int("warmup_cosine", least=0, steps=steps)
    if not isinstance(warmup, (int, np.integer)) or not 0 <= warmup < steps:
        raise ValueError(f"warmup_cosine: warmup must be in 0 .. steps - 1, got warmup={warmup}, steps={steps}")

    fall = steps - 1 - warmup

    def schedule(step):
        if step < warmup:
            return lr * (step + 1) / warmup
        done = min(1, (step - warmup) / fall) if fall else steps > 1
        return final + (lr - final) * 0.5 * (1 + math.cos(math.pi * done))

    return schedule


def clip_grad_norm(parameters, max_norm):
    """Scale all gradients together so that their global L2 norm is at most max_norm. Returns what it was.

    A norm that is inf or nan is returned too; the gradients are then as they were.
    """
    if not isinstance(max_norm, (int, float, np.number)) or not max_norm > 0:
        raise ValueError(f"clip_grad_norm: max_norm must be above 0, got {max_norm!r}")
    if not isinstance(parameters, (list, tuple)):
        raise TypeError(f"clip_grad_norm: expected a list of parameters, got {type(parameters).__name__}; pass "
                        "model.trainable_parameters()")
    for p in parameters:
        expect("clip_grad_norm", p, Tensor, "; pass model.trainable_parameters()")
    reached = [p for p in parameters if p.grad is not None]
    with np.errstate(over="ignore"):
        squares = [np.vdot(g, g) for g in (widened(p.grad) for p in reached)]
    if not np.isfinite(squares).all():  # in float32, squares overflow above 1e19
        squares = [np.vdot(g, g) for g in (p.grad.astype(float) for p in reached)]
    norm = math.sqrt(sum(map(float, squares)))
    if max_norm < norm < math.inf:
        for p in reached:
            p.grad = p.grad * (max_norm / norm)
    return norm


def _check_parameters(name, parameters):
    """The parameters as a list, each of them a leaf that is trained, and each once."""
    try:
        parameters = list(parameters)
    except TypeError:
        raise TypeError(f"{name}: expected a list of parameters, got {type(parameters).__name__}; pass "
                        "model.trainable_parameters()") from None
    if not parameters:
        raise ValueError(f"{name}: got no parameters to train; pass model.trainable_parameters()")
    for i, p in enumerate(parameters):
        leaf = isinstance(p, Tensor) and p._node is None
        if not leaf or not p.requires_grad:
            what = (f"is frozen, of shape {p.shape}" if leaf else f"is the result of {p._node.name}"
                    if isinstance(p, Tensor) else f"is a {type(p).__name__}")
            raise TypeError(f"{name}: parameter {i} {what}; "
                            "pass model.trainable_parameters(), which leaves frozen ones out")
    if len({id(p) for p in parameters}) < len(parameters):
        raise ValueError(f"{name}: the same parameter was given twice, and would be moved twice a step")
    return parameters
