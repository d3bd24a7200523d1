"""Known mistakes in a LoRA layer, as small wrong implementations, and the diagnosis of an answer by them.

An answer is compared with the numbers that each mistake would give on the same sheet. Where none fits
there is no diagnosis; where several fit, all are named.
"""

from typing import NamedTuple

import numpy as np

from .worksheet import backward, by_hand, random_sheet


class Mistake(NamedTuple):
    """name; wrong: (sheet, right values) -> {name: wrong value} of all that it changes; sentence: what is true."""

    name: str
    wrong: object
    sentence: str


def _scale(s):
    """A wrong scale from the first line on, and one in the backward pass only. s: sheet -> the wrong scale."""
    def throughout(sheet, right):
        return by_hand(sheet, s(sheet))

    def going_back(sheet, right):
        return backward(sheet, right["u"], right["e"], s(sheet))
    return throughout, going_back


def _half(sheet, right):
    return {"L": 2 * right["L"], **backward(sheet, right["u"], 2 * right["e"])}


def _sign(sheet, right):
    return {"e": -right["e"], **backward(sheet, right["u"], -right["e"])}


def _transposed_in_h(sheet, right):
    h = sheet.W0.T @ sheet.x + right["s"] * right["v"]
    e = h - sheet.y
    return {"W0x": sheet.W0.T @ sheet.x, "h": h, "e": e, "L": e @ e / 2, **backward(sheet, right["u"], e)}


def _no_target(sheet, right):
    h = right["h"]
    return {"e": h, "L": h @ h / 2, **backward(sheet, right["u"], h)}


def _no_lora_in_h(sheet, right):
    e = right["W0x"] - sheet.y
    return {"h": right["W0x"], "e": e, "L": e @ e / 2, **backward(sheet, right["u"], e)}


ALPHA, ALPHA_BACK = _scale(lambda sheet: sheet.alpha)
NONE, NONE_BACK = _scale(lambda sheet: 1.0)
TWICE, TWICE_BACK = _scale(lambda sheet: sheet.s ** 2)

MISTAKES = (
    Mistake("alpha for alpha/r", ALPHA, "The scale is s = alpha / r."),
    Mistake("alpha for alpha/r in the backward pass", ALPHA_BACK, "dv = s dh, with the same s = alpha / r as in h."),
    Mistake("the scale forgotten", NONE, "B A x is multiplied by s = alpha / r."),
    Mistake("the scale forgotten in the backward pass", NONE_BACK, "h holds s v, so dv = s dh."),
    Mistake("scaled twice", TWICE, "s multiplies B A x once."),
    Mistake("scaled twice in the backward pass", TWICE_BACK, "s enters at dv = s dh; du, dA and dB hold it already."),
    Mistake("the 1/2 of L forgotten", _half, "L = 1/2 |h - y|^2, so dL/dh is h - y and not 2 (h - y)."),
    Mistake("y forgotten", _no_target, "The error is e = h - y, and dh = dL/dh is e, not h."),
    Mistake("the sign of the error reversed", _sign, "e = h - y, what came out less what was wanted."),
    Mistake("W0^T for W0 in the forward pass", _transposed_in_h, "Row i of W0 times x gives entry i of W0 x."),
    Mistake("W0 for its transpose in dx", lambda sheet, right: {
        "dx": sheet.W0 @ right["dh"] + sheet.A.T @ right["du"]}, "Going back, dh meets the columns of W0: W0^T dh."),
    Mistake("the LoRA path left out of h", _no_lora_in_h, "h = W0 x + s v has two paths."),
    Mistake("the frozen path dropped from dx", lambda sheet, right: {
        "dx": sheet.A.T @ right["du"]}, "W0 is frozen, yet the error flows through it to x: add W0^T dh."),
    Mistake("the LoRA path dropped from dx", lambda sheet, right: {
        "dx": sheet.W0.T @ right["dh"]}, "x enters A too: add A^T du."),
    Mistake("dA and dB swapped", lambda sheet, right: {
        "dA": right["dB"].reshape(sheet.A.shape), "dB": right["dA"].reshape(sheet.B.shape)},
        "dA = du x^T has the shape of A, dB = dv u^T that of B."),
    Mistake("transposed", lambda sheet, right: {"dA": right["dA"].T, "dB": right["dB"].T},
            "A gradient has the shape of what it belongs to: upstream down, local across."),
    Mistake("merged twice", lambda sheet, right: {"W'": 2 * right["W'"] - sheet.W0}, "W' = W0 + s B A, once."),
)


def same(a, b):
    """Whether two answers are the same numbers in the same shape."""
    return np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=0, atol=1e-9)


def predictions(sheet, right):
    """{mistake: every value it would give here}, without the mistakes that do not show on this sheet."""
    given = {m: {**right, **m.wrong(sheet, right)} for m in MISTAKES}
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
    """Whole numbers and halves up to 40, no zero, y up to 9, and no u of 1, which could be left out unseen."""
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
    if any(same(known[m][q], right[q]) for m in known for q in m.wrong(sheet, right) if q in ("dA", "dB", "dx")):
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
        return [f"{_rows(value)} numbers, expected {_rows(right[name])}; no known mistake gives these"]
    if not fits:
        good = np.isclose(value, right[name], rtol=0, atol=1e-9).sum()
        return [f"right in {good} of {value.size} places; no known mistake gives this" if good else
                "no known mistake gives this"]
    whole = [m for m in fits if all(same(known[m][q], a) for q, a in answers.items())]
    others = [m.name for m in fits if m not in whole]
    fits = whole or fits
    if len(fits) == 1:
        ruled_out = [f"({' and '.join(others)} would give this too, but not your other answers)"] if others else []
        return [fits[0].name, fits[0].sentence, *(ruled_out if whole else [])]
    apart = [q for q in right if q not in answers and not any(
        same(known[a][q], known[b][q]) for i, a in enumerate(fits) for b in fits[:i])]
    return [" or ".join(m.name for m in fits), "On this sheet they give the same numbers here"
            + (f"; your {apart[-1]} would tell." if apart else ".")]


def _rows(value):
    rows, columns = np.atleast_2d(value).shape
    return f"{rows} x {columns}"
