"""Checks of exercise 06. The right answers come from the engine, with W0 frozen."""

import numpy as np

from lessons.course.checking.tasks import Check, Misconception, Task
from lora_np import Tensor, ops

NAME = "ex06_frozen"
TITLE = "what frozen means"


def frozen_backward(W0, g):
    x = Tensor(np.zeros((len(g), W0.shape[1])), requires_grad=True)
    ops.linear(x, Tensor(W0)).backward(g)
    return x.grad


def below_frozen(x, W1, W0, g):
    W1 = Tensor(W1, requires_grad=True)
    ops.linear(ops.relu(ops.linear(x, W1)), Tensor(W0)).backward(g)
    return W1.grad


def freeze(parameters, trained):
    for t in parameters.values():
        t.requires_grad = False
    for name in trained:
        parameters[name].requires_grad = True
    return sum(t.data.size for t in parameters.values() if t.requires_grad)


def layer(n, k, d):
    return lambda rng: (rng.normal(size=(d, k)), rng.normal(size=(n, d)))


def two_layers(n, k, m, d):
    return lambda rng: tuple(rng.normal(size=shape) for shape in ((n, k), (m, k), (d, m), (n, d)))


def dead_unit(rng):
    """A layer one of whose units has z = 0 on every row."""
    x, W1, W0, g = two_layers(4, 5, 6, 3)(rng)
    W1[2] = 0
    return x, W1, W0, g


def model(trained, frozen_before=False):
    def draw(rng):
        shapes = {"fc1.weight": (6, 4), "fc1.bias": (6,), "norm.weight": (4,), "norm.bias": (4,), "weight": (2, 5),
                  "fc1.weight_norm": (6,), "old.fc1.weight": (5, 2), "fc2.weight": (3, int(rng.integers(5, 9)))}
        return {name: Tensor(rng.normal(size=shape), requires_grad=not frozen_before)
                for name, shape in shapes.items()}, list(trained)
    return draw


def count_and_who(freeze, parameters, trained):
    """What it returns, and whether the Tensors that the model holds require a gradient."""
    held = dict(parameters)
    return freeze(parameters, trained), {name: t.requires_grad for name, t in held.items()}


def numbers(parameters, names):
    """How many numbers the parameters of these names hold."""
    return sum(parameters[name].size for name in names)


def chosen(trains, count=numbers):
    """freeze with another choice: trains(name, Tensor, trained), or another count."""
    def wrong(parameters, trained):
        for name, t in parameters.items():
            t.requires_grad = bool(trains(name, t, trained))
        return count(parameters, trained)
    return wrong


def replaced(parameters, trained):
    for name, t in parameters.items():
        parameters[name] = Tensor(t.data, requires_grad=name in trained)
    return numbers(parameters, trained)


def never_thawed(parameters, trained):
    for name, t in parameters.items():
        if name not in trained:
            t.requires_grad = False
    return numbers(parameters, trained)


def never_frozen(parameters, trained):
    for name in trained:
        parameters[name].requires_grad = True
    return numbers(parameters, trained)


def right_choice(name, t, trained):
    return name in trained


TASKS = (
    Task(
        frozen_backward, "dx",
        checks=(Check("4 rows, W0 (3, 5), uneven upstream gradients", layer(4, 5, 3),
                      example=lambda: (np.array([[1.0, 2.0, 3.0]]), np.array([[10.0]]))),
                Check("one row, more outputs than inputs", layer(1, 2, 6)),
                Check("a square W0, where a wrong transpose raises no error", layer(3, 3, 3))),
        hints=("Frozen says that dL/dW0 is not wanted. Does moving x still move h, and with it the loss?",
               "dx = g W0, with g (n, d) and W0 (d, k): the same as for a layer that is trained.",
               "return g @ ____"),
        misconceptions=(
            Misconception(
                "frozen-blocks-the-gradient", lambda W0, g: np.zeros((len(g), W0.shape[1])),
                "Freezing leaves out dL/dW0 and nothing else; x still moves the loss, through W0.",
                "move one entry of x by 1e-6 and see how x @ W0.T changes.", source=r"zeros|\b0\b"),
            Misconception(
                "no-gradient-behind-a-frozen-layer", lambda W0, g: None,
                "Freezing leaves out dL/dW0 and nothing else; x still moves the loss, through W0.",
                "move one entry of x by 1e-6 and see how x @ W0.T changes."),
            Misconception(
                "gradient-passed-on-unchanged", lambda W0, g: g,
                "A frozen layer still multiplies by W0, so what comes back is multiplied by W0 too.",
                "let W0 be 10 times the identity: h moves ten times as far as x."),
            Misconception(
                "W0-transposed-going-back", lambda W0, g: g @ W0.T,
                "Forward is x @ W0.T, so going back it is g @ W0: the transpose is undone.",
                "write the shapes: g is (n, d), and dx must be (n, k)."),
            Misconception(
                "ones-sent-back", lambda W0, g: np.ones(g.shape) @ W0,
                "g says how much each entry of h matters; it has to come back through W0.",
                "double g: dx must double."),
        )),
    Task(
        below_frozen, "dW1",
        checks=(Check("4 rows, W1 (6, 5), W0 (3, 6)", two_layers(4, 5, 6, 3),
                      example=lambda: tuple(np.array([[v]]) for v in (2.0, 3.0, 5.0, 1.0))),
                Check("all sizes equal, where a wrong transpose raises no error", two_layers(4, 4, 4, 4)),
                Check("a unit whose z is 0", dead_unit)),
        hints=("Walk back from h: through the frozen W0, through relu, to W1. Which of the three steps does freezing "
               "W0 leave out?",
               "da = g W0 (n, m); dz = da where z > 0, else 0 (n, m); dW1 = dz^T x (m, k).",
               "dz = ____ @ ____ * (____ > 0); return dz.T @ ____        with z = x @ W1.T"),
        misconceptions=(
            Misconception(
                "nothing-below-frozen-trains", lambda x, W1, W0, g: np.zeros(W1.shape),
                "A trainable layer below a frozen one learns: the gradient passes through W0 on its way down.",
                "move one entry of W1 by 1e-4 and see how h changes.", source=r"zeros"),
            Misconception(
                "slope-of-relu-left-out", lambda x, W1, W0, g: (g @ W0).T @ x,
                "Where z is below 0, relu gives 0 whatever z is: its slope there is 0.",
                "let all of W1 and none of x be below 0: h is 0, and moving W1 a little changes nothing."),
            Misconception(
                "relu-of-the-gradient", lambda x, W1, W0, g: np.maximum(g @ W0, 0).T @ x,
                "relu asks for the sign of z in the forward pass, not for that of the gradient.",
                "multiply g by -1: dW1 must change its sign and nothing else."),
            Misconception(
                "gradient-of-the-frozen-weight", lambda x, W1, W0, g: g.T @ np.maximum(x @ W1.T, 0),
                "This is dL/dW0, the one gradient that freezing leaves out.",
                "print its shape beside W1.shape."),
            Misconception(
                "dW1-transposed", lambda x, W1, W0, g: x.T @ (g @ W0 * (x @ W1.T > 0)),
                "A gradient has the shape of what it belongs to: dW1 is (m, k).",
                "print its shape beside W1.shape."),
        )),
    Task(
        freeze, ("the count", "requires_grad"),
        checks=(Check("one weight trains", model(["fc1.weight"]), call=count_and_who, example=lambda: (
                    {name: Tensor(v, requires_grad=True) for name, v in (("a", [1.0, 2.0]), ("b", [3.0]))}, ["b"])),
                Check("a weight and a bias", model(["fc2.weight", "fc1.bias"]), call=count_and_who),
                Check("a model that was frozen before", model(["fc2.weight", "fc1.weight_norm"], True),
                      call=count_and_who),
                Check("nothing trains", model([]), call=count_and_who)),
        hints=("Two things have to be said of each parameter: is it in the list, and is it not. What if it was frozen "
               "before?",
               "t.requires_grad = (its name is in trained), for every parameter; the count adds up t.size of those.",
               "for name, t in parameters.items(): t.requires_grad = ____ in ____"),
        misconceptions=(
            Misconception(
                "everything-frozen", chosen(lambda name, t, trained: False),
                "What is in the list has to stay trainable, or there is nothing to learn.",
                "print [name for name, t in parameters.items() if t.requires_grad]."),
            Misconception(
                "never-frozen", never_frozen,
                "A parameter that is not in the list has to be set to False; it trains otherwise, as it did before.",
                "print [name for name, t in parameters.items() if t.requires_grad]."),
            Misconception(
                "vectors-left-trainable", chosen(lambda name, t, trained: name in trained or t.ndim < 2),
                "Biases and LayerNorms are parameters like any other: frozen unless the list names them.",
                "print [name for name, t in parameters.items() if t.requires_grad]."),
            Misconception(
                "names-matched-in-part", chosen(lambda name, t, trained: any(n in name for n in trained)),
                "“fc1.weight” is part of “fc1.weight_norm”, and yet another name: compare whole names.",
                "print [name for name, t in parameters.items() if t.requires_grad]."),
            Misconception(
                "never-thawed", never_thawed,
                "A parameter of the list that was frozen before has to be set to True.",
                "freeze a model completely, then call yours and look at requires_grad."),
            Misconception(
                "tensors-replaced", replaced,
                "The model holds the Tensors that were in the dict; new ones in their places change nothing in it. Set "
                "requires_grad of the Tensors themselves.",
                "keep t = parameters[name] from before the call, and print t.requires_grad after it.",
                source=r"\] = |update\("),
            Misconception(
                "tensors-counted", chosen(right_choice, lambda parameters, trained: len(trained)),
                "The count is of numbers: a weight of 6 x 4 holds 24.",
                "print t.size for a Tensor of shape (6, 4)."),
            Misconception(
                "frozen-numbers-counted", chosen(
                    right_choice, lambda parameters, trained: numbers(parameters, parameters)),
                "Only what is trained counts.",
                "call it with an empty list: the count must be 0."),
        )),
)
