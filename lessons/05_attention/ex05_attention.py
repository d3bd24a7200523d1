"""Exercise 05: from queries and keys to attention weights.

T positions, c numbers in each query and key. Plain NumPy.
Check your work with: python -m lessons check 05
"""

import numpy as np


def softmax(S):
    """exp(S) divided by its sum over the last axis, of the shape of S; safe for scores of any size.

    S: (..., n), with at least one finite score in each row; the others may be -inf.

    Example: softmax(np.array([[0.0, np.log(3.0)], [1000.0, 1000.0]])) is [[0.25, 0.75], [0.5, 0.5]].
    """
    raise NotImplementedError


def causal_mask(T):
    """What is added to the scores (T, T): 0 where the key is not later than the query, -inf where it is.

    Queries down, keys across.

    Example: causal_mask(2) is [[0, -inf], [0, 0]].
    """
    raise NotImplementedError


def attention_weights(Q, K):
    """P (T, T): row i holds how much position i looks at each position, and sums to 1. Q, K: (T, c).

    The scores are Q K^T / sqrt(c), with the causal mask. You may use the two functions above.

    Example: for T = 1 it is [[1.0]], whatever Q and K are.
    """
    raise NotImplementedError
