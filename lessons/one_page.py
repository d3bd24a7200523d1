"""LoRA on one page (Hu et al. 2021, arXiv 2106.09685), in NumPy alone: python lessons/one_page.py

    h = W0 x + (alpha / r) B A x        W0: (d, k) frozen, B: (d, r) and A: (r, k) trained
"""

import numpy as np


# %% The engine: a result keeps its operands, and for each of them how the gradient flows back
class Tensor:
    def __init__(self, data, *edges, trainable=False):
        self.data, self.grad = np.asarray(data), None
        self.edges = [(t, vjp) for t, vjp in edges if t.learns]  # none to what is frozen
        self.learns = trainable or bool(self.edges)
        self.depth = 1 + max((t.depth for t, _ in self.edges), default=0)

    def __matmul__(self, other):
        X, Y = self.data, other.data
        return Tensor(X @ Y, (self, lambda g: g @ Y.T), (other, lambda g: X.T @ g))

    def __add__(self, other):
        return Tensor(self.data + other.data, (self, lambda g: g), (other, lambda g: g))

    def __mul__(self, number):
        return Tensor(self.data * number, (self, lambda g: g * number))

    def relu(self):
        positive = self.data > 0
        return Tensor(self.data * positive, (self, lambda g: g * positive))

    def mean_squared_error(self, y):
        e = self.data - y
        return Tensor((e ** 2).mean(), (self, lambda g: g * 2 * e / e.size))

    def backward(self):
        arrived = {self: np.ones_like(self.data)}
        while arrived:
            t = max(arrived, key=lambda t: t.depth)  # what used t lies deeper, and is done
            t.grad = arrived.pop(t)
            for operand, vjp in t.edges:  # the chain rule
                arrived[operand] = arrived.get(operand, 0) + vjp(t.grad)


# %% LoRA: a frozen layer, and beside it a thin one that learns
class LoraLinear:
    def __init__(self, W0, r, alpha, rng):
        d, k = W0.shape
        self.W0 = Tensor(W0)
        self.A = Tensor(rng.uniform(-1, 1, (r, k)) / k ** 0.5, trainable=True)
        self.B = Tensor(np.zeros((d, r)), trainable=True)  # so it starts as the frozen layer
        self.scaling = alpha / r

    def __call__(self, x):  # (k, n) -> (d, n): n inputs, each a column
        return self.W0 @ x + self.B @ (self.A @ x) * self.scaling

    def merged(self):
        return self.W0.data + self.B.data @ self.A.data * self.scaling


# %% Two layers as if pretrained, W, and what a new task wants of them, V: rank 1 away from W
rng = np.random.default_rng(0)
W1, W2 = rng.normal(size=(48, 64)) / 8, rng.normal(size=(32, 48)) / 7
V1 = W1 + rng.normal(size=(48, 1)) @ rng.normal(size=(1, 64)) / 16
V2 = W2 + rng.normal(size=(32, 1)) @ rng.normal(size=(1, 48)) / 16
x = rng.normal(size=(64, 512))
y = V2 @ np.maximum(V1 @ x, 0)

first, second = LoraLinear(W1, 2, 4, rng), LoraLinear(W2, 2, 4, rng)
for step in range(401):
    loss = second(first(Tensor(x)).relu()).mean_squared_error(y)
    loss.backward()
    for t in (first.A, first.B, second.A, second.B):
        t.data = t.data - 0.3 * t.grad
    if step % 100 == 0:
        print(f"step {step:>3}: loss {loss.data:.5f}")

assert first.W0.grad is None and second.W0.grad is None  # frozen: never computed
h = second(first(Tensor(x)).relu()).data
assert np.allclose(second.merged() @ np.maximum(first.merged() @ x, 0), h)  # merged: plain again
