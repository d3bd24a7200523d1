"""Checks of exercise 09. The right answers come from the library's own LoRA layer and its autograd."""

from types import SimpleNamespace as Namespace

import numpy as np

from lessons.course.checking.tasks import Check, Measured, Misconception, Task
from lora_np import LoraConfig, Tensor
from lora_np.byhand.mistakes import MISTAKES
from lora_np.byhand.worksheet import FORMULAS, work
from lora_np.lora import LoraLinear
from lora_np.nn import Linear

NAME = "ex09_lora_layer"
TITLE = "the LoRA layer"


def layer(W0, A, B, alpha):
    """The library's LoraLinear with these numbers."""
    (d, r), k = B.shape, A.shape[1]
    lora = LoraLinear(Linear(k, d, bias=False), LoraConfig(r=r, lora_alpha=alpha))
    lora.weight.data, lora.lora_A.data, lora.lora_B.data = W0, A, B
    return lora


def lora_init(d, k, r, rng):
    lora = LoraLinear(Linear(k, d, bias=False), LoraConfig(r=r), rng)
    return lora.lora_A.numpy(), lora.lora_B.numpy()


def lora_forward(x, W0, A, B, alpha):
    return layer(W0, A, B, alpha)(x).numpy()


def lora_backward(x, W0, A, B, alpha, g):
    lora, x = layer(W0, A, B, alpha), Tensor(x, requires_grad=True)
    lora(x).backward(g)
    return lora.lora_A.grad, lora.lora_B.grad, x.grad


def numbers(n, k, d, r, alpha, upstream=False, zero_B=False):
    """Inputs of these sizes: x, W0, A, B, alpha, and g if asked for."""
    def draw(rng):
        x, W0, A, B = (rng.normal(size=shape) for shape in ((n, k), (d, k), (r, k), (d, r)))
        return (x, W0, A, B * (not zero_B), alpha) + ((rng.normal(size=(n, d)),) if upstream else ())
    return draw


def worked_example():
    """The numbers of the examples: x, W0, A, B and alpha."""
    return (*map(np.array, ([[2.0, 3.0]], [[-2.0, -1.0], [1.0, -1.0]], [[3.0, -1.0]], [[2.0], [0.5]])), 2.0)


def start(returned, d, k, r, rng):
    """What holds of A and B at the start, whichever way they were drawn."""
    A, B = returned
    largest, bound = np.abs(A).max(), k ** -0.5
    found = {"B is zero everywhere": not np.any(B), "A is zero everywhere": not np.any(A)}
    spread = {
        "the mean of A": Measured(A.mean(), -0.2 * largest, 0.2 * largest, "near 0"),
        "the largest entry of A": Measured(largest, 0.85 * bound, bound * (1 + 1e-6),
                                           f"at most 1/sqrt(k) = {bound:.3g}, and near it"),
        "the spread of A (its standard deviation)": Measured(np.std(A), 0.46 * largest, bound, (
            f"about {3 ** -0.5 * largest:.3g}, as entries have that lie evenly up to the largest, {largest:.3g}"))}
    return found | (spread if A.size > 20 else {})  # fewer entries say little of how they spread


def two_draws(lora_init, d, k, r, rng):
    """The A of two layers, one after the other from one generator."""
    return lora_init(d, k, r, rng)[0], lora_init(d, k, r, rng)[0]


def drawn(returned, *rest):
    first, second = returned
    return {"the two are equal": bool(np.array_equal(first, second))}


def paths_forward(h, x, W0, A, B, alpha):
    return {"the update h - x W0^T": h - x @ W0.T, "h less the update": h - alpha / len(A) * x @ A.T @ B.T}


def paths_back(returned, x, W0, A, B, alpha, g):
    dA, dB, dx = returned
    return {"dA": dA, "dB": dB, "dx - g W0": dx - g @ W0,
            "dx less what comes through A": dx - alpha / len(A) * g @ B @ A}


def drawing(A=lambda d, k, r, rng: rng.uniform(-1, 1, (r, k)) / k ** 0.5, B=lambda d, k, r, rng: np.zeros((d, r))):
    """lora_init with another A or B."""
    return lambda d, k, r, rng: (A(d, k, r, rng), B(d, k, r, rng))


def scaled(scale):
    """A forward pass with another scale: scale(alpha, A, B)."""
    return lambda x, W0, A, B, alpha: x @ W0.T + scale(alpha, A, B) * (x @ A.T @ B.T)


def backward(scale=lambda alpha, A, B: alpha / len(A), dA=None, dB=None, dx=None):
    """A backward pass with one thing wrong: another scale, or another formula for one of the gradients."""
    def wrong(x, W0, A, B, alpha, g):
        s = scale(alpha, A, B)
        q = Namespace(x=x, W0=W0, A=A, B=B, s=s, g=g, u=x @ A.T, dv=s * g, du=s * g @ B)
        right = q.du.T @ x, q.dv.T @ q.u, g @ W0 + q.du @ A
        return tuple(own(q) if own else known for own, known in zip((dA, dB, dx), right, strict=True))
    return wrong


KNOWN = {mistake.name: mistake for mistake in MISTAKES}  # those that the sheets for paper name, too


def forward_as(name):
    """(wrong lora_forward, what is true) of a mistake of the sheets: their columns are the rows here."""
    formulas = FORMULAS | KNOWN[name].wrong
    return (lambda x, W0, A, B, alpha: work(formulas, x.T, 0, W0, A, B, alpha)["h"].T), KNOWN[name].sentence


def backward_as(name):
    """(wrong lora_backward, what is true) of a mistake of the sheets; dh is given."""
    def wrong(x, W0, A, B, alpha, g):
        q = work(FORMULAS | {"dh": lambda q: g.T} | KNOWN[name].wrong, x.T, 0, W0, A, B, alpha)
        return q["dA"], q["dB"], q["dx"].T
    return wrong, KNOWN[name].sentence


TASKS = (
    Task(
        lora_init, ("A", "B"),
        checks=(Check("the start of a layer of d = 7, k = 60, r = 3", lambda rng: (7, 60, 3, rng), properties=start,
                      example=lambda: (3, 5, 2, np.random.default_rng(0))),
                Check("and of one with d = 40, k = 11, r = 5", lambda rng: (40, 11, 5, rng), properties=start),
                Check("two layers from one generator, which get different numbers", lambda rng: (4, 6, 3, rng),
                      call=two_draws, returns=("the first A", "the second A"), properties=drawn)),
        hints=("Before the first step, the adapted layer must compute exactly what the frozen one does. Which factor "
               "can be zero so that it does, while the other still lets a gradient through?",
               "A is (r, k), drawn uniformly between -1/sqrt(k) and 1/sqrt(k); B is (d, r), zeros.",
               "return rng.uniform(-bound, bound, ____), np.zeros(____)        with bound = 1 / np.sqrt(____)"),
        misconceptions=(
            Misconception(
                "both-factors-zero", drawing(A=lambda d, k, r, rng: np.zeros((r, k))),
                "dB holds A x and dA holds B, so with both at zero both gradients are zero, and stay zero for ever.",
                "call lora_backward with A and B all zero, and look at dA and dB."),
            Misconception(
                "B-not-zero", drawing(B=lambda d, k, r, rng: rng.uniform(-1, 1, (d, r)) / r ** 0.5),
                "With B away from zero the output changes before any training: the pretrained model is damaged first.",
                "compare lora_forward at your A and B with x @ W0.T."),
            Misconception(
                "A-zero-instead-of-B", drawing(lambda d, k, r, rng: np.zeros((r, k)),
                                               lambda d, k, r, rng: rng.uniform(-1, 1, (d, r)) / k ** 0.5),
                "One factor is zero, but LoRA's choice is B: A is drawn at random and B starts at zero.",
                "look at LoraLinear(Linear(5, 3), LoraConfig(r=2)).lora_A in the library."),
            Misconception(
                "factor-shapes-swapped", lambda d, k, r, rng: (rng.uniform(-1, 1, (k, r)) / k ** 0.5, np.zeros((r, d))),
                "A takes x to r numbers and B takes these to d: A is (r, k) and B is (d, r).",
                "write the shapes under W0 x + B A x, and see which neighbours must be equal."),
            Misconception(
                "A-and-B-exchanged", lambda d, k, r, rng: (rng.uniform(-1, 1, (d, r)) / k ** 0.5, np.zeros((r, k))),
                "x meets A first: A has k columns, B has d rows.",
                "work out B @ A with your two arrays: it must have the shape (d, k) of W0."),
            Misconception(
                "A-uniform-from-0", drawing(A=lambda d, k, r, rng: rng.uniform(0, 1, (r, k)) / k ** 0.5),
                "These are drawn from 0 up. A is drawn on both sides of 0: from -1/sqrt(k) to 1/sqrt(k).",
                "print A.min() and A.mean()."),
            Misconception(
                "normal-instead-of-uniform", drawing(A=lambda d, k, r, rng: rng.normal(0, k ** -0.5, (r, k))),
                "Normal numbers have no bound; A is drawn uniformly, between -1/sqrt(k) and 1/sqrt(k).",
                "print np.abs(A).max() beside 1 / np.sqrt(k)."),
            Misconception(
                "A-not-scaled-to-its-width", drawing(A=lambda d, k, r, rng: rng.uniform(-1, 1, (r, k))),
                "The bound 1/sqrt(k) keeps A x as large as x, however wide the layer is.",
                "print np.abs(A @ x).mean() for k = 10, 100 and 1000, with x of normal numbers."),
            Misconception(
                "generator-ignored", drawing(A=lambda d, k, r, rng: np.random.default_rng(0).uniform(-1, 1, (r, k))
                                             / k ** 0.5),
                "Every layer gets the same numbers: draw from the generator that is given, which goes on from where it "
                "was.",
                "call lora_init twice with one rng, and compare the two A."),
        )),
    Task(
        lora_forward, "h",
        checks=(Check("a batch of 4 rows, r = 2, alpha = 5", numbers(4, 5, 3, 2, 5.0), worked_example,
                      parts=paths_forward),
                Check("r = 3, alpha = 12, more outputs than inputs", numbers(2, 4, 7, 3, 12.0), parts=paths_forward),
                Check("a square weight, where a wrong transpose raises no error", numbers(3, 3, 3, 3, 2.0),
                      parts=paths_forward),
                Check("B = 0: the frozen layer's own output", numbers(4, 5, 3, 2, 5.0, zero_B=True))),
        hints=("The same x takes two ways to h. Which two, and what happens to the second before they are added?",
               "h = x W0^T + (alpha / r) (x A^T) B^T, with x (n, k), W0^T (k, d), A^T (k, r), B^T (r, d); r is len(A).",
               "return x @ W0.T + ____ / ____ * (x @ ____ @ ____)"),
        misconceptions=(
            Misconception(
                "alpha-not-divided-by-r", *forward_as("alpha for alpha/r"),
                "double r by stacking A on itself and B beside itself: B A doubles, and alpha / r should undo that."),
            Misconception(
                "scale-forgotten", *forward_as("the scale forgotten"),
                "call lora_forward with alpha = 0: nothing but x @ W0.T should remain."),
            Misconception(
                "r-over-alpha", scaled(lambda alpha, A, B: len(A) / alpha),
                "The scale is alpha / r: a larger alpha makes a larger update.",
                "call lora_forward with alpha = 1 and alpha = 100, and compare how far h moves from x @ W0.T."),
            Misconception(
                "divided-by-the-root-of-r", scaled(lambda alpha, A, B: alpha / len(A) ** 0.5),
                "alpha / sqrt(r) is rsLoRA, a variant; LoRA's own scale is alpha / r.",
                "compute both scales for r = 1 and r = 64."),
            Misconception(
                "scaled-twice", *forward_as("scaled twice"),
                "double alpha: the update should double, yours is four times as large."),
            Misconception(
                "everything-scaled", lambda x, W0, A, B, alpha: alpha / A.shape[0] * (x @ W0.T + x @ A.T @ B.T),
                "Only the update is scaled; the frozen output stays as it is.",
                "set B to zero: h should be x @ W0.T for every alpha."),
            Misconception(
                "divided-by-k", scaled(lambda alpha, A, B: alpha / A.shape[1]),
                "This divides by k, the number of inputs. r is the number of rows of A, A.shape[0].",
                "print A.shape and say which number is the rank."),
            Misconception(
                "divided-by-d", scaled(lambda alpha, A, B: alpha / len(B)),
                "This divides by d, the number of outputs. r is the number of rows of A, and of columns of B.",
                "print A.shape and B.shape, and say which number they share."),
            Misconception(
                "alpha-floor-divided", scaled(lambda alpha, A, B: alpha // len(A)),
                "alpha // r is rounded down to a whole number; the scale is alpha / r.",
                "print 5 // 2 and 5 / 2.", source="//"),
            Misconception(
                "frozen-path-left-out", lambda x, W0, A, B, alpha: alpha / A.shape[0] * (x @ A.T @ B.T),
                "The update is added to what the frozen weight gives; it does not take its place.",
                "set B to zero: h should be x @ W0.T, not zero."),
            Misconception(
                "update-left-out", *forward_as("the LoRA path left out of h"),
                "multiply B by 10: h should move."),
            Misconception(
                "A-and-B-not-transposed", lambda x, W0, A, B, alpha: x @ W0.T + alpha / A.shape[0] * (x @ A @ B),
                "x lies in rows, so A x is x @ A.T. On a square layer the missing .T raises no error, and is as wrong.",
                "print (x @ A.T).shape: each row of x must become r numbers."),
            Misconception(
                "nothing-transposed", lambda x, W0, A, B, alpha: x @ W0 + alpha / A.shape[0] * (x @ A @ B),
                "x lies in rows, so W0 x is x @ W0.T, and B A x is x @ A.T @ B.T.",
                "print W0.shape: x has as many numbers in a row as W0 has columns."),
            Misconception(
                "nothing-transposed-and-B-first",
                lambda x, W0, A, B, alpha: x @ W0 + alpha / A.shape[0] * (x @ B @ A),
                "x lies in rows, so W0 x is x @ W0.T, and B A x is x @ A.T @ B.T.",
                "print W0.shape: x has as many numbers in a row as W0 has columns."),
            Misconception(
                "x-taken-for-a-column", lambda x, W0, A, B, alpha: W0 @ x + alpha / A.shape[0] * (B @ A @ x),
                "W0 x and B A x are written for one column x; here inputs are rows: x @ W0.T and x @ A.T @ B.T.",
                "print x.shape and W0.shape: each row of x is one input."),
            Misconception(
                "W0-not-transposed", *forward_as("W0^T for W0 in the forward pass"),
                "use W0 = [[0, 1], [0, 0]] and x = [[0, 1]]: output 0 should be 1."),
            Misconception(
                "B-before-A", lambda x, W0, A, B, alpha: x @ W0.T + alpha / A.shape[0] * (x @ B.T @ A.T),
                "x meets A first: in B A x the factor nearest to x acts first.",
                "print the shapes of x @ A.T and of x @ A.T @ B.T for d = 3, k = 5, r = 2."),
        )),
    Task(
        lora_backward, ("dA", "dB", "dx"),
        checks=(Check("a batch of 4 rows, r = 2, alpha = 5, uneven upstream gradients", numbers(4, 5, 3, 2, 5.0, True),
                      lambda: (*worked_example(), np.array([[2.0, -3.0]])), parts=paths_back),
                Check("r = 3, alpha = 12, more outputs than inputs", numbers(2, 4, 7, 3, 12.0, True), parts=paths_back),
                Check("a square weight, where a wrong transpose raises no error", numbers(3, 3, 3, 3, 2.0, True),
                      parts=paths_back),
                Check("the start of training, B = 0", numbers(4, 5, 3, 2, 5.0, True, True))),
        hints=("Name the steps: u = A x, v = B u, h = W0 x + s v with s = alpha / r. Walk them backwards. In how many "
               "ways does x reach h?",
               "dv = s g (n, d); du = dv B (n, r); dA = du^T x (r, k); dB = dv^T u (d, r); dx = g W0 + du A (n, k).",
               "return du.T @ ____, dv.T @ ____, g @ ____ + du @ ____"),
        misconceptions=(
            Misconception(
                "frozen-path-dropped-from-dx", *backward_as("the frozen path dropped from dx"),
                "measure the slope: move one entry of x by 1e-6 and see how sum(g * h) changes."),
            Misconception(
                "lora-path-dropped-from-dx", *backward_as("the LoRA path dropped from dx"),
                "measure the slope: move one entry of x by 1e-6 and see how sum(g * h) changes."),
            Misconception(
                "scale-forgotten-going-back", *backward_as("the scale forgotten in the backward pass"),
                "double alpha: dA and dB should double."),
            Misconception(
                "alpha-not-divided-going-back", *backward_as("alpha for alpha/r in the backward pass"),
                "compare dB with the slope of sum(g * h) in one entry of B."),
            Misconception(
                "alpha-floor-divided-going-back", backward(scale=lambda alpha, A, B: alpha // len(A)),
                "alpha // r is rounded down to a whole number; the scale is alpha / r.",
                "print 5 // 2 and 5 / 2.", source="//"),
            Misconception(
                "divided-by-d-going-back", backward(scale=lambda alpha, A, B: alpha / len(B)),
                "This divides by d, the number of outputs. r is the number of rows of A, and of columns of B.",
                "print A.shape and B.shape, and say which number they share."),
            Misconception(
                "dA-not-scaled", backward(dA=lambda q: (q.g @ q.B).T @ q.x),
                "A reaches h through s v with s = alpha / r, so that dA holds the scale as dB does.",
                "double alpha: dA must double."),
            Misconception(
                "dB-not-scaled", backward(dB=lambda q: q.g.T @ q.u),
                "B reaches h through s v with s = alpha / r, so that dB holds the scale as dA does.",
                "double alpha: dB must double."),
            Misconception(
                "dx-not-scaled", backward(dx=lambda q: q.g @ q.W0 + q.g @ q.B @ q.A),
                "x reaches h a second time through s v with s = alpha / r: that part of dx holds the scale too.",
                "double alpha: dx - g @ W0 must double."),
            Misconception(
                "scaled-again-in-dA", backward(dA=lambda q: q.s * q.du.T @ q.x),
                "dv = s g holds the scale already, and du = dv B inherits it; dA = du^T x needs no other.",
                "double alpha: dA should double, yours is four times as large."),
            Misconception(
                "scaled-again-in-dB", backward(dB=lambda q: q.s * q.dv.T @ q.u),
                "dv = s g holds the scale already; dB = dv^T u takes the unscaled u = A x.",
                "double alpha: dB should double, yours is four times as large."),
            Misconception(
                "dA-without-B", backward(dA=lambda q: (q.s * q.g.sum(1, keepdims=True) * np.ones(q.u.shape)).T
                                         @ q.x),
                "A reaches h through B: du = dv B weighs each output by its row of B.",
                "set B to zero: dA must be zero, because A then has no influence on h."),
            Misconception(
                "dA-and-dB-swapped", lambda x, W0, A, B, alpha, g: tuple(
                    backward()(x, W0, A, B, alpha, g)[i] for i in (1, 0, 2)),
                "The order is dA, dB, dx. " + KNOWN["dA and dB swapped"].sentence,
                "print the shapes of A, B and of what you return."),
            Misconception(
                "gradients-transposed", *backward_as("transposed"),
                "try A - 0.1 * dA: on a layer that is not square, NumPy refuses."),
            Misconception(
                "W0-transposed-in-dx", *backward_as("W0 for its transpose in dx"),
                "write the shapes: g is (n, d), and dx must be (n, k)."),
            Misconception(
                "x-for-u-in-dB", backward(dB=lambda q: q.dv.T @ q.x),
                "What B multiplies is u = A x, not x: dB = dv^T u.",
                "print the shape of your dB: (d, k) is the shape of W0's gradient."),
            Misconception(
                "averaged-over-the-batch", backward(dA=lambda q: q.du.T @ q.x / len(q.x),
                                                    dB=lambda q: q.dv.T @ q.u / len(q.x)),
                "Every row of the batch adds to dA and dB; a mean, if there is one, is in g already.",
                "give the same row twice: dA should be twice that of one row."),
        )),
)
