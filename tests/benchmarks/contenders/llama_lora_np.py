"""A real language model in lora_np, through its public interface."""


from lora_np import LoraConfig, generate
import sys; sys.path.insert(0, "/tmp/llama_work"); from real import load
from lora_np.lora import add_lora
from lora_np.optim import AdamW
from lora_np.train import next_token_loss

VERSION = "lora_np"


class Contender:
    def __init__(self, path, r, quantized=False):
        import os
        from lora_np.parallel import data_parallel
        from lora_np.support.memory import keep_freed_memory
        keep_freed_memory()
        self.ctx = data_parallel(next_token_loss, int(os.environ.get('DP', '1')))
        self.loss = self.ctx.__enter__()
        self.model = load().eval()
        if r:
            add_lora(self.model, LoraConfig(r, lora_alpha=2 * r, target_modules=("q_proj", "v_proj")))
            self.optimizer = AdamW(self.model.trainable_parameters(), 1e-4)

    def start_at(self, arrays):
        """Take A and B from another contender: {name without prefix and suffix: array}."""
        for name, t in self.model.named_parameters():
            if "lora_" in name:
                t.data = arrays[name]

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = self.loss(self.model, x, y)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def generate(self, ids, n):
        return generate(self.model, ids, n, temperature=0)
