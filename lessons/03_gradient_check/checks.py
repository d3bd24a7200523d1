"""Checks of exercise 03. The right answers come from formulas: of cubes and sines the differences are known."""

import numpy as np

from lessons.course.checking.tasks import Check, Misconception, Task

NAME = "ex03_gradient_check"
TITLE = "measuring a gradient"


def central_difference(f, x, eps):
    return f.difference(x, eps)


def relative_error(a, n):
    return max(abs(p - q) / max(abs(p), abs(q)) if p or q else 0.0
               for p, q in zip(a.ravel().tolist(), n.ravel().tolist(), strict=True))


def best_step(f, slope, x, steps):
    errors = [abs((f(x + eps) - f(x - eps)) / (2 * eps) - slope) for eps in steps]
    return steps[int(np.argmin(errors))]


def cubes(shape, eps):
    """f(v) = sum of c v^3 + (sum of v)^2, whose central difference is exactly c (3 x^2 + eps^2) + 2 sum of x."""
    def draw(rng):
        c = rng.uniform(1, 2, shape) * rng.choice([-1, 1], shape)

        def f(v):
            """sum of c v^3, plus the square of the sum of v"""
            return float((c * v ** 3).sum() + v.sum() ** 2)

        f.difference = lambda x, eps: c * (3 * x ** 2 + eps ** 2) + 2 * x.sum()
        return f, rng.normal(size=shape), eps
    return draw


def squares(v):
    """the sum of the squares of v"""
    return float((v ** 2).sum())


squares.difference = lambda x, eps: 2 * x


def errors(worst, size=1.0, sign=1):
    """Two gradients that agree within 1%, but for one entry of this sign, where a is `worst` times n."""
    def draw(rng):
        n = size * rng.uniform(1, 9, (3, 4)) * rng.choice([-1, 1], (3, 4))
        a = n * (1 + rng.uniform(0.001, 0.01, n.shape))
        n[1, 2] = sign * abs(n[1, 2])
        a[1, 2] = worst * n[1, 2]
        return a, n
    return draw


def with_zeros(rng):
    """One entry is 0 in both; the worst is negative in both."""
    a, n = errors(0.8, sign=-1)(rng)
    a[0, 0] = n[0, 0] = 0
    return a, n


def one_zero(side):
    """One entry is 0 in one of the two gradients."""
    def draw(rng):
        both = errors(0.8)(rng)
        both[side][2, 3] = 0
        return both
    return draw


def all_zeros(rng):
    return (v := np.zeros(rng.integers(3, 9)), v.copy())


def curve(f, slope, *steps, sign=1):
    """c f(v), its slope at some x, and steps in some order.

    sign: of c; with -1 the error of a sine at large steps is above 0, so that the smallest signed one is another's.
    """
    def draw(rng):
        c, x = sign * float(rng.uniform(1, 3)), float(rng.uniform(0.5, 1.2))

        def g(v):
            return float(c * f(v))

        g.__doc__ = f.__doc__
        return g, float(c * slope(x)), x, [float(eps) for eps in rng.permutation(steps)]
    return draw


def sine(v):
    """c sin(v)"""
    return np.sin(v)


def parabola(v):
    """c v^2"""
    return v * v


def oscillation(v):
    """c sin(1000 v)"""
    return np.sin(1000 * v)


def moved(f, x, eps, at):
    """f where the entries of x at an index are moved by eps."""
    x = x.copy()
    x[at] += eps
    return f(x)


def each_entry(slope):
    """A difference with one thing wrong: slope(f, x, eps, at) for each entry."""
    def wrong(f, x, eps):
        return np.array([slope(f, x, eps, at) for at in np.ndindex(x.shape)]).reshape(x.shape)
    return wrong


def never_moved_back(f, x, eps):
    x, slopes = x.copy(), np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        x[at] += eps
        up = f(x)
        x[at] -= 2 * eps
        slopes[at] = (up - f(x)) / (2 * eps)
    return slopes


def moves_pile_up(f, x, eps):
    step, slopes = np.zeros(x.shape), np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        step[at] = eps
        slopes[at] = (f(x + step) - f(x - step)) / (2 * eps)
    return slopes


def larger(a, n):
    return np.maximum(np.abs(a), np.abs(n))


def one_for_zero(size):
    return np.where(size == 0, 1, size)


def error_with(size=lambda a, n: one_for_zero(larger(a, n)), gap=lambda a, n: np.abs(a - n), of_all=np.max):
    """relative_error with another size to divide by, another difference, or something else than the largest of all."""
    return lambda a, n: float(of_all(gap(a, n) / size(a, n)))


TASKS = (
    Task(
        central_difference, "the measured gradient",
        checks=(Check("a vector, eps = 0.1", cubes((4,), 0.1), example=lambda: (squares, np.array([1.0, 3.0]), 0.1)),
                Check("a matrix, eps = 0.01", cubes((3, 2), 0.01)),
                Check("a stack of matrices, eps = 0.1", cubes((2, 2, 3), 0.1)),
                Check("an x without axes", cubes((), 0.1))),
        hints=("Which entries of x change between the two calls of f that give one slope? What must x be again before "
               "the next?",
               "slope[i] = (f(x + eps e_i) - f(x - eps e_i)) / (2 eps), where e_i is 1 at entry i and 0 elsewhere.",
               "for at in np.ndindex(x.shape): step = np.zeros(x.shape); step[at] = ____; "
               "slopes[at] = (f(____) - f(____)) / ____"),
        misconceptions=(
            Misconception(
                "one-sided-difference", each_entry(lambda f, x, eps, at: (moved(f, x, eps, at) - f(x)) / eps),
                "A one-sided difference is off by about eps times half the curvature; a central one only by eps^2.",
                "measure x^2 at 3 with eps = 0.1: one-sided gives 6.1, central 6."),
            Misconception(
                "divided-by-h-alone", each_entry(
                    lambda f, x, eps, at: (moved(f, x, eps, at) - moved(f, x, -eps, at)) / eps),
                "Between x - eps and x + eps lie two steps: divide by 2 eps.",
                "measure f(x) = x, whose slope is 1.", called="divided by eps alone"),
            Misconception(
                "multiplied-by-h", each_entry(
                    lambda f, x, eps, at: (moved(f, x, eps, at) - moved(f, x, -eps, at)) / 2 * eps),
                "The difference is divided by 2 eps: in Python, a / 2 * eps is a / 2, times eps.",
                "print 1 / 2 * 0.1 and 1 / (2 * 0.1).", source=r"/ 2(\.0)? \* ", called="multiplied by eps"),
            Misconception(
                "all-entries-moved-at-once", each_entry(lambda f, x, eps, at: (f(x + eps) - f(x - eps)) / (2 * eps)),
                "x + eps moves every entry; the slope in one entry needs a step in that entry alone.",
                "measure f(v) = v[0]: its slope in v[1] is 0."),
            Misconception(
                "whole-row-moved", each_entry(
                    lambda f, x, eps, at: (moved(f, x, eps, at[0]) - moved(f, x, -eps, at[0])) / (2 * eps)),
                "In a matrix x[i] is a row of entries; one entry is x[i, j]. np.ndindex(x.shape) goes over all.",
                "measure f(v) = v[0, 0]: its slope in v[0, 1] is 0."),
            Misconception(
                "moves-pile-up", moves_pile_up,
                "The step that moved one entry still moves it when the next is measured: begin each entry with a step "
                "of zeros.",
                "print the step before each pair of calls."),
            Misconception(
                "entry-not-moved-back", never_moved_back,
                "The next entry has to be measured at the same x: after each one, put it back, or work on a copy.",
                "print x before and after each pair of calls."),
        )),
    Task(
        relative_error, "the error",
        checks=(Check("entries of several sizes and signs; the worst of a is too small", errors(0.9),
                      example=lambda: (np.array([2.0, 4.0]), np.array([2.0, 5.0]))),
                Check("the worst of a is too large", errors(1.1)),
                Check("an entry where both are 0; the worst is below 0 in both", with_zeros),
                Check("an entry where a alone is 0", one_zero(0)),
                Check("an entry where n alone is 0", one_zero(1)),
                Check("an entry of the wrong sign", errors(-1.0)),
                Check("gradients of about 1e-12", errors(0.9, 1e-12)),
                Check("all entries 0 in both", all_zeros)),
        hints=("Is 0.001 a large error? For which gradient? And may one wrong entry among a million be averaged away?",
               "In each entry |a - n| / max(|a|, |n|), or 0 where both are 0; then the largest.",
               "size = np.maximum(____, ____); return float((np.abs(a - n) / np.where(size > 0, size, ____)).max())"),
        misconceptions=(
            Misconception(
                "divided-by-n-alone", error_with(lambda a, n: np.where(n != 0, np.abs(n), a == 0)),
                "The larger of the two is what the difference is measured against: n alone may be the smaller, or 0.",
                "compare a = [2] with n = [1], and a = [1] with n = [2]: both are 0.5."),
            Misconception(
                "divided-by-a-alone", error_with(lambda a, n: np.where(a != 0, np.abs(a), n == 0)),
                "The larger of the two is what the difference is measured against: a alone may be the smaller, or 0.",
                "compare a = [2] with n = [1], and a = [1] with n = [2]: both are 0.5."),
            Misconception(
                "small-number-added-below", error_with(lambda a, n: larger(a, n) + 1e-8),
                "What is added below the line against 0 / 0 is larger than small gradients, and hides their errors: "
                "treat entries where both are 0 apart.",
                "compare a = [1e-12] with n = [2e-12]: 0.5."),
            Misconception(
                "wrong-only-if-neither-is-0", error_with(gap=lambda a, n: np.abs(a - n) * (a != 0) * (n != 0)),
                "Only where both are 0 is there no error. Where one of them is 0, the other is wrong altogether: 1.",
                "compare a = [0] with n = [3]: 1."),
            Misconception(
                "absolute-error-taken", error_with(lambda a, n: 1),
                "An error means something only beside the size of the number: divide by max(|a|, |n|).",
                "compare a = 1e-8 with n = 2e-8: one is twice the other."),
            Misconception(
                "averaged-over-the-entries", error_with(of_all=np.mean),
                "One wrong entry counts: take the largest error, not the mean.",
                "compare a million equal entries and one that is wrong."),
            Misconception(
                "sign-of-the-error-kept", error_with(gap=np.subtract),
                "Too small is as wrong as too large: take |a - n|.",
                "compare a = [1] with n = [5]."),
            Misconception(
                "zero-divided-by-zero", error_with(larger),
                "Where both are 0 they agree; 0 / 0 gives nan, which then hides all else.",
                "compare a = [0, 1] with n = [0, 2]."),
            Misconception(
                "sign-left-in-the-denominator", error_with(lambda a, n: one_for_zero(np.maximum(a, n))),
                "Sizes are compared, so signs go below the line too: max(|a|, |n|). Otherwise the error of an entry "
                "below 0 is negative and never the largest.",
                "compare a = [-1] with n = [-2]: 0.5."),
            Misconception(
                "nan-skipped", error_with(larger, of_all=lambda e: np.nan if np.isnan(e).all() else np.nanmax(e)),
                "np.nanmax skips 0 / 0, but where every entry is 0 in both nothing is left; the error is then 0.",
                "compare a = [0, 0] with n = [0, 0].", source="nanmax"),
            Misconception(
                "divided-by-the-sum", error_with(lambda a, n: one_for_zero(np.abs(a) + np.abs(n))),
                "Here the difference is measured against the larger of the two, not against their sum.",
                "compare a = [2] with n = [1]: 0.5."),
        )),
    Task(
        best_step, "the step",
        checks=(Check("steps from 0.1 to 1e-13", curve(sine, np.cos, 1e-1, 1e-3, 1e-5, 1e-9, 1e-13), exact=True,
                      example=lambda: (np.sin, np.cos(1.0), 1.0, [0.1, 1e-5, 1e-13])),
                Check("large steps only", curve(sine, np.cos, 1e-1, 1e-2, 1e-3, sign=-1), exact=True),
                Check("tiny steps only", curve(sine, np.cos, 1e-9, 1e-11, 1e-13), exact=True),
                Check("a fast oscillation, which wants a smaller step",
                      curve(oscillation, lambda x: 1000 * np.cos(1000 * x), 1e-3, 1e-5, 1e-7, 1e-11), exact=True),
                Check("a parabola, of which every difference is right up to rounding",
                      curve(parabola, lambda x: 2 * x, 0.5, 1e-3, 1e-5, 1e-8), exact=True)),
        hints=("Why could a smaller step be worse? Do not decide by thinking: measure the error at each step.",
               "error(eps) = |(f(x + eps) - f(x - eps)) / (2 eps) - slope|; take the eps whose error is smallest.",
               "return min(steps, key=lambda eps: abs(____ - slope))"),
        misconceptions=(
            Misconception(
                "smallest-step-is-best", lambda f, slope, x, steps: min(steps),
                "Below about 1e-6 rounding in f, divided by ever smaller eps, outweighs what the smaller step gains.",
                "print the error at eps = 1e-5 and at eps = 1e-13.", source=r"min\(\w+\)|sort|\[-?\d\]"),
            Misconception(
                "largest-step-is-best", lambda f, slope, x, steps: max(steps),
                "A large step measures across the curve and not along it; its error falls with eps^2 at first.",
                "print the error at eps = 0.1 and at eps = 0.001.", source=r"max\(\w+\)|sort|\[-?\d\]"),
            Misconception(
                "usual-step-without-measuring", lambda f, slope, x, steps: min(
                    steps, key=lambda eps: abs(np.log10(eps) + 5)),
                "Which step is best depends on the function: measure the error at each step.",
                "print the errors for a parabola, x * x, and for np.sin(1000 * x)."),
            Misconception(
                "one-sided-difference-measured", lambda f, slope, x, steps: min(
                    steps, key=lambda eps: abs((f(x + eps) - f(x)) / eps - slope)),
                "f(x) is only at one side of the step: the error of a central difference, from x - eps to x + eps, "
                "falls with eps^2 and not with eps, so that its best step is larger.",
                "print the errors of both at eps = 1e-5."),
            Misconception(
                "sign-kept-in-the-smallest-error", lambda f, slope, x, steps: min(
                    steps, key=lambda eps: (f(x + eps) - f(x - eps)) / (2 * eps) - slope),
                "The sign of the error is kept, so the most negative one wins: compare the sizes, abs(...).",
                "print the errors at all steps, with their signs."),
            Misconception(
                "smallest-error-returned", lambda f, slope, x, steps: min(
                    abs((f(x + eps) - f(x - eps)) / (2 * eps) - slope) for eps in steps),
                "The question is at which step the error is smallest, not how small it is.",
                "look at the example: the result is one of the steps."),
        )),
)
