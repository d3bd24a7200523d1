"""Exercise 04: a step of gradient descent, and the loop around it.

A parameter p is a lora_np Tensor: p.data is its array, p.grad its gradient or None. p.data = new gives it new numbers;
the array itself cannot be changed in place. Parameters may arrive with gradients from earlier.
Check your work with: python -m lessons check 04
"""


def sgd_step(parameters, lr):
    """Move each parameter against its gradient: p becomes p - lr * gradient. Returns nothing.

    A parameter whose gradient is None stays where it is.

    Example: with p.data = [1.0, 2.0], p.grad = [10.0, -10.0] and lr = 0.1, p.data becomes [0.0, 3.0].
    """
    # <solution>
    for p in parameters:
        if p.grad is not None:
            p.data = p.data - lr * p.grad
    # </solution>


def train(parameters, loss, lr, steps):
    """Run so many steps of gradient descent; returns the list of losses, each a number from before its step.

    loss: a function without arguments that computes the loss from the parameters, as a Tensor. t.backward() adds
    gradients to those that are there; t.item() is a Tensor's number.

    Example: train([w], lambda: (w * w).sum(), 0.1, 3) returns 3 losses, the first of them that of w as it was.
    """
    # <solution>
    losses = []
    for _ in range(steps):
        value = loss()
        for p in parameters:
            p.grad = None
        value.backward()
        for p in parameters:
            p.data = p.data - lr * p.grad
        losses.append(value.item())
    return losses
    # </solution>
