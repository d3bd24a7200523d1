"""Which small changes of a solution do the exercises' checks not see? python -m tests.hard.survivors [NN ...]

Each solution is changed in one place at a time: an operator, a constant, an axis, an operand, a condition, an order, a
call, a statement. The checks must refuse the change, or it must be one that makes no difference: survivors_equal.py
lists these, with the reason. What is neither is a survivor: the checks are mended until there is none. The texts of
errors are left alone. Exit status: 0, or 1 with survivors.
"""

import argparse
import ast
import copy
import itertools
import json
import signal
import sys
import time
from collections import Counter

import numpy as np

from lessons.course.checking import judge, problems, runner, tasks, worker

from .survivors_equal import EQUAL

SECONDS = 0.5  # that one call of a changed function may take
OTHER_SEEDS = range(100, 140)  # of further inputs, on which a survivor may show that it is none

OPERATORS = {ast.Add: (ast.Sub, ast.Mult), ast.Sub: (ast.Add, ast.Mult), ast.Mult: (ast.Div, ast.Add, ast.MatMult),
             ast.Div: (ast.Mult, ast.FloorDiv, ast.Sub), ast.FloorDiv: (ast.Div, ast.Mult), ast.MatMult: (ast.Mult,),
             ast.Pow: (ast.Mult, ast.Div)}
COMPARISONS = {ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt, ast.NotEq),
               ast.GtE: (ast.Gt, ast.LtE), ast.Eq: (ast.NotEq, ast.LtE, ast.GtE), ast.NotEq: (ast.Eq, ast.Lt, ast.Gt),
               ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,)}
NAMES = {"sum": ("mean", "max"), "max": ("min", "sum", "mean"), "min": ("max",), "maximum": ("minimum", "add"),
         "argmax": ("argmin",), "cumsum": ("sum",), "sqrt": ("square", "abs"), "exp": ("exp2", "expm1"),
         "zeros": ("ones",), "uniform": ("normal",), "abs": ("square",), "arange": ("ones",)}
TEXT_TESTS = ("{a}.startswith({b})", "{a}.endswith({b})", "{b} in {a}", "{a} in {b}")


def expression(text):
    return ast.parse(text, mode="eval").body


def changes(node, names):
    """What may stand in the place of a node: new nodes."""
    if isinstance(node, ast.BinOp):
        yield from (ast.BinOp(node.left, new(), node.right) for new in OPERATORS.get(type(node.op), ()))
        yield from (node.left, node.right)
        if not isinstance(node.op, (ast.Add, ast.Mult)):
            yield ast.BinOp(node.right, node.op, node.left)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        yield from node.values
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        left, op, right = node.left, node.ops[0], node.comparators[0]
        yield from (ast.Compare(left, [new()], [right]) for new in COMPARISONS.get(type(op), ()))
        yield from (ast.Constant(True), ast.Constant(False))
        if isinstance(op, ast.Eq):
            yield from (expression(t.format(a=ast.unparse(left), b=ast.unparse(right))) for t in TEXT_TESTS)
        if isinstance(op, (ast.In, ast.NotIn)):
            part = "any({} for part in {})"
            yield from (expression(part.format(t.format(a=ast.unparse(left), b="part"), ast.unparse(right)))
                        for t in TEXT_TESTS)
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse, ast.IfExp(node.test, node.orelse, node.body))
    elif isinstance(node, ast.Constant):
        yield from map(ast.Constant, other_constants(node.value))
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in names:
        yield from (ast.Name(name, ast.Load()) for name in names if name != node.id)
    elif isinstance(node, ast.Call):
        yield from changed_calls(node)
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield node.value
    elif isinstance(node, ast.Subscript):
        yield from changed_slices(node)
    elif isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and 2 <= len(node.elts) <= 3:
        for i, j in itertools.combinations(range(len(node.elts)), 2):
            order = list(node.elts)
            order[i], order[j] = order[j], order[i]
            yield ast.Tuple(order, node.ctx)
    elif isinstance(node, ast.Dict) and len(node.values) >= 2:
        yield ast.Dict(node.keys[::-1], node.values[::-1])
        yield from (ast.Dict(node.keys[:i] + node.keys[i + 1:], node.values[:i] + node.values[i + 1:])
                    for i in range(len(node.values)))
    elif isinstance(node, (ast.ListComp, ast.GeneratorExp)):
        for i, loop in enumerate(node.generators):
            fewer = [ast.comprehension(loop.target, loop.iter, [c for c in loop.ifs if c is not dropped], 0)
                     for dropped in loop.ifs]
            yield from (ast.ListComp(node.elt, [*node.generators[:i], one, *node.generators[i + 1:]]) for one in fewer)


def other_constants(value):
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1] + [-value] * (value != 0)
    if isinstance(value, float):
        return [value + 1.0, value * 2, -value] if value else [1.0]
    return [None, "x"] if isinstance(value, str) else [0] if value is None else []


def changed_calls(node):
    for i, keyword in enumerate(node.keywords):
        rest = node.keywords[:i] + node.keywords[i + 1:]
        yield ast.Call(node.func, node.args, rest)
        if keyword.arg == "axis":
            yield from (ast.Call(node.func, node.args, [*rest, ast.keyword("axis", ast.Constant(axis))])
                        for axis in (0, 1, -1, -2, None) if ast.unparse(keyword.value) != str(axis))
    if len(node.args) == 1 and not node.keywords:
        yield node.args[0]
    for i, j in itertools.combinations(range(len(node.args)), 2):
        order = list(node.args)
        order[i], order[j] = order[j], order[i]
        yield ast.Call(node.func, order, node.keywords)
    yield from (ast.Call(node.func, node.args[:i] + node.args[i + 1:], node.keywords) for i in range(len(node.args)))
    if isinstance(node.func, ast.Attribute):
        yield from (ast.Call(ast.Attribute(node.func.value, new, ast.Load()), node.args, node.keywords)
                    for new in NAMES.get(node.func.attr, ()))
        if not node.args and not node.keywords:
            yield node.func.value
    elif isinstance(node.func, ast.Name):
        yield from (ast.Call(ast.Name(new, ast.Load()), node.args, node.keywords)
                    for new in NAMES.get(node.func.id, ()) if new in ("max", "min", "sum"))


def changed_slices(node):
    yield node.value
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    for i, part in enumerate(parts):
        if isinstance(part, ast.Slice):
            lower, upper = part.lower, part.upper
            others = [ast.Slice(upper, lower), ast.Slice()]
            if upper:
                others += [ast.Slice(lower, ast.BinOp(upper, op(), ast.Constant(1))) for op in (ast.Add, ast.Sub)]
                others += [ast.Slice(ast.UnaryOp(ast.USub(), upper))]
            if lower:
                others += [ast.Slice(ast.BinOp(lower, op(), ast.Constant(1)), upper) for op in (ast.Add, ast.Sub)]
            for other in others:
                new = [*parts[:i], other, *parts[i + 1:]]
                yield ast.Subscript(node.value, ast.Tuple(new, ast.Load()) if len(new) > 1 else new[0], node.ctx)


def changed_bodies(body):
    """Other bodies in the place of a list of statements: (what was done, statements)."""
    for i, statement in enumerate(body):
        text = ast.unparse(statement).splitlines()[0]
        yield f"without {text}", body[:i] + body[i + 1:] or [ast.Pass()]
        if i + 1 < len(body):
            after = ast.unparse(body[i + 1]).splitlines()[0]
            yield f"{after} before {text}", [*body[:i], body[i + 1], statement, *body[i + 2:]]
        if isinstance(statement, (ast.For, ast.While)):
            once = copy.deepcopy(statement)
            once.body.append(ast.Break())
            yield f"once {text}", [*body[:i], once, *body[i + 1:]]
            yield f"only the inside of {text}", [*body[:i], *statement.body, *body[i + 1:]]
        if isinstance(statement, ast.If):
            yield f"always {text}", [*body[:i], *statement.body, *body[i + 1:]]
            yield f"not {text}", [*body[:i], ast.If(ast.UnaryOp(ast.Not(), statement.test), statement.body,
                                                     statement.orelse), *body[i + 1:]]
        if isinstance(statement, ast.AugAssign):
            yield f"= in {text}", [*body[:i], ast.Assign([statement.target], statement.value), *body[i + 1:]]
        if isinstance(statement, (ast.For, ast.If, ast.While)):
            for what, inner in changed_bodies(statement.body):
                new = copy.copy(statement)
                new.body = inner
                yield what, [*body[:i], new, *body[i + 1:]]


class Replace(ast.NodeTransformer):
    """Put one node in the place of another."""

    def __init__(self, old, new):
        self.old, self.new = old, new

    def visit(self, node):
        return self.new if node is self.old else super().visit(node)


def mutants(tree, name):
    """{what was changed: source of the whole file} for one function of a solution, each source once.

    The same change in a second place is "… #2".
    """
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
    names = {a.arg for a in function.args.args} | {
        n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    function.body = body = function.body[1:]  # without the docstring
    found, seen, places = {}, {ast.unparse(tree)}, Counter()

    def keep(what, source):
        if source not in seen:
            seen.add(source)
            places[what] += 1
            found[what if places[what] == 1 else f"{what} #{places[what]}"] = source

    for what, statements in changed_bodies(body):
        function.body = statements
        keep(what, ast.unparse(ast.fix_missing_locations(tree)))
    function.body = body
    texts = {id(part) for node in ast.walk(function) if isinstance(node, ast.Raise) for part in ast.walk(node)}
    for index, node in enumerate(list(ast.walk(function))):
        if isinstance(node, ast.expr) and id(node) not in texts:
            for new in changes(node, sorted(names)):
                twin = copy.deepcopy(tree)
                target = next(n for n in twin.body if isinstance(n, ast.FunctionDef) and n.name == name)
                old = list(ast.walk(target))[index]
                Replace(old, new).visit(target)
                keep(f"{ast.unparse(node)} -> {ast.unparse(ast.fix_missing_locations(new))}",
                     ast.unparse(ast.fix_missing_locations(twin)))
    return found


class Late(BaseException):
    pass


def late(*_):
    raise Late


def refused(task, function, cells):
    """The first call at which the checks refuse a function, or None."""
    for i, seed in cells:
        check = task.checks[i]
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            record = worker.call(function, check, check.arguments(seed), check.arguments(seed), worker.Screen(), "")
        except Late:
            return i, seed
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        outcome = judge.outcome(json.loads(json.dumps(record)))
        if problems.find(task, i, seed, outcome, runner.Run("ran"), None):
            return i, seed
    return None


def load(source, name):
    module = {}
    exec(compile(source, "solution", "exec"), module)
    return module[name]


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.hard.survivors", description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", metavar="NN", help="exercises; all if none is given")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGALRM, late)
    begin, counts = time.perf_counter(), Counter()
    for number in options.numbers or tasks.names():
        exercise = tasks.load(number)
        tree = ast.parse(exercise.solution.read_text(encoding="utf-8"))
        for task in exercise.tasks:
            for what, source in mutants(tree, task.name).items():
                counts["changes"] += 1
                with np.errstate(all="ignore"):
                    function = load(source, task.name)
                    if refused(task, function, task.cells):
                        counts["refused"] += 1
                    elif what in EQUAL.get(task.name, {}):
                        counts["equal"] += 1
                    else:
                        counts["survivors"] += 1
                        others = [(i, seed) for i in range(len(task.checks)) for seed in OTHER_SEEDS]
                        note = "   (refused on other inputs)" if refused(task, function, others) else ""
                        print(f"{number} {task.name}: {what}{note}", flush=True)
    print(f"{counts['changes']} changes: {counts['refused']} refused, {counts['equal']} that make no difference, "
          f"{counts['survivors']} survivors, in {time.perf_counter() - begin:.0f} s")
    return 1 if counts["survivors"] else 0


if __name__ == "__main__":
    sys.exit(main())
