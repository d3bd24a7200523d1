"""HIPS autograd: the composed model, differentiated with respect to what is trained."""

from importlib.metadata import version

import autograd.numpy as anp
import numpy as np
from autograd import value_and_grad

from .. import work
from . import composed

VERSION = f"autograd {version('autograd')}"


class Contender:
    def __init__(self, size, weights, mode):
        self.size, self.rows = size, np.arange(size.batch * size.context)
        self.mask = composed.mask(size, weights["embed_tokens.weight"].dtype)
        self.trained = {n: a.copy() for n, a in weights.items() if work.is_trained(n, mode)}
        self.frozen = {n: a for n, a in weights.items() if n not in self.trained}
        self.optimizer = composed.AdamW(self.trained)
        self.value_and_grad = value_and_grad(self.loss)

    def loss(self, trained, x, y):
        return composed.loss(anp, self.frozen | dict(trained.items()), self.size, x, y, self.mask, self.rows)

    def loss_and_gradients(self, x, y):
        loss, gradients = self.value_and_grad(self.trained, x, y)
        return float(loss), gradients

    def step(self, x, y):
        loss, gradients = self.value_and_grad(self.trained, x, y)
        self.optimizer.step(gradients)
        return loss
