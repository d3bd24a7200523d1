"""A language model is asked, and its answers are run."""

import numpy as np

from lora_np import generate
from lora_np.support.progress import Progress
from lora_np.train import History

from .databases import right

LONGEST = 36  # tokens of an answer: the longest right one has 29, with its end


def answers(model, tokenizer, questions, label="asking", quiet=False):
    """What the model writes after each prompt up to its end, always the likeliest token: a list of texts.

    Prompts of one length are asked together: a token for several of them costs hardly more than for one.
    """
    prompts = [tokenizer.encode(question.prompt) for question in questions]
    texts, progress = {}, Progress(label, len(prompts), quiet)
    for length in sorted({len(ids) for ids in prompts}):
        same = [i for i, ids in enumerate(prompts) if len(ids) == length]
        made = generate(model, np.stack([prompts[i] for i in same]), LONGEST, temperature=0, stop=tokenizer.eos_ids)
        for i, ids in zip(same, made[:, length:].tolist(), strict=True):
            end = next((at for at, token in enumerate(ids) if token in tokenizer.eos_ids), None)
            texts[i] = tokenizer.decode(ids[:end])
        progress.live(len(texts), History())
    progress.end()
    return [texts[i] for i in range(len(prompts))]


def score(questions, texts):
    """How many answers are right. Of each the first statement counts, as a model that was not tuned does not stop."""
    return sum(right(question, text.split(";")[0]) for question, text in zip(questions, texts, strict=True))
