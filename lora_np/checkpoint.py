"""Models and adapters on disk, in the layouts of Transformers (OPT) and PEFT: they open there as they are, and
theirs open here. Nothing is unpickled, and a file is checked as a whole before a model is touched."""

import json
import os
import uuid
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from . import lora, safetensors
from .data import CharTokenizer
from .transformer import GPT, GPTConfig

DECODER = "model.decoder."  # what Transformers puts before our parameter names
ADAPTER = "base_model.model." + DECODER  # and what PEFT puts before that
UNUSED = 2  # rows of OPT's position table before that of position 0
SIZES = {"vocab_size": "vocab_size", "context": "max_position_embeddings", "d_model": "hidden_size",
         "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers", "d_ff": "ffn_dim"}
ARCHITECTURE = {"model_type": "opt", "do_layer_norm_before": True, "activation_function": "relu",
                "enable_bias": True, "layer_norm_elementwise_affine": True, "tie_word_embeddings": True,
                "_remove_final_layer_norm": False, "attention_dropout": 0.0, "layerdrop": 0.0}


def save_model(model, folder, tokenizer=None):
    """Write a GPT without LoRA layers as an OPT folder: config.json, model.safetensors, and the tokenizer's files.

    `AutoModelForCausalLM.from_pretrained(folder)` opens it. Raises ValueError for a model with LoRA layers.
    """
    if any(isinstance(m, lora.LoraLinear) for _, m in model.named_modules()):
        raise ValueError("save_model: this model has LoRA layers. save_adapter(model, folder) saves the update alone; "
                         "to save the base, call remove(model) first; to save both in one, merge(model), then "
                         "remove(model)")
    c = model.config
    if tokenizer is not None and len(tokenizer) > c.vocab_size:
        raise ValueError(f"save_model: the tokenizer has {len(tokenizer)} tokens, the model {c.vocab_size}")
    arrays = {DECODER + name: array for name, array in model.state_dict().items()}
    positions = DECODER + "embed_positions.weight"
    arrays[positions] = np.pad(arrays[positions], ((UNUSED, 0), (0, 0)))
    config = {"architectures": ["OPTForCausalLM"], **ARCHITECTURE, "dropout": c.dropout,
              **{theirs: int(getattr(c, ours)) for ours, theirs in SIZES.items()},
              "word_embed_proj_dim": int(c.d_model), "dtype": np.dtype(c.dtype).name,
              "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    with _replacing(folder) as create:
        safetensors.write(create("model.safetensors"), arrays)
        _write_json(create("config.json"), config)
        if tokenizer is not None:
            _write_json(create("tokenizer.json"), _tokenizer_json(tokenizer))
            _write_json(create("tokenizer_config.json"), {"tokenizer_class": "PreTrainedTokenizerFast",
                                                          "clean_up_tokenization_spaces": False})


def load_model(folder, dtype=None):
    """The GPT of an OPT folder, in evaluation mode, every parameter trainable.

    dtype: of the model; by default that of the file, half precision becoming float32. Arrays that have it
    already stay in the file, which the system reads as they are used. Raises ValueError that says what does
    not fit, FileNotFoundError where there is no config.json.
    """
    folder = Path(folder)
    given = _read_json(folder / "config.json")
    for name, value in {**ARCHITECTURE, "word_embed_proj_dim": given.get("hidden_size")}.items():
        if given.get(name, value) != value:
            raise ValueError(f"{folder / 'config.json'}: {name} is {given[name]!r}; this GPT has {value!r}")
    if "model_type" not in given or (absent := set(SIZES.values()) - set(given)):
        raise ValueError(f"{folder / 'config.json'}: lacks {', '.join(sorted(absent))}; is this an OPT model?")
    arrays = {name.removeprefix("model.").removeprefix("decoder."): array for name, array in _weights(folder).items()}
    head = arrays.pop("lm_head.weight", None)
    if head is not None and not np.array_equal(head, arrays.get("embed_tokens.weight")):
        raise ValueError(f"{folder}: lm_head.weight differs from embed_tokens.weight; this GPT has one for both")
    dtype = np.dtype(dtype or np.result_type(np.float32, *arrays.values()))
    model = GPT(GPTConfig(**{ours: given[theirs] for ours, theirs in SIZES.items()},
                          dropout=given.get("dropout", 0.0), dtype=dtype.type))
    own = dict(model.named_parameters())
    if "embed_positions.weight" in arrays:
        arrays["embed_positions.weight"] = arrays["embed_positions.weight"][UNUSED:]
    _match(folder, arrays, {name: t.shape for name, t in own.items()})
    for name, t in own.items():
        t._adopt(np.require(arrays[name], dtype, "CA"))
    return model.eval()


def _weights(folder):
    """{name: array} of model.safetensors, or of the shards that model.safetensors.index.json lists."""
    if (folder / "model.safetensors").exists():
        return safetensors.read(folder / "model.safetensors")[0]
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        old = " It has pytorch_model.bin, which is a pickle and could run any code; load it in Transformers and " \
              "save_pretrained it." if (folder / "pytorch_model.bin").exists() else ""
        raise FileNotFoundError(f"{folder}: no model.safetensors and no {index.name}.{old}")
    places = _read_json(index)["weight_map"]
    shards = {name: safetensors.read(folder / name)[0] for name in sorted(set(places.values()))}
    return {name: shards[shard][name] for name, shard in places.items()}


def save_adapter(model, folder, base=""):
    """Write a model's LoRA layers as a PEFT folder: adapter_config.json and adapter_model.safetensors.

    `PeftModel.from_pretrained(base model, folder)` opens it. base: the folder or name of the base model.
    """
    layers = lora.lora_layers(model)
    config = next(iter(layers.values())).config
    arrays = {f"{ADAPTER}{path}.{name}.weight": getattr(layer, name).data
              for path, layer in layers.items() for name in ("lora_A", "lora_B")}
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": int(config.r), "lora_alpha": config.lora_alpha,
                "lora_dropout": config.lora_dropout, "target_modules": list(config.target_modules), "bias": "none",
                "use_rslora": config.use_rslora, "use_dora": False, "fan_in_fan_out": False, "inference_mode": True,
                "base_model_name_or_path": str(base)}
    with _replacing(folder) as create:
        safetensors.write(create("adapter_model.safetensors"), arrays)
        _write_json(create("adapter_config.json"), settings)


def load_adapter(model, folder):
    """Add the LoRA layers of a PEFT folder to a model that has none; returns their paths."""
    folder = Path(folder)
    given = _read_json(folder / "adapter_config.json")
    arrays, _ = safetensors.read(folder / "adapter_model.safetensors")
    config = lora.LoraConfig(r=given["r"], lora_alpha=given["lora_alpha"], target_modules=given["target_modules"],
                             lora_dropout=given.get("lora_dropout", 0.0), use_rslora=given.get("use_rslora", False))
    paths = lora.add_lora(model, config)
    layers = lora.lora_layers(model)
    found = {name.removeprefix(ADAPTER).removesuffix(".weight"): array for name, array in arrays.items()}
    own = {f"{path}.{name}": getattr(layers[path], name) for path in paths for name in ("lora_A", "lora_B")}
    try:
        _match(folder, found, {name: t.shape for name, t in own.items()})
    except ValueError:
        lora.remove(model)
        raise
    for name, t in own.items():
        t.data = found[name]
    return paths


def load_tokenizer(folder):
    """The CharTokenizer that save_model wrote into a folder."""
    path = Path(folder) / "tokenizer.json"
    given = _read_json(path)["model"]
    alphabet = sorted(given["vocab"], key=given["vocab"].get)
    if given["type"] != "WordLevel" or any(len(c) != 1 for c in alphabet):
        raise ValueError(f"{path}: not a tokenizer of single characters; use Transformers' AutoTokenizer for its ids")
    return CharTokenizer("".join(alphabet))


def _tokenizer_json(tokenizer):
    """A CharTokenizer in the words of the tokenizers library: split into characters, look each up."""
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated",
                              "invert": False},
            "post_processor": None, "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": {c: i for i, c in enumerate(tokenizer.alphabet)},
                      "unk_token": "?"}}


def _match(folder, arrays, shapes):
    """Raise a ValueError that lists each array that is missing, unexpected or of another shape."""
    problems = [f"missing: {name}" for name in shapes if name not in arrays]
    problems += [f"unexpected: {name}" for name in arrays if name not in shapes]
    problems += [f"wrong shape: {name} is {arrays[name].shape}, expected {shape}"
                 for name, shape in shapes.items() if name in arrays and arrays[name].shape != shape]
    if problems:
        raise ValueError(f"{folder}: nothing was loaded\n  " + "\n  ".join(problems))


def _read_json(path):
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got a {type(value).__name__}")
    return value


def _write_json(file, value):
    file.write((json.dumps(value, indent=2) + "\n").encode())


@contextmanager
def _replacing(folder):
    """Yields create(name): an open file. They take the place of the folder's files of those names together at the
    end, once all are whole and on the disk; if anything fails before, the old files stay as they were."""
    folder, files = Path(folder), {}
    folder.mkdir(parents=True, exist_ok=True)
    stamp = uuid.uuid4().hex

    def create(name):
        files[name] = open(folder / f".{name}.{stamp}", "wb")  # noqa: SIM115
        return files[name]

    try:
        yield create
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for name, file in files.items():
            os.replace(file.name, folder / name)
    finally:
        for file in files.values():
            file.close()
            Path(file.name).unlink(missing_ok=True)
