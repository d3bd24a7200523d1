"""A decoder-only transformer: OPT's architecture under OPT's module names (Zhang et al. 2022).

Pre-LayerNorm, learned positions, ReLU, biases, an output head tied to the token embedding. It is the
simplest architecture in wide use in which q_proj and v_proj are matrices of their own.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import ops
from .decoder import Decoder
from .nn import Dropout, Embedding, LayerNorm, Linear, Module
from .support.checks import check_float_type, check_int, check_number, expect
from .tensor import Tensor


@dataclass(frozen=True)
class GPTConfig:
    """The sizes of a GPT. d_model must be a multiple of n_heads; context is the longest sequence.

    vocab_size tokens; n_layers blocks, each with n_heads heads of d_model / n_heads and a hidden layer
    of d_ff; dropout in [0, 1) on what a block adds; seed for the initial weights and for dropout.
    """

    vocab_size: int
    context: int
    d_model: int
    n_heads: int
    n_layers: int
    d_ff: int
    dropout: float = 0.0
    seed: int = 0
    dtype: Any = np.float32

    def __post_init__(self):
        check_int("GPTConfig", **{name: getattr(self, name) for name in (
            "vocab_size", "context", "d_model", "n_heads", "n_layers", "d_ff")})
        check_int("GPTConfig", least=0, seed=self.seed)
        if self.d_model % self.n_heads:
            raise ValueError(f"GPTConfig: d_model {self.d_model} is not a multiple of n_heads {self.n_heads}")
        check_number("GPTConfig", below=1, dropout=self.dropout)
        check_float_type("GPTConfig", self.dtype)


class CausalSelfAttention(Module):
    """Multi-head attention in which no position sees a later one (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config, rng):
        d = config.d_model
        self.n_heads = config.n_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            Linear(d, d, rng=rng, dtype=config.dtype) for _ in range(4))

    def forward(self, x, cache=None) -> Tensor:
        """(B, T, d) -> (B, T, d). cache: the LayerCache with the keys and values of what is before x."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)  # (B, T, d) each, d_head columns for each head
        if cache is not None:
            k, v = cache.append(k, v)  # with those of the positions before x: (B, S, d)
        return self.out_proj(ops.causal_attention(q, k, v, self.n_heads))


class Block(Module):
    """One layer: x + attention(norm(x)), then x + mlp(norm(x)). x: (B, T, d)."""

    def __init__(self, config, rng):
        d, dtype = config.d_model, config.dtype
        self.self_attn = CausalSelfAttention(config, rng)
        self.self_attn_layer_norm = LayerNorm(d, dtype)
        self.fc1 = Linear(d, config.d_ff, rng=rng, dtype=dtype)
        self.fc2 = Linear(config.d_ff, d, rng=rng, dtype=dtype)
        self.final_layer_norm = LayerNorm(d, dtype)
        self.dropout = Dropout(config.dropout, rng)

    def forward(self, x, cache=None) -> Tensor:
        """(B, T, d) -> (B, T, d)"""
        x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), cache))
        h = ops.relu(self.fc1(self.final_layer_norm(x)))  # (B, T, d_ff)
        return x + self.dropout(self.fc2(h))


class GPT(Decoder):
    """ids (B, T), integers below vocab_size, to logits (B, T, vocab_size) for the token after each: see Decoder."""

    def __init__(self, config):
        expect("GPT", config, GPTConfig, "; write GPT(GPTConfig(vocab_size=…, context=…, …))")
        rng = np.random.default_rng(config.seed)
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.d_model, rng, config.dtype)
        self.embed_positions = Embedding(config.context, config.d_model, rng, config.dtype)
        self.layers = [Block(config, rng) for _ in range(config.n_layers)]
        self.final_layer_norm = LayerNorm(config.d_model, config.dtype)

    def hidden(self, ids, cache=None) -> Tensor:
        """(B, T) -> (B, T, d): what the head turns into logits."""
        ids, start, caches = self.prepare(ids, cache)
        positions = self.embed_positions.weight[start:start + ids.shape[1]]  # (T, d), rows side by side: no ids needed
        x = self.embed_tokens(ids) + positions  # (B, T, d)
        for layer, kept in zip(self.layers, caches, strict=True):
            x = layer(x, kept)
        return self.final_layer_norm(x)
