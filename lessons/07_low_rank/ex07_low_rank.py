"""Exercise 07: cutting a matrix down to rank r, and asking how much rank it needs.

np.linalg.svd(D, full_matrices=False) gives U (d, p), s (p,) and Vt (p, k), with p = min(d, k) and D = U * s @ Vt;
the singular values s fall from the first to the last.
Check your work with: python -m lessons check 07
"""

import numpy as np


def low_rank(D, r):
    """(B, A), whose product is the matrix of rank r closest to D. D: (d, k), B: (d, r), A: (r, k).

    Example: for D = [[3, 0], [0, 1]] and r = 1, B @ A is [[3, 0], [0, 0]].
    """
    raise NotImplementedError


def effective_rank(D, share):
    """The smallest rank whose closest matrix keeps at least this share of the squared norm of D.

    The squared norm is the sum of all squared entries, and also that of all squared singular values. share: in (0, 1).

    Example: D = [[3, 0], [0, 1]] has a squared norm of 10, of which rank 1 keeps 9: 1 for 0.8, and 2 for 0.95.
    """
    raise NotImplementedError
