"""A real language model in lora_np, through its public interface."""

from contextlib import ExitStack

from lora_np import LoraConfig, generate
from lora_np.checkpoint import load_model
from lora_np.extras.fast.parallel import data_parallel
from lora_np.lora import add_lora
from lora_np.optim import AdamW
from lora_np.support.memory import keep_freed_memory
from lora_np.train import next_token_loss

from ..work import ALPHA, LEARNING_RATE, RANK, TARGETS

VERSION = "lora_np"


class Contender:
    """quantized: the matrices stay in their blocks. share: how many threads share a batch out, as in fit."""

    def __init__(self, path, trained, quantized=False, share=1):
        keep_freed_memory()
        self.model = load_model(path, quantized=quantized)
        if trained:
            add_lora(self.model, LoraConfig(RANK, ALPHA, TARGETS))
            self.optimizer = AdamW(self.model.trainable_parameters(), LEARNING_RATE)
        self.open = ExitStack()  # its threads live as long as this
        self.loss = self.open.enter_context(data_parallel(next_token_loss, share))

    def start_at(self, arrays):
        """Take A and B of another contender."""
        for name, t in self.model.named_parameters():
            if t.requires_grad:
                t.data = arrays[name]

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = self.loss(self.model, x, y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def generate(self, ids, n):
        return generate(self.model, ids, n, temperature=0)
