"""Checks of exercise 10. The right answers come from the library's add_lora, and from a plain walk over names."""

import numpy as np

from lessons.course.checking.tasks import Check, Misconception, Task
from lora_np import GPT, GPTConfig, LoraConfig
from lora_np.lora import add_lora

NAME = "ex10_targets"
TITLE = "targets, who trains, and loading an adapter"
NEAR = ("v_proj_norm", "q_proj.router", "old_q_proj", "proj", "fc1_norm", "old_fc2", "fc")  # names that hold a target
MODULES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2")


def gpt(layers):
    return GPT(GPTConfig(vocab_size=7, context=5, d_model=6, n_heads=2, n_layers=layers, d_ff=9))


def adapted(paths, targets):
    found = [path for path in paths if any(("." + path).endswith("." + target) for target in targets)]
    if missing := sorted(set(targets) - {path.rpartition(".")[2] for path in found}):
        raise ValueError(f"{missing} matches nothing")
    return found


def who_trains(names):
    """As in the library's model; what has no place there is none of LoRA's factors."""
    model = gpt(1 + max((int(name.split(".")[1]) for name in names if name.startswith("layers")), default=0))
    add_lora(model, LoraConfig(r=2))
    trains = {name: t.requires_grad for name, t in model.named_parameters()}
    return {name: trains.get(name, name == "q_proj.lora_A") for name in names}


def load(model, adapter):
    own, new = model["parameters"], adapter["parameters"]
    if model["base"] != adapter["base"] or set(new) - set(own) or any(own[n].shape != new[n].shape for n in new):
        raise ValueError("the adapter does not belong to this model")
    return {name: new.get(name, own[name]) for name in own}


def model_paths(targets, fused=False):
    """The paths of the Linear layers of a transformer. fused: q, k and v are one layer, qkv_proj."""
    def draw(rng):
        modules = ("self_attn.qkv_proj", "self_attn.out_proj", "fc1", "fc2") if fused else MODULES
        paths = [f"layers.{i}.{name}" for i in range(int(rng.integers(2, 12))) for name in modules]
        return [*paths, *(f"vision.{name}" for name in NEAR)], list(targets)
    return draw


def parameter_names(rng):
    model = gpt(int(rng.integers(1, 4)))
    add_lora(model, LoraConfig(r=2))
    return ([name for name, _ in model.named_parameters()],)


def names_that_are_near(rng):
    path = f"layers.{int(rng.integers(9))}.self_attn.q_proj"
    return ([f"{path}.{last}" for last in ("old_lora_A", "lora_B_norm", "lora_A.weight", "A")],)


def files(base="opt-small", prefix="", shape=(2, 5), shape_B=(3, 2)):
    """A model and an adapter: of another base, with another prefix to its last name, or of other shapes."""
    def draw(rng):
        own = {"q_proj.weight": (3, 5), "q_proj.lora_A": (2, 5), "q_proj.lora_B": (3, 2), "fc1.weight": (4, 3)}
        model = {"base": "opt-small", "parameters": {name: rng.normal(size=s) for name, s in own.items()}}
        new = {"q_proj.lora_A": rng.normal(size=shape), f"{prefix}q_proj.lora_B": rng.normal(size=shape_B)}
        return model, {"base": base, "parameters": new}
    return draw


def small_files():
    """The example of load."""
    return ({"base": "opt", "parameters": {"w": np.array([1.0]), "a": np.array([2.0])}},
            {"base": "opt", "parameters": {"a": np.array([3.0])}})


def matching(fits, strict=True):
    """adapted with another way to match: fits(path, target)."""
    def wrong(paths, targets):
        found = [path for path in paths if any(fits(path, target) for target in targets)]
        if strict and not all(any(fits(path, target) for path in paths) for target in targets):
            raise ValueError(f"one of {targets} matches nothing")
        return found
    return wrong


def last_part(path, target):
    return path.split(".")[-1] == target


def rule(trains):
    """who_trains by another rule: trains(name)."""
    return lambda names: {name: bool(trains(name)) for name in names}


def is_lora(name):
    return name.split(".")[-1] in ("lora_A", "lora_B")


def accepting(base=False, names=False, shapes=False):
    """load with one of its three checks left out."""
    def wrong(model, adapter):
        own, new = model["parameters"], adapter["parameters"]
        known = {name: array for name, array in new.items() if name in own}
        wrong_shapes = any(own[name].shape != array.shape for name, array in known.items())
        if ((model["base"] != adapter["base"] and not base) or (known.keys() != new.keys() and not names)
                or (wrong_shapes and not shapes)):
            raise ValueError("the adapter does not belong to this model")
        return {**own, **known}
    return wrong


def same_size(model, adapter):
    own, new = model["parameters"], adapter["parameters"]
    if any(name in own and own[name].size != array.size for name, array in new.items()):
        raise ValueError("the adapter does not belong to this model")
    return accepting(shapes=True)(model, adapter)


TASKS = (
    Task(
        adapted, "the list",
        checks=(Check("q_proj and v_proj", model_paths(("q_proj", "v_proj")), example=lambda: (
                    ["layers.0.q_proj", "layers.0.k_proj", "layers.1.q_proj"], ["q_proj"])),
                Check("the two layers of the MLP, the second named first", model_paths(("fc2", "fc1"))),
                Check("v_proj where q, k and v are one layer, qkv_proj: an error", model_paths(("v_proj",), True),
                      raises=True, says=lambda paths, targets: "v_proj"),
                Check("one name that exists and one that does not: an error", model_paths(("q_proj", "qproj")),
                      raises=True, says=lambda paths, targets: "qproj"),
                Check("self_attn, which is no last part: an error", model_paths(("self_attn",)),
                      raises=True, says=lambda paths, targets: "self_attn")),
        hints=("Which part of a path has to be equal to the target: some of its letters, its end, or the whole last "
               "part? What if no path has it?",
               "path.split(\".\")[-1] is the last part. Raise ValueError for a target that no path has as its last "
               "part.",
               "if target not in ____: raise ValueError(…); return [path for path in paths if ____ in targets]"),
        misconceptions=(
            Misconception(
                "any-part-of-the-path-matches", matching(lambda path, target: target in path),
                "Looking for the letters anywhere adapts layers that were not meant, and hides that a name is missing.",
                "print [p for p in paths if \"v_proj\" in p] for paths with qkv_proj and v_proj_norm."),
            Misconception(
                "start-of-the-last-part-matches", matching(lambda path, target: path.split(".")[-1].startswith(target)),
                "“v_proj_norm” begins with “v_proj” and is another layer: compare whole parts between dots.",
                "print \"v_proj_norm\".startswith(\"v_proj\")."),
            Misconception(
                "part-of-a-target-matches", matching(lambda path, target: path.split(".")[-1] in target),
                "“proj” stands in the text “q_proj” and is another layer: compare whole names, with ==, or look in the "
                "list of targets.",
                "print \"proj\" in \"q_proj\", and \"proj\" in [\"q_proj\"]."),
            Misconception(
                "end-of-the-text-matches", matching(lambda path, target: path.endswith(target)),
                "“qkv_proj” ends in “v_proj” and is another layer: compare whole parts between dots.",
                "print \"layers.0.qkv_proj\".endswith(\"v_proj\")."),
            Misconception(
                "any-whole-part-matches", matching(lambda path, target: target in path.split(".")),
                "A layer inside q_proj is not q_proj: the last part has to match.",
                "print adapted([\"q_proj.router\", \"q_proj\"], [\"q_proj\"])."),
            Misconception(
                "unmatched-target-ignored", matching(last_part, strict=False),
                "A target that matches nothing adapts nothing: training then runs, and changes nothing. Say so "
                "instead.",
                "misspell q_proj as qproj, and count what is adapted."),
            Misconception(
                "error-only-if-nothing-matches", lambda paths, targets: matching(last_part, False)(paths, targets)
                or matching(last_part)(paths, targets),
                "Each target has to match: one that does, beside one that does not, hides the mistake.",
                "ask for [\"q_proj\", \"vproj\"], and look at which layers are adapted."),
            Misconception(
                "first-layer-only", lambda paths, targets: [
                    next(path for path in matching(last_part)(paths, targets) if last_part(path, target))
                    for target in targets],
                "A target adapts every layer of its name, one in each block.",
                "count the paths that end in q_proj."),
        )),
    Task(
        who_trains, "trains",
        checks=(Check("every parameter of an adapted transformer", parameter_names, example=lambda: (
                    ["q_proj.weight", "q_proj.lora_A"],)),
                Check("names that hold lora_A or lora_B, but not as their last part", names_that_are_near)),
        hints=("LoRA freezes everything that was there. What was not there before?",
               "Exactly the parameters whose last part is lora_A or lora_B train.",
               "return {name: name.split(\".\")[-1] in (____, ____) for name in names}"),
        misconceptions=(
            Misconception(
                "norms-left-trainable", rule(lambda name: is_lora(name) or "norm" in name),
                "LayerNorms belong to the base, and the base is frozen, all of it.",
                "print [n for n, t in model.named_parameters() if t.requires_grad] after add_lora."),
            Misconception(
                "biases-left-trainable", rule(lambda name: is_lora(name) or name.endswith(".bias")),
                "Biases belong to the base, and the base is frozen, all of it.",
                "count the trained numbers, and compare with trainable_summary(model)."),
            Misconception(
                "only-A-trains", rule(lambda name: name.split(".")[-1] == "lora_A"),
                "B starts at zero and would stay there without a gradient of its own: A and B both train.",
                "look at B after a step of training."),
            Misconception(
                "lora-anywhere-in-the-name", rule(lambda name: "lora_A" in name or "lora_B" in name),
                "A name may hold these letters and be another parameter: the whole last part has to be lora_A or "
                "lora_B.",
                "print \"lora_A\" in \"q_proj.old_lora_A\"."),
            Misconception(
                "name-ends-in-lora", rule(lambda name: name.endswith(("lora_A", "lora_B"))),
                "“old_lora_A” ends in “lora_A” and is another parameter: the whole last part has to be equal.",
                "print \"q_proj.old_lora_A\".endswith(\"lora_A\")."),
            Misconception(
                "or-between-two-texts", rule(lambda name: True),
                "`x == \"lora_A\" or \"lora_B\"` is always true, as a text that is not empty counts as true: write "
                "x == … or x == …, or x in (…, …).",
                "print bool(False or \"lora_B\").", source=r"or ['\"]"),
            Misconception(
                "adapter-frozen-too", rule(lambda name: False),
                "If A and B are frozen with the rest, nothing trains: B stays zero, and the loss where it is.",
                "look at B after some steps of training."),
            Misconception(
                "adapted-weight-trains-too", rule(lambda name: is_lora(name) or name.endswith(
                    ("q_proj.weight", "v_proj.weight"))),
                "W0 stays frozen beside its A and B; training both is full fine-tuning with extra parameters.",
                "compare W0 before and after training, bit for bit."),
            Misconception(
                "only-B-trains", rule(lambda name: name.endswith("lora_B")),
                "B starts at zero, but A trains too, as soon as B is not zero.",
                "look at A after two steps of training."),
            Misconception(
                "all-of-attention-trains", rule(lambda name: is_lora(name) or "self_attn." in name),
                "q_proj and v_proj get an A and a B; k_proj and out_proj stay as they are, and so does every W0.",
                "print [n for n, t in model.named_parameters() if t.requires_grad] after add_lora."),
        )),
    Task(
        load, "the result",
        checks=(Check("an adapter that fits", files(), small_files),
                Check("an adapter of another base: an error", files(base="opt-large"), raises=True),
                Check("of a base whose name begins as the model's does: an error", files(base="opt-small-v2"),
                      raises=True),
                Check("names with a prefix that the model has not: an error", files(prefix="base_model."), raises=True),
                Check("an adapter of a larger rank: an error", files(shape=(4, 5)), raises=True),
                Check("a B of a smaller rank: an error", files(shape_B=(3, 1)), raises=True),
                Check("an A turned round, of the same size: an error", files(shape=(5, 2)), raises=True)),
        hints=("What happens to an adapter whose names fit nothing, if nobody looks? And how would you notice that it "
               "belongs to another base of the same shapes?",
               "Three reasons for a ValueError: another base, a name that the model has not, another shape. Then a new "
               "dict: the model's parameters, with the adapter's in their places.",
               "if ____ != ____: raise ValueError(…); for name, array in ____: …; return {**____, **____}"),
        misconceptions=(
            Misconception(
                "adapter-ignored", accepting(names=True),
                "Names that fit nothing are skipped here: the model runs as if it had no adapter, without a word.",
                "load names with a prefix, and compare the parameters before and after."),
            Misconception(
                "loaded-on-another-base", accepting(base=True),
                "An update was learned for one W0; added to another of the same shape it is noise.",
                "load an adapter on a model with other weights, and compare the loss."),
            Misconception(
                "shapes-not-looked-at", accepting(shapes=True),
                "An A of another rank is taken here, and fails later, far from the reason.",
                "load an A of rank 4 beside a B of rank 2, and multiply them."),
            Misconception(
                "sizes-compared", same_size,
                "Arrays of (2, 5) and (5, 2) have the same size and are not the same: compare the shapes.",
                "print np.zeros((2, 5)).size and np.zeros((5, 2)).size."),
            Misconception(
                "values-of-the-model-win", lambda model, adapter: accepting()(model, adapter) and {
                    **adapter["parameters"], **model["parameters"]},
                "The numbers are those of the model alone. Where a name stands twice in a dict the later one wins: the "
                "adapter's come last.",
                "print {**{\"a\": 1}, **{\"a\": 2}}."),
            Misconception(
                "nothing-looked-at", lambda model, adapter: {**model["parameters"], **adapter["parameters"]},
                "Whatever is in the file goes in: unknown names, other shapes, another base.",
                "load an adapter whose names have a prefix, and count the parameters."),
            Misconception(
                "adapter-alone-returned", lambda model, adapter: accepting()(model, adapter) and dict(
                    adapter["parameters"]),
                "The result is the whole model: its own parameters, and the adapter's in their places.",
                "count the names in your result."),
        )),
)
