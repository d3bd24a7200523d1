"""A decoder-only transformer of the Llama family under Transformers' module names (Touvron et al. 2023)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import ops
from .nn import Embedding, Linear, Module, parameter
from .support.checks import as_array, check_float_type, check_int, check_number, expect
from .tensor import Tensor


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of a Llama, and where its relatives differ."""

    vocab_size: int
    context: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    n_layers: int
    d_ff: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    d_head: int | None = None
    tied: bool = True
    qkv_bias: bool = False
    qk_norm: bool = False
    rope_scaling: dict | None = None
    seed: int = 0
    dtype: Any = np.float32

    def __post_init__(self):
        if self.d_head is None:
            object.__setattr__(self, "d_head", self.d_model // self.n_heads)
        check_int("LlamaConfig", **{name: getattr(self, name) for name in (
            "vocab_size", "context", "d_model", "n_heads", "n_kv_heads", "n_layers", "d_ff", "d_head")})
        check_int("LlamaConfig", least=0, seed=self.seed)
        check_number("LlamaConfig", norm_eps=self.norm_eps, rope_theta=self.rope_theta)
        check_float_type("LlamaConfig", self.dtype)


class RMSNorm(Module):
    def __init__(self, d, eps, dtype=np.float64):
        self.eps, self.weight = eps, parameter(np.ones(d), dtype)

    def forward(self, x):
        return x / ops.sqrt((x * x).mean(axis=-1, keepdims=True) + self.eps) * self.weight


def inverse_frequencies(config):
    """(c / 2,)"""
    c, scaling = config.d_head, config.rope_scaling
    f = config.rope_theta ** -(np.arange(0, c, 2) / c)
    if scaling:
        lo, hi = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = scaling["original_max_position_embeddings"] * f / (2 * np.pi)
        t = np.clip((turns - lo) / (hi - lo), 0, 1)
        f = (1 - t) * f / scaling["factor"] + t * f
    return f


def rotate(x, cos, sin):
    """x: (B, T, heads, c), cos, sin: (T, 1, c/2)."""
    h = x.shape[-1] // 2
    a, b = x[..., :h], x[..., h:]
    return ops.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Attention(Module):
    def __init__(self, config, rng):
        c, d, dtype = config, config.d_model, config.dtype
        self.n_heads, self.n_kv_heads = c.n_heads, c.n_kv_heads
        self.q_proj = Linear(d, c.n_heads * c.d_head, c.qkv_bias, rng, dtype)
        self.k_proj = Linear(d, c.n_kv_heads * c.d_head, c.qkv_bias, rng, dtype)
        self.v_proj = Linear(d, c.n_kv_heads * c.d_head, c.qkv_bias, rng, dtype)
        self.o_proj = Linear(c.n_heads * c.d_head, d, False, rng, dtype)
        if c.qk_norm:
            self.q_norm, self.k_norm = RMSNorm(c.d_head, c.norm_eps, dtype), RMSNorm(c.d_head, c.norm_eps, dtype)

    def forward(self, x, cos, sin, cache=None):
        B, T, _ = x.shape
        q = self.q_proj(x).reshape(B, T, self.n_heads, -1)
        k, v = (p(x).reshape(B, T, self.n_kv_heads, -1) for p in (self.k_proj, self.v_proj))
        if hasattr(self, "q_norm"):
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            if "k" in cache:
                k, v = ops.concatenate([cache["k"], k], axis=1), ops.concatenate([cache["v"], v], axis=1)
            cache.update(k=k, v=v)
        group = np.arange(self.n_heads) // (self.n_heads // self.n_kv_heads)
        q, k, v = (t.reshape(B, t.shape[1], -1) for t in (q, k[:, :, group], v[:, :, group]))
        return self.o_proj(ops.causal_attention(q, k, v, self.n_heads))


class MLP(Module):
    def __init__(self, config, rng):
        d, dtype = config.d_model, config.dtype
        self.gate_proj = Linear(d, config.d_ff, False, rng, dtype)
        self.up_proj = Linear(d, config.d_ff, False, rng, dtype)
        self.down_proj = Linear(config.d_ff, d, False, rng, dtype)

    def forward(self, x):
        z = self.gate_proj(x)
        return self.down_proj(z / (1 + ops.exp(-z)) * self.up_proj(x))


class LlamaBlock(Module):
    def __init__(self, config, rng):
        self.self_attn = Attention(config, rng)
        self.mlp = MLP(config, rng)
        self.input_layernorm = RMSNorm(config.d_model, config.norm_eps, config.dtype)
        self.post_attention_layernorm = RMSNorm(config.d_model, config.norm_eps, config.dtype)

    def forward(self, x, cos, sin, cache=None):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(Module):
    def __init__(self, config):
        expect("Llama", config, LlamaConfig, "; write Llama(LlamaConfig(vocab_size=…, context=…, …))")
        rng = np.random.default_rng(config.seed)
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.d_model, rng, config.dtype)
        self.layers = [LlamaBlock(config, rng) for _ in range(config.n_layers)]
        self.norm = RMSNorm(config.d_model, config.norm_eps, config.dtype)
        if not config.tied:
            self.lm_head = Linear(config.d_model, config.vocab_size, False, rng, config.dtype)

    def forward(self, ids, cache=None):
        ids = as_array("Llama", ids.data if isinstance(ids, Tensor) else ids, copy=None)
        if ids.ndim != 2 or not ids.size:
            raise ValueError(f"Llama: expected ids of shape (batch, time), got {ids.shape}; one sequence is ids[None]")
        if cache is not None and not cache:
            cache.extend({} for _ in self.layers)
        start = cache[0]["k"].shape[1] if cache and "k" in cache[0] else 0
        stop = start + ids.shape[1]
        if stop > self.config.context:
            raise ValueError(f"Llama: {stop} positions are more than the context of {self.config.context}; "
                             "shorten the input")
        angles = np.arange(start, stop)[:, None, None] * inverse_frequencies(self.config)
        cos, sin = np.cos(angles).astype(self.config.dtype), np.sin(angles).astype(self.config.dtype)
        x = self.embed_tokens(ids)
        for layer, kept in zip(self.layers, cache or [None] * len(self.layers), strict=True):
            x = layer(x, cos, sin, kept)
        head = self.embed_tokens if self.config.tied else self.lm_head
        return ops.linear(self.norm(x), head.weight)
