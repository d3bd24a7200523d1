"""Checks of exercise 11. The right answers come from eigenvalues, and from the library's LoraConfig."""

import numpy as np

from lessons.course.checking.tasks import Check, Misconception, Task
from lora_np import LoraConfig

NAME = "ex11_rank"
TITLE = "rank and alpha"


def floor(D, r):
    return float(np.linalg.eigvalsh(D @ D.T)[:len(D) - r].sum())  # ascending


def scaling(alpha, r, use_rslora=False):
    return LoraConfig(r=r, lora_alpha=alpha, use_rslora=use_rslora).scaling


def matching_alpha(alpha, r, new_r, use_rslora=False):
    return alpha * (new_r / r) ** (0.5 if use_rslora else 1)


def matrix(d, k, r):
    return lambda rng: (rng.normal(size=(d, k)), r)


def small(r):
    """The matrix of the examples."""
    return np.array([[3.0, 0.0], [0.0, 2.0]]), r


def singular(D):
    return np.linalg.svd(D, compute_uv=False)


def ranks(rslora, ranks=1):
    """alpha, then one or two ranks that differ, and whether it is rsLoRA."""
    def draw(rng):
        r = int(rng.integers(2, 9))
        return (float(rng.uniform(3, 20)), r, *([r * int(rng.integers(2, 5))] * (ranks - 1)), rslora)
    return draw


TASKS = (
    Task(
        floor, "the floor",
        checks=(Check("D (5, 7), r = 2", matrix(5, 7, 2), lambda: small(1)),
                Check("D (8, 4), r = 1", matrix(8, 4, 1)),
                Check("r = 0: nothing is fitted", matrix(4, 6, 0), lambda: small(0)),
                Check("full rank: everything is fitted", matrix(3, 5, 3), lambda: small(2))),
        hints=("The best matrix of rank r keeps the r largest terms of the SVD. Which part of the squared norm is then "
               "left?",
               "floor = s_{r+1}^2 + s_{r+2}^2 + …; in Python, where counting starts at 0, that is s[r:].",
               "return float((np.linalg.svd(D, compute_uv=False)[____] ** ____).sum())"),
        misconceptions=(
            Misconception(
                "singular-values-summed-unsquared", lambda D, r: float(singular(D)[r:].sum()),
                "Squared distances add up squares: square the singular values.",
                "compare the sum of the squared singular values with np.sum(D ** 2)."),
            Misconception(
                "root-of-the-floor", lambda D, r: float((singular(D)[r:] ** 2).sum() ** 0.5),
                "Asked is the squared distance, as in the loss that is minimised; no root.",
                "at r = 0 the result should be np.sum(D ** 2)."),
            Misconception(
                "what-is-kept-for-what-is-left", lambda D, r: float((singular(D)[:r] ** 2).sum()),
                "The largest r are fitted; the floor is what remains of the others.",
                "at full rank the floor must be 0."),
            Misconception(
                "one-singular-value-too-few", lambda D, r: float((singular(D)[r + 1:] ** 2).sum()),
                "In Python s[r:] leaves out the first r values, s[0] to s[r-1].",
                "at r = 0 the result should be np.sum(D ** 2)."),
            Misconception(
                "only-the-next-singular-value", lambda D, r: float(sum(singular(D)[r:r + 1] ** 2)),
                "All that does not fit counts, not only the largest of it. (That would be the distance in another "
                "norm.)",
                "at r = 0 the result should be np.sum(D ** 2)."),
            Misconception(
                "first-columns-kept", lambda D, r: float((D[:, r:] ** 2).sum()),
                "Keeping r columns gives rank r, but not the closest matrix of rank r.",
                "use D = [[1, 1], [1, 1]] and r = 1: it has rank 1, and the floor is 0."),
        )),
    Task(
        scaling, "the scaling",
        checks=(Check("LoRA", ranks(False), lambda: (16, 4)), Check("rsLoRA", ranks(True), lambda: (16, 4, True)),
                Check("alpha = r", lambda rng: (float(r := int(rng.integers(2, 9))), r, False))),
        hints=("Doubling r doubles the number of terms in B A. What has alpha / r to do with that?",
               "alpha / r; with rsLoRA alpha / sqrt(r).",
               "return alpha / (____ if use_rslora else ____)"),
        misconceptions=(
            Misconception(
                "alpha-alone", lambda alpha, r, use_rslora=False: alpha,
                "alpha is divided by r, so that one alpha serves several ranks.",
                "print LoraConfig(r=4, lora_alpha=16).scaling."),
            Misconception(
                "alpha-floor-divided-by-r", lambda alpha, r, use_rslora=False: alpha / r ** 0.5 if use_rslora else
                alpha // r,
                "alpha // r is rounded down to a whole number; the scaling is alpha / r.",
                "print 5 // 2 and 5 / 2.", source="//"),
            Misconception(
                "rsLoRA-ignored", lambda alpha, r, use_rslora=False: alpha / r,
                "With rsLoRA the divisor is sqrt(r).",
                "print LoraConfig(r=4, lora_alpha=16, use_rslora=True).scaling."),
            Misconception(
                "always-the-root", lambda alpha, r, use_rslora=False: alpha / r ** 0.5,
                "The root belongs to rsLoRA alone; LoRA divides by r.",
                "print LoraConfig(r=4, lora_alpha=16).scaling."),
            Misconception(
                "root-of-the-whole", lambda alpha, r, use_rslora=False: (alpha / r) ** 0.5 if use_rslora else alpha / r,
                "The root is of r only: alpha / sqrt(r).",
                "double alpha: the scaling should double."),
            Misconception(
                "scaling-upside-down", lambda alpha, r, use_rslora=False: (r ** 0.5 if use_rslora else r) / alpha,
                "A larger alpha makes a larger update: alpha stands above.",
                "double alpha: the scaling should double."),
        )),
    Task(
        matching_alpha, "alpha",
        checks=(Check("LoRA, a larger rank", ranks(False, 2), lambda: (8, 4, 16)),
                Check("rsLoRA, a larger rank", ranks(True, 2), lambda: (8, 4, 16, True)),
                Check("a smaller rank", lambda rng: (float(rng.uniform(3, 20)), 8, int(rng.integers(1, 5)), False))),
        hints=("Which quantity has to be the same before and after? Write it down for both ranks.",
               "alpha / r = new alpha / new_r, so new alpha = alpha new_r / r; with roots for rsLoRA.",
               "return alpha * (____ / ____) ** (0.5 if use_rslora else ____)"),
        misconceptions=(
            Misconception(
                "rank-changed-alpha-kept", lambda alpha, r, new_r, use_rslora=False: alpha,
                "With alpha as it was, alpha / r shrinks as r grows: the update changes its size with the rank.",
                "print scaling(8, 4) and scaling(8, 16)."),
            Misconception(
                "ratio-upside-down", lambda alpha, r, new_r, use_rslora=False: alpha * (r / new_r) ** (
                    0.5 if use_rslora else 1),
                "A larger rank needs a larger alpha, for alpha / r to stay.",
                "put your alpha into scaling with the new rank, and compare."),
            Misconception(
                "alpha-set-to-the-rank", lambda alpha, r, new_r, use_rslora=False: float(new_r),
                "alpha = r gives a scaling of 1; the scaling before was another one.",
                "put your alpha into scaling with the new rank, and compare."),
            Misconception(
                "roots-left-out", lambda alpha, r, new_r, use_rslora=False: alpha * new_r / r,
                "With rsLoRA the scaling falls with sqrt(r), so alpha grows with sqrt(r), too.",
                "put your alpha into scaling with use_rslora=True, and compare."),
            Misconception(
                "scaling-taken-for-alpha", lambda alpha, r, new_r, use_rslora=False: scaling(alpha, new_r, use_rslora),
                "This is the scaling that the old alpha has at the new rank; asked is the alpha that keeps the old "
                "scaling.",
                "put your alpha into scaling with the new rank, and compare."),
        )),
)
