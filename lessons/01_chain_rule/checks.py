"""Checks of exercise 01. The right answers come from the engine, and from going along every way through a graph."""

import numpy as np

from lessons.course.checking.tasks import Check, Misconception, Task
from lora_np import Tensor

NAME = "ex01_chain_rule"
TITLE = "the chain rule"


def slopes(f, *numbers):
    """The slope of f in each of its numbers, as the engine computes it."""
    leaves = [Tensor(v, requires_grad=True) for v in numbers]
    f(*leaves).backward()
    return tuple(leaf.grad.item() for leaf in leaves)


def one_neuron(x, w, b, t):
    return slopes(lambda x, w, b: (x * w + b - t) ** 2, x, w, b)


def reused(a, b):
    return slopes(lambda a, b: (u := a * b) * u + a, a, b)


def backward(steps):
    def along_every_way(name):
        onward = [slope * along_every_way(result) for result, operand, slope in steps if operand == name]
        return sum(onward) if onward else 1.0
    return {name: along_every_way(name) for step in steps for name in step[:2]}


def some(n):
    """n numbers between 1.2 and 3, so that none is 0 or 1 and could be left out unseen."""
    return lambda rng: tuple(float(v) for v in rng.uniform(1.2, 3, n))


def with_a_zero(n):
    """n numbers, one of the first two 0, so that nothing can be divided by it, and the others below 0."""
    def draw(rng):
        v = [-float(u) for u in rng.uniform(1.2, 3, n)]
        v[int(rng.integers(2))] = 0.0
        return tuple(v)
    return draw


def graph(edges, low=1.2):
    """The steps of a graph such as "ux vu Lv", each with a random slope from low to 3."""
    return lambda rng: ([(edge[0], edge[1], float(rng.uniform(low, 3))) for edge in edges.split()],)


def flat_step(rng):
    """A graph with a slope of 0: what lies behind it alone gets 0, and is in the result all the same."""
    steps, = graph("ux vx wu yv yw", low=-3)(rng)
    steps[2] = ("w", "u", 0.0)
    return (steps,)


def walk(order=reversed, add=lambda old, g, slope: old + g * slope):
    """backward with another order, or another way to take up what comes back."""
    def wrong(steps):
        gradients = {steps[-1][0]: 1.0}
        for result, operand, slope in order(steps):
            gradients[operand] = add(gradients.get(operand, 0.0), gradients.get(result, 0.0), slope)
        return gradients
    return wrong


TASKS = (
    Task(
        one_neuron, ("dL/dx", "dL/dw", "dL/db"),
        checks=(Check("an error above 0", lambda rng: (*some(3)(rng), 1.0), example=lambda: (2.0, 3.0, 1.0, 5.0)),
                Check("an error below 0; x or w may be 0", lambda rng: (*with_a_zero(3)(rng), 20.0),
                      also=(lambda: (0.0, 2.0, 1.0, 5.0), lambda: (2.0, 0.0, 1.0, 5.0), lambda: (2.0, 2.0, 1.0, 5.0)))),
        hints=("Write the steps down one by one: u = x w, y = u + b, e = y - t, L = e^2. What is the slope of each?",
               "dL/de = 2 e, de/dy = 1, dy/du = 1, dy/db = 1, du/dx = w, du/dw = x. Multiply along each way.",
               "return 2 * e * ____, 2 * e * ____, 2 * e        with e = x * w + b - t"),
        misconceptions=(
            Misconception(
                "square-without-its-2", lambda x, w, b, t: ((e := x * w + b - t) * w, e * x, e),
                "The slope of e^2 is 2 e; it is e only where the loss is written with a 1/2 in front.",
                "raise b by 0.001 and see by how much L grows."),
            Misconception(
                "own-factor-taken", lambda x, w, b, t: ((e := 2 * (x * w + b - t)) * x, e * w, e),
                "The slope of x w in x is the other factor, w. Or are two results exchanged? The order is dL/dx, "
                "dL/dw, dL/db.",
                "let w be 0: then x has no influence on L, and dL/dx must be 0."),
            Misconception(
                "bias-has-no-slope", lambda x, w, b, t: ((e := 2 * (x * w + b - t)) * w, e * x, 0.0),
                "b is added, so its slope in y is 1, and what comes back to y comes back to b.",
                "raise b by 0.001 and see by how much L grows."),
            Misconception(
                "chain-stopped-early", lambda x, w, b, t: (w, x, 1.0),
                "These are the slopes of y = x w + b. L goes on from there: multiply by dL/dy.",
                "change t: the slopes of L change with it, yours do not."),
            Misconception(
                "error-turned-round", lambda x, w, b, t: ((e := 2 * (t - x * w - b)) * w, e * x, e),
                "The error is x w + b - t, what came out less what was wanted, and L rises with it where it is above "
                "0.",
                "raise b by 0.001 where the error is above 0: L grows, so dL/db is above 0."),
        )),
    Task(
        reused, ("dy/da", "dy/db"),
        checks=(Check("a and b above 1", some(2), example=lambda: (2.0, 3.0)),
                Check("a below 0; a or b may be 0", lambda rng: (-(v := some(2)(rng))[0], v[1]),
                      also=(lambda: (0.0, 2.0), lambda: (-2.0, 0.0)))),
        hints=("Draw the graph. In how many ways does a reach y? In how many does u?",
               "u reaches y twice, so dy/du = u + u. a reaches y through u and directly: dy/da = dy/du b + 1.",
               "return ____ * u * b + ____, ____ * u * a        with u = a * b"),
        misconceptions=(
            Misconception(
                "reused-value-overwritten", lambda a, b: (a * b * b, a * b * a),
                "A value that is used several times gets the sum of what comes back; here each part took the place "
                "of the one before.",
                "at a = 2, b = 3 raise a by 0.001: y grows by 37 times that, not by 18 times."),
            Misconception(
                "direct-use-left-out", lambda a, b: (2 * a * b * b, 2 * a * b * a),
                "a reaches y in a second way, as the a that is added at the end: its slope 1 adds to the sum.",
                "let b be 0: y is then a, and its slope in a is 1."),
            Misconception(
                "u-used-once", lambda a, b: (a * b * b + 1, a * b * a),
                "In u u, u is used twice: its slope is u + u.",
                "raise u from 6 to 6.001 and square both."),
            Misconception(
                "only-the-direct-use", lambda a, b: (1.0, 2 * a * b * a),
                "a reaches y through u, too: add what comes back that way.",
                "raise a by 0.001 and see by how much y grows."),
        )),
    Task(
        backward, "gradients",
        checks=(Check("a chain", graph("ux vu Lv"), example=lambda: ([("u", "x", 3.0), ("L", "u", 2.0)],)),
                Check("a value used twice", graph("ux vx Lu Lv"),
                      also=(lambda: ([("L", "x", 1.0), ("L", "x", 1.0)],),)),
                Check("a last result named y, and an early value that is used again late",
                      graph("ua ub vu va yv yu"),
                      also=(lambda: flat_step(np.random.default_rng(0)),))),
        hints=("When may the gradient of a result be passed on to its operand? In which order do you have to go, for "
               "it to be complete by then?",
               "Start with {the last result: 1}. From the last step to the first: add gradient of the result x slope "
               "to the operand's.",
               "gradients[operand] = gradients.get(operand, 0.0) + ____ * ____"),
        misconceptions=(
            Misconception(
                "gradient-overwritten", walk(add=lambda old, g, slope: g * slope),
                "A value that is used several times gets the sum of what comes back, not the last of it.",
                "try L = x + x: the steps are (L, x, 1) twice, and the gradient of x is 2."),
            Misconception(
                "slopes-not-multiplied", walk(add=lambda old, g, slope: old + slope),
                "What comes back to an operand is the gradient of the result times the slope.",
                "try a chain of slopes 3 and 2: raising x by 1 raises L by 6."),
            Misconception(
                "slopes-added-along-a-way", walk(add=lambda old, g, slope: old + g + slope),
                "Along a way slopes multiply; only different ways add.",
                "try a chain of slopes 10 and 10: raising x by 1 raises u by 10 and L by 100."),
            Misconception(
                "walked-forwards", walk(order=list),
                "Going from first to last, nothing has come back to a result yet when it is passed on. Go from last to "
                "first.",
                "print the gradients after each step of a chain."),
        )),
)
