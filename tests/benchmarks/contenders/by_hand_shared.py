"""The step by hand, half of the batch on each of two threads: what NumPy itself can gain from sharing a batch out."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from lora_np.extras.fast.blas import one_blas_thread

from . import by_hand

VERSION = by_hand.VERSION


class Contender(by_hand.Contender):
    def __init__(self, size, weights, mode):
        super().__init__(size, weights, mode)
        self.other = by_hand.Contender(size, weights, mode)
        self.other.w = self.w  # the same weights; the gradients are its own
        self.pool = ThreadPoolExecutor(1)
        self.open = ExitStack()  # one BLAS thread for as long as this lives
        self.open.enter_context(one_blas_thread(True))

    def loss_and_gradients(self, x, y):
        half = len(x) // 2
        other = self.pool.submit(self.other.loss_and_gradients, x[half:], y[half:])
        loss, _ = super().loss_and_gradients(x[:half], y[:half])
        more, _ = other.result()
        self.gradient += self.other.gradient
        self.gradient *= 0.5
        return (loss + more) / 2, self.dw
