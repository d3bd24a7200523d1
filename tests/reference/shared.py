"""What make_reference.py and make_llama.py share: what trains, under our names, and the loss."""

import torch


def plain(name):
    """Our name of a parameter that PEFT knows by another."""
    name = name.removeprefix("base_model.model.").removeprefix("model.").removeprefix("decoder.")
    return name.replace(".base_layer", "").replace(".default", "").removesuffix(".weight")


def trained(model):
    return {plain(name): t for name, t in model.named_parameters() if t.requires_grad}


def loss_of(model, ids, targets):
    logits = model(ids).logits
    return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
