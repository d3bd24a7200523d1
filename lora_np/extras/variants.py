"""Four changes to LoRA in wide use, each in as little code as it needs. (rsLoRA is LoraConfig(use_rslora=True).)

    LoRA+   B learns faster than A                        opt = LoraPlus(model, lr=1e-3)
    PiSSA   A and B start at W0's largest singular parts  add_lora(model, config, PissaLinear)
    DoRA    the length of each row of W learns by itself  add_lora(model, config, DoraLinear)
"""

import numpy as np

from .. import ops
from ..lora import LoraLinear, lora_layers
from ..nn import parameter
from ..optim import AdamW
from ..support.checks import check_number
from ..tensor import Tensor
from .adapters import add_factors


class LoraPlus:
    """LoRA+ (Hayou et al. 2024, arXiv 2402.12354): AdamW with learning rate lr for A and ratio * lr for the rest.

    At the start B is zero and A is not, so that steps of one size move the two unequally. It takes the place of
    an optimizer in fit; a schedule sets lr, and the ratio stays. settings: AdamW's betas, eps and weight_decay.
    """

    def __init__(self, model, lr, ratio=16, **settings):
        layers = lora_layers(model).values()
        check_number("LoraPlus", lr=lr, ratio=ratio)
        A = [layer.lora_A for layer in layers]
        rest = [getattr(layer, name) for layer in layers for name in layer.factors if name != "lora_A"]
        self.parameters, self.ratio = A + rest, ratio
        self.groups = AdamW(A, lr, **settings), AdamW(rest, ratio * lr, **settings)

    @property
    def lr(self):
        """The learning rate of A."""
        return self.groups[0].lr

    @lr.setter
    def lr(self, lr):
        self.groups[0].lr, self.groups[1].lr = lr, self.ratio * lr

    def zero_grad(self):
        """Forget all gradients."""
        for group in self.groups:
            group.zero_grad()

    def step(self):
        """Move A and the rest, each at its learning rate."""
        for group in self.groups:
            group.step()


class PissaLinear(LoraLinear):
    """PiSSA (Meng et al. 2024, arXiv 2404.02948): train the r largest singular parts of W0, freeze what is left.

        W0 = U S V^T,   B = U_r sqrt(S_r / s),   A = sqrt(S_r / s) V_r^T,   frozen: W0 - s B A        s: the scaling

    The output at the start is W0's, as with LoRA, but no factor is zero. The base keeps W0 itself; `remove` puts
    it back, and `pissa_to_lora` turns what was learned into an ordinary update of it.
    """

    def __init__(self, base, config, rng=None):
        super().__init__(base, config, rng)
        W0, r, s = base.weight.data, config.r, self.scaling
        if not np.isfinite(W0).all():
            raise ValueError("PissaLinear: the weight is not finite, so it has no singular values; did it diverge?")
        U, S, Vt = np.linalg.svd(W0, full_matrices=False)
        root = np.sqrt(S[:r] / s)
        self.lora_A.data, self.lora_B.data = root[:, None] * Vt[:r], U[:, :r] * root
        self.weight = Tensor(W0 - self.delta())
        self._start = self.lora_A.data, self.lora_B.data


def pissa_to_lora(model, name):
    """Add an ordinary adapter that does on W0 what the active PissaLinear layers do on their part of it.

        W0 - s B0 A0 + s B A = W0 + [s B, -s B0] [A; A0]        B0, A0: the factors at the start

    Its rank is 2 r: raises ValueError where that is more than a weight's.
    """
    factors = {}
    for path, layer in lora_layers(model).items():
        if not isinstance(layer, PissaLinear):
            raise ValueError(f"pissa_to_lora: {path} is a {type(layer).__name__}, not a PissaLinear")
        A0, B0 = layer._start
        factors[path] = (np.concatenate([layer.lora_A.data, A0]),
                         layer.scaling * np.concatenate([layer.lora_B.data, -B0], axis=1))
    add_factors(model, name, factors)


class DoraLinear(LoraLinear):
    """DoRA (Liu et al. 2024, arXiv 2402.09353): a row of W = W0 + s B A gives the direction, m its length.

        h = m * (W x) / |W| + b        lora_magnitude_vector m: (d,), the row lengths |W0| at the start

    |W|, the lengths of W's rows, counts as a constant in the gradient (section 4.3). lora_dropout acts on the
    input of A, as in LoRA; in PEFT it then acts on W0's as well.
    """

    factors = ("lora_A", "lora_B", "lora_magnitude_vector")

    def __init__(self, base, config, rng=None):
        super().__init__(base, config, rng)
        self.lora_magnitude_vector = parameter(_lengths(base.weight.data), base.weight.dtype)

    def forward(self, x):
        """x (..., k) to h (..., d)."""
        if self.merged:
            return super().forward(x)
        u = ops.linear(self.lora_dropout(x), self.lora_A) * self.scaling
        Wx = ops.linear(u, self.lora_B, ops.linear(x, self.weight))
        h = Wx * (self.lora_magnitude_vector / _lengths(self.weight.data + super().delta()))
        return h if self.bias is None else h + self.bias

    def delta(self):
        """What merging adds to W0, an array (d, k): m W / |W| - W0."""
        W = self.w0() + super().delta()
        return (self.lora_magnitude_vector.data / _lengths(W))[:, None] * W - self.w0()


def _lengths(W):
    return np.linalg.norm(W, axis=1)
