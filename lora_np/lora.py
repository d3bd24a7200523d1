"""LoRA, low-rank adaptation (Hu et al. 2021, arXiv 2106.09685): freeze W0, train only B and A.

    h = W0 x + (alpha / r) B A x        W0: (d, k), B: (d, r), A: (r, k), r far below d and k

The parameters of an adapted layer "….q_proj" are "….q_proj.weight" and "….q_proj.bias", frozen, under
the names they always had, and "….q_proj.lora_A" and "….q_proj.lora_B".
"""

import numpy as np

from . import ops
from .config import LoraConfig, first_match
from .graph import grad_enabled
from .nn import Dropout, Embedding, Linear, Module, parameter
from .support.checks import expect
from .tensor import Tensor


class LoraLinear(Module):
    """A Linear layer whose weight W0 (d, k) stays frozen, beside a trainable update of rank r (section 4.1).

    lora_A: (r, k), from U(-1/sqrt(k), 1/sqrt(k)). lora_B: (d, r), zeros, so that training starts from the
    base's own output. Raises ValueError where r > min(d, k).
    """

    factors = ("lora_A", "lora_B")  # what is trained, saved and swapped

    def __init__(self, base, config, rng=None):
        d, k = _check_base(base, config)
        rng = rng or np.random.default_rng(config.seed)
        self.weight, self.bias, self.config, self._base = base.weight, base.bias, config, base
        self.lora_A = parameter(rng.uniform(-k ** -0.5, k ** -0.5, (config.r, k)), base.weight.dtype)
        self.lora_B = parameter(np.zeros((d, config.r)), base.weight.dtype)
        self.lora_dropout = Dropout(config.lora_dropout, rng)
        self.scaling = config.scaling
        self._w0 = None  # while merged: the Tensor of W0, kept so that unmerge gives back its very bits
        base.freeze()

    def forward(self, x) -> Tensor:
        """h = W0 x + (alpha / r) B A x: x (..., k) to h (..., d). Raises RuntimeError when trained while merged."""
        if self.merged:
            _check_not_trained(self)
            return self.frozen(x)
        u = ops.linear(self.lora_dropout(x), self.lora_A) * self.scaling  # (..., k) -> (..., r): scaled where small
        return ops.linear(u, self.lora_B, self.frozen(x))                 # (..., r) -> (..., d)

    def frozen(self, x) -> Tensor:
        """W0 x + b, or the same with the merged weight: (..., k) to (..., d)."""
        if self.weight is self._base.weight:
            return self._base(x)  # which may keep W0 in blocks
        return ops.linear(x, self.weight, self.bias)

    def delta(self) -> np.ndarray:
        """The update (alpha / r) B A, an array (d, k)."""
        return self.scaling * (self.lora_B.data @ self.lora_A.data)

    def w0(self) -> np.ndarray:
        """The array W0 (d, k), whether merged or not."""
        return (self._w0 if self.merged else self.weight).data

    @property
    def merged(self) -> bool:
        """Whether weight holds W0 + (alpha / r) B A."""
        return self._w0 is not None

    def merge(self):
        """Put W0 + (alpha / r) B A in the place of the weight; a second call changes nothing."""
        if not self.merged:
            _check_mergeable("this layer", self)
            self._w0, self.weight = self.weight, Tensor(self.weight.data + self.delta())

    def unmerge(self):
        """Give the weight the bits of W0 back."""
        if self.merged:
            self.weight, self._w0 = self._w0, None


def add_lora(model, config, layer=LoraLinear) -> list:
    """Freeze the model and put a LoraLinear in the place of each targeted Linear. Returns their paths.

    Whatever the model held is frozen; exactly the new lora_A and lora_B are trainable. layer: LoraLinear, or a
    variant of it. Raises ValueError for a target that names no Linear layer or a rank too high for one, and
    changes nothing then.
    """
    chosen, rng = targets(model, config), np.random.default_rng(config.seed)
    if not isinstance(layer, type) or not issubclass(layer, LoraLinear):
        raise TypeError(f"add_lora: layer must be LoraLinear or a variant of it, got {layer!r}")
    trained = model.trainable_parameters()
    try:
        layers = {path: layer(linear, config.at(path), rng) for path, linear in chosen.items()}
    except BaseException:  # the first layers have frozen their weights
        for t in trained:
            t.requires_grad = True
        raise
    model.freeze()
    for path, adapted in layers.items():
        model.replace(path, adapted.train(model.training))
    return list(layers)


def merge(model):
    """Add every update to its weight: the model then computes what a plain one does, with as many operations.

    W0 is kept for unmerge; remove(model) lets it go. Raises ValueError where a W0 is kept in blocks, and merges none.
    """
    for path, layer in lora_layers(model).items():
        _check_mergeable(path, layer)
    for layer in lora_layers(model).values():
        layer.merge()


def unmerge(model):
    """Take every update out again: W0 is then what it was, bit for bit."""
    for layer in lora_layers(model).values():
        layer.unmerge()


def remove(model):
    """Put plain Linear layers back. A merged layer keeps its merged weight; else the update is dropped.

    All parameters stay frozen; set requires_grad to train them. Adapters beside the active one are dropped too.
    """
    for path, layer in lora_layers(model).items():
        if layer.merged:
            layer._base.weight = layer.weight
        model.replace(path, layer._base)
    vars(model).pop("_adapters", None)


def lora_layers(model) -> dict:
    """{path: LoraLinear} of a model. Raises ValueError where there is none."""
    expect("lora", model, Module)
    layers = {path: m for path, m in model.named_modules() if isinstance(m, LoraLinear)}
    if not layers:
        raise ValueError("no LoRA layers in this model; call add_lora(model, LoraConfig()) first")
    return layers


def count_parameters(model) -> tuple:
    """(trainable, all), in numbers; a Tensor in two places counts once."""
    expect("count_parameters", model, Module)
    return sum(t.size for t in model.trainable_parameters()), sum(t.size for t in model.parameters())


def trainable_summary(model) -> str:
    """One line in PEFT's words: trainable params: 512 || all params: 6,208 || trainable%: 8.2474"""
    trainable, total = count_parameters(model)
    return (f"trainable params: {trainable:,} || all params: {total:,} || "
            f"trainable%: {100 * trainable / max(total, 1):.4f}")


def targets(model, config) -> dict:
    """{path: Linear} that a config adapts. Raises ValueError for a target that names no Linear layer, a pattern
    that matches none of them, or a rank too high for one."""
    expect("add_lora", model, Module)
    expect("add_lora", config, LoraConfig, "; write add_lora(model, LoraConfig(r=8))")
    linear = {path: m for path, m in model.named_modules() if isinstance(m, Linear) and m is not model}
    wanted = config.target_modules
    if [name.lower() for name in wanted] == ["all-linear"]:
        wanted = [path for path in linear if path != "lm_head"]
    _check_targets(model, wanted, linear)
    chosen = {path: module for path, module in linear.items() if _ends(path, wanted)}
    for key in (*config.rank_pattern, *config.alpha_pattern):
        if not any(first_match({key: True}, path, False) for path in chosen):
            raise ValueError(f"add_lora: the pattern {key!r} matches none of the targeted layers, "
                             f"such as {next(iter(chosen))!r}")
    for path, module in chosen.items():
        _check_base(module, config.at(path), f"{path}: ")
    return chosen


def _ends(path, names):
    return any(f".{path}".endswith(f".{name}") for name in names)


def _check_targets(model, wanted, linear):
    modules = dict(model.named_modules())
    adapted = [path for path, m in modules.items() if isinstance(m, LoraLinear)]
    if adapted:
        raise ValueError(f"add_lora: this model has LoRA layers already ({adapted[0]}, …); call remove(model) first")
    tables = [path for path, m in modules.items() if isinstance(m, Embedding)]
    for target in wanted:
        if target not in linear and any(_ends(path, [target]) for path in [*tables, "lm_head" if tables else ""]):
            raise ValueError(f"add_lora: target {target!r} names no Linear layer of its own: it is an embedding, or "
                             "a head that is tied to one, and LoRA on these is not supported")
        if not any(_ends(path, [target]) for path in linear):
            names = ", ".join(sorted({path.split(".")[-1] for path in linear})) or "none"
            raise ValueError(f"add_lora: target {target!r} names no Linear layer inside this model; there are {names}"
                             + (f" (in every layer), or whole paths such as {next(iter(linear))!r}" if linear else ""))


def _check_base(base, config, where=""):
    """The shape (d, k) of a layer that a config can adapt."""
    expect("LoraLinear", base, Linear)
    expect("LoraLinear", config, LoraConfig)
    d, k = base.weight.shape
    if config.r > min(d, k):
        raise ValueError(f"LoraLinear: {where}r={config.r} is more than min(d, k)={min(d, k)} of a weight {(d, k)}; "
                         "B A can have no higher rank than that")
    return d, k


def _check_mergeable(name, layer):
    if (refuse := getattr(layer.weight, "refuse_update", None)) is not None:
        refuse(name, layer.delta())


def _check_not_trained(layer):
    if layer.training and grad_enabled():
        raise RuntimeError("LoraLinear: merged, so A and B are not used and would get no gradient; call "
                           "unmerge(model) to go on training, or model.eval() to use it as it is")
