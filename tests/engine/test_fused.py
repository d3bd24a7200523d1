"""Each fused operation against its composition from primitives: values and gradients, easy numbers and hard ones."""

import numpy as np
import pytest

from lora_np import Tensor, no_grad, ops
from lora_np.extras.fast import attention as blocks
from tests.helpers import check_gradients, gradients

pytestmark = pytest.mark.filterwarnings("error")


def exp_sum(a, axis):
    return ops.sum(ops.exp(a), axis=axis, keepdims=True)


def softmax(a, axis=-1):
    return ops.exp(a) / exp_sum(a, axis)


def log_softmax(a, axis=-1):
    return a - ops.log(exp_sum(a, axis))


def cross_entropy(logits, targets):
    rows = log_softmax(logits.reshape(-1, logits.shape[-1]))
    return -rows[np.arange(len(rows)), np.ravel(targets)].mean()


def masked_cross_entropy(logits, targets):
    """The composition, over the rows whose target is not -100."""
    kept = np.ravel(targets) != -100
    return cross_entropy(logits.reshape(-1, logits.shape[-1])[kept], np.ravel(targets)[kept])


def linear_cross_entropy(x, weight):
    return masked_cross_entropy(x @ weight.T, MASKED)


def layer_norm(x, weight, bias, eps=1e-5):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred ** 2).mean(axis=-1, keepdims=True)
    return centred / ops.sqrt(variance + eps) * weight + bias


def rms_norm(x, weight, eps=1e-5):
    return x / ops.sqrt((x ** 2).mean(axis=-1, keepdims=True) + eps) * weight


def silu(a):
    return a / (1 + ops.exp(-a))


def swiglu(gate, up):
    return silu(gate) * up


def rotary(x, cos, sin, heads=1):
    half = x.shape[-1] // heads // 2
    parts = [x[..., i * half:(i + 1) * half] for i in range(2 * heads)]  # both halves of each head
    turned = [(a * cos - b * sin, b * cos + a * sin) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return ops.concatenate([half for pair in turned for half in pair], axis=-1)


def linear(x, weight, bias):
    return x @ weight.T + bias


def gelu(a):
    return a / 2 * (1 + ops.tanh((2 / np.pi) ** 0.5 * (a + 0.044715 * a ** 3)))


def causal_attention(q, k, v):
    T, S, c = q.shape[-2], k.shape[-2], q.shape[-1]
    order = (*range(k.ndim - 2), k.ndim - 1, k.ndim - 2)
    scores = q @ k.transpose(order) / c ** 0.5
    seen = np.arange(S) <= np.arange(S - T, S)[:, None]
    scores = ops.where(seen, scores, -np.inf)
    return softmax(scores - scores.data.max(axis=-1, keepdims=True)) @ v


def of_heads(heads):
    """causal_attention of several heads, fused and composed: each head by itself, side by side in the result."""
    def composed(q, k, v):
        apart = [[x[..., i * x.shape[-1] // heads:(i + 1) * x.shape[-1] // heads] for x in (q, k, v)]
                 for i in range(heads)]
        return ops.concatenate([causal_attention(*head) for head in apart], axis=-1)

    return lambda q, k, v: ops.causal_attention(q, k, v, heads), composed


def embedding(weight, ids):
    return weight[ids]


ANGLES = np.random.default_rng(1).uniform(-4, 4, (5, 3))
ROTATION = np.cos(ANGLES), np.sin(ANGLES)
MASKED = np.array([[1, -100, 3], [-100, 0, 2]])
IDS, TARGETS = np.array([[3, 0, 3], [3, 4, 0]]), np.array([[1, 3, 1], [0, 0, 2]])
# name: (fused, composed, shapes of the operands, scales of the operands)
PAIRS = {
    "softmax": (ops.softmax, softmax, [(3, 4)], [3]),
    "softmax axis 0": (lambda a: ops.softmax(a, axis=0), lambda a: softmax(a, 0), [(3, 4)], [3]),
    "log_softmax": (ops.log_softmax, log_softmax, [(2, 3, 4)], [3]),
    "log_softmax axis 1": (lambda a: ops.log_softmax(a, axis=1), lambda a: log_softmax(a, 1), [(2, 3, 4)], [3]),
    "cross_entropy": (lambda a: ops.cross_entropy(a, TARGETS), lambda a: cross_entropy(a, TARGETS), [(2, 3, 4)], [3]),
    "cross_entropy without some": (lambda a: ops.cross_entropy(a, MASKED), lambda a: masked_cross_entropy(a, MASKED),
                                   [(2, 3, 4)], [3]),
    "linear_cross_entropy": (lambda x, w: ops.linear_cross_entropy(x, w, TARGETS),
                             lambda x, w: cross_entropy(x @ w.T, TARGETS), [(2, 3, 5), (4, 5)], [1, 1]),
    "linear_cross_entropy without some": (lambda x, w: ops.linear_cross_entropy(x, w, MASKED), linear_cross_entropy,
                                          [(2, 3, 5), (4, 5)], [1, 1]),
    "linear_cross_entropy slow branch": (lambda x, w: ops.linear_cross_entropy(x, w, MASKED), linear_cross_entropy,
                                         [(2, 3, 5), (4, 5)], [5, 5]),
    "layer_norm": (ops.layer_norm, layer_norm, [(2, 3, 4), (4,), (4,)], [3, 1, 1]),
    "layer_norm far from 0": (lambda x, w, b: ops.layer_norm(x + 100, w, b), lambda x, w, b: layer_norm(x + 100, w, b),
                              [(3, 4), (4,), (4,)], [1, 1, 1]),
    "layer_norm other eps": (lambda *t: ops.layer_norm(*t, eps=0.5), lambda *t: layer_norm(*t, eps=0.5),
                             [(3, 4), (4,), (4,)], [0.1, 1, 1]),
    "linear": (ops.linear, linear, [(2, 3, 4), (5, 4), (5,)], [1, 1, 1]),
    "linear vector": (ops.linear, linear, [(4,), (5, 4), (5,)], [1, 1, 1]),
    "embedding": (lambda w: ops.embedding(w, IDS), lambda w: embedding(w, IDS), [(5, 2)], [1]),
    "gelu": (ops.gelu, gelu, [(3, 4)], [2]),
    "silu": (ops.silu, silu, [(3, 4)], [3]),
    "swiglu": (ops.swiglu, swiglu, [(2, 3, 4)] * 2, [3, 1]),
    "swiglu of many rows": (ops.swiglu, swiglu, [(50, 3)] * 2, [3, 1]),
    "rms_norm": (ops.rms_norm, rms_norm, [(2, 3, 4), (4,)], [3, 1]),
    "rms_norm far from 0": (lambda x, w: ops.rms_norm(x + 100, w), lambda x, w: rms_norm(x + 100, w),
                            [(3, 4), (4,)], [1, 1]),
    "rms_norm other eps": (lambda *t: ops.rms_norm(*t, eps=0.5), lambda *t: rms_norm(*t, eps=0.5),
                           [(3, 4), (4,)], [0.1, 1]),
    "rotary": (lambda x: ops.rotary(x, *ROTATION), lambda x: rotary(x, *ROTATION), [(2, 5, 6)], [1]),
    "rotary of heads": (lambda x: ops.rotary(x, *ROTATION, heads=2), lambda x: rotary(x, *ROTATION, heads=2),
                        [(5, 12)], [1]),
    "attention": (ops.causal_attention, causal_attention, [(2, 2, 5, 3)] * 3, [1, 1, 1]),
    "attention one position": (ops.causal_attention, causal_attention, [(1, 3)] * 3, [1, 1, 1]),
    "attention S > T": (ops.causal_attention, causal_attention, [(2, 2, 3), (2, 5, 3), (2, 5, 3)], [1, 1, 1]),
    "attention slow branch": (ops.causal_attention, causal_attention, [(2, 2, 5, 3)] * 3, [10, 10, 1]),
    "attention slow, S > T": (ops.causal_attention, causal_attention, [(2, 2, 3), (2, 5, 3), (2, 5, 3)], [9, 9, 1]),
    "attention of three heads": (*of_heads(3), [(2, 5, 6)] * 3, [1, 1, 1]),
    "attention of heads, S > T": (*of_heads(2), [(2, 2, 6), (2, 5, 6), (2, 5, 6)], [1, 1, 1]),
    "attention in blocks": (*of_heads(2), [(2, 70, 4)] * 3, [1, 1, 1]),
    "attention in blocks, S > T": (*of_heads(2), [(40, 4), (75, 4), (75, 4)], [1, 1, 1]),
    "attention in blocks, slow": (*of_heads(2), [(70, 4)] * 3, [9, 9, 1]),
    "attention scores of thousands": (ops.causal_attention, causal_attention, [(2, 4, 3)] * 3, [100, 100, 1]),
}


@pytest.mark.parametrize(("fused", "composed", "shapes", "scales"), PAIRS.values(), ids=PAIRS.keys())
def test_fused_is_its_composition(fused, composed, shapes, scales):
    rng = np.random.default_rng(0)
    arrays = [scale * rng.normal(size=shape) for shape, scale in zip(shapes, scales, strict=True)]
    y, z = fused(*map(Tensor, arrays)), composed(*map(Tensor, arrays))
    np.testing.assert_allclose(y.data, z.data, rtol=1e-10, atol=1e-12)
    upstream = rng.normal(size=y.shape)
    for got, expected in zip(gradients(fused, *arrays, upstream=upstream),
                             gradients(composed, *arrays, upstream=upstream), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("top", [29.0, 31.0], ids=["product with the mask", "minus the largest"])
def test_both_ways_of_attention_agree_where_they_meet(top):
    """Scores just below 30 are exponentiated as they are, just above 30 after a shift; S = 5 keys for T = 3 queries."""
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 5, 4)), rng.normal(size=(2, 5, 4))
    q *= top / np.abs(q @ k.swapaxes(1, 2) / 2).max()
    upstream = rng.normal(size=q.shape)
    composed = causal_attention(*map(Tensor, (q, k, v)))
    np.testing.assert_allclose(ops.causal_attention(q, k, v).data, composed.data, rtol=1e-9)
    for got, expected in zip(gradients(ops.causal_attention, q, k, v, upstream=upstream),
                             gradients(causal_attention, q, k, v, upstream=upstream), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("trained", ["q", "k", "v"])
def test_attention_computes_no_gradient_that_nobody_needs(trained, monkeypatch):
    products = []
    monkeypatch.setattr(blocks, "_sum", lambda *parts, add=blocks._sum: products.append(parts) or add(*parts))
    q, k, v = (Tensor(np.ones((40, 4)), requires_grad=name == trained) for name in "qkv")
    ops.causal_attention(q, k, v).backward(np.ones((40, 4)))
    assert len(products) == 2 * (trained != "q")  # the sums over two blocks: dk, dv


@pytest.mark.parametrize("scale", [1, 9], ids=["as they are", "minus the largest"])
@pytest.mark.parametrize(("T", "S", "heads", "kv_heads"), [(1, 1, 1, 1), (3, 5, 2, 1), (40, 40, 6, 2), (33, 70, 4, 4),
                                                           (70, 70, 6, 3)])
def test_the_textbook_form_and_the_blocks_agree(T, S, heads, kv_heads, scale, monkeypatch):
    rng, c, forms = np.random.default_rng(0), 3, []
    arrays = [scale * rng.normal(size=(2, n, h * c)) for n, h in ((T, heads), (S, kv_heads), (S, kv_heads))]
    upstream = rng.normal(size=arrays[0].shape)
    for limit in (0, 100):  # the longest sequence that the textbook form is used for
        monkeypatch.setattr("lora_np.ops.attention.BLOCK", limit)
        forms.append([ops.causal_attention(*arrays, heads, kv_heads).data, *gradients(
            lambda *t: ops.causal_attention(*t, heads, kv_heads), *arrays, upstream=upstream)])
    for textbook, blocked in zip(*forms, strict=True):
        np.testing.assert_allclose(blocked, textbook, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("T", "kv_heads"), [(5, 1), (5, 2), (40, 2)])
def test_grouped_heads_are_heads_whose_keys_and_values_repeat(T, kv_heads):
    rng, c, heads = np.random.default_rng(0), 3, 4
    arrays = [rng.normal(size=(2, T, h * c)) for h in (heads, kv_heads, kv_heads)]
    columns = np.arange(kv_heads * c).reshape(kv_heads, 1, c).repeat(heads // kv_heads, axis=1).ravel()

    def repeated(q, k, v):
        return ops.causal_attention(q, k[..., columns], v[..., columns], heads)

    def grouped(q, k, v):
        return ops.causal_attention(q, k, v, heads, kv_heads)

    upstream = rng.normal(size=arrays[0].shape)
    np.testing.assert_allclose(grouped(*arrays).data, repeated(*map(Tensor, arrays)).data, rtol=1e-12)
    for got, expected in zip(gradients(grouped, *arrays, upstream=upstream),
                             gradients(repeated, *arrays, upstream=upstream), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("T", [3, 40])
def test_float16_rows_that_sum_beyond_its_range(T):
    ones = np.ones((1, 60_000), np.float16)
    np.testing.assert_allclose(ops.softmax(ones).data[0, 0], 1 / 60_000, rtol=1e-2)
    np.testing.assert_allclose(ops.log_softmax(ones).data[0, 0], -np.log(60_000), rtol=1e-3)
    np.testing.assert_allclose(ops.cross_entropy(ones, [7]).item(), np.log(60_000), rtol=1e-3)
    q = np.full((T, 4), 9, np.float16)  # scores of 162
    y = ops.causal_attention(q, q, q)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y.data, q, rtol=1e-3)
    for g in gradients(ops.causal_attention, q, q, q):
        assert g.dtype == np.float16 and np.isfinite(g).all()


SUMS = {  # of float16: what they give, and their gradients, beside those of the same numbers in float32
    "layer_norm": (lambda x: ops.layer_norm(x, *(np.full(1000, n, x.dtype) for n in (1, 0.5))), (2, 1000), 200, 100),
    "layer_norm, weight": (lambda w: ops.layer_norm(ROWS.astype(w.dtype), w, w), (7,), 1, 1),
    "rms_norm": (lambda x: ops.rms_norm(x, np.ones(1000, x.dtype)), (2, 1000), 200, 100),
    "softmax": (ops.softmax, (1, 70_000), 1, 1),
    "log_softmax": (ops.log_softmax, (1, 70_000), 1, 10),
    "cross_entropy of many rows": (lambda x: ops.cross_entropy(x, np.zeros(70_000, int)), (70_000, 3), 1, 1),
    "linear_cross_entropy of many rows": (lambda w: ops.linear_cross_entropy(
        np.ones((70_000, 2), w.dtype), w, np.zeros(70_000, int)), (3, 2), 1, 1),
    "mean": (ops.mean, (70_000, 1), 1, 1),
    "sum": (lambda x: ops.sum(x, axis=0), (5000, 2), 0, 1),
    "a bias": (lambda b: ops.add(np.zeros((20_000, 2), b.dtype), b), (1, 2), 1, 1),
    "rows taken again and again": (lambda x: x[np.zeros(20_000, int)], (2, 2), 1, 1),
    "a token taken again and again": (lambda w: ops.embedding(w, np.zeros(20_000, int)), (2, 2), 1, 1),
    "max of equals": (ops.max, (70_000, 1), 0, 1),
}
ROWS = np.arange(140_000.0).reshape(20_000, 7) ** 2 % 11


@pytest.mark.parametrize(("f", "shape", "size", "upstream"), SUMS.values(), ids=SUMS.keys())
def test_float16_adds_up_as_float32_does(f, shape, size, upstream):
    rng = np.random.default_rng(0)
    x = (1 + size * rng.normal(size=shape) * (size > 0)).astype(np.float16)
    half, single = Tensor(x, requires_grad=True), Tensor(x.astype(np.float32), requires_grad=True)
    y, expected = f(half), f(single)
    g = (upstream * np.sign(rng.normal(size=y.shape) + 0.3)).astype(np.float16)  # more of one sign than of the other
    y.backward(g)
    expected.backward(g.astype(np.float32))
    assert y.dtype == half.grad.dtype == np.float16
    np.testing.assert_allclose(y.data, expected.data, rtol=3e-3, atol=3e-3)
    np.testing.assert_allclose(half.grad, single.grad, rtol=2e-2, atol=2e-3 * np.abs(single.grad).max())


def test_no_probability_is_above_one():
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for x in (rng.normal(size=(5000, 1)) * 3, rng.normal([25, 0], size=(5000, 2))):
            assert ops.log_softmax(x.astype(dtype)).data.max() <= 0


def test_a_vocabulary_of_one_costs_nothing():
    a = Tensor([[0.3], [-7.1], [12.7]], requires_grad=True)
    loss = ops.cross_entropy(a, [0, 0, 0])
    loss.backward()
    assert 0 <= loss.item() < 1e-15 and np.abs(a.grad).max() < 1e-15


def test_float16_overflows_neither_in_softmax_nor_in_attention():
    a = np.full((2, 3), 12, np.float16)  # exp(12) is beyond float16
    np.testing.assert_allclose(ops.softmax(a).data, np.full((2, 3), 1 / 3), rtol=1e-3)
    np.testing.assert_allclose(ops.cross_entropy(a, [0, 1]).item(), np.log(3), rtol=1e-3)
    q = np.full((2, 1), 3.5, np.float16)
    np.testing.assert_array_equal(ops.causal_attention(q, q, q).data, q)


def test_attention_of_no_sequences():
    q, k, v = (np.zeros((0, 3, 4)) for _ in range(3))
    assert ops.causal_attention(q, k, v, heads=2).shape == (0, 3, 4)
    assert [g.shape for g in gradients(lambda *t: ops.causal_attention(*t, heads=2), q, k, v)] == [(0, 3, 4)] * 3


@pytest.mark.parametrize("scale", [1, 100])
def test_a_huge_score_of_a_hidden_position_changes_nothing(scale):
    rng = np.random.default_rng(0)
    q, k, v = (scale * rng.normal(size=(4, 3)) for _ in range(3))
    before = ops.causal_attention(q, k, v).data[:3]
    k[3], v[3] = 1e5, 1e5  # only the last query sees it
    np.testing.assert_allclose(ops.causal_attention(q, k, v).data[:3], before, rtol=1e-9)


@pytest.mark.parametrize("scale", [1, 100], ids=["small scores", "big scores"])
def test_attention_is_causal_forward_and_backward(scale):
    rng = np.random.default_rng(0)
    q, k, v = (Tensor(scale * rng.normal(size=(5, 3)), requires_grad=True) for _ in range(3))
    y = ops.causal_attention(q, k, v)
    y[1].sum().backward()
    assert (q.grad[[0, 2, 3, 4]] == 0).all() and (k.grad[2:] == 0).all() and (v.grad[2:] == 0).all()
    np.testing.assert_allclose(v.grad[:2].sum(axis=0), 1)  # the weights of what is seen sum to 1
    np.testing.assert_allclose(y.data[0], v.data[0])       # the first position sees only itself


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1000, 1e30])
def test_big_scores_stay_finite(size, dtype):
    a = np.array([[-size, 0, size], [size, size, -size]], dtype)
    np.testing.assert_array_equal(ops.softmax(a).data, [[0, 0, 1], [0.5, 0.5, 0]])
    half = np.log(2)
    np.testing.assert_allclose(ops.log_softmax(a).data, [[-2 * size, -size, 0], [-half, -half, -2 * size - half]], 1e-6)
    assert ops.cross_entropy(a, [2, 0]).item() == pytest.approx(half / 2)
    (g,) = gradients(lambda a: ops.cross_entropy(a, [1, 0]), a)
    np.testing.assert_allclose(g, [[0, -0.5, 0.5], [-0.25, 0.25, 0]])
    q = np.sqrt(np.array([[size, 1], [1, size]], dtype))
    assert np.isfinite(ops.causal_attention(q, q, q).data).all()
    assert all(np.isfinite(g).all() for g in gradients(ops.causal_attention, q, q, q))


def test_masked_entries_get_exactly_nothing():
    a = np.array([[1.0, -np.inf, 2.0], [-np.inf, -np.inf, 0.0]])
    y = ops.softmax(a)
    assert (y.data[np.isinf(a)] == 0).all() and y.data[1].tolist() == [0, 0, 1]
    (g,) = gradients(ops.softmax, a, upstream=np.random.default_rng(0).normal(size=(2, 3)))
    assert (g[np.isinf(a)] == 0).all() and g[0, 0] != 0
    assert gradients(lambda a: ops.log_softmax(a)[0, 0], a)[0][0, 1] == 0
    (g,) = gradients(lambda a: ops.cross_entropy(a, [0, 2]), a)
    assert (g[np.isinf(a)] == 0).all() and g[0, 0] < 0 and np.isfinite(g).all()
    assert ops.log_softmax(a).data[0, 1] == -np.inf


def test_nan_stays_nan():
    assert np.isnan(ops.softmax([np.nan, 0.0]).data).all() and np.isnan(ops.cross_entropy([[np.nan, 0.0]], [0]).item())


def test_softmax_sums_to_one_and_ignores_a_shift():
    a = np.random.default_rng(0).normal(size=(3, 5))
    np.testing.assert_allclose(ops.softmax(a).data.sum(axis=-1), 1, rtol=1e-12)
    np.testing.assert_allclose(ops.softmax(a + 700).data, ops.softmax(a).data, rtol=1e-10)
    (g,) = gradients(ops.softmax, a, upstream=np.random.default_rng(1).normal(size=a.shape))
    np.testing.assert_allclose(g.sum(axis=-1), 0, atol=1e-15)


def test_cross_entropy_is_the_mean_over_targets():
    a = np.random.default_rng(0).normal(size=(2, 3, 4))
    each = [ops.cross_entropy(a[i, j], TARGETS[i, j]).item() for i in range(2) for j in range(3)]
    assert ops.cross_entropy(a, TARGETS).item() == pytest.approx(np.mean(each), rel=1e-12)
    assert ops.cross_entropy(np.zeros((5, 96)), [0] * 5).item() == pytest.approx(np.log(96))
    assert ops.cross_entropy(a, Tensor(TARGETS)).item() == ops.cross_entropy(a, TARGETS.tolist()).item()


@pytest.mark.parametrize("max_logits", [1, 8, 12, 16, 17])
def test_the_head_in_blocks_of_rows_is_the_head_at_once(max_logits, monkeypatch):
    """Blocks of one row to four, of five with a target, the last block a smaller one; and whole at last."""
    rng = np.random.default_rng(0)
    x, weight, targets = rng.normal(size=(7, 3)), rng.normal(size=(4, 3)), [1, -100, 3, 0, 0, -100, 2]

    def loss(x, weight):
        return ops.linear_cross_entropy(x, weight, targets)

    whole = [loss(x, weight).data, *gradients(loss, x, weight)]
    monkeypatch.setattr("lora_np.extras.fast.head.MAX_LOGITS", max_logits)
    for got, expected in zip([loss(x, weight).data, *gradients(loss, x, weight)], whole, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("trained", ["x", "weight"])
def test_the_head_computes_no_gradient_that_nobody_needs(trained):
    x, weight = (Tensor(np.ones((n, 3)), requires_grad=name == trained) for name, n in (("x", 2), ("weight", 4)))
    loss = ops.linear_cross_entropy(x, weight, [0, 3])
    assert [target for target, _ in loss._node.edges] == [x if trained == "x" else weight]
    with no_grad():
        assert ops.linear_cross_entropy(x, weight, [0, 3]).item() == loss.item()


def test_a_row_without_a_target_is_not_computed():
    x, weight = np.ones((3, 2)), np.ones((4, 2))
    x[1] = np.nan
    for loss in (lambda x: ops.linear_cross_entropy(x, weight, [0, -100, 1]),
                 lambda x: ops.cross_entropy(ops.linear(x, weight), [0, -100, 1])):
        (g,) = gradients(loss, x)
        assert np.isfinite(loss(x).item()) and np.isfinite(g[[0, 2]]).all()
    (g,) = gradients(lambda x: ops.linear_cross_entropy(x, weight, [0, -100, 1]), x)
    assert (g[1] == 0).all()


def test_rotary_turns_and_what_is_turned_back_is_as_before():
    x = np.random.default_rng(0).normal(size=(2, 5, 12))
    cos, sin = ROTATION
    y = ops.rotary(x, cos, sin, heads=2)
    np.testing.assert_allclose(ops.rotary(y, cos, -sin, heads=2).data, x, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(y.data, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-12)


def test_rotary_makes_a_product_depend_on_the_distance_alone():
    rng = np.random.default_rng(0)
    q, k = (np.tile(rng.normal(size=4), (6, 1)) for _ in range(2))  # the same vector at each position
    angles = np.arange(6)[:, None] * np.array([1.0, 0.3])
    q, k = (ops.rotary(x, np.cos(angles), np.sin(angles)).data for x in (q, k))
    scores = q @ k.T
    for distance in range(-5, 6):
        np.testing.assert_allclose(np.diag(scores, distance), np.diag(scores, distance)[0], rtol=1e-12)
    assert not np.isclose(scores[1, 0], scores[2, 0])


def test_rms_norm_gives_mean_square_1():
    x = 50 + 7 * np.random.default_rng(0).normal(size=(4, 64))
    np.testing.assert_allclose((ops.rms_norm(x, np.ones(64)).data ** 2).mean(axis=-1), 1, rtol=1e-5)
    still = gradients(ops.rms_norm, np.zeros((1, 4)), np.ones(4))  # eps keeps it finite
    assert all(np.isfinite(g).all() for g in still)


def test_layer_norm_gives_mean_0_and_variance_1():
    x = 50 + 7 * np.random.default_rng(0).normal(size=(4, 64))
    y = ops.layer_norm(x, np.ones(64), np.zeros(64)).data
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=-1), 1, rtol=1e-5)
    flat = gradients(ops.layer_norm, np.full((1, 4), 3.0), np.ones(4), np.zeros(4))  # no variance: eps keeps it finite
    assert all(np.isfinite(g).all() for g in flat)


def test_attention_on_both_ways_against_central_differences():
    rng = np.random.default_rng(0)
    for scale in (1, 6):
        check_gradients(ops.causal_attention, *(scale * rng.normal(size=(1, 4, 2)) for _ in range(3)), atol=1e-6)
