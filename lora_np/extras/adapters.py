"""Several adapters on one base. An adapter is a set of LoRA layers {path: layer}; all of them share the frozen
weights, so a task costs a few small matrices, and to switch tasks is to swap A and B.

One adapter at most is active: its layers are in the model. The others wait in `model._adapters`, by name.
Layers that add_lora put into a model are the adapter "default".
"""

from contextlib import contextmanager

import numpy as np

from ..lora import LoraConfig, LoraLinear, add_lora, lora_layers
from ..nn import Linear, Module
from ..support.checks import check_number, expect


def adapters(model):
    """{name: {path: layer}} of every adapter, in the order they were added."""
    expect("adapters", model, Module)
    shelf, active = vars(model).setdefault("_adapters", {}), _active_layers(model)
    if active and active not in shelf.values():
        shelf["default"] = active
    return dict(shelf)


def active_adapter(model):
    """The name of the adapter in use, or None."""
    active = _active_layers(model)
    return next((name for name, layers in adapters(model).items() if active and layers == active), None)


def add_adapter(model, name, config, layer=LoraLinear):
    """Add an adapter as add_lora does, and make it the active one. Returns the paths of its layers.

    Raises ValueError for a name in use, RuntimeError while merged, and whatever add_lora raises; the model and
    its adapters are then as they were.
    """
    if not isinstance(name, str) or not name or name in adapters(model):
        raise ValueError(f"add_adapter: expected a new name, got {name!r}; there are {_names(model)}")
    before = _active_layers(model)
    _swap(model, {})
    try:
        paths = add_lora(model, config, layer)
    except BaseException:
        _swap(model, before)
        raise
    model._adapters[name] = _active_layers(model)
    return paths


def set_adapter(model, name):
    """Make an adapter the active one. Its A and B are then the model's trainable parameters, and no others."""
    _swap(model, _adapter(model, name))


def delete_adapter(model, name):
    """Forget an adapter. If it is the active one, the model is the base alone until another is set."""
    layers = _adapter(model, name)
    if layers == _active_layers(model):
        _swap(model, {})
    del model._adapters[name]


@contextmanager
def disable_adapter(model):
    """Inside `with disable_adapter(model):` the model is its base alone, with the weights W0."""
    before = _active_layers(model)
    merged = [layer for layer in before.values() if layer.merged]
    adapters(model)  # puts layers of add_lora on the shelf
    try:
        for layer in merged:
            layer.unmerge()
        _swap(model, {})
        yield model
    finally:
        _swap(model, before)
        for layer in merged:
            layer.merge()


def combine(model, name, weights):
    """Add an adapter whose update is the weighted sum of others', and make it the active one.

        w1 s1 B1 A1 + w2 s2 B2 A2 = [w1 s1 B1, w2 s2 B2] [A1; A2]        weights: {name of an adapter: its w}

    So the factors are put side by side, and the ranks add up; adding them, (B1 + B2)(A1 + A2), would bring in
    the products B1 A2 and B2 A1, which nobody trained. Raises ValueError for an adapter that is not there or
    whose update is not s B A, and where the ranks add up to more than a weight's.
    """
    parts = {}
    expect("combine", weights, dict, "; write {name of an adapter: its weight}")
    for other, w in weights.items():
        size = abs(w) if isinstance(w, (int, float, np.number)) else w
        check_number("combine", **{f"the size of the weight of {other!r}": size})
        for path, layer in _adapter(model, other).items():
            if type(layer) is not LoraLinear:
                raise ValueError(f"combine: {other!r} has {type(layer).__name__} layers, whose update is not B A alone")
            parts.setdefault(path, []).append((layer.lora_A.data, w * layer.scaling * layer.lora_B.data))
    add_factors(model, name, {path: (np.concatenate([A for A, _ in pairs]), np.concatenate([B for _, B in pairs], 1))
                              for path, pairs in parts.items()})


def add_factors(model, name, factors):
    """Add an adapter with given factors and scaling 1. factors: {path: (A, B)}, A (r, k), B (d, r)."""
    if not isinstance(factors, dict) or not factors:
        raise ValueError(f"add_factors: no factors were given for {name!r}; expected {{path of a layer: (A, B)}}")
    modules = dict(model.named_modules())
    for path, pair in factors.items():
        d, k = modules[path].weight.shape if isinstance(modules.get(path), (Linear, LoraLinear)) else (None, None)
        shapes = [np.shape(factor) for factor in pair] if isinstance(pair, (tuple, list)) else []
        if d and (len(shapes) != 2 or len(shapes[0]) != 2 or shapes != [(shapes[0][0], k), (d, shapes[0][0])]):
            raise ValueError(f"add_factors: {path} takes (A, B) of shapes (r, {k}) and ({d}, r), got "
                             f"{shapes or type(pair).__name__}")
    ranks = {path: len(A) for path, (A, _) in factors.items()}
    r = max(ranks.values())
    others = {path: n for path, n in ranks.items() if n != r}
    add_adapter(model, name, LoraConfig(r=r, lora_alpha=r, target_modules=tuple(factors), rank_pattern=others,
                                        alpha_pattern=others))
    for path, layer in lora_layers(model).items():
        layer.lora_A.data, layer.lora_B.data = factors[path]


def _active_layers(model):
    return {path: m for path, m in model.named_modules() if isinstance(m, LoraLinear)}


def _adapter(model, name):
    if name not in adapters(model):
        raise ValueError(f"no adapter {name!r} in this model; there are {_names(model)}")
    return model._adapters[name]


def _names(model):
    return ", ".join(map(repr, adapters(model))) or "none yet; see add_adapter"


def _swap(model, layers):
    """Take the active layers out of the model and put others in."""
    active = _active_layers(model)
    if any(layer.merged for layer in active.values()):
        raise RuntimeError("the active adapter is merged into the weights that all adapters share; call "
                           "unmerge(model) first")
    for path, layer in active.items():
        model.replace(path, layer._base)
    for path, layer in layers.items():
        model.replace(path, layer.train(model.training))
