"""The exercises: solutions pass, stubs do not, each misconception is recognised as itself, messages are plain."""

import ast

import numpy as np
import pytest

from lessons import __main__ as command
from lessons.course.checking import diagnosis, judge, tasks
from lessons.course.classroom import feedback
from tests.helpers import whole_class

from .desk import EXERCISES, TASKS, here, solved, verdict_of, verdict_on, verdict_on_text, with_function

BANK = [(e, t, m) for e, t in TASKS for m in t.misconceptions]

# The fifteen mistakes that people make with LoRA, and the misconceptions that know them.
MISTAKES = {
    "A and B transposed": {"factor-shapes-swapped", "A-and-B-not-transposed", "gradients-transposed"},
    "A and B both zero": {"both-factors-zero"},
    "B not zero": {"B-not-zero"},
    "alpha / r forgotten, or alpha alone": {"scale-forgotten", "alpha-not-divided-by-r", "alpha-alone"},
    "r changed, alpha not": {"rank-changed-alpha-kept"},
    "base not frozen": {"norms-left-trainable", "vectors-left-trainable", "adapted-weight-trains-too"},
    "adapter frozen": {"adapter-frozen-too", "everything-frozen"},
    "merged twice": {"merged-twice", "update-added-to-a-merged-weight"},
    "training while merged": {"trained-while-merged"},
    "dropout in use": {"dropout-in-use"},
    "faster before merging": {"unmerged-costs-nothing"},
    "whole model saved": {"whole-model-saved", "merged-weight-saved"},
    "adapter ignored, or on another base": {"adapter-ignored", "loaded-on-another-base"},
    "target matches nothing": {"unmatched-target-ignored", "end-of-the-text-matches"},
    "tied head merged": {"tied-head-merged-in-place"},
}
LESSONS = {  # the misconception that each lesson meets head-on
    "01": "gradient-overwritten", "02": "W-not-transposed", "03": "smallest-step-is-best",
    "04": "gradients-not-cleared", "05": "softmax-down-the-columns", "06": "frozen-blocks-the-gradient",
    "07": "rank-r-as-r-numbers", "08": "rank-of-the-matrix", "09": "both-factors-zero",
    "10": "all-of-attention-trains", "11": "rank-changed-alpha-kept", "12": "unmerged-costs-nothing", "14": "padding-masked-by-id"}

ALTERNATIVES = {  # other right ways
    "01": """
def one_neuron(x, w, b, t):
    gradients = [w, x, 1]
    return [2 * (x * w + b - t) * g for g in gradients]
def reused(a, b):
    return 2 * a * b ** 2 + 1, 2 * a ** 2 * b
def backward(steps):
    from collections import defaultdict
    g = defaultdict(float)
    g[steps[-1][0]] = 1
    for result, operand, slope in steps[::-1]:
        g[operand] += slope * g[result]
    return dict(g)
""",
    "02": """
import numpy as np
def matmul_backward(X, W, G):
    dX, dW = np.zeros(X.shape), np.zeros(W.shape)
    for i in range(X.shape[0]):
        for j in range(W.shape[1]):
            for k in range(W.shape[0]):
                dX[i, k] += G[i, j] * W[k, j]
                dW[k, j] += G[i, j] * X[i, k]
    return dX, dW
def unbroadcast(G, shape):
    axes = tuple(range(G.ndim - len(shape)))
    axes += tuple(i for i in range(-len(shape), 0) if shape[i] == 1)
    return G.sum(axis=axes).reshape(shape)
""",
    "03": """
import numpy as np
def central_difference(f, x, h):
    flat = np.eye(x.size) * h
    return np.array([f(x + e.reshape(x.shape)) - f(x - e.reshape(x.shape)) for e in flat]).reshape(x.shape) / h / 2
def relative_error(a, n):
    return max([abs(p - q) / max(abs(p), abs(q), 1e-300) for p, q in zip(a.flat, n.flat)])
def best_step(f, slope, x, steps):
    return steps[np.argmin([np.abs((f(x + h) - f(x - h)) / 2 / h - slope) for h in steps])]
""",
    "05": """
import numpy as np
def softmax(S):
    return np.exp(S - np.logaddexp.reduce(S, axis=-1, keepdims=True))
def causal_mask(T):
    m = np.zeros((T, T))
    m[np.triu_indices(T, 1)] = float("-inf")
    return m
def attention_weights(q, k):
    P = np.zeros((len(q), len(q)))
    for i in range(len(q)):
        scores = [np.exp(q[i] @ k[j] / len(q[i]) ** 0.5) for j in range(i + 1)]
        P[i, :i + 1] = np.array(scores) / sum(scores)
    return P
""",
    "07": """
import numpy as np
def low_rank(D, r):
    U, s, Vt = np.linalg.svd(D)
    root = np.diag(s[:r] ** 0.5)
    return -U[:, :r] @ root, -root @ Vt[:r]
def effective_rank(D, share):
    s = np.linalg.svd(D)[1] ** 2
    r = 1
    while s[:r].sum() < share * (D ** 2).sum():
        r += 1
    return r
""",
    "08": """
import math
def lora_count(d, k, r):
    return d * r + r * k
def break_even(d, k):
    return math.ceil(d * k / (d + k)) - 1
def largest_rank(d, k, saving):
    return len([r for r in range(1, min(d, k)) if r * (d + k) < (1 - saving) * d * k])
""",
    "09": """
import numpy as np
def lora_init(d, k, r, rng):
    return (2 * rng.random((r, k)) - 1) * k ** -0.5, np.zeros((d, r))
def lora_forward(x, W0, A, B, alpha):
    r, _ = A.shape
    return np.einsum("nk,dk->nd", x, W0 + alpha * np.einsum("dr,rk->dk", B, A) / r)
def lora_backward(x, W0, A, B, alpha, g):
    dW = alpha / B.shape[1] * g.T @ x
    return B.T @ dW, dW @ A.T, g @ (W0 + alpha / B.shape[1] * B @ A)
""",
    "11": """
import numpy as np
def floor(D, r):
    U, s, Vt = np.linalg.svd(D, full_matrices=False)
    return np.sum((D - U[:, :r] * s[:r] @ Vt[:r]) ** 2)
def scaling(alpha, r, use_rslora=False):
    return alpha / np.sqrt(r) if use_rslora else alpha / r
def matching_alpha(alpha, r, new_r, use_rslora=False):
    return alpha * np.sqrt(new_r / r) if use_rslora else alpha * new_r / r
""",
    "14": """
import numpy as np
def completion_targets(prompt, completion, end, length):
    x, y = [end] * length, [-100] * length
    n, m = len(prompt), len(completion)
    x[:n], x[n:n + m] = prompt, completion
    y[n - 1:n - 1 + m], y[n - 1 + m] = completion, end
    return x, y
def unpack_q4_1(scale, shift, codes):
    w = np.empty((len(codes), 2, 16))
    w[:, 0], w[:, 1] = codes % 16, codes // 16
    return (w.reshape(-1, 32).T * scale + shift).T.reshape(-1)
def rms_norm(x, weight, eps, g):
    n, d = x.shape
    s = (np.einsum("nd,nd->n", x, x) / d + eps) ** -0.5
    J = np.einsum("n,ij->nij", s, np.eye(d)) - np.einsum("n,ni,nj->nij", s ** 3 / d, x, x)
    return x * s[:, None] * weight, np.einsum("ni,nij->nj", g * weight, J), np.einsum("ni,ni,n->i", g, x, s)
"""}




@solved
@pytest.mark.parametrize("number", EXERCISES)
def test_solution_passes_and_stub_is_not_started(number):
    exercise = EXERCISES[number]
    verdict = judge.verdict(exercise, exercise.solution, 20, "solution")
    assert (verdict.status, verdict.passed, verdict.message) == ("pass", exercise.total, "")
    stub = verdict_on_text(number, tasks.stubs()[exercise.name])
    assert (stub.status, stub.passed, stub.diagnosis) == ("not_started", 0, "")


@pytest.mark.parametrize("number", ALTERNATIVES)
def test_other_right_ways_pass(number):
    verdict = verdict_on_text(number, ALTERNATIVES[number])
    assert verdict.status == "pass", verdict.message


@pytest.mark.parametrize(("exercise", "task", "known"), BANK, ids=[f"{e.number}-{m.id}" for e, _, m in BANK])
def test_misconception_is_recognised_as_itself_and_as_no_other(exercise, task, known):
    verdict = verdict_on(exercise, **{task.name: known.wrong})
    assert verdict.status == "fail" and verdict.diagnosis == known.id, verdict.message
    outcomes = {cell: diagnosis.predicted(task, known, *cell) for cell in task.cells}
    assert [m for m in task.misconceptions if diagnosis.fits(task, m, outcomes)] == [known]
    page = feedback.page(exercise, verdict, "x.py")
    assert known.sentence.split()[0] in page and "See for yourself" in page and "Traceback" not in page


def test_the_bank_covers_the_course():
    ids = [m.id for *_, m in BANK]
    assert len(ids) == len(set(ids)) >= 60
    assert set().union(*MISTAKES.values()) <= set(ids) and len(MISTAKES) == 15
    for number, known in LESSONS.items():
        assert known in [m.id for t in EXERCISES[number].tasks for m in t.misconceptions]
    assert list(EXERCISES) == [f"{n:02}" for n in (*range(1, 13), 14)]


@pytest.mark.parametrize(("exercise", "task"), TASKS, ids=[t.name for _, t in TASKS])
def test_task_has_three_hints_and_sentences(exercise, task):
    assert len(task.hints) == 3 and "?" in task.hints[0] and "____" in task.hints[2]
    assert 1 <= len(exercise.tasks) <= 3
    for known in task.misconceptions:
        assert known.sentence.endswith((".", ".)", "?")) and known.experiment.endswith(".")


def spoiled(value):
    """A value that nobody meant."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value * 1.37 + 0.123
    if isinstance(value, np.ndarray):
        return np.where(np.isfinite(value), value, -50) * 1.37 + np.arange(value.size).reshape(value.shape) + 0.123
    if isinstance(value, (list, tuple)):
        return type(value)(map(spoiled, value))
    return {k: spoiled(v) for k, v in value.items()} if isinstance(value, dict) else "something" if value else value


@pytest.mark.parametrize(("exercise", "task"), TASKS, ids=[t.name for _, t in TASKS])
def test_unforeseen_wrong_answer_gets_no_diagnosis(exercise, task):
    def wrong(*arguments):
        if task.name in ("sgd_step", "train"):
            for p in arguments[0]:
                p.data = p.data + 0.123
        return spoiled(task.reference(*arguments))

    verdict = verdict_on(exercise, **{task.name: wrong})
    assert verdict.status == "fail" and not verdict.diagnosis and verdict.first.fact


def test_one_input_is_not_evidence():
    def same(n):
        return n

    known = tasks.Misconception("always-zero", lambda n: 0, "", "")
    for inputs, diagnosed in [(lambda rng: (3,), None), (lambda rng: (int(rng.integers(1, 1000)),), known)]:
        task = tasks.Task(same, "n", (tasks.Check("a number", inputs),), (), (known,))
        assert diagnosis.diagnose(task, {cell: diagnosis.Outcome(0) for cell in task.cells}) is diagnosed


def functions_of(text):
    """{name: source} of a file's functions, and "" for its docstring."""
    tree = ast.parse(text)
    found = {node.name: ast.get_source_segment(text, node) for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {"": ast.get_docstring(tree), **found}


@solved
def test_stubs_are_made_from_the_solutions():
    made = {e.name: tasks.stub(e.solution.read_text(encoding="utf-8")) for e in EXERCISES.values()}
    assert tasks.stubs() == made, "run: python -m lessons stubs"
    for text in made.values():
        assert "solution>" not in text and "raise NotImplementedError" in text


@pytest.mark.parametrize("number", EXERCISES)
def test_unsolved_functions_are_the_stubs(number):
    """Whatever a student has solved is not looked at, so that these tests pass in a copy that is being worked on."""
    stub = functions_of(tasks.stubs()[EXERCISES[number].name])
    try:
        own = functions_of(EXERCISES[number].file.read_text(encoding="utf-8"))
    except SyntaxError:
        pytest.skip("being edited")
    for name, text in own.items():
        if name and text.endswith("raise NotImplementedError") and name in stub:
            assert text == stub[name], "run: python -m lessons stubs"


@pytest.mark.parametrize(("text", "words"), [
    ("def lora_count(d, k, r):\n    print(r * (d + k))", "prints its result instead of returning it"),
    ("def lora_count(d, k, r):\n    r * (d + k)", "returns None; is a return missing?"),
    ("def lora_count(d, k, r):\n    return [r * (d + k)]", "the count is a list of 1, expected a number"),
    ("def lora_count(d, k, r):\n    return r * (d + q)", "(return r * (d + q)) raised NameError: name 'q'"),
    ("def lora_count(d, k):\n    return 0", "raised TypeError"),
    ("def lora_count(d, k, r):\n    raise SystemExit", "ends Python instead of returning"),
    ("calls = []\ndef lora_count(d, k, r):\n    calls.append(1)\n    return r * (d + k) + (len(calls) > 1)",
     "called again with the same arguments, it gives another result"),
    ("def lora_count(d, k, r):\n    return int(input())", "raised EOFError"),
    ("def lora_count(d, k, r):\n    return lora_count(d, k, r)", "raised RecursionError"),
    ("del lora_count", "there is no function lora_count in the file"),
    ("lora_count = 7", "there is no function lora_count in the file"),
])
@solved
def test_each_slip_of_python_has_a_message_of_its_own(text, words):
    verdict = verdict_on_text("08", with_function("08", text))
    assert verdict.status == "fail" and words in verdict.message and not verdict.diagnosis
    page = feedback.page(EXERCISES["08"], verdict, "x.py")
    assert "Traceback" not in page and words[:20] in page
    if "raised" in words:
        assert "Traceback" in feedback.page(EXERCISES["08"], verdict, "x.py", verbose=True)


@pytest.mark.parametrize(("text", "words"), [
    ("def lora_forward(x, W0, A, B, alpha):\n    x *= 1\n    x += 1\n    return (x - 1) @ W0.T + "
     "alpha / len(A) * (x - 1) @ A.T @ B.T", "it changes its argument x"),
    ("from lora_np import Tensor\ndef lora_forward(x, W0, A, B, alpha):\n    return Tensor(x)",
     "h is a Tensor of shape (4, 5), expected an array of shape (4, 3)"),
    ("def lora_forward(x, W0, A, B, alpha):\n    return x", "h has shape (4, 5), expected (4, 3)"),
    ("def lora_forward(x, W0, A, B, alpha):\n    return x @ B", "the inner sizes 5 and 3 differ"),
    ("def lora_forward(x, W0, A, B, alpha):\n    return x if B else W0", "or a is not None where a may be None"),
    ("def lora_forward(x, W0, A, B, alpha):\n    return x @ W0.T * np.nan", "h is nan in 12 of 12 entries"),
    ("def lora_forward(x, W0, A, B, alpha):\n    return -x @ W0.T - alpha / len(A) * x @ A.T @ B.T",
     "h has the wrong sign in every entry"),
    ("def lora_forward(x, W0, A, B, alpha):\n    return x @ W0.T + 1.5 * alpha / len(A) * x @ A.T @ B.T",
     "the update h - x W0^T is 1.50x too large in every entry"),
    ("def lora_backward(x, W0, A, B, alpha, g):\n    return x", "expected 3 values: dA, dB, dx"),
])
@solved
def test_facts_about_a_wrong_array(text, words):
    verdict = verdict_on_text("09", with_function("09", text))
    assert verdict.status == "fail" and words in verdict.message, verdict.message


@pytest.mark.parametrize(("number", "text", "words", "known"), [
    ("01", "def one_neuron(x, w, b, t):\n    e = 2 * (x * w + b - t)\n    return e, e * w, e * x",
     "in another order: dL/db, dL/dx, dL/dw, expected", ""),
    ("01", "def backward(steps):\n    g = {'L': 1.0}\n    for result, operand, slope in reversed(steps):\n"
     "        g[operand] = g.get(operand, 0.0) + g[result] * slope\n    return g", "KeyError: 'y'", ""),
    ("03", "def relative_error(a, n):\n    size = np.maximum(np.abs(a), np.abs(n))\n"
     "    return np.nanmax(np.abs(a - n) / size)", "is nan, expected 0", "nan-skipped"),
    ("03", "def best_step(f, slope, x, steps):\n"
     "    return min(steps, key=lambda h: abs((f(x + h) - f(x)) / h - slope))",
     "the step is 1e-09, expected 1e-05", "one-sided-difference-measured"),
    ("04", "def sgd_step(parameters, lr):\n    for p in parameters:\n        p.data -= lr * p.grad",
     "p.data = p.data - …", ""),
    ("04", "def train(parameters, loss, lr, steps):\n    losses = []\n    for _ in range(steps):\n"
     "        for p in parameters:\n            p.grad = None\n        losses.append(loss().item())\n"
     "        sgd_step(parameters, lr)\n    return losses", "losses[1]", "no-gradient-at-the-step"),
    ("06", "def freeze(parameters, trained):\n    for name in parameters:\n"
     "        parameters[name] = type(parameters[name])(parameters[name].data, requires_grad=name in trained)\n"
     "    return sum(parameters[name].size for name in trained)", "expected", "tensors-replaced"),
    ("10", "right = adapted\ndef adapted(paths, targets):\n    try:\n        return right(paths, targets)\n"
     "    except ValueError:\n        raise ValueError('nothing is adapted')", "its text does not name v_proj", ""),
    ("10", "right = load\ndef load(model, adapter):\n    new = right(model, adapter)\n"
     "    model['base'] = ''\n    return new", "make a copy and change that", ""),
])
@solved
def test_wrong_code_that_is_easy_to_pass_or_to_misread(number, text, words, known):
    verdict = verdict_on_text(number, with_function(number, text))
    assert verdict.status == "fail" and words in verdict.message and verdict.diagnosis == known, verdict.message


@solved
@whole_class
def test_files_that_do_not_run(tmp_path):
    for text, status, words in [
            ("def f(:\n", "syntax_error", "line 1, invalid syntax"), ("x = '\0'", "syntax_error", "null byte"),
            ("\n\nimport nothing_like_it", "import_error", "line 3, ModuleNotFoundError"),
            ("import os; os._exit(0)", "crash", "ends Python itself"), ("while True: pass", "timeout", "within 1 s")]:
        verdict = verdict_of(tmp_path, "08", text, timeout=1 if status == "timeout" else 20)
        assert verdict.status == status and words in verdict.message, verdict.message
        assert feedback.exit_status(verdict) == 1 and words in feedback.page(EXERCISES["08"], verdict, "x.py")


@solved
@pytest.mark.parametrize("number", EXERCISES)
def test_breaking_a_passing_file_changes_the_verdict(number):
    last = EXERCISES[number].tasks[-1].name
    broken = verdict_on_text(number, with_function(number, f"{last} = lambda *a: 'no'"))
    assert broken.status == "fail" and broken.first.name == last


@here
def test_hints_are_a_ladder_that_is_remembered(desk, capsys):
    said = []
    for _ in range(5):
        assert command.main(["hint", "9"]) == 0
        said.append(" ".join(capsys.readouterr().out.split()))
    assert [text.split(":")[0] for text in said] == [f"09 lora_init, hint {n} of 4" for n in (1, 2, 3, 4, 4)]
    for text, hint in zip(said, EXERCISES["09"].tasks[0].hints, strict=False):
        assert " ".join(hint.split()) in text
    assert "lessons/09_lora_layer/solution.py, line 1" in said[3] or not EXERCISES["09"].solution.exists()


@here
@solved
def test_hint_is_for_the_function_that_does_not_work(desk, capsys):
    file = desk / "ex09_lora_layer.py"
    file.write_text(with_function("09", "def lora_backward(*a): return 1"), encoding="utf-8")
    assert command.main(["hint", "09"]) == 0 and "lora_backward, hint 1" in capsys.readouterr().out
    file.write_text(with_function("09", ""), encoding="utf-8")
    assert command.main(["hint", "09"]) == 0 and "nothing left" in capsys.readouterr().out


BROKEN = {  # a file: what is wrong with it, and the function in which it stops
    "def f(:": ("cannot be read as Python", "syntax error: line 1", "lora_count"),
    "def lora_count(d, k, r):\n    return 1\n\n\ndef break_even(d, k):\n    return (1\n":
        ("cannot be read as Python", "syntax error: line 6, '(' was never closed", "break_even"),
    "import nothing_of_that_name\n": ("does not run to its end", "error on import: line 1", "lora_count"),
}


@here
@pytest.mark.parametrize("text", BROKEN)
def test_a_file_that_does_not_run_gets_a_hint_and_uses_up_none(desk, capsys, text):
    file, (what, where, function) = desk / "ex08_parameter_counts.py", BROKEN[text]
    file.write_text(text, encoding="utf-8")
    for _ in range(2):
        assert command.main(["hint", "08"]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert what in out and where in out and f"08 {function}, hint 1 of 4: " in out
        assert next(" ".join(t.hints[0].split()) for t in EXERCISES["08"].tasks if t.name == function) in out
    assert not (desk / ".progress").exists()


def test_hint_on_a_file_that_is_not_there_says_how_to_get_it(desk, capsys):
    (desk / "ex08_parameter_counts.py").unlink()
    for words in (["hint", "08"], ["check", "08"]):
        command.main(words)
        assert "python -m lessons reset 08" in capsys.readouterr().out
    assert not (desk / ".progress").exists()
    assert command.main(["reset", "08"]) == 0 and "there was no such file" in capsys.readouterr().out
    assert command.main(["hint", "08"]) == 0 and "hint 1 of 4" in capsys.readouterr().out


def test_reset_keeps_a_copy(desk, capsys):
    file, stub = desk / "ex08_parameter_counts.py", tasks.stubs()["ex08_parameter_counts"]
    for text in ("my work", "more work"):
        file.write_text(text, encoding="utf-8")
        assert command.main(["reset", "08"]) == 0
        assert file.read_text(encoding="utf-8") == stub
    kept = sorted(p.read_text(encoding="utf-8") for p in (desk / ".progress" / "backups").iterdir())
    assert kept == ["more work", "my work"]
    assert command.main(["reset", "08"]) == 0 and "was the stub before" in capsys.readouterr().out


@here
@solved
def test_check_and_next(desk, capsys):
    assert command.main(["check"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line[:17] for line in lines[:len(EXERCISES)]] == [f"{n}  not started  " for n in EXERCISES]
    (desk / "ex01_chain_rule.py").write_text(with_function("01", ""), encoding="utf-8")
    assert command.main(["check", "01"]) == 0 and "done, 7 of 7" in capsys.readouterr().out
    assert command.main(["check", "02"]) == 2 and "will be checked" in capsys.readouterr().out
    (desk / "ex02_matrices.py").write_text(with_function("02", "def unbroadcast(G, shape): return G"), encoding="utf-8")
    assert command.main(["check", "2"]) == 1 and "has shape (4, 3), expected (3,)" in capsys.readouterr().out
    assert command.main(["check", "01", "02"]) == 1
    assert command.main(["next"]) == 0 and "edit" in capsys.readouterr().out.lower()


@here
def test_a_student_s_prints_are_shown(desk, capsys):
    text = "def lora_count(d, k, r):\n    print('d is', d)\n    return 1"
    (desk / "ex08_parameter_counts.py").write_text(text, encoding="utf-8")
    assert command.main(["check", "08"]) == 1
    assert "Your code printed:\n      | d is" in capsys.readouterr().out


def test_wrong_words_name_the_right_ones(capsys):
    for words, expected in [(["check", "77"], "no exercise 77; there are 01, 02"), (["reset", "x"], "no exercise 0x"),
                            (["chekc"], "there are run, list, render"), (["99"], "no lesson 99"),
                            (["check", "--file", "x.py"], "--file goes with one exercise"),
                            (["check", "01", "--timeout", "0"], "above 0"), (["hint"], "required")]:
        with pytest.raises(SystemExit) as end:
            command.main(words)
        assert end.value.code == 2 and expected in capsys.readouterr().err


def test_stubs_are_not_written_over_a_student_s_work(tmp_path, monkeypatch):
    folder = tmp_path / "20_new"
    monkeypatch.setattr(tasks, "LESSONS", tmp_path)
    monkeypatch.setattr(tasks, "STUBS", tmp_path / "stubs.json")
    folder.mkdir()
    (folder / "checks.py").write_text('NAME = "ex20_newer"\n', encoding="utf-8")
    file, solution = folder / "ex20_newer.py", folder / "solution.py"
    text = 'def f():\n    """One."""\n    # <solution>\n    return 1\n    # </solution>\n'
    solution.write_text(text, encoding="utf-8")
    tasks.write_stubs()
    assert file.read_text() == 'def f():\n    """One."""\n    raise NotImplementedError\n'
    solution.write_text(text.replace("One", "Two"), encoding="utf-8")
    tasks.write_stubs()
    assert "Two" in file.read_text()
    file.write_text("my work")
    solution.write_text(text, encoding="utf-8")
    assert "left as it is" in "".join(tasks.write_stubs())
    assert file.read_text() == "my work"
    kept = (tmp_path / "stubs.json").read_text()
    solution.unlink()
    assert "no solutions" in tasks.write_stubs()[0] and (tmp_path / "stubs.json").read_text() == kept
