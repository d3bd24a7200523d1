"""Every operation: its gradients against central differences, its precision, its docstring, its edges and errors."""

import inspect

import numpy as np
import pytest

from lora_np import Tensor, ops
from lora_np.tensor import operations
from lora_np.trace.formulas import formula_lines
from tests.helpers import check_gradients, gradients, numeric_gradients

pytestmark = pytest.mark.filterwarnings("error")
ROTATION = [turn(np.arange(6.0).reshape(3, 2)) for turn in (np.cos, np.sin)]  # (T, c / 2) each
MASK = np.array([[True, False, True], [False, True, True]])


def random(*shapes, seed=0):
    """Arrays of these shapes from N(0, 1); a shape that starts with "+" is drawn from U(0.5, 2)."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(0.5, 2, s[1:]) if s[:1] == ("+",) else rng.normal(size=s) for s in shapes]


def dropout(x):
    return ops.dropout(x, 0.4, np.random.default_rng(3))


# name of the case: (function of Tensors, shapes of its operands). Every operation has at least one.
CASES = {
    "add": (ops.add, (2, 3), (2, 3)),
    "add broadcast": (ops.add, (4, 1, 3), (2, 1)),
    "sub": (ops.sub, (2, 3), (3,)),
    "sub scalar": (ops.sub, (), (2, 3)),
    "mul": (ops.mul, (2, 1), (2, 3)),
    "div": (ops.div, (2, 3), ("+", 2, 3)),
    "div broadcast": (ops.div, (3,), ("+", 2, 1)),
    "neg": (ops.neg, (2, 3)),
    "pow square": (lambda a: ops.pow(a, 2), (2, 3)),
    "pow cube": (lambda a: ops.pow(a, 3.0), (2, 3)),
    "pow root": (lambda a: ops.pow(a, 0.5), ("+", 2, 3)),
    "pow inverse": (lambda a: ops.pow(a, -1.0), ("+", 2, 3)),
    "pow of exponents": (lambda a: ops.pow(a, np.arange(3, dtype=np.int8)), (2, 3)),
    "pow both": (ops.pow, ("+", 2, 3), (3,)),
    "pow of a number": (lambda b: ops.pow(2.0, b), (2, 3)),
    "exp": (ops.exp, (2, 3)),
    "log": (ops.log, ("+", 2, 3)),
    "sqrt": (ops.sqrt, ("+", 2, 3)),
    "tanh": (ops.tanh, (2, 3)),
    "relu": (ops.relu, (4, 5)),
    "gelu": (ops.gelu, (4, 5)),
    "silu": (ops.silu, (4, 5)),
    "where": (lambda a, b: ops.where(MASK, a, b), (2, 3), (2, 3)),
    "where broadcast": (lambda a, b: ops.where(MASK, a, b), (), (3,)),
    "matmul vectors": (ops.matmul, (3,), (3,)),
    "matmul matrix vector": (ops.matmul, (2, 3), (3,)),
    "matmul vector matrix": (ops.matmul, (3,), (3, 2)),
    "matmul matrices": (ops.matmul, (2, 3), (3, 4)),
    "matmul stacks": (ops.matmul, (2, 2, 3), (2, 3, 4)),
    "matmul broadcast stacks": (ops.matmul, (5, 1, 2, 3), (2, 3, 4)),
    "matmul stack matrix": (ops.matmul, (4, 2, 3), (3, 2)),
    "matmul matrix stack": (ops.matmul, (2, 3), (4, 3, 2)),
    "matmul stack vector": (ops.matmul, (4, 2, 3), (3,)),
    "matmul vector stack": (ops.matmul, (3,), (4, 3, 2)),
    "sum": (ops.sum, (2, 3)),
    "sum one axis of a square": (lambda a: ops.sum(a, axis=0), (3, 3)),
    "sum the other axis of a square": (lambda a: ops.sum(a, axis=1), (3, 3)),
    "sum negative axis": (lambda a: ops.sum(a, axis=-2), (2, 3, 4)),
    "sum axes": (lambda a: ops.sum(a, axis=(0, -1)), (2, 3, 4)),
    "sum keepdims": (lambda a: ops.sum(a, axis=(0, 2), keepdims=True), (2, 3, 4)),
    "sum no axes": (lambda a: ops.sum(a, axis=()), (2, 3)),
    "mean": (ops.mean, (2, 3)),
    "mean axis": (lambda a: ops.mean(a, axis=1), (3, 3)),
    "mean axes": (lambda a: ops.mean(a, axis=(-1, 0)), (2, 3, 4)),
    "mean keepdims": (lambda a: ops.mean(a, axis=1, keepdims=True), (2, 3, 4)),
    "max": (ops.max, (2, 3)),
    "max axis": (lambda a: ops.max(a, axis=0), (3, 3)),
    "max axes": (lambda a: ops.max(a, axis=(0, -1)), (2, 3, 4)),
    "max keepdims": (lambda a: ops.max(a, axis=1, keepdims=True), (2, 3, 4)),
    "reshape": (lambda a: ops.reshape(a, 3, -1), (2, 6)),
    "reshape of a transpose": (lambda a: ops.reshape(a.T, 12), (3, 4)),
    "transpose": (ops.transpose, (2, 3, 4)),
    "transpose cycle": (lambda a: ops.transpose(a, 1, 2, 0), (2, 3, 4)),
    "transpose other cycle": (lambda a: ops.transpose(a, (2, 0, 1)), (2, 3, 4)),
    "transpose negative": (lambda a: ops.transpose(a, 0, -1, -2), (2, 3, 4)),
    "getitem integer": (lambda a: a[-1], (3, 4)),
    "getitem slice": (lambda a: a[1:, ::-2], (3, 4)),
    "getitem new axis": (lambda a: a[:, None, 1:3], (3, 4)),
    "getitem ellipsis": (lambda a: a[..., 0], (2, 3, 4)),
    "getitem repeats": (lambda a: a[[0, 2, 0, 0]], (3, 4)),
    "getitem the same row twice": (lambda a: a[[-1, 2]], (3, 4)),
    "getitem pairs": (lambda a: a[[0, 1, 0], [2, 2, 2]], (3, 4)),
    "getitem 2-D integers": (lambda a: a[np.array([[0, 1], [1, 1]])], (3, 2)),
    "getitem tuple inside": (lambda a: a[:, (1, 1)], (3, 4)),
    "getitem range inside": (lambda a: a[range(2), 1], (3, 4)),
    "getitem array beside slice": (lambda a: a[[1, 1], 1:], (3, 4)),
    "getitem array, new axis, array": (lambda a: a[[1, 1], None, [0, 0]], (3, 4)),
    "getitem mask": (lambda a: a[MASK], (2, 3)),
    "getitem mask of rows": (lambda a: a[np.array([True, False, True])], (3, 4)),
    "getitem mask and integers": (lambda a: a[np.array([True, True, False]), [1, 1]], (3, 4)),
    "getitem nothing": (lambda a: a[[]], (3, 4)),
    "getitem Tensor": (lambda a: a[Tensor([1, 1])], (3, 4)),
    "getitem overlapping slices": (lambda a: a[:3] + a[1:], (4, 2)),
    "concatenate": (lambda *t: ops.concatenate(t), (2, 3), (1, 3), (4, 3)),
    "concatenate last axis": (lambda *t: ops.concatenate(t, axis=-1), (2, 3), (2, 0), (2, 2)),
    "concatenate the same": (lambda t: ops.concatenate([t, t], axis=1), (2, 3)),
    "linear": (ops.linear, (4, 3), (2, 3), (2,)),
    "linear vector": (ops.linear, (3,), (2, 3)),
    "linear stack": (ops.linear, (2, 4, 3), (2, 3), (2,)),
    "linear matrix as bias": (ops.linear, (4, 3), (2, 3), (4, 2)),
    "embedding": (lambda w: ops.embedding(w, [[0, 2, 2], [4, 0, 2]]), (5, 3)),
    "embedding one id": (lambda w: ops.embedding(w, 1), (5, 3)),
    "softmax": (ops.softmax, (3, 4)),
    "softmax first axis": (lambda a: ops.softmax(a, axis=0), (3, 4)),
    "softmax middle axis": (lambda a: ops.softmax(a, axis=-2), (2, 3, 4)),
    "log_softmax": (ops.log_softmax, (3, 4)),
    "log_softmax first axis": (lambda a: ops.log_softmax(a, axis=0), (3, 4)),
    "cross_entropy": (lambda a: ops.cross_entropy(a, [1, 3, 1]), (3, 4)),
    "cross_entropy (B, T, V)": (lambda a: ops.cross_entropy(a, [[1, 3, 1], [0, 0, 2]]), (2, 3, 4)),
    "cross_entropy one row": (lambda a: ops.cross_entropy(a, 2), (4,)),
    "cross_entropy without some": (lambda a: ops.cross_entropy(a, [1, -100, 1]), (3, 4)),
    "cross_entropy of another index": (lambda a: ops.cross_entropy(a, [[1, 0], [0, 0]], ignore_index=0), (2, 2, 4)),
    "linear_cross_entropy": (lambda x, w: ops.linear_cross_entropy(x, w, [1, 3, 1]), (3, 2), (4, 2)),
    "linear_cross_entropy (B, T, d)": (lambda x, w: ops.linear_cross_entropy(x, w, [[1, -100, 1], [-100, 0, 2]]),
                                       (2, 3, 2), (4, 2)),
    "linear_cross_entropy one row": (lambda x, w: ops.linear_cross_entropy(x, w, 2), (2,), (4, 2)),
    "layer_norm": (ops.layer_norm, (3, 4), (4,), (4,)),
    "layer_norm (B, T, d)": (ops.layer_norm, (2, 3, 4), (4,), (4,)),
    "layer_norm vector": (ops.layer_norm, (4,), (4,), (4,)),
    "rms_norm": (ops.rms_norm, (3, 4), (4,)),
    "rms_norm (B, T, d)": (ops.rms_norm, (2, 3, 4), (4,)),
    "rms_norm vector": (ops.rms_norm, (4,), (4,)),
    "swiglu": (ops.swiglu, (3, 4), (3, 4)),
    "swiglu (B, T, d)": (ops.swiglu, (2, 3, 4), (2, 3, 4)),
    "swiglu vector": (ops.swiglu, (4,), (4,)),
    "swiglu of many rows": (ops.swiglu, (50, 2), (50, 2)),
    "rotary": (lambda x: ops.rotary(x, *ROTATION), (3, 4)),
    "rotary (B, T, heads c)": (lambda x: ops.rotary(x, *ROTATION, heads=2), (2, 3, 8)),
    "dropout": (dropout, (4, 5)),
    "causal_attention": (ops.causal_attention, (4, 3), (4, 3), (4, 3)),
    "causal_attention (B, heads, T, c)": (ops.causal_attention, (2, 2, 3, 2), (2, 2, 3, 2), (2, 2, 3, 2)),
    "causal_attention two heads": (lambda q, k, v: ops.causal_attention(q, k, v, 2), (2, 3, 4), (2, 3, 4), (2, 3, 4)),
    "causal_attention S > T": (ops.causal_attention, (2, 2, 3), (2, 5, 3), (2, 5, 3)),
    "causal_attention one query": (ops.causal_attention, (2, 1, 3), (2, 4, 3), (2, 4, 3)),
    "causal_attention big scores": (lambda q, k, v: ops.causal_attention(q * 20, k, v), (4, 3), (4, 3), (4, 3)),
}
every_case = pytest.mark.parametrize(("function", "shapes"), [(f, s) for f, *s in CASES.values()], ids=CASES.keys())


def test_every_operation_has_a_case():
    assert {name.split()[0] for name in CASES} == set(ops.__all__) == set(operations)


@every_case
def test_gradients_against_central_differences(function, shapes):
    check_gradients(function, *random(*shapes))


@every_case
def test_float32_stays_float32_forward_and_backward(function, shapes):
    arrays = random(*shapes)
    leaves = [Tensor(a.astype(np.float32), requires_grad=True) for a in arrays]
    y = function(*leaves)
    assert y.dtype == np.float32
    upstream = np.random.default_rng(1).normal(size=y.shape)
    y.backward(upstream)
    expected = gradients(function, *arrays, upstream=upstream)
    for t, g in zip(leaves, expected, strict=True):
        assert t.grad.dtype == np.float32 and t.grad.shape == t.shape
        np.testing.assert_allclose(t.grad, g, rtol=1e-3, atol=1e-4)


@every_case
def test_values_do_not_depend_on_the_memory_layout(function, shapes):
    arrays = random(*shapes)
    turned = [np.asfortranarray(a) for a in arrays]
    np.testing.assert_allclose(function(*map(Tensor, turned)).data, function(*map(Tensor, arrays)).data, rtol=1e-12)
    for a, b in zip(gradients_of(function, turned), gradients_of(function, arrays), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def gradients_of(function, arrays):
    y = function(*map(Tensor, arrays))
    return gradients(function, *arrays, upstream=np.random.default_rng(2).normal(size=y.shape))


@every_case
def test_integers_are_taken_as_constants(function, shapes):
    arrays = [np.ones(s[1:] if s[:1] == ("+",) else s, int) for s in shapes]
    y, floating = function(*map(Tensor, arrays)), function(*(Tensor(a.astype(float)) for a in arrays))
    np.testing.assert_allclose(y.data, floating.data)
    assert not y.requires_grad


# The docstrings: formula lines are Python, evaluated here and held against values and gradients

class Rows:
    """(n, V) in which [targets] picks one element of each row, as the formula of cross_entropy writes it."""

    def __init__(self, array):
        self.array = array

    def __getitem__(self, targets):
        return self.array[np.arange(len(targets)), targets]

    def __getattr__(self, name):
        return getattr(self.array, name)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def namespace(axis=-1, **names):
    """What the formulas speak: NumPy's functions; sums and means go along `axis` and keep it."""
    def reduced(function):
        return lambda x, over=axis: function(x, over, keepdims=True)

    numpy = {f.__name__: f for f in (np.exp, np.log, np.sqrt, np.tanh, np.maximum, np.where, np.reshape, np.transpose,
                                     np.concatenate)}
    return {**numpy, "pi": np.pi, "sum": reduced(np.sum), "mean": reduced(np.mean), "max": reduced(np.max),
            "var": reduced(np.var), "inverse": np.argsort, "softmax": softmax, "axis": axis,
            "log_softmax": lambda x: Rows(np.log(softmax(x))), **names}


TARGETS, ORDER, INDEX = np.array([1, 3, 1]), (1, 2, 0), ([0, 2, 0], [1, 3, 1])
# name: (function, shapes, what else the formulas mention)
DOCUMENTED = {
    **{name: (getattr(ops, name), [("+", 2, 3)] * 2, {}) for name in ("add", "sub", "mul", "div", "pow")},
    **{name: (getattr(ops, name), [(2, 3)], {}) for name in ("neg", "exp", "tanh", "relu", "gelu", "silu")},
    **{name: (getattr(ops, name), [("+", 2, 3)], {}) for name in ("log", "sqrt")},
    "where": (lambda a, b: ops.where(MASK, a, b), [(2, 3), (2, 3)], {"condition": MASK}),
    "matmul": (ops.matmul, [(2, 3), (3, 4)], {}),
    "sum": (lambda a: ops.sum(a, 0, keepdims=True), [(2, 3)], {"axis": 0}),
    "mean": (lambda a: ops.mean(a, 0, keepdims=True), [(2, 3)], {"axis": 0, "n": 2}),
    "max": (lambda a: ops.max(a, 0, keepdims=True), [(2, 3)], {"axis": 0}),
    "reshape": (lambda a: ops.reshape(a, 3, 2), [(2, 3)], {"shape": (3, 2)}),
    "transpose": (lambda a: ops.transpose(a, ORDER), [(2, 3, 4)], {"axes": ORDER}),
    "getitem": (lambda a: ops.getitem(a, INDEX), [(3, 4)], {"index": INDEX}),
    "concatenate": (lambda a, b: ops.concatenate([a, b], 1), [(2, 3), (2, 3)],
                    {"axis": 1, "split": lambda g, axis: np.split(g, 2, axis)}),
    "linear": (ops.linear, [(4, 3), (2, 3), (2,)], {}),
    "embedding": (lambda w: ops.embedding(w, TARGETS), [(5, 3)], {"ids": TARGETS}),
    "softmax": (ops.softmax, [(3, 4)], {}),
    "log_softmax": (ops.log_softmax, [(3, 4)], {}),
    "cross_entropy": (lambda a: ops.cross_entropy(a, TARGETS), [(3, 4)],
                      {"targets": TARGETS, "n": 3, "onehot": lambda t: np.eye(4)[t]}),
    "linear_cross_entropy": (lambda x, w: ops.linear_cross_entropy(x, w, TARGETS), [(3, 2), (4, 2)],
                             {"targets": TARGETS, "n": 3, "onehot": lambda t: np.eye(4)[t]}),
    "layer_norm": (ops.layer_norm, [(3, 4), (4,), (4,)], {"eps": 1e-5}),
    "rms_norm": (ops.rms_norm, [(3, 4), (4,)], {"eps": 1e-5}),
    "swiglu": (ops.swiglu, [(3, 4), (3, 4)], {}),
    "rotary": (lambda x: ops.rotary(x, *ROTATION), [(3, 4)],
               {"cos": np.hstack([ROTATION[0]] * 2), "sin": np.hstack([ROTATION[1]] * 2),
                "rotate_half": lambda x: np.hstack([-x[:, 2:], x[:, :2]])}),
    "dropout": (dropout, [(4, 5)], {"mask": dropout(np.ones((4, 5))).data}),
    "causal_attention": (ops.causal_attention, [(4, 3)] * 3, {"c": 3, "mask": np.where(np.tri(4), 0, -np.inf)}),
}
PROSE = {("sum", "da"), ("mean", "da"), ("getitem", "da"), ("embedding", "dweight")}  # said in words


@pytest.mark.parametrize("name", ops.__all__)
def test_docstring_formulas_are_what_the_code_computes(name):
    function, shapes, names = DOCUMENTED[name]
    arrays = random(*shapes, seed=5)
    leaves = [Tensor(a, requires_grad=True) for a in arrays]
    y = function(*leaves)
    g = np.random.default_rng(6).normal(size=y.shape)
    y.backward(g)
    parameters = list(inspect.signature(operations[name]).parameters)[:len(leaves)]
    if name == "where":
        parameters = ["a", "b"]
    values = namespace(**names, g=g)
    if name == "concatenate":
        parameters, values["tensors"] = ["tensors"], arrays
        expected = {"y": y.data, "dtensors": [t.grad for t in leaves]}
    else:
        values |= dict(zip(parameters, arrays, strict=True))
        expected = {"y": y.data, **{f"d{p}": t.grad for p, t in zip(parameters, leaves, strict=True)}}
    stated = formula_lines(name)
    assert set(expected) <= {symbol for symbol, _ in stated}, "an operand's gradient has no formula"
    prose = set()
    for symbol, expression in stated:
        try:
            code = compile(expression, symbol, "eval")
        except SyntaxError:
            prose.add((name, symbol))
            continue
        values[symbol] = eval(code, values)
        if symbol in expected:
            got, want = np.asarray(values[symbol]), np.asarray(expected[symbol])
            got = got.sum(axis=tuple(range(got.ndim - want.ndim)))  # over what shares a weight
            np.testing.assert_allclose(got.reshape(want.shape), want, rtol=1e-9, atol=1e-12, err_msg=symbol)
    assert prose == {p for p in PROSE if p[0] == name}


# Edges

@pytest.mark.parametrize(("function", "at", "slope"), [
    (ops.relu, 0.0, 0), (ops.relu, -0.0, 0), (lambda x: x ** 2, 0.0, 0), (lambda x: x ** 1, 0.0, 1),
    (lambda x: x ** 0, 0.0, 0), (lambda x: x ** 3, -2.0, 12), (lambda x: 0.0 ** x, 2.0, 0),
    (lambda x: 0.0 ** x, 0.0, 0),
    (lambda x: x ** 2.0, -3.0, -6), (lambda x: x.max(), 3.0, 1),
    (ops.gelu, 1e3, 1), (ops.gelu, -1e3, 0), (ops.tanh, 1e3, 0), (ops.exp, -1e4, 0),
    (ops.silu, 1e3, 1), (ops.silu, -1e3, 0), (ops.silu, 0.0, 0.5),
])
def test_slopes_at_the_edges(function, at, slope):
    assert gradients(function, at)[0] == slope


def test_tied_maxima_share_one_gradient():
    assert gradients(ops.max, [1.0, 3.0, 3.0])[0].tolist() == [0, 0.5, 0.5]
    (g,) = gradients(lambda a: ops.max(a, axis=1), [[2.0, 2.0, 2.0, 2.0], [0.0, 1.0, 1.0, 0.0]])
    assert g.tolist() == [[0.25] * 4, [0, 0.5, 0.5, 0]]


def test_where_ignores_the_side_that_was_not_chosen():
    x = np.array([-1.0, 4.0])
    with np.errstate(invalid="ignore"):
        (g,) = gradients(lambda a: ops.where(x > 0, a, np.nan), x)
    assert g.tolist() == [0, 1]
    y = ops.where(Tensor([True, False]), 1.0, Tensor([2.0, 3.0]))
    assert y.data.tolist() == [1, 3]


def test_pow_differentiates_a_negative_base_only_in_the_base():
    x = Tensor([-2.0, 3.0], requires_grad=True)
    (x ** Tensor([3.0, 2.0])).backward([1, 1])
    assert x.grad.tolist() == [12, 6]


def test_dropout_keeps_the_mean_and_takes_the_rest():
    x = Tensor(np.ones(100_000), requires_grad=True)
    y = ops.dropout(x, 0.3, np.random.default_rng(0))
    y.backward(np.ones(100_000))
    assert set(np.round(np.unique(y.data), 12)) == {0, round(1 / 0.7, 12)}
    assert abs(y.data.mean() - 1) < 0.01 and abs((y.data == 0).mean() - 0.3) < 0.01
    assert np.array_equal(x.grad, y.data)
    again = ops.dropout(x, 0.3, np.random.default_rng(0))
    assert np.array_equal(again.data, y.data)
    assert np.array_equal(ops.dropout(x, 0.0, np.random.default_rng(0)).data, x.data)


def test_an_index_is_copied():
    index, targets = np.array([0, 1]), np.array([0, 1])
    x = Tensor(np.eye(3), requires_grad=True)
    y = x[index].sum() + ops.embedding(x, targets).sum() + ops.cross_entropy(x[:2], targets)
    expected = gradients(lambda x: x[[0, 1]].sum() + ops.embedding(x, [0, 1]).sum() + ops.cross_entropy(x[:2], [0, 1]),
                         np.eye(3))[0]
    index[:], targets[:] = 2, 2
    y.backward()
    assert np.array_equal(x.grad, expected)


def test_reductions_of_integers():
    assert Tensor([1, 2]).mean().item() == 1.5 and Tensor([True, True]).sum().item() == 2
    assert Tensor([3, 4]).max().item() == 4 and (Tensor([1, 2]) / 2).dtype == np.float64


# Errors

A, M, S = np.arange(3.0), np.arange(6.0).reshape(2, 3), 2.0
RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("function", "error", "words"), [
    (lambda: Tensor(A) + np.ones(2), ValueError, r"add: shapes \(3,\) and \(2,\) do not broadcast.*Reshape"),
    (lambda: Tensor(M) - np.ones((3, 2)), ValueError, "sub: shapes"),
    (lambda: Tensor(M) * np.ones(2), ValueError, "mul: shapes"),
    (lambda: Tensor(M) / np.ones(2), ValueError, "div: shapes"),
    (lambda: Tensor(M) ** np.ones(2), ValueError, "pow: shapes"),
    (lambda: Tensor([1, 2]) ** -1, ValueError, r"pow: an integer has no integer power below 0; write 2\.0"),
    (lambda: Tensor([1, 2]) ** Tensor([1, -1]), ValueError, "pow: an integer"),
    (lambda: ops.where([True] * 3, M, np.ones(2)), ValueError, "where: shapes"),
    (lambda: Tensor(S) @ A, ValueError, r"matmul: \(\) @ \(3,\): a single number.*a \* b"),
    (lambda: Tensor(M) @ M, ValueError, r"\(2, 3\) @ \(2, 3\): inner sizes 3 and 2 differ; did you mean a.T @ b"),
    (lambda: Tensor(np.ones((4, 3))) @ np.ones((4, 2)), ValueError, "did you mean a.T @ b"),
    (lambda: Tensor(np.ones((4, 3))) @ np.ones((2, 3)), ValueError, r"did you mean a @ b\.T"),
    (lambda: Tensor(np.ones((4, 3))) @ np.ones((2, 4)), ValueError, "did you mean b @ a"),
    (lambda: Tensor(M) @ np.ones(2), ValueError, "last size of a must equal the only of b"),
    (lambda: Tensor(np.ones((2, 2, 3))) @ np.ones((2, 2, 3)), ValueError, "the last but one of b"),
    (lambda: Tensor(np.ones((2, 2, 3))) @ np.ones((4, 3, 2)), ValueError, r"stacks \(2,\) and \(4,\) do not broadcast"),
    (lambda: ops.sum(A, axis=1), ValueError, r"sum: axis 1 is out of range for shape \(3,\); use -1 to 0"),
    (lambda: ops.sum(S, axis=0), ValueError, "a single number has no axes"),
    (lambda: ops.mean(A, axis="0"), TypeError, "mean: axis must be None, an integer or a tuple"),
    (lambda: ops.sum(M, axis=[0]), TypeError, "sum: axis must be None, an integer or a tuple"),
    (lambda: ops.max(M, axis=(0, -2)), ValueError, "names the same axis"),
    (lambda: ops.mean(np.ones((0, 3)), axis=0), ValueError, r"mean: shape \(0, 3\) has no elements along axis 0"),
    (lambda: ops.max([]), ValueError, "max: .*largest of nothing"),
    (lambda: ops.reshape(M, 4), ValueError, r"reshape: shape \(2, 3\) has 6 elements, which \(4,\) cannot hold"),
    (lambda: ops.reshape(M, -1, -1), ValueError, "cannot hold"),
    (lambda: ops.reshape(M, 6 / 2, 2), TypeError, r"reshape: sizes must be whole numbers, got \(3\.0, 2\)"),
    (lambda: ops.reshape(M, "x"), TypeError, "reshape: sizes must be whole numbers"),
    (lambda: ops.transpose(M, 0), ValueError, "transpose: .* has 2 axes, got an order for 1"),
    (lambda: ops.transpose(M, 0, 0), ValueError, "twice"),
    (lambda: ops.transpose(M, 0, 2), ValueError, "out of range"),
    (lambda: Tensor(A)[3], IndexError, r"getitem: shape \(3,\) has no \[3\]: index 3 is out of bounds"),
    (lambda: Tensor(A)[0.5], IndexError, "getitem: "),
    (lambda: Tensor(A)["x"], IndexError, "getitem: "),
    (lambda: Tensor(A)[[0.5]], IndexError, "getitem: "),
    (lambda: Tensor(M)[[True, False, True]], IndexError, "getitem: .*boolean"),
    (lambda: Tensor(S)[0], IndexError, "getitem: .*too many indices"),
    (lambda: ops.concatenate([]), ValueError, "concatenate: got no tensors"),
    (lambda: ops.concatenate([A, M]), ValueError, r"concatenate: shapes \(3,\), \(2, 3\) differ beside axis 0"),
    (lambda: ops.concatenate([M, M.T]), ValueError, "differ beside axis 0"),
    (lambda: ops.concatenate([A, A], axis=1), ValueError, "concatenate: axis 1 is out of range"),
    (lambda: ops.linear(M, np.ones((4, 2))), ValueError, r"linear: x \(2, 3\), weight \(4, 2\): expected x \(..., k\)"),
    (lambda: ops.linear(M, A), ValueError, "linear: x"),
    (lambda: ops.linear(S, M), ValueError, "linear: x"),
    (lambda: ops.linear(M, M, np.ones(3)), ValueError, r"linear: bias \(3,\) does not broadcast to the result"),
    (lambda: ops.linear(M, M, np.ones((5, 2, 2))), ValueError, "linear: bias"),
    (lambda: ops.embedding(A, [0]), ValueError, r"embedding: expected a table \(V, d\), got \(3,\)"),
    (lambda: ops.embedding(M, [2]), IndexError, "embedding: expected integers from 0 to 1, got 2 to 2"),
    (lambda: ops.embedding(M, [-1]), IndexError, "embedding: expected integers from 0 to 1"),
    (lambda: ops.embedding(M, [0.0]), TypeError, "embedding: expected integers, got float64"),
    (lambda: ops.embedding(M, [True]), TypeError, "embedding: expected integers, got bool"),
    (lambda: ops.softmax(S), ValueError, r"softmax: shape \(\) has no elements along axis -1"),
    (lambda: ops.softmax(A, axis=1), ValueError, "has no elements along axis 1"),
    (lambda: ops.softmax(np.ones((2, 0))), ValueError, "has no elements"),
    (lambda: ops.softmax(M, axis=(0, 1)), TypeError, r"softmax: axis must be one integer, got \(0, 1\)"),
    (lambda: ops.log_softmax(M, axis=None), TypeError, "log_softmax: axis must be one integer"),
    (lambda: ops.softmax([-np.inf, -np.inf]), ValueError, "softmax: a row is all -inf.*masked"),
    (lambda: ops.softmax([[np.nan, 0], [-np.inf, -np.inf]]), ValueError, "softmax: a row is all -inf"),
    (lambda: ops.log_softmax([np.inf, 0]), ValueError, r"log_softmax: .*\+inf"),
    (lambda: ops.cross_entropy(M, [0]), ValueError, r"cross_entropy: logits \(2, 3\), targets \(1,\): expected"),
    (lambda: ops.cross_entropy(M, np.eye(2, 3)), ValueError, "cross_entropy: logits"),
    (lambda: ops.cross_entropy(S, 0), ValueError, "cross_entropy: logits"),
    (lambda: ops.cross_entropy(np.ones((0, 3)), []), ValueError, "at least one row"),
    (lambda: ops.cross_entropy(M, [0, 3]), IndexError, "cross_entropy: expected integers from 0 to 2, got 0 to 3"),
    (lambda: ops.cross_entropy(M, [0, -1]), IndexError, "cross_entropy: expected integers from 0 to 2, got -1 to 0"),
    (lambda: ops.cross_entropy(M, [3, -100]), IndexError, "cross_entropy: expected integers from 0 to 2, got 3 to 3"),
    (lambda: ops.cross_entropy(M, [0, -100], ignore_index=-1), IndexError, "from 0 to 2, got -100 to 0"),
    (lambda: ops.cross_entropy(M, [-100, -100]), ValueError, "cross_entropy: all 2 targets are -100, which is ignored"),
    (lambda: ops.cross_entropy(M, [1, 1], ignore_index=1), ValueError, "cross_entropy: all 2 targets are 1, which"),
    (lambda: ops.cross_entropy(M, [0, 1], ignore_index=None), TypeError, "ignore_index must be an integer, got None"),
    (lambda: ops.linear_cross_entropy(M, M, [0]), ValueError,
     r"linear_cross_entropy: x \(2, 3\), weight \(2, 3\), targets \(1,\): expected x \(..., k\)"),
    (lambda: ops.linear_cross_entropy(M, M.T, [0, 1]), ValueError, "linear_cross_entropy: x"),
    (lambda: ops.linear_cross_entropy(M, A, [0, 1]), ValueError, "linear_cross_entropy: x"),
    (lambda: ops.linear_cross_entropy(S, M, 0), ValueError, "linear_cross_entropy: x"),
    (lambda: ops.linear_cross_entropy(np.ones((0, 3)), M, []), ValueError, "at least one row"),
    (lambda: ops.linear_cross_entropy(M, np.ones((0, 3)), [0, 0]), ValueError, "linear_cross_entropy: x"),
    (lambda: ops.linear_cross_entropy(M, M, [0, 2]), IndexError, "expected integers from 0 to 1, got 0 to 2"),
    (lambda: ops.linear_cross_entropy(M, M, [-100] * 2), ValueError, "linear_cross_entropy: all 2 targets are -100"),
    (lambda: ops.cross_entropy(M, [0.0, 1.0]), TypeError, "cross_entropy: expected integers"),
    (lambda: ops.cross_entropy([[-np.inf, -np.inf]], [0]), ValueError, "cross_entropy: a row is all -inf"),
    (lambda: ops.layer_norm(M, np.ones(2), np.ones(3)), ValueError, r"layer_norm: x \(2, 3\), weight \(2,\)"),
    (lambda: ops.layer_norm(M, np.ones(3), S), ValueError, "layer_norm: x"),
    (lambda: ops.layer_norm(S, S, S), ValueError, "layer_norm: x"),
    (lambda: ops.layer_norm(np.ones((2, 0)), [], []), ValueError, "layer_norm: x"),
    (lambda: ops.rms_norm(M, np.ones(2)), ValueError, r"rms_norm: x \(2, 3\), weight \(2,\): expected \(..., d\) and"),
    (lambda: ops.rms_norm(M, M), ValueError, "rms_norm: x"),
    (lambda: ops.rms_norm(S, S), ValueError, "rms_norm: x"),
    (lambda: ops.rms_norm(np.ones((2, 0)), []), ValueError, "rms_norm: x"),
    (lambda: ops.swiglu(M, M.T), ValueError, r"swiglu: gate \(2, 3\), up \(3, 2\): expected two of one shape"),
    (lambda: ops.swiglu(M, A), ValueError, "swiglu: gate"),
    (lambda: ops.swiglu(S, S), ValueError, "swiglu: gate"),
    (lambda: ops.rotary(M, M, M), ValueError, r"rotary: x \(2, 3\), cos \(2, 3\), sin \(2, 3\), 1 heads: expected x"),
    (lambda: ops.rotary(np.ones((3, 4)), *ROTATION, heads=2), ValueError, "rotary: x .* 2 heads"),
    (lambda: ops.rotary(np.ones((3, 4)), *ROTATION, heads=3), ValueError, "rotary: x .* 3 heads"),
    (lambda: ops.rotary(np.ones((2, 4)), *ROTATION), ValueError, "rotary: x"),
    (lambda: ops.rotary(np.ones((3, 4)), ROTATION[0], ROTATION[1][:2]), ValueError, "rotary: x"),
    (lambda: ops.rotary(np.ones(4), *ROTATION), ValueError, "rotary: x"),
    (lambda: ops.rotary(np.ones((3, 4)), *ROTATION, heads=0), ValueError, "rotary: heads must be a whole number"),
    (lambda: ops.dropout(A, 1.0, RNG), ValueError, r"dropout: p must be in \[0, 1\), got 1\.0"),
    (lambda: ops.dropout(A, -0.1, RNG), ValueError, "dropout: p must be"),
    (lambda: ops.dropout(A, np.nan, RNG), ValueError, "dropout: p must be"),
    (lambda: ops.causal_attention(np.ones((3, 2)), np.ones((2, 2)), np.ones((2, 2))), ValueError, "with S >= T >= 1"),
    (lambda: ops.causal_attention(M, M, M[:, :2]), ValueError, "causal_attention: q"),
    (lambda: ops.causal_attention(A, A, A), ValueError, "causal_attention: q"),
    (lambda: ops.causal_attention(M[None], M, M), ValueError, "causal_attention: q"),
    (lambda: ops.causal_attention(M[:, :0], M[:, :0], M[:, :0]), ValueError, "d >= 1"),
    (lambda: ops.causal_attention(M, M, M, 4), ValueError, "d >= 1, a multiple of heads"),
    (lambda: ops.causal_attention(M, M, M, heads=0), ValueError, "heads must be a whole number of at least 1, got 0"),
    (lambda: ops.causal_attention(M[:0], M[:0], M[:0]), ValueError, "causal_attention: q"),
])
def test_errors_name_the_operation_and_the_shapes(function, error, words):
    with pytest.raises(error, match=words):
        function()


def test_the_check_itself_can_fail():
    (right,) = gradients(lambda a: ops.softmax(a), *random((3, 4)), upstream=np.arange(12.0).reshape(3, 4))
    (numeric,) = numeric_gradients(ops.softmax, random((3, 4)), np.arange(12.0).reshape(3, 4))
    np.testing.assert_allclose(right, numeric, rtol=1e-5, atol=1e-7)
    with pytest.raises(AssertionError):  # ones for a seed would not have seen this
        np.testing.assert_allclose(0 * right, numeric, rtol=1e-5, atol=1e-7)
