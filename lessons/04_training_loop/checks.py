"""Checks of exercise 04. The right answers come from the library's SGD and AdamW."""

import numpy as np

from lessons.course.checking.tasks import Check, Misconception, Task
from lora_np import Tensor
from lora_np.optim import SGD, AdamW

NAME = "ex04_training_loop"
TITLE = "a training loop"


def sgd_step(parameters, lr):
    SGD(parameters, lr).step()


def train(parameters, loss, lr, steps):
    optimizer, losses = SGD(parameters, lr), []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


def adamw_step(w, g, mean, square, t, lr, weight_decay):
    p = Tensor(w, requires_grad=True)
    p.grad = g
    optimizer = AdamW([p], lr, weight_decay=weight_decay)
    optimizer.load_state_dict({"steps": np.array([t - 1.0]), "m": mean.ravel(), "v": square.ravel()})
    optimizer.step()
    return p.numpy(), optimizer.m.reshape(w.shape), optimizer.v.reshape(w.shape)


def moved_to(step, parameters, lr):
    """What becomes of the parameters, whatever the list is filled with."""
    held = list(parameters)
    step(parameters, lr)
    return [p.numpy() for p in held]


def step_made(new, parameters, lr):
    return {f"the step of parameters[{i}]": a - p.data for i, (a, p) in enumerate(zip(new, parameters, strict=True))}


def with_gradients(none=False):
    def draw(rng):
        parameters = [Tensor(rng.normal(size=shape), requires_grad=True) for shape in ((3, 2), (4,))]
        for p in parameters:
            p.grad = rng.normal(size=p.shape)
        if none:
            parameters[0].grad = None
        return parameters, float(rng.uniform(0.1, 0.5))
    return draw


def regression(steps, lr, stale=False):
    """A line through 8 points. stale: the parameters hold gradients of something else."""
    def draw(rng):
        X, y = rng.normal(size=(8, 3)), rng.normal(size=8)
        w, b = (Tensor(rng.normal(size=shape), requires_grad=True) for shape in ((3,), ()))

        def loss():
            """the mean squared error of a line"""
            return ((Tensor(X) @ w + b - y) ** 2).mean()

        if stale:
            w.grad, b.grad = np.full(3, 7.0), np.array(7.0)
        return [w, b], loss, lr, steps
    return draw


def losses_and_parameters(train, parameters, *rest):
    held = list(parameters)
    return train(parameters, *rest), [p.numpy() for p in held]


def one_parameter():
    """The example of sgd_step."""
    p = Tensor([1.0, 2.0], requires_grad=True)
    p.grad = np.array([10.0, -10.0])
    return [p], 0.1


def squares():
    """The example of train."""
    w = Tensor([1.0, -2.0], requires_grad=True)

    def loss():
        """the sum of the squares of w"""
        return (w * w).sum()

    return [w], loss, 0.1, 3


def moved(how):
    """sgd_step with another new value: how(array, gradient, lr)."""
    def wrong(parameters, lr):
        for p in parameters:
            if p.grad is not None:
                p.data = how(p.data, p.grad, lr)
    return wrong


def loop(clear="first", record="before", sign=1, extra=0):
    """train with the clearing left out or misplaced, the loss taken at another time, or another sign."""
    def wrong(parameters, loss, lr, steps):
        losses, zero_grad, make_step = [], SGD(parameters, lr).zero_grad, moved(lambda p, g, lr: p - sign * lr * g)
        for step in range(steps + extra):
            value = loss()
            if clear == "first" or (clear == "once" and step == 0):
                zero_grad()
            value.backward()
            if clear == "late":
                zero_grad()
            make_step(parameters, lr)
            if clear == "last":
                zero_grad()
            losses.append((value if record == "before" else loss()).item())
        return losses
    return wrong


def between_steps(t, decay=False):
    """A parameter at step t, with gradients of very different sizes."""
    def draw(rng):
        w, g = rng.normal(size=(3, 2)), rng.normal(size=(3, 2)) * 10.0 ** np.arange(-2, 4).reshape(3, 2)
        mean = g * rng.uniform(0.2, 0.6, g.shape) if t > 1 else np.zeros_like(g)
        square = g ** 2 * rng.uniform(0.01, 0.04, g.shape) if t > 1 else np.zeros_like(g)
        return w, g, mean, square, t, float(rng.uniform(0.05, 0.2)), float(rng.uniform(0.2, 0.5)) if decay else 0.0
    return draw


def step_one():
    """The example of adamw_step."""
    return np.array([1.0, 2.0]), np.array([3.0, -0.01]), np.zeros(2), np.zeros(2), 1, 0.1, 0.0


def adamw(betas=(0.9, 0.999), power=None, root=np.sqrt, sign=1, of_mean=False, kept="means", decay="decoupled"):
    """adamw_step with one of its parts done wrong."""
    beta1, beta2 = betas

    def wrong(w, g, mean, square, t, lr, weight_decay):
        g = g + weight_decay * w if decay == "in the gradient" else g
        mean = beta1 * mean + (1 - beta1) * g
        square = beta2 * square + (1 - beta2) * (mean if of_mean else g) ** 2
        count = t if power is None else power
        corrected = [m / (1 - beta ** count) if count else m for m, beta in ((mean, beta1), (square, beta2))]
        step = sign * lr * corrected[0] / (root(corrected[1]) + 1e-8)
        pulled = {"decoupled": lr * weight_decay * w, "whole": weight_decay * w,
                  "late": lr * weight_decay * (w - step)}.get(decay, 0)
        return w - pulled - step, *(corrected if kept == "corrected" else (mean, square))
    return wrong


TASKS = (
    Task(
        sgd_step, "parameters",
        checks=(Check("two parameters", with_gradients(), one_parameter, call=moved_to, parts=step_made),
                Check("a parameter without a gradient", with_gradients(none=True), call=moved_to)),
        hints=("The gradient points where the loss rises fastest. Which way do you want to go, and how far?",
               "p = p - lr * gradient, for each parameter that has one.",
               "if p.grad is not None: p.data = p.data ____ lr * ____"),
        misconceptions=(
            Misconception(
                "moved-up-the-slope", moved(lambda p, g, lr: p + lr * g),
                "The gradient points uphill; subtracting it goes down.",
                "minimise p^2 from p = 1: after a step p should be closer to 0."),
            Misconception(
                "no-parameter-moved", lambda parameters, lr: None,
                "Every parameter is where it was. A new array reaches a parameter only through p.data = …; p = … gives "
                "the name p to something new.",
                "print parameters[0].data before and after the call."),
            Misconception(
                "learning-rate-left-out", moved(lambda p, g, lr: p - g),
                "The step is lr times the gradient; lr says how far to trust the slope.",
                "minimise p^2 from p = 1 without lr: it jumps to -1 and back for ever."),
            Misconception(
                "gradient-put-in-the-place-of-the-parameter", moved(lambda p, g, lr: -lr * g),
                "A step starts from where the parameter is: p - lr * g.",
                "make a step with a gradient of 0: nothing may move."),
            Misconception(
                "only-the-sign-of-the-gradient", moved(lambda p, g, lr: p - lr * np.sign(g)),
                "The step is proportional to the gradient: steeper means further.",
                "double the gradient: the step should double."),
            Misconception(
                "shrunk-by-the-learning-rate", moved(lambda p, g, lr: (1 - lr) * p - lr * g),
                "This is a step with weight decay: it pulls every parameter towards 0 besides. Here there is none.",
                "make a step with a gradient of 0: nothing may move."),
        )),
    Task(
        train, ("losses", "parameters"),
        checks=(Check("6 steps", regression(6, 0.1), squares, call=losses_and_parameters),
                Check("5 steps, with gradients left over from before", regression(5, 0.05, stale=True),
                      call=losses_and_parameters),
                Check("0 steps", regression(0, 0.1), call=losses_and_parameters)),
        hints=("What does backward do to a gradient that is there already? So what has to happen once in each step?",
               "Each step: compute the loss; set every gradient to None; backward; move every parameter; note the "
               "loss.",
               "for _ in range(steps): value = ____; for p in parameters: p.grad = ____; value.____; sgd_step(____)"),
        misconceptions=(
            Misconception(
                "gradients-not-cleared", loop(clear="never"),
                "backward adds to the gradients that are there, so each step follows the sum of all earlier ones too.",
                "print p.grad after each backward: as the loss falls, it should shrink."),
            Misconception(
                "gradients-cleared-only-once", loop(clear="once"),
                "Gradients are cleared before the first step alone; from then on each step follows the sum of all "
                "earlier ones too. Clear them in each step.",
                "print p.grad after each backward: as the loss falls, it should shrink."),
            Misconception(
                "gradients-cleared-after-the-step", loop(clear="last"),
                "What was there before the first backward is still in the first step: clear before backward and not "
                "after the step.",
                "set p.grad of a parameter to 7 before the call: the result must be the same."),
            Misconception(
                "no-gradient-at-the-step", loop(clear="late"),
                "Nothing moved. Is backward called, are gradients cleared only before it, and is the new array given "
                "to p.data?",
                "print p.grad right before the step, and p.data right after it."),
            Misconception(
                "loss-noted-after-the-step", loop(record="after"),
                "The loss that belongs to a step is the one whose gradient it follows, from before it.",
                "compare losses[0] with the loss of the parameters as they were."),
            Misconception(
                "climbing", loop(sign=-1),
                "The gradient points uphill; subtract it.",
                "print the losses: they should fall."),
            Misconception(
                "one-step-too-many", loop(extra=1),
                "steps is how often a step is made, and how many losses there are.",
                "call it with steps = 0: nothing may move."),
        )),
    Task(
        adamw_step, ("w", "mean", "square"),
        checks=(Check("step 1, from means of zero", between_steps(1), step_one),
                Check("step 5, with means from before", between_steps(5)),
                Check("step 5, with weight decay", between_steps(5, decay=True))),
        hints=("Both means start at zero. After one step, how large is each beside g and g^2? What makes up for it?",
               "mean = 0.9 mean + 0.1 g; square = 0.999 square + 0.001 g^2; w = w - lr weight_decay w - "
               "lr (mean / (1 - 0.9^t)) / (sqrt(square / (1 - 0.999^t)) + 1e-8).",
               "w = w - lr * weight_decay * ____ - lr * (mean / ____) / (np.sqrt(square / ____) + 1e-8)"),
        misconceptions=(
            Misconception(
                "bias-correction-left-out", adamw(power=0),
                "Means that start at zero are too small at first. Dividing by 1 - beta^t makes up for that.",
                "take step 1 with g = 1: without the correction it is about three learning rates long."),
            Misconception(
                "corrected-by-beta-and-not-its-power", adamw(power=1),
                "The correction fades as the means fill up: at step t it is 1 - beta^t, and only at step 1 that is 1 - "
                "beta.",
                "print 1 - 0.9 ** t for t = 1, 10 and 100."),
            Misconception(
                "root-left-out", adamw(root=lambda square: square),
                "The square is a mean of g^2; its root has the size of g, so that the quotient has none.",
                "multiply g by 10 at step 1: the step should stay as long as it was."),
            Misconception(
                "square-of-the-mean", adamw(of_mean=True),
                "The second mean is of the squares of the gradients, not of the square of the first mean.",
                "take gradients of 1 and -1 in turn: the mean goes to 0, the mean of squares stays 1."),
            Misconception(
                "betas-exchanged", adamw(betas=(0.999, 0.9)),
                "beta1 = 0.9 is for the mean of the gradients, beta2 = 0.999 for that of their squares.",
                "take one step with g = 1 from means of zero: mean should be 0.1 and square 0.001."),
            Misconception(
                "stepped-uphill", adamw(sign=-1),
                "The mean points where the loss rises, as a gradient does; subtract the step.",
                "take a step at w = 1 with g = 1: w should become smaller."),
            Misconception(
                "corrected-means-handed-on", adamw(kept="corrected"),
                "The corrected means are for this step alone. What the next step needs is mean and square themselves.",
                "take two steps with g = 1: after the second, mean should be 0.19."),
            Misconception(
                "decay-in-the-gradient", adamw(decay="in the gradient"),
                "The decay is apart from the gradient: this is the W of AdamW. Added to g, it would be divided by the "
                "root of the squares, and large gradients would hardly decay.",
                "with g = 0 and means of zero, a step should shrink w by lr * weight_decay * w."),
            Misconception(
                "decay-without-the-learning-rate", adamw(decay="whole"),
                "The decay is lr * weight_decay * w, so that a schedule shrinks it along with the step.",
                "with lr = 0, nothing may move."),
            Misconception(
                "decay-of-the-new-weight", adamw(decay="late"),
                "The decay is of w as it was before the step.",
                "take a step from w = 0: the decay should be 0."),
            Misconception(
                "decay-left-out", adamw(decay="none"),
                "lr * weight_decay * w is subtracted, too.",
                "with g = 0 and means of zero, a step should shrink w."),
        )),
)
