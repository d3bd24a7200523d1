"""Checks of exercise 14. The right answers come from the library's RMSNorm and from plain loops."""

from types import SimpleNamespace as Namespace

import numpy as np

from lessons.course.checking.tasks import Check, Misconception, Task
from lora_np import Tensor, ops

NAME = "ex14_language_model"
TITLE = "pieces of a language model"


def completion_targets(prompt, completion, end, length):
    text, x, y = [*prompt, *completion, end], [], []
    for i in range(length):
        x.append(text[i] if i < len(text) - 1 else end)
        y.append(text[i + 1] if len(prompt) <= i + 1 < len(text) else -100)
    return x, y


def unpack_q4_1(scale, shift, codes):
    return np.array([d * q + m for d, m, block in zip(scale.tolist(), shift.tolist(), codes.tolist(), strict=True)
                     for q in [byte % 16 for byte in block] + [byte // 16 for byte in block]])


def rms_norm(x, weight, eps, g):
    x, weight = Tensor(x, requires_grad=True), Tensor(weight, requires_grad=True)
    y = ops.rms_norm(x, weight, eps)
    y.backward(g)
    return y.numpy(), x.grad, weight.grad


def texts(prompt, completion, length, end_inside=False):
    """A prompt and a completion of so many ids. end_inside: both hold the end's id, too."""
    def draw(rng):
        ids = rng.permutation(np.arange(3, 100))[:prompt + completion].tolist()
        if end_inside:
            ids[prompt - 2] = ids[prompt + 1] = 2
        return ids[:prompt], ids[prompt:], 2, length
    return draw


def wrong_targets(masked=lambda i, prompt, text: i + 1 < len(prompt), y=lambda text: text[1:], fill=-100, skip=-100):
    """completion_targets with another choice of places, other targets, or other numbers to fill with."""
    def wrong(prompt, completion, end, length):
        text = [*prompt, *completion, end]
        x, wanted = text[:-1], y(text)
        wanted = [skip if masked(i, prompt, text) else t for i, t in enumerate(wanted)]
        pad = length - len(x)
        return x + [end] * pad, wanted + [end if fill == "end" else fill] * pad
    return wrong


def padded_left(prompt, completion, end, length):
    text = [*prompt, *completion, end]
    pad = length - len(text) + 1
    return [end] * pad + text[:-1], [-100] * (pad + len(prompt) - 1) + text[len(prompt):]


def masked_by_id(prompt, completion, end, length):
    x, y = completion_targets(prompt, completion, end, length)
    return x, [-100 if t == end else t for t in y]


def kept_whole(prompt, completion, end, length):
    """The text and its targets, none shifted: each id is asked to predict itself."""
    text = [*prompt, *completion, end]
    pad = length - len(text)
    return text + [end] * pad, [-100] * len(prompt) + text[len(prompt):] + [-100] * pad


def blocks(n):
    return lambda rng: (rng.uniform(0.01, 0.1, n), rng.uniform(-1, -0.1, n),
                        rng.integers(0, 256, (n, 16), dtype=np.uint8))


def wrong_weights(q=lambda low, high: np.concatenate([low, high], 1), w=lambda d, q, m: d * q + m):
    """unpack_q4_1 with another order of the two halves, or another formula."""
    def wrong(scale, shift, codes):
        return w(scale[:, None], q(codes & 15, codes >> 4).astype(float), shift[:, None]).ravel()
    return wrong


def rows(n, d, tiny=False):
    """x, weight, eps and g. tiny: x is so small that eps decides."""
    def draw(rng):
        x = rng.normal(0.5, 1, (n, d)) * (1e-3 if tiny else 1)
        return x, rng.uniform(0.5, 2, d), 1e-5, rng.normal(size=(n, d))
    return draw


def root(x, eps):
    return np.sqrt((x ** 2).mean(1, keepdims=True) + eps)


def along(q):
    """How much g, times the weight, points along xhat: what the row's size takes up of it."""
    return (q.dxhat * q.xhat).mean(1, keepdims=True)


def wrong_norm(rms=root, y=lambda q: q.xhat * q.weight, dx=lambda q: (q.dxhat - q.xhat * along(q)) / q.rms,
               dweight=lambda q: (q.g * q.xhat).sum(0), dxhat=lambda g, weight: g * weight):
    """rms_norm with another rms, which is then used forward and backward, or another formula for one of the results."""
    def wrong(x, weight, eps, g):
        size = rms(x, eps)
        q = Namespace(x=x, weight=weight, g=g, rms=size, xhat=x / size, dxhat=dxhat(g, weight))
        return y(q), dx(q), dweight(q)
    return wrong


def layer_norm(x, weight, eps, g):
    x, weight = Tensor(x, requires_grad=True), Tensor(weight, requires_grad=True)
    y = ops.layer_norm(x, weight, np.zeros(weight.shape), eps)
    y.backward(g)
    return y.numpy(), x.grad, weight.grad


TASKS = (
    Task(
        completion_targets, ("x", "y"),
        checks=(Check("a prompt of 5 and a completion of 3, filled up to 12", texts(5, 3, 12),
                      example=lambda: ([5, 6, 7], [8, 9], 2, 6)),
                Check("nothing to fill up", texts(4, 6, 10)),
                Check("the end's id inside of prompt and completion", texts(4, 5, 13, end_inside=True))),
        hints=("At which place of x is the first id of the completion predicted: at the last id of the prompt, or at "
               "its own?",
               "text = prompt + completion + [end]; x = text[:-1], y = text[1:], and y is -100 at the first "
               "len(prompt) - 1 places: the last id of the prompt predicts the completion's first.",
               "y = [-100] * (len(prompt) - ____) + text[____:]; then fill up: x with end, y with ____"),
        misconceptions=(
            Misconception(
                "padding-masked-by-id", masked_by_id,
                "Filling and end have one id, so what is masked by id masks the end, too: the model never learns to "
                "stop. Mask by place.",
                "count the targets that are `end`: there must be one, behind the completion."),
            Misconception(
                "targets-not-shifted", kept_whole,
                "The target of a place is the next id, not the one that stands there: that one the model has been "
                "told.",
                "read x and y side by side: where x holds 8, y should hold what follows 8."),
            Misconception(
                "loss-on-the-prompt", wrong_targets(masked=lambda i, prompt, text: False),
                "The prompt is given, so there is nothing to learn from it: its places get -100.",
                "count the targets that are not -100: len(completion) + 1 of them."),
            Misconception(
                "first-id-not-learned", wrong_targets(masked=lambda i, prompt, text: i < len(prompt)),
                "The completion's first id is predicted at the prompt's last place, so that place has a target.",
                "count the targets that are not -100: len(completion) + 1 of them."),
            Misconception(
                "last-id-of-the-prompt-learned", wrong_targets(masked=lambda i, prompt, text: i + 2 < len(prompt)),
                "y starts one place later than x: the prompt has len(prompt) - 1 targets of its own, and all of them "
                "are masked.",
                "read y: the first number that is not -100 must be completion[0]."),
            Misconception(
                "end-not-learned", wrong_targets(masked=lambda i, prompt, text: i + 1 < len(prompt)
                                                 or i == len(text) - 2),
                "The end is a target like any other; without it the model answers and then goes on talking.",
                "count the targets that are not -100: len(completion) + 1 of them."),
            Misconception(
                "filling-learned", wrong_targets(fill="end"),
                "What fills x up is no text: its targets are -100, or most of the loss is about predicting filling.",
                "make length 100: the number of targets should stay the same."),
            Misconception(
                "padded-on-the-left", padded_left,
                "Filled up on the left, every id of the text sees the filling in front of it; on the right none does.",
                "compare x[0] with prompt[0]."),
            Misconception(
                "masked-with-0", wrong_targets(fill=0, skip=0),
                "0 is the id of a token, which the model would learn to say; -100 is no id, and the loss leaves it "
                "out.",
                "look up which token has the id 0."),
            Misconception(
                "masked-with-minus-1", wrong_targets(fill=-1, skip=-1),
                "The field's convention is -100, and that is what cross_entropy leaves out.",
                "call ops.cross_entropy(logits, targets) with a target of -1."),
        )),
    Task(
        unpack_q4_1, "weights",
        checks=(Check("three blocks", blocks(3),
                      example=lambda: (np.array([0.5]), np.array([-1.0]), np.full((1, 16), 0x31, np.uint8))),
                Check("one block", blocks(1))),
        hints=("A byte holds two numbers of four bits. Which operations take the low and the high ones out of it?",
               "low = codes & 15, high = codes >> 4, both (n, 16); q = [low, high] side by side, (n, 32); "
               "w = scale q + shift, with a scale and a shift for each row.",
               "q = np.concatenate([codes & ____, codes >> ____], axis=1); "
               "return (scale[:, None] * q + ____).ravel()"),
        misconceptions=(
            Misconception(
                "nibbles-in-turn", wrong_weights(q=lambda low, high: np.stack([low, high], 2).reshape(len(low), 32)),
                "The two halves of byte j are weights j and j + 16, not neighbours.",
                "unpack a block whose bytes are all 0x31: sixteen equal numbers, then sixteen others."),
            Misconception(
                "high-half-first", wrong_weights(q=lambda low, high: np.concatenate([high, low], 1)),
                "The low four bits come first: codes & 15 is weights 0 to 15.",
                "unpack a block whose bytes are all 0x31: it begins with q = 1."),
            Misconception(
                "high-bits-not-moved-down", wrong_weights(q=lambda low, high: np.concatenate([low, high << 4], 1)),
                "codes & 0xF0 is 16 times the number; moved down by four bits, codes >> 4, it is 0 to 15.",
                "print the largest q that you find: it must not be above 15."),
            Misconception(
                "scale-and-shift-exchanged", wrong_weights(w=lambda d, q, m: m * q + d),
                "w = scale q + shift: scale is the step between neighbouring values, shift the smallest of them.",
                "unpack bytes of 0: every weight is then the shift."),
            Misconception(
                "shift-left-out", wrong_weights(w=lambda d, q, m: d * q),
                "q begins at 0, and weights do not: the shift is the smallest weight of the block.",
                "unpack bytes of 0: every weight is then the shift."),
            Misconception(
                "eight-taken-off", wrong_weights(w=lambda d, q, m: d * (q - 8)),
                "Q4_0 takes 8 off q and has no shift; Q4_1 has a shift for each block in its place.",
                "unpack bytes of 0: every weight is then the shift."),
            Misconception(
                "shift-scaled-too", wrong_weights(w=lambda d, q, m: d * (q + m)),
                "The shift is a weight as it stands, and is added after the multiplication.",
                "unpack bytes of 0: every weight is then the shift."),
            Misconception(
                "first-block-for-all", lambda scale, shift, codes: wrong_weights()(
                    np.full(len(codes), scale[0]), np.full(len(codes), shift[0]), codes),
                "Each block of 32 has a scale and a shift of its own; that is what makes 4 bits enough.",
                "unpack two blocks whose bytes are equal and whose scales differ."),
        )),
    Task(
        rms_norm, ("y", "dx", "dweight"),
        checks=(Check("4 rows of 6, uneven upstream gradients", rows(4, 6),
                      example=lambda: (np.array([[1.0, 7.0]]), np.array([1.0, 10.0]), 0.0, np.array([[5.0, 0.0]]))),
                Check("one row", rows(1, 5)),
                Check("rows so small that eps decides", rows(3, 5, tiny=True))),
        hints=("One x moves its own y, and by moving the row's size all of the others. In which direction does growing "
               "x push them?",
               "xhat = x / rms, dxhat = g * weight; dx = (dxhat - xhat mean(dxhat * xhat)) / rms with the mean along "
               "the row; dweight = sum over the rows of g * xhat.",
               "rms = np.sqrt((x ** 2).mean(axis=____, keepdims=True) + ____); "
               "dx = (dxhat - xhat * (____ * xhat).mean(axis=____, keepdims=True)) / ____"),
        misconceptions=(
            Misconception(
                "mean-taken-off", layer_norm,
                "That is LayerNorm. RMSNorm takes no mean off; it only divides by the size.",
                "norm a row of equal numbers: LayerNorm gives zeros, RMSNorm ones."),
            Misconception(
                "divided-by-the-length", wrong_norm(
                    rms=lambda x, eps: np.sqrt((x ** 2).sum(1, keepdims=True) + eps),
                    dx=lambda q: (q.dxhat - q.xhat * (q.dxhat * q.xhat).sum(1, keepdims=True)) / q.rms),
                "It is the root of the mean square, not of the sum: a row of ones stays a row of ones.",
                "norm a row of ones, with weight 1."),
            Misconception(
                "eps-outside-the-root", wrong_norm(rms=lambda x, eps: root(x, 0) + eps),
                "eps is added to the mean square, inside of the root.",
                "take x = 0.001 and eps = 1e-5: the two ways differ by far."),
            Misconception(
                "eps-left-out", wrong_norm(rms=lambda x, eps: root(x, 0)),
                "Without eps a row of zeros divides by zero.",
                "norm a row of zeros."),
            Misconception(
                "size-of-all-rows", wrong_norm(rms=lambda x, eps: np.sqrt((x ** 2).mean() + eps)),
                "Each row is a token and has a size of its own: the mean goes along the row.",
                "norm one row alone and among others: the result must be the same."),
            Misconception(
                "norm-weight-left-out", wrong_norm(y=lambda q: q.xhat, dxhat=lambda g, weight: g),
                "The weight gives each column a size again: y is xhat * weight, and dxhat is g * weight.",
                "double the weight: y and dx must double."),
            Misconception(
                "norm-weight-added-to-1", wrong_norm(y=lambda q: q.xhat * (1 + q.weight),
                                                     dxhat=lambda g, weight: g * (1 + weight)),
                "Gemma keeps weight - 1 in its files; Llama keeps the weight itself.",
                "set the weight to zero: y is zero."),
            Misconception(
                "norm-weight-forgotten-going-back", wrong_norm(dxhat=lambda g, weight: g),
                "y = xhat * weight, so what comes back to xhat is g * weight.",
                "double the weight: dx must double."),
            Misconception(
                "size-taken-for-a-constant", wrong_norm(dx=lambda q: q.dxhat / q.rms),
                "rms is made of x, too: a larger x makes the whole row smaller, and that is the second term.",
                "with g = x and weight 1, dx should be nearly 0: y stays where it is when x grows as a whole."),
            Misconception(
                "second-term-added", wrong_norm(dx=lambda q: (q.dxhat + q.xhat * along(q)) / q.rms),
                "A larger x makes the row smaller: the second term is taken off.",
                "with g = x and weight 1, dx should be nearly 0."),
            Misconception(
                "summed-for-mean", wrong_norm(dx=lambda q: (
                    q.dxhat - q.xhat * (q.dxhat * q.xhat).sum(1, keepdims=True)) / q.rms),
                "rms holds a mean over the d entries of a row, and so does its derivative.",
                "with g = x and weight 1, dx should be nearly 0."),
            Misconception(
                "not-divided-by-the-size", wrong_norm(dx=lambda q: q.dxhat - q.xhat * along(q)),
                "xhat = x / rms, so what comes back to x is divided by rms.",
                "scale x by 100: dx must become 100 times smaller."),
            Misconception(
                "mean-of-the-gradient-taken-off", wrong_norm(dx=lambda q: (
                    q.dxhat - q.dxhat.mean(1, keepdims=True) - q.xhat * along(q)) / q.rms),
                "That is LayerNorm's backward pass; RMSNorm has taken no mean off, so none comes back.",
                "add up the entries of a row of dx: LayerNorm's are 0, these need not be."),
            Misconception(
                "dweight-of-x", wrong_norm(dweight=lambda q: (q.g * q.x).sum(0)),
                "The weight multiplies xhat, so dweight holds xhat and not x.",
                "scale x by 100: y, and with it dweight, stays nearly the same."),
            Misconception(
                "dweight-not-summed", wrong_norm(dweight=lambda q: q.g * q.xhat),
                "One weight serves all rows, so its gradient is the sum over them.",
                "print the shape of dweight beside that of weight."),
            Misconception(
                "dweight-averaged", wrong_norm(dweight=lambda q: (q.g * q.xhat).mean(0)),
                "Every row adds to dweight; a mean, if there is one, is in g already.",
                "give the same row twice: dweight should be twice that of one row."),
        )),
)
