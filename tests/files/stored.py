"""What the tests of files share: files changed in place, and what PyTorch, Transformers and PEFT computed once."""

import json
from pathlib import Path

import numpy as np

from lora_np import lora
from lora_np.checkpoint import atomic, load_adapter, load_model, safetensors, save_adapter, save_model
from lora_np.train import next_token_loss

REFERENCE = Path(__file__).parents[1] / "reference"


def edit(path, **changes):
    """Change entries of a JSON file; None takes one out."""
    value = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: v for key, v in value.items() if v is not None}))


def rewrite(path, change):
    """Pass the arrays of a safetensors file through a function, and drop its metadata."""
    arrays = change(dict(safetensors.read(path)[0]))
    with atomic.atomic_write(path.parent) as create:
        safetensors.write(create(path.name), arrays)


def check_round_trip(model, ids, theirs, folder):
    """Assert that an adapted model comes back to the bit from folder/base and folder/adapter.

    theirs: the folder of the adapter as PEFT wrote it, which ours equals.
    """
    logits = model(ids).data
    save_adapter(model, folder / "adapter")
    lora.remove(model)
    save_model(model, folder / "base")
    again = load_model(folder / "base")
    assert again.config == model.config and again.embed_tokens.weight.dtype == model.embed_tokens.weight.dtype
    load_adapter(again, folder / "adapter")
    assert (again(ids).data == logits).all()
    theirs, ours = (safetensors.read(path / "adapter_model.safetensors")[0] for path in (theirs, folder / "adapter"))
    assert theirs.keys() == ours.keys() and all((theirs[key] == ours[key]).all() for key in ours)


def trained(model):
    return {name: t for name, t in model.named_parameters() if t.requires_grad}


class Stored:
    """The arrays of a file that a script in tests/reference/ made, under names such as lora/gradient/layers.0.…

    ids and targets: what each model there was given.
    """

    def __init__(self, path, ids="ids", targets="targets"):
        self.arrays, self.versions = safetensors.read(path)
        self.ids, self.targets = (self.arrays[name].astype(int) for name in (ids, targets))

    def part(self, prefix):
        """The arrays below a name, without it."""
        return {name.removeprefix(f"{prefix}/"): a for name, a in self.arrays.items() if name.startswith(f"{prefix}/")}

    def check(self, got, name, atol):
        """Assert that an array, or a dict of them, is what is stored under this name."""
        if not isinstance(got, dict):
            np.testing.assert_allclose(got, self.arrays[name], rtol=0, atol=atol, err_msg=name)
            return
        wanted = self.part(name)
        assert got.keys() == wanted.keys()
        for key in wanted:
            np.testing.assert_allclose(got[key], wanted[key], rtol=0, atol=atol, err_msg=f"{name}/{key}")

    def check_gradients(self, model, name):
        """Assert that logits, loss and the gradients of what trains are those stored under this name."""
        self.check(model(self.ids).data, f"{name}/logits", 1e-12)
        loss = next_token_loss(model, self.ids, self.targets)
        self.check(loss.item(), f"{name}/loss", 1e-12)
        loss.backward()
        self.check({key: t.grad for key, t in trained(model).items()}, f"{name}/gradient", 1e-12)
        assert all(t.grad is None for t in model.parameters() if not t.requires_grad)

    def steps(self, model, optimizer, n=20):
        """What trains, by name, after so many steps."""
        for _ in range(n):
            optimizer.zero_grad()
            next_token_loss(model, self.ids, self.targets).backward()
            optimizer.step()
        return {name: t.data for name, t in trained(model).items()}
