"""Exercise 14: three pieces of a real language model: the targets of a completion, a block of 4 bits, RMSNorm.

Plain Python and NumPy.
Check your work with: python -m lessons check 14
"""

import numpy as np


def completion_targets(prompt, completion, end, length):
    """(x, y), two lists of `length` ids, with which a model learns a completion and nothing else.

    The text is the ids of the prompt, those of the completion, and the id `end`. x holds the text without its last id,
    and y what is to be predicted at each place of x: the next id where that is of the completion or its end, and -100
    elsewhere. On the right x is filled up with `end`, and y with -100. The text is at most length + 1 ids long.

    Example: completion_targets([5, 6, 7], [8, 9], 2, 6) gives x = [5, 6, 7, 8, 9, 2] and
    y = [-100, -100, 8, 9, 2, -100]. The last 2 of x is filling; the 2 of y is where the model learns to stop.
    """
    raise NotImplementedError


def unpack_q4_1(scale, shift, codes):
    """The weights (32 n,) of n blocks of 32: each weight is scale * q + shift, with a q of 4 bits, from 0 to 15.

    scale, shift: (n,), one for each block. codes: (n, 16), bytes (uint8). The low four bits of a block's byte j are the
    q of its weight j, the high four bits that of its weight j + 16.

    Example: a block with scale 0.5, shift -1 and sixteen bytes of 0x31 holds sixteen times 0.5 * 1 - 1 = -0.5, then
    sixteen times 0.5 * 3 - 1 = 0.5.
    """
    raise NotImplementedError


def rms_norm(x, weight, eps, g):
    """(y, dx, dweight): RMSNorm of each row of x, and its gradients for an upstream gradient g = dL/dy.

    y = x / rms * weight with rms = sqrt(mean(x^2) + eps), a number for each row. x, g, y, dx: (n, d). weight, dweight:
    (d,). Every x of a row has a part in the row's rms, so every dx depends on all of the row's g.

    Example: with x = [[1, 7]], weight = [1, 10], eps = 0 and g = [[5, 0]], rms is 5, y = [[0.2, 14]],
    dx = [[0.98, -0.14]] and dweight = [1, 0].
    """
    raise NotImplementedError
