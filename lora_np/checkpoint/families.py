"""The two families of models that are read: their config.json and names in Transformers, and the decoders here.

A config.json that asks for something that our decoder does not do is refused by the name of the setting.
"""

from itertools import count

from ..llama import LLAMA3, Llama, LlamaConfig
from ..support.notation import brief
from ..transformer import GPT, GPTConfig

POSITION_OFFSET = 2  # rows of OPT's position table before that of position 0
OPT_SIZES = {"vocab_size": "vocab_size", "context": "max_position_embeddings", "d_model": "hidden_size",
             "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers", "d_ff": "ffn_dim"}
OPT_FIXED = {"model_type": "opt", "do_layer_norm_before": True, "activation_function": "relu", "enable_bias": True,
             "layer_norm_elementwise_affine": True, "tie_word_embeddings": True, "_remove_final_layer_norm": False,
             "attention_dropout": 0.0, "layerdrop": 0.0}
LLAMA_SIZES = {**OPT_SIZES, "d_ff": "intermediate_size"}


class OptFiles:
    """OPT: the GPT of transformer.py."""

    decoder, prefix, types, sizes = GPT, "model.decoder.", ("opt",), OPT_SIZES

    @classmethod
    def config(cls, given, dtype):
        """The GPTConfig that a config.json describes."""
        _check_fixed(given, {**OPT_FIXED, "word_embed_proj_dim": given["hidden_size"]})
        return GPTConfig(**{ours: given[theirs] for ours, theirs in cls.sizes.items()},
                         dropout=given.get("dropout", 0.0), dtype=dtype)

    @classmethod
    def json(cls, config):
        """The config.json that describes a GPTConfig."""
        return {"architectures": ["OPTForCausalLM"], **OPT_FIXED, "dropout": config.dropout,
                **{theirs: int(getattr(config, ours)) for ours, theirs in cls.sizes.items()},
                "word_embed_proj_dim": int(config.d_model)}

    @staticmethod
    def shown(shapes):
        """The sizes that the weights themselves show."""
        (V, d), (positions, _), (d_ff, _) = (_matrix(shapes, name) for name in (
            "embed_tokens.weight", "embed_positions.weight", "layers.0.fc1.weight"))
        return {"vocab_size": V, "hidden_size": d, "ffn_dim": d_ff,
                "max_position_embeddings": positions - POSITION_OFFSET,
                "num_hidden_layers": sum(name.endswith(".fc1.weight") for name in shapes)}

    @staticmethod
    def small(config):
        """Small sizes, all different, for those that a GPT's parameters have."""
        return dict(zip(("d_model", "d_ff", "vocab_size", "context"), count(int(config.n_heads)), strict=False))


class LlamaFiles:
    """Llama, Qwen2 and Qwen3: the Llama of llama.py. Defaults are those of Transformers' classes."""

    decoder, prefix, types, sizes = Llama, "model.", ("llama", "qwen2", "qwen3"), LLAMA_SIZES

    @classmethod
    def config(cls, given, dtype):
        """The LlamaConfig that a config.json describes."""
        kind = given["model_type"]
        _check_fixed(given, {"hidden_act": "silu", "attention_dropout": 0.0, "mlp_bias": False,
                             **({} if kind == "qwen2" else {"attention_bias": False})})
        _check_windows(given)
        theta, scaling = cls.rope(given)
        heads = given.get("num_key_value_heads", None if kind == "llama" else 32)
        return LlamaConfig(**{ours: given[theirs] for ours, theirs in cls.sizes.items()},
                           n_kv_heads=given["num_attention_heads"] if heads is None else heads,
                           d_head=given.get("head_dim", 128 if kind == "qwen3" else None),
                           norm_eps=given.get("rms_norm_eps", 1e-6), rope_theta=theta, rope_scaling=scaling,
                           tied=given.get("tie_word_embeddings", False), qkv_bias=kind == "qwen2",
                           qk_norm=kind == "qwen3", dtype=dtype)

    @classmethod
    def json(cls, config):
        """The config.json that describes a LlamaConfig. Rotary settings stand where old and new versions look."""
        if config.qkv_bias and config.qk_norm:
            raise ValueError("save_model: no model of Transformers has both qkv_bias and qk_norm")
        kind, name = (("qwen3", "Qwen3") if config.qk_norm else ("qwen2", "Qwen2") if config.qkv_bias else
                      ("llama", "Llama"))
        scaling = config.rope_scaling
        return {"architectures": [f"{name}ForCausalLM"], "model_type": kind,
                **{theirs: int(getattr(config, ours)) for ours, theirs in cls.sizes.items()},
                "num_key_value_heads": int(config.n_kv_heads), "head_dim": int(config.d_head), "hidden_act": "silu",
                "rms_norm_eps": config.norm_eps, "tie_word_embeddings": bool(config.tied), "attention_dropout": 0.0,
                "attention_bias": False, "mlp_bias": False, "use_sliding_window": False,
                "rope_theta": config.rope_theta, "rope_scaling": scaling,
                "rope_parameters": {"rope_type": "default", **(scaling or {}), "rope_theta": config.rope_theta}}

    @classmethod
    def rope(cls, given):
        """(rope_theta, rope_scaling or None) of a config.json, old or new."""
        rope = given.get("rope_scaling") or given.get("rope_parameters") or {}
        if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
            raise ValueError(f"rope_parameters is {brief(rope)}; expected one object of numbers for all layers")
        kind = rope.get("rope_type", rope.get("type", "default"))
        theta = rope.get("rope_theta", given.get("rope_theta", 10000.0))
        _check_fixed({**given, **rope}, {"partial_rotary_factor": 1.0})
        if kind == "default":
            return theta, None
        if kind != "llama3":
            raise ValueError(f"rope_scaling of type {brief(kind)} is not supported; 'default' and 'llama3' are")
        values = {"original_max_position_embeddings": given["max_position_embeddings"], **rope}
        return theta, {"rope_type": "llama3", **{name: values[name] for name in LLAMA3 if name in values}}

    @staticmethod
    def shown(shapes):
        """The sizes that the weights themselves show."""
        (V, d), (d_ff, _) = (_matrix(shapes, name) for name in ("embed_tokens.weight", "layers.0.mlp.gate_proj.weight"))
        return {"vocab_size": V, "hidden_size": d, "intermediate_size": d_ff,
                "num_hidden_layers": sum(name.endswith(".mlp.gate_proj.weight") for name in shapes)}

    @staticmethod
    def small(config):
        """Small sizes, all different, for those that a Llama's parameters have beside its heads."""
        heads = {n * config.d_head for n in (1, config.n_heads, config.n_kv_heads)}
        return dict(zip(("d_model", "d_ff", "vocab_size"), (n for n in count(1) if n not in heads), strict=False))


FAMILIES = (OptFiles, LlamaFiles)


def family_of(model):
    """The family of a model; OPT's for one of the user's own."""
    return LlamaFiles if isinstance(model, Llama) else OptFiles


def family_named(given):
    """The family that a config.json names. Raises ValueError where it is none that is read."""
    kind, packed = given.get("model_type"), given.get("quantization_config")
    for family in FAMILIES:
        if kind in family.types and packed:
            raise ValueError(f"quantization_config is {str(packed)[:60]}: such weights are not read; floats are, and "
                             "GGUF files with blocks of 4 or 8 bits")
        if kind in family.types:
            return family
    known = ", ".join(kind for family in FAMILIES for kind in family.types)
    raise ValueError(f"model_type is {brief(kind)}; supported here: {known}")


def _matrix(shapes, name):
    return (1, 1, *shapes.get(name, (0, 0)))[-2:]


def _check_fixed(given, fixed):
    for name, value in fixed.items():
        if given.get(name) not in (value, None):
            raise ValueError(f"{name} is {brief(given[name])}; the decoder here has {value!r}, and the results would "
                             "differ")


def _check_windows(given):
    """Raise ValueError where attention looks back only so far."""
    kinds, n = given.get("layer_types"), given["num_hidden_layers"]
    window = given.get("use_sliding_window") and given.get("sliding_window")
    if kinds is None and window and given.get("max_window_layers", 28) < n:
        kinds = ["sliding_attention"]
    if kinds and (not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds)):
        raise ValueError(f"use_sliding_window: some layers see only the last {given.get('sliding_window')} positions, "
                         "which is not supported")
