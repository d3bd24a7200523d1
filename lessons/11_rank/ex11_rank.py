"""Exercise 11: what a rank can reach at best, and how r and alpha belong together.

Check your work with: python -m lessons check 11
"""

import numpy as np


def floor(D, r):
    """The smallest squared distance from D to any matrix of rank r: the sum of the squared singular values left out.

    D: (d, k). The squared distance is the sum of the squared entries of the difference.
    np.linalg.svd(D, compute_uv=False) gives the singular values, the largest first.

    Example: for D = [[3, 0], [0, 2]] it is 13 at r = 0, 4 at r = 1 and 0 at r = 2.
    """
    raise NotImplementedError


def scaling(alpha, r, use_rslora=False):
    """What B A is multiplied by: alpha / r, or alpha / sqrt(r) with rsLoRA.

    Example: scaling(16, 4) is 4.0, scaling(16, 4, use_rslora=True) is 8.0.
    """
    raise NotImplementedError


def matching_alpha(alpha, r, new_r, use_rslora=False):
    """The alpha that keeps the scaling as it was when the rank changes from r to new_r.

    Example: matching_alpha(8, 4, 16) is 32.0, matching_alpha(8, 4, 16, use_rslora=True) is 16.0.
    """
    raise NotImplementedError
