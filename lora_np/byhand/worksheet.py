"""The numbers of a LoRA layer small enough for paper, got in three ways: by formula, by slope, by the engine.

    h = W0 x + s B A x      s = alpha / r      L = 1/2 |h - y|^2      W0: (d, k), A: (r, k), B: (d, r)

handout.py writes them out; mistakes.py computes what they would be if something were done wrong.
"""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np

from ..lora import LoraConfig, LoraLinear
from ..nn import Linear
from ..tensor import Tensor

FORMULAS = {  # a LoRA layer line by line, for n inputs in columns; there is no line for dW0
    "s": lambda q: q.alpha / q.r,
    "W0x": lambda q: q.W0 @ q.x,                           # (d, n)
    "u": lambda q: q.A @ q.x,                              # (r, n)
    "v": lambda q: q.B @ q.u,                              # (d, n)
    "h": lambda q: q.W0x + q.s * q.v,                      # (d, n)
    "e": lambda q: q.h - q.y,                              # (d, n)
    "L": lambda q: (q.e ** 2).sum() / 2,
    "dh": lambda q: q.e,                                   # (d, n)
    "dv": lambda q: q.s * q.dh,                            # (d, n)
    "dB": lambda q: q.dv @ q.u.T,                          # (d, r)
    "du": lambda q: q.B.T @ q.dv,                          # (r, n)
    "dA": lambda q: q.du @ q.x.T,                          # (r, k)
    "dx": lambda q: q.W0.T @ q.dh + q.A.T @ q.du,          # (k, n): through W0, although it is frozen, and through A
    "W'": lambda q: q.W0 + q.s * q.B @ q.A,                # (d, k): merged
}


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


def worked_example():
    """The sheet of the README: r = 1, alpha = 2."""
    return Sheet("the worked example", "", np.array([2.0, 3.0]), np.array([3.0, 5.0]),
                 np.array([[-2.0, -1.0], [1.0, -1.0]]), np.array([[3.0, -1.0]]), np.array([[2.0], [0.5]]), 2.0)


def at_start(sheet):
    """The same sheet as LoRA starts: B = 0."""
    return replace(sheet, title=f"{sheet.title}, at the start (B = 0)", options=f"{sheet.options} --init".strip(),
                   B=np.zeros_like(sheet.B))


def random_sheet(rng, title, options, rank):
    """A 2 x 2 sheet: small integers and halves, no zero among what is given, s never 1.

    The error e is drawn, and y is set to match it: so the error and the gradients stay small.
    """
    def integers(*shape):
        return rng.integers(1, 4, shape) * rng.choice([-1.0, 1.0], shape)
    x = rng.permutation([1.0, 2.0, 3.0])[:2] * rng.choice([-1.0, 1.0], 2)
    B = rng.integers(1, 4, (2, rank)) * rng.choice([-0.5, 0.5], (2, rank))
    alpha = float(rng.choice([2, 3, 4] if rank == 1 else [3, 4, 6]))
    e = rng.permutation([1.0, 2.0, 3.0, 4.0])[:2] * rng.choice([-1.0, 1.0], 2)
    sheet = Sheet(title, options, x, np.zeros(2), integers(2, 2), integers(rank, 2), B, alpha)
    return replace(sheet, y=by_hand(sheet)["h"] - e)


def work(formulas, x, y, W0, A, B, alpha):
    """{line: value} of every formula, each from what stands above it. x: (k, n), y: (d, n)."""
    q = SimpleNamespace(x=x, y=y, W0=W0, A=A, B=B, alpha=alpha, r=len(A))
    for name, formula in formulas.items():
        setattr(q, name, formula(q))
    return {name: getattr(q, name) for name in formulas}


def by_hand(sheet, wrong=()):
    """Every line of the sheet in plain NumPy: {line: value}. wrong: {line: formula} in the place of the right ones."""
    values = work(FORMULAS | dict(wrong), sheet.x[:, None], sheet.y[:, None], sheet.W0, sheet.A, sheet.B, sheet.alpha)
    return {name: value if name in ("s", "L", "dB", "dA", "W'") else value[:, 0] for name, value in values.items()}


def by_slope(sheet):
    """{name: (L at +1, L at -1)} for A, B and x, each an array of that shape: half the difference is the slope.

    A central difference is exact for a quadratic, whatever the step; L is quadratic in each single entry.
    """
    def moved(name, i, step):
        array = getattr(sheet, name).copy()
        array.flat[i] += step
        return by_hand(replace(sheet, **{name: array}))["L"]

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
