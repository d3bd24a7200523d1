"""What each operation does at the edges of floating point, as its docstring says, and how far float32 strays."""

import inspect

import numpy as np
import pytest

from lora_np import LoraConfig, Tensor, data, lora, ops, optim
from lora_np.tensor import operations
from lora_np.train import fit
from tests.helpers import gradients, small_gpt

INF, NAN = np.inf, np.nan
TINY = {np.float32: np.float32(1e-45), np.float64: np.float64(5e-324)}  # the smallest subnormals
ONE_HOT = np.eye(2, dtype=np.float32)  # takes the precision of what it is multiplied with
HUGE = {np.float32: np.float32(3e38), np.float64: np.float64(1.7e308)}


def both(function, *arrays, dtype):
    """(value, gradients) of an operation for a seed of ones, without NumPy's warnings."""
    with np.errstate(all="ignore"):
        arrays = [np.asarray(a, dtype) for a in arrays]
        value = function(*map(Tensor, arrays))
        assert value.dtype == dtype
        return value.data, gradients(function, *arrays)


# (operation, operands, value, gradient of the first operand); "huge" and "tiny" are those of the precision
EDGES = {
    "add overflows": (ops.add, ["huge", "huge"], INF, 1),
    "add inf - inf": (ops.add, [INF, -INF], NAN, 1),
    "sub of subnormals": (ops.sub, ["tiny", 0], "tiny", 1),
    "mul overflows": (ops.mul, ["huge", 10], INF, 10),
    "mul keeps subnormals": (ops.mul, ["tiny", 1], "tiny", 1),
    "mul underflows": (ops.mul, ["tiny", 0.25], 0, 0.25),
    "mul 0 * inf": (ops.mul, [0, INF], NAN, INF),
    "div by 0": (ops.div, [1, 0], INF, INF),
    "div 0 / 0": (ops.div, [0, 0], NAN, INF),
    "div by inf": (ops.div, [1, INF], 0, 0),
    "neg of inf": (ops.neg, [INF], -INF, -1),
    "pow of 0 below 0": (lambda a: ops.pow(a, -1.0), [0], INF, -INF),
    "pow root of a negative": (lambda a: ops.pow(a, 0.5), [-1], NAN, NAN),
    "pow overflows": (lambda a: ops.pow(a, 2), ["huge"], INF, INF),
    "exp overflows": (ops.exp, [800], INF, INF),
    "exp underflows": (ops.exp, [-800], 0, 0),
    "exp of -inf": (ops.exp, [-INF], 0, 0),
    "log of 0": (ops.log, [0], -INF, INF),
    "log of a negative": (ops.log, [-1], NAN, -1),
    "log of inf": (ops.log, [INF], INF, 0),
    "sqrt of 0": (ops.sqrt, [0], 0, INF),
    "sqrt of a negative": (ops.sqrt, [-1], NAN, NAN),
    "tanh saturates": (ops.tanh, [50], 1, 0),
    "tanh of -inf": (ops.tanh, [-INF], -1, 0),
    "tanh of a subnormal": (ops.tanh, ["tiny"], "tiny", 1),
    "relu of nan": (ops.relu, [NAN], NAN, 0),
    "relu of inf": (ops.relu, [INF], INF, 1),
    "relu of a subnormal": (ops.relu, ["tiny"], "tiny", 1),
    "gelu far out": (ops.gelu, [1e6], 1e6, 1),
    "gelu far below": (ops.gelu, [-1e6], 0, 0),
    "gelu of inf": (ops.gelu, [INF], INF, NAN),
    "gelu of -inf": (ops.gelu, [-INF], NAN, NAN),
    "silu far out": (ops.silu, [1e6], 1e6, 1),
    "silu far below": (ops.silu, [-1e6], 0, 0),
    "silu of inf": (ops.silu, [INF], INF, NAN),
    "silu of -inf": (ops.silu, [-INF], NAN, NAN),
    "silu of a small slope": (ops.silu, [-30], -30 / (1 + np.exp(30)), -29 * np.exp(-30)),
    "where hides nan": (lambda a: ops.where(False, a, 1.0), [NAN], 1, 0),
    "matmul 0 * inf": (ops.matmul, [[[0.0]], [[INF]]], [[NAN]], [[INF]]),
    "matmul overflows": (ops.matmul, [["huge", "huge"], [1, 1]], INF, [1, 1]),
    "sum overflows": (ops.sum, [["huge", "huge"]], INF, [1, 1]),
    "mean overflows": (ops.mean, [["huge", "huge"]], INF, [0.5, 0.5]),
    "max of nan": (ops.max, [[1, NAN]], NAN, [NAN, NAN]),
    "max of inf": (ops.max, [[1, INF]], INF, [0, 1]),
    "reshape moves": (lambda a: ops.reshape(a, 1), [NAN], [NAN], 1),
    "transpose moves": (ops.transpose, [[[INF, NAN]]], [[INF], [NAN]], [[1, 1]]),
    "getitem moves": (lambda a: ops.getitem(a, 1), [[NAN, INF]], INF, [0, 1]),
    "concatenate moves": (lambda a, b: ops.concatenate([a, b]), [[NAN], [INF]], [NAN, INF], [1]),
    "linear 0 * inf": (ops.linear, [[0.0], [[INF]]], [NAN], [INF]),
    "embedding moves": (lambda w: ops.embedding(w, [0]), [[[INF], [NAN]]], [[INF]], [[1], [0]]),
    "layer_norm of equal numbers": (ops.layer_norm, [[3, 3], [1, 1], [0, 0]], [0, 0], [0, 0]),
    "layer_norm of inf": (ops.layer_norm, [[INF, 1], [1, 1], [0, 0]], [NAN, NAN], [NAN, NAN]),
    "layer_norm overflows": (ops.layer_norm, [["huge", 0], [1, 1], [5, 5]], [5, 5], [0, 0]),
    "rms_norm of zeros": (ops.rms_norm, [[0, 0], [1, 1]], [0, 0], [1e-5 ** -0.5] * 2),
    "rms_norm of inf": (ops.rms_norm, [[INF, 1], [1, 1]], [NAN, 0], [NAN, NAN]),
    "rms_norm overflows": (ops.rms_norm, [["huge", 1], [1, 1]], [0, 0], [0, 0]),
    "swiglu far out": (ops.swiglu, [[1e6, -1e6, 800], [1, 1, 0]], [1e6, 0, 0], [1, 0, 0]),
    "swiglu of -inf": (ops.swiglu, [[-INF], [1]], [NAN], [NAN]),
    "swiglu of nan": (ops.swiglu, [[1, 1], [NAN, 0]], [NAN, 0], [NAN, 0]),
    "rotary of inf": (lambda x: ops.rotary(x, [[0.5]], [[0.5]]), [[[INF, 1]]], [[INF, INF]], [[1, 0]]),
    "rotary of nan": (lambda x: ops.rotary(x, [[0.5]], [[0.5]]), [[[NAN, 1]]], [[NAN, NAN]], [[1, 0]]),
    "dropout of inf": (lambda x: ops.dropout(x, 0.5, np.random.default_rng(2)), [[INF, INF, INF]], [INF, NAN, NAN],
                       [2, 0, 0]),
    "softmax of -inf": (ops.softmax, [[-INF, 0]], [0, 1], [0, 0]),
    "softmax of nan": (ops.softmax, [[NAN, 0]], [NAN, NAN], [NAN, NAN]),
    "softmax of far numbers": (ops.softmax, [[1e30, 0]], [1, 0], [0, 0]),
    "log_softmax of far numbers": (ops.log_softmax, [[1e30, 0]], [0, -1e30], [-1, 1]),
    "log_softmax of -inf": (ops.log_softmax, [[-INF, 0]], [-INF, 0], [1, -1]),
    "cross_entropy of a sure mistake": (lambda a: ops.cross_entropy(a, [0]), [[[-1e30, 0]]], 1e30, [[-1, 1]]),
    "cross_entropy of inf": (lambda a: ops.cross_entropy(a, [0]), [[[INF, 0]]], NAN, [[NAN, NAN]]),
    "cross_entropy of a masked target": (lambda a: ops.cross_entropy(a, [0]), [[[-INF, 0]]], INF, [[-1, 1]]),
    "cross_entropy without a row of nan": (lambda a: ops.cross_entropy(a, [0, -100]), [[[0, 0], [NAN, INF]]], np.log(2),
                                           [[-0.5, 0.5], [0, 0]]),
    "linear_cross_entropy of a sure mistake": (lambda x: ops.linear_cross_entropy(x, ONE_HOT, [0]), [[[-1e30, 0]]],
                                               1e30, [[-1, 1]]),
    "linear_cross_entropy of inf": (lambda x: ops.linear_cross_entropy(x, ONE_HOT, [0]), [[[INF, 1]]], NAN,
                                    [[NAN, NAN]]),
    "linear_cross_entropy without a row of nan": (lambda x: ops.linear_cross_entropy(x, ONE_HOT, [0, -100]),
                                                  [[[0, 0], [NAN, INF]]], np.log(2), [[-0.5, 0.5], [0, 0]]),
    "causal_attention far scores": (ops.causal_attention, [[[1e10], [1e10]], [[1e10], [-1e10]], [[1], [2]]],
                                    [[1], [1]], [[0], [0]]),
    "causal_attention of nan": (ops.causal_attention, [[[NAN]], [[1]], [[1]]], [[NAN]], [[NAN]]),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("function", "operands", "value", "gradient"), EDGES.values(), ids=EDGES.keys())
def test_at_the_edge(function, operands, value, gradient, dtype):
    named = {"huge": HUGE[dtype], "tiny": TINY[dtype]}

    def read(x):
        return [read(y) for y in x] if isinstance(x, list) else named.get(x, x) if isinstance(x, str) else x

    got, (first, *_) = both(function, *map(read, operands), dtype=dtype)
    np.testing.assert_allclose(got, np.asarray(read(value), dtype), rtol=1e-6)
    np.testing.assert_allclose(first, np.asarray(gradient, dtype), rtol=1e-6, atol=1e-30)


def test_every_operation_is_there_and_says_what_happens():
    assert {name.split()[0] for name in EDGES} == set(ops.__all__)
    silent = [name for name in ops.__all__
              if not any(word in inspect.getdoc(operations[name]) for word in ("inf", "nan", "unchanged"))]
    assert not silent, f"the docstrings of {silent} do not say what happens to inf and nan"


def test_a_frozen_nan_elsewhere_in_the_batch_stays_there():
    x = np.ones((3, 4))
    x[1] = NAN
    y = ops.linear(ops.layer_norm(Tensor(x), np.ones(4), np.zeros(4)), np.ones((2, 4)))
    assert np.isnan(y.data).any(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("gradient", [1e-300, 1e-200, 1e150])
def test_adamw_with_gradients_whose_squares_leave_the_range(gradient):
    p = Tensor([1.0], requires_grad=True)
    optimizer = optim.AdamW([p], 0.1)
    for _ in range(3):
        p.grad = np.array([gradient])
        optimizer.step()
    assert np.isfinite(p.data).all() and 0.6 < p.data[0] <= 1


# Precision

def losses(dtype, adapt):
    model = small_gpt(vocab_size=11, context=16, d_model=16, d_ff=32, dtype=dtype)
    if adapt:
        lora.add_lora(model, LoraConfig(r=2))
    history = fit(model, data.sorting(8, seed=3), optim.AdamW(model.trainable_parameters(), 0.003), 200, quiet=True)
    return np.array(history.train_loss), np.concatenate([t.data.ravel() for t in model.parameters()])


@pytest.mark.parametrize("adapt", [False, True], ids=["all parameters", "LoRA"])
def test_float32_training_follows_float64_over_200_steps(adapt):
    """Bound: a thousandth of the loss at each step, 1% of the weights at the end."""
    (single, w), (double, v) = losses(np.float32, adapt), losses(np.float64, adapt)
    assert double[-1] < double[0]
    assert np.abs(single / double - 1).max() < 1e-3
    assert np.linalg.norm(w - v) < 0.01 * np.linalg.norm(v)
    assert not np.array_equal(single, double)


@pytest.mark.parametrize("make", [lambda p: optim.AdamW(p, 1e8), lambda p: optim.SGD(p, 1e8)], ids=["AdamW", "SGD"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_rate_far_too_large_is_named_with_the_step_and_the_advice(make, dtype):
    model = small_gpt(vocab_size=11, context=16, dtype=dtype)
    words = r"fit: the (loss|length of the gradient) is (nan|inf) at step \d+, with a learning rate of \S+; try a tenth"
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=words):
        for rate in range(8, 400, 20):  # LayerNorm makes the model hard to break: raise the rate until it does
            optimizer = make(model.trainable_parameters())
            optimizer.lr = 10.0 ** rate
            fit(model, data.sorting(4), optimizer, 10, quiet=True)


@pytest.mark.parametrize("d", [3, 64, 100, 576])
@pytest.mark.parametrize("number", [1 / 3, 100.1, 12345.6, 1e6, 3.3e7])
def test_a_row_of_equal_numbers_gives_the_bias(number, d):
    bias = np.linspace(-1, 1, d).astype(np.float32)
    x = np.full((2, d), number, np.float32)
    y = ops.layer_norm(x, np.full(d, 2, np.float32), bias)
    np.testing.assert_allclose(y.data, [bias, bias], atol=1e-6)


def test_layer_norm_far_from_zero_is_that_of_float64():
    x = (1000 + np.random.default_rng(0).normal(size=(4, 64)) * 0.1).astype(np.float32)
    w, b = np.ones(64), np.zeros(64)
    upstream = np.random.default_rng(1).normal(size=x.shape)
    exact, rough = (ops.layer_norm(*(a.astype(t) for a in (x, w, b))).data for t in (float, np.float32))
    np.testing.assert_allclose(rough, exact, atol=2e-4)
    rough, right = (gradients(ops.layer_norm, *(a.astype(t) for a in (x, w, b)), upstream=upstream)
                    for t in (np.float32, float))
    np.testing.assert_allclose(rough[0], right[0], atol=1e-2)


def test_a_row_far_below_zero_has_a_softmax():
    logits = Tensor(np.full((2, 4), -200, np.float32))  # exp of which is 0 in float32
    assert ops.softmax(logits).data.tolist() == [[0.25] * 4] * 2
    assert ops.cross_entropy(logits, [0, 3]).item() == pytest.approx(np.log(4))
    q, v = Tensor(np.full((4, 2), -20, np.float32)), np.eye(4, 2, dtype=np.float32)
    y = ops.causal_attention(q, -q, v)  # all scores are -566
    np.testing.assert_allclose(y.data, np.cumsum(v, 0) / np.arange(1, 5)[:, None], rtol=1e-6)


def test_zero_to_a_negative_power():
    with np.errstate(divide="ignore"):
        (slope,) = gradients(lambda b: ops.pow(0.0, b), np.array([-1.0, 0.0, 2.0]))
    assert slope.tolist() == [-np.inf, 0, 0]


X5 = np.array([[INF, -INF, 1, 1, 1], [1, 2, 3, 4, 5]], np.float32)
V5 = np.array([[INF], [-INF], [1], [1], [1]], np.float32)


@pytest.mark.parametrize(("function", "operands"), [
    (ops.matmul, [X5, np.ones((5, 1), np.float32)]),
    (ops.linear, [X5, np.ones((3, 5), np.float32)]),
    (lambda x, w: ops.linear_cross_entropy(x, w, [0, 1]), [X5, np.ones((3, 5), np.float32)]),
    (lambda v: ops.causal_attention(np.ones_like(V5), np.ones_like(V5), v), [V5]),
], ids=["matmul", "linear", "linear_cross_entropy", "causal_attention"])
def test_products_do_not_fail_by_a_flag_of_the_processor(function, operands):
    """OpenBLAS's float32 products of 5 columns and a vector raise "invalid" now and then, without a cause."""
    with np.errstate(invalid="raise"):
        leaves = [Tensor(a, requires_grad=True) for a in operands]
        y = function(*leaves)
        y.backward(np.full(y.shape, np.inf, np.float32))
    assert np.isnan(y.data).any() and all(t.grad is not None for t in leaves)
    with np.errstate(invalid="raise"), pytest.raises(FloatingPointError):
        ops.sub(INF, INF)
