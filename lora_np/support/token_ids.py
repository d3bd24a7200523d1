"""Ids that remember the kind of their tokenizer, so that those of another model's are noticed."""

import numpy as np

from .checks import as_array


def noted(kind, ids):
    """Ids as an array whose dtype notes the kind of their tokenizer; slices and copies keep it for check_tokenizer."""
    return np.array(ids, np.int64).view(np.dtype(np.int64, metadata={"tokenizer": kind}))


def check_tokenizer(model, tokenizer):
    """Raise ValueError where a tokenizer, or ids that one made, cannot belong to a model: there are more ids than the
    model has, or it came with a tokenizer of another kind."""
    own = getattr(model, "tokenizer", None)
    if hasattr(tokenizer, "kind"):
        kind, n, what = tokenizer.kind, len(tokenizer), f"the {type(tokenizer).__name__}"
    else:
        ids = as_array("check_tokenizer", tokenizer, copy=None)
        kind, n, what = (ids.dtype.metadata or {}).get("tokenizer"), 1 + int(ids.max(initial=-1)), "the data"
    if own and kind and kind != own:
        raise ValueError(f"{what}: ids of the kind {kind}, but this model came with a tokenizer of its own, of the "
                         f"kind {own}; load_tokenizer reads it from where the model is")
    if n > model.config.vocab_size:
        raise ValueError(f"{what}: ids go up to {n - 1}, but this model has {model.config.vocab_size}, from 0; use the "
                         "tokenizer that it was trained with")
