"""Rank, layers and learning rate, on questions hard enough to tell them apart.

`python -m lessons.course.sql.comparison` adds to lesson 14's results.jsonl the runs that it lacks, two to three minutes
each on two cores. Delete the file to make all of them anew.
"""

import json
from pathlib import Path

from lora_np import LoraConfig, data
from lora_np.checkpoint import load_model, load_tokenizer
from lora_np.lora import add_lora, count_parameters
from lora_np.optim import AdamW, warmup_cosine
from lora_np.train import fit

from .asking import answers, score
from .questions import questions
from .tables import UNSEEN

RESULTS = Path(__file__).resolve().parents[2] / "14_language_model" / "results.jsonl"
TARGETS = {"q, v": ("q_proj", "v_proj"),
           "all seven": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")}
SETTINGS = (("q, v", 1), ("q, v", 8), ("q, v", 16), ("all seven", 3))  # the last two train nearly as many numbers
RATES, SEEDS = (1e-3, 3e-3, 1e-2, 3e-2), (0, 1, 2)
STEPS, BATCH, ASKED = 60, 4, 64


def run(layers, r, lr, seed, quiet=False):
    """Fine-tune SmolLM2 on 240 hard questions, each seen once, and ask it 64 about the same tables and 64 about others.

    The seed decides on A and on the order of the questions.
    """
    model, tokenizer = load_model("smollm2"), load_tokenizer("smollm2")
    train = questions("hard", STEPS * BATCH, seed=14)
    tests = {"seen": questions("hard", ASKED, seed=15, without=train), "unseen": questions("hard", ASKED, seed=16, tables=UNSEEN)}
    add_lora(model, LoraConfig(r=r, lora_alpha=16, target_modules=TARGETS[layers], seed=seed))
    pairs = [(question.prompt, question.completion) for question in train]
    label = f"{layers}, r = {r}, lr = {lr:g}, seed {seed}"
    history = fit(model, data.completions(pairs, tokenizer, BATCH, 128, seed, model), AdamW(model.trainable_parameters(), lr),
                  STEPS, warmup_cosine(lr, STEPS, warmup=5), label=label, quiet=quiet)
    found = {name: score(asked, answers(model, tokenizer, asked, label, quiet)) for name, asked in tests.items()}
    return {"layers": layers, "r": r, "trained": count_parameters(model)[0], "lr": lr, "seed": seed,
            "loss": [round(loss, 4) for loss in history.train_loss], "asked": ASKED, **found}
