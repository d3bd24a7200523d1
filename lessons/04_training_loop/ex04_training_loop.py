"""Exercise 04: a step of gradient descent, the loop around it, and a step of AdamW.

A parameter p is a lora_np Tensor: p.data is its array, p.grad its gradient or None. p.data = new gives it new numbers;
the array itself cannot be changed in place. Parameters may arrive with gradients from earlier.
Check your work with: python -m lessons check 04
"""

import numpy as np


def sgd_step(parameters, lr):
    """Move each parameter against its gradient: p becomes p - lr * gradient. Returns nothing.

    A parameter whose gradient is None stays where it is.

    Example: with p.data = [1.0, 2.0], p.grad = [10.0, -10.0] and lr = 0.1, p.data becomes [0.0, 3.0].
    """
    raise NotImplementedError


def train(parameters, loss, lr, steps):
    """Run so many steps of gradient descent; returns the list of losses, each a number from before its step.

    loss: a function without arguments that computes the loss from the parameters, as a Tensor. t.backward() adds
    gradients to those that are there; t.item() is a Tensor's number.

    Example: train([w], lambda: (w * w).sum(), 0.1, 3) returns 3 losses, the first of them that of w as it was.
    """
    raise NotImplementedError


def adamw_step(w, g, mean, square, t, lr, weight_decay):
    """A step of AdamW for one parameter, in plain NumPy: the tuple (w, mean, square) after it, new arrays.

    w, g: the parameter and its gradient. mean, square: the running means of g and of g^2 before this step. All have
    one shape. t: the number of this step, from 1. beta1 = 0.9, beta2 = 0.999, and 1e-8 is added to the root.
    weight_decay: lr * weight_decay * w is subtracted as well, with w as it was before the step.

    Example: w = [1.0, 2.0], g = [3.0, -0.01], means of zero, t = 1, lr = 0.1 and no weight decay give w = [0.9, 2.1],
    mean = [0.3, -0.001] and square = [0.009, 1e-7]: step 1 moves every number by the learning rate.
    """
    raise NotImplementedError
