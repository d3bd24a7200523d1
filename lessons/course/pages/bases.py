"""The pretrained bases that lessons start from, and the data they were trained on.

Both are small enough to be committed (lessons/bases/, under 1 MB), so that a lesson starts at once;
`python -m lessons retrain` rebuilds them from nothing in about a minute.
"""

from functools import cache

from lora_np import GPT, GPTConfig, data, generate
from lora_np.checkpoint import load_model, save_model
from lora_np.optim import AdamW, warmup_cosine
from lora_np.train import evaluate, fit

from .. import LESSONS

FOLDER = LESSONS / "bases"
TOKENIZER = data.CharTokenizer()
CONTEXT = 64


def english_base():
    """A GPT of 110,336 parameters that has read Python's reference manual: d_model 64, 2 layers, characters."""
    return load_model(FOLDER / "english")


def sorting_base():
    """A GPT of 26,336 parameters that writes eight digits in ascending order: d_model 32, 2 layers."""
    return load_model(FOLDER / "sorting")


@cache
def english():
    """(train, validation): ids of the English corpus, the last tenth held out."""
    return data.split(TOKENIZER.encode(data.english()))


@cache
def python_source():
    """(train, validation): ids of the Python corpus, the last tenth held out."""
    return data.split(TOKENIZER.encode(data.python_source()))


def held_out(corpus):
    """A list of one batch of 128 windows of a corpus's held-out part, for fit and evaluate."""
    return [data.windows(corpus[1], 128, CONTEXT)]


def sorted_fraction(model, descending=False):
    """The fraction of 500 unseen sequences that the model completes without a mistake."""
    return float(_places_right(model, descending).all(axis=1).mean())


def sorted_digits(model, descending=False):
    """The fraction of the digits of 500 unseen sequences that the model writes in their place."""
    return float(_places_right(model, descending).mean())


def _places_right(model, descending):
    """Whether each digit that the model writes is the right one, (500, 8)."""
    x, answer = next(data.sorting(500, seed=10_000, descending=descending))
    start = data.SORT_DIGITS + 1
    out = generate(model, x[:, :start], data.SORT_DIGITS, temperature=0)
    return out[:, start:] == answer


def retrain():
    """Train both bases from nothing and save them."""
    model = GPT(GPTConfig(len(TOKENIZER), CONTEXT, d_model=64, n_heads=4, n_layers=2, d_ff=256))
    fit(model, data.batches(english()[0], 32, CONTEXT), AdamW(model.parameters(), 3e-3), 2000,
        warmup_cosine(3e-3, 2000, 100), held_out(english()), every=500, label="english")
    save_model(model, FOLDER / "english")
    print(f"english: {evaluate(model, held_out(english())):.2f} nats a character on held-out English, "
          f"{evaluate(model, held_out(python_source())):.2f} on Python source")

    model = GPT(GPTConfig(data.SORT_VOCABULARY, data.SORT_CONTEXT, d_model=32, n_heads=4, n_layers=2, d_ff=128))
    fit(model, data.sorting(64), AdamW(model.parameters(), 3e-3), 1500, warmup_cosine(3e-3, 1500, 100),
        every=500, label="sorting")
    save_model(model, FOLDER / "sorting")
    print(f"sorting: {sorted_fraction(model):.1%} of sequences ascending, "
          f"{sorted_fraction(model, descending=True):.1%} descending")
