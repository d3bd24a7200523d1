"""Exercise 02: going back through a matrix product and through broadcasting.

G is the upstream gradient: G[i, j] = dL/dH[i, j], of the shape of H. Plain NumPy.
Check your work with: python -m lessons check 02
"""

import numpy as np


def matmul_backward(X, M, G):
    """(dX, dM) for H = X @ M. X: (n, k), M: (k, m), G: (n, m). dX has the shape of X, dM that of M.

    Example: with X = [[1, 2]], M = [[3], [4]] and G = [[10]], dX = [[30, 40]] and dM = [[10], [20]].
    """
    raise NotImplementedError


def unbroadcast(G, shape):
    """Sum G over the axes along which an operand of this shape was broadcast; the result has that shape.

    Broadcasting puts missing axes in front, and stretches axes of size 1.

    Example: with G = [[1, 2, 3], [4, 5, 6]], shape (3,) gives [5, 7, 9], shape (2, 1) gives [[6], [15]].
    """
    raise NotImplementedError
