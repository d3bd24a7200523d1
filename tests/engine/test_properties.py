"""Random programs: every gradient against dual numbers (dual.py) and central differences, in both precisions.

A program is up to 30 operations on a few leaves, some of them frozen and some plain arrays, with broadcasting and
reuse; its loss is a random weighted sum of every result that nothing used. It follows from its seed alone. A program
that fails is cut down to the shortest that still fails, and printed.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from lora_np import Tensor, no_grad, ops
from tests.engine import dual
from tests.helpers import whole_class

PROGRAMS, CHUNKS, MAX_STEPS, MAX_SIZE = 2000, 10, 30, 200  # MAX_SIZE: elements of a result
H = 1e-5


@dataclass(frozen=True)
class Step:
    """result = operation(*operands, **options); operands are the numbers of earlier results."""

    result: int
    name: str
    operands: tuple
    options: dict

    def call(self, module, values):
        """Do it with lora_np.ops or with dual."""
        given, options = [values[i] for i in self.operands], dict(self.options)
        if self.name == "dropout":
            options["rng"] = np.random.default_rng(options.pop("seed"))
        if self.name == "concatenate":
            return module.concatenate(given, **options)
        if self.name == "where":
            return module.where(options["condition"], *given)
        if "args" in options:
            return getattr(module, self.name)(*given, *options["args"])
        return getattr(module, self.name)(*given, **options)


@dataclass(frozen=True)
class Program:
    seed: int
    leaves: dict  # number: (array, "trainable", "frozen" or "array")
    steps: tuple

    def __str__(self):
        lines = [f"seed {self.seed}"]
        lines += [f"  x{i} = {kind} {np.array2string(a, precision=3, threshold=20)}"
                  for i, (a, kind) in self.leaves.items()]
        lines += [f"  x{s.result} = {s.name}({', '.join(f'x{i}' for i in s.operands)}"
                  + "".join(f", {k}={v}" for k, v in s.options.items()) + ")" for s in self.steps]
        return "\n".join(lines)


@np.errstate(all="ignore")
def make(seed):
    """The program of a seed. Steps whose shapes do not fit, or whose numbers leave a tame range, are drawn again."""
    rng = np.random.default_rng(seed)
    base, leaves = rng.integers(1, 4, 3), {}
    for i in range(rng.integers(2, 5)):
        shape = tuple(int(n) if rng.random() < 0.75 else 1 for n in base[3 - rng.integers(0, 4):])
        array = rng.uniform(0.5, 2, shape) if rng.random() < 0.4 else rng.normal(size=shape)
        leaves[i] = (array, "trainable" if i == 0 else rng.choice(["trainable", "frozen", "array"], p=[0.6, 0.3, 0.1]))
    values = {i: dual.Dual(a) for i, (a, _) in leaves.items()}
    steps, wanted = [], rng.integers(1, MAX_STEPS + 1)
    for _ in range(12 * MAX_STEPS):
        if len(steps) == wanted:
            break
        step = propose(rng, values, len(values))
        if step is None:
            continue
        try:
            y = step.call(dual, values)
        except (ValueError, IndexError):  # of shapes that do not fit
            continue
        if 0 < y.value.size <= MAX_SIZE and np.isfinite(y.value).all() and np.abs(y.value).max() < 30:
            values[step.result] = y
            steps.append(step)
    return Program(seed, leaves, tuple(steps))


def propose(rng, values, result):
    """A random Step on the results so far, later ones more often; None where it is out of its domain."""
    name = str(rng.choice(ops.__all__))
    keys = list(values)

    def pick():
        return keys[max(0, len(keys) - 1 - int(rng.exponential(3)))] if rng.random() < 0.6 else int(rng.choice(keys))

    def least(i):
        return values[i].value.min()

    a, b, c = pick(), pick(), pick()
    x = values[a].value
    operands, options = (a,), {}
    axis = int(rng.integers(-x.ndim, x.ndim)) if x.ndim else 0
    if name in ("add", "sub", "mul", "matmul"):
        operands = (a, b)
    elif name == "div":
        if np.abs(values[b].value).min() < 0.2:
            return None
        operands = (a, b)
    elif name == "pow":
        power = rng.choice([2, 3, 0.5, -1, None])
        if power is None and least(a) > 0.1:
            operands = (a, b)
        elif power is None or (power in (0.5, -1) and least(a) < 0.1):
            return None
        else:
            options = {"b": float(power)}
    elif name in ("log", "sqrt"):
        if least(a) < 0.1:
            return None
    elif name == "where":
        operands, options = (a, b), {"condition": rng.random(x.shape) < 0.5}
    elif name in ("sum", "mean", "max"):
        axes = (None, axis, tuple(range(x.ndim))[:2], ())[rng.integers(0, 4)] if x.ndim else None
        options = {"axis": axes, "keepdims": bool(rng.integers(2))}
    elif name == "reshape":
        options = {"args": ((-1, *x.shape[:1]),) if x.ndim else ((1, 1),)}
    elif name == "transpose":
        options = {"args": tuple(int(i) for i in rng.permutation(x.ndim))}
    elif name == "getitem":
        n = len(x) if x.ndim else 1
        options = {"index": [slice(None, None, -1), -1, rng.integers(-n, n, 3), rng.random(x.shape) < 0.6, (..., None),
                             slice(0, 2)][rng.integers(0, 6)]}
    elif name == "concatenate":
        operands, options = (a, b, c)[:rng.integers(1, 4)], {"axis": axis}
    elif name == "linear":
        operands = (a, b, c)[:rng.integers(2, 4)]
        if values[b].value.ndim != 2:
            return None
        full = (*x.shape[:-1], len(values[b].value))
        if len(operands) == 3 and (values[c].value.ndim > len(full) or any(
                n not in (1, m) for n, m in zip(values[c].shape[::-1], full[::-1], strict=False))):
            return None  # a bias does not widen the result
    elif name == "embedding":
        if x.ndim != 2:
            return None
        options = {"ids": rng.integers(0, len(x), (2, 2))}
    elif name == "layer_norm":
        fitting = [i for i in keys if x.ndim and values[i].shape == x.shape[-1:]]
        if not fitting or (x.shape[-1] > 1 and x.std(axis=-1).min() < 0.05):
            return None
        operands, options = (a, int(rng.choice(fitting)), int(rng.choice(fitting))), {"eps": 1e-3}
    elif name == "rms_norm":
        fitting = [i for i in keys if x.ndim and values[i].shape == x.shape[-1:]]
        if not fitting or np.abs(x).max(axis=-1).min() < 0.05:
            return None
        operands, options = (a, int(rng.choice(fitting))), {"eps": 1e-3}
    elif name == "swiglu":
        fitting = [i for i in keys if x.ndim and values[i].shape == x.shape]
        if not fitting:
            return None
        operands = (a, int(rng.choice(fitting)))
    elif name == "rotary":
        fitting = [i for i in keys if values[i].value.ndim > 1 and values[i].shape[-1] % 2 == 0]
        if not fitting:
            return None
        operands = (int(rng.choice(fitting)),)
        T, d = values[operands[0]].shape[-2:]
        heads = int(rng.choice([h for h in range(1, d) if d % (2 * h) == 0]))
        angles = rng.uniform(-4, 4, (T, d // heads // 2))
        options = {"cos": np.cos(angles), "sin": np.sin(angles), "heads": heads}
    elif name == "dropout":
        options = {"p": 0.4, "seed": int(rng.integers(100))}
    elif name in ("softmax", "log_softmax"):
        options = {"axis": axis}
        if not x.ndim:
            return None
    elif name == "cross_entropy":
        if not x.ndim:
            return None
        options = {"targets": some_targets(rng, x.shape[-1], x.shape[:-1])}
    elif name == "linear_cross_entropy":
        fitting = [i for i in keys if x.ndim and values[i].value.ndim == 2 and values[i].shape[1] == x.shape[-1]]
        if not fitting:
            return None
        operands = (a, int(rng.choice(fitting)))
        options = {"targets": some_targets(rng, len(values[operands[1]].value), x.shape[:-1])}
    elif name == "causal_attention":
        fitting = [i for i in keys if x.ndim > 1 and values[i].shape[:-2] == x.shape[:-2]
                   and values[i].value.ndim == x.ndim and values[i].shape[-1] == x.shape[-1]]
        longer = [i for i in fitting if values[i].shape[-2] >= x.shape[-2]]
        if not longer:
            return None
        k = int(rng.choice(longer))
        operands = (a, k, int(rng.choice([i for i in longer if values[i].shape == values[k].shape])))
    return Step(result, name, operands, options)


def some_targets(rng, classes, shape):
    """Random targets, some of them ignored, but not all."""
    targets = rng.integers(0, classes, shape)
    ignored = rng.random(shape) < 0.3
    return targets if ignored.all() else np.where(ignored, -100, targets)


def sinks(program):
    """The results that nothing uses, each with its random weights in the loss."""
    used = {i for s in program.steps for i in s.operands}
    return [i for i in (*program.leaves, *(s.result for s in program.steps)) if i not in used]


@cache
def weights(i, shape):
    return np.random.default_rng(i + 1).uniform(0.5, 1.5, shape)


def by_engine(program, dtype=np.float64, move=None):
    """(loss, {number: gradient}) of the engine. move: what to add to the trainable leaves; then without gradients."""
    values = {}
    for i, (a, kind) in program.leaves.items():
        a = a + move[i] if move and kind == "trainable" else a
        a = a.astype(dtype)
        values[i] = a if kind == "array" else Tensor(a, requires_grad=kind == "trainable")
    leaves = dict(values)
    for step in program.steps:
        values[step.result] = step.call(ops, values)
        assert values[step.result].dtype == dtype, f"{step.name} gave {values[step.result].dtype}"
    loss = sum((ops.mul(values[i], weights(i, values[i].shape).astype(dtype))).sum() for i in sinks(program))
    if move:
        return loss.item(), None
    assert loss.requires_grad
    loss.backward()
    for i, (a, kind) in program.leaves.items():
        if kind == "frozen":
            assert leaves[i].grad is None, f"x{i} is frozen and has a gradient"
        if kind == "trainable" and leaves[i].grad is not None:
            assert leaves[i].grad.shape == a.shape and leaves[i].grad.dtype == dtype
    return loss.item(), {i: np.zeros(a.shape) if leaves[i].grad is None else leaves[i].grad
                         for i, (a, kind) in program.leaves.items() if kind == "trainable"}


def by_dual(program, directions):
    """(loss, its slope along the directions of the trainable leaves, distance to a kink)."""
    dual.kink[0] = np.inf
    values = {i: dual.Dual(a, directions.get(i)) for i, (a, _) in program.leaves.items()}
    for step in program.steps:
        values[step.result] = step.call(dual, values)
    parts = [dual.sum(dual.mul(values[i], weights(i, values[i].shape))) for i in sinks(program)]
    return sum(p.value for p in parts), sum(p.slope for p in parts), dual.kink[0]


def problem(program, differences=True):
    """What is wrong with the engine on this program, or None."""
    trainable = [i for i, (_, kind) in program.leaves.items() if kind == "trainable"]
    if not trainable:
        return None
    rng = np.random.default_rng(program.seed)
    directions = {i: rng.choice([-1.0, 1.0], program.leaves[i][0].shape) for i in trainable}
    with np.errstate(all="ignore"):
        try:
            loss, gradients = by_engine(program)
            single, rough = by_engine(program, np.float32)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        value, slope, kink = by_dual(program, directions)
        along = sum(np.vdot(gradients[i], directions[i]) for i in trainable)
        size = sum(np.abs(gradients[i]).sum() for i in trainable) + 1e-3
        if not abs(loss - value) <= 1e-9 * (1 + abs(value)):
            return f"the value is {loss}, dual numbers give {value}"
        if not abs(along - slope) <= 1e-8 * max(size, abs(slope)):
            return f"the slope is {along}, dual numbers give {slope}"
        if kink < 1e-3 or not differences:
            return None  # differences would step over it, and float32 land on its other side
        with no_grad():
            ends = [by_engine(program, move={i: h * d for i, d in directions.items()})[0] for h in (H, -H)]
        numeric = (ends[0] - ends[1]) / (2 * H)
        if not abs(along - numeric) <= 1e-4 * max(size, abs(numeric)) + 1e-9 * abs(loss):
            return f"the slope is {along}, central differences give {numeric}"
        off = sum(np.abs(rough[i] - gradients[i]).sum() for i in trainable)
        if not off <= 1e-2 * size or not abs(single - loss) <= 1e-3 * (1 + abs(loss)):
            return f"in float32 the loss is {single} instead of {loss}, and the gradient off by {off / size:.1g}"
    return None


def shrink(program, fails):
    """The shortest program that still fails: steps are left out with what depends on them, or become leaves."""
    tries = iter(smaller(program))
    while (candidate := next(tries, None)) is not None:
        if candidate.steps and fails(candidate):
            program, tries = candidate, iter(smaller(candidate))
    return program


def smaller(program):
    """Programs with one step less, or more."""
    values = {i: dual.Dual(a) for i, (a, _) in program.leaves.items()}
    for step in program.steps:
        values[step.result] = step.call(dual, values)
    for step in reversed(program.steps):
        gone, kept = {step.result}, []
        for s in program.steps:
            if gone & {s.result, *s.operands}:
                gone.add(s.result)
            else:
                kept.append(s)
        yield tidy(program, kept, program.leaves)
        yield tidy(program, [s for s in program.steps if s is not step],
                   {**program.leaves, step.result: (values[step.result].value, "trainable")})
    for i in program.leaves:  # a leaf less, where nothing uses it
        if i in sinks(program):
            yield replace(program, leaves={j: leaf for j, leaf in program.leaves.items() if j != i})


def tidy(program, steps, leaves):
    """The program of these steps, without leaves that neither they nor a gradient needs."""
    used = {i for s in steps for i in s.operands}
    return replace(program, steps=tuple(steps), leaves={
        i: leaf for i, leaf in leaves.items() if i in used or leaf[1] == "trainable"})


@pytest.mark.parametrize("chunk", [pytest.param(i, marks=whole_class) if i >= CHUNKS // 2 else i for i in range(CHUNKS)])
def test_random_programs(chunk):
    for seed in range(chunk * PROGRAMS // CHUNKS, (chunk + 1) * PROGRAMS // CHUNKS):
        program = make(seed)
        wrong = problem(program)
        if wrong:
            shortest = shrink(program, problem)
            pytest.fail(f"{problem(shortest)}\n{shortest}\nshortened from {len(program.steps)} operations; again with "
                        f"problem(make({seed}))", pytrace=False)


def test_the_programs_are_of_every_kind():
    programs = [make(seed) for seed in range(0, PROGRAMS, 10)]
    used = Counter(s.name for p in programs for s in p.steps)
    assert set(used) == set(ops.__all__) and min(used.values()) >= 10, used
    lengths = [len(p.steps) for p in programs]
    assert max(lengths) >= 25 and min(lengths) <= 2
    assert {kind for p in programs for _, kind in p.leaves.values()} == {"trainable", "frozen", "array"}
    assert str(make(7)) == str(make(7)) != str(make(8))


@pytest.mark.parametrize(("name", "wrong"), [
    ("tanh", lambda a: ops.mul(ops.tanh(a), 1.0) + ops.sub(a, a.detach()) * 1e-3),
    ("layer_norm", lambda x, w, b, eps: ops.layer_norm(x.detach() if isinstance(x, Tensor) else x, w, b, eps)),
    ("sum", lambda a, axis, keepdims: ops.sum(a, axis, keepdims) * 1.0001),
])
def test_a_planted_fault_is_found_and_cut_down(name, wrong, monkeypatch):
    program = next(p for p in map(make, range(PROGRAMS)) if len(p.steps) > 8
                   and any(s.name == name and program_reaches(p, s) for s in p.steps))
    assert problem(program) is None
    monkeypatch.setattr(ops, name, wrong)
    assert problem(program, differences=False)
    shortest = shrink(program, lambda p: problem(p, differences=False))
    assert [s.name for s in shortest.steps] == [name]
    assert f"seed {program.seed}" in str(shortest) and f"= {name}(x" in str(shortest)


def program_reaches(program, step):
    """Whether a gradient flows through this step to a trainable leaf."""
    live = {i for i, (_, kind) in program.leaves.items() if kind == "trainable"}
    for s in program.steps:
        if live & set(s.operands):
            live.add(s.result)
    return step.operands[0] in live
