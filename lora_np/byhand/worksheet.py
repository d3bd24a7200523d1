"""The numbers of a LoRA layer small enough for paper, got in three ways: by formula, by slope, by the engine.

    h = W0 x + s B A x      s = alpha / r      L = 1/2 |h - y|^2      W0: (d, k), A: (r, k), B: (d, r)

byhand.py writes them out; mistakes.py computes what they would be if something were done wrong.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..lora import LoraConfig, LoraLinear
from ..nn import Linear
from ..tensor import Tensor


@dataclass(frozen=True)
class Sheet:
    """What is given: x (k,), y (d,), W0 (d, k), A (r, k), B (d, r), alpha; and how to ask for this sheet again."""

    title: str
    options: str
    x: np.ndarray
    y: np.ndarray
    W0: np.ndarray
    A: np.ndarray
    B: np.ndarray
    alpha: float

    @property
    def r(self):
        return len(self.A)

    @property
    def s(self):
        return self.alpha / self.r


def worked_example():
    """The sheet of the README: r = 1, alpha = 2."""
    return Sheet("the worked example", "", np.array([2.0, 3.0]), np.array([3.0, 5.0]),
                 np.array([[-2.0, -1.0], [1.0, -1.0]]), np.array([[3.0, -1.0]]), np.array([[2.0], [0.5]]), 2.0)


def at_start(sheet):
    """The same sheet as LoRA starts: B = 0."""
    return replace(sheet, title=f"{sheet.title}, at the start (B = 0)", options=f"{sheet.options} --init".strip(),
                   B=np.zeros_like(sheet.B))


def random_sheet(rng, title, options, rank):
    """A 2 x 2 sheet: small whole numbers and halves, no zero among what is given, s never 1.

    The error e is drawn, and y is set to match it: so the error and the gradients stay small.
    """
    def whole(*shape):
        return rng.integers(1, 4, shape) * rng.choice([-1.0, 1.0], shape)
    x = rng.permutation([1.0, 2.0, 3.0])[:2] * rng.choice([-1.0, 1.0], 2)
    B = rng.integers(1, 4, (2, rank)) * rng.choice([-0.5, 0.5], (2, rank))
    alpha = float(rng.choice([2, 3, 4] if rank == 1 else [3, 4, 6]))
    e = rng.permutation([1.0, 2.0, 3.0, 4.0])[:2] * rng.choice([-1.0, 1.0], 2)
    sheet = Sheet(title, options, x, np.zeros(2), whole(2, 2), whole(rank, 2), B, alpha)
    return replace(sheet, y=forward(sheet)["h"] - e)


def forward(sheet, s=None):
    """The forward pass, one formula a line: {name: array}. s: another scale than alpha / r."""
    s = sheet.s if s is None else s
    W0x = sheet.W0 @ sheet.x               # (d,)
    u = sheet.A @ sheet.x                  # (r,)
    v = sheet.B @ u                        # (d,)
    h = W0x + s * v                        # (d,)
    e = h - sheet.y                        # (d,)
    L = e @ e / 2
    return {"s": s, "W0x": W0x, "u": u, "v": v, "h": h, "e": e, "L": L}


def backward(sheet, u, dh, s=None):
    """The backward pass from dh = dL/dh, one formula a line: {name: array}. There is no line for dW0."""
    s = sheet.s if s is None else s
    dv = s * dh                                   # (d,)
    dB = np.outer(dv, u)                          # (d, r)
    du = sheet.B.T @ dv                           # (r,)
    dA = np.outer(du, sheet.x)                    # (r, k)
    dx = sheet.W0.T @ dh + sheet.A.T @ du         # (k,): through W0, although it is frozen, and through A
    return {"dh": dh, "dv": dv, "dB": dB, "du": du, "dA": dA, "dx": dx}


def by_hand(sheet, s=None):
    """Every line of the sheet from its formula, in plain NumPy; W' is the merged weight. s as in forward."""
    f = forward(sheet, s)
    return {**f, **backward(sheet, f["u"], f["e"], s), "W'": sheet.W0 + f["s"] * sheet.B @ sheet.A}


def by_slope(sheet):
    """{name: (L at +1, L at -1)} for A, B and x, each an array of that shape: half the difference is the slope.

    A central difference is exact for a quadratic, whatever the step; L is quadratic in each single entry.
    """
    def moved(name, i, step):
        array = getattr(sheet, name).copy()
        array.flat[i] += step
        return forward(replace(sheet, **{name: array}))["L"]

    def both(name):
        array = getattr(sheet, name)
        return tuple(np.reshape([moved(name, i, step) for i in range(array.size)], array.shape) for step in (1, -1))
    return {name: both(name) for name in ("A", "B", "x")}


def by_engine(sheet):
    """The same layer run as a LoraLinear: {"h": …, "L": …, "dA": …, "dB": …, "dx": …, "dW0": None}."""
    d, k = sheet.W0.shape
    layer = LoraLinear(Linear(k, d, bias=False), LoraConfig(r=sheet.r, lora_alpha=sheet.alpha))
    layer.weight.data, layer.lora_A.data, layer.lora_B.data = sheet.W0, sheet.A, sheet.B
    x = Tensor(sheet.x, requires_grad=True)
    h = layer(x)
    loss = ((h - sheet.y) ** 2).sum() * 0.5
    loss.backward()
    return {"h": h.data, "L": loss.item(), "dA": layer.lora_A.grad, "dB": layer.lora_B.grad, "dx": x.grad,
            "dW0": layer.weight.grad}


def number(value):
    """A number as one writes it: no trailing zeros, no minus before zero."""
    text = f"{value:.8f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def matrix(value):
    """A number, a vector [5 2] or a matrix with its rows parted by semicolons [12; -18]."""
    value = np.asarray(value)
    if not value.ndim:
        return number(value)
    return "[" + "; ".join(" ".join(map(number, row)) for row in np.atleast_2d(value)) + "]"
