"""The same in PyTorch, eager: PEFT for the training, Transformers for generating, as they come."""

import os

import peft
import torch
import transformers
from transformers import AutoModelForCausalLM

VERSION = f"PyTorch {torch.__version__}, Transformers {transformers.__version__}, PEFT {peft.__version__}"
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


class Contender:
    def __init__(self, folder, r):
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model.eval()
        if r:
            config = peft.LoraConfig(r=r, lora_alpha=2 * r, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
            self.model = peft.get_peft_model(self.model, config)
            trained = [p for p in self.model.parameters() if p.requires_grad]
            self.optimizer = torch.optim.AdamW(trained, 1e-4, weight_decay=0)

    def start(self):
        return {name.removeprefix("base_model.model.model.").replace(".default.weight", ""): p.detach().numpy().copy()
                for name, p in self.model.named_parameters() if p.requires_grad}

    def step(self, x, y):
        self.optimizer.zero_grad()
        x, y = torch.from_numpy(x), torch.from_numpy(y)
        loss = self.model(input_ids=x, labels=y, shift_labels=y).loss
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def generate(self, ids, n):
        with torch.no_grad():
            return self.model.generate(torch.tensor(ids[None]), attention_mask=torch.ones((1, len(ids)), dtype=int),
                                       max_new_tokens=n, min_new_tokens=n, do_sample=False)[0].numpy()
