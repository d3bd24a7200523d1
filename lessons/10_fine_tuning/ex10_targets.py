"""Exercise 10: choosing what LoRA adapts, saying who trains, and loading an adapter.

Paths are as in the library: "layers.0.self_attn.q_proj". Parameters of an adapted layer are its path and then
".weight", ".bias" (both frozen), ".lora_A" or ".lora_B".
Check your work with: python -m lessons check 10
"""


def adapted(paths, targets):
    """The paths that a list of target names adapts, in their own order: those whose last part is one of the names.

    Raises ValueError, with the target's name in its text, where one of them is the last part of no path: nothing would
    be adapted.

    Example: adapted(["layers.0.q_proj", "layers.0.k_proj", "layers.1.q_proj"], ["q_proj"]) is
    ["layers.0.q_proj", "layers.1.q_proj"].
    """
    raise NotImplementedError


def who_trains(names):
    """{name: whether it trains} for all parameter names of an adapted model.

    The last part of a name decides; a layer may be called anything.

    Example: who_trains(["q_proj.weight", "q_proj.lora_A"]) is {"q_proj.weight": False, "q_proj.lora_A": True}.
    """
    raise NotImplementedError


def load(model, adapter):
    """The parameters of a model after an adapter is loaded: a new dict {name: array}; the model's own stays as it is.

    model, adapter: dicts with "base", a text that says which base model it is, and "parameters", {name: array}.
    Raises ValueError where the adapter was trained on another base, where it has a name that the model has not, or
    an array of another shape than the model's.

    Example: a model with parameters w and a, and an adapter with a, give a dict of the model's w and the adapter's a.
    """
    raise NotImplementedError
