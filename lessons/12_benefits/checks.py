"""Checks of exercise 12. The right answers come from the library's LoraLinear, and from counting products."""

import numpy as np

from lessons.course.checking.tasks import Check, Misconception, Task
from lora_np import LoraConfig, Tensor
from lora_np.lora import LoraLinear
from lora_np.nn import Linear

NAME = "ex12_deploying"
TITLE = "merging and what an adapter costs"


def library(layer):
    """The library's LoraLinear with these numbers, merged or not."""
    (d, r), k = layer["B"].shape, layer["A"].shape[1]
    lora = LoraLinear(Linear(k, d, bias=False), LoraConfig(r=r, lora_alpha=layer["alpha"]))
    lora.weight.data = layer["W"] if layer["W0"] is None else layer["W0"]
    lora.lora_A.data, lora.lora_B.data = layer["A"], layer["B"]
    if layer["W0"] is not None:
        lora.merge()
    return lora


def set_merged(layer, merged):
    lora = library(layer)
    lora.merge() if merged else lora.unmerge()
    return {**layer, "W": lora.weight.numpy(), "W0": lora.w0().copy() if merged else None}


def forward(layer, x, training, mask):
    lora = library(layer).train(training)
    if not training:
        return lora(x).numpy()
    if lora.merged:
        return lora(Tensor(x)).numpy()  # which raises
    return x @ lora.weight.data.T + (x * mask) @ lora.delta().T


def costs(d, k, r, merged):
    A, B = np.zeros((r, k), np.float32), np.zeros((d, r), np.float32)
    return sum(len(M) * M.shape[1] for M in ([np.zeros((d, k))] + [A, B] * (not merged))), A.nbytes + B.nbytes


def layer(d, k, r, alpha, rng, merged=False):
    W, A, B = (rng.normal(size=shape) for shape in ((d, k), (r, k), (d, r)))
    kept = W + alpha / r * B @ A if merged else W
    return {"W": kept, "A": A, "B": B, "alpha": alpha, "W0": W if merged else None, "name": "layers.0.q_proj"}


def tiny(*rest):
    """The layer of the examples, and further arguments."""
    return {"W": np.array([[1.0]]), "A": np.array([[2.0]]), "B": np.array([[3.0]]), "alpha": 1, "W0": None}, *rest


def switched(was, now, d=3, k=5, r=2, alpha=5.0):
    return lambda rng: (layer(d, k, r, alpha, rng, was), now)


def update_added(new, old, merged):
    return {"the update W - W0": new["W"] - (old["W"] if old["W0"] is None else old["W0"])}


def lora_path(h, layer, x, training, mask):
    return {"h - x W^T": h - x @ layer["W"].T}


def new_and_old(set_merged, layer, merged):
    """The new W, and the array that W was before, which others may hold too."""
    held = layer["W"]
    return set_merged(layer, merged)["W"], held


def passed_through(merged, training, d=3, k=5, r=2, alpha=5.0):
    def draw(rng):
        mask = rng.choice([0.0, 2.0], (4, k))
        mask[0, :2] = 0.0, 2.0
        return layer(d, k, r, alpha, rng, merged), rng.normal(size=(4, k)), training, mask
    return draw


def sizes(merged):
    return lambda rng: (*(int(v) for v in rng.integers(20, 90, 2)), int(rng.integers(2, 9)), merged)


def scaling(layer):
    return layer["alpha"] / len(layer["A"])


def in_place(old, merged):
    update = scaling(old) * old["B"] @ old["A"]
    before = old["W"].copy()
    if merged == (old["W0"] is not None):
        return dict(old)
    if not merged:
        return {**old, "W": old["W0"], "W0": None}
    old["W"] += update
    return {**old, "W": old["W"], "W0": before}


def merging(scale=scaling, twice=False, undo=lambda q, update: q["W0"], keep=True):
    """set_merged with another scale, without a look at whether it is merged, or with another way back."""
    def wrong(old, merged):
        update = scale(old) * old["B"] @ old["A"]
        if merged and (twice or old["W0"] is None):
            return {**old, "W": old["W"] + update, "W0": old["W"] if keep else None}
        if not merged and old["W0"] is not None:
            return {**old, "W": undo(old, update), "W0": None}
        return dict(old)
    return wrong


def running(error=True, merged_too=False, dropped=lambda x, mask, training: x * mask if training else x, both=False,
            scale=scaling):
    """forward with one thing wrong."""
    def wrong(q, x, training, mask):
        if q["W0"] is not None and training and error:
            raise RuntimeError("merged")
        update = scale(q) * dropped(x, mask, training) @ q["A"].T @ q["B"].T
        h = (dropped(x, mask, training) if both else x) @ q["W"].T
        return h if q["W0"] is not None and not merged_too else h + update
    return wrong


def counted(adds=lambda d, k, r, merged: d * k + (not merged) * r * (d + k), size=lambda d, k, r: 4 * r * (d + k)):
    return lambda d, k, r, merged: (adds(d, k, r, merged), size(d, k, r))


TASKS = (
    Task(
        set_merged, "the layer",
        checks=(Check("merging", switched(False, True), lambda: tiny(True), parts=update_added),
                Check("merging a square layer, where a wrong transpose raises no error",
                      switched(False, True, 3, 3, 3), parts=update_added),
                Check("merging what is merged: nothing changes", switched(True, True), parts=update_added),
                Check("unmerging gives back the bits of W0", switched(True, False), exact=True),
                Check("unmerging what is not merged: nothing changes", switched(False, False), exact=True),
                Check("merging: the array that W was before must not change", switched(False, True), call=new_and_old,
                      returns=("the new W", "the array that W was before"))),
        hints=("Four cases: merged or not, asked for or not. In which two is there nothing to do? And what has to be "
               "kept, so that the way back is exact?",
               "Merging: W = W0 + (alpha / r) B A, a new array, and W0 is kept. Unmerging: W is the array that was "
               "kept.",
               "return {**layer, \"W\": ____ + update, \"W0\": ____}        and back: "
               "{**layer, \"W\": ____, \"W0\": ____}"),
        misconceptions=(
            Misconception(
                "merged-twice", merging(twice=True),
                "Merging a merged layer adds the update a second time: W - W0 is then twice the update.",
                "merge twice and print np.linalg.norm(W - W0) each time."),
            Misconception(
                "toggled", lambda q, merged: merging()(q, q["W0"] is None),
                "The second argument says what is asked for; this goes from one to the other whatever it says.",
                "call it twice with merged = True: the second call must change nothing."),
            Misconception(
                "unmerged-by-subtracting", merging(undo=lambda q, update: q["W"] - update),
                "(W0 + u) - u is W0 only up to rounding; the array that was kept is exact.",
                "print (W0 + u - u == W0).all()."),
            Misconception(
                "alpha-not-divided-when-merging", merging(scale=lambda q: q["alpha"]),
                "The update is (alpha / r) B A, in the merged weight as in the forward pass.",
                "compare the outputs before and after merging."),
            Misconception(
                "scale-forgotten-when-merging", merging(scale=lambda q: 1.0),
                "The update is (alpha / r) B A, in the merged weight as in the forward pass.",
                "compare the outputs before and after merging."),
            Misconception(
                "alpha-floor-divided-when-merging", merging(scale=lambda q: q["alpha"] // len(q["A"])),
                "alpha // r is rounded down to a whole number; the update is (alpha / r) B A.",
                "print 5 // 2 and 5 / 2.", source="//"),
            Misconception(
                "divided-by-d-when-merging", merging(scale=lambda q: q["alpha"] / len(q["B"])),
                "This divides by d, the number of outputs. r is the number of rows of A, and of columns of B.",
                "print the shapes of A and B, and say which number they share."),
            Misconception(
                "W0-not-kept", merging(keep=False),
                "Without the array of before there is no exact way back, and nothing says that the layer is merged.",
                "merge, and then try to unmerge."),
            Misconception(
                "never-unmerged", merging(undo=lambda q, update: q["W"]),
                "Unmerging puts the array that was kept into the place of W.",
                "compare W before merging and after unmerging."),
            Misconception(
                "tied-head-merged-in-place", in_place,
                "+= writes into the array that W was before, and whoever else holds it sees it change, as the layer "
                "that was given does.",
                "let before = layer[\"W\"], merge, and look at before.", r"\+=|out=", "W merged in place"),
        )),
    Task(
        forward, "h",
        checks=(Check("not merged, in use", passed_through(False, False),
                      lambda: tiny(np.array([[1.0]]), False, np.array([[0.0]])), parts=lora_path),
                Check("not merged, in training: with dropout", passed_through(False, True),
                      lambda: tiny(np.array([[1.0]]), True, np.array([[0.0]])), parts=lora_path),
                Check("a square layer, where a wrong transpose raises no error", passed_through(False, False, 3, 3, 3),
                      parts=lora_path),
                Check("merged, in use", passed_through(True, False), parts=lora_path),
                Check("merged, in training: an error", passed_through(True, True), raises=True)),
        hints=("When is W the whole truth? Which path does the dropout of LoRA lie on, and when is it active?",
               "Merged: x W^T. Not merged: x W^T + (alpha / r) x' A^T B^T, where x' is x * mask in training, else x.",
               "return x @ layer[\"W\"].T + scale * (____ if training else ____) @ layer[\"A\"].T @ layer[\"B\"].T"),
        misconceptions=(
            Misconception(
                "trained-while-merged", running(error=False),
                "A merged layer does not use A and B, so they get no gradient: training would run and change nothing.",
                "train a merged layer for a step, and look at B."),
            Misconception(
                "update-added-to-a-merged-weight", running(merged_too=True),
                "The merged W holds the update already; here it is added once more.",
                "compare the output of a layer before and after merging."),
            Misconception(
                "dropout-in-use", running(dropped=lambda x, mask, training: x * mask),
                "Dropout is for training only; in use it would make the output random.",
                "call it twice with training = False and two masks: the outputs must be equal."),
            Misconception(
                "dropout-left-out", running(dropped=lambda x, mask, training: x),
                "In training, A gets x * mask.",
                "call it with training = True and a mask of zeros: only x @ W.T should remain."),
            Misconception(
                "dropout-on-the-frozen-path", running(both=True),
                "The dropout of LoRA lies on the way to A; the frozen path gets x as it is.",
                "call it with training = True and a mask of zeros: x @ W.T should remain."),
            Misconception(
                "alpha-not-divided-in-use", running(scale=lambda q: q["alpha"]),
                "The update is (alpha / r) B A, in use as in the merged weight.",
                "compare the outputs before and after merging with set_merged."),
        )),
    Task(
        costs, ("the number of multiply-adds", "the number of bytes"),
        checks=(Check("not merged", sizes(False), lambda: (4096, 4096, 8, False)), Check("merged", sizes(True))),
        hints=("Multiply a token by A, then the result by B: how many products is that? What is in the file?",
               "d k for W x, r k for A x, d r for B u; the file holds r (d + k) numbers of 4 bytes.",
               "adapter = r * (____); return d * k + (____ if merged else ____), 4 * ____"),
        misconceptions=(
            Misconception(
                "unmerged-costs-nothing", counted(adds=lambda d, k, r, merged: d * k),
                "Before merging, every token also goes through A and B: r (d + k) multiply-adds more.",
                "count the multiplications of x @ A.T @ B.T for one row x."),
            Misconception(
                "merged-still-pays", counted(adds=lambda d, k, r, merged: d * k + r * (d + k)),
                "A merged weight has W's own shape and cost.",
                "count the multiplications of x @ W.T for one row x."),
            Misconception(
                "update-formed-for-every-token",
                counted(adds=lambda d, k, r, merged: d * k + (not merged) * (d * k * r + d * k)),
                "B (A x) needs no B A: first A x, r numbers, then B times these.",
                "count the multiplications of B @ (A @ x) and of (B @ A) @ x."),
            Misconception(
                "merged-is-cheaper-than-the-base",
                counted(adds=lambda d, k, r, merged: r * (d + k) if merged else d * k + r * (d + k)),
                "Merging does not make W thin: B A added to W0 is a full matrix again.",
                "print the shape of W0 + B @ A."),
            Misconception(
                "whole-model-saved", counted(size=lambda d, k, r: 4 * (d * k + r * (d + k))),
                "W0 did not change, and everybody who has the base has it: the file needs only A and B.",
                "compare the size of this file with the size of the base."),
            Misconception(
                "merged-weight-saved", counted(size=lambda d, k, r: 4 * d * k),
                "A merged weight is as large as the base; A and B alone say the same in r (d + k) numbers.",
                "compare the size of this file with the size of the base."),
            Misconception(
                "numbers-for-bytes", counted(size=lambda d, k, r: r * (d + k)),
                "A number in float32 takes 4 bytes.",
                "print np.zeros(10, np.float32).nbytes."),
        )),
)
