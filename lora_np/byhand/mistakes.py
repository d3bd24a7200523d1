"""What goes wrong in a LoRA layer: each mistake as the lines of FORMULAS that it changes; the diagnosis of an answer.

The sheets and the course's exercise on the layer name mistakes from this one list. An answer is compared with the
numbers that each mistake would give on the same sheet. Where none fits there is no diagnosis; where several fit, all
are named.
"""

from dataclasses import dataclass

import numpy as np

from .worksheet import FORMULAS, by_hand, random_sheet


@dataclass(frozen=True, eq=False)
class Mistake:
    """name; wrong: {line: the formula that somebody takes instead}; sentence: what is true."""

    name: str
    wrong: dict
    sentence: str

    @property
    def touches(self):
        """The lines among dA, dB and dx that come out wrong: all where the mistake is made before them."""
        before = list(FORMULAS)[:list(FORMULAS).index("dB")]
        return [q for q in ("dA", "dB", "dx") if q in self.wrong or not self.wrong.keys().isdisjoint(before)]


MISTAKES = (
    Mistake("alpha for alpha/r", {"s": lambda q: q.alpha},
            "The update B A x is multiplied by s = alpha / r, not by alpha."),
    Mistake("alpha for alpha/r in the backward pass", {"dv": lambda q: q.alpha * q.dh},
            "The scale is s = alpha / r on the way back too."),
    Mistake("the scale forgotten", {"s": lambda q: 1.0},
            "B A x is multiplied by s = alpha / r before it is added."),
    Mistake("the scale forgotten in the backward pass", {"dv": lambda q: q.dh},
            "h holds s v, so what comes back to v, and to all that lies behind it, holds s = alpha / r too."),
    Mistake("scaled twice", {"s": lambda q: (q.alpha / q.r) ** 2},
            "s = alpha / r multiplies B A x once, not each factor."),
    Mistake("scaled twice in the backward pass", {"dv": lambda q: q.s ** 2 * q.dh},
            "s enters at dv = s dh; du, dA and dB hold it already."),
    Mistake("the 1/2 of L forgotten", {"L": lambda q: (q.e ** 2).sum(), "dh": lambda q: 2 * q.e},
            "L = 1/2 |h - y|^2, so dL/dh is h - y and not 2 (h - y)."),
    Mistake("y forgotten", {"e": lambda q: q.h}, "The error is e = h - y, and dh = dL/dh is e, not h."),
    Mistake("the sign of the error reversed", {"e": lambda q: q.y - q.h}, "e = h - y: the output minus the target."),
    Mistake("W0^T for W0 in the forward pass", {"W0x": lambda q: q.W0.T @ q.x},
            "W0 has a row for each output: row i times x gives entry i of W0 x."),
    Mistake("W0 for its transpose in dx", {"dx": lambda q: q.W0 @ q.dh + q.A.T @ q.du},
            "What went forward through the rows of W0 comes back through its columns."),
    Mistake("the LoRA path left out of h", {"h": lambda q: q.W0x},
            "h has two paths, the frozen one and that through A and B; this is h of a layer that was never adapted."),
    Mistake("the frozen path dropped from dx", {"dx": lambda q: q.A.T @ q.du},
            "W0 is frozen, yet the error flows through it to x: frozen means no dW0, not no gradient behind it."),
    Mistake("the LoRA path dropped from dx", {"dx": lambda q: q.W0.T @ q.dh},
            "x enters A too, so dx has a second term: what comes back through A."),
    Mistake("dA and dB swapped", {"dB": lambda q: (q.B.T @ q.dv @ q.x.T).reshape(q.B.shape),
                                  "dA": lambda q: (q.dv @ q.u.T).reshape(q.A.shape)},
            "A gradient has the shape of what it belongs to: dA that of A, dB that of B."),
    Mistake("transposed", {"dB": lambda q: q.u @ q.dv.T, "dA": lambda q: q.x @ q.du.T},
            "A gradient has the shape of what it belongs to; these have that of its transpose."),
    Mistake("merged twice", {"W'": lambda q: q.W0 + 2 * q.s * q.B @ q.A}, "W' = W0 + s B A: the update is added once."),
)


def same(a, b):
    """Whether two answers are the same numbers in the same shape."""
    return np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=0, atol=1e-9)


def predictions(sheet, right):
    """{mistake: every value it would give here}, without the mistakes that do not show on this sheet."""
    given = {m: by_hand(sheet, m.wrong) for m in MISTAKES}
    return {m: values for m, values in given.items() if any(not same(values[q], right[q]) for q in right)}


def draw(seed, rank=1):
    """Sheet number `seed`, drawn again and again until it is short enough for paper and tells mistakes apart.

    Raises ValueError for a rank beyond 1 .. 2: W0 is 2 x 2.
    """
    if rank not in (1, 2):
        raise ValueError(f"rank {rank} does not fit: W0 is 2 x 2, so B A has a rank of 1 or 2")
    rng = np.random.default_rng(seed)
    options = f"--seed {seed}" + (f" --rank {rank}" if rank > 1 else "")
    while True:
        sheet = random_sheet(rng, f"sheet {seed}, rank {rank}", options, rank)
        if _short(sheet) and _telling(sheet):
            return sheet


def _short(sheet):
    """Integers and halves up to 40, no zero, y up to 9, and no u of 1, which could be left out unseen."""
    right = by_hand(sheet)
    lines = np.concatenate([sheet.y, *(np.ravel(value) for value in right.values())])
    return (np.all(lines) and np.abs(lines).max() <= 40 and not np.any(2 * lines % 1)
            and np.abs(sheet.y).max() <= 9 and np.abs(right["u"]).min() > 1)


def _telling(sheet):
    """Every mistake shows in each gradient that it touches, and no two give the same dx."""
    right = by_hand(sheet)
    known = predictions(sheet, right)
    if len(known) < len(MISTAKES) - 2 * (sheet.r == 1):  # at r = 1, alpha is alpha / r
        return False
    if any(same(known[m][q], right[q]) for m in known for q in m.touches):
        return False
    wrong = [known[m]["dx"] for m in known if not same(known[m]["dx"], right["dx"])]
    return not any(same(a, b) for i, a in enumerate(wrong) for b in wrong[:i])


def diagnose(sheet, answers):
    """{name: lines of text}, no lines where right. answers: {name: array}, whose shape may be wrong too."""
    right = by_hand(sheet)
    known = predictions(sheet, right)
    return {name: [] if same(value, right[name]) else _diagnosis(name, value, answers, right, known)
            for name, value in answers.items()}


def _diagnosis(name, value, answers, right, known):
    """A mistake is named where it gives this very value, and preferred where it gives all other answers too."""
    fits = [m for m in known if same(known[m][name], value)]
    if not fits and value.shape != np.shape(right[name]):
        return [f"{_shape(value)} numbers, expected {_shape(right[name])}; no known mistake gives these"]
    if not fits:
        good = np.isclose(value, right[name], rtol=0, atol=1e-9).sum()
        return [f"right in {good} of {value.size} places; no known mistake gives this" if good else
                "no known mistake gives this"]
    explain_all = [m for m in fits if all(same(known[m][q], a) for q, a in answers.items())]
    others = [m.name for m in fits if m not in explain_all]
    fits = explain_all or fits
    if len(fits) == 1:
        ruled_out = [f"({' and '.join(others)} would give this too, but not your other answers)"] if others else []
        return [fits[0].name, fits[0].sentence, *(ruled_out if explain_all else [])]
    apart = [q for q in right if q not in answers and not any(
        same(known[a][q], known[b][q]) for i, a in enumerate(fits) for b in fits[:i])]
    return [" or ".join(m.name for m in fits), "On this sheet they give the same numbers here"
            + (f"; your {apart[-1]} would tell." if apart else ".")]


def _shape(value):
    rows, columns = np.atleast_2d(value).shape
    return f"{rows} x {columns}"
