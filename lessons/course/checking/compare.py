"""What can be measured about a wrong answer: its type, its shape, by which factor it is off, where it is wrong."""

from itertools import permutations

import numpy as np

from lora_np import Tensor

from .transport import Other

RTOL, ATOL = 1e-6, 1e-9
NUMBER = (int, float)


def show(value):
    """A value in a few words."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, Tensor):
        return f"a Tensor of shape {value.shape}"
    if isinstance(value, Other):
        return value.text
    if isinstance(value, NUMBER) and not isinstance(value, bool):
        return f"the number {number(value)}"
    if isinstance(value, dict):
        return f"a dict of {len(value)}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value) if len(repr(value)) < 60 else f"a {type(value).__name__}"


def number(value):
    """A number as a message shows it: whole ones in full, others to 6 digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def plain(value):
    """An array without axes as its number; anything else as it is."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def numeric(value):
    """A number, or an array without axes, as a number; else None."""
    value = plain(value)
    return value if isinstance(value, NUMBER) and not isinstance(value, bool) else None


def named(want, names):
    """[(name, part)] of an answer: names is one name, or a tuple of them for a tuple of values."""
    return [(names, want)] if isinstance(names, str) else list(zip(names, want, strict=True))


def difference(got, want, names="the result", exact=False):
    """(kind, sentence) about the first difference, or None. kind: "type", "shape" or "value"."""
    if not isinstance(names, str):
        if not isinstance(got, (tuple, list)) or len(got) != len(names):
            return "type", f"it returned {show(got)}, expected {len(names)} values: {', '.join(names)}"
        pairs = list(zip(got, named(want, names), strict=True))
        order = _exchanged(got, want, names, exact)
        if order:
            return "value", f"the results are in another order: {', '.join(order)}, expected {', '.join(names)}"
        # All types and shapes first: a wrong shape says more than a wrong number before it.
        for kinds in (("type", "shape"), ("value",)):
            for part, (name, right) in pairs:
                found = difference(part, right, name, exact)
                if found and found[0] in kinds:
                    return found
        return None
    want = plain(want)
    if isinstance(want, np.ndarray):
        return _array(got, want, names, exact)
    if isinstance(want, (bool, str)) or want is None:
        return None if type(got) is type(want) and got == want else _plain(got, want, names)
    if isinstance(want, NUMBER):
        if numeric(got) is None:
            return "type", f"{names} is {show(got)}, expected a number"
        got = numeric(got)
        return None if _close(got, want, exact) else ("value", _scalar(got, want, names))
    if isinstance(want, dict):
        return _dict(got, want, names, exact)
    return _sequence(got, want, names, exact)


def _exchanged(got, want, names, exact):
    """The names of the parts of an answer that is right in another order alone; None for any other."""
    def fits(order):
        return all(difference(part, want[i], exact=exact) is None for part, i in zip(got, order, strict=True))
    first, *others = permutations(range(len(want)))
    return None if fits(first) else next(([names[i] for i in order] for order in others if fits(order)), None)


def same(a, b, exact=False):
    """Whether two answers are equal, as far as a check looks."""
    a, b = plain(a), plain(b)
    if isinstance(a, (np.ndarray, list, tuple, dict)) and type(a) is not type(b):
        return False
    if isinstance(a, Other) or isinstance(b, Other):
        return a == b
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same(p, q, exact) for p, q in zip(a, b, strict=True))
    return difference(a, b, exact=exact) is None


def signature(value):
    """The types and shapes of a value."""
    if isinstance(value, (tuple, list)):
        return [signature(v) for v in value]
    return value.shape if isinstance(value, np.ndarray) else type(value).__name__


def factor(got, want):
    """c where got is c times want in every entry, c not 1; else None."""
    if not want.size or not np.any(want):
        return None
    c = np.vdot(want, got) / np.vdot(want, want)
    fits = np.allclose(got, c * want, rtol=1e-5, atol=1e-8 * np.abs(want).max()) and abs(c - 1) > 1e-6
    return float(c) if fits else None


def sharp(got, want, name):
    """A sentence that says all about how two arrays of one shape differ; None where there is no such sentence."""
    if not np.isfinite(got).all() and np.isfinite(want).all():
        kind = "nan" if np.isnan(got).any() else "infinite"
        return f"{name} is {kind} in {np.sum(~np.isfinite(got))} of {got.size} entries"
    if not np.isfinite(want).all():
        return None
    if np.any(want) and np.abs(got).max() <= 1e-9 * np.abs(want).max():
        return f"{name} is zero in every entry, expected numbers up to {number(float(np.abs(want).max()))}"
    if np.abs(want).max() <= 1e-9 * np.abs(got).max():
        return f"{name} should be zero in every entry, and has numbers up to {number(float(np.abs(got).max()))}"
    c = factor(got, want) if want.size > 1 else None
    if c is not None and abs(c + 1) < 1e-6:
        return f"{name} has the wrong sign in every entry"
    if c is not None and c > 0:
        return f"{name} is {max(c, 1 / c):.2f}x too {'large' if c > 1 else 'small'} in every entry"
    if c is not None and c < 0:
        return f"{name} is {c:.2f} times what it should be in every entry"
    if want.ndim == 2 and want.shape[0] == want.shape[1] and np.allclose(got.T, want, rtol=RTOL, atol=ATOL):
        return f"{name} is transposed"
    shift = np.mean(got - want)
    if want.size > 1 and np.allclose(got - want, shift, rtol=1e-6, atol=1e-9):
        return f"{name} is off by {shift:+.6g} in every entry"
    return None


def _close(got, want, exact):
    if exact or (isinstance(got, int) and isinstance(want, int)):
        return got == want
    return bool(np.isclose(got, want, rtol=RTOL, atol=ATOL, equal_nan=True))


def _plain(got, want, name):
    return "value" if type(got) is type(want) else "type", f"{name} is {show(got)}, expected {show(want)}"


def _scalar(got, want, name):
    return f"{name} is {number(got)}, expected {number(want)}"


def _array(got, want, name, exact):
    if not isinstance(got, np.ndarray):
        advice = "; t.data is its array" if isinstance(got, Tensor) else ""
        return "type", f"{name} is {show(got)}, expected {show(want)}{advice}"
    if got.shape != want.shape:
        turned = got.T.shape == want.shape and np.allclose(got.T, want, rtol=RTOL, atol=ATOL)
        return "shape", (f"{name} has shape {got.shape}, expected {want.shape}"
                         + ("; transposed, its numbers are right" if turned else ""))
    right = got == want if exact else np.isclose(got, want, rtol=RTOL, atol=ATOL, equal_nan=True)
    if right.all():
        return None
    if exact and np.allclose(got, want, rtol=RTOL, atol=ATOL):
        return "value", (f"{name} is right only up to rounding: {np.sum(~right)} of {right.size} entries differ in "
                         "their last bits")
    return "value", sharp(got, want, name) or _entries(got, want, right, name)


def _entries(got, want, right, name):
    with np.errstate(invalid="ignore"):
        gap = np.where(right, -1, np.nan_to_num(np.abs(got - want.astype(float)), nan=np.inf))
    at = np.unravel_index(int(gap.argmax()), gap.shape)
    where = f" at {[int(i) for i in at]}" if want.ndim else ""
    return (f"{name} is right in {np.sum(right)} of {right.size} entries; the worst{where} is "
            f"{number(got[at].item())}, expected {number(want[at].item())}")


def _sequence(got, want, name, exact):
    if not isinstance(got, (list, tuple)):
        return "type", f"{name} is {show(got)}, expected {show(want)}"
    entries = "entry" if len(got) == 1 else "entries"
    if want and isinstance(want[0], str) and all(isinstance(g, str) for g in got):
        extra, missing = [g for g in got if g not in want], [w for w in want if w not in got]
        facts = [f"{what}: {', '.join(some[:4])}{', …' * (len(some) > 4)}"
                 for what, some in (("too many", extra), ("missing", missing)) if some]
        if facts:
            return "value", f"{name} has {len(got)} {entries}, expected {len(want)}; {'; '.join(facts)}"
        return None if list(got) == list(want) else ("value", f"{name} has the right entries in another order")
    if len(got) != len(want):
        return "shape", f"{name} has {len(got)} {entries}, expected {len(want)}"
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        found = difference(g, w, f"{name}[{i}]", exact)
        if found:
            return found
    return None


def _dict(got, want, name, exact):
    if not isinstance(got, dict):
        return "type", f"{name} is {show(got)}, expected {show(want)}"
    for what, some in (("lacks", set(want) - set(got)), ("has too much:", set(got) - set(want))):
        if some:
            return "shape", f"{name} {what} {', '.join(sorted(map(str, some))[:4])}"
    found = [d for key in want if (d := difference(got[key], want[key], f"{name}[{key!r}]", exact))]
    more = f" ({len(found)} of {len(want)} entries are wrong)" if len(found) > 1 else ""
    return (found[0][0], found[0][1] + more) if found else None


def properties(got, want):
    """A sentence about the first property {name: value} that differs, or None."""
    for name, right in want.items():
        if isinstance(right, bool) and got[name] != right:
            return f"{name}: this should hold, and does not" if right else f"{name}: this should not be so, and is"
        found = difference(got[name], right, name)
        if found:
            return found[1]
    return None
