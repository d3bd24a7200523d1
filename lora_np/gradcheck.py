"""gradcheck: every gradient of the engine against the slope that central differences measure.

    dL/dx[i]  is about  (L(x + h at i) - L(x - h at i)) / (2 h),        L = sum(seed * f(x))

The seed is random: under a seed of ones, softmax(x) sums to 1 whatever x is, its gradient is zero, and
a backward that returns zeros would pass. float64 only: in float32 rounding alone is larger than most bugs.
"""

import inspect
from dataclasses import dataclass

import numpy as np

from .graph import backpropagate, no_grad
from .nn import Module
from .support.checks import check_int, expect
from .tensor import Tensor

STEP, RTOL, ATOL = 1e-6, 1e-5, 1e-7


@dataclass
class Row:
    """One input: its worst element, the two values there, and the verdict.

    verdict: "ok", "wrong", "vacuous" (both sides are zero everywhere, which proves nothing) or "frozen".
    """

    name: str
    shape: tuple
    verdict: str
    index: tuple | None = None
    analytic: float = 0.0
    numeric: float = 0.0
    checked: int = 0
    note: str = ""

    @property
    def error(self):
        """|analytic - numeric|, relative to the larger of the two."""
        size = max(abs(self.analytic), abs(self.numeric))
        return abs(self.analytic - self.numeric) / size if size else 0.0


class Report:
    """What a gradient check found: rows, and as text a table of them. True in a condition if all is ok."""

    def __init__(self, rows):
        self.rows = rows

    @property
    def ok(self):
        """Every input that takes a gradient was checked and agreed; vacuous is not ok."""
        verdicts = {row.verdict for row in self.rows} - {"frozen"}
        return verdicts == {"ok"}

    __bool__ = ok.fget

    def __str__(self):
        table = [("input", "shape", "worst index", "analytic", "numeric", "rel. error", "verdict")]
        for row in self.rows:
            numbers = ["", "", "", ""]
            if row.index is not None:
                numbers = [str(list(row.index)), f"{row.analytic:.8g}", f"{row.numeric:.8g}", f"{row.error:.1e}"]
            verdict = row.verdict + (f": {row.note}" if row.note else "")
            table.append((row.name, str(row.shape), *numbers, verdict))
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(cell.rjust(w) if 3 <= i <= 5 else cell.ljust(w)
                           for i, (cell, w) in enumerate(zip(line, widths, strict=True))).rstrip() for line in table]
        counts = [f"{n} {v}" for v in ("ok", "wrong", "vacuous", "frozen")
                  if (n := sum(row.verdict == v for row in self.rows))]
        return "\n".join([*lines, f"{', '.join(counts)}; {sum(row.checked for row in self.rows):,} elements checked"])


def gradcheck(f, *arrays, seed=0, quiet=False):
    """Check the gradient of f in every element of every array. Prints a table; returns a Report.

    f: takes one Tensor for each array and returns a Tensor of any shape. arrays: float64, of any shape.
    seed: chooses the random dL/df. Stay a step of 1e-6 away from kinks, such as relu at 0.
    Raises TypeError where an array or the result is not float64, ValueError where f is not
    deterministic or got no arrays.
    """
    _require_function("gradcheck", f)
    if not arrays:
        raise ValueError("gradcheck: got a function and nothing to check; pass the arrays it takes: gradcheck(f, x, w)")
    arrays = [a.data if isinstance(a, Tensor) else np.asarray(a) for a in arrays]
    leaves = dict(zip(_names(f, len(arrays)), arrays, strict=True))
    for name, a in leaves.items():
        _require_float64("gradcheck", name, a)
    leaves = {name: Tensor(a, requires_grad=True, name=name) for name, a in leaves.items()}
    return _report(leaves, lambda: f(*leaves.values()), seed, None, quiet)


def gradcheck_model(model, loss, sample=20, seed=0, quiet=False):
    """Check the gradient of a loss in a model's parameters; frozen ones are listed as such.

    loss: takes the model and returns a Tensor, as in lambda m: next_token_loss(m, x, y). sample: how many
    elements of each parameter, drawn at random beside the one with the largest gradient; None for all.
    The model, its gradients included, is left as it was. Raises as gradcheck does.
    """
    expect("gradcheck_model", model, Module)
    _require_function("gradcheck_model", loss)
    if sample is not None:
        check_int("gradcheck_model", sample=sample)
    leaves = dict(model.named_parameters())
    for name, t in leaves.items():
        _require_float64("gradcheck_model", name, t)
    if not any(t.requires_grad for t in leaves.values()):
        raise ValueError("gradcheck_model: every parameter is frozen, so there is nothing to check; "
                         "add_lora(model, LoraConfig()) adds trainable ones")
    return _report(leaves, lambda: loss(model), seed, sample, quiet)


def _names(f, n):
    """The names of f's parameters where it has n of them, else input 0, input 1, …"""
    try:
        names = list(inspect.signature(f).parameters)
    except (TypeError, ValueError):
        names = []
    return names if len(names) == n else [f"input {i}" for i in range(n)]


def _require_function(who, f):
    if not callable(f):
        raise TypeError(f"{who}: expected a function that returns a Tensor, got {type(f).__name__}")


def _require_float64(who, name, value):
    if value.dtype != np.float64:
        raise TypeError(f"{who}: {name} is {value.dtype}; differences need float64, as rounding would drown them. Give "
                        "float64 arrays: np.array(a, dtype=float), or GPTConfig(dtype=np.float64)")


def _report(leaves, forward, seed, sample, quiet):
    """Compare both gradients of sum(g * forward()) in the leaves {name: Tensor}, for a random g."""
    rng = np.random.default_rng(seed)
    y = forward()
    if not isinstance(y, Tensor):
        raise TypeError(f"gradcheck: the function must return a Tensor, got {type(y).__name__}")
    _require_float64("gradcheck", "the result", y)
    with no_grad():
        if not np.array_equal(forward().data, y.data, equal_nan=True):
            raise ValueError("gradcheck: the same input gave two different results; is dropout active? "
                             "Use model.eval()")
    # No |g| near 0, where it would hide an error, and none near 1, where ignoring g would go unseen.
    g = rng.choice([-1.0, 1.0], y.shape) * rng.uniform(1.5, 2.5, y.shape)
    analytic = backpropagate(y._node or y, np.array(g)) if y.requires_grad else {}
    rows = []
    for name, t in leaves.items():
        if not t.requires_grad:
            rows.append(Row(name, t.shape, "frozen", note="no gradient"))
            continue
        a = analytic.get(t, np.zeros(t.shape)).ravel()
        chosen = np.arange(t.size)
        if sample is not None and sample < t.size:
            chosen = np.union1d(np.abs(a).argmax(), rng.choice(t.size, sample, replace=False))
        n = np.array([_slope(forward, t, i, g) for i in chosen])
        rows.append(_compare(name, t.shape, chosen, a[chosen], n, np.abs(g * y.data).max(initial=0)))
    report = Report(rows)
    if not quiet:
        print(report)
    return report


def _slope(forward, t, i, g):
    """The central difference of sum(g * forward()) in element i of t, which is as before afterwards."""
    before, results = t.data, []
    at = np.unravel_index(i, t.shape)
    try:
        for step in (STEP, -STEP):
            moved = before.copy()
            moved[at] += step
            t.replace_array(moved)
            with no_grad():
                results.append((moved[at], forward().data))
    finally:
        t.replace_array(before)
    (x1, y1), (x2, y2) = results
    return np.sum(g * (y1 - y2)) / (x1 - x2)  # differences first: what did not change then adds no rounding


def _compare(name, shape, chosen, a, n, output):
    """The Row of one input: analytic a against numeric n at the chosen flat indices.

    atol is meant for numbers of about 1. Where the output and the gradient are both smaller it shrinks
    with them, so that zero is no good gradient of 1e-7 x^2.
    """
    atol = ATOL * min(1, np.abs(n).max(initial=output))
    with np.errstate(invalid="ignore"):
        excess = np.abs(a - n) / (atol + RTOL * np.abs(n) + np.finfo(float).tiny)
    if np.all(np.abs(a) <= atol) and np.all(np.abs(n) <= atol):
        return Row(name, shape, "vacuous", checked=len(a), note="both zero, proves nothing")
    worst = int(excess.argmax())  # nan counts as the largest
    index = tuple(int(i) for i in np.unravel_index(chosen[worst], shape))
    ok = excess[worst] <= 1
    note = "" if ok else _likeness(a, n, shape)
    return Row(name, shape, "ok" if ok else "wrong", index, float(a[worst]), float(n[worst]), len(a), note)


def _likeness(a, n, shape):
    """What a wrong gradient looks like, where it is one of a few things; else nothing."""

    def near(b):
        return np.allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(n).max())

    if not np.any(a):
        return "analytic is zero"
    if near(-n):
        return "sign"
    if len(shape) == 2 and shape[0] == shape[1] and a.size == shape[0] ** 2 and near(n.reshape(shape).T.ravel()):
        return "transposed"
    factor = a @ n / (n @ n) if np.any(n) else 0
    return f"{factor:.4g} times what it should be" if factor and near(factor * n) else ""
