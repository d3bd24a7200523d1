"""lora_np, through its public interface."""

from lora_np import GPT, GPTConfig, LoraConfig, ops
from lora_np.lora import add_lora
from lora_np.optim import AdamW

from .. import work

VERSION = "lora_np"


class Contender:
    def __init__(self, size, weights, mode):
        self.model = GPT(GPTConfig(work.VOCABULARY, size.context, size.d_model, size.n_heads, size.n_layers,
                                   size.d_ff, dtype=weights["embed_tokens.weight"].dtype))
        if mode == "lora":
            add_lora(self.model, LoraConfig(size.r, work.ALPHA, work.TARGETS))
        self.model.load_state_dict(weights)
        self.optimizer = AdamW(self.model.trainable_parameters(), work.LEARNING_RATE, work.BETAS, work.EPS)

    def loss(self, x, y):
        return ops.cross_entropy(self.model(x), y)

    def loss_and_gradients(self, x, y):
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        return loss.item(), {n: t.grad for n, t in self.model.named_parameters() if t.requires_grad}

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        return loss
