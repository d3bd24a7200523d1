"""What the decoders share: their head, the cache of keys and values, and checks of the ids."""

import numpy as np

from . import ops
from .nn import Linear, Module
from .quantized import QuantizedLinear
from .support.checks import as_array, expect
from .tensor import Tensor


class Decoder(Module):
    """ids (B, T), integers below vocab_size, to logits (B, T, vocab_size) for the token after each.

    A decoder adds config, embed_tokens, layers, and hidden(ids, cache): what its last norm gives, (B, T, d).

    cache: an empty list at first; each call then takes only the tokens that are new, and finds the keys
    and values of those before in it. Raises ValueError for a sequence longer than the context and for the
    cache of another model or of other sequences.

    Sequences of different lengths are padded on the right: no position sees a later one, so what is in front of the
    padding stays as it is. Padding on the left would be seen by all of them, and would move their positions; it is
    refused where it shows, that is where pad_id is known and a row begins with it twice.
    """

    lm_head = None  # a Linear, in a decoder whose head is not tied to embed_tokens
    pad_id = None  # the id that the tokenizer pads with, where known
    lacking = np.empty(0, int)  # ids below vocab_size that the tokenizer lacks, where known: generate uses none of them

    def forward(self, ids, cache=None) -> Tensor:
        """(B, T) -> (B, T, vocab_size): the logits of the token after each."""
        return self.head(self.hidden(ids, cache))  # (B, T, vocab_size)

    def head(self, h):
        """The logits of what hidden gives. h: (..., d) -> (..., vocab_size)"""
        return self.embed_tokens.logits(h) if self.lm_head is None else self.lm_head(h)

    def head_weight(self):
        """(vocab_size, d), where the logits are what hidden gives times this and nothing else; or None."""
        plain = type(self).forward is Decoder.forward and type(self).head is Decoder.head
        if not plain or type(self.lm_head) not in (type(None), Linear, QuantizedLinear):  # a LoraLinear does more
            return None
        return (self.lm_head or self.embed_tokens).weight

    def prepare(self, ids, cache):
        """What hidden starts from: (ids as an array, the first one's position, a LayerCache or None for each layer)."""
        name = type(self).__name__
        ids = as_array(name, ids.data if isinstance(ids, Tensor) else ids, copy=None)
        if ids.ndim != 2 or not ids.size:
            raise ValueError(f"{name}: expected ids of shape (batch, time), got {ids.shape}; one sequence is ids[None]")
        if cache is None:
            self.refuse_left_padding(name, ids)
        start = 0 if cache is None else self._cached(cache, len(ids))
        stop = start + ids.shape[1]
        if stop > self.config.context:
            raise ValueError(f"{name}: {stop} positions are more than the context of {self.config.context}; "
                             "shorten the input")
        return ids, start, cache or [None] * len(self.layers)

    def refuse_left_padding(self, name, ids):
        """Raise ValueError where a row of ids (B, T) begins with two of pad_id, and then there is something."""
        if self.pad_id is None or ids.shape[1] < 3:
            return
        padding = ids == self.pad_id
        rows = np.flatnonzero(padding[:, :2].all(axis=1) & ~padding.all(axis=1))
        if len(rows):
            raise ValueError(f"{name}: row {rows[0]} begins with padding (id {self.pad_id}), which every token of it "
                             "would see. Pad on the right; and continue prompts of different lengths one by one")

    def _cached(self, cache, sequences):
        """How many positions a cache holds. Prepares an empty one, and refuses any that this model did not fill."""
        name = type(self).__name__
        expect(name, cache, list, "; the cache starts as an empty list")
        if not cache:
            cache.extend(LayerCache(layer) for layer in self.layers)
        if [isinstance(kept, LayerCache) and kept.layer for kept in cache] != self.layers:
            raise ValueError(f"{name}: this cache is not one that this model filled; start with an empty list")
        held, length = cache[0].shape
        if held not in (0, sequences):
            raise ValueError(f"{name}: the cache holds {held} sequences, the ids {sequences}; start with an empty list")
        return length


class LayerCache:
    """The keys and values of one layer at all positions so far, with room for more: a new token copies one row of each.

    shape: (B, S), the sequences and their positions; (0, 0) at first.
    """

    def __init__(self, layer):
        self.layer, self.shape, self.kept, self.room = layer, (0, 0), None, None

    def append(self, k, v):
        """(B, T, d) each, at the new positions -> (B, S, d) each, at all of them."""
        (_, before), (B, T, d) = self.shape, k.shape
        S = before + T
        if self.kept is None:
            self.kept = k, v
        elif any(t.requires_grad for t in (k, v, *self.kept)):  # recorded, so that backward finds its way
            self.kept = [ops.concatenate([old, new], axis=1) for old, new in zip(self.kept, (k, v), strict=True)]
            self.room = None
        else:
            if self.room is None or self.room.shape[2] < S:
                self.room = np.empty((2, B, 2 * S, d), k.dtype)
                self.room[:, :, :before] = [t.data for t in self.kept]
            self.room[:, :, before:S] = k.data, v.data  # beyond all that an earlier Tensor shows
            self.kept = [Tensor.from_array(rows) for rows in self.room[:, :, :S]]
        self.shape = B, S
        return self.kept
