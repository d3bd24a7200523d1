"""lessons/one_page.py: it runs, fits on a page, and its gradients are the library's."""

import runpy

import numpy as np
import pytest

from lessons.course.checking.tasks import LESSONS
from lora_np import LoraConfig, Tensor, ops
from lora_np.lora import LoraLinear
from lora_np.nn import Linear

PAGE = LESSONS / "one_page.py"


@pytest.fixture(scope="module")
def page():
    """What the script has made when it has run to its end."""
    return runpy.run_path(str(PAGE))


def library_layer(theirs):
    (d, r), k = theirs.B.data.shape, theirs.A.data.shape[1]
    layer = LoraLinear(Linear(k, d, bias=False), LoraConfig(r=r, lora_alpha=theirs.scaling * r))
    layer.weight.data, layer.lora_A.data, layer.lora_B.data = theirs.W0.data, theirs.A.data, theirs.B.data
    return layer


def assert_same(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * np.abs(b).max())


@pytest.mark.parametrize("start", [True, False], ids=["at the start, B = 0", "later"])
def test_its_gradients_are_the_librarys(page, start):
    rng = np.random.default_rng(1)
    theirs = [page["LoraLinear"](rng.normal(size=shape), r, alpha, rng) for shape, r, alpha in (
        ((4, 7), 2, 5), ((3, 4), 3, 2))]
    for layer in theirs:
        layer.B.data = layer.B.data if start else rng.normal(size=layer.B.data.shape)
    X, Y = rng.normal(size=(9, 7)), rng.normal(size=(9, 3))
    x = page["Tensor"](X.T, trainable=True)
    loss = theirs[1](theirs[0](x).relu()).mean_squared_error(Y.T)
    loss.backward()

    first, second = map(library_layer, theirs)
    rows = Tensor(X, requires_grad=True)
    expected = ((second(ops.relu(first(rows))) - Y) ** 2).mean()
    expected.backward()
    assert_same(loss.data, expected.item())
    assert_same(x.grad.T, rows.grad)
    for layer, own in zip(theirs, (first, second), strict=True):
        assert_same(layer.B.grad, own.lora_B.grad)
        if start:
            assert not layer.A.grad.any() and not own.lora_A.grad.any()
        else:
            assert_same(layer.A.grad, own.lora_A.grad)
        assert layer.W0.grad is None and own.weight.grad is None
        own.merge()
        assert_same(layer.merged(), own.weight.data)


def test_its_backward_adds_up_what_is_used_twice(page):
    x = page["Tensor"](np.array([[3.0]]), trainable=True)
    y = x @ x + x
    (y @ y + x).backward()  # (x^2 + x)^2 + x
    assert x.grad == 2 * (9 + 3) * 7 + 1


def test_it_learns_and_leaves_the_frozen_weights_alone(page):
    assert page["loss"].data < 1e-3
    assert page["first"].W0.data is page["W1"] and page["second"].W0.data is page["W2"]
    assert all(np.linalg.matrix_rank(layer.merged() - layer.W0.data) == 2 for layer in (page["first"], page["second"]))


def test_it_fits_on_two_slides_and_needs_numpy_alone():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80 and max(map(len, lines)) <= 100
    assert [line for line in lines if "import" in line] == ["import numpy as np"]
