"""Modules: layers that own their parameters. A parameter is any Tensor that a Module holds."""

from contextvars import ContextVar

import numpy as np

from . import ops
from .support.checks import as_array, check_float_type, check_generator, check_int, check_number, expect
from .tensor import Tensor


class Module:
    """A layer or a model. Its parameters and submodules are found in its attributes (and in lists of
    Modules), in the order of assignment; their names are the paths there: "layers.0.self_attn.q_proj.weight".
    An attribute whose name starts with an underscore is private and not looked at. Raises TypeError where
    a tuple or a dict holds Modules, or any of these holds Tensors: they would not be found, nor trained.
    """

    training = True

    def __call__(self, *args, **options) -> Tensor:
        return self.forward(*args, **options)

    def children(self):
        """(name, Module) for each direct submodule."""
        for name, value in vars(self).items():
            if name.startswith("_"):
                continue
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple, dict)):
                held = list(value.values() if isinstance(value, dict) else value)
                lost = Tensor if isinstance(value, list) else (Module, Tensor)  # what would not be found in there
                if any(isinstance(v, lost) for v in held):
                    raise TypeError(f"{type(self).__name__}.{name}: parameters are not found inside a "
                                    f"{type(value).__name__} like this one; hold Modules in a list, and each Tensor "
                                    "in an attribute of its own")
                yield from ((f"{name}.{i}", m) for i, m in enumerate(held) if isinstance(m, Module))

    def named_modules(self, prefix="", seen=None):
        """(path, Module) for this module (path "") and all below it, each Module once."""
        seen = set() if seen is None else seen
        if self not in seen:
            seen.add(self)
            yield prefix, self
            for name, child in self.children():
                yield from child.named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def replace(self, path, module):
        """Put a Module at a path such as layers.0.self_attn.q_proj, and wherever else the one there is held.

        Raises ValueError where there is none.
        """
        modules = dict(self.named_modules())
        if not path or (old := modules.get(path)) is None:
            raise ValueError(f"replace: there is no module {path!r} in this model")
        for holder in modules.values():
            for name, value in vars(holder).items():
                if value is old and not name.startswith("_"):
                    setattr(holder, name, module)
                elif isinstance(value, list) and not name.startswith("_"):
                    value[:] = [module if item is old else item for item in value]

    def named_parameters(self):
        """(name, Tensor) for each parameter, frozen or not, each Tensor once."""
        seen = set()
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor) and not name.startswith("_") and id(value) not in seen:
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def parameters(self):
        """All parameters, frozen or not."""
        return [t for _, t in self.named_parameters()]

    def trainable_parameters(self):
        """The parameters that require a gradient: what an optimizer takes."""
        return [t for t in self.parameters() if t.requires_grad]

    trainable = trainable_parameters  # its name in earlier versions

    def freeze(self):
        """No parameter here is trained any more: no gradient of it is computed. Returns self."""
        for t in self.parameters():
            t.requires_grad = False
        return self

    def train(self, mode=True):
        """Training mode (dropout is active) here and in all submodules. Returns self."""
        if not isinstance(mode, (bool, np.bool_)):
            raise TypeError(f"train: mode must be True or False, got a {type(mode).__name__}; to train on batches, "
                            "use fit(model, batches, …)")
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self):
        """Evaluation mode (no dropout). Returns self."""
        return self.train(False)

    def state_dict(self):
        """{name: array}. The arrays are read-only and never change: this is a snapshot without a copy.

        A merged LoRA layer gives W0 for its weight: with A and B beside it, the update would else count twice."""
        w0 = {f"{path}.weight": m.w0() for path, m in self.named_modules() if getattr(m, "merged", False)}
        return {name: t.data for name, t in self.named_parameters()} | w0

    def load_state_dict(self, state):
        """Give every parameter the array of its name. Strict: raises ValueError that lists each missing,
        unexpected or wrong-shaped name, or a merged LoRA layer, and then changes nothing."""
        expect("load_state_dict", state, dict, "; another model's state_dict() is one")
        own = dict(self.named_parameters())
        state = {name: as_array(f"load_state_dict: {name}", value) for name, value in state.items()}
        problems = [f"merged: {path}, whose weight is not W0; call unmerge(model) first"
                    for path, m in self.named_modules() if getattr(m, "merged", False)]
        problems += [f"missing: {name}" for name in own if name not in state]
        problems += [f"unexpected: {name}" for name in state if name not in own]
        both = [(name, state[name], t.shape) for name, t in own.items() if name in state]
        problems += [f"wrong shape: {name} is {a.shape}, expected {shape}"
                     for name, a, shape in both if a.shape != shape]
        problems += [f"not real numbers: {name} is {a.dtype}" for name, a, _ in both if a.dtype.kind not in "fiub"]
        problems += [f"kept in blocks: {name}; load the model without quantized=True" for name, t in own.items()
                     if hasattr(t, "bits")]
        if problems:
            raise ValueError("load_state_dict: nothing was loaded\n  " + "\n  ".join(problems))
        for name, t in own.items():
            t.data = state[name]


class evaluating:
    """Inside `with evaluating(model):` all its modules are in evaluation mode; then each is again as it was."""

    def __init__(self, model):
        self.modules = [module for _, module in model.named_modules()]

    def __enter__(self):
        self.before = [module.training for module in self.modules]
        for module in self.modules:
            module.training = False

    def __exit__(self, *error):
        for module, mode in zip(self.modules, self.before, strict=True):
            module.training = mode


def parameter(array, dtype):
    """A trainable Tensor. Arrays are drawn in float64 first, so that both precisions start alike."""
    return Tensor(np.asarray(array, dtype), requires_grad=True)


def _checked(name, rng, dtype=np.float64, **sizes):
    """The random generator to draw initial weights from, after a check of a layer's arguments."""
    check_int(name, **sizes)
    check_float_type(name, dtype)
    rng = np.random.default_rng(0) if rng is None else rng
    check_generator(name, rng)
    return rng


class Linear(Module):
    """y = x W^T + b. weight: (d_out, d_in), from U(-1/sqrt(d_in), 1/sqrt(d_in)). bias: (d_out,), zeros.

    rng: give the layers of a model one generator; without it, two layers of one size start with the same numbers.
    """

    def __init__(self, d_in, d_out, bias=True, rng=None, dtype=np.float64):
        rng = _checked("Linear", rng, dtype, d_in=d_in, d_out=d_out)
        bound = d_in ** -0.5
        self.weight = parameter(rng.uniform(-bound, bound, (d_out, d_in)), dtype)
        self.bias = parameter(np.zeros(d_out), dtype) if bias else None

    def forward(self, x) -> Tensor:
        """(..., d_in) -> (..., d_out)"""
        return ops.linear(x, self.weight, self.bias)


class Embedding(Module):
    """A table of n vectors of size d, from N(0, 0.1^2): ids (...) give (..., d)."""

    def __init__(self, n, d, rng=None, dtype=np.float64):
        rng = _checked("Embedding", rng, dtype, n=n, d=d)
        self.weight = parameter(rng.normal(0, 0.1, (n, d)), dtype)

    def forward(self, ids) -> Tensor:
        """Integers (...) in 0 .. n-1 -> (..., d)"""
        return ops.embedding(self.weight, ids)

    def logits(self, h):
        """The table as an output head: h (..., d) to (..., n)."""
        return ops.linear(h, self.weight)


class LayerNorm(Module):
    """Mean 0 and variance 1 over the last axis of size d, then scaled by weight and shifted by bias."""

    def __init__(self, d, dtype=np.float64):
        _checked("LayerNorm", None, dtype, d=d)
        self.weight = parameter(np.ones(d), dtype)
        self.bias = parameter(np.zeros(d), dtype)

    def forward(self, x) -> Tensor:
        """(..., d) -> (..., d)"""
        return ops.layer_norm(x, self.weight, self.bias)


class RMSNorm(Module):
    """Mean square 1 over the last axis of size d, then scaled by weight: LayerNorm without mean and bias."""

    def __init__(self, d, eps=1e-5, dtype=np.float64):
        _checked("RMSNorm", None, dtype, d=d)
        check_number("RMSNorm", eps=eps)
        self.weight, self.eps = parameter(np.ones(d), dtype), eps

    def forward(self, x) -> Tensor:
        """(..., d) -> (..., d)"""
        return ops.rms_norm(x, self.weight, self.eps)


dropout_rng = ContextVar("dropout_rng", default=None)  # a thread's, in the place of a layer's own


class Dropout(Module):
    """In training, sets each element to 0 with probability p and scales the rest; in evaluation, nothing."""

    def __init__(self, p, rng=None):
        check_number("Dropout", below=1, p=p)
        self.p, self.rng = p, _checked("Dropout", rng)

    def forward(self, x) -> Tensor:
        """(...) -> (...), the same array in evaluation."""
        return ops.dropout(x, self.p, dropout_rng.get() or self.rng) if self.training and self.p else x
