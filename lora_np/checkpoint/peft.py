"""Adapters in PEFT's layout: a folder of adapter_config.json and adapter_model.safetensors.

What PEFT does not ask for, it does not read: beside the arrays, the file records which base the adapter was
trained on and with which settings, so that load_adapter notices when one of the three was replaced.
"""

import json
import os
import re
from pathlib import Path

from ..config import LoraConfig, first_match
from ..extras.adapters import adapters, add_adapter, disable_adapter
from ..extras.variants import DoraLinear
from ..lora import LoraLinear, lora_layers, targets
from ..nn import Embedding, Linear, Module
from ..support.checks import expect
from ..support.notation import brief
from . import safetensors
from .atomic import atomic_write, check_shapes, json_bytes, read_json
from .fingerprint import fingerprint, other_base
from .models import full_name

PREFIX = "base_model.model."  # what PEFT puts before Transformers' names
KEY = re.compile(r"base_model\.model\.(?:model\.)?(?:decoder\.)?(.+)\.(?:(lora_[AB])\.weight|(lora_magnitude_vector))")
SETTINGS = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "target_modules")
READ = {*SETTINGS, "lora_dropout", "layers_to_transform", "layers_pattern", "exclude_modules"}
# On Linear layers without effect, or of use while A and B were made, or only beside another option that is refused.
WITHOUT_EFFECT = {"task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_version",
                  "megatron_core", "qalora_group_size", "fan_in_fan_out", "merge_weights", "eva_config", "corda_config",
                  "lora_ga_config", "loftq_config", "runtime_config", "ensure_weight_tying"}
CHOICES = {"peft_type": ("LORA",), "bias": ("none", None),
           "use_rslora": (True, False, None), "use_dora": (True, False, None),
           "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva", "mica")}  # others change W0 too


def save_adapter(model, folder, name=None, base=None, note=(), beside=()):
    """Write an adapter as a PEFT folder; `PeftModel.from_pretrained(base model, folder)` opens it.

    name: an adapter of the model; by default the active one. base: folder or name of the base model, for the
    record. note: {string: string} to keep in the file of the arrays. beside: {file name: bytes} to write with the
    adapter, all whole or not at all. Raises ValueError for layers that PEFT's files cannot describe.
    """
    expect("save_adapter", folder, (str, os.PathLike))
    layers = lora_layers(model) if name is None else adapters(model).get(name)
    if not layers:
        raise ValueError(f"save_adapter: no adapter {name!r}; there are {list(adapters(model))}")
    kinds = {type(layer) for layer in layers.values()}
    if kinds not in ({LoraLinear}, {DoraLinear}):
        raise ValueError(f"save_adapter: cannot save {' and '.join(k.__name__ for k in kinds)}; a PissaLinear model "
                         "first needs pissa_to_lora(model, name)")
    arrays = {f"{PREFIX}{full_name(model, path)}.{factor}" + ".weight" * factor.startswith(("lora_A", "lora_B")):
              getattr(layer, factor).data for path, layer in layers.items() for factor in layer.factors}
    settings = _settings(model, layers)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", **settings, "bias": "none", "fan_in_fan_out": False,
              "lora_dropout": next(iter(layers.values())).config.lora_dropout, "init_lora_weights": True,
              "inference_mode": True, "base_model_name_or_path": base and str(base)}
    with atomic_write(folder) as create:
        safetensors.write(create("adapter_model.safetensors"), arrays,
                          {**dict(note), "settings": json.dumps(settings), **fingerprint(model)})
        create("adapter_config.json").write(json_bytes(config))
        for file, content in dict(beside).items():
            create(file).write(content)


def load_adapter(model, folder, name="default", check_base=True):
    """Add the adapter of a PEFT folder to a model under a new name, active and trainable. Returns its paths.

    check_base: insist on the base that it was trained on, if the file says which that was. Everything is
    checked before the model is touched: ValueError says what does not fit.
    """
    expect("load_adapter", model, Module)
    expect("load_adapter", folder, (str, os.PathLike))
    folder = Path(folder)
    given, path = read_json(folder / "adapter_config.json"), folder / "adapter_model.safetensors"
    _check_present(folder, path)
    arrays, metadata = safetensors.read(path)
    if arrays and not any(key.startswith(PREFIX) for key in arrays):
        raise ValueError(f"{path}: no name begins with {PREFIX} as PEFT's do; the first is {brief(next(iter(arrays)))}")
    _check_options(folder, given, metadata)
    config = _config(folder, given, model)
    if check_base:
        _check_base(path, given, metadata, model)
    kind = DoraLinear if given.get("use_dora") else LoraLinear
    found, shapes, adaptable = {}, {}, set(_linear(model))
    for key, array in arrays.items():
        match = KEY.fullmatch(key)
        ours = f"{match[1]}.{match[2] or match[3]}" if match and match[1] in adaptable else key
        if ours in found:
            raise ValueError(f"{path}: {ours} is there under two names, of which {key} is one")
        found[ours] = array
    with disable_adapter(model):
        chosen = targets(model, config)
    for at, linear in chosen.items():
        (d, k), r = linear.weight.shape, config.at(at).r
        shapes |= {f"{at}.{factor}": shape for factor, shape in
                   zip(kind.factors, [(r, k), (d, r), (d,)], strict=False)}
        A = found.get(f"{at}.lora_A")
        if A is not None and A.shape[:1] != (r,):
            raise ValueError(f"{folder}: adapter_config.json gives {at} the rank {r}, but its lora_A is {A.shape}")
    check_shapes(path, found, shapes)
    paths = add_adapter(model, name, config, kind)
    for at, layer in lora_layers(model).items():
        for factor in kind.factors:
            getattr(layer, factor).data = found[f"{at}.{factor}"]
    return paths


def _settings(model, layers):
    """The settings of an adapter as PEFT's config has them: one r and alpha, and patterns for what differs."""
    configs = {path: layer.config for path, layer in layers.items()}
    for path, layer in layers.items():
        if layer.scaling != layer.config.scaling:
            raise ValueError(f"save_adapter: the scaling of {path} is {layer.scaling}, its config gives "
                             f"{layer.config.scaling}; an adapter file can only say the latter")
    first = next(iter(configs.values()))
    return {"r": int(first.r), "lora_alpha": first.lora_alpha, "target_modules": _short(_linear(model), configs),
            "use_rslora": first.use_rslora, "use_dora": isinstance(next(iter(layers.values())), DoraLinear),
            "rank_pattern": {path: int(c.r) for path, c in configs.items() if c.r != first.r},
            "alpha_pattern": {path: c.lora_alpha for path, c in configs.items() if c.lora_alpha != first.lora_alpha}}


def _linear(model):
    """The paths of all layers that can be adapted."""
    return [path for path, m in model.named_modules() if isinstance(m, (Linear, LoraLinear))]


def _short(linear, chosen):
    """Names that target the chosen paths: "q_proj" if every layer of that name is chosen, else whole paths."""
    last = {path: path.split(".")[-1] for path in linear}
    partly = {last[path] for path in linear if path not in chosen}
    return list(dict.fromkeys(path if last[path] in partly else last[path] for path in chosen))


def _config(folder, given, model):
    """The LoraConfig that does to the Linear layers of a model what PEFT's config says, by PEFT's rules."""
    linear = _linear(model)
    names = {path: full_name(model, path) for path in linear}
    try:
        chosen = [path for path in linear if _targeted(given, names[path])]
        _check_targets(model, given, names, chosen)
        ranks, alphas = ({path: first_match(given.get(pattern) or {}, names[path], given[plain]) for path in chosen}
                         for pattern, plain in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha")))
        return LoraConfig(r=given["r"], lora_alpha=given["lora_alpha"], target_modules=_short(linear, chosen),
                          lora_dropout=given.get("lora_dropout") or 0.0, use_rslora=bool(given.get("use_rslora")),
                          rank_pattern={path: r for path, r in ranks.items() if r != given["r"]},
                          alpha_pattern={path: a for path, a in alphas.items() if a != given["lora_alpha"]})
    except (ValueError, TypeError, AttributeError, re.error) as error:
        raise ValueError(f"{folder / 'adapter_config.json'}: {error}") from None


def _targeted(given, name):
    """Whether PEFT adapts the module of this name: by a regular expression for all of it, or by names for its end, and
    then only in the layers that layers_to_transform lists."""
    wanted, only, pattern = given["target_modules"], given.get("layers_to_transform"), given.get("layers_pattern")
    if isinstance(wanted, str):
        return name != "lm_head" if wanted.lower() == "all-linear" else re.fullmatch(wanted, name) is not None
    if only in (None, []) or name in wanted:
        return _ends(name, wanted)
    patterns = [pattern] if isinstance(pattern, str) and pattern else pattern or [r"[^.]*"]
    layer = next(filter(None, (re.match(rf"(?:.*?\.)?{p}\.(\d+)\.", name) for p in patterns)), None)
    return _ends(name, wanted) and layer is not None and int(layer[1]) in (only if isinstance(only, list) else [only])


def _ends(name, endings):
    return any(f".{name}".endswith(f".{ending}") for ending in endings)


def _check_targets(model, given, names, chosen):
    wanted, only, pattern = given["target_modules"], given.get("layers_to_transform"), given.get("layers_pattern")
    if only not in (None, []) and isinstance(wanted, str):
        raise ValueError("layers_to_transform goes with a list of names; target_modules is a regular expression")
    if only in (None, []) and pattern not in (None, "", []):
        raise ValueError(f"layers_pattern is {pattern!r}, but layers_to_transform, which it is for, is not given")
    tables = [full_name(model, path) for path, m in model.named_modules() if isinstance(m, Embedding)]
    for name in [*tables, "lm_head"]:
        if name not in names.values() and str(wanted).lower() != "all-linear" and _targeted(given, name):
            raise ValueError(f"target_modules {wanted!r} names {name}, which here is the embedding, or tied to it: "
                             "LoRA on it is not supported")
    if not chosen:
        raise ValueError(f"target_modules {wanted!r} names no Linear layer of this model"
                         + f" in the layers {only!r} of layers_to_transform" * (only not in (None, [])))
    excluded = given.get("exclude_modules") or []
    for name in (names[path] for path in chosen):
        if re.fullmatch(excluded, name) if isinstance(excluded, str) else _ends(name, excluded):
            raise ValueError(f"exclude_modules is {excluded!r}, which takes out {name}, one of the target_modules; "
                             "name only what is adapted")


def _check_options(folder, given, metadata):
    """Refuse, by name, whatever would make the adapter compute something else than it does here."""
    where = folder / "adapter_config.json"
    for option in ("peft_type", "r", "lora_alpha", "target_modules"):
        if given.get(option) is None:
            raise ValueError(f"{where}: lacks {option}")
    for option, value in given.items():
        if option in CHOICES:
            if value not in CHOICES[option]:
                raise ValueError(f"{where}: {option} is {brief(value)}; supported here: {CHOICES[option]}")
        elif option not in READ | WITHOUT_EFFECT and value not in (None, False, "", [], {}):
            raise ValueError(f"{where}: {option} is {brief(value)}, which is not supported here and would change the "
                             "result")
    try:
        recorded = dict(json.loads(metadata.get("settings", "{}")))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{folder / 'adapter_model.safetensors'}: bad record of settings: {error}") from None
    for option, value in recorded.items():
        if given.get(option) != value:
            raise ValueError(f"{where}: {option} is {given.get(option)!r}, but the weights beside it were saved with "
                             f"{value!r}: the two files do not belong together")


def _check_present(folder, path):
    if os.path.lexists(path):
        return
    if (folder / "adapter_model.bin").exists():
        raise ValueError(f"{folder}: has only adapter_model.bin, a pickle, which could run any code; load it in PEFT "
                         "and save_pretrained it")
    there = sorted(file.name for file in folder.iterdir() if file.suffix == ".safetensors")
    raise FileNotFoundError(f"{folder}: no adapter_model.safetensors" + bool(there) * (
        f", but {', '.join(there[:3])}: not the layout of PEFT"))


def _check_base(path, given, metadata, model):
    wrong = other_base(metadata, fingerprint(model))
    if wrong:
        base = given.get("base_model_name_or_path") or "not named there"
        raise ValueError(f"{path}: made for another base ({base}): the {wrong.replace('_', ' ')} of this model are not "
                         "the ones it was trained on. Load that base, or pass check_base=False")
