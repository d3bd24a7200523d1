"""gradcheck: every gradient of the engine against the slope that central differences measure.

    dL/dx[i]  is about  (L(x + h at i) - L(x - h at i)) / (2 h),        L = sum(g * f(x))

g, the upstream gradient dL/df, is random: under a g of ones softmax(x) sums to 1 whatever x is, its gradient is zero,
and a backward that returns zeros would pass. Several g are tried, so that every output meets both signs. float64 only:
in float32 rounding alone is larger than most bugs.
"""

import inspect
from collections import Counter
from dataclasses import dataclass

import numpy as np

from .nn import Module
from .support.checks import as_array, check_int, expect
from .support.slopes import Slopes, analytic_gradients, excess, upstream_gradients
from .tensor import Tensor


def _compare(name, t, analytic, slopes, chosen):
    """The Row of a leaf t: the engine's gradients a beside measured slopes n, in each chosen t.flat[i].

    analytic: dL/dt for each g, flat. Wrong is what differs by more than 1e-5 and than n may be off by.
    """
    a = analytic[:, chosen].T  # (chosen, gradients)
    n, error = slopes.beside(a, chosen)
    off, told = excess(a, n, error), np.abs(n) > 30 * error
    if np.all(off <= 1) and not np.any(told):
        zero = np.all(np.maximum(np.abs(a), np.abs(n)) <= 1e-8 * np.abs(slopes.G).max(1, initial=0))
        return Row(name, t.shape, "vacuous", checked=len(chosen), note="both zero, proves nothing" if zero else
                   "a kink or rounding hides the slope")
    wrong = np.any(off > 1)
    k, j = np.unravel_index(np.argmax(off.T > 1 if wrong else np.where(told, excess(a, n, 0), -1).T), a.T.shape)
    at = tuple(int(i) for i in np.unravel_index(chosen[j], t.shape))
    return Row(name, t.shape, "wrong" if wrong else "ok", at, float(a[j, k]), float(n[j, k]), len(chosen),
               _likeness(a[:, k], n[:, k], j, t.shape, slopes) if wrong else "")


def gradcheck(f, *arrays, seed=0, quiet=False):
    """Check the gradient of f in every element of every array. Prints a table; returns a Report.

    f: takes one Tensor for each array and returns a Tensor of any shape. arrays: float64, of any shape. seed: chooses
    the random dL/df. At a kink, such as relu at 0, any slope from that on the left to that on the right is right.
    Raises TypeError where an array or the result is not float64, ValueError where f is not deterministic or got no
    arrays, or an array holds a nan or an infinity.
    """
    _check_function("gradcheck", f)
    if not arrays:
        raise ValueError("gradcheck: got a function and nothing to check; pass the arrays it takes: gradcheck(f, x, w)")
    arrays = [a.data if isinstance(a, Tensor) else as_array("gradcheck", a, copy=None) for a in arrays]
    leaves = dict(zip(_names(f, len(arrays)), arrays, strict=True))
    for name, a in leaves.items():
        _check_numbers("gradcheck", name, a)
    leaves = {name: Tensor(a, requires_grad=True, name=name) for name, a in leaves.items()}
    return _report(leaves, lambda: f(*leaves.values()), seed, None, quiet)


def gradcheck_model(model, loss, sample=20, seed=0, quiet=False):
    """Check the gradient of a loss in a model's parameters; frozen ones are listed as such.

    loss: takes the model and returns a Tensor, as in lambda m: next_token_loss(m, x, y). sample: how many elements of
    each parameter, drawn at random beside the one with the largest gradient; one step in all elements covers the rest.
    None: every element by itself. The model, its gradients included, is left as it was. Raises as gradcheck does.
    """
    expect("gradcheck_model", model, Module)
    _check_function("gradcheck_model", loss)
    if sample is not None:
        check_int("gradcheck_model", sample=sample)
    leaves = dict(model.named_parameters())
    for name, t in leaves.items():
        _check_numbers("gradcheck_model", name, t.data)
    if not any(t.requires_grad for t in leaves.values()):
        raise ValueError("gradcheck_model: every parameter is frozen, so there is nothing to check; "
                         "add_lora(model, LoraConfig()) adds trainable ones")
    return _report(leaves, lambda: loss(model), seed, sample, quiet)


def _report(leaves, forward, seed, sample, quiet):
    """Compare both gradients of L = sum(g * forward()) in the leaves {name: Tensor}, for each of several g."""
    rng, y, later = np.random.default_rng(seed), _check_result(forward()), forward()
    if not np.array_equal(later.data, y.data, equal_nan=True):
        raise ValueError("gradcheck: the same input gave two different results; is dropout active? Use model.eval()")
    G = upstream_gradients(rng, y.data)
    analytic = analytic_gradients(y, G, leaves)
    rows = [_check(name, t, analytic[name], Slopes(forward, t, y.data, G), sample, rng) for name, t in leaves.items()]
    again = analytic_gradients(later, G, leaves)  # of a graph that is older than all those calls
    for row in rows:
        _compare_calls(row, analytic[row.name], again[row.name])
    report = Report(rows)
    if not quiet:
        print(report)
    return report


def _check(name, t, analytic, slopes, sample, rng):
    """The Row of a leaf: of each element, or of a sample and a step in all elements at once."""
    everything = np.arange(t.size)
    if not t.requires_grad:
        return Row(name, t.shape, "frozen", note="no gradient")
    if sample is None or sample >= t.size:
        return _compare(name, t, analytic, slopes, everything)
    some = np.union1d(np.abs(analytic[0]).argmax(), rng.choice(t.size, sample, replace=False))
    row, v = _compare(name, t, analytic, slopes, some), rng.choice([-1.0, 1.0], t.size) * rng.uniform(0.5, 1, t.size)
    found = None if row.verdict == "wrong" else _search(analytic, slopes, everything, v)
    return row if found is None else _compare(name, t, analytic, slopes, found)


def _search(analytic, slopes, at, v):
    """[i] of an element whose gradient is wrong, or None where the step v in all elements finds nothing amiss."""
    a = analytic @ v
    if excess(a, slopes.central(at, v)[0], 0).max() <= 1 or excess(a, *slopes.closer(at, v)).max() <= 1:
        return None
    while at.size > 1:  # the half in which more is amiss
        halves = zip(np.array_split(at, 2), np.array_split(v, 2), strict=True)
        at, v = max(halves, key=lambda half: np.abs(analytic[:, half[0]] @ half[1] - slopes.central(*half)[0]).max())
    return at


def _compare_calls(row, first, again):
    """A gradient that differs from call to call is wrong, whatever the slope is."""
    with np.errstate(invalid="ignore"):
        gap = np.abs(first - again) - 1e-9 * np.fmax.reduce(np.abs(first), axis=1, initial=0)[:, None]
    if row.verdict in ("ok", "vacuous") and np.any(gap > 0):
        k, i = np.unravel_index(gap.argmax(), gap.shape)
        row.verdict, row.index = "wrong", tuple(int(axis) for axis in np.unravel_index(i, row.shape))
        row.analytic, row.numeric, row.note = float(first[k, i]), float(again[k, i]), "the same call gave both of these"


def _likeness(a, n, j, shape, slopes):
    """What a gradient that is wrong in element j looks like, where it is one of a few things; else nothing."""

    def near(b):
        return np.allclose(a, b, rtol=1e-4, atol=1e-6 * np.abs(n).max())

    if np.isnan(slopes.y).any():
        return f"the result is nan at {np.argwhere(np.isnan(slopes.y.reshape(slopes.shape)))[0].tolist()}"
    if not np.isfinite(a[j]):
        return f"analytic is {a[j]} in {np.sum(~np.isfinite(a))} of {a.size} elements"
    if np.isnan(n[j]):
        return f"no slope can be measured here; {slopes.failure or 'a step away the result is nan'}"
    if not np.any(a):
        return "analytic is zero"
    if near(-n):
        return "sign"
    if len(shape) == 2 and shape[0] == shape[1] and a.size == shape[0] ** 2 and near(n.reshape(shape).T.ravel()):
        return "transposed"
    factor = f"{a @ n / (n @ n) if np.any(n) else 0:.4g}"
    return f"{factor} times what it should be" if factor not in ("0", "1") and near(float(factor) * n) else ""


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
        return "\n".join([*lines, self._summary()])

    def __repr__(self):
        return f"<Report: {self._summary()}>"  # what a notebook shows below the table that was printed

    def _summary(self):
        counts = Counter(row.verdict for row in self.rows)
        verdicts = ", ".join(f"{counts[v]} {v}" for v in ("ok", "wrong", "vacuous", "frozen") if counts[v])
        return f"{verdicts}; {sum(row.checked for row in self.rows):,} elements checked"


def _names(f, n):
    """The names of f's parameters where it has n of them, else input 0, input 1, …"""
    try:
        names = list(inspect.signature(f).parameters)
    except (TypeError, ValueError):
        names = []
    return names if len(names) == n else [f"input {i}" for i in range(n)]


def _check_function(who, f):
    if not callable(f):
        raise TypeError(f"{who}: expected a function that returns a Tensor, got {type(f).__name__}")


def _check_float64(who, name, value):
    if value.dtype.newbyteorder("=") != np.float64:
        raise TypeError(f"{who}: {name} is {value.dtype}; differences need float64, as rounding would drown them. Give "
                        "float64 arrays: np.array(a, dtype=float), or GPTConfig(dtype=np.float64)")


def _check_numbers(who, name, value):
    _check_float64(who, name, value)
    for at in np.argwhere(~np.isfinite(value))[:1]:
        raise ValueError(f"{who}: {name} is {value[tuple(at)]} at {at.tolist()}, where no slope can be measured")


def _check_result(y):
    if not isinstance(y, Tensor):
        raise TypeError(f"gradcheck: the function must return a Tensor, got {type(y).__name__}")
    _check_float64("gradcheck", "the result", y)
    return y
