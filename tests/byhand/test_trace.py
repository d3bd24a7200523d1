"""The tape in words and as a drawing, held against the engine's own backward."""

import re
import subprocess
import sys
import threading
from inspect import signature
from itertools import pairwise
from pathlib import Path

import matplotlib.style
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch, PathPatch

from lora_np import GPT, GPTConfig, LoraConfig, Tensor, no_grad, ops
from lora_np.byhand.worksheet import worked_example
from lora_np.graph import open_blocks
from lora_np.lora import LoraLinear, add_lora
from lora_np.nn import Linear
from lora_np.support.palette import FROZEN, TRAINABLE
from lora_np.tensor import node, operations, tape
from lora_np.trace import Trace, record, trace
from lora_np.trace.draw import draw_graph
from lora_np.trace.formulas import formulas
from lora_np.trace.tape import text
from lora_np.train import next_token_loss
from tests.helpers import waiting_inside


def lora_layer():
    """The worked example as (function that gives its loss, layer, x)."""
    sheet = worked_example()
    layer = LoraLinear(Linear(2, 2, bias=False), LoraConfig(r=1, lora_alpha=2))
    layer.weight.data, layer.lora_A.data, layer.lora_B.data = sheet.W0, sheet.A, sheet.B
    x, y = Tensor(sheet.x, requires_grad=True, name="x"), Tensor(sheet.y, name="y")

    def loss():
        h = layer(x)
        h.name = "h"
        return ((h - y) ** 2).sum() * 0.5
    return loss, layer, x


def gpt():
    model = GPT(GPTConfig(vocab_size=5, context=4, d_model=4, n_heads=2, n_layers=1, d_ff=6, dtype=np.float64))
    add_lora(model, LoraConfig(r=1))
    rng = np.random.default_rng(0)
    for name, t in model.named_parameters():
        if "lora_B" in name:
            t.data = rng.normal(size=t.shape)
    ids = np.array([[1, 2, 3, 0]])
    return model, lambda: next_token_loss(model, ids[:, :-1], ids[:, 1:])


def test_the_worked_example_in_words(capsys):
    loss, layer, x = lora_layer()
    trace(loss, model=layer)
    lines = [re.sub(r" {2,}", "  ", line.strip()) for line in capsys.readouterr().out.splitlines()]
    forward, backward = (lines[lines.index(a) + 1:] for a in ("Forward", next(s for s in lines if "Backward" in s)))
    assert forward[:8] == [
        "1  linear  t1 = x @ lora_A.T  (2,), (1, 2) -> (1,)  [3]", "2  mul  t2 = t1 * 2  (1,), () -> (1,)  [6]",
        "3  linear  t3 = x @ weight.T  (2,), (2, 2) -> (2,)  [-7 -1]",
        "4  linear  h = t2 @ lora_B.T + t3  (1,), (2, 1), (2,) -> (2,)  [5 2]",
        "5  sub  t5 = h - y  (2,), (2,) -> (2,)  [2 -3]", "6  pow  t6 = t5 ** 2  (2,), () -> (2,)  [4 9]",
        "7  sum  t7 = sum(t6, axis)  (2,) -> ()  13", "8  mul  L = t7 * 0.5  (), () -> ()  6.5"]
    assert [line[0] for line in backward if line[0].isdigit() and "g = " in line] == list("87654321")
    for line in ("dlora_B = g.T @ t2  [12; -18]", "dx = g @ weight  [-7 1]", "dweight  frozen: skipped",
                 "dy  frozen: skipped", "0.5  constant: skipped", "dlora_A = g.T @ x  [10 15]",
                 "dx += g @ lora_A  [15 -5], together [8 -4]"):
        assert line in backward
    assert "x  (2,)  input  [2 3]" in lines and "weight  (2, 2)  frozen  [-2 -1; 1 -1]" in lines
    assert x.grad is None and layer.lora_A.grad is None


def test_gradients_are_those_of_backward():
    model, loss = gpt()
    worked = Trace(loss, model)
    loss().backward()
    own = {name: t.grad for name, t in model.named_parameters()}
    assert {name for name, g in worked.gradients.items() if name in own and g is not None} == {
        name for name, g in own.items() if g is not None}
    for name, g in own.items():
        if g is not None:
            np.testing.assert_allclose(worked.gradients[name], g, rtol=1e-12, atol=1e-15)
    printed = str(worked)
    assert re.search(r"dlayers.0.fc1.weight +frozen: skipped", printed) and "where dS = P * (g @" in printed


def test_a_value_used_twice_adds_up_and_broadcasting_sums():
    x, b = Tensor([3.0, 4.0], True, name="x"), Tensor(2.0, True, name="b")
    worked = Trace(lambda: (x * x + b).sum())
    np.testing.assert_array_equal(worked.gradients["x"], [6, 8])
    assert worked.gradients["b"] == 2
    assert "dx += g * x" in str(worked)


def test_a_frozen_operands_vjp_is_not_run():
    def refuse(g):
        raise AssertionError("computed the gradient of a frozen operand")
    x, w = Tensor([1.0, 2.0], True), Tensor([3.0, 4.0], name="w")
    worked = Trace(lambda: node("planted", x.data * w.data, (x, lambda g: g * w.data), (w, refuse)).sum())
    assert re.search(r"dw +frozen: skipped", str(worked)) and "t1 = planted(p1, w)" in str(worked)


def test_recording_then_tracing():
    x = Tensor([1.0, 2.0], True, name="x")
    with record():
        first = (x * 2).sum()
    with record():
        unused = x.exp()
        second = (x * 3).sum()
        second.backward()
    np.testing.assert_array_equal(Trace(first).gradients["x"], [2, 2])
    assert [step.operation for step in Trace(second).steps] == ["mul", "sum"] and unused.shape == (2,)
    with pytest.raises(ZeroDivisionError), record():
        raise ZeroDivisionError
    assert not tape.get() and not open_blocks


def test_what_cannot_be_traced():
    x = Tensor([1.0, 2.0], True)
    with pytest.raises(ValueError, match=r"was not recorded.*trace\(lambda: …\).*with record\(\)"):
        trace((x * 2).sum())
    with pytest.raises(ValueError, match=r"shape \(2,\).*loss.sum\(\)"):
        trace(lambda: x * 2)
    with pytest.raises(TypeError, match="got float"):
        trace(lambda: 2.0)


def test_nothing_to_train():
    x, W = Tensor([1.0, 2.0], name="x"), Tensor([[1.0, 2.0]], True, name="W")
    assert "nothing here requires a gradient" in str(Trace(lambda: (x * 2).sum()))
    with no_grad():
        assert "every step is skipped" in str(Trace(lambda: ops.linear(x, W).sum()))
    assert draw_graph(lambda: (x * 2).sum()).axes


def test_names_are_unique_and_letters_are_no_numbers():
    a, b, e = Tensor([1.0, 2.0], True, name="a"), Tensor([3.0, 4.0], True, name="a"), Tensor([5.0, 1.0], name="e")
    worked = Trace(lambda: (a * b + e + Tensor([1.0, 1.0], True) + Tensor([0.0, 1.0])).sum() * -1.5)
    assert list(worked.leaves) == ["a", "a_2", "e", "p1", "c1"]
    assert worked.steps[-1].formula == "t5 * -1.5" and worked.steps[0].formula == "a * a_2"
    assert repr(worked) == "<Trace: 5 leaves, 6 steps>"  # what a notebook shows below the tape that was printed


def test_every_operation_has_its_formulas_in_one_place():
    operands = {"a", "b", "x", "q", "k", "v", "weight", "bias", "logits", "tensors", "gate", "up"}
    for name in ops.__all__:
        found = formulas(name)
        assert set(found.gradients) == operands & set(signature(operations[name]).parameters), name
        assert "(…)" not in found.y, name
    assert list(formulas("layer_norm").where) == ["std", "xhat"]
    assert formulas("linear").gradients == {"x": "g @ weight", "weight": "g.T @ x", "bias": "g"}
    assert formulas("no such operation").y == "no such operation(…)"


def test_concatenate_and_attention_put_in_the_operands():
    q, k = Tensor(np.eye(2), True, name="Q"), Tensor(np.eye(2), True, name="K")
    worked = Trace(lambda: ops.concatenate([q, ops.causal_attention(q, k, k)], axis=0).sum())
    assert worked.steps[0].where[0] == "P = softmax(Q @ K.T / sqrt(c) + mask)"
    assert worked.steps[1].formula == "concatenate(Q, t1, axis)"


def test_arrays_as_text():
    assert text(np.array([[1.0, -0.0], [0.25, 1 / 3]])) == "[1 0; 0.25 0.3333]"
    assert text(np.arange(13.0)) == "0 to 12" and text(np.float64(2)) == "2" and text(np.zeros((0, 2))) == "empty"


def residual_attention():
    """Some 20 boxes: attention from primitives, a residual and a normalisation."""
    rng = np.random.default_rng(0)
    x = Tensor(rng.normal(size=(3, 2)), True, name="x")
    weights = [Tensor(rng.normal(size=(2, 2)), name != "Wk", name=name) for name in ("Wq", "Wk", "Wv")]

    def loss():
        q, k, v = (ops.linear(x, w) for w in weights)
        z = x + ops.softmax(q @ k.T * 0.7) @ v
        centred = z - z.mean(-1, keepdims=True)
        return (ops.relu(centred / (centred * centred).mean(-1, keepdims=True).sqrt()) * centred).sum()
    return loss


def chain(n):
    def loss():
        t = Tensor(2.0, True, name="x")
        for _ in range(n):
            t = t * 1.1
        return t
    return loss


@pytest.mark.parametrize("loss", [lora_layer()[0], residual_attention(), gpt()[1], chain(1), chain(30)],
                         ids=["lora", "attention", "gpt", "one", "chain"])
def test_no_box_overlaps_and_no_edge_runs_through_one(loss):
    figure = draw_graph(loss)
    FigureCanvasAgg(figure)  # to measure the words
    axes = figure.axes[0]
    boxes = [p.get_bbox() for p in axes.patches if isinstance(p, FancyBboxPatch)]
    edges = [p.get_path() for p in axes.patches if isinstance(p, PathPatch)]
    for i, a in enumerate(boxes):
        assert not any(a.overlaps(b) for b in boxes[:i])
        assert axes.viewLim.padded(1e-9).containsx(a.x1) and axes.viewLim.padded(1e-9).containsy(a.y0)
    low, high = (np.array([[f(b.x0, b.x1), f(b.y0, b.y1)] for b in boxes]) for f in (min, max))
    for path in edges:
        points = path.to_polygons(closed_only=False)[0]
        fine = np.concatenate([np.linspace(p, q, 10) for p, q in pairwise(points)])[:, None]
        assert not ((fine > low + 1e-6) & (fine < high - 1e-6)).all(axis=-1).any()
    for words in axes.texts[:3 * len(boxes)]:
        extent = words.get_window_extent().transformed(axes.transData.inverted())
        x, y = extent.x0 + extent.width / 2, (extent.y0 + extent.y1) / 2
        home = next(b for b in boxes if b.x0 < x < b.x1 and b.y0 < y < b.y1)
        assert home.x0 < extent.x0 and extent.x1 < home.x1
    assert axes.viewLim.width <= 18


def test_colours_and_dashes_of_the_lora_layer(tmp_path):
    loss, layer, _ = lora_layer()
    figure = draw_graph(loss, tmp_path / "lora.png", model=layer)
    assert (tmp_path / "lora.png").read_bytes()[:4] == b"\x89PNG"
    axes = figure.axes[0]
    shown = {t.get_text(): to_hex(t.get_color()) for t in axes.texts}
    assert shown["lora_A"] == shown["lora_B"] == shown["grad = [10 15]"] == TRAINABLE
    assert shown["weight"] == shown["y"] == shown["no gradient"] == FROZEN
    dashed = [p for p in axes.patches if isinstance(p, PathPatch) and p.get_linestyle() != "solid"
              and to_hex(p.get_edgecolor()) == FROZEN]
    assert len(dashed) == 2  # weight and y


def test_the_same_drawing_whatever_the_users_settings_are(tmp_path):
    loss, layer, _ = lora_layer()
    draw_graph(loss, tmp_path / "usual.png", layer)
    with matplotlib.rc_context():
        matplotlib.style.use("dark_background")
        matplotlib.rcParams.update({"text.usetex": True, "font.size": 30, "font.family": "monospace"})
        draw_graph(loss, tmp_path / "odd.png", layer)
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "odd.png").read_bytes() == (tmp_path / "usual.png").read_bytes()


@pytest.mark.parametrize("loss", [lora_layer()[0], residual_attention(), gpt()[1]], ids=["lora", "attention", "gpt"])
def test_letters_are_legible_on_a_page(loss):
    width, _ = draw_graph(loss).get_size_inches()
    assert 13 / 72 * 830 / width >= 12  # pixels, on a page 830 wide


def test_generators_inside_record_may_be_closed_in_any_order():
    for order in ((0, 1), (1, 0)):
        two = [waiting_inside(record), waiting_inside(record)]
        for generator in two:
            next(generator)
        for i in order:
            two[i].close()
        ops.exp(1.0)
        assert not tape.get(), "all that is computed would be kept for good"


def test_a_generator_inside_record_may_be_closed_in_another_thread():
    generator = waiting_inside(record)
    next(generator)
    other = threading.Thread(target=generator.close)
    other.start()
    other.join()
    (ended,) = tape.get()  # this thread has it still
    with no_grad(), record() as steps:
        ops.exp(1.0)
    with no_grad():
        ops.exp(1.0)
    assert not ended and [name for name, *_ in steps] == ["exp"] and not open_blocks
    tape.set(())


def test_too_many_boxes_to_read():
    with pytest.raises(ValueError, match=r"66 boxes are more than the 60.*one module at a time"):
        draw_graph(chain(65))


def test_without_docstrings_trace_says_why_it_has_no_formulas():
    code = ("from lora_np import Tensor; from lora_np.trace import trace; x = Tensor(2.0, requires_grad=True, name='x'); "
            "print(trace(lambda: x * x))")
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=False,
                          cwd=Path(__file__).parents[2])
    assert "read from docstrings, which python -OO leaves out" in done.stderr


def test_without_docstrings_the_commands_still_run():
    for module in ("lora_np", "lora_np.byhand"):
        done = subprocess.run([sys.executable, "-OO", "-m", module, "--help"], capture_output=True, text=True, check=False,
                              cwd=Path(__file__).parents[2])
        assert done.returncode == 0 and "usage: " in done.stdout and not done.stderr
