"""Whether two answers are equal, and the first thing in which they differ: the type, the shape, or the numbers.

Every function here takes answers of any type.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from lora_np import Tensor

from .describe import ATOL, NUMBER, RTOL, entries, number, numeric, plain, sharp, show
from .transport import Other


@dataclass(frozen=True)
class Measured:
    """A property with its number: it holds from low to high. words: what is expected, "near 0"."""

    value: float
    low: float
    high: float
    words: str

    @property
    def holds(self):
        return bool(self.low <= self.value <= self.high)


def named(want, names):
    """[(name, part)] of an answer: names is one name, or a tuple of them for a tuple of values."""
    return [(names, want)] if isinstance(names, str) else list(zip(names, want, strict=True))


def difference(got, want, names="the result", exact=False):
    """(kind, sentence) about the first difference, or None. kind: "type", "shape" or "value"."""
    if not isinstance(names, str):
        return _parts(got, want, names, exact)
    if isinstance(plain(want), NUMBER) and not isinstance(plain(want), bool):
        if numeric(got) is None:
            return "type", f"{names} is {show(got)}, expected a number{_advice(got, want)}"
        return None if _close(got, want, exact) else ("value", _scalar(numeric(got), numeric(want), names))
    if isinstance(want, np.ndarray) and want.ndim:
        return _array(got, want, names, exact)
    if isinstance(want, dict):
        return _dict(got, want, names, exact)
    if isinstance(want, (list, tuple)):
        return _sequence(got, want, names, exact)
    if isinstance(got, Tensor) and isinstance(want, Tensor):
        return difference(got.data, want.data, names, exact)
    got, want = plain(got), plain(want)
    alike = type(got) is type(want)
    if alike and bool(got == want):
        return None
    return "value" if alike else "type", f"{names} is {show(got)}, expected {show(want)}"


def _parts(got, want, names, exact):
    """The first difference of a tuple of values that have names of their own."""
    if not isinstance(got, (tuple, list)) or len(got) != len(names):
        return "type", f"it returned {show(got)}, expected {len(names)} values: {', '.join(names)}"
    order = _exchanged(got, want, names, exact)
    if order:
        return "value", f"the results are in another order: {', '.join(order)}, expected {', '.join(names)}"
    # All types and shapes first: a wrong shape says more than a wrong number before it.
    found = [difference(part, right, name, exact) for part, (name, right) in zip(got, named(want, names), strict=True)]
    found = [d for d in found if d]
    return next((d for d in found if d[0] != "value"), found[0] if found else None)


def _exchanged(got, want, names, exact):
    """The names of the parts of an answer that is right in another order alone; None for any other."""
    fits = [[difference(part, right, exact=exact) is None for right in want] for part in got]
    orders = [order for order in permutations(range(len(want))) if all(fits[i][j] for i, j in enumerate(order))]
    return [names[i] for i in orders[0]] if orders and orders[0] != tuple(range(len(want))) else None


def same(a, b, exact=False):
    """Whether two answers are equal, as far as a check looks."""
    if isinstance(a, Measured) and isinstance(b, Measured):
        return a.holds == b.holds
    a, b = plain(a), plain(b)
    if isinstance(a, Other) or isinstance(b, Other):
        return type(a) is type(b) and a == b
    if isinstance(a, (list, tuple, dict)) and (type(a) is not type(b) or len(a) != len(b)):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key], exact) for key in a)
    if isinstance(a, (list, tuple)):
        return all(same(p, q, exact) for p, q in zip(a, b, strict=True))
    return difference(a, b, exact=exact) is None


def signature(value):
    """The types and shapes of a value."""
    if isinstance(value, (tuple, list)):
        return [signature(v) for v in value]
    return value.shape if isinstance(value, np.ndarray) else type(value).__name__


def properties(got, want):
    """A sentence about the first property {name: value} that differs, or None."""
    for name, right in want.items():
        value = got[name]
        if isinstance(right, Measured):
            if not value.holds:
                return f"{name} is {number(float(value.value))}, expected {right.words}"
        elif isinstance(right, bool):
            if value != right:
                return f"{name}: this should hold, and does not" if right else f"{name}: this should not be so, and is"
        elif found := difference(value, right, name):
            return found[1]
    return None


def _right(got, want, exact):
    """Where two arrays of one shape agree: to 6 digits, or to what float32 holds where one of them is float32."""
    if exact or (got.dtype.kind in "iu" and want.dtype.kind in "iu"):
        return got == want
    if np.float32 in (got.dtype, want.dtype):
        finite = np.abs(want[np.isfinite(want)])
        return np.isclose(got, want, rtol=1e-4, atol=1e-5 * finite.max(initial=ATOL), equal_nan=True)
    return np.isclose(got, want, rtol=RTOL, atol=ATOL, equal_nan=True)


def _close(got, want, exact):
    return bool(_right(np.asarray(got), np.asarray(want), exact))


def _scalar(got, want, name):
    return f"{name} is {number(got)}, expected {number(want)}"


def _advice(got, want):
    """How to make the right type of what is there."""
    if isinstance(got, Tensor):
        return "; t.data is its array" if isinstance(want, np.ndarray) and want.ndim else "; t.item() is its number"
    kind = got.text if isinstance(got, Other) else ""
    if isinstance(want, np.ndarray):
        return "; np.array(…) makes one of it" if isinstance(got, (list, tuple)) or "matrix" in kind else ""
    lazy = ("generator", "object", "dict_", "set", "range")
    return "; list(…) makes one of it" if isinstance(want, list) and any(word in kind for word in lazy) else ""


def _array(got, want, name, exact):
    if not isinstance(got, np.ndarray):
        return "type", f"{name} is {show(got)}, expected {show(want)}{_advice(got, want)}"
    if got.shape != want.shape:
        turned = got.T.shape == want.shape and np.allclose(got.T, want, rtol=RTOL, atol=ATOL)
        return "shape", (f"{name} has shape {got.shape}, expected {want.shape}"
                         + ("; transposed, its numbers are right" if turned else ""))
    right = _right(got, want, exact)
    if right.all():
        return None
    if exact and np.allclose(got, want, rtol=RTOL, atol=ATOL):
        return "value", (f"{name} is right only up to rounding: {np.sum(~right)} of {right.size} entries differ in "
                         "their last bits")
    return "value", sharp(got, want, name) or entries(got, want, right, name)


def _sequence(got, want, name, exact):
    if not isinstance(got, (list, tuple)):
        return "type", f"{name} is {show(got)}, expected {show(want)}{_advice(got, want)}"
    if want and isinstance(want[0], str) and all(isinstance(g, str) for g in got):
        return None if list(got) == list(want) else ("value", _texts(got, want, name))
    if len(got) != len(want):
        return "shape", f"{name} has {_count(len(got))}, expected {len(want)}"
    found = [difference(g, w, f"{name}[{i}]", exact) for i, (g, w) in enumerate(zip(got, want, strict=True))]
    return next((d for d in found if d), None)


def _count(n):
    return f"{n} {'entry' if n == 1 else 'entries'}"


def _texts(got, want, name):
    """A sentence about two lists of texts that differ."""
    facts = [f"{what}: {', '.join(some[:4])}{', …' * (len(some) > 4)}" for what, some in (
        ("too many", list((Counter(got) - Counter(want)).elements())),
        ("missing", list((Counter(want) - Counter(got)).elements()))) if some]
    if not facts:
        return f"{name} has the right entries in another order"
    counts = "" if len(got) == len(want) else f" {_count(len(got))}, expected {len(want)};"
    return f"{name} has{counts or ' wrong entries;'} {'; '.join(facts)}"


def _dict(got, want, name, exact):
    if not isinstance(got, dict):
        return "type", f"{name} is {show(got)}, expected {show(want)}"
    for what, some in (("lacks", set(want) - set(got)), ("has too much:", set(got) - set(want))):
        if some:
            return "shape", f"{name} {what} {', '.join(sorted(map(str, some))[:4])}"
    found = [d for key in want if (d := difference(got[key], want[key], f"{name}[{key!r}]", exact))]
    more = f" ({len(found)} of {len(want)} entries are wrong)" if len(found) > 1 else ""
    return (found[0][0], found[0][1] + more) if found else None
