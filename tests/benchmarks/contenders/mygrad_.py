"""MyGrad: the composed model; frozen weights are constant tensors."""

import mygrad as mg
import numpy as np

from .. import work
from . import composed

VERSION = f"MyGrad {mg.__version__}"


class Contender:
    def __init__(self, size, weights, mode):
        self.size, self.rows = size, np.arange(size.batch * size.context)
        self.mask = composed.mask(size, weights["embed_tokens.weight"].dtype)
        self.w = {n: mg.tensor(a, constant=not work.is_trained(n, mode)) for n, a in weights.items()}
        self.trained = {n: t for n, t in self.w.items() if not t.constant}
        self.optimizer = composed.AdamW({n: t.data for n, t in self.trained.items()})

    def backward(self, x, y):
        loss = composed.loss(mg, self.w, self.size, x, y, self.mask, self.rows)
        loss.backward()
        return loss, {n: t.grad for n, t in self.trained.items()}

    def loss_and_gradients(self, x, y):
        loss, gradients = self.backward(x, y)
        return loss.item(), gradients

    def step(self, x, y):
        loss, gradients = self.backward(x, y)
        self.optimizer.step(gradients)
        return loss
