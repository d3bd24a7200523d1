"""Sampling from a decoder, one token after the other, with a key/value cache."""

import numpy as np

from .decoder import Decoder
from .graph import no_grad
from .nn import evaluating
from .support.checks import as_array, check_int, check_number, expect


def generate(model, ids, n, temperature=1.0, seed=0, stop=None, top_p=1.0):
    """Continue ids by n tokens, sampled one after the other; temperature 0 is greedy: argmax.

    ids: (T,) or (B, T), T >= 1. Returns integers (T + n,) or (B, T + n). A key/value cache makes a new
    token cost one position. When the context is full, the later half of it is kept and read again.

    stop: an id, or several: a row ends at the first of them that it generates, and is filled up with it. top_p: sample
    among the likeliest tokens only, the fewest that together have this probability (Holtzman et al. 2020, section 3.1).
    All rows of a batch are of one length, without padding. Ids of model.lacking are never generated.
    Raises FloatingPointError where the logits are not finite.
    """
    prompt, sampled, alone = _start(model, ids, n, temperature, seed, stop, top_p)
    out = np.concatenate([prompt, np.zeros((len(prompt), n), np.intp)], axis=1)
    for at, new in enumerate(sampled, start=prompt.shape[1]):
        out[:, at:] = new[:, None]  # to the end: where every row has stopped, nothing more comes
    return out[0] if alone else out


def stream(model, ids, n, temperature=1.0, seed=0, stop=None, top_p=1.0):
    """The ids that generate appends, each as soon as it is sampled: integers, or (B,) for ids (B, T).

    Ends after a stop, which is yielded too, or with a batch after the stop of every row.
    """
    _, sampled, alone = _start(model, ids, n, temperature, seed, stop, top_p)
    return (int(new[0]) for new in sampled) if alone else sampled


def _sampled(model, prompt, n, temperature, rng, stop, top_p):
    """Yield the next id of each row (B,), n times or until every row has stopped. prompt: (B, T)."""
    context = model.config.context
    seen, cache, stopped = prompt[:, -context:], [], np.zeros(len(prompt), bool)
    fresh, evaluation = seen, evaluating(model)  # fresh: what the cache has not seen
    for _ in range(n):
        with evaluation, no_grad():  # ends before the yield: in between, the model and the caller are as they were
            if cache and cache[0].shape[1] == context:
                cache, fresh = [], seen[:, -((context + 1) // 2):]
            logits = model.head(model.hidden(fresh, cache)[:, -1]).data  # (B, vocab_size)
        new = _choice(logits, temperature, rng, top_p, model.lacking)
        new = np.where(stopped, seen[:, -1], new)
        yield new
        stopped |= np.isin(new, stop)
        if stopped.all():
            return
        fresh = new[:, None]
        seen = np.concatenate([seen, fresh], axis=1)[:, -context:]


def _choice(logits, temperature, rng, top_p, lacking):
    """An id for each row of logits (B, V), none of those that are lacking."""
    scores = logits.astype(np.float64)
    scores[:, lacking] = -np.inf
    if not np.isfinite(scores.max(axis=-1)).all():
        raise FloatingPointError("generate: the model's logits are not finite; did its training diverge?")
    if temperature:  # the argmax with Gumbel noise added is a draw from the softmax
        with np.errstate(over="ignore"):  # a temperature near 0 leaves -inf to all but the largest
            scores = (scores - scores.max(axis=-1, keepdims=True)) / temperature
        scores = _nucleus(scores, top_p) + rng.gumbel(size=scores.shape)
    return scores.argmax(axis=-1)


def _nucleus(scores, top_p):
    """scores (B, V), with -inf in place of all but the likeliest tokens that together reach the probability top_p."""
    if top_p == 1:
        return scores
    order = np.argsort(-scores, axis=-1, kind="stable")
    reached = np.cumsum(np.exp(np.take_along_axis(scores, order, axis=-1)), axis=-1)  # (B, V), by each and those before
    enough = reached[:, :-1] >= top_p * (1 - 1e-9) * reached[:, -1:]  # rounding must not let one more in
    out = scores.copy()
    np.put_along_axis(out, order[:, 1:], np.where(enough, -np.inf, np.take_along_axis(scores, order[:, 1:], -1)), -1)
    return out


def _start(model, ids, n, temperature, seed, stop, top_p):
    """(the prompt as (B, T), what _sampled yields, whether ids were (T,)), once everything given has been checked."""
    expect("generate", model, Decoder, "; a GPT or a Llama is one")
    ids = as_array("generate", ids)
    if ids.ndim not in (1, 2) or not ids.size or ids.dtype.kind not in "iu":
        raise ValueError("generate: expected integer ids of shape (T,) or (B, T) with T >= 1, "
                         f"got {ids.dtype} {ids.shape}")
    prompt = np.atleast_2d(ids).astype(np.intp)
    model.refuse_left_padding("generate", prompt)
    _refuse_right_padding(prompt, model.pad_id)
    check_int("generate", least=0, n=n, seed=seed)
    check_number("generate", temperature=temperature, top_p=top_p)
    if not 0 < top_p <= 1:
        raise ValueError(f"generate: top_p must be above 0 and at most 1, got {top_p}")
    stop = _stops(stop, model.config.vocab_size)
    return prompt, _sampled(model, prompt, n, temperature, np.random.default_rng(seed), stop, top_p), ids.ndim == 1


def _refuse_right_padding(prompt, pad_id):
    """Raise ValueError where one of several rows ends with two of pad_id: what comes next would go on from those."""
    padded = [] if pad_id is None else np.flatnonzero((prompt[:, -2:] == pad_id).all(axis=1))
    if prompt.shape[1] > 2 and 0 < len(padded) < len(prompt):
        raise ValueError(f"generate: row {padded[0]} ends with padding (id {pad_id}), and would go on after it; "
                         "continue prompts of different lengths one by one")


def _stops(stop, V):
    stops = as_array("generate", [] if stop is None else stop)
    if stops.size and (stops.ndim > 1 or stops.dtype.kind not in "iu" or not 0 <= stops.min() <= stops.max() < V):
        raise ValueError(f"generate: stop must be an id, or a list of ids, from 0 to {V - 1}, got {stop!r}")
    return stops
