"""gradcheck must reject each of the errors planted here, and accept the real operations."""

import numpy as np
import pytest

from lora_np import GPT, GPTConfig, LoraConfig, Tensor, ops
from lora_np.gradcheck import gradcheck, gradcheck_model
from lora_np.lora import add_lora
from lora_np.support.slopes import upstream_gradients
from lora_np.tensor import as_tensor, node
from lora_np.train import next_token_loss
from tests.byhand.gradient_cases import CASES, ours, softmax
from tests.engine import test_properties

rng = np.random.default_rng(0)


def unary(value, vjp):
    """An operation of one operand: value(x) and vjp(g, x), on arrays."""
    def f(x):
        data = as_tensor(x).data
        return node("planted", value(data), (x, lambda g: vjp(g, data)))
    return f


def one_wrong(g, x):
    d = 2 * x * g
    d[77, 3] *= 1.001
    return d


square = rng.normal(size=(4, 4))
planted = {
    "a softmax backward of zeros": (unary(softmax, lambda g, x: np.zeros_like(x)), rng.normal(size=(2, 5))),
    "a vjp that ignores g": (unary(np.exp, lambda g, x: np.exp(x)), rng.normal(size=3)),
    "a vjp that ignores a scalar g": (unary(np.sum, lambda g, x: np.ones_like(x)), rng.normal(size=3)),
    "zero for 1e-7 x^2": (unary(lambda x: 1e-7 * x ** 2, lambda g, x: np.zeros_like(x)), np.array([0.2, -0.1])),
    "a transposed gradient": (unary(lambda x: x @ x.T @ square, lambda g, x: (
        g @ square.T @ x + (g @ square.T).T @ x).T), rng.normal(size=(4, 4))),
    "a wrong sign": (unary(np.sin, lambda g, x: -g * np.cos(x)), rng.normal(size=3)),
    "one element of 10,000": (unary(lambda x: x * x, one_wrong), rng.normal(size=(100, 100))),
    "nan": (unary(lambda x: x * x, lambda g, x: g * np.nan), rng.normal(size=3)),
    "no gradient at all": (lambda x: Tensor(x.data ** 2), rng.normal(size=3)),
    "doubled for every other number of an array": (unary(np.sin, lambda g, x: (
        1 + (g.strides[-1] > g.itemsize)) * g * np.cos(x)), rng.normal(size=3)),
}


@pytest.mark.parametrize("name", planted)
def test_planted_error_is_rejected(name):
    f, x = planted[name]
    report = gradcheck(f, x, quiet=True)
    assert not report and report.rows[0].verdict == "wrong"


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name}")
def test_wrong_gradients_are_found_and_right_ones_are_not_blamed(case):
    assert (ours(case) == "ok") == case.right


def test_the_cases_are_many_and_of_many_kinds():
    wrong, right = ([case for case in CASES if case.right is truth] for truth in (False, True))
    assert len(wrong) >= 60 and len({case.kind for case in wrong}) >= 10
    assert len(right) >= 40 and len({case.kind for case in right}) >= 5
    assert len({(case.right, case.kind, case.name) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("seed", range(0, 2000, 50))
def test_random_programs_are_not_blamed(seed):
    program = test_properties.make(seed)
    trainable = [i for i, (_, kind) in program.leaves.items() if kind == "trainable"]

    def f(*leaves):
        values = {i: a for i, (a, _) in program.leaves.items()} | dict(zip(trainable, leaves, strict=True))
        for step in program.steps:
            values[step.result] = step.call(ops, values)
        return ops.concatenate([as_tensor(values[i]).reshape(-1) for i in test_properties.sinks(program)])

    report = gradcheck(f, *(program.leaves[i][0] for i in trainable), quiet=True)
    assert "wrong" not in {row.verdict for row in report.rows}, f"{program}\n{report}"


def test_the_right_versions_of_the_planted_pass():
    assert gradcheck(unary(lambda x: 1e-7 * x ** 2, lambda g, x: 2e-7 * x * g), np.array([0.2, -0.1]), quiet=True)
    assert gradcheck(unary(lambda x: x * x, lambda g, x: 2 * x * g), rng.normal(size=(100, 100)), quiet=True)
    assert gradcheck(unary(lambda x: x @ square, lambda g, x: g @ square.T), rng.normal(size=(4, 4)), quiet=True)


def test_a_notebook_shows_a_report_in_one_line():
    report = gradcheck(lambda x, y: x * 2 + y * 0, [1.0, 2.0], [3.0, 4.0], quiet=True)
    assert repr(report) == "<Report: 1 ok, 1 vacuous; 4 elements checked>"


def test_worst_index_and_both_values_are_named(capsys):
    f, x = planted["one element of 10,000"]
    report = gradcheck(f, x)
    row = report.rows[0]
    assert row.index == (77, 3) and row.checked == 10_000
    assert row.analytic / row.numeric == pytest.approx(1.001, rel=1e-6)
    printed = capsys.readouterr().out
    assert "[77, 3]" in printed and "wrong" in printed and f"{row.analytic:.8g}" in printed


@pytest.mark.parametrize("name, note", [
    ("a transposed gradient", "transposed"), ("a wrong sign", "sign"), ("a softmax backward of zeros", "zero")])
def test_what_a_wrong_gradient_looks_like(name, note):
    f, x = planted[name]
    assert note in gradcheck(f, x, quiet=True).rows[0].note


@pytest.mark.parametrize("factor", [1.001, 1.0004, 1.00005, 0.9996, 2])
def test_a_factor_is_named_but_never_1(factor):
    note = gradcheck(unary(np.sin, lambda g, x: factor * g * np.cos(x)), rng.normal(size=5), quiet=True).rows[0].note
    assert note == ("" if 1 < factor < 1.0005 else f"{factor} times what it should be")


def test_what_gradients_it_checks_under():
    y = np.concatenate([rng.normal(size=11), [1e-9, 0, -np.inf]]).reshape(2, 7)
    G = upstream_gradients(np.random.default_rng(0), y)
    assert np.all((np.abs(G[0]) >= 1.5) & (np.abs(G[0]) <= 2.5)) and len(set(G[0])) == y.size
    assert np.all(G.max(0) > 0) and np.all(G.min(0) < 0), "every result meets both signs"
    assert np.any((G[:, 11] != 0) & np.all(G[:, :11] == 0, axis=1)), "a small result is seen by itself"
    assert np.abs(G).max() >= 1000 and np.abs(G[G != 0]).min() <= 0.001
    for alone in (np.array(3.0), np.zeros((1, 1)), np.zeros((0, 2))):
        assert upstream_gradients(np.random.default_rng(0), alone).shape == (7 if alone.size else 6, alone.size)


def test_nan_and_inf_are_placed():
    def one(value, at):
        return unary(np.sin, lambda g, x: np.where(np.arange(x.size).reshape(x.shape) == at, value, g * np.cos(x)))

    x = rng.normal(size=(3, 4))
    row = gradcheck(one(np.nan, 7), x, quiet=True).rows[0]
    assert (row.verdict, row.index, row.note) == ("wrong", (1, 3), "analytic is nan in 1 of 12 elements")
    row = gradcheck(one(-np.inf, 0), x, quiet=True).rows[0]
    assert (row.verdict, row.index, row.note) == ("wrong", (0, 0), "analytic is -inf in 1 of 12 elements")
    holed = unary(lambda x: np.where(x == x[2, 1], np.nan, x), lambda g, x: g * 1.0)
    assert gradcheck(holed, x, quiet=True).rows[0].note == "the result is nan at [2, 1]"
    with pytest.raises(ValueError, match=r"gradcheck: w is nan at \[1\]"):
        gradcheck(lambda x, w: x * w, np.ones(2), np.array([1, np.nan]))
    with np.errstate(divide="ignore"):
        edge = gradcheck(ops.sqrt, np.array([0.0, 4.0]), quiet=True).rows[0]
    assert (edge.verdict, edge.index, edge.note) == ("wrong", (0,), "analytic is inf in 1 of 2 elements")


def test_a_function_that_fails_a_step_away_says_why():
    def f(x):
        if x.data[0] != 0.5:
            raise ValueError("only one half will do")
        return x * 1.0

    assert "only one half will do" in gradcheck(f, np.array([0.5]), quiet=True).rows[0].note


def test_gradients_of_two_calls_are_shown():
    draw = np.random.default_rng(0)
    noisy = unary(np.sin, lambda g, x: g * np.cos(x) * (1 + 1e-8 * draw.normal()))
    row = gradcheck(noisy, np.ones(3), quiet=True).rows[0]
    assert row.verdict == "wrong" and row.note == "the same call gave both of these" and 0 < row.error < 1e-6


def test_between_the_slopes_of_a_kink_every_gradient_is_right():
    x = np.array([0.0, 1.0, -1.0])
    for slope in (0, 0.3, 1):
        assert gradcheck(unary(lambda x: np.maximum(x, 0), lambda g, x, s=slope: g * np.where(x == 0, s, x > 0)), x,
                         quiet=True)
    only_kinks = gradcheck(ops.relu, np.zeros(2), quiet=True)
    assert not only_kinks and only_kinks.rows[0].note == "a kink or rounding hides the slope"


def test_large_numbers_drown_no_verdict():
    assert gradcheck(lambda x: (x * x + 1e8).sum(), np.array([3.0]), quiet=True)
    drowned = gradcheck(lambda x: x + 1e22, np.array([3.0]), quiet=True)
    assert drowned.rows[0].verdict == "vacuous" and "rounding hides" in drowned.rows[0].note


def test_a_sample_leaves_no_element_unseen():
    model = lora_model()
    for t in model.trainable_parameters():
        t.data = rng.normal(size=t.shape)
    name, t = next((n, t) for n, t in model.named_parameters() if n.endswith("v_proj.lora_A"))
    at = np.arange(t.size).reshape(t.shape)

    def planted(where):
        def f(model):
            once_more = node("planted", t.data + 0, (t, lambda g: np.where(at == where, 1.5 * g, g)))
            return loss(model) + (once_more * at).sum() * 1e-2
        return f

    for where in range(1, t.size, 3):  # at 0 nothing was planted
        row = next(row for row in gradcheck_model(model, planted(where), sample=1, quiet=True).rows if row.name == name)
        assert row.verdict == "wrong" and row.index == np.unravel_index(where, t.shape)


def test_both_zero_is_vacuous_and_not_ok():
    x, A, B = rng.normal(size=(2, 3)), rng.normal(size=(1, 3)), np.zeros((4, 1))
    report = gradcheck(lambda x, A, B: ops.linear(ops.linear(x, A), B), x, A, B, quiet=True)
    assert [row.verdict for row in report.rows] == ["vacuous", "vacuous", "ok"] and not report
    assert not gradcheck(lambda x: x * 1.0, np.zeros((0, 3)), quiet=True)
    # Adding the same to every logit changes no probability: zero, up to rounding on both sides.
    shifted = gradcheck(lambda b: ops.softmax(Tensor([[1.0, 2.0, 4.0]]) + b), np.array([[3.0]]), quiet=True)
    assert shifted.rows[0].verdict == "vacuous"


def test_real_operations_pass():
    q, k, v = (rng.normal(size=(2, 4, 3)) for _ in range(3))
    assert gradcheck(ops.causal_attention, q, k, v, quiet=True)
    assert gradcheck(lambda x, weight, bias: ops.layer_norm(x, weight, bias), q, v[0, 0], k[0, 0], quiet=True)
    assert gradcheck(lambda a: ops.cross_entropy(a, [0, 2]), rng.normal(size=(2, 3)), quiet=True)
    assert gradcheck(lambda a: a * 3.0, np.float64(2.0), quiet=True)


def test_inputs_that_cannot_be_checked():
    with pytest.raises(TypeError, match=r"float32.*float64"):
        gradcheck(ops.exp, np.ones(3, np.float32))
    with pytest.raises(TypeError, match=r"int64.*float64"):
        gradcheck(ops.exp, np.arange(3))
    with pytest.raises(TypeError, match="the result is float32"):
        gradcheck(lambda x: Tensor(x.data.astype(np.float32)), np.ones(3))
    with pytest.raises(TypeError, match="must return a Tensor"):
        gradcheck(lambda x: 1.0, np.ones(3))
    with pytest.raises(ValueError, match="nothing to check"):
        gradcheck(ops.exp)
    noise = np.random.default_rng(0)
    with pytest.raises(ValueError, match="two different results"):
        gradcheck(lambda x: ops.dropout(x, 0.5, noise), np.ones(100))


def lora_model(dtype=np.float64):
    model = GPT(GPTConfig(vocab_size=7, context=5, d_model=8, n_heads=2, n_layers=2, d_ff=12, dtype=dtype))
    add_lora(model, LoraConfig(r=2, lora_alpha=6))
    return model


ids = np.array([[1, 4, 2, 6, 0], [3, 3, 5, 1, 2]])


def loss(model):
    return next_token_loss(model, ids[:, :-1], ids[:, 1:])


def test_a_whole_model_with_lora():
    model = lora_model()
    at_start = gradcheck_model(model, loss, quiet=True)
    verdicts = {row.name: row.verdict for row in at_start.rows}
    assert verdicts["layers.0.self_attn.q_proj.lora_A"] == "vacuous"  # B is zero
    assert verdicts["layers.0.self_attn.q_proj.lora_B"] == "ok"
    assert verdicts["layers.0.self_attn.q_proj.weight"] == "frozen" and not at_start

    for name, t in model.named_parameters():
        if "lora_B" in name:
            t.data = rng.normal(size=t.shape)
    loss(model).backward()
    before = {name: (t.data, t.grad) for name, t in model.named_parameters()}
    report = gradcheck_model(model, loss, sample=None, quiet=True)
    assert report and sum(row.verdict == "ok" for row in report.rows) == 8
    assert "frozen: no gradient" in str(report)
    assert all(t.data is before[name][0] and t.grad is before[name][1] for name, t in model.named_parameters())


def test_full_training_shows_where_attention_is_blind():
    model = GPT(GPTConfig(vocab_size=7, context=5, d_model=8, n_heads=2, n_layers=1, d_ff=12, dtype=np.float64))
    report = gradcheck_model(model, loss, sample=6, quiet=True)
    # A bias on the keys adds the same to every score of a query, which softmax takes out again.
    assert [row.name for row in report.rows if row.verdict != "ok"] == ["layers.0.self_attn.k_proj.bias"]


def test_models_that_cannot_be_checked():
    with pytest.raises(TypeError, match=r"embed_tokens\.weight is float32"):
        gradcheck_model(lora_model(np.float32), loss)
    with pytest.raises(ValueError, match="every parameter is frozen"):
        gradcheck_model(lora_model().freeze(), loss)
