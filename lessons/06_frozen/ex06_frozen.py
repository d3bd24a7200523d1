"""Exercise 06: what freezing saves in the backward pass, and what it cannot save.

x: (n, k) in rows. A layer h = x W0^T with a weight W0 (d, k). Plain NumPy, and lora_np Tensors in freeze.
Check your work with: python -m lessons check 06
"""

import numpy as np


def frozen_backward(W0, g):
    """The gradient dx (n, k) of a frozen layer h = x W0^T, for an upstream gradient g = dL/dh (n, d).

    Example: with W0 = [[1, 2, 3]] and g = [[10]], dx = [[10, 20, 30]].
    """
    raise NotImplementedError


def below_frozen(x, W1, W0, g):
    """The gradient dW1 of a trainable layer below a frozen one: z = x W1^T, h = relu(z) W0^T, W0 frozen.

    x: (n, k), W1: (m, k), W0: (d, m), g = dL/dh: (n, d). relu(z) is z where z > 0, else 0; its slope at 0 counts
    as 0.

    Example: with x = [[2]], W1 = [[3]], W0 = [[5]], g = [[1]]: z = 6, and dW1 = [[10]].
    """
    raise NotImplementedError


def freeze(parameters, trained):
    """Let exactly the parameters named in `trained` require a gradient. Returns how many numbers they hold.

    parameters: {name: Tensor}. Set t.requires_grad of these Tensors to True or False, and do not replace them: a model
    holds the same ones. t.size is the number of entries of t.
    trained: a list of names, each of them in parameters.

    Example: freeze({"a": Tensor([1.0, 2.0]), "b": Tensor([3.0])}, ["b"]) freezes a and returns 1.
    """
    raise NotImplementedError
