"""Rank, layers and learning rate: the runs behind the last section of lesson 14.

`python -m lessons.course.sql.comparison` adds those that results.jsonl lacks, two to three minutes each on two cores.
Delete the file to make all of them anew, in over an hour.
"""

import json

from lora_np import LoraConfig, data
from lora_np.checkpoint import load_model, load_tokenizer
from lora_np.lora import add_lora, count_parameters
from lora_np.optim import AdamW, warmup_cosine
from lora_np.train import fit

from .. import LESSONS
from .asking import answers, score
from .questions import questions
from .tables import UNSEEN

RESULTS = LESSONS / "14_language_model" / "results.jsonl"
QV = ("q_proj", "v_proj")
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SETTINGS = (  # questions, layers, r, learning rate
    ("easy", QV, 1, 2e-3), ("easy", QV, 8, 2e-3),
    ("hard", QV, 1, 5e-3), ("hard", QV, 8, 5e-3), ("hard", QV, 8, 5e-4),
    ("hard", QV, 16, 5e-3), ("hard", ALL, 3, 5e-3),  # these two train nearly the same number of parameters,
    ("hard", QV, 16, 2e-3), ("hard", ALL, 3, 2e-3))  # as do these
SEEDS, STEPS, BATCH = (0, 1, 2), 60, 4
ASKED = {"easy": 20, "hard": 48}  # about tables seen, and as many about tables never seen


def run(level, layers, r, lr, seed, quiet=False):
    """Fine-tune SmolLM2 on 240 questions, each seen once, and ask it others. Returns a line of results.jsonl, a dict.

    The questions are the same in all runs of a level; the seed decides on A and on their order.
    """
    model, tokenizer = load_model("smollm2"), load_tokenizer("smollm2")
    pairs = [(question.prompt, question.completion) for question in questions(level, STEPS * BATCH, seed=14)]
    tests = {"seen": questions(level, ASKED[level], seed=15, without=[prompt for prompt, _ in pairs]),
             "unseen": questions(level, ASKED[level], seed=16, tables=UNSEEN)}
    add_lora(model, LoraConfig(r=r, lora_alpha=16, target_modules=layers, seed=seed))
    batches = data.completions(pairs, tokenizer, BATCH, 128, seed, model)
    label = f"{level}, {len(layers)} layers in each block, r = {r}, lr = {lr:g}, seed {seed}"
    history = fit(model, batches, AdamW(model.trainable_parameters(), lr), STEPS, warmup_cosine(lr, STEPS, warmup=5),
                  label=label, quiet=quiet)
    texts = answers(model, tokenizer, [*tests["seen"], *tests["unseen"]], label, quiet)
    return {"level": level, "layers": layers, "r": r, "lr": lr, "seed": seed, "trained": count_parameters(model)[0],
            "loss": [round(loss, 4) for loss in history.train_loss], "asked": ASKED[level],
            "seen": score(tests["seen"], texts[:ASKED[level]]), "unseen": score(tests["unseen"], texts[ASKED[level]:])}


def results():
    """{(level, layers, r, learning rate): [the runs of each seed]} of the file."""
    lines = RESULTS.read_text(encoding="ascii").splitlines() if RESULTS.exists() else []
    runs = [json.loads(line) for line in lines]
    return {setting: found for setting in SETTINGS if (found := [
        run for run in runs if (run["level"], tuple(run["layers"]), run["r"], run["lr"]) == setting])}


def main():
    done = results()
    for setting in SETTINGS:
        for seed in SEEDS:
            if seed not in [found["seed"] for found in done.get(setting, [])]:
                with RESULTS.open("a", encoding="ascii", newline="\n") as file:
                    file.write(json.dumps(run(*setting, seed)) + "\n")


if __name__ == "__main__":
    main()
