"""A Llama in a GGUF file: llama.cpp's names for settings and tensors, and its order of rows, put into Transformers'."""

import re

import numpy as np

from ..llama import LlamaConfig, frequencies
from ..quantized import Packed
from ..support.notation import brief
from . import gguf

KEYS = {"hidden_size": "embedding_length", "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count", "max_position_embeddings": "context_length",
        "rms_norm_eps": "attention.layer_norm_rms_epsilon", "num_key_value_heads": "attention.head_count_kv",
        "head_dim": "attention.key_length", "rope_theta": "rope.freq_base", "vocab_size": "vocab_size"}
OPTIONAL = ("num_key_value_heads", "head_dim", "rope_theta", "vocab_size")
NAMES = {"token_embd": "embed_tokens", "output_norm": "norm", "output": "lm_head", "attn_norm": "input_layernorm",
         "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
         "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
IDS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}


def read(path):
    """(settings as config.json has them, {our name: array or Packed}, metadata) of a GGUF file with a Llama in it."""
    tensors, metadata = gguf.read(path)
    try:
        given = _settings(metadata, {name: array.shape for name, array in tensors.items()})
        factors = tensors.pop("rope_freqs.weight", None)
        if factors is not None:
            given["rope_scaling"] = _scaling(given, factors, metadata)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    arrays = {_our_name(name): array for name, array in tensors.items()}
    heads = given["num_attention_heads"]
    for name, array in arrays.items():
        if name.endswith("q_proj.weight"):
            arrays[name] = _halves(array, heads)
        if name.endswith("k_proj.weight"):
            arrays[name] = _halves(array, given.get("num_key_value_heads", heads))
    return given, arrays, metadata


def _halves(W, heads):
    """The rows of attn_q or attn_k in Transformers' order.

    llama.cpp turns rows 2 j and 2 j + 1 of a head by the same angle, Transformers rows j and j + c / 2.
    """
    rows = W.shape[0]
    if rows % (2 * heads):
        return W  # which the check of shapes will refuse
    order = np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).ravel()
    return W.rows(order) if isinstance(W, Packed) else W[order]


def _our_name(name):
    """blk.0.attn_q.weight is layers.0.self_attn.q_proj.weight; a name that is not known stays."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if not match or match[2] not in NAMES:
        return name
    return f"layers.{match[1]}." * (match[1] is not None) + f"{NAMES[match[2]]}.{match[3]}"


def _settings(metadata, shapes):
    kind = metadata.get("general.architecture")
    if kind != "llama":
        raise ValueError(f"general.architecture is {kind!r}; supported here: 'llama' alone, since the rows of others "
                         "lie in another order")
    llama = {key.removeprefix("llama."): value for key, value in metadata.items() if key.startswith("llama.")}
    if absent := [f"llama.{key}" for name, key in KEYS.items() if name not in OPTIONAL and key not in llama]:
        raise ValueError(f"lacks {', '.join(absent)}")
    for key in {*KEYS.values()} & {*llama}:
        if type(llama[key]) not in (int, float) or not 0 < llama[key] < 1 << 32:
            raise ValueError(f"llama.{key} is {brief(llama[key])}; expected a number above 0")
    given = {name: llama.pop(key) for name, key in KEYS.items() if key in llama}
    given |= {name: float(str(np.float32(given[name])))  # 1e-05, not the 9.99999974e-06 that float32 makes of it
              for name in ("rms_norm_eps", "rope_theta") if name in given}
    head = given.get("head_dim", given["hidden_size"] // given["num_attention_heads"])
    supported = {"rope.dimension_count": head, "attention.value_length": head, "attention.causal": True,
                 "tensor_data_layout": "Meta AI original pth"}
    for key, value in llama.items():
        if value not in (supported.get(key, 0), 0, "", "none") and key != "rope.scaling.original_context_length":
            raise ValueError(f"llama.{key} is {brief(value)}, which is not supported")
    return {"model_type": "llama", "vocab_size": shapes.get("token_embd.weight", (0,))[0],
            "tie_word_embeddings": "output.weight" not in shapes, "head_dim": head, **given,
            **{name: metadata.get(f"tokenizer.ggml.{key}") for name, key in IDS.items()}}


def _scaling(given, factors, metadata):
    """The "llama3" scaling that divides the inverse frequencies by these factors, or None where all are 1."""
    factors, c = np.asarray(factors, float), given["head_dim"]
    if factors.shape == (c // 2,) and (factors >= 1).all():
        n, theta = metadata.get("llama.rope.scaling.original_context_length", 8192), given.get("rope_theta", 10000.0)
        scaling = {"rope_type": "llama3", "factor": float(factors.max()), "low_freq_factor": 1.0,
                   "high_freq_factor": 4.0, "original_max_position_embeddings": n}
        plain, scaled = (frequencies(LlamaConfig(1, 1, c, 1, 1, 1, 1, rope_theta=theta, rope_scaling=s))
                         for s in (None, scaling))
        if np.allclose(plain / scaled, factors, rtol=1e-5):
            return scaling if factors.max() > 1 else None
    raise ValueError(f"rope_freqs.weight divides the inverse frequencies by {factors[:3]} … {factors[-3:]}; this "
                     'scaling is not "llama3", and is not supported')
