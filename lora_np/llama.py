"""A decoder of today: Llama's architecture under Transformers' module names (Touvron et al. 2023). Read it beside
transformer.py, which is OPT's of 2022. What has changed since:

    normalisation   LayerNorm                           RMSNorm: no mean is taken off, no bias added
    positions       a learned table, added at the start rotary: q and k are turned by angles, in every layer
    attention       a key/value head for each query     grouped-query: several query heads share one, so that the
                    head                                cache is as many times smaller
    MLP             fc2(relu(fc1(x)))                   down(silu(gate(x)) * up(x)), called SwiGLU
    biases          everywhere                          none

SmolLM2, TinyLlama and Llama 2 and 3 are of this kind; so are Qwen2 (qkv_bias) and Qwen3 (qk_norm).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import ops
from .decoder import Decoder
from .nn import Embedding, Linear, Module, RMSNorm
from .support.checks import check_float_type, check_int, check_number, expect
from .tensor import Tensor

LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")  # of rope_scaling


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of a Llama. n_heads must be a multiple of n_kv_heads; context is the longest sequence.

    vocab_size tokens; n_layers blocks, each with n_heads query heads and n_kv_heads key/value heads of d_head (even;
    None: d_model / n_heads) and a hidden layer of d_ff; norm_eps is added to the mean square. rope_theta: the slowest
    pair of columns turns about once in 2 pi rope_theta positions. rope_scaling: None, or "llama3" as Transformers
    writes it, {"rope_type": "llama3", "factor": …, "low_freq_factor": …, "high_freq_factor": …,
    "original_max_position_embeddings": …}. tied: the head is the token embedding. qkv_bias: as in Qwen2. qk_norm: an
    RMSNorm over each head of q and k, as in Qwen3. seed for the initial weights.
    """

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
        check_int("LlamaConfig", **{name: getattr(self, name) for name in (
            "vocab_size", "context", "d_model", "n_heads", "n_kv_heads", "n_layers", "d_ff")})
        check_int("LlamaConfig", least=0, seed=self.seed)
        check_number("LlamaConfig", norm_eps=self.norm_eps, rope_theta=self.rope_theta)
        check_float_type("LlamaConfig", self.dtype)
        _check_heads(self)
        _check_scaling(self.rope_scaling)


class CausalSelfAttention(Module):
    """Grouped-query attention (Ainslie et al. 2023) with rotary positions; no position sees a later one."""

    def __init__(self, config, rng):
        d, c, dtype = config.d_model, config.d_head, config.dtype
        self.n_heads, self.n_kv_heads = config.n_heads, config.n_kv_heads
        self.q_proj = Linear(d, self.n_heads * c, config.qkv_bias, rng, dtype)
        self.k_proj = Linear(d, self.n_kv_heads * c, config.qkv_bias, rng, dtype)
        self.v_proj = Linear(d, self.n_kv_heads * c, config.qkv_bias, rng, dtype)
        self.o_proj = Linear(self.n_heads * c, d, False, rng, dtype)
        self.q_norm, self.k_norm = (RMSNorm(c, config.norm_eps, dtype) if config.qk_norm else None for _ in range(2))

    def forward(self, x, rotation, cache=None) -> Tensor:
        """(B, T, d) -> (B, T, d). rotation: (cos, sin) of each position's angles, (T, c / 2). cache: a LayerCache."""
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)  # (B, T, n_heads c), (B, T, n_kv_heads c) twice
        if self.q_norm is not None:
            q, k = of_each_head(self.q_norm, q, self.n_heads), of_each_head(self.k_norm, k, self.n_kv_heads)
        q, k = ops.rotary(q, *rotation, self.n_heads), ops.rotary(k, *rotation, self.n_kv_heads)
        if cache is not None:
            k, v = cache.append(k, v)  # with those of the positions before x: (B, S, n_kv_heads c)
        return self.o_proj(ops.causal_attention(q, k, v, self.n_heads, self.n_kv_heads))


class MLP(Module):
    """SwiGLU (Shazeer 2020): a hidden layer, gated element by element by another one. (B, T, d) -> (B, T, d)."""

    def __init__(self, config, rng):
        d, d_ff, dtype = config.d_model, config.d_ff, config.dtype
        self.gate_proj, self.up_proj = (Linear(d, d_ff, False, rng, dtype) for _ in range(2))
        self.down_proj = Linear(d_ff, d, False, rng, dtype)

    def forward(self, x) -> Tensor:
        """(B, T, d) -> (B, T, d)"""
        return self.down_proj(ops.swiglu(self.gate_proj(x), self.up_proj(x)))  # (B, T, d_ff) inside


class Block(Module):
    """One layer: x + attention(norm(x)), then x + mlp(norm(x)). x: (B, T, d)."""

    def __init__(self, config, rng):
        self.self_attn = CausalSelfAttention(config, rng)
        self.mlp = MLP(config, rng)
        self.input_layernorm = RMSNorm(config.d_model, config.norm_eps, config.dtype)
        self.post_attention_layernorm = RMSNorm(config.d_model, config.norm_eps, config.dtype)

    def forward(self, x, rotation, cache=None) -> Tensor:
        """(B, T, d) -> (B, T, d)"""
        x = x + self.self_attn(self.input_layernorm(x), rotation, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(Decoder):
    """ids (B, T), integers below vocab_size, to logits (B, T, vocab_size) for the token after each: see Decoder."""

    def __init__(self, config):
        expect("Llama", config, LlamaConfig, "; write Llama(LlamaConfig(vocab_size=…, context=…, …))")
        rng = np.random.default_rng(config.seed)
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.d_model, rng, config.dtype)
        self.layers = [Block(config, rng) for _ in range(config.n_layers)]
        self.norm = RMSNorm(config.d_model, config.norm_eps, config.dtype)
        if not config.tied:
            self.lm_head = Linear(config.d_model, config.vocab_size, False, rng, config.dtype)

    def hidden(self, ids, cache=None) -> Tensor:
        """(B, T) -> (B, T, d): what the head turns into logits."""
        ids, start, caches = self.prepare(ids, cache)
        angles = np.arange(start, start + ids.shape[1])[:, None] * frequencies(self.config)  # (T, c / 2)
        rotation = np.cos(angles).astype(self.config.dtype), np.sin(angles).astype(self.config.dtype)
        x = self.embed_tokens(ids)  # (B, T, d)
        for layer, kept in zip(self.layers, caches, strict=True):
            x = layer(x, rotation, kept)
        return self.norm(x)


def frequencies(config):
    """(c / 2,): by how much each pair of columns of a head turns from one position to the next, in radians.

    Pair j turns by f = theta^(-2j / c): the first ones tell neighbours apart, the last ones what is far apart. "llama3"
    scaling lets a model read on after its training on n positions: what turned less than low_freq_factor times in n
    becomes slower by the factor, what turned more than high_freq_factor times stays, with a ramp between.
    """
    c, scaling = config.d_head, config.rope_scaling
    f = config.rope_theta ** (-2 * np.arange(c // 2) / c)
    if scaling is None:
        return f
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * f / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return (1 - kept) * f / scaling["factor"] + kept * f


def of_each_head(norm, x, heads):
    """A norm over the columns of each head. (B, T, heads c) -> (B, T, heads c)"""
    B, T, d = x.shape
    return norm(x.reshape(B, T, heads, d // heads)).reshape(B, T, d)


def _check_heads(config):
    """Fill in d_head, and raise ValueError for heads that do not fit."""
    d, h, kv = config.d_model, config.n_heads, config.n_kv_heads
    if config.d_head is None:
        if d % h:
            raise ValueError(f"LlamaConfig: d_model {d} is not a multiple of n_heads {h}; give d_head")
        object.__setattr__(config, "d_head", d // h)
    check_int("LlamaConfig", d_head=config.d_head)
    if config.d_head % 2:
        raise ValueError(f"LlamaConfig: d_head {config.d_head} is odd, but rotary positions turn pairs of columns")
    if h % kv:
        raise ValueError(f"LlamaConfig: n_heads {h} is not a multiple of n_kv_heads {kv}")
    if not config.rope_theta:
        raise ValueError("LlamaConfig: rope_theta must be above 0, got 0")
    for name in ("tied", "qkv_bias", "qk_norm"):
        if not isinstance(getattr(config, name), (bool, np.bool_)):
            raise TypeError(f"LlamaConfig: {name} must be True or False, got {getattr(config, name)!r}")


def _check_scaling(scaling):
    if scaling is None:
        return
    expect("LlamaConfig", scaling, dict, ' for rope_scaling; write {"rope_type": "llama3", "factor": 8.0, …}')
    if scaling.get("rope_type") != "llama3":
        kind = scaling.get("rope_type")
        raise ValueError(f'LlamaConfig: rope_scaling of rope_type {kind!r} is not supported; "llama3" is')
    if missing := [name for name in LLAMA3 if name not in scaling]:
        raise ValueError(f"LlamaConfig: rope_scaling lacks {', '.join(missing)}")
    check_number("LlamaConfig: rope_scaling", **{name: scaling[name] for name in LLAMA3})
    if not scaling["factor"] or not scaling["low_freq_factor"] < scaling["high_freq_factor"]:
        raise ValueError("LlamaConfig: rope_scaling needs a factor above 0 and low_freq_factor below high_freq_factor, "
                         f"got {scaling}")
