"""The engine: what a Tensor is, what backward does, and the cases that small engines get wrong."""

import copy
import gc
import pickle
import sys
import threading
import weakref
from contextvars import copy_context

import numpy as np
import pytest

from lora_np import Tensor, no_grad, ops
from lora_np.graph import backpropagate, open_blocks, unbroadcast
from lora_np.tensor import node
from tests.helpers import check_gradients, gradients, waiting_inside

pytestmark = pytest.mark.filterwarnings("error")


def leaf(data, **options):
    return Tensor(data, requires_grad=True, **options)


def unchanged(function, *tensors):
    """The error that function raises, after a check that it left every Tensor here as it was."""
    before = [(t.data.tobytes(), t.requires_grad, t.grad if t.grad is None else t.grad.copy()) for t in tensors]
    with pytest.raises(Exception) as caught:
        function()
    for t, (data, requires_grad, grad) in zip(tensors, before, strict=True):
        assert t.data.tobytes() == data and t.requires_grad == requires_grad
        assert t.grad is None if grad is None else np.array_equal(t.grad, grad, equal_nan=True)
    return caught


# What a Tensor is

@pytest.mark.parametrize(("data", "dtype", "shape"), [
    (2, np.int64, ()), (2.0, np.float64, ()), (True, np.bool_, ()), ([1, 2.5], np.float64, (2,)),
    ([[1], [2]], np.int64, (2, 1)), ([], np.float64, (0,)), (np.float32(1), np.float32, ()),
    (np.ones((2, 3), np.float32), np.float32, (2, 3)), (Tensor([1.0, 2.0]), np.float64, (2,)),
    (range(3), np.int64, (3,)),
])
def test_takes_what_numpy_takes(data, dtype, shape):
    t = Tensor(data)
    assert (t.dtype, t.shape, t.ndim, t.size) == (dtype, shape, len(shape), np.prod(shape))
    assert not t.requires_grad and t.grad is None


@pytest.mark.parametrize(("data", "error", "words"), [
    ("abc", TypeError, "expected numbers, got str"),
    (None, TypeError, "expected numbers, got NoneType"),
    ({1, 2}, TypeError, "expected numbers, got set"),
    (1j, TypeError, "expected numbers, got complex"),
    ([1, "x"], TypeError, "expected numbers, got list"),
    ([[1, 2], [3]], ValueError, "rows differ in length"),
    ([leaf(1.0), 2.0], TypeError, "ops.concatenate"),
    ([[leaf([1.0])]], TypeError, "cut them from the graph"),
])
def test_refuses_what_is_not_numbers(data, error, words):
    with pytest.raises(error, match=words):
        Tensor(data)


def test_a_list_of_constants_is_copied():
    assert Tensor([Tensor(1.0), Tensor(2.0)]).data.tolist() == [1, 2]


@pytest.mark.parametrize("data", [1, [1, 2], True, np.arange(3)])
def test_only_floating_point_requires_a_gradient(data):
    with pytest.raises(TypeError, match=r"floating point.*write 1\.0 for 1"):
        leaf(data)
    t = Tensor(data)
    with pytest.raises(TypeError, match="floating point"):
        t.requires_grad = True
    assert not t.requires_grad


def test_copies_what_it_is_given():
    array = np.ones(3)
    t = Tensor(array)
    array[0] = 9
    assert t.data.tolist() == [1, 1, 1]
    copied = t.numpy()
    copied[0] = 9
    assert t.data.tolist() == [1, 1, 1]
    taken = np.array(t)
    taken[0] = 9
    assert t.data.tolist() == [1, 1, 1]


@pytest.mark.parametrize("t", [leaf([1.0, 2.0]), leaf([1.0, 2.0]) * 2, leaf([1.0, 2.0]).detach(), leaf([[1.0, 2.0]]).T],
                         ids=["leaf", "result", "detached", "view"])
def test_the_array_is_read_only(t):
    before = t.numpy()
    with pytest.raises(ValueError, match="read-only"):
        t.data[0] = 5
    with pytest.raises(ValueError, match="read-only"):
        t.data += 1
    with pytest.raises(TypeError, match="item assignment"):
        t[0] = 5
    assert np.array_equal(t.data, before)


def test_new_data_keeps_shape_and_dtype():
    t = leaf(np.ones(2, np.float32))
    t.data = [3, 4]
    assert t.data.tolist() == [3, 4] and t.dtype == np.float32
    t.data = Tensor([5.0, 6.0])
    assert t.data.tolist() == [5, 6] and t.dtype == np.float32


@pytest.mark.parametrize(("new", "error", "words"), [
    ([1.0, 2, 3], ValueError, r"expected an array of shape \(2,\), got \(3,\)"),
    (1.0, ValueError, r"got \(\)"),
    ("x", TypeError, "expected numbers"),
    (None, TypeError, "expected numbers"),
    ([1j, 2], TypeError, "expected numbers"),
    ([leaf(1.0), leaf(2.0)], TypeError, "cut them"),
])
def test_new_data_that_does_not_fit(new, error, words):
    t = leaf([1.0, 2.0])
    caught = unchanged(lambda: setattr(t, "data", new), t)
    assert caught.errisinstance(error)
    caught.match(words)


def test_an_integer_tensor_takes_no_fractions():
    t = Tensor([1, 2])
    unchanged(lambda: setattr(t, "data", [0.5, 2.0]), t).match("float64 do not fit into int64")


def test_a_result_follows_its_operands():
    y = leaf([1.0]) * 2
    unchanged(lambda: setattr(y, "data", [1.0]), y).match("result of mul.*detach")
    unchanged(lambda: setattr(y, "requires_grad", False), y).match("result of mul.*detach")


def test_a_mistyped_attribute_is_an_error():
    with pytest.raises(AttributeError):
        leaf([1.0]).require_grad = False


def test_numpy_habits():
    t = Tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert t.T.shape == (3, 2) and t.transpose(1, 0).shape == (3, 2) and t.transpose((1, 0)).shape == (3, 2)
    assert t.reshape(3, 2).shape == t.reshape((3, 2)).shape == t.reshape([3, -1]).shape == (3, 2)
    assert len(t) == 2 and [row.data.tolist() for row in t] == [[1, 2, 3], [4, 5, 6]]
    assert t.sum().item() == 21 and t.mean(axis=0).data.tolist() == [2.5, 3.5, 4.5] and t.max(1).data.tolist() == [3, 6]
    assert isinstance(t.sum().item(), float) and float(t.sum()) == 21
    assert f"{t.sum():.2f}" == "21.00" and f"{t.sum()}" == "Tensor(21.)"
    assert (t > 2).tolist() == [[False, False, True], [True, True, True]] and (t == t).all() and (t != 1).sum() == 5
    assert (np.float64(2) >= t).sum() == 2 and bool(Tensor(1.0)) and not Tensor([0])
    assert np.array_equal(np.asarray(t), t.data) and np.asarray(t, np.float32).dtype == np.float32
    assert t.exp().log().sqrt().tanh().shape == (2, 3)


def test_detach_and_item_cut_the_graph():
    t = leaf([2.0])
    assert not (t * 3).detach().requires_grad and (t * 3).item() == 6
    (y,) = gradients(lambda x: x * x.detach(), [3.0])
    assert y.tolist() == [3]


@pytest.mark.parametrize(("function", "error", "words"), [
    (lambda t: t.item(), ValueError, r"expected one element, got shape \(2,\)"),
    (lambda t: float(t), ValueError, "expected one element"),
    (lambda t: bool(t), ValueError, r"no single truth.*any\(\)"),
    (lambda t: f"{t:.3f}", ValueError, "expected one element"),
    (lambda t: len(t[0]), TypeError, "no length"),
    (lambda t: list(t[0]), TypeError, "no length"),
    (lambda t: np.sum(t), TypeError, "np.sum: .*no gradient.*t.data"),
    (lambda t: np.sin(t), TypeError, "np.sin: .*no gradient"),
    (lambda t: np.concatenate([t, t]), TypeError, "np.concatenate.*lora_np.ops"),
    (lambda t: np.add(t, 1, out=np.zeros(2)), TypeError, "np.add: has no gradient here"),
    (lambda t: np.add.reduce(t), TypeError, "np.add: has no gradient here"),
    (lambda t: t + None, TypeError, "expected numbers"),
    (lambda t: t * "x", TypeError, "expected numbers"),
    (lambda t: t * [t, t], TypeError, "cut them from the graph"),
])
def test_what_a_tensor_cannot_do(function, error, words):
    t = leaf([1.0, 2.0])
    caught = unchanged(lambda: function(t), t)
    assert caught.errisinstance(error)
    caught.match(words)


def test_an_array_cannot_take_a_tensor_in_place():
    array = np.zeros(2)
    with pytest.raises(TypeError, match="no gradient here"):
        array += leaf([1.0, 2.0])
    assert array.tolist() == [0, 0]


@pytest.mark.parametrize(("t", "text"), [
    (Tensor([1.0, 2.0]), "Tensor([1., 2.])"),
    (leaf([1.0]), "Tensor([1.], requires_grad=True)"),
    (leaf([1.0]) * 2, "Tensor([2.], from mul)"),
    (Tensor(np.float32(1)), "Tensor(1., dtype=float32)"),
    (Tensor([1], name="ids"), "Tensor([1], name='ids', dtype=int64)"),
    (Tensor([]), "Tensor([])"),
])
def test_repr_shows_the_state_of_the_gradient(t, text):
    assert repr(t) == text


def test_repr_tells_that_a_gradient_arrived():
    t = leaf([1.0])
    t.backward()
    assert repr(t) == "Tensor([1.], requires_grad=True, has grad)"
    assert len(repr(Tensor(np.zeros((100, 100))))) < 1000


def test_hash_is_identity():
    a, b = leaf([1.0]), leaf([1.0])
    assert len({a, b, a}) == 2


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_keep_numbers_and_drop_graph_and_gradient(duplicate):
    t = leaf([1.0, 2.0], name="w")
    t.backward([1, 1])
    other = duplicate(t)
    assert other.data.tolist() == [1, 2] and other.requires_grad and other.grad is None and other.name == "w"
    other.data = [3.0, 4.0]
    assert t.data.tolist() == [1, 2]
    assert not duplicate(t * 2).requires_grad


# What backward does

def test_a_node_used_twice_gets_both_gradients():
    assert gradients(lambda x: x * x, [3.0])[0].tolist() == [6]
    assert gradients(lambda x: x + x, [3.0])[0].tolist() == [2]
    assert gradients(lambda x: x - x, [3.0])[0].tolist() == [0]
    (g,) = gradients(lambda x: (h := x * 2) * h + h, [3.0])  # 4 x^2 + 2 x
    assert g.tolist() == [26]


def test_a_diamond_waits_for_all_that_was_computed_from_it():
    def late(x):
        h = x * 2  # reaches the end by a short and by a long way
        return h + (h * 3).exp().log()

    (g,) = gradients(late, [0.5])
    np.testing.assert_allclose(g, [8], rtol=1e-12)


def test_doublings_take_linear_time():
    def doubled(x):
        for _ in range(60):  # walked path by path, this would be 2^60 steps
            x = x + x
        return x

    assert gradients(doubled, 1.0)[0] == 2.0 ** 60


def test_gradients_accumulate_into_a_new_array():
    x = leaf([1.0, 2.0])
    (x * 2).sum().backward()
    first = x.grad
    (x * 3).sum().backward()
    assert x.grad.tolist() == [5, 5] and first.tolist() == [2, 2]


def test_leaves_only_keep_gradients():
    x = leaf([1.0])
    h = x * 2
    (h * 3).backward()
    assert x.grad.tolist() == [6] and h.grad is None


def test_a_leaf_is_its_own_gradient():
    x, s = leaf([[1.0]]), leaf(2.0)
    x.backward()
    s.backward(3.0)
    assert x.grad.tolist() == [[1]] and s.grad == 3 and isinstance(s.grad, np.ndarray)


@pytest.mark.parametrize("seed", [[1, 2], (1.0, 2.0), np.array([1, 2], np.float32), Tensor([1.0, 2.0])])
def test_a_seed_is_anything_of_the_right_shape(seed):
    x = leaf([3.0, 4.0])
    (x * 2).backward(seed)
    assert x.grad.tolist() == [2, 4] and x.grad.dtype == np.float64


@pytest.mark.parametrize(("seed", "error", "words"), [
    (None, ValueError, r"shape \(2,\) needs a gradient.*loss.mean\(\).backward\(\)"),
    (1.0, ValueError, r"gradient has shape \(\), the result \(2,\)"),
    ([[1, 1]], ValueError, r"gradient has shape \(1, 2\)"),
    ("ab", TypeError, "expected numbers"),
    ([1j, 1], TypeError, "expected numbers"),
])
def test_a_seed_that_does_not_fit(seed, error, words):
    x = leaf([3.0, 4.0])
    y = x * 2
    caught = unchanged(lambda: y.backward(seed), x, y)
    assert caught.errisinstance(error)
    caught.match(words)
    y.backward([1, 1])  # and the graph is still there
    assert x.grad.tolist() == [2, 2]


def test_backward_needs_something_that_requires_a_gradient():
    for t in (Tensor(1.0), Tensor(1.0) * 2, leaf(1.0).detach()):
        unchanged(t.backward, t).match("requires a gradient.*no_grad")


def test_a_second_backward_through_a_freed_graph():
    x = leaf([1.0, 2.0])
    h = x * x
    a, b = h.sum(), (h * 2).sum()
    a.backward()
    for y in (a, b):  # b shares only h with what was freed
        caught = unchanged(y.backward, x)
        assert caught.errisinstance(RuntimeError)
        caught.match("freed the graph at this (sum|mul).*retain_graph=True")


def test_retain_graph_allows_another():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4, 8]


def test_an_error_inside_a_vjp_leaves_the_gradients_alone():
    x = leaf([1.0])
    h = x * 2
    y = node("broken", h.data, (h, lambda g: 1 / 0)) + h
    assert unchanged(y.backward, x).errisinstance(ZeroDivisionError)


@pytest.mark.parametrize(("vjp", "error", "words"), [
    (lambda g: np.ones((3, 2)), ValueError, r"mine.*shape \(3, 2\) for an operand of shape \(2, 3\).*transpose"),
    (lambda g: np.ones(6), ValueError, r"gradient of shape \(6,\)"),
    (lambda g: np.ones((2, 4)), ValueError, r"\(2, 4\)"),
    (lambda g: 1.0, ValueError, r"gradient of shape \(\)"),
    (lambda g: None, TypeError, "mine.*None instead of a gradient"),
])
def test_a_wrong_vjp_of_ones_own_is_named(vjp, error, words):
    x = leaf(np.ones((2, 3)))
    y = node("mine", x.data.sum(), (x, vjp))
    caught = unchanged(y.backward, x)
    assert caught.errisinstance(error)
    caught.match(words)


def test_a_vjp_may_return_a_list():
    x = leaf([1.0, 2.0])
    node("mine", x.data.sum(), (x, lambda g: [3, 4])).backward()
    assert x.grad.tolist() == [3, 4] and x.grad.dtype == np.float64


@pytest.mark.parametrize("function", [
    lambda x, y: x + y, lambda x, y: x.reshape(6) + y.reshape(6), lambda x, y: ops.concatenate([x, y]),
    lambda x, y: x.T + y.T, lambda x, y: (x + y) + (x + y), lambda x, y: x.sum() + y.sum(), lambda x, y: (x + y)[:1],
    lambda x, y: ops.where(np.ones((2, 3), bool), x, y), lambda x, y: ops.linear(x, y), lambda x, y: x + (y + 0),
    lambda x, y: ops.causal_attention(x, y, x + y),
], ids=["add", "reshape", "concatenate", "transpose", "diamond", "sum", "getitem", "where", "linear", "chain",
        "attention"])
def test_gradients_share_memory_with_nothing(function):
    x, y = leaf(np.ones((2, 3))), leaf(np.ones((2, 3)))
    out = function(x, y)
    seed = np.ones(out.shape)
    out.backward(seed)
    arrays = [seed, x.grad, y.grad, x.data, y.data, out.data]
    for i, a in enumerate(arrays):
        for b in arrays[i + 1:3]:
            assert not np.shares_memory(a, b)
    other = y.grad.copy()
    x.grad += 100  # ours to write to
    seed[...] = 7
    assert np.array_equal(y.grad, other)


@pytest.mark.parametrize(("shape", "other"), [
    ((3,), (2, 3)), ((1, 3), (2, 3)), ((2, 1), (2, 3)), ((), (2, 3)), ((1,), (2, 3)), ((1, 1, 1), (2, 3)),
    ((2, 1, 3), (4, 1)), ((1, 4, 1), (2, 1, 3)), ((5, 1), (1, 1)), ((0, 3), (1, 3)), ((1, 3), (0, 3)), ((1,), (0,)),
])
def test_broadcasting_sums_the_gradient_down(shape, other):
    rng = np.random.default_rng(0)
    check_gradients(ops.mul, rng.normal(size=shape), rng.normal(size=other))
    check_gradients(ops.add, rng.normal(size=other), rng.normal(size=shape))


def test_unbroadcast_is_the_transpose_of_broadcasting():
    rng = np.random.default_rng(0)
    g, x = rng.normal(size=(4, 2, 3)), rng.normal(size=(2, 1))
    assert np.isclose(np.vdot(g, np.broadcast_to(x, g.shape)), np.vdot(unbroadcast(g, x.shape), x))


@pytest.mark.parametrize("function", [lambda s: s * s, lambda s: s * np.ones((2, 3)), lambda s: s.exp() + 1,
                                      lambda s: ops.where(True, s, 0.0), lambda s: s.reshape(1, 1) @ s.reshape(1, 1),
                                      lambda s: s.sum(), lambda s: s.mean(), lambda s: s.max(), lambda s: s.T])
def test_parameters_without_axes(function):
    s = leaf(1.5)
    y = function(s)
    y.backward(np.ones(y.shape))
    assert isinstance(s.grad, np.ndarray) and s.grad.shape == ()
    check_gradients(function, 1.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("left", [2, 2.0, np.float64(2), np.int64(2), np.float32(2), True, np.ones(3, np.float32)],
                         ids=["int", "float", "np.float64", "np.int64", "np.float32", "bool", "array"])
@pytest.mark.parametrize("operator", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: a / b,
                                      lambda a, b: a ** b], ids="+-*/^")
def test_numbers_on_either_side_give_tensors_of_the_same_precision(operator, left, dtype):
    array = np.array([1.0, 2.0, 3.0], dtype)
    for y, expected in [(operator(left, leaf(array)), operator(left, array)), (operator(leaf(array), left),
                                                                               operator(array, left))]:
        assert isinstance(y, Tensor) and y.requires_grad and y.dtype == dtype
        np.testing.assert_allclose(y.data, expected, rtol=1e-6)


def test_arrays_on_the_left():
    a, t = np.arange(6.0).reshape(2, 3), leaf([1.0, 2.0, 3.0])
    assert np.array_equal((a @ t).data, a @ t.data) and (a @ t).requires_grad
    assert np.array_equal((a * t).data, a * t.data) and (a * t).requires_grad
    assert np.array_equal(a > t, a > t.data) and isinstance(a > t, np.ndarray)
    assert isinstance(np.exp(t), Tensor) and np.exp(t).requires_grad


def test_lists_are_constants():
    t = leaf([1.0, 2.0])
    for y in (t * [3, 4], [3, 4] * t):
        assert isinstance(y, Tensor) and y.data.tolist() == [3, 8]


def test_augmented_assignment_makes_a_new_tensor():
    t = leaf([1.0, 2.0])
    y = t
    y += 1
    y *= 3
    assert y is not t and t.data.tolist() == [1, 2]
    y.backward([1, 1])
    assert t.grad.tolist() == [3, 3]


def test_python_sum_starts_from_its_zero():
    (g,) = gradients(lambda x: sum(x), np.ones(3))
    assert g.tolist() == [1, 1, 1]


@pytest.mark.parametrize("function", [lambda x, w: x * w, lambda x, w: x @ w.T, lambda x, w: ops.linear(x, w),
                                      lambda x, w: ops.concatenate([x, w]), lambda x, w: ops.where(x > w, x, w)])
def test_mixed_precision_gives_each_operand_its_own(function):
    x, w = leaf(np.ones((2, 3), np.float32)), leaf(np.ones((2, 3)))
    function(x, w).sum().backward()
    assert x.grad.dtype == np.float32 and w.grad.dtype == np.float64


# What is not computed

def refuse(g):
    raise AssertionError("this gradient is not needed")


def test_the_vjp_of_a_frozen_operand_is_never_called():
    x, frozen = leaf([1.0]), Tensor([2.0])
    y = node("mine", x.data, (x, lambda g: g), (frozen, refuse))
    y.backward()
    assert x.grad.tolist() == [1] and frozen.grad is None


def test_what_needs_no_gradient_keeps_no_operands():
    a = Tensor(np.ones(3))
    y = a * 2
    assert y._node is None and not y.requires_grad
    kept = weakref.ref(y.data)
    z = y + leaf(1.0)  # add needs neither value
    del y
    assert kept() is None and z.requires_grad


def test_a_frozen_weight_lets_the_activation_go():
    x, weight = leaf(np.ones((2, 3))), Tensor(np.ones((4, 3)))
    h = x * 1.0
    kept = weakref.ref(h.data)
    y = ops.linear(h, weight)
    del h
    assert kept() is None  # only dL/dweight would have needed it
    y.sum().backward()
    assert x.grad.tolist() == [[4, 4, 4]] * 2


def test_no_grad_records_nothing_and_ends():
    x = leaf([1.0])
    with no_grad():
        assert not (x * 2).requires_grad
        with no_grad():
            pass
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (x * 2).requires_grad

    @no_grad()
    def evaluate():
        return x * 2

    assert not evaluate().requires_grad and (x * 2).requires_grad
    assert not open_blocks, "node would look around for nothing"


def test_freezing_between_forward_and_forward():
    x, w = leaf([2.0]), leaf([3.0])
    w.requires_grad = False
    (x * w).backward()
    assert x.grad.tolist() == [3] and w.grad is None


def test_numbers_replaced_between_forward_and_backward_change_no_gradient():
    x, w = leaf([2.0]), leaf([3.0])
    y = x * w
    w.data = [100.0]
    y.backward()
    assert x.grad.tolist() == [3]  # of the numbers that the forward pass saw


# Size, depth and memory

@pytest.mark.parametrize("function", [
    lambda x: x * 2 + x, lambda x: x.exp(), lambda x: x.sum(), lambda x: x.sum(axis=0), lambda x: x.reshape(3, 0).T,
    lambda x: x @ np.ones((3, 2)), lambda x: x[:, [0, 0]], lambda x: ops.concatenate([x, x]), lambda x: ops.relu(x),
    lambda x: ops.softmax(x), lambda x: ops.log_softmax(x), lambda x: ops.linear(x, np.ones((2, 3))),
    lambda x: ops.layer_norm(x, np.ones(3), np.ones(3)), lambda x: x.max(axis=1), lambda x: ops.gelu(x),
    lambda x: ops.dropout(x, 0.5, np.random.default_rng(0)), lambda x: x[np.zeros((0, 3), bool)],
    lambda x: x.mean(axis=1),
])
def test_size_0(function):
    x = leaf(np.zeros((0, 3)))
    y = function(x)
    y.backward(np.ones(y.shape))
    assert x.grad.shape == (0, 3)


def test_inner_size_0():
    a, b = gradients(ops.matmul, np.zeros((2, 0)), np.zeros((0, 3)))
    assert a.shape == (2, 0) and b.shape == (0, 3)
    x, w = gradients(ops.linear, np.zeros((2, 0)), np.zeros((3, 0)))
    assert x.shape == (2, 0) and w.shape == (3, 0)
    (table,) = gradients(lambda w: ops.embedding(w, []), np.ones((2, 3)))
    assert table.tolist() == [[0, 0, 0]] * 2
    assert gradients(lambda w: ops.embedding(w, [0, 0]), np.ones((2, 0)))[0].shape == (2, 0)


DEPTH = 50_000


def test_a_chain_of_50000_operations_backward_and_freed():
    x = leaf(1.0)
    y = x
    for _ in range(DEPTH):
        y = y + 1
    y.backward()
    assert x.grad == 1
    y = x * 1
    for _ in range(DEPTH):
        y = y * 1.0
    del y  # never walked: freed from the last operation down
    assert x.grad == 1


def test_a_graph_is_freed_without_the_cyclic_collector():
    gc.collect()
    gc.disable()
    try:
        x = leaf(np.ones((2, 3)))

        def forward():
            h = ops.softmax(ops.linear(x * 2, x.detach()))
            y = (h @ x + ops.layer_norm(x, np.ones(3), np.ones(3)).max(axis=1)[:, None]).sum()
            return y, [weakref.ref(h), weakref.ref(h._node), weakref.ref(h.data), weakref.ref(y._node)]

        y, watched = forward()
        assert watched[1]() is not None
        del y
        assert [w() for w in watched] == [None] * 4
        y, watched = forward()
        y.backward()
        assert watched[2]() is None and y.item() == y.item()  # backward let the arrays go, and keeps the value
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_backward_drops_what_it_has_used():
    x = leaf(np.ones(3))
    h = x.exp()
    kept = weakref.ref(h.data)
    y = (h * h).sum()
    del h
    assert kept() is not None
    y.backward()
    assert kept() is None


def test_backward_drops_a_gradient_once_it_went_on():
    x, received, returned = leaf(np.ones(3)), [], []

    def vjp(g):  # what comes first is the seed, which backward holds; what was returned last is g itself
        held = [w for w in [*received[1:], *returned[:-1]] if w() is not None]
        assert not held, "the gradient of a later result is still held"
        d = g * 2
        received.append(weakref.ref(g))
        returned.append(weakref.ref(d))
        return d

    y = x
    for _ in range(6):
        y = node("mine", y.data * 2, (y, vjp))
    y.backward(np.ones(3))
    assert len(received) == 6 and x.grad.tolist() == [64, 64, 64]


@pytest.mark.parametrize("dtype", [bool, np.int8, int])
def test_a_vjp_may_give_a_mask_or_whole_numbers(dtype):
    b = leaf(np.zeros(3))
    node("step", np.ones((200, 3)), (b, lambda g: (g > 0).astype(dtype))).backward(np.ones((200, 3)))
    assert b.grad.dtype == float and b.grad.tolist() == [200, 200, 200]


def test_another_seed_through_a_kept_graph_gives_its_own_gradient():
    q = leaf(np.random.default_rng(0).normal(size=(4, 3)))
    y = ops.causal_attention(q, q, q)
    found = []
    for seed in (np.ones((4, 3)), np.arange(12.0).reshape(4, 3)):
        q.grad = None
        y.backward(seed, retain_graph=True)
        found.append((seed, q.grad))
    for seed, g in found:
        assert np.array_equal(g, gradients(lambda q: ops.causal_attention(q, q, q), q.data, upstream=seed)[0])


@pytest.mark.parametrize("seed", range(25))
def test_random_graphs_against_central_differences(seed):
    """Fifteen operations drawn at random, each on any earlier results: reuse, diamonds, broadcasting, all mixed."""
    unary = [ops.tanh, ops.softmax, ops.gelu, ops.transpose, lambda a: a[[0, -1, 0]], lambda a: a.sum(axis=0), ops.neg,
             lambda a: a.mean(axis=1, keepdims=True), lambda a: (a * a + 1).sqrt(), lambda a: a.max(axis=0),
             lambda a: (a.tanh() + 2).log(), lambda a: a.reshape(a.size)[:3], lambda a: a ** 2]
    binary = [ops.add, ops.sub, ops.mul, ops.matmul, lambda a, b: a / (b * b + 1),
              lambda a, b: ops.concatenate([a, b]), lambda a, b: ops.where(np.arange(3) > 0, a, b)]

    def graph(*leaves):
        rng, results = np.random.default_rng(seed), list(leaves)
        while len(results) < 15 + len(leaves):
            a, b = (results[i] for i in rng.integers(0, len(results), 2))
            pick = rng.integers(0, len(unary) + len(binary))
            try:
                y = unary[pick](a) if pick < len(unary) else binary[pick - len(unary)](a, b)
            except (ValueError, IndexError):  # of shapes that do not fit: draw again
                continue
            results.append(y.tanh() * 3)  # numbers of a size that differences can resolve
        return sum(y.sum() * (i + 1) for i, y in enumerate(results))

    rng = np.random.default_rng(seed)
    check_gradients(graph, *(rng.normal(size=s) for s in [(3, 3), (3, 1), (3,), ()]), rtol=1e-4, atol=1e-5)


# What a vjp gives, and what it gets

def dot(t, W):
    return node("dot", W @ t.data, (t, lambda g: W))


def test_backward_writes_into_nothing_that_a_vjp_keeps():
    W, t = np.array([1.0, 2.0, 3.0]), Tensor([1.0, 1.0, 1.0], requires_grad=True)
    (dot(t, W) + dot(t, W) + dot(t, W)).backward()
    assert W.tolist() == [1, 2, 3] and t.grad.tolist() == [3, 6, 9] and W.flags.writeable
    t.grad = None
    dot(t, W).backward()
    assert t.grad.tolist() == [1, 2, 3] and not np.shares_memory(t.grad, W) and t.grad.flags.writeable


def test_backward_through_a_node_writes_into_nothing_that_a_vjp_keeps():
    W, t = np.array([1.0, 2.0, 3.0]), Tensor([1.0, 1.0, 1.0], requires_grad=True)
    u = t * 2
    (dot(u, W) + dot(u, W)).backward()
    assert W.tolist() == [1, 2, 3] and t.grad.tolist() == [4, 8, 12] and W.flags.writeable
    dot(t * 2, W).backward()  # the vjp of * reads W itself
    assert W.flags.writeable


def test_a_vjp_that_writes_into_g_is_named():
    def doubling(g):
        g *= 2
        return g

    t = Tensor([1.0, 2.0], requires_grad=True)
    y = node("twice", t.data * 2, (t, doubling))
    with pytest.raises(ValueError, match="read-only"):
        (y + y).sum().backward()
    with pytest.raises(ValueError, match="read-only"):
        node("twice", t.data * 2, (t, doubling)).backward([1.0, 1.0])


def test_backward_inside_a_vjp_of_the_same_graph():
    t, u = Tensor(3.0, requires_grad=True), Tensor(2.0, requires_grad=True)
    inner = u * u

    def also_backward(g):
        inner.backward(retain_graph=True)
        return g * inner.data

    y = node("outer", t.data * inner.data, (t, also_backward), (inner, lambda g: g * t.data))
    y.backward()
    assert t.grad == 4 and u.grad == 4 + 3 * 4


def test_generators_inside_no_grad_may_be_closed_in_any_order():
    for order in ((0, 1), (1, 0)):
        two = [waiting_inside(no_grad), waiting_inside(no_grad)]
        for generator in two:
            next(generator)
        assert not (Tensor(1.0, requires_grad=True) * 2).requires_grad
        for i in order:
            two[i].close()
        assert (Tensor(1.0, requires_grad=True) * 2).requires_grad


def test_a_generator_inside_no_grad_may_be_closed_anywhere():
    def recorded():
        return (Tensor(1.0, requires_grad=True) * 2).requires_grad

    generator = waiting_inside(no_grad)
    next(generator)
    other = threading.Thread(target=generator.close)
    other.start()
    other.join()
    assert recorded()
    generator = waiting_inside(no_grad)
    copy_context().run(next, generator)
    with no_grad():
        generator.close()
        assert not recorded()
    assert recorded() and not open_blocks


def test_two_threads_through_one_kept_graph_get_their_own_gradients():
    rng = np.random.default_rng(0)
    q, k, v = (Tensor(rng.normal(size=(3, 40, 8)), requires_grad=True) for _ in range(3))
    node_of = ops.causal_attention(q, k, v, heads=2)._node
    upstreams = rng.normal(size=(2, *node_of.shape))
    expected = [backpropagate(node_of, g.copy(), True) for g in upstreams]
    wrong = []

    def walk(i):
        for _ in range(60):
            got = backpropagate(node_of, upstreams[i].copy(), True)
            if any((got[t] != expected[i][t]).any() for t in (q, k, v)):
                wrong.append(i)

    threads = [threading.Thread(target=walk, args=[i]) for i in (0, 1)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


# What numbers a Tensor takes

def test_a_masked_array_is_refused_where_it_hides_something():
    hidden = np.ma.array([1.0, 2.0], mask=[True, False])
    for data in (hidden, [hidden, hidden]):
        with pytest.raises(TypeError, match=r"Tensor: .*masked.*filled"):
            Tensor(data)
    assert Tensor(np.ma.array([1.0, 2.0])).data.tolist() == [1, 2]


def test_an_operation_takes_no_masked_array_either():
    hidden, x = np.ma.array([1, 2, 0], mask=[False, True, False]), Tensor(np.eye(3))
    for call in (lambda: ops.cross_entropy(x, hidden), lambda: ops.embedding(x, hidden), lambda: x[hidden],
                 lambda: x[[hidden]], lambda: ops.where(hidden, x, 0.0), lambda: x > hidden,
                 lambda: ops.linear_cross_entropy(x, x, hidden)):
        with pytest.raises(TypeError, match=r"masked array hides .*filled"):
            call()
    assert ops.embedding(x, np.ma.array([1, 2])).data.tolist() == [[0, 1, 0], [0, 0, 1]]


def test_gradients_have_the_byte_order_of_their_leaf():
    t = Tensor(np.array([1.0, 2.0], ">f8"), requires_grad=True)
    assert t.dtype == np.float64 and t.dtype.isnative and t.data.tolist() == [1, 2]
    for _ in range(2):
        (t * t).sum().backward()
        assert t.grad.dtype == t.dtype
