"""Sampling from a decoder, one token after the other, with a key/value cache."""

import numpy as np

from .graph import no_grad
from .support.checks import as_array, check_int, check_number, expect
from .transformer import GPT


def generate(model, ids, n, temperature=1.0, seed=0):
    """Continue ids by n tokens, sampled one after the other; temperature 0 takes the likeliest each time.

    ids: (T,) or (B, T), T >= 1. Returns integers (T + n,) or (B, T + n). A key/value cache makes a new
    token cost one position. When the context is full, the later half of it is kept and read again.
    """
    expect("generate", model, GPT)
    ids = as_array("generate", ids)
    if ids.ndim not in (1, 2) or not ids.size or ids.dtype.kind not in "iu":
        raise ValueError("generate: expected integer ids of shape (T,) or (B, T) with T >= 1, "
                         f"got {ids.dtype} {ids.shape}")
    check_int("generate", least=0, n=n, seed=seed)
    check_number("generate", temperature=temperature)
    rng, context = np.random.default_rng(seed), model.config.context
    out, was_training = np.atleast_2d(ids), model.training
    cache, fresh = [], out[:, -context:]  # fresh: what the cache has not seen
    model.eval()
    try:
        with no_grad():
            for _ in range(n):
                if cache and cache[0]["k"].shape[1] == context:
                    cache, fresh = [], out[:, -((context + 1) // 2):]
                logits = model(fresh, cache).data[:, -1].astype(np.float64)  # (B, vocab_size)
                if temperature:  # the argmax with Gumbel noise added is a draw from the softmax
                    logits = logits / temperature + rng.gumbel(size=logits.shape)
                fresh = logits.argmax(axis=-1)[:, None]
                out = np.concatenate([out, fresh], axis=1)
    finally:
        model.train(was_training)
    return out if ids.ndim == 2 else out[0]
