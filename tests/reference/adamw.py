"""Makes adamw.json: what torch's AdamW and SGD do to small parameters under given gradients.

Run with any torch (the stored file: torch 2.13.0, CPU): python tests/reference/adamw.py
"""

import json
from pathlib import Path

import torch

SHAPES = [(2, 3), (4,), (1,)]
STEPS = 8
SETTINGS = {
    "AdamW": (torch.optim.AdamW, {"lr": 0.01}),
    "AdamW with decay": (torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.1}),
    "AdamW with other betas": (torch.optim.AdamW, {"lr": 0.02, "betas": (0.5, 0.7), "eps": 1e-3, "weight_decay": 0.01}),
    "SGD": (torch.optim.SGD, {"lr": 0.1}),
    "SGD with momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
}


def draw(generator, scale=1.0):
    return [scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]


def run(optimizer, options, start, gradients, skip):
    """The parameters after each step. skip: {step: number of a parameter that gets no gradient in it}."""
    parameters = [torch.nn.Parameter(p.clone()) for p in start]
    optimizer = optimizer(parameters, **{"weight_decay": 0.0, **options})
    after = []
    for step, given in enumerate(gradients):
        optimizer.zero_grad()
        for i, (p, g) in enumerate(zip(parameters, given, strict=True)):
            p.grad = None if skip.get(step) == i else g.clone()
        optimizer.step()
        after.append([p.detach().tolist() for p in parameters])
    return after


if __name__ == "__main__":
    generator = torch.Generator().manual_seed(0)
    start = draw(generator)
    gradients = [draw(generator, scale=10.0 ** (step % 4 - 2)) for step in range(STEPS)]
    gradients[3][1].zero_()
    runs = []
    for name, (optimizer, options) in SETTINGS.items():
        for skip in ({}, {1: 0, 4: 0, 5: 2}):
            runs.append({"name": name, "optimizer": optimizer.__name__, "options": options, "skip": list(skip.items()),
                         "after": run(optimizer, options, start, gradients, skip)})
    stored = {"torch": torch.__version__, "start": [p.tolist() for p in start],
              "gradients": [[g.tolist() for g in given] for given in gradients], "runs": runs}
    Path(__file__).with_suffix(".json").write_text(json.dumps(stored) + "\n")
