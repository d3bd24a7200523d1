"""Wrong gradients, planted, and right ones that are awkward to measure: python -m tests.byhand.gradient_cases [--all]

prints how many of each kind gradcheck judges right, and PyTorch's gradcheck beside it where PyTorch is installed.
A case is plain NumPy: value(*arrays) -> array, and vjp(g, *arrays) -> the gradient of each array. So both judge the
same code. What keeps a state from call to call is made anew for each.
"""

import importlib.util
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_np.gradcheck import gradcheck
from lora_np.tensor import node


@dataclass
class Case:
    """right: whether the gradient is. make() -> (value, vjp); arrays: where it is checked."""

    kind: str
    name: str
    right: bool
    make: Any
    arrays: tuple


CASES = []


def plant(right, kind, name, value, vjp, *arrays):
    CASES.append(Case(kind, name, right, lambda: (value, vjp), tuple(np.asarray(a, float) for a in arrays)))


def wrong(*words):
    plant(False, *words)


def right(*words):
    plant(True, *words)


def stateful(kind, name, *arrays):
    """A decorator: the function makes (value, vjp) anew for each checker."""
    def enter(make):
        CASES.append(Case(kind, name, False, make, tuple(np.asarray(a, float) for a in arrays)))
        return make
    return enter


rng = np.random.default_rng(0)
KEPT, SIZES = np.array([1, 0, 1, 1, 0]), 10.0 ** np.arange(-12, 13, 3)
TURN = np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
HILBERT = 1 / (1 + np.add.outer(np.arange(6), np.arange(6)))
v3, v5, m34, m44, m23 = (rng.normal(size=s) for s in (3, 5, (3, 4), (4, 4), (2, 3)))
positive = rng.uniform(0.5, 2, 4)
W = rng.normal(size=(4, 4))
U = rng.normal(size=(4, 2))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_back(g, x):
    y = softmax(x)
    return y * (g - (g * y).sum(-1, keepdims=True))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normed(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def normed_back(g, x):
    y = normed(x)
    s = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return (g - g.mean(-1, keepdims=True) - y * (g * y).mean(-1, keepdims=True)) / s


def square(x):
    return x * x


def total(x):
    return (x * x).sum()


def spread(g, x):
    """A scalar's gradient over all of x."""
    return np.broadcast_to(g, x.shape)


def at(where, change, gradient):
    """The gradient with one place changed."""
    def vjp(g, x):
        d = np.array(gradient(g, x))
        d[where] = change(d[where])
        return d
    return vjp


def d_square(g, x):
    return 2 * x * g


# Wrong by a factor

for name, c in (("twice", 2), ("half", 0.5), ("a thousandth more", 1.001), ("a ten-thousandth less", 0.9999),
                ("a hundred times", 100)):
    wrong("a factor", f"x^2, {name}", square, lambda g, x, c=c: c * 2 * x * g, v3)
wrong("a factor", "mean without 1/n", lambda x: x.mean(), lambda g, x: spread(g, x) * 1.0, v5)
wrong("a factor", "a LoRA update without alpha/r", lambda x: 4 * (x @ U), lambda g, x: g @ U.T, m34)
wrong("a factor", "squared error without the 2", total, lambda g, x: g * x, v5)
wrong("a factor", "sqrt without the 2", np.sqrt, lambda g, x: g / np.sqrt(x), positive)

wrong("a factor", "log of a sum of exp, not normalized", lambda x: np.log(np.exp(x).sum()),
      lambda g, x: g * np.exp(x), v5)
wrong("a factor", "cross-entropy, the mean's 1/n left out", lambda x: -np.log(softmax(x)).diagonal().mean(),
      lambda g, x: g * (softmax(x) - np.eye(3, 4)), m34)
wrong("a factor", "dropout without 1 / (1 - p)", lambda x: x * KEPT / 0.6, lambda g, x: g * KEPT, v5)
wrong("a factor", "standard deviation by n - 1", np.std, lambda g, x: g * (x - x.mean()) / x.std() / (x.size - 1), v5)
wrong("a factor", "norm, not divided by it", np.linalg.norm, lambda g, x: g * x, v5)
wrong("a factor", "rounded to float16", square, lambda g, x: (2 * x * g).astype(np.float16).astype(float), v5)

# Of the wrong sign

wrong("a sign", "sin", np.sin, lambda g, x: -g * np.cos(x), v3)
wrong("a sign", "1/x", lambda x: 1 / x, lambda g, x: g / x ** 2, positive)
wrong("a sign", "b of a - b", lambda a, b: a - b, lambda g, a, b: (g, g), v3, v3 + 1)
wrong("a sign", "b of a / b", lambda a, b: a / b, lambda g, a, b: (g / b, g * a / b ** 2), v3, positive[:3])
wrong("a sign", "of one element", square, at(1, np.negative, d_square), v5)
wrong("a sign", "where x is below 0: |x| with slope 1", np.abs, lambda g, x: g * 1.0, np.array([-1.5, 0.7, 2.0]))

wrong("a sign", "lost: |2 x g|", square, lambda g, x: np.abs(2 * x * g), v3)
wrong("a sign", "a rotation turned the same way", lambda x: x @ TURN, lambda g, x: g @ TURN, rng.normal(size=(3, 2)))

# Transposed, or along another axis

wrong("axes", "x W with g W, square W", lambda x: x @ W, lambda g, x: g @ W, m34)
wrong("axes", "x x^T W transposed", lambda x: x @ x.T @ W, lambda g, x: (g @ W.T @ x + (g @ W.T).T @ x).T, m44)
wrong("axes", "transpose of a square matrix left out", lambda x: x.T, lambda g, x: g, m44)
wrong("axes", "reshape in column order", lambda x: x.reshape(4, 3), lambda g, x: g.reshape(3, 4, order="F"), m34)
wrong("axes", "sum over rows spread over columns", lambda x: x.sum(0), lambda g, x: np.repeat(g[:, None], 4, 1), m44)
wrong("axes", "softmax along the other axis", softmax, lambda g, x: softmax_back(g.T, x.T).T, m44)
wrong("axes", "cumulative sum backward in the same direction", np.cumsum, lambda g, x: np.cumsum(g), v5)
wrong("axes", "roll by one, backward too", lambda x: np.roll(x, 1), lambda g, x: np.roll(g, 1), v5)

wrong("axes", "a convolution's kernel not flipped", lambda x: np.convolve(x, v3, "valid"),
      lambda g, x: np.convolve(g, v3), rng.normal(size=8))
wrong("axes", "sort by argsort, not its inverse", np.sort, lambda g, x: g[np.argsort(x)], np.array([3.0, 1, 4, 2, 5]))
wrong("axes", "g in reverse", square, lambda g, x: 2 * x * g[::-1], v5)
wrong("axes", "mean over rows, backward over columns", lambda x: x - x.mean(0),
      lambda g, x: g - g.mean(1, keepdims=True), m44)

# A term left out

wrong("a term left out", "zeros for softmax", softmax, lambda g, x: np.zeros_like(x), m23)
wrong("a term left out", "softmax: the diagonal alone", softmax, lambda g, x: g * softmax(x) * (1 - softmax(x)), m23)
wrong("a term left out", "x minus its mean: g", lambda x: x - x.mean(), lambda g, x: g, v5)
wrong("a term left out", "layer norm: the variance's", normed, lambda g, x: (g - g.mean(-1, keepdims=True)) / np.sqrt(
    x.var(-1, keepdims=True) + 1e-5), m34)
wrong("a term left out", "layer norm: the mean's", normed, lambda g, x: (
    g - normed(x) * (g * normed(x)).mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5), m34)
wrong("a term left out", "x sin x: the product rule's second", lambda x: x * np.sin(x), lambda g, x: g * np.sin(x), v3)
wrong("a term left out", "x x: one of two paths", lambda x: x @ x, lambda g, x: g @ x.T, m44)
wrong("a term left out", "tanh: 1 for 1 - y^2", np.tanh, lambda g, x: g * 1.0, v3)

wrong("a term left out", "RMS norm: the second", lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True)),
      lambda g, x: g / np.sqrt((x * x).mean(-1, keepdims=True)), m34)
wrong("a term left out", "x sigmoid(x): sigmoid alone", lambda x: x * sigmoid(x), lambda g, x: g * sigmoid(x), v5)
wrong("a term left out", "cross-entropy: the one-hot", lambda x: -np.log(softmax(x)).diagonal().mean(),
      lambda g, x: g * softmax(x) / 3, m34)
wrong("a term left out", "a b: zeros for b", np.matmul, lambda g, a, b: (g @ b.T, 0 * b), m34, m44)
wrong("a term left out", "clip: passed on outside", lambda x: np.clip(x, -0.5, 0.5), lambda g, x: g * 1.0, v5)
wrong("a term left out", "a constant added", square, lambda g, x: 2 * x * g + 1e-4, v3)

# g ignored, or not used linearly

wrong("g misused", "ignored", np.exp, lambda g, x: np.exp(x), v3)
wrong("g misused", "ignored by a scalar", np.sum, lambda g, x: np.ones_like(x), v3)
wrong("g misused", "clipped below at 0, a scalar result", total, lambda g, x: np.maximum(g, 0) * 2 * x, v3)
wrong("g misused", "clipped below at 0, three results", square, lambda g, x: np.maximum(g, 0) * 2 * x, v3)
wrong("g misused", "clipped above at 0, one result", square, lambda g, x: np.minimum(g, 0) * 2 * x, v3[:1])
wrong("g misused", "its size alone, a scalar result", total, lambda g, x: np.abs(g) * 2 * x, v3)
wrong("g misused", "its sign alone", square, lambda g, x: np.sign(g) * 2 * x, v3)
wrong("g misused", "clipped to [-5, 5]", square, lambda g, x: np.clip(g, -5, 5) * 2 * x, v3)
wrong("g misused", "clipped to [-100, 100], a scalar result", total, lambda g, x: np.clip(g, -100, 100) * 2 * x, v3)
wrong("g misused", "squared", square, lambda g, x: g * g * 2 * x, v3)
wrong("g misused", "of length one", square, lambda g, x: g / np.linalg.norm(g) * 2 * x, v3)
wrong("g misused", "its mean for all", square, lambda g, x: g.mean() * 2 * x, v3)
wrong("g misused", "small ones dropped", square, lambda g, x: np.where(np.abs(g) < 0.1, 0, g) * 2 * x, v3)
wrong("g misused", "rounded to whole numbers", square, lambda g, x: np.round(g) * 2 * x, v3)

wrong("g misused", "its tanh, one result", square, lambda g, x: np.tanh(g) * 2 * x, v3[:1])
wrong("g misused", "rounded down, a scalar result", total, lambda g, x: np.floor(g) * 2 * x, v3)
wrong("g misused", "leaky below 0, a scalar result", total, lambda g, x: np.where(g > 0, g, 0.01 * g) * 2 * x, v3)
wrong("g misused", "a hundredth added", square, lambda g, x: (g + 0.01) * 2 * x, v3)
wrong("g misused", "zeros where one is 0", square, lambda g, x: 2 * x * g * np.all(g), v5)
wrong("g misused", "the first for all", square, lambda g, x: 2 * x * g.flat[0], v5)
wrong("g misused", "written to", square, lambda g, x: np.multiply(g, 2 * x, out=g), v5)

# Repeated indices and ties

TWICE, ROWS = np.array([0, 2, 2]), np.array([[1, 0, 1], [2, 2, 2]])


def last_wins(index):
    def vjp(g, x):
        d = np.zeros_like(x)
        d[index] = g
        return d
    return vjp


def buffered(index):
    def vjp(g, x):
        d = np.zeros_like(x)
        d[index] += g
        return d
    return vjp


def averaged(index):
    def vjp(g, x):
        d, n = np.zeros_like(x), np.zeros_like(x)
        np.add.at(d, index, g)
        np.add.at(n, index, 1)
        return d / np.maximum(n, 1)
    return vjp


wrong("repeated indices", "x[0, 2, 2]: the last wins", lambda x: x[TWICE], last_wins(TWICE), v3)
wrong("repeated indices", "rows of a table: += counts once", lambda x: x[ROWS], buffered(ROWS), m34)
wrong("repeated indices", "rows of a table: averaged", lambda x: x[ROWS], averaged(ROWS), m34)
wrong("repeated indices", "x[-1] beside x[2]", lambda x: x[np.array([2, -1, 0])], last_wins(np.array([2, -1, 0])), v3)
wrong("repeated indices", "np.repeat: the first alone", lambda x: np.repeat(x, 3), lambda g, x: g[::3], v3)
wrong("repeated indices", "a broadcast row: the first copy alone", lambda x: np.broadcast_to(x, (4, 3)) * 2.0,
      lambda g, x: 2 * g[0], v3)

wrong("repeated indices", "max pooling: to the second largest", lambda x: x.max(1),
      lambda g, x: g[:, None] * (np.argsort(np.argsort(x, 1), 1) == 1), rng.normal(size=(2, 3)))

# Off the diagonal

wrong("off the diagonal", "x^T x: diagonal alone", lambda x: x.T @ x, lambda g, x: 2 * x * np.diag(g), m44)
wrong("off the diagonal", "inverse: the diagonal's", np.linalg.inv, lambda g, x: -np.diag(np.diag(
    np.linalg.inv(x).T @ g @ np.linalg.inv(x).T)), m44 + 3 * np.eye(4))
wrong("off the diagonal", "log det: the inverse not transposed", lambda x: np.linalg.slogdet(x)[1],
      lambda g, x: g * np.linalg.inv(x), m44 + 3 * np.eye(4))
wrong("off the diagonal", "outer product: halved there", lambda x: np.outer(x, x), lambda g, x: (
    (g + g.T) * (0.5 + 0.5 * np.eye(5))) @ x, v5)
wrong("off the diagonal", "symmetric part: a triangle alone", lambda x: (x + x.T) / 2, lambda g, x: np.triu(g), m44)
wrong("off the diagonal", "lower triangle: one beside it", np.tril, lambda g, x: np.tril(g, 1), m44)
wrong("off the diagonal", "log softmax: g - y alone", lambda x: np.log(softmax(x)),
      lambda g, x: g - softmax(x), m23)

wrong("off the diagonal", "x x^T: where g has its diagonal", lambda x: x @ x.T,
      lambda g, x: 2 * np.diag(np.diag(g)) @ x, m44)
wrong("off the diagonal", "trace: ones everywhere", np.trace, lambda g, x: g * np.ones_like(x), m44)
wrong("off the diagonal", "determinant: not transposed", np.linalg.det,
      lambda g, x: g * np.linalg.det(x) * np.linalg.inv(x), m44)

# Not deterministic

for name, noise in (("a thousandth of noise", 1e-3), ("a millionth of noise", 1e-6)):
    @stateful("not deterministic", name, v5)
    def _(noise=noise):
        draw = np.random.default_rng(0)
        return square, lambda g, x: 2 * x * g * (1 + noise * draw.normal(size=x.shape))


@stateful("not deterministic", "an element is dropped now and then", rng.normal(size=40))
def _():
    draw = np.random.default_rng(5)
    return square, lambda g, x: 2 * x * g * (draw.random(x.shape) > 0.02)


@stateful("not deterministic", "every other call gives zeros", v5)
def _():
    calls = []
    return square, lambda g, x: 2 * x * g * (calls.append(1) or len(calls) % 2)


@stateful("not deterministic", "the forward pass is noisy", v5)
def _():
    draw = np.random.default_rng(0)
    return lambda x: x * x + 1e-9 * draw.normal(size=x.shape), d_square


@stateful("not deterministic", "every third call, half as much again", v5)
def _():
    calls = []
    return square, lambda g, x: 2 * x * g * (1 if (calls.append(1) or len(calls)) % 3 else 1.5)


@stateful("not deterministic", "dropout drawn anew in backward", rng.normal(size=20))
def _():
    draw = np.random.default_rng(0)
    return lambda x: x * 0.9, lambda g, x: g * (draw.random(x.shape) < 0.9)


@stateful("not deterministic", "by the clock", v5)
def _():
    return square, lambda g, x: 2 * x * g * (1 + 1e-7 * (time.perf_counter_ns() % 997))


# Dependent on hidden state

@stateful("hidden state", "x of the last forward pass", v5)
def _():
    seen = []
    return lambda x: (seen.append(x.copy()), x * x)[1], lambda g, x: 2 * seen[-1] * g


@stateful("hidden state", "right in the first call alone", v5)
def _():
    calls = []
    return square, lambda g, x: 2 * x * g * (1 if (calls.append(1) or len(calls)) == 1 else 0.9)


@stateful("hidden state", "gradients of earlier calls are added", v5)
def _():
    kept = [0.0]

    def vjp(g, x):
        kept[0] = kept[0] + 2 * x * g
        return kept[0].copy()
    return square, vjp


@stateful("hidden state", "a kept array is written to", v5)
def _():
    kept = {}

    def value(x):
        kept[x.tobytes()] = 2 * x
        return x * x

    def vjp(g, x):
        kept[x.tobytes()] *= g
        return kept[x.tobytes()].copy()
    return value, vjp


@stateful("hidden state", "the first x is kept for good", v5)
def _():
    kept = []
    return lambda x: (kept or kept.append(np.full_like(x, 0.3)), x * x)[1], lambda g, x: 2 * kept[0] * g


@stateful("hidden state", "running mean", v5)
def _():
    mean = [0.0]

    def value(x):
        mean[0] = 0.9 * mean[0] + 0.1 * x.mean()
        return x * x
    return value, lambda g, x: 2 * (x - mean[0]) * g


@stateful("hidden state", "a temperature falls with each forward pass", v5)
def _():
    kept = [1.0]
    return lambda x: (kept.append(kept.pop() * 0.9999), x * x)[1], lambda g, x: 2 * x * g * kept[0]


@stateful("hidden state", "a cache by shape", v5)
def _():
    kept = {}
    return lambda x: (kept.setdefault(x.shape, x + 0.1), x * x)[1], lambda g, x: 2 * g * kept[x.shape]


@stateful("hidden state", "the forward pass counts its calls", v5)
def _():
    calls = []
    return lambda x: x * x * (1 + 1e-8 * (calls.append(1) or len(calls))), d_square


# Another layout in memory

def as_stored(g):
    """The numbers that stand in g's memory, in the order in which they stand there."""
    return np.resize(g if g.base is None else g.base, g.shape)


wrong("memory layout", "a view read as if contiguous", lambda x: np.sin(x), lambda g, x: as_stored(g) * np.cos(x), m34)
wrong("memory layout", "doubled unless contiguous", square, lambda g, x: (
    2 if g.flags.c_contiguous else 4) * x * g, m34)
wrong("memory layout", "raveled in the order of memory", square, lambda g, x: (
    2 * x.ravel() * g.ravel("K")).reshape(x.shape), m34)
wrong("memory layout", "a vector with a stride: its first half", square, lambda g, x: 2 * x * as_stored(g), v5)

wrong("memory layout", "transposed where Fortran's", square, lambda g, x: 2 * x * (
    g if g.flags.c_contiguous else g.T.reshape(g.shape)), m34)
wrong("memory layout", "bytes in their own order", square, lambda g, x: 2 * x * np.frombuffer(
    g.tobytes("A")).reshape(x.shape), m34)
wrong("memory layout", "turned round where strides are negative", square, lambda g, x: 2 * x * (
    g[::-1] if min(g.strides) < 0 else g), v5)
wrong("memory layout", "a matrix turned round where strides are negative", square, lambda g, x: 2 * x * (
    g[::-1] if min(g.strides) < 0 else g), m34)
wrong("memory layout", "in the order of memory, of large and small results", square, lambda g, x: (
    2 * x.ravel() * g.ravel("K")).reshape(x.shape), m34 * np.where(np.arange(12).reshape(3, 4), 1, 1e-4))

# Few elements of many

big = rng.normal(size=(40, 25))
wrong("few of many", "one of 1,000 by a thousandth", square, at((17, 3), lambda d: d * 1.001, d_square), big)
wrong("few of many", "one of 1,000 is zero", square, at((39, 24), lambda d: 0, d_square), big)
wrong("few of many", "the last row left out", square, at(-1, lambda d: 0 * d, d_square), big)
wrong("few of many", "the first element twice", np.exp, at(0, lambda d: 2 * d, lambda g, x: g * np.exp(x)), v5)
wrong("few of many", "where x is above 1", square, lambda g, x: np.where(x > 1, 1, 2 * x) * g, np.linspace(-2, 2, 9))
wrong("few of many", "two elements exchanged", square, at([1, 2], lambda d: d[::-1], d_square), v5)

wrong("few of many", "one of 1,000 by a tenth", square, at((17, 3), lambda d: d * 1.1, d_square), big)
wrong("few of many", "negative x by a hundredth", square, lambda g, x: np.where(x < 0, 0.99, 1) * 2 * x * g, v5)
wrong("few of many", "relu 1e-7 above its kink", lambda x: np.maximum(x, 0), lambda g, x: g * (x > 1e-6),
      np.array([1e-7, 1.0]))
wrong("few of many", "relu at its kink: 2", lambda x: np.maximum(x, 0), lambda g, x: g * np.where(x == 0, 2, x > 0),
      np.array([0.0, 1.0]))
wrong("few of many", "relu at its kink: -0.1", lambda x: np.maximum(x, 0).sum() + 10,
      lambda g, x: g * np.where(x == 0, -0.1, x > 0), np.array([0.0, 1.0]))

# nan and inf

wrong("nan", "everywhere", square, lambda g, x: g * np.nan, v3)
wrong("nan", "in one element", square, at(2, lambda d: np.nan, d_square), v5)
wrong("nan", "inf in one element", square, at(0, lambda d: np.inf, d_square), v5)
wrong("nan", "in the result", lambda x: np.where(np.arange(5) == 3, np.nan, x), lambda g, x: g * 1.0, v5)

wrong("nan", "0 / 0 at 0", square, lambda g, x: 2 * x * g * (x / x), np.array([0.0, 1, 2]))

# Small beside something large

wrong("small beside large", "zero for 1e-7 x^2", lambda x: 1e-7 * x * x, lambda g, x: 0 * x, v3)
wrong("small beside large", "zero for 1e-12 x^2", lambda x: 1e-12 * x * x, lambda g, x: 0 * x, v3)
wrong("small beside large", "1e8 x and 1e-3 x: the second twice", lambda x: np.stack([1e8 * x, 1e-3 * x]),
      lambda g, x: 1e8 * g[0] + 2e-3 * g[1], v3)
wrong("small beside large", "x^2 + 1e8, a thousandth more", lambda x: x * x + 1e8, lambda g, x: 2.002 * x * g, v3)
wrong("small beside large", "1e3 x[0] + 1e-6 x[1], the second zero", lambda x: 1e3 * x[0] + 1e-6 * x[1],
      lambda g, x: np.array([1e3 * g, 0.0]), v3[:2])
wrong("small beside large", "x^2 at 1e6, 2 left out", square, lambda g, x: x * g, 1e6 * v3)
wrong("small beside large", "log at 1e-9, 1/x doubled", np.log, lambda g, x: 2 * g / x, 1e-9 * positive)

wrong("small beside large", "sin x + 1e10, a tenth more", lambda x: np.sin(x) + 1e10,
      lambda g, x: 1.1 * g * np.cos(x), v3)
wrong("small beside large", "sin x + 1e6, a ten-thousandth more", lambda x: np.sin(x) + 1e6,
      lambda g, x: 1.0001 * g * np.cos(x), v3)
wrong("small beside large", "log at 1e-12, a thousandth more", np.log, lambda g, x: 1.001 * g / x, 1e-12 * positive)
wrong("small beside large", "x^2 at 1e12, a thousandth more", square, lambda g, x: 2.002 * x * g, 1e12 * v3)

# Right, though awkward: scales

for size in (1e-12, 1e-9, 1e-6, 1e-4, 1e-2, 1e2, 1e4, 1.1e6, 1e9, 1e12):
    right("scales of x", f"x^2 at {size:g}", square, d_square, size * v3)
    right("scales of x", f"log at {size:g}", np.log, lambda g, x: g / x, size * positive)
right("scales of x", "1/x at 1e-3", lambda x: 1 / x, lambda g, x: -g / x ** 2, 1e-3 * positive)
right("scales of x", "sqrt at 1e-8", np.sqrt, lambda g, x: g / (2 * np.sqrt(x)), 1e-8 * positive)
right("scales of x", "x[i] from 1e-6 to 1e6", lambda x: np.log(x) * x, lambda g, x: g * (1 + np.log(x)),
      10.0 ** np.arange(-6, 7, 3))

right("scales of x", "log(1 + x) at 1e-9", lambda x: np.log(1 + x), lambda g, x: g / (1 + x), 1e-9 * v3)
right("scales of x", "norm at 1e-8", np.linalg.norm, lambda g, x: g * x / np.linalg.norm(x), 1e-8 * v5)
right("scales of x", "a product of 20 numbers of 1e3", np.prod, lambda g, x: g * np.prod(x) / x,
      rng.uniform(500, 2000, 20))
right("scales of x", "a b, 1e-6 and 1e6", np.matmul, lambda g, a, b: (g @ b.T, a.T @ g), 1e-6 * m34, 1e6 * m44)

for c in (1e-300, 1e-12, 1e-7, 1e-3, 1e5, 1e12, 1e100):
    right("scales of the result", f"{c:g} sin x", lambda x, c=c: c * np.sin(x), lambda g, x, c=c: g * c * np.cos(x), v3)
right("scales of the result", "1e8 x beside 1e-8 x^2", lambda x: np.stack([1e8 * x, 1e-8 * x * x]),
      lambda g, x: 1e8 * g[0] + 2e-8 * x * g[1], v3)
right("scales of the result", "exp at 20", np.exp, lambda g, x: g * np.exp(x), 20 + v3)
right("scales of the result", "exp at -30", np.exp, lambda g, x: g * np.exp(x), v3 - 30)

right("scales of the result", "results from 1e-12 to 1e12", lambda x: SIZES * np.sin(x),
      lambda g, x: g * SIZES * np.cos(x), rng.normal(size=9))
right("scales of the result", "their sum", lambda x: (SIZES * np.sin(x)).sum(), lambda g, x: g * SIZES * np.cos(x),
      rng.normal(size=9))
right("scales of the result", "sin x[0] + 1e-9 sin x[1]", lambda x: np.sin(x[0]) + 1e-9 * np.sin(x[1]),
      lambda g, x: g * np.array([1, 1e-9]) * np.cos(x), v3[:2])

# Bending

for c in (30, 1e3, 1e5):
    right("sharp bends", f"sin {c:g} x", lambda x, c=c: np.sin(c * x), lambda g, x, c=c: g * c * np.cos(c * x), v3)
right("sharp bends", "tanh 1e4 x near 0", lambda x: np.tanh(1e4 * x), lambda g, x: g * 1e4 / np.cosh(1e4 * x) ** 2,
      1e-5 * v3)
right("sharp bends", "exp(-(1e3 x)^2)", lambda x: np.exp(-(1e3 * x) ** 2), lambda g, x: (
    g * -2e6 * x * np.exp(-(1e3 * x) ** 2)), 1e-4 * v3)
right("sharp bends", "arctan 1e6 x near 0", lambda x: np.arctan(1e6 * x), lambda g, x: g * 1e6 / (1 + 1e12 * x * x),
      1e-7 * v3)
right("sharp bends", "x^2 sin 1/x", lambda x: x * x * np.sin(1 / x), lambda g, x: (
    g * (2 * x * np.sin(1 / x) - np.cos(1 / x))), np.array([0.01, 0.003, 0.1]))
right("sharp bends", "1 / (x - 1) at 1 + 1e-6", lambda x: 1 / (x - 1), lambda g, x: -g / (x - 1) ** 2,
      1 + 1e-6 * positive)
right("sharp bends", "sqrt(x^2 + 1e-12) near 0", lambda x: np.sqrt(x * x + 1e-12), lambda g, x: (
    g * x / np.sqrt(x * x + 1e-12)), 1e-7 * v3)
right("sharp bends", "Chebyshev's polynomial of degree 20", lambda x: np.cos(20 * np.arccos(x)), lambda g, x: (
    20 * g * np.sin(20 * np.arccos(x)) / np.sqrt(1 - x * x)), np.array([0.9, 0.1, -0.99]))
right("sharp bends", "x^-12 - x^-6", lambda x: x ** -12.0 - x ** -6.0, lambda g, x: (
    g * (-12 * x ** -13.0 + 6 * x ** -7.0)), 0.3 * positive)

# Large offsets

right("offsets", "x^2 + 1e8 at 3", lambda x: x * x + 1e8, d_square, 3.0)
for c in (1e4, 1e8, 1e10):
    right("offsets", f"sin x + {c:g}", lambda x, c=c: np.sin(x) + c, lambda g, x: g * np.cos(x), v3)
right("offsets", "x^2 + 1e8 - 1e8", lambda x: (x * x + 1e8) - 1e8, d_square, 3.0 * v3)
right("offsets", "softmax of x + 1e6", lambda x: softmax(x + 1e6), softmax_back, m23)
right("offsets", "a sum of 1e6 and squares", lambda x: total(x) + 1e6, lambda g, x: 2 * x * g, v5)
right("offsets", "3 x + 1e12", lambda x: 3 * x + 1e12, lambda g, x: 3 * g, v3)
right("offsets", "x^2 + 1e12", lambda x: x * x + 1e12, d_square, v3)
right("offsets", "exp x + 1e6", lambda x: np.exp(x) + 1e6, lambda g, x: g * np.exp(x), v3)
right("offsets", "x^2 to 12 decimals", lambda x: np.round(x * x * 1e12) / 1e12, d_square, v3)
right("offsets", "variance around 1e6", np.var, lambda g, x: 2 * g * (x - x.mean()) / x.size, 1e6 + v5)
right("offsets", "log of a sum of exp at 1000", lambda x: x.max() + np.log(np.exp(x - x.max()).sum()),
      lambda g, x: g * softmax(x), 1000 + v5)
for seed in range(6):
    a, b = 1e3 * np.random.default_rng(seed).normal(size=(2, 4, 4))
    right("offsets", f"squares of large products, draw {seed}", lambda a, b: ((a @ b) ** 2).sum(),
          lambda g, a, b: (2 * g * (a @ b) @ b.T, 2 * g * a.T @ (a @ b)), a, b)

# Kinks nearby

for d in (1e-4, 2e-6, 5e-7, 1e-8):
    x = np.array([d, -d, 1.0, -2.0])
    right("kinks nearby", f"relu, {d:g} away", lambda x: np.maximum(x, 0), lambda g, x: g * (x > 0), x)
    right("kinks nearby", f"sum of |x| + 1, {d:g} away", lambda x: np.abs(x).sum() + 1, lambda g, x: g * np.sign(x), x)
right("kinks nearby", "max of near equals", lambda x: x.max(), lambda g, x: g * (x == x.max()),
      np.array([1.0, 1 + 1e-7, 0.3]))
right("kinks nearby", "x + floor x just below 2", lambda x: x + np.floor(x), lambda g, x: g * 1.0, 2 - np.array([3e-7]))
right("kinks nearby", "relu + 1e4, 1e-3 away", lambda x: np.maximum(x, 0) + 1e4, lambda g, x: g * (x > 0),
      np.array([1e-3, -1e-3, 1]))
right("kinks nearby", "relu at its kink", lambda x: np.maximum(x, 0), lambda g, x: g * (x > 0), np.array([0.0, 1, -1]))
right("kinks nearby", "sum of |x| + 5 at a kink", lambda x: np.abs(x).sum() + 5, lambda g, x: g * np.sign(x),
      np.array([0.0, 1, -1]))
right("kinks nearby", "max of equals, shared", lambda x: x.max(), lambda g, x: g * (x == x.max()) / 2,
      np.array([1.0, 1, 0.3]))
right("kinks nearby", "x |x| near 0", lambda x: x * np.abs(x), lambda g, x: 2 * g * np.abs(x),
      np.array([1e-9, -1e-7, 1]))
right("kinks nearby", "relu^2 with a 0", lambda x: np.maximum(x, 0) ** 2, lambda g, x: 2 * g * np.maximum(x, 0),
      np.array([0, 1e-7, 1]))
right("kinks nearby", "a parabola that goes on as a line",
      lambda x: np.where(np.abs(x) < 1, x * x / 2, np.abs(x) - 0.5),
      lambda g, x: g * np.clip(x, -1, 1), np.array([1 - 1e-9, 1 + 1e-9, 0.3]))
right("kinks nearby", "interpolation near a knot", lambda x: np.interp(x, np.arange(5), np.arange(5) ** 2),
      lambda g, x: g * (2 * np.floor(x) + 1), np.array([1 + 1e-8, 2 - 1e-7, 2.5]))
right("kinks nearby", "a step of 5 nearby", lambda x: x + 5 * (x > 1), lambda g, x: g * 1.0,
      1 + np.array([-1e-6, 1e-6, 1e-9]))
right("kinks nearby", "sorted near equals", np.sort, lambda g, x: g[np.argsort(np.argsort(x))],
      np.array([0.5, 0.5 + 1e-8, -1.0]))

# Edges of the domain, zeros, flats

right("edges and flats", "tanh at 15", np.tanh, lambda g, x: g / np.cosh(x) ** 2, np.array([15.0, -3.0]))
right("edges and flats", "x^3 with an element at 0", lambda x: x ** 3, lambda g, x: 3 * x * x * g, np.array([0.0, 0.5]))
right("edges and flats", "arcsin at 1 - 1e-7", np.arcsin, lambda g, x: g / np.sqrt(1 - x * x), np.array([1 - 1e-7]))
right("edges and flats", "x log x at 1e-8", lambda x: x * np.log(x), lambda g, x: g * (1 + np.log(x)), 1e-8 * positive)
right("edges and flats", "a mask of -inf", lambda x: np.where(np.eye(3, dtype=bool), -np.inf, x), lambda g, x: (
    np.where(np.eye(3, dtype=bool), 0, g)), rng.normal(size=(3, 3)))
right("edges and flats", "layer norm of a nearly equal row", normed, normed_back, 1 + 1e-3 * m34)
right("edges and flats", "layer norm of an equal row", normed, normed_back, np.stack([np.ones(4), m34[0]]))
right("edges and flats", "softmax, all but sure", softmax, softmax_back, 30 * m23)
right("edges and flats", "cross-entropy, all but sure", lambda x: -np.log(softmax(x)[0]),
      lambda g, x: g * (softmax(x) - np.eye(4)[0]), np.array([25.0, 0, -1, 1]))
right("edges and flats", "sigmoid at 30", sigmoid, lambda g, x: g * sigmoid(x) * sigmoid(-x), np.array([30.0, -30, 1]))
right("edges and flats", "the tail of exp(-x^2/2)", lambda x: np.exp(-x * x / 2), lambda g, x: (
    -g * x * np.exp(-x * x / 2)), np.array([12.0]))
right("edges and flats", "arctanh at 1 - 1e-9", np.arctanh, lambda g, x: g / (1 - x * x), np.array([1 - 1e-9, -0.5]))
right("edges and flats", "log(-log x) at 1 - 1e-6", lambda x: np.log(-np.log(x)), lambda g, x: g / (x * np.log(x)),
      np.array([1 - 1e-6, 0.3]))
right("edges and flats", "an error below 0", lambda x: np.log(x[np.flatnonzero(x > 0)].reshape(x.shape)),
      lambda g, x: g / x, 1e-8 * positive)
right("edges and flats", "fewer results beyond 0", lambda x: x[x > 0] ** 2, lambda g, x: (
    np.where(x > 0, 2 * x, 0) * np.array([g[0], 0, g[1]])), np.array([1e-7, -1, 2]))
right("edges and flats", "a number without axes", np.exp, lambda g, x: g * np.exp(x), 0.3)
right("edges and flats", "Hilbert's matrix, solved", lambda b: np.linalg.solve(HILBERT, b),
      lambda g, b: np.linalg.solve(HILBERT, g), rng.normal(size=6))
right("edges and flats", "half of the elements have no effect", lambda x: x[::2] ** 2, lambda g, x: (
    np.stack([2 * x[::2] * g, 0 * g], 1).ravel()), rng.normal(size=8))


def ours(case):
    """The verdict of gradcheck, or the name of the error that it raises."""
    value, vjp = case.make()

    def f(*operands):
        arrays = [t.data for t in operands]

        def part(i):
            def back(g):
                d = vjp(g, *arrays)
                return d[i] if isinstance(d, tuple) else d
            return back
        return node("case", value(*arrays), *((t, part(i)) for i, t in enumerate(operands)))

    try:
        with np.errstate(all="ignore"):
            report = gradcheck(f, *case.arrays, quiet=True)
    except Exception as error:
        return type(error).__name__
    verdicts = {row.verdict for row in report.rows}
    return next(v for v in ("wrong", "vacuous", "ok") if v in verdicts)


def theirs(case):
    """The verdict of PyTorch's gradcheck with its default settings, or the name of the error that it raises."""
    import torch

    value, vjp = case.make()

    class Planted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *operands):
            ctx.arrays = [t.detach().numpy().copy() for t in operands]
            return torch.from_numpy(np.array(value(*ctx.arrays)))

        @staticmethod
        def backward(ctx, g):
            d = vjp(g.numpy(), *ctx.arrays)
            return tuple(torch.from_numpy(np.array(part)) for part in (d if isinstance(d, tuple) else (d,)))

    operands = [torch.from_numpy(a.copy()).requires_grad_() for a in case.arrays]
    try:
        with np.errstate(all="ignore"):
            return "ok" if torch.autograd.gradcheck(Planted.apply, operands, raise_exception=False) else "wrong"
    except Exception as error:
        return type(error).__name__


def main():
    judges = {"lora_np": ours} | ({"PyTorch": theirs} if importlib.util.find_spec("torch") else {})
    counts, n = Counter(), Counter((case.right, case.kind) for case in CASES)
    for case in CASES:
        verdicts = {name: judge(case) for name, judge in judges.items()}
        counts.update((name, case.right, case.kind) for name, v in verdicts.items() if (v == "ok") == case.right)
        if "--all" in sys.argv:
            shown = ", ".join(f"{name}: {v}" for name, v in verdicts.items())
            print(f"{'right' if case.right else 'wrong'}, {case.kind}: {case.name}: {shown}")
    print(f"| | cases | {' | '.join(judges)} |\n|---|---|{'---|' * len(judges)}")
    for right, kind in n:
        print(f"| {'right: ' if right else 'wrong: '}{kind} | {n[right, kind]} | "
              + " | ".join(str(counts[name, right, kind]) for name in judges) + " |")
    for right in (False, True):
        total = sum(m for key, m in n.items() if key[0] == right)
        print(f"| all {'right' if right else 'wrong'} | {total} | " + " | ".join(
            str(sum(m for key, m in counts.items() if key[:2] == (name, right))) for name in judges) + " |")


if __name__ == "__main__":
    main()
