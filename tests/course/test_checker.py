"""The checker can be trusted: no answer stops it, no right answer is refused, and each function stands for itself."""

import collections
import json
import os
import signal
import subprocess
import sys
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lessons import __main__ as command
from lessons.course.checking import compare, describe, diagnosis, judge, problems, runner, tasks, transport, worker
from lessons.course.checking.source import Source
from lessons.course.classroom import feedback, watching
from lora_np import Tensor
from tests.helpers import whole_class

from .desk import EXERCISES, TASKS, solved, verdict_of, verdict_on, verdict_on_text, with_function

NAMES = [t.name for _, t in TASKS]


class Answer:
    """An object of the student's own, which does not like to be looked at."""

    @property
    def shape(self):
        raise ValueError

    def __len__(self):
        raise ValueError

    def __eq__(self, other):
        raise ValueError

    __hash__ = None


class Foreign:
    """A tensor of another library."""

    shape = (4, 5)


Foreign.__module__, Foreign.__name__ = "torch", "Tensor"
endless = []
endless.append(endless)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", PendingDeprecationWarning)  # NumPy advises against it, and students have it all the same
    MATRIX = np.matrix([[1.0]])
ODD = {  # what: (a value, what the message calls it)
    "method": ([].append, "a function"), "builtin": (len, "a function"), "lambda": (lambda: 0, "a function"),
    "class": (int, "a class"), "generator": ((i for i in [1, 2]), "a generator"), "map": (map(abs, []), "a map object"),
    "set": ({1, 2}, "a set of 2"), "range": (range(3), "a range of 3"), "complex": (1 + 2j, "the complex number"),
    "complex array": (np.zeros((4, 5), complex), "an array of dtype complex128 and shape (4, 5)"),
    "object array": (np.array([None, 1]), "an array of dtype object"), "text array": (np.array(["a"]), "of dtype <U1"),
    "matrix": (MATRIX, "an np.matrix of shape (1, 1)"), "masked": (np.ma.array([1]), "an np.MaskedArray"),
    "foreign": (Foreign(), "a torch.Tensor of shape (4, 5)"), "own": (Answer(), "a value of type Answer"),
    "bytes": (b"ab", "a bytes of 2"), "module": (np, "a module"), "ellipsis": (..., "an ellipsis"),
    "endless list": (endless, "nested more than 30 deep"),
    "large int": (1 << 90, "a very large int"), "text": ("a text", "'a text'"), "surrogate": ("\ud800", "ud800"),
    "Tensor": (Tensor([[1.0, 2.0]]), "a Tensor of shape (1, 2)"), "empty": (np.zeros((0, 3)), "shape (0, 3)"),
    "ragged": ([[1.0], [1.0, 2.0]], ""), "dict": ({"a": np.ones(3), (1, 2): {1}}, ""),
    "none in a list": ([None], ""), "nan": (float("nan"), "nan"), "bool": (True, "True"),
}


def facts(task, answer):
    """What the checker says of a function that always gives this answer, at its first check."""
    for i, seed in task.cells[:3]:
        check = task.checks[i]
        first, second = check.arguments(seed), check.arguments(seed)
        record = worker.call(lambda *a: answer, check, first, second, worker.Screen(), "")
        outcome = judge.outcome(json.loads(json.dumps(record)))
        diagnosis.fits(task, task.misconceptions[0], {(i, seed): outcome})
        yield problems.find(task, i, seed, outcome, runner.Run("ran"), None).fact


@pytest.mark.parametrize("task", [t for _, t in TASKS], ids=NAMES)
def test_an_answer_of_any_type_gets_a_sentence(task):
    ignored = task.name in ("sgd_step", "freeze", "train")  # what these return is not all that is looked at
    for value, words in ODD.values():
        for fact in facts(task, value):
            assert fact and "ambiguous" not in fact and transport.printable(fact).encode()
            assert words in fact or ignored or not words.startswith(("a ", "an ")) or type(value) in (list, dict), fact
        if isinstance(task.returns, tuple) and not ignored:
            for fact in facts(task, (value,) * len(task.returns)):
                assert fact and "ambiguous" not in fact


def test_an_answer_is_bounded():
    for value in ([0.0] * 500_000, {i: [0] * 100 for i in range(2000)}, np.zeros(1 << 18), "x" * (1 << 21)):
        encoded = transport.encode(value)
        assert (len(json.dumps(encoded)) < 100 and "1 MB" in encoded["other"]) or "characters" in encoded["other"]


def test_comparing_is_total():
    """Whatever two answers are, comparing them gives an answer."""
    values = [transport.decode(transport.encode(value)) for value, _ in ODD.values()]
    values += [1, 2.5, None, "x", [], {}, (), np.ones((2, 2)), [np.ones(2)], {"a": 1}, ["a"], np.float32(1), [[1], [2]]]
    for a in values:
        assert describe.show(a) and describe.written(a)
        for b in values:
            if not isinstance(b, transport.Other):
                compare.difference(a, b)
                compare.difference(a, b, exact=True)
            assert compare.same(a, b) in (True, False)
        if not isinstance(a, transport.Other) and not isinstance(a, float):
            assert compare.same(a, a)


class Mine(ValueError):
    pass


class MineToo(RuntimeError):
    pass


Pair, Three = collections.namedtuple("Pair", "first second"), collections.namedtuple("Three", "a b c")
RIGHT = {  # {function: ways to give the same answer in another type}
    "backward": [collections.OrderedDict, lambda d: collections.defaultdict(float, d), collections.ChainMap,
                 lambda d: {k: np.float64(v) for k, v in d.items()}],
    "one_neuron": [list, lambda v: Three(*v), np.array, lambda v: tuple(np.float32(x) for x in v)],
    "matmul_backward": [list, lambda v: Pair(*v), lambda v: tuple(x.astype(np.float32) for x in v)],
    "low_rank": [list, lambda v: Pair(*v)],
    "lora_backward": [list, lambda v: Three(*v), lambda v: tuple(x.astype(np.float32) for x in v)],
    "lora_forward": [np.asfortranarray, lambda v: v.astype(np.float32)],
    "softmax": [lambda v: v.astype(np.float32)], "attention_weights": [lambda v: v.astype(np.float32)],
    "lora_count": [np.int64, np.int32, float, Fraction, np.array], "break_even": [np.int64, float],
    "effective_rank": [np.int64, float], "floor": [np.float64, np.float32, np.array], "relative_error": [np.float64],
    "who_trains": [collections.OrderedDict, lambda d: {k: np.bool_(v) for k, v in d.items()}],
    "adapted": [tuple, lambda v: [np.str_(x) for x in v]], "costs": [list, lambda v: Pair(*v), np.array],
    "load": [collections.OrderedDict], "scaling": [np.float64, Fraction],
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_of_other_types_are_right(name):
    exercise, task = next((e, t) for e, t in TASKS if t.name == name)
    for change in RIGHT[name]:
        if change is np.array and isinstance(task.returns, tuple):
            continue  # an array in the place of a tuple is another thing
        verdict = verdict_on(exercise, **{name: lambda *a, change=change: change(task.reference(*a))})
        assert verdict.status == "pass", (change, verdict.message)


@pytest.mark.parametrize(("name", "error"), [("adapted", Mine), ("load", Mine), ("forward", MineToo)])
def test_a_subclass_of_the_expected_error_is_right(name, error):
    exercise, task = next((e, t) for e, t in TASKS if t.name == name)

    def raises(kind):
        def function(*arguments):
            try:
                return task.reference(*arguments)
            except (ValueError, RuntimeError) as found:
                raise kind(str(found)) from None
        return function

    assert verdict_on(exercise, **{name: raises(error)}).status == "pass"
    for wrong in (KeyError, RecursionError):
        assert verdict_on(exercise, **{name: raises(wrong)}).status == "fail"


@solved
def test_single_precision_is_judged_as_such():
    text = ("import numpy as np\ndef lora_backward(x, W0, A, B, alpha, g):\n"
            "    x, W0, A, B, g = (v.astype(np.float32) for v in (x, W0, A, B, g))\n    s = alpha / len(A)\n"
            "    return s * (g @ B).T @ x, s * g.T @ (x @ A.T), g @ W0 + s * g @ B @ A")
    assert verdict_on_text("09", with_function("09", text)).status == "pass"
    assert verdict_on_text("09", with_function("09", text.replace("g @ W0 +", "1.001 * g @ W0 +"))).status == "fail"


@pytest.mark.parametrize(("exercise", "task"), TASKS, ids=NAMES)
def test_the_example_of_the_docstring_is_checked(exercise, task):
    examples = [(i, seed) for i, seed in task.cells if seed == tasks.EXAMPLE]
    assert examples, "no check has the example of this function"
    shown = {transport.printable(str(transport.encode(list(task.checks[i].arguments(seed))))) for i, seed in examples}

    def wrong(*arguments):
        if str(transport.encode(list(arguments))) in shown:
            return "nothing like it"
        return task.reference(*arguments)

    verdict = verdict_on(exercise, **{task.name: wrong})
    assert verdict.status == "fail" and verdict.first.check == "the example in its docstring", verdict.message


@solved
def test_the_page_shows_the_example_beside_what_fails_first():
    verdict = verdict_on_text("09", with_function("09", "def lora_forward(x, W0, A, B, alpha):\n    return x @ W0.T"))
    page = " ".join(feedback.page(EXERCISES["09"], verdict, "x.py").split())
    assert "The example in its docstring, with x = [[2, 3]], W0 = [[-2, -1], [1, -1]]" in page
    assert "it gives [[-7, -1]], expected [[5, 2]]" in page
    assert "the update h - x W0^T is zero in every entry" in page


LOOP = "def break_even(d, k):\n    while d:\n        k += 1\n"


@solved
@whole_class
def test_a_loop_in_one_function_costs_only_that_function(tmp_path):
    verdict = verdict_of(tmp_path, "08", with_function("08", LOOP), timeout=1)
    assert (verdict.status, verdict.passed) == ("timeout", 8)
    assert [t.state for t in verdict.tasks] == ["done", "wrong", "done"] and verdict.first.name == "break_even"
    assert "did not end within 1 s; it was at line" in verdict.message
    assert "(while d:)" in verdict.message or "(k += 1)" in verdict.message
    page = feedback.page(EXERCISES["08"], verdict, "x.py")
    assert "lora_count    right" in page and "a loop whose condition never becomes false" in page


@solved
@whole_class
def test_what_was_checked_before_a_loop_stands(tmp_path):
    text = "def largest_rank(d, k, saving):\n    while saving == 0.9 and d == 8: pass\n    return right(d, k, saving)"
    verdict = verdict_of(tmp_path, "08", with_function("08", "right = largest_rank\n" + text), timeout=1)
    assert (verdict.status, verdict.passed) == ("timeout", 11) and "no rank reaches" in verdict.message


@solved
@whole_class
def test_every_function_may_hang_and_crash_by_itself(tmp_path):
    text = LOOP + "import os\ndef lora_count(d, k, r):\n    os._exit(3)\ndef largest_rank(d, k, saving):\n    return 1"
    verdict = verdict_of(tmp_path, "08", with_function("08", text), timeout=1)
    assert [t.stop for t in verdict.tasks] == ["crash", "timeout", ""] and verdict.status == "crash"
    assert "the rank is 1" in verdict.tasks[2].fact and "ends Python itself" in verdict.message


@solved
@whole_class
def test_slow_but_right_is_no_loop(tmp_path, monkeypatch):
    text = ("import time\nright = lora_count\ndef lora_count(d, k, r):\n    time.sleep(0.3)\n"
            "    return right(d, k, r)")
    verdict = verdict_of(tmp_path, "08", with_function("08", text), timeout=1)
    assert verdict.status == "pass"  # 7 calls, 2.1 s in all
    monkeypatch.setattr(runner, "PATIENCE", 1)  # times the limit of a call, for all calls together
    verdict = verdict_of(tmp_path, "08", with_function("08", text), timeout=1)
    assert verdict.status == "timeout" and "is slow" in verdict.message and "right" in verdict.message


FORGOTTEN = '''def lora_count(d, k, r):
    """How many."""
    raise NotImplementedError
    return r * (d + k)
'''


@solved
@pytest.mark.parametrize(("number", "text", "words"), [
    ("08", FORGOTTEN, "raise NotImplementedError still stands in line"),
    ("08", FORGOTTEN, ", before your code in line"),
    ("08", "def lora_count(d, k, r):\n    n = d + k\n    raise NotImplementedError", ", after your code in line"),
    ("05", "def softmax(S):\n    raise NotImplementedError", "It calls softmax, which is not written yet."),
    ("08", "del lora_count\ndef lora_counts(d, k, r):\n    return 1", "is lora_counts meant?"),
    ("08", "del lora_count", "there are break_even, largest_rank"),
    ("08", "lora_count = 7", "lora_count is there, and is no function"),
    ("08", "del lora_count\ndef other():\n    def lora_count(d, k, r):\n        return 1",
     "it stands inside other (line"),
    ("02", "def unbroadcast(G, shape):\n    if G.ndim > 5:\n        return G", "it returns None; is a return missing?"),
    ("02", "def unbroadcast(G, shape):\n    return [].append(G)", "it returns None in line"),
    ("02", "def unbroadcast(G, shape):\n    return", "it returns None in line"),
    ("10", "def adapted(paths, targets):\n    right = [p for p in paths if p.split('.')[-1] in targets]\n"
     "    return right[:-1] + right[:1]", "wrong entries; too many"),
    ("09", "def lora_init(d, k, r, rng):\n    return rng.uniform(0, k ** -0.5, (r, k)), np.zeros((d, r))",
     "the mean of A is 0.06"),
    ("09", "def lora_init(d, k, r, rng):\n    return rng.uniform(0, k ** -0.5, (r, k)), np.zeros((d, r))",
     "expected near 0"),
    ("09", "def lora_init(d, k, r, rng):\n    b = k ** -0.5\n"
     "    return np.random.uniform(-b, b, (r, k)), np.zeros((d, r))", "draw from the rng that is given"),
    ("01", "def backward(steps, gradients={}):\n    gradients[steps[-1][0]] = 1.0\n"
     "    for result, operand, slope in reversed(steps):\n"
     "        gradients[operand] = gradients.get(operand, 0.0) + gradients[result] * slope\n    return dict(gradients)",
     "all calls share the default gradients={}"),
])
def test_words(number, text, words):
    verdict = verdict_on_text(number, with_function(number, text))
    page = " ".join(feedback.page(EXERCISES[number], verdict, "x.py").split())
    assert verdict.status == "fail" and words in page, page
    assert "has 6 entries, expected 6" not in page


@solved
def test_a_mutable_default_is_a_diagnosis():
    text = ("def train(parameters, loss, lr, steps, losses=[]):\n    for _ in range(steps):\n        value = loss()\n"
            "        for p in parameters:\n            p.grad = None\n        value.backward()\n"
            "        sgd_step(parameters, lr)\n        losses.append(value.item())\n    return losses")
    verdict = verdict_on_text("04", with_function("04", text))
    assert verdict.diagnosis == "mutable-default" and "losses=[]" in verdict.message


@solved
def test_each_independent_wrong_function_is_explained_and_no_dependent_one():
    text = ("def softmax(S):\n    return S\ndef causal_mask(T):\n    return np.zeros((T, T))\n"
            "def attention_weights(q, k):\n    return softmax(q @ k.T / np.sqrt(q.shape[1]) + causal_mask(len(q)))")
    verdict = verdict_on_text("05", with_function("05", text))
    page = feedback.page(EXERCISES["05"], verdict, "x.py")
    assert page.count("inputs: ") == 2 and "It calls causal_mask and softmax: mend that first." in page
    assert verdict.first.name == "softmax"


@pytest.mark.parametrize(("number", "text", "diagnosis"), [
    ("06", "def frozen_backward(W0, g):\n    return g @ W0 - g @ W0", ""),  # zeros that nobody wrote
    ("06", "def frozen_backward(W0, g):\n    return np.zeros((len(g), W0.shape[1]))", "frozen-blocks-the-gradient"),
    ("03", "def best_step(f, slope, x, steps):\n"
     "    return min(steps, key=lambda h: abs(f(x + h) - f(x - h) - slope))", ""),
    ("03", "def best_step(f, slope, x, steps):\n    return max(steps)", "largest-step-is-best"),
    ("03", "def best_step(f, slope, x, steps):\n    return sorted(steps)[0]", "smallest-step-is-best"),
    ("06", "def freeze(parameters, trained):\n    return sum(parameters[name].size for name in trained)", ""),
    ("10", "def who_trains(names):\n    return {n: True for n in names}", ""),
    ("10", "def who_trains(names):\n    return {n: bool(n.split('.')[-1] == 'lora_A' or 'lora_B') for n in names}",
     "or-between-two-texts"),
    ("12", "right = set_merged\ndef set_merged(layer, merged):\n    new = right(layer, merged)\n"
     "    layer['W'][:] = new['W']\n    return new", ""),
    ("08", "def lora_count(d, k, r):\n    return d + k * r", "only-k-times-r"),
    ("08", "def break_even(d, k):\n    return d // 2", "half-of-d"),
    ("09", "def lora_forward(x, W0, A, B, alpha):\n    return x @ W0.T + alpha // len(A) * x @ A.T @ B.T",
     "alpha-floor-divided"),
    ("09", "def lora_forward(x, W0, A, B, alpha):\n    return x @ W0.T + alpha / len(B) * x @ A.T @ B.T",
     "divided-by-d"),
    ("10", "right = load\ndef load(model, adapter):\n    right(model, adapter)\n"
     "    return {**adapter['parameters'], **model['parameters']}", "values-of-the-model-win"),
    ("12", "def set_merged(layer, merged):\n    update = layer['alpha'] / len(layer['A']) * layer['B'] @ layer['A']\n"
     "    if layer['W0'] is None:\n        return {**layer, 'W': layer['W'] + update, 'W0': layer['W']}\n"
     "    return {**layer, 'W': layer['W0'], 'W0': None}", "toggled"),
    ("03", "def central_difference(f, x, h):\n    out, step = np.zeros(x.shape), np.zeros(x.shape)\n"
     "    for at in np.ndindex(x.shape):\n        step[at] = h\n"
     "        out[at] = (f(x + step) - f(x - step)) / (2 * h)\n    return out", "moves-pile-up"),
    ("05", "def softmax(S):\n    E = np.exp(S - S.max(axis=-1, keepdims=True))\n    return E / E.sum(axis=-1)",
     "sum-without-keepdims"),
    ("06", "def freeze(parameters, trained):\n    for name in trained:\n        parameters[name].requires_grad = True\n"
     "    return sum(parameters[name].size for name in trained)", "never-frozen"),
])
@solved
def test_a_name_is_given_with_its_own_trace_and_not_without(number, text, diagnosis):
    verdict = verdict_on_text(number, with_function(number, text))
    assert verdict.status == "fail" and verdict.diagnosis == diagnosis, verdict.message


def test_a_diagnosis_speaks_of_nothing_that_is_not_in_its_task():
    for exercise, task in TASKS:
        stub = tasks.stubs()[exercise.name]
        page = (exercise.folder / "README.md").read_text(encoding="utf-8")
        for known in task.misconceptions:
            for word in ("embedding", "tied", "buffer", "optimizer"):
                text = f"{known.title} {known.sentence} {known.experiment} {[c.name for c in task.checks]}"
                assert word not in text.lower() or word in stub + known.source + page.split("## ")[0], (known.id, word)


@solved
def test_check_imports_one_exercise_and_no_matplotlib():
    code = ("import sys\nfrom lessons import __main__ as command\ncommand.main(['check', '09'])\nprint(*sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tasks.LESSONS.parent)
    modules = done.stdout.splitlines()[-1].split()
    assert [m for m in modules if m.startswith("lessons.") and m.endswith(".checks")] == [
        f"lessons.{EXERCISES['09'].folder.name}.checks"] and "matplotlib" not in modules, done.stderr


@solved
@whole_class
def test_hint_works_on_the_function_that_hangs_and_on_a_chosen_one(desk, capsys):
    (desk / "ex08_parameter_counts.py").write_text(with_function("08", LOOP), encoding="utf-8")
    assert command.main(["hint", "08", "--timeout", "1"]) == 0 and "break_even, hint 1 of 4" in capsys.readouterr().out
    assert command.main(["hint", "09", "lora_backward"]) == 0 and "lora_backward, hint 1" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["hint", "09", "lora_count"])
    assert "there are lora_init, lora_forward, lora_backward" in capsys.readouterr().err


@solved
def test_one_odd_file_leaves_check_hint_and_next_working(desk, capsys, monkeypatch):
    monkeypatch.setattr(tasks, "names", lambda: {n: EXERCISES[n].name for n in ("01", "02")})
    (desk / "ex01_chain_rule.py").write_text("def one_neuron(*a):\n    return [].append\n", encoding="utf-8")
    for words in (["check"], ["hint", "01"], ["next"], ["check", "01"]):
        assert command.main(words) in (0, 1)
    assert "one_neuron" in capsys.readouterr().out


@solved
@whole_class
def test_watch_checks_again_when_a_file_is_saved_and_goes_on(desk, capsys):
    shown, exercises = [], [EXERCISES["08"], EXERCISES["09"]]
    edits = [("08", "def f(:"), ("08", with_function("08", "")), ("09", with_function("09", ""))]

    def pause(seconds):
        assert seconds >= 0.1  # it sleeps between two looks
        shown.append(capsys.readouterr().out)
        number, text = edits.pop(0)
        EXERCISES[number].file.write_text(text, encoding="utf-8")

    watching.watch(exercises, lambda e: judge.verdict(e, e.file, 20, e.file.name), lambda e: e.file.name, pause)
    shown.append(capsys.readouterr().out)
    assert ["08 counting parameters: not started" in shown[0], "syntax error" in shown[1],
            "08 counting parameters: done, 12 of 12" in shown[2] and "09 the LoRA layer: not started" in shown[2],
            "09 the LoRA layer: done" in shown[3] and "All exercises are done." in shown[3]] == [True] * 4


@whole_class
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c_ends_watch_with_130():
    with subprocess.Popen([sys.executable, "-u", "-m", "lessons", "watch", "08"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, cwd=tasks.LESSONS.parent) as process:
        if not any("Ctrl-C ends it" in line for line in iter(process.stdout.readline, "")):
            pytest.skip("the exercise is done in this copy")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130 and process.stderr.read().strip() == "stopped"


def test_a_file_saved_otherwise_is_told_of(tmp_path):
    for data, words in [("x = 1".encode("utf-16"), "saved as UTF-16"), (b"\xef\xbb\xbfx = 1", "no function"),
                        ("x = '\xe4'".encode("latin-1"), "can't decode"), (b"x = '\0'", "null byte"),
                        (b"#" * (2 << 20), "MB large")]:
        file = Path(tmp_path) / "x.py"
        file.write_bytes(data)
        verdict = judge.verdict(EXERCISES["08"], file, 20, "x.py")
        assert words in verdict.message, verdict.message


def test_source():
    text = "def f(a, b=[], *, c=None):\n    '''d'''\n    return g(a)\n\ndef g(x):\n    return x  # y\n\ndef h(): ...\n"
    source = Source(text)
    assert source.calls("f") == {"g"} and source.mutable_default("f") == "b=[]" and not source.mutable_default("g")
    assert source.code("f") == "def f(a, b=[], *, c=None):\n    return g(a)\ndef g(x):\n    return x"
    assert source.is_stub("h") and not source.is_stub("f") and Source("def (").functions == {}
    assert Source("x = " + "-" * 100_000 + "1").plain() == ""
