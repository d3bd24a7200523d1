"""The work that every contender does: the sizes, and the weights and batches that all of them share."""

from dataclasses import dataclass

import numpy as np

VOCABULARY, RANK, ALPHA = 96, 8, 8
LEARNING_RATE, BETAS, EPS = 1e-4, (0.9, 0.999), 1e-8  # of AdamW, without weight decay
TARGETS = ("q_proj", "v_proj")


@dataclass(frozen=True)
class Size:
    """The sizes of a model and of its batches."""

    d_model: int
    n_heads: int
    n_layers: int
    d_ff: int
    context: int
    batch: int
    r: int = RANK

    @property
    def scaling(self):
        return ALPHA / self.r


MODES = {"lora": "LoRA", "full": "full"}
SIZES = {"tiny": Size(16, 2, 1, 64, 16, 4),
         "small": Size(64, 4, 2, 256, 64, 16),
         "large": Size(256, 8, 4, 1024, 128, 8)}


def weights(size, mode, dtype=np.float32, seed=0):
    """{name: array} under lora_np's names. Nothing is zero, B neither, so that every gradient can be compared."""
    rng, d, out = np.random.default_rng(seed), size.d_model, {}

    def draw(name, mean, width, *shape):
        out[name] = (mean + width * rng.normal(size=shape)).astype(dtype)

    def linear(name, rows, columns):
        draw(f"{name}.weight", 0, 0.6 * columns ** -0.5, rows, columns)
        draw(f"{name}.bias", 0, 0.05, rows)

    def norm(name):
        draw(f"{name}.weight", 1, 0.05, d)
        draw(f"{name}.bias", 0, 0.05, d)

    draw("embed_tokens.weight", 0, 0.1, VOCABULARY, d)
    draw("embed_positions.weight", 0, 0.1, size.context, d)
    for i in range(size.n_layers):
        at = f"layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{at}.self_attn.{name}", d, d)
            if mode == "lora" and name in TARGETS:
                draw(f"{at}.self_attn.{name}.lora_A", 0, 0.6 * d ** -0.5, size.r, d)
                draw(f"{at}.self_attn.{name}.lora_B", 0, 0.05, d, size.r)
        norm(f"{at}.self_attn_layer_norm")
        linear(f"{at}.fc1", size.d_ff, d)
        linear(f"{at}.fc2", d, size.d_ff)
        norm(f"{at}.final_layer_norm")
    norm("final_layer_norm")
    return out


def is_trained(name, mode):
    return mode == "full" or "lora_" in name


def batches(size, n=64, seed=1):
    """n pairs (x, y) of integers (batch, context). Random and many: nothing is learnt, so all steps are alike."""
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, (n, size.batch, size.context + 1))
    return [(each[:, :-1], each[:, 1:]) for each in ids]
