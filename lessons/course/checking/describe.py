"""Answers in words: a value in short, and by which factor, sign or shift an array is off."""

import inspect

import numpy as np

from lora_np import Tensor

from .transport import Other

RTOL, ATOL = 1e-6, 1e-9
NUMBER = (int, float)
SMALL = 8  # entries of an array that is written out


def show(value):
    """A value in a few words."""
    if isinstance(value, np.ndarray) and value.ndim:
        return f"an array of shape {value.shape}"
    if isinstance(value, Tensor):
        return f"a Tensor of shape {value.shape}"
    if isinstance(value, Other):
        return value.text
    if numeric(value) is not None:
        return f"the number {number(numeric(value))}"
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


def written(value):
    """A value in full where it is small, as in an example: "[[1, 2]]"; else in a few words."""
    if isinstance(value, Tensor):
        return written(value.data)
    if isinstance(value, np.ndarray) and value.ndim:
        return written(value.tolist()) if value.size <= SMALL else show(value)
    if isinstance(value, (list, tuple)) and len(value) <= SMALL:
        return _bracketed(value, map(written, value))
    if isinstance(value, dict) and len(value) <= SMALL:
        return "{" + ", ".join(f"{key!r}: {written(v)}" for key, v in value.items()) + "}"
    if numeric(value) is not None:
        return f"{numeric(value):.6g}" if isinstance(numeric(value), float) else str(numeric(value))
    return _other(value) if callable(value) else show(value)


def inputs(function, arguments, brief=None):
    """Arguments by name: "x (4, 5), r = 2"; with brief=written those of an example: "x = [[2, 3]]"."""
    return ", ".join(f"{name} {value.shape}" if hasattr(value, "shape") and brief is None else
                     f"{name} = {(brief or _brief)(value)}"
                     for name, value in zip(parameters(function), arguments, strict=False))


def parameters(function):
    """The names of a function's parameters."""
    return list(inspect.signature(function).parameters)


def _brief(value):
    if hasattr(value, "shape"):
        return str(value.shape)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return _bracketed(value, [*map(_brief, value[:6]), *["…"] * (len(value) > 6)])
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_brief(v)}" for key, v in value.items()) + "}"
    return repr(value) if isinstance(value, (int, str)) or value is None else _other(value)


def _bracketed(value, entries):
    """The entries of a list or tuple, in words, within its brackets."""
    inside = ", ".join(entries)
    return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' * (len(value) == 1)})"


def _other(value):
    """A function by its docstring, where that is a line; anything else by its type."""
    doc = callable(value) and value.__doc__
    return doc if doc and len(doc) < 80 else getattr(value, "__name__", f"a {type(value).__name__}")


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
    got, want = got.astype(float), want.astype(float)
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
    if want.size > 1 and np.allclose(got - want, shift, rtol=RTOL, atol=ATOL):
        return f"{name} is off by {shift:+.6g} in every entry"
    return None


def entries(got, want, right, name):
    """How many entries of an array are right, and which is the worst."""
    with np.errstate(invalid="ignore"):
        gap = np.where(right, -1, np.nan_to_num(np.abs(got.astype(float) - want.astype(float)), nan=np.inf))
    at = np.unravel_index(int(gap.argmax()), gap.shape)
    return (f"{name} is right in {np.sum(right)} of {right.size} entries; the worst at {[int(i) for i in at]} is "
            f"{number(got[at].item())}, expected {number(want[at].item())}")
