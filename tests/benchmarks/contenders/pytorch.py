"""PyTorch in eager mode, with its fused attention and its AdamW as they come."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from .. import work

VERSION = f"PyTorch {torch.__version__}"


class LoraLinear(nn.Module):
    def __init__(self, d, r, scaling):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(d, d)), nn.Parameter(torch.empty(d))
        self.lora_A, self.lora_B = nn.Parameter(torch.empty(r, d)), nn.Parameter(torch.empty(d, r))
        self.scaling = scaling

    def forward(self, x):
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, self.lora_A) * self.scaling, self.lora_B)


class Attention(nn.Module):
    def __init__(self, size, mode):
        super().__init__()
        self.heads = size.n_heads
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            lora = mode == "lora" and name in work.TARGETS
            setattr(self, name, LoraLinear(size.d_model, size.r, size.scaling) if lora
                    else nn.Linear(size.d_model, size.d_model))

    def forward(self, x):
        B, T, d = x.shape
        q, k, v = (proj(x).view(B, T, self.heads, d // self.heads).transpose(1, 2)
                   for proj in (self.q_proj, self.k_proj, self.v_proj))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out_proj(y.transpose(1, 2).reshape(B, T, d))


class Block(nn.Module):
    def __init__(self, size, mode):
        super().__init__()
        self.self_attn = Attention(size, mode)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(size.d_model), nn.LayerNorm(size.d_model)
        self.fc1, self.fc2 = nn.Linear(size.d_model, size.d_ff), nn.Linear(size.d_ff, size.d_model)

    def forward(self, x):
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(F.relu(self.fc1(self.final_layer_norm(x))))


class GPT(nn.Module):
    def __init__(self, size, mode):
        super().__init__()
        self.embed_tokens = nn.Embedding(work.VOCABULARY, size.d_model)
        self.embed_positions = nn.Embedding(size.context, size.d_model)
        self.layers = nn.ModuleList(Block(size, mode) for _ in range(size.n_layers))
        self.final_layer_norm = nn.LayerNorm(size.d_model)
        self.register_buffer("positions", torch.arange(size.context), persistent=False)

    def forward(self, ids):
        x = self.embed_tokens(ids) + self.embed_positions(self.positions)
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.final_layer_norm(x), self.embed_tokens.weight)


class Contender:
    def __init__(self, size, weights, mode):
        self.model = GPT(size, mode).to(getattr(torch, weights["embed_tokens.weight"].dtype.name))
        self.model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
        for name, p in self.model.named_parameters():
            p.requires_grad_(work.is_trained(name, mode))
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, work.LEARNING_RATE, work.BETAS, work.EPS, weight_decay=0)

    def loss(self, x, y):
        logits = self.model(torch.from_numpy(x))
        return F.cross_entropy(logits.view(-1, work.VOCABULARY), torch.from_numpy(np.ascontiguousarray(y)).view(-1))

    def loss_and_gradients(self, x, y):
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        return loss.item(), {n: p.grad.numpy().copy() for n, p in self.model.named_parameters() if p.requires_grad}

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        return loss
