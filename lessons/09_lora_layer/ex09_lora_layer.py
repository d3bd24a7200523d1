"""Exercise 09: the LoRA layer, forward and backward.

    h = W0 x + (alpha / r) B A x        W0: (d, k), frozen. A: (r, k). B: (d, r).

On a batch, each row of x is one input and each row of h its output. Plain NumPy.
Check your work with: python -m lessons check 09
"""

import numpy as np


def lora_init(d, k, r, rng):
    """The factors (A, B) before training, for a weight of d rows and k columns.

    A: (r, k), from the uniform distribution between -1/sqrt(k) and 1/sqrt(k). B: (d, r), zeros.
    rng: an np.random.Generator; rng.uniform(low, high, shape) draws.

    Example: lora_init(3, 5, 2, np.random.default_rng(0)) gives A of shape (2, 5) and B of shape (3, 2).
    """
    raise NotImplementedError


def lora_forward(x, W0, A, B, alpha):
    """h for a batch: x (n, k) to h (n, d).

    Example: with x = [[2, 3]], W0 = [[-2, -1], [1, -1]], A = [[3, -1]], B = [[2], [0.5]] and alpha = 2,
    the frozen path gives [[-7, -1]], the update [[12, 3]], and h is their sum [[5, 2]].
    """
    raise NotImplementedError


def lora_backward(x, W0, A, B, alpha, g):
    """(dA, dB, dx) for an upstream gradient g = dL/dh of shape (n, d). W0 is frozen: there is no dW0.

    dA: (r, k), dB: (d, r), dx: (n, k), each the shape of what it is the gradient of.

    Example: with the numbers above and g = [[2, -3]], dA = [[10, 15]], dB = [[12], [-18]], dx = [[8, -4]].
    """
    raise NotImplementedError
