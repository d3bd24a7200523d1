"""Checks of exercise 07. The right answers come from the eigenvectors of D^T D, and from trying every rank."""

import numpy as np

from lessons.course.checking.tasks import Check, Misconception, Task

NAME = "ex07_low_rank"
TITLE = "low rank"


def low_rank(D, r):
    _, V = np.linalg.eigh(D.T @ D)  # ascending: the last r columns point where D is largest
    return D @ V[:, -r:], V[:, -r:].T


def effective_rank(D, share):
    for r in range(1, min(D.shape) + 1):
        B, A = low_rank(D, r)
        if np.sum((B @ A) ** 2) >= share * np.sum(D ** 2):
            return r


def matrix(d, k, r):
    return lambda rng: (rng.normal(size=(d, k)), r)


def fading(d, k, fall, share):
    """A matrix whose singular values fall by a factor from one to the next."""
    def draw(rng):
        p = min(d, k)
        U, V = (np.linalg.qr(rng.normal(size=(n, p)))[0] for n in (d, k))
        return U * (5 * (fall + rng.uniform(-0.02, 0.02)) ** np.arange(p)) @ V.T, share
    return draw


def exactly_half():
    """A matrix whose rank 1 keeps exactly half: 4 of 8, in powers of 2, which are exact."""
    return np.diag([2.0, 1.0, 1.0, 1.0, 1.0]), 0.5


def small(*rest):
    """The matrix of the examples."""
    return np.array([[3.0, 0.0], [0.0, 1.0]]), *rest


def product(returned, D, r):
    B, A = returned
    return {"B A": B @ A}


def svd(D):
    return np.linalg.svd(D, full_matrices=False)


def kept(D, power=2):
    s = np.linalg.svd(D, compute_uv=False) ** power
    return np.cumsum(s) / s.sum()


TASKS = (
    Task(
        low_rank, ("B", "A"),
        checks=(Check("D (7, 5), r = 2", matrix(7, 5, 2), lambda: small(1), properties=product),
                Check("D (4, 9), r = 3", matrix(4, 9, 3), properties=product),
                Check("a square D, where a wrong transpose raises no error", matrix(5, 5, 5), properties=product)),
        hints=("D is a sum of terms, each of rank 1 and with a size of its own. Which of them do you keep, and where "
               "does the size go?",
               "B = U[:, :r] * s[:r], (d, r); A = Vt[:r], (r, k). The sizes s may go into B or into A, once.",
               "return U[:, ____] * s[____], Vt[____]"),
        misconceptions=(
            Misconception(
                "singular-values-left-out", lambda D, r: ((u := svd(D))[0][:, :r], u[2][:r]),
                "U and V only hold directions, all of length 1; the sizes are in s.",
                "double D: B A must double."),
            Misconception(
                "singular-values-in-both-factors", lambda D, r: ((u := svd(D))[0][:, :r] * u[1][:r],
                                                                u[1][:r, None] * u[2][:r]),
                "Each size belongs in the product once: all in B, all in A, or its root in each.",
                "double D: B A must double, yours is four times as large."),
            Misconception(
                "smallest-terms-kept", lambda D, r: ((u := svd(D))[0][:, -r:] * u[1][-r:], u[2][-r:]),
                "s falls from first to last: the largest terms come first.",
                "print s, and np.linalg.norm(D - B @ A) for both ends."),
            Misconception(
                "B-and-A-in-the-other-order", lambda D, r: ((u := svd(D))[2][:r], u[0][:, :r] * u[1][:r]),
                "The two are exchanged: B, (d, r), comes first, then A, (r, k), as in B A.",
                "print the shape of each part of your result."),
            Misconception(
                "Vt-taken-for-V", lambda D, r: ((u := svd(D))[0][:, :r] * u[1][:r], u[2][:, :r].T),
                "NumPy gives V transposed: its rows are the directions, so A is Vt[:r].",
                "with r = min(d, k), B @ A should give D back."),
            Misconception(
                "first-rows-and-columns", lambda D, r: (D[:, :r], np.eye(r, D.shape[1])),
                "Keeping r columns of D gives rank r, but not the closest matrix: the SVD finds better directions.",
                "compare np.linalg.norm(D - B @ A) with the root of the sum of the squared s[r:]."),
            Misconception(
                "rank-r-as-r-numbers", lambda D, r: (np.diag(svd(D)[1][:r]), np.eye(r)),
                "Rank r does not mean r numbers: each singular value comes with a column of U and a row of Vt.",
                "print the shape of B @ A: it must be that of D.", source=r"diag|\* *np\.eye"),
        )),
    Task(
        effective_rank, "the rank",
        checks=(Check("singular values that fall slowly, 90%", fading(8, 12, 0.85, 0.9), lambda: small(0.8)),
                Check("singular values that fall fast, 90%", fading(12, 7, 0.6, 0.9)),
                Check("50%, and a share that is met exactly", fading(10, 9, 0.95, 0.5), also=(exactly_half,)),
                Check("99%", fading(9, 10, 0.75, 0.99), lambda: small(0.95))),
        hints=("Square the singular values and add them up one by one. When have you reached the share?",
               "kept(r) = (s_1^2 + … + s_r^2) / (s_1^2 + … + s_p^2); the smallest r with kept(r) >= share.",
               "kept = np.cumsum(____) / np.sum(____); return int(np.argmax(kept >= ____)) + ____"),
        misconceptions=(
            Misconception(
                "singular-values-not-squared", lambda D, share: int(np.argmax(kept(D, 1) >= share)) + 1,
                "The squared norm is the sum of the squared singular values; without squaring, small ones count too "
                "much.",
                "print the sum of s ** 2 beside np.sum(D ** 2), and the sum of s."),
            Misconception(
                "index-taken-for-a-count", lambda D, share: int(np.argmax(kept(D) >= share)),
                "Counting from 0, entry 0 belongs to rank 1: this is one too few.",
                "try a matrix of rank 1: its effective rank is 1, not 0."),
            Misconception(
                "root-of-the-sum-taken", lambda D, share: int(np.argmax(np.sqrt(kept(D)) >= share)) + 1,
                "The share is one of the squared norm: compare the sums of squares themselves, without a root.",
                "print np.sum(s[:r] ** 2) / np.sum(s ** 2) at your rank r, and its root."),
            Misconception(
                "share-of-the-ranks", lambda D, share: int(np.ceil(share * min(D.shape))),
                "A share of the norm is not a share of the number of ranks: the first directions hold most.",
                "print np.cumsum(s ** 2) / np.sum(s ** 2)."),
            Misconception(
                "full-rank-counted", lambda D, share: int(np.linalg.matrix_rank(D)),
                "matrix_rank counts every singular value that is not zero, however small it is.",
                "add 1e-6 times a random matrix to one of rank 1, and print both ranks.", source="matrix_rank"),
            Misconception(
                "share-left-out-instead-of-kept", lambda D, share: int(np.argmax(kept(D) >= 1 - share)) + 1,
                "The rank has to keep the share; this one leaves it out.",
                "print np.sum((B @ A) ** 2) / np.sum(D ** 2) for the result of low_rank at your rank."),
            Misconception(
                "share-of-the-largest", lambda D, share: int(np.sum(
                    (s := np.linalg.svd(D, compute_uv=False)) >= (1 - share) * s[0])),
                "This counts the singular values above a share of the largest; asked is how much they hold together.",
                "print the squared norm of D and that of its closest matrix of your rank."),
        )),
)
