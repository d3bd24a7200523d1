"""Base models on disk, in the layout of Transformers (OPT): they open there as they are, and theirs open here.
Nothing is unpickled, and everything is checked before it is used. Tokenizers: see tokenizers.py; adapters: peft.py."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..lora import LoraLinear
from ..support.checks import expect
from ..tokenizer import CharTokenizer
from ..transformer import GPT, GPTConfig
from . import safetensors
from .atomic import atomic_write, check_shapes, read_json, write_json
from .tokenizers import save_tokenizer

DECODER = "model.decoder."  # what Transformers puts before our names of parameters
OPT_POSITION_OFFSET = 2  # rows of OPT's position table before that of position 0
SIZES = {"vocab_size": "vocab_size", "context": "max_position_embeddings", "d_model": "hidden_size",
         "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers", "d_ff": "ffn_dim"}
ARCHITECTURE = {"model_type": "opt", "do_layer_norm_before": True, "activation_function": "relu",
                "enable_bias": True, "layer_norm_elementwise_affine": True, "tie_word_embeddings": True,
                "_remove_final_layer_norm": False, "attention_dropout": 0.0, "layerdrop": 0.0}


def save_model(model, folder, tokenizer=None):
    """Write a GPT without LoRA layers as an OPT folder: config.json, model.safetensors, and the tokenizer's files.

    `AutoModelForCausalLM.from_pretrained(folder)` opens it. Raises ValueError for a model with LoRA layers.
    """
    expect("save_model", model, GPT)
    expect("save_model", folder, (str, os.PathLike))
    if any(isinstance(m, LoraLinear) for _, m in model.named_modules()):
        raise ValueError("save_model: this model has LoRA layers. save_adapter(model, folder) saves the update alone; "
                         "to save the base, call remove(model) first; to save both in one, merge(model), then "
                         "remove(model)")
    c = model.config
    if tokenizer is not None:
        expect("save_model", tokenizer, CharTokenizer)
    if tokenizer is not None and len(tokenizer) > c.vocab_size:
        raise ValueError(f"save_model: the tokenizer has {len(tokenizer)} tokens, the model {c.vocab_size}")
    arrays = {DECODER + name: array for name, array in model.state_dict().items()}
    positions = DECODER + "embed_positions.weight"
    arrays[positions] = np.pad(arrays[positions], ((OPT_POSITION_OFFSET, 0), (0, 0)))
    config = {"architectures": ["OPTForCausalLM"], **ARCHITECTURE, "dropout": c.dropout,
              **{theirs: int(getattr(c, ours)) for ours, theirs in SIZES.items()},
              "word_embed_proj_dim": int(c.d_model), "dtype": np.dtype(c.dtype).name,
              "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    with atomic_write(folder) as create:
        safetensors.write(create("model.safetensors"), arrays)
        write_json(create("config.json"), config)
        if tokenizer is not None:
            for name, content in save_tokenizer(tokenizer).items():
                create(name).write(content)


def load_model(folder, dtype=None):
    """The GPT of an OPT folder, in evaluation mode, every parameter trainable.

    dtype: of the model; by default that of the file, half precision becoming float32. Arrays of that dtype stay
    in the file, from which the system reads them as they are used. Raises ValueError that says what does not fit,
    FileNotFoundError where there is no model.
    """
    expect("load_model", folder, (str, os.PathLike))
    folder = Path(folder)
    path = folder / "config.json"
    given = read_json(path)
    if absent := {"model_type", *SIZES.values()} - set(given):
        raise ValueError(f"{path}: lacks {', '.join(sorted(absent))}; is this an OPT model?")
    for name, value in {**ARCHITECTURE, "word_embed_proj_dim": given["hidden_size"]}.items():
        if given.get(name, value) != value:
            raise ValueError(f"{path}: {name} is {given[name]!r}, this GPT has {value!r}; the results would differ")
    arrays = {name.removeprefix("model.").removeprefix("decoder."): array for name, array in _weights(folder).items()}
    head = arrays.pop("lm_head.weight", None)  # absent from most files: it is the embedding
    if head is not None and not np.array_equal(head, arrays.get("embed_tokens.weight")):
        raise ValueError(f"{folder}: lm_head.weight differs from embed_tokens.weight; this GPT has one for both")
    for name, size in _sizes(arrays).items():
        if given[name] != size:
            raise ValueError(f"{path}: {name} is {given[name]!r}, but the weights beside it have {size}")
    arrays["embed_positions.weight"] = arrays["embed_positions.weight"][OPT_POSITION_OFFSET:]
    dtype = np.dtype(dtype or np.result_type(np.float32, *{array.dtype for array in arrays.values()}))
    try:
        config = GPTConfig(**{ours: given[theirs] for ours, theirs in SIZES.items()},
                           dropout=given.get("dropout", 0.0), dtype=dtype.type)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    model, shapes = _empty_model(config)
    check_shapes(folder, arrays, shapes)
    for name, t in model.named_parameters():
        t.replace_array(np.require(arrays[name], dtype, "CA"))
    return model.eval()


def _empty_model(config):
    """(a GPT whose parameters are still to come, {name: shape} of those).

    It is built with small sizes that all differ, so that no time and memory go into random weights; its
    parameters' shapes then tell which size belongs where.
    """
    h = int(config.n_heads)
    small = replace(config, d_model=h, d_ff=h + 1, vocab_size=h + 2, context=h + 3)
    full = {getattr(small, name): getattr(config, name) for name in ("d_model", "d_ff", "vocab_size", "context")}
    model = GPT(small)
    model.config = config
    return model, {name: tuple(full[n] for n in t.shape) for name, t in model.named_parameters()}


def _weights(folder):
    """{name: array} of model.safetensors, or of the shards that model.safetensors.index.json lists."""
    path, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if path.exists():
        return safetensors.read(path)[0]
    if not index.exists():
        pickled = (folder / "pytorch_model.bin").exists()
        raise FileNotFoundError(f"{folder}: no model.safetensors" + pickled * (
            ", only pytorch_model.bin, a pickle, which could run any code; load it in Transformers and save_pretrained "
            "it"))
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(p, str) and Path(p).name == p for p in places.values()):
        raise ValueError(f"{index}: expected a weight_map of file names in this folder")
    shards = {place: safetensors.read(folder / place)[0] for place in sorted(set(places.values()))}
    found = {name: place for place, arrays in shards.items() for name in arrays}
    if found != places or sum(map(len, shards.values())) != len(places):
        wrong = sorted(name for name in {*found, *places} if found.get(name) != places.get(name))
        raise ValueError(f"{index}: does not fit the files that it lists, for example on {wrong[:4]}")
    return {name: array for arrays in shards.values() for name, array in arrays.items()}


def _sizes(arrays):
    """The sizes that the weights themselves show, under the config's names."""
    tokens, positions, fc1 = (np.atleast_2d(arrays.get(name, np.zeros((0, 0)))) for name in (
        "embed_tokens.weight", "embed_positions.weight", "layers.0.fc1.weight"))
    return {"vocab_size": len(tokens), "hidden_size": tokens.shape[1], "ffn_dim": len(fc1),
            "max_position_embeddings": len(positions) - OPT_POSITION_OFFSET,
            "num_hidden_layers": sum(name.endswith(".fc1.weight") for name in arrays)}
