"""The model from primitives alone, for engines without fused layers, and AdamW on one flat array.

np is the engine's own NumPy: it offers exp, log, sqrt, sum, mean, maximum, matmul and reshape.
"""

import numpy

from .. import work


def loss(np, w, size, ids, targets, mask, rows):
    """The mean cross-entropy of the batch. w: {name: array or the engine's tensor}. mask: (T, T), 0 or -1e9."""
    B, T, d, heads = *ids.shape, size.d_model, size.n_heads
    # As scalars of the mask's precision: MyGrad takes a Python number for float64, and all that follows with it.
    scaling, eps, zero, root = map(mask.dtype.type, (size.scaling, 1e-5, 0, (d // heads) ** -0.5))

    def linear(name, x):
        y = np.matmul(x, w[f"{name}.weight"].T) + w[f"{name}.bias"]
        if f"{name}.lora_A" in w:
            y = y + np.matmul(np.matmul(x, w[f"{name}.lora_A"].T) * scaling, w[f"{name}.lora_B"].T)
        return y

    def norm(name, x):
        x = x - np.mean(x, axis=1, keepdims=True)
        return x / np.sqrt(np.mean(x * x, axis=1, keepdims=True) + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def split(x):  # (N, d) -> (B, heads, T, d_head)
        return np.transpose(np.reshape(x, (B, T, heads, d // heads)), (0, 2, 1, 3))

    x = np.reshape(w["embed_tokens.weight"][ids] + w["embed_positions.weight"], (B * T, d))
    for i in range(size.n_layers):
        at = f"layers.{i}"
        n = norm(f"{at}.self_attn_layer_norm", x)
        q, k, v = (split(linear(f"{at}.self_attn.{name}", n)) for name in ("q_proj", "k_proj", "v_proj"))
        E = np.exp(np.matmul(q * root, np.transpose(k, (0, 1, 3, 2))) + mask)
        y = np.matmul(E, v) / np.sum(E, axis=3, keepdims=True)
        x = x + linear(f"{at}.self_attn.out_proj", np.reshape(np.transpose(y, (0, 2, 1, 3)), (B * T, d)))
        h = np.maximum(linear(f"{at}.fc1", norm(f"{at}.final_layer_norm", x)), zero)
        x = x + linear(f"{at}.fc2", h)
    logits = np.matmul(norm("final_layer_norm", x), w["embed_tokens.weight"].T)
    return np.mean(np.log(np.sum(np.exp(logits), axis=1)) - logits[rows, targets.ravel()])


def mask(size, dtype):
    """0 where a query may look, -1e9 elsewhere: exp gives 0 there."""
    return ((1 - numpy.tri(size.context)) * -1e9).astype(dtype)


class AdamW:
    """Updates the arrays of a dict in place from the gradients of the same names."""

    def __init__(self, arrays):
        self.arrays, self.t = arrays, 0
        self.m, self.v = (numpy.zeros_like(numpy.concatenate([a.ravel() for a in arrays.values()])) for _ in range(2))

    def step(self, gradients):
        self.t += 1
        (beta1, beta2), t, m, v = work.BETAS, self.t, self.m, self.v
        g = numpy.concatenate([gradients[name].ravel() for name in self.arrays])
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * (g * g)
        change = m / (numpy.sqrt(v) * (1 - beta2 ** t) ** -0.5 + work.EPS)
        change *= work.LEARNING_RATE / (1 - beta1 ** t)
        start = 0
        for array in self.arrays.values():
            array -= change[start:start + array.size].reshape(array.shape)
            start += array.size
