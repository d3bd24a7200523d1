"""The same in PyTorch, eager: PEFT for training, Transformers for generating, each as it comes."""

import os

import peft
import torch
import transformers

from ..work import ALPHA, LEARNING_RATE, RANK, TARGETS

VERSION = f"PyTorch {torch.__version__}, Transformers {transformers.__version__}, PEFT {peft.__version__}"


class Contender:
    def __init__(self, folder, trained):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        if trained:
            config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM")
            self.model = peft.get_peft_model(self.model, config)
            trained = [p for p in self.model.parameters() if p.requires_grad]
            self.optimizer = torch.optim.AdamW(trained, LEARNING_RATE, weight_decay=0)

    def start(self):
        """A and B under lora_np's names."""
        return {name.removeprefix("base_model.model.model.").replace(".default.weight", ""): p.detach().numpy().copy()
                for name, p in self.model.named_parameters() if p.requires_grad}

    def step(self, x, y):
        self.optimizer.zero_grad()
        x, y = torch.from_numpy(x), torch.from_numpy(y)
        loss = self.model(input_ids=x, labels=y, shift_labels=y).loss  # y stands where it is to be predicted
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def generate(self, ids, n):
        ids = torch.from_numpy(ids)[None]
        return self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, min_new_tokens=n,
                                   do_sample=False)[0].numpy()
