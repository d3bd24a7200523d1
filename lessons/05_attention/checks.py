"""Checks of exercise 05. The right answers come from the library's softmax and causal_attention."""

import numpy as np

from lessons.course.checking.tasks import Check, Misconception, Task
from lora_np import ops

NAME = "ex05_attention"
TITLE = "attention weights"


def softmax(S):
    return ops.softmax(S).numpy()


def causal_mask(T):
    return np.array([[0.0 if key <= query else -np.inf for key in range(T)] for query in range(T)])


def attention_weights(Q, K):
    P = np.zeros((len(Q), len(Q)))
    for key in range(len(Q)):
        v = np.zeros(K.shape)
        v[key, 0] = 1  # column 0 of P v is then column `key` of P
        P[:, key] = ops.causal_attention(Q, K, v).data[:, 0]
    return P


def scores(shape, around=0.0, hidden=False):
    def draw(rng):
        S = rng.normal(around, 1, shape)
        if hidden:
            S[..., 1:][rng.random(S[..., 1:].shape) < 0.4] = -np.inf
        return (S,)
    return draw


def length(rng):
    return (int(rng.integers(3, 7)),)


def queries_and_keys(T, c):
    return lambda rng: (rng.normal(size=(T, c)), rng.normal(size=(T, c)))


def softmax_with(largest=lambda S: S.max(axis=-1, keepdims=True), total=lambda E: E.sum(axis=-1, keepdims=True)):
    """softmax with something else taken off the scores, or something else to divide by."""
    return lambda S: (E := np.exp(S - largest(S))) / total(E)


def over(axis):
    """A softmax over another axis."""
    return softmax_with(lambda S: S.max(axis=axis, keepdims=True), lambda E: E.sum(axis=axis, keepdims=True))


def weights(scale=lambda T, c: c ** 0.5, mask=causal_mask, axis=-1, scores=lambda Q, K: Q @ K.T):
    """attention_weights with one thing wrong."""
    return lambda Q, K: over(axis)(scores(Q, K) / scale(*Q.shape) + mask(len(Q)))


TASKS = (
    Task(
        softmax, "the result",
        checks=(Check("scores (4, 3)", scores((4, 3)),
                      example=lambda: (np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]]),)),
                Check("rows near 1000, 0 and -1000: exponentials too large and too small for a float",
                      scores((3, 5), np.array([[1000], [0], [-1000]]))),
                Check("a stack of score matrices (2, 3, 4)", scores((2, 3, 4))),
                Check("some scores of -inf", scores((4, 5), hidden=True)),
                Check("square scores, where a missing keepdims raises no error", scores((3, 3))),
                Check("a single row of scores, (5,)", scores((5,)))),
        hints=("Which axis has to sum to 1? And what happens to the result if the same number is taken from all scores "
               "of a row?",
               "softmax(S) = exp(S - m) / sum of exp(S - m), with m the largest score of the row; both over the last "
               "axis.",
               "E = np.exp(S - S.max(axis=____, keepdims=____)); return E / E.sum(axis=____, keepdims=____)"),
        misconceptions=(
            Misconception(
                "softmax-down-the-columns", over(-2),
                "Queries go down and keys across: each row must sum to 1, so the sum goes over the last axis.",
                "print the sums of your result over axis -1 and over axis -2."),
            Misconception(
                "softmax-over-everything", over(None),
                "Every query has weights of its own: each row sums to 1, not the whole matrix.",
                "print the sum of all your weights, and that of each row."),
            Misconception(
                "exponentials-overflow", softmax_with(lambda S: 0),
                "exp(1000) is infinite, and inf / inf is nan; taking the row's largest score off first changes nothing "
                "else.",
                "print np.exp(1000.0), and np.exp(0.0)."),
            Misconception(
                "maximum-of-everything-and-not-of-each-row", softmax_with(np.max),
                "The largest of the whole matrix leaves rows far below it with exponentials of 0, and 0 / 0 is nan: "
                "take the largest of each row off that row, with axis=-1 and keepdims=True.",
                "print np.exp(S - S.max()) for S = [[0, 1], [1000, 1000]]."),
            Misconception(
                "softmax-over-axis-0", over(0),
                "Queries go down and keys across: each row must sum to 1, so the sum goes over the last axis, axis=-1.",
                "print the sums of your result over axis -1 and over axis 0."),
            Misconception(
                "divided-by-the-sum-over-axis-0", softmax_with(total=lambda E: E.sum(axis=0, keepdims=True)),
                "Each row must sum to 1: the sum goes over the last axis, axis=-1, as the maximum does.",
                "print the sums of your result over axis -1 and over axis 0."),
            Misconception(
                "softmax-over-axis-0-and-nothing-taken-off", softmax_with(lambda S: 0, lambda E: E.sum(axis=0)),
                "Each row must sum to 1: the sum goes over the last axis, axis=-1, with keepdims=True. exp(1000) is "
                "infinite: take the row's largest score off first.",
                "print the sums of your result over axis -1 and over axis 0."),
            Misconception(
                "divided-by-the-sum-of-everything", softmax_with(total=np.sum),
                "The exponentials of a row are divided by the sum of that row: axis=-1 and keepdims=True in both "
                "places.",
                "print the sum of each row of your result."),
            Misconception(
                "sum-without-keepdims", softmax_with(total=lambda E: E.sum(axis=-1)),
                "Without keepdims=True the sums of the rows lie in a row themselves, and each column is divided by one "
                "of them.",
                "print the shapes of E.sum(axis=-1) and E.sum(axis=-1, keepdims=True) for E = np.exp(S)."),
            Misconception(
                "maximum-without-keepdims", softmax_with(lambda S: S.max(axis=-1)),
                "Without keepdims=True the largest scores of the rows lie in a row themselves, and one is taken off "
                "each column.",
                "print the shapes of S.max(axis=-1) and S.max(axis=-1, keepdims=True)."),
            Misconception(
                "maximum-and-sum-without-keepdims", softmax_with(lambda S: S.max(axis=-1), lambda E: E.sum(axis=-1)),
                "Without keepdims=True the largest scores and the sums of the rows lie in a row themselves, and are "
                "applied to columns.",
                "print the shapes of S.max(axis=-1) and S.max(axis=-1, keepdims=True)."),
            Misconception(
                "divided-by-the-largest", softmax_with(total=lambda E: 1),
                "Weights sum to 1: divide by the sum of the exponentials. These have a largest entry of 1.",
                "print the sum of each row of your result."),
        )),
    Task(
        causal_mask, "the mask",
        checks=(Check("several lengths", length, example=lambda: (2,)),
                Check("one position, which sees itself", lambda rng: (1,))),
        hints=("Position 2 is computed while positions 3, 4, … are still to be predicted. Which keys may it see? May "
               "it see itself?",
               "mask[query, key] = -inf where key > query, else 0; shape (T, T).",
               "np.where(i[None, :] ____ i[:, None], ____, 0.0)        with i = np.arange(T)"),
        misconceptions=(
            Misconception(
                "mask-hides-the-past", lambda T: causal_mask(T).T,
                "Queries go down and keys across; hidden is what lies right of the diagonal, the later keys.",
                "print row 0: the first position may see only itself."),
            Misconception(
                "mask-hides-the-position-itself", lambda T: np.where(np.tri(T, k=-1) == 1, 0.0, -np.inf),
                "A position sees itself; only later ones are hidden. Otherwise row 0 has no finite score at all.",
                "take the softmax of row 0."),
            Misconception(
                "mask-lets-the-next-one-through", lambda T: np.where(np.tri(T, k=1) == 1, 0.0, -np.inf),
                "The next position is the answer that is to be predicted: it has to be hidden.",
                "print row 0: only its first entry may be 0."),
            Misconception(
                "ones-and-zeros", lambda T: np.tri(T),
                "This mask is added to the scores. A score that 0 is added to stays; only -inf leaves no weight.",
                "print softmax of [1, 2] + [1, 0]: both still have weight."),
            Misconception(
                "infinity-times-zero", lambda T: np.triu(np.ones((T, T)), 1) * -np.inf,
                "0 times infinity is nan. np.where chooses between two values without multiplying.",
                "print 0.0 * -np.inf."),
        )),
    Task(
        attention_weights, "P",
        checks=(Check("T = 4, c = 3", queries_and_keys(4, 3)),
                Check("T = 6, c = 2", queries_and_keys(6, 2)),
                Check("T = c = 4, where a wrong transpose raises no error", queries_and_keys(4, 4)),
                Check("T = 1", queries_and_keys(1, 5), example=lambda: (np.ones((1, 2)), np.full((1, 2), 3.0)))),
        hints=("Four steps lead from Q and K to P. In which order: softmax, scaling, product, mask?",
               "P = softmax(Q K^T / sqrt(c) + mask), with Q K^T of shape (T, T) and c = Q.shape[1].",
               "return softmax(____ @ ____ / np.sqrt(____) + ____)"),
        misconceptions=(
            Misconception(
                "scores-not-scaled", weights(scale=lambda T, c: 1),
                "A sum of c products grows like sqrt(c); without the division wide heads look at one position only.",
                "print the weights for c = 2 and for c = 200."),
            Misconception(
                "divided-by-c", weights(scale=lambda T, c: c),
                "Scores are divided by sqrt(c): a sum of c random products has a size of about sqrt(c), not c.",
                "measure (Q @ K.T).std() for c = 4 and for c = 400."),
            Misconception(
                "divided-by-the-root-of-T", weights(scale=lambda T, c: T ** 0.5),
                "c is the number of columns of Q, what the products are summed over; T is the number of positions.",
                "print Q.shape."),
            Misconception(
                "mask-left-out", weights(mask=lambda T: 0),
                "Without the mask every position sees the ones that it is to predict.",
                "print P[0]: the first position may look at itself only."),
            Misconception(
                "mask-after-softmax", lambda Q, K: weights(mask=lambda T: 0)(Q, K) * np.tri(len(Q)),
                "Weights that are set to 0 after the softmax leave rows that no longer sum to 1: mask the scores.",
                "print P.sum(axis=-1)."),
            Misconception(
                "hidden-scores-set-to-zero", lambda Q, K: over(-1)(Q @ K.T / Q.shape[1] ** 0.5 * np.tri(len(Q))),
                "A score of 0 is a score like any other, and gets a weight: hidden scores are -inf before the softmax.",
                "print np.exp(0.0) and np.exp(-np.inf)."),
            Misconception(
                "columns-sum-to-one", weights(axis=-2),
                "Each query shares out a weight of 1 among the keys: rows sum to 1.",
                "print P.sum(axis=-1) and P.sum(axis=-2)."),
            Misconception(
                "keys-ask-the-queries", weights(scores=lambda Q, K: K @ Q.T),
                "Row i belongs to query i: the product is Q @ K.T.",
                "set Q[0] to zero: row 0 of the scores must be zero, not column 0."),
        )),
)
