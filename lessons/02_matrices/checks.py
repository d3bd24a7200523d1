"""Checks of exercise 02. The right answers come from the engine's matmul and add."""

import numpy as np

from lessons.course.checking.tasks import Check, Misconception, Task
from lora_np import Tensor

NAME = "ex02_matrices"
TITLE = "matrix product and broadcasting"
ROWS = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def matmul_backward(X, M, G):
    X, M = Tensor(X, requires_grad=True), Tensor(M, requires_grad=True)
    (X @ M).backward(G)
    return X.grad, M.grad


def unbroadcast(G, shape):
    operand = Tensor(np.zeros(shape), requires_grad=True)
    (operand + np.zeros(G.shape)).backward(G)
    return operand.grad


def product(n, k, m):
    return lambda rng: (rng.normal(size=(n, k)), rng.normal(size=(k, m)), rng.normal(size=(n, m)))


def stretched(shape, to):
    return lambda rng: (rng.normal(size=to), shape)


def reduced(reduce):
    """unbroadcast with something else in the place of the sum over an axis that was stretched or put in front."""
    def wrong(G, shape):
        while G.ndim > len(shape):
            G = reduce(G, 0)[0]
        for axis, n in enumerate(shape):
            if n == 1 and G.shape[axis] != 1:
                G = reduce(G, axis)
        return G
    return wrong


def only_new_axes(G, shape):
    while G.ndim > len(shape):
        G = G.sum(axis=0)
    return G


def axes_lost(G, shape):
    G = only_new_axes(G, shape)
    return G.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1))


def only_one_axis(G, shape):
    G = only_new_axes(G, shape)
    stretched = [axis for axis, n in enumerate(shape) if n == 1]
    return G.sum(axis=stretched[0], keepdims=True) if stretched else G


TASKS = (
    Task(
        matmul_backward, ("dX", "dM"),
        checks=(Check("X (4, 5), M (5, 3), uneven upstream gradients", product(4, 5, 3), example=lambda: (
                    np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]]), np.array([[10.0]]))),
                Check("one row", product(1, 3, 6)),
                Check("three square matrices, where every transpose fits", product(3, 3, 3))),
        hints=("H[i, j] is the sum over k of X[i, k] M[k, j]. In which entries of H does X[i, k] appear, and times "
               "what?",
               "dX[i, k] = sum over j of G[i, j] M[k, j]; dM[k, j] = sum over i of X[i, k] G[i, j].",
               "return G @ ____, ____ @ G"),
        misconceptions=(
            Misconception(
                "W-not-transposed", lambda X, M, G: (G @ M, X.T @ G),
                "The sum in dX runs over the columns of M, so M is transposed: dX = G M^T.",
                "write both as np.einsum('ij,kj->ik', G, M), and read off which index is summed.",
                called="M not transposed"),
            Misconception(
                "X-not-transposed", lambda X, M, G: (G @ M.T, X @ G),
                "The sum in dM runs over the rows of X, so X is transposed: dM = X^T G.",
                "write it as np.einsum('ik,ij->kj', X, G), and read off which index is summed."),
            Misconception(
                "no-factor-transposed", lambda X, M, G: (G @ M, X @ G),
                "The shapes must fit: dX = G M^T is (n, m) times (m, k), and dM = X^T G is (k, n) times (n, m).",
                "write the shapes of X, M and G under each product."),
            Misconception(
                "factors-exchanged-in-dX", lambda X, M, G: (M @ G, X.T @ G),
                "dX = G M^T: each row of dX belongs to a row of G, so G stands on the left.",
                "change one row of G: only that row of dX may move."),
            Misconception(
                "dW-transposed", lambda X, M, G: (G @ M.T, G.T @ X),
                "A gradient has the shape of what it belongs to: dM = X^T G is (k, m), like M.",
                "print M.shape beside the shape of your dM.",
                called="dM transposed"),
            Misconception(
                "dX-transposed", lambda X, M, G: (M @ G.T, X.T @ G),
                "A gradient has the shape of what it belongs to: dX = G M^T is (n, k), like X.",
                "print X.shape beside the shape of your dX."),
            Misconception(
                "gradients-in-the-other-order", lambda X, M, G: (X.T @ G, G @ M.T),
                "The first result is the gradient of X, the second that of M.",
                "print both shapes beside X.shape and M.shape."),
            Misconception(
                "upstream-gradient-ignored", lambda X, M, G: (np.ones(G.shape) @ M.T, X.T @ np.ones(G.shape)),
                "G says how much each entry of H matters to the loss; with ones, the loss would be H.sum().",
                "double G: both gradients must double."),
        )),
    Task(
        unbroadcast, "the result",
        checks=(Check("a new axis in front: (3,) to (4, 3)", stretched((3,), (4, 3)),
                      example=lambda: (ROWS.copy(), (3,))),
                Check("a stretched axis: (4, 1) to (4, 3)", stretched((4, 1), (4, 3)),
                      example=lambda: (ROWS.copy(), (2, 1))),
                Check("two stretched axes: (1, 4, 1) to (2, 4, 3)", stretched((1, 4, 1), (2, 4, 3))),
                Check("both: (1, 3) to (2, 4, 3)", stretched((1, 3), (2, 4, 3))),
                Check("nothing was broadcast", stretched((4, 3), (4, 3)), also=(lambda: (np.ones((1, 3)), (1, 3)),)),
                Check("a single number: () to (4, 3)", stretched((), (4, 3)))),
        hints=("b of shape (3,) is added to each of 4 rows. Into how many places does b[0] go, and what does a value "
               "get that is used in several places?",
               "Sum over the axes that are missing in front, then over each axis of size 1, which stays with size 1.",
               "while G.ndim > len(shape): G = G.sum(axis=____)        then, where n == 1: "
               "G = G.sum(axis=axis, keepdims=____)"),
        misconceptions=(
            Misconception(
                "averaged-instead-of-summed", reduced(lambda G, axis: G.mean(axis=axis, keepdims=True)),
                "A value that was copied to several places gets the sum of what comes back from them.",
                "add b to 1000 rows with G all ones: each entry of b moves the loss by 1000 times its own move."),
            Misconception(
                "first-copy-taken", reduced(lambda G, axis: np.take(G, [0], axis=axis)),
                "Every copy sends something back, not only the first.",
                "set the first row of G to zero: the gradient must not vanish."),
            Misconception(
                "largest-copy-taken", reduced(lambda G, axis: G.max(axis=axis, keepdims=True)),
                "Every copy sends something back, and all of it adds up.",
                "use a G of ones with four rows: the gradient is 4."),
            Misconception(
                "only-new-axes-summed", only_new_axes,
                "Axes of size 1 were stretched, too: sum over them, and keep them with size 1.",
                "print the shape of your result for shape (4, 1)."),
            Misconception(
                "only-one-axis-summed", only_one_axis,
                "Every axis of size 1 was stretched, not only the first of them: go on after it.",
                "print the shape of your result for shape (1, 1)."),
            Misconception(
                "axes-of-size-1-lost", axes_lost,
                "The result has the operand's shape: an axis of size 1 stays. keepdims=True keeps it.",
                "print the shape of your result for shape (4, 1)."),
            Misconception(
                "everything-summed", lambda G, shape: np.full(shape, G.sum()),
                "Only what was copied is summed; entries of the operand that are not the same number stay apart.",
                "use shape (3,) and a G with a single 1 in column 0: only entry 0 gets something."),
        )),
)
