"""Optimizers, learning-rate schedules and gradient clipping.

A step gives each parameter a new array and writes to none: a graph recorded before the step still
holds the numbers that it was computed from.
"""

import math

import numpy as np

from .support.checks import check_int, check_number, expect
from .tensor import Tensor

CHUNK = 1 << 16  # elements updated at a time: few enough to stay in the processor's cache throughout


class Optimizer:
    """What SGD and AdamW share: the parameters, their learning rate, and one flat array of gradients.

    Raises ValueError for no parameters or a negative setting, TypeError for a frozen parameter.
    """

    weight_decay = 0.0

    def __init__(self, parameters, lr, **settings):
        name = type(self).__name__
        try:
            self.parameters = list(parameters)
        except TypeError:
            raise TypeError(f"{name}: expected a list of parameters, got {type(parameters).__name__}; pass "
                            "model.trainable_parameters()") from None
        if not self.parameters:
            raise ValueError(f"{name}: got no parameters to train; pass model.trainable_parameters()")
        for i, p in enumerate(self.parameters):
            leaf = isinstance(p, Tensor) and p._node is None
            if not leaf or not p.requires_grad:
                what = (f"is frozen, of shape {p.shape}" if leaf else f"is the result of {p._node.name}"
                        if isinstance(p, Tensor) else f"is a {type(p).__name__}")
                raise TypeError(f"{name}: parameter {i} {what}; "
                                "pass model.trainable_parameters(), which leaves frozen ones out")
        if len({id(p) for p in self.parameters}) < len(self.parameters):
            raise ValueError(f"{name}: the same parameter was given twice, and would be moved twice a step")
        check_number(name, lr=lr, **settings)
        self.lr, self.steps = lr, [0] * len(self.parameters)
        # One flat array holds all gradients: the update is then a few long operations instead of a
        # dozen short ones for each parameter. `pieces` are its parts, in the shapes of the parameters.
        ends = np.cumsum([p.size for p in self.parameters])
        self.spans = [slice(end - p.size, end) for p, end in zip(self.parameters, ends, strict=True)]
        self.flat = np.zeros(ends[-1], np.result_type(*(p.dtype for p in self.parameters)))
        self.pieces = [self.flat[s].reshape(p.shape) for s, p in zip(self.spans, self.parameters, strict=True)]

    def zero_grad(self):
        """Forget all gradients; without it, the next backward adds to them."""
        for p in self.parameters:
            p.grad = None

    def step(self):
        """Move every parameter that has a gradient. Raises RuntimeError where none has one."""
        reached = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        if not reached:
            raise RuntimeError(f"{type(self).__name__}.step: no parameter has a gradient; call loss.backward() first")
        for i in reached:
            p = self.parameters[i]
            if not isinstance(p.grad, np.ndarray) or p.grad.shape != p.shape or p.grad.dtype.kind != "f":
                raise ValueError(f"{type(self).__name__}.step: the gradient of parameter {i} must be a floating point "
                                 f"array of shape {p.shape}, got {type(p.grad).__name__} of "
                                 f"{getattr(p.grad, 'shape', 'no shape')}; nothing was moved")
            self.pieces[i][...] = p.grad
        for i in reached:  # only now that all of them fit
            self.steps[i] += 1
        if len(reached) == len(self.parameters) and len(set(self.steps)) == 1:
            for i in range(0, len(self.flat), CHUNK):
                self.update(slice(i, i + CHUNK), self.steps[0])
        else:
            for i in reached:
                self.update(self.spans[i], self.steps[i])
        for i in reached:
            p = self.parameters[i]
            kept = p.data * (1 - self.lr * self.weight_decay) if self.weight_decay else p.data
            p.replace_array(np.asarray(kept - self.pieces[i], p.dtype))

    def update(self, span, t):
        """Turn the gradients in self.flat[span] into the amounts to subtract, at their step t = 1, 2, …"""
        raise NotImplementedError


class SGD(Optimizer):
    """Stochastic gradient descent: v = momentum * v + g, then p = p - lr * v."""

    def __init__(self, parameters, lr, momentum=0.0):
        super().__init__(parameters, lr, momentum=momentum)
        self.momentum, self.v = momentum, np.zeros_like(self.flat)

    def update(self, span, t):
        g, v = self.flat[span], self.v[span]
        v *= self.momentum
        v += g
        np.multiply(v, self.lr, out=g)


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2). At step t:

        m = beta1 m + (1 - beta1) g            mhat = m / (1 - beta1^t)
        v = beta2 v + (1 - beta2) g^2          vhat = v / (1 - beta2^t)
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
        self.m, self.v = np.zeros_like(self.flat), np.zeros_like(self.flat)

    def update(self, span, t):
        g, m, v = self.flat[span], self.m[span], self.v[span]
        beta1, beta2 = self.betas
        m *= beta1
        m += (1 - beta1) * g
        g *= g  # from here on, the array of gradients holds what is computed from them
        g *= 1 - beta2
        v *= beta2
        v += g
        np.sqrt(v, out=g)
        g *= float(1 - beta2 ** t) ** -0.5    # sqrt(vhat)
        g += self.eps
        np.divide(m, g, out=g)
        g *= self.lr / float(1 - beta1 ** t)  # lr mhat / (sqrt(vhat) + eps)


def warmup_cosine(lr, steps, warmup=0, final=0.0):
    """A schedule: step -> learning rate. Rises linearly to lr over the first warmup steps, then falls
    to `final` along half a cosine at the last step. Steps count from 0."""
    check_number("warmup_cosine", lr=lr, final=final)
    check_int("warmup_cosine", least=0, steps=steps)
    if not isinstance(warmup, (int, np.integer)) or not 0 <= warmup < steps:
        raise ValueError(f"warmup_cosine: warmup must be in 0 .. steps - 1, got warmup={warmup}, steps={steps}")

    def schedule(step):
        if step < warmup:
            return lr * (step + 1) / warmup
        return final + (lr - final) * 0.5 * (1 + math.cos(math.pi * min(1, (step - warmup) / (steps - warmup))))

    return schedule


def clip_grad_norm(parameters, max_norm):
    """Scale all gradients together so that their joint length is at most max_norm. Returns what it was.

    A length that is inf or nan is returned too; the gradients are then as they were.
    """
    if not isinstance(max_norm, (int, float, np.number)) or not max_norm > 0:
        raise ValueError(f"clip_grad_norm: max_norm must be above 0, got {max_norm!r}")
    if not isinstance(parameters, (list, tuple)):
        raise TypeError(f"clip_grad_norm: expected a list of parameters, got {type(parameters).__name__}; pass "
                        "model.trainable_parameters()")
    for p in parameters:
        expect("clip_grad_norm", p, Tensor, "; pass model.trainable_parameters()")
    reached = [p for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float(np.vdot(p.grad, p.grad)) for p in reached))
    if max_norm < norm < math.inf:
        for p in reached:
            p.grad = p.grad * (max_norm / norm)
    return norm
