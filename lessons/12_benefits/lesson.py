# %% [markdown]
# # 12. What LoRA buys: memory, storage, switching, merging
#
# **Objective.** Measure what LoRA saves in training, on disk and in serving, count what it costs, say which savings are
# large and which are not, and what of the old task is forgotten.
#
# **Minutes.** 35. **Before this.** Lessons 06, 09 and 10.
#
# **Predict first.** In a model of width 32, LoRA of rank 8 sits on q_proj and v_proj and is not merged. How many more
# multiplications does an adapted layer do for each token: none, 5%, or 50%? And how many once it is merged? A model of English
# that is fine-tuned on Python forgets English: does LoRA forget less than full fine-tuning that has learned as much Python?

# %% [markdown]
# ## Memory in training
#
# A training step holds the weights; the gradients; what the optimizer remembers (AdamW: for each number that it trains
# a running mean of the gradient and one of its square, lesson 04); and the *activations*, the values of the forward
# pass that the backward pass will need. Python's `tracemalloc` counts every byte that NumPy asks for. We measure one
# model twice, trained in full and with LoRA: width 256, four layers, eight sequences of 64 tokens at a time. What it
# has learned does not matter for its memory, so its weights are random.

# %%
import tracemalloc

import numpy as np

from lessons.course.pages import bases
from lora_np import GPT, GPTConfig, LoraConfig, data, generate, no_grad
from lora_np.lora import add_lora, lora_layers, merge, unmerge
from lora_np.optim import AdamW, warmup_cosine
from lora_np.train import evaluate, fit, next_token_loss

CONFIG = GPTConfig(vocab_size=96, context=64, d_model=256, n_heads=4, n_layers=4, d_ff=1024)
BATCH = 8


def measure(r):
    """Bytes that training holds, by kind. r: the rank of LoRA on q and v; 0: everything trains."""
    ids = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (BATCH, CONFIG.context))
    tracemalloc.start()
    model = GPT(CONFIG)
    if r:
        add_lora(model, LoraConfig(r=r, lora_alpha=r))
    held = {"weights": sum(t.data.nbytes for t in model.parameters())}
    optimizer = AdamW(model.trainable_parameters(), lr=1e-3)
    for _ in range(2):  # what the first step allocates for good is not counted in the second
        optimizer.zero_grad()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        loss = next_token_loss(model, ids, ids)
        held["activations"] = tracemalloc.get_traced_memory()[0] - before
        loss.backward()
        optimizer.step()
        del loss
    held["gradients"] = sum(t.grad.nbytes for t in model.parameters() if t.grad is not None)
    held["AdamW's two means"] = optimizer.m.nbytes + optimizer.v.nbytes
    held["highest, in a step"] = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held


memory = {"full": measure(0), "LoRA": measure(8)}


def megabytes(name, kind):
    """To be shown. What moves a little with all that ran before is rounded up to whole MB."""
    value = memory[name][kind] / 1e6
    return int(np.ceil(value)) if kind in ("activations", "highest, in a step") else round(value, 1)


for kind in memory["full"]:
    print(f"{kind:20} full {megabytes('full', kind):>4} MB   LoRA {megabytes('LoRA', kind):>4} MB")

trained = {name: held["gradients"] // 4 for name, held in memory.items()}  # float32 is four bytes
print(f"trained numbers: {trained}")
for name, held in memory.items():
    assert held["AdamW's two means"] == 2 * held["gradients"] == 8 * trained[name]
assert memory["LoRA"]["highest, in a step"] < 0.6 * memory["full"]["highest, in a step"]
assert trained["full"] == sum(t.size for t in GPT(CONFIG).parameters())  # page
assert trained["LoRA"] == 4 * 2 * 2 * 256 * 8  # page
assert memory["LoRA"]["weights"] > memory["full"]["weights"]  # page
assert 0.4 < memory["LoRA"]["activations"] / memory["full"]["activations"] < 0.75  # page

# %% [markdown]
# The gradient and the two means are three numbers for each one that is trained. In full fine-tuning that is three times
# the weights. With LoRA it nearly vanishes: it is about a hundredth of that.
#
# Two things do not vanish. The weights: the forward pass needs all of $W_0$, and $A$ and $B$ even add a little. And the
# activations, of which more than half remain: a frozen layer need not keep its input, since only $dL / dW_0$ would have
# used it, but attention, LayerNorm and ReLU keep theirs, because the gradient has to pass through them on its way down
# (lesson 06). So with long sequences and large batches LoRA saves a smaller part. The highest amount in a step was measured
# too, and is not the sum of the lines: activations are freed while gradients arrive, and operations need room to work in.
#
# ## On disk
#
# A fine-tuned model is a copy of all weights. An adapter is $A$ and $B$.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

from lora_np.checkpoint import load_adapter, save_adapter, save_model

with TemporaryDirectory() as folder:
    model = GPT(CONFIG)
    save_model(model, f"{folder}/base")
    add_lora(model, LoraConfig(r=8, lora_alpha=8))
    save_adapter(model, f"{folder}/adapter")
    base_file = Path(f"{folder}/base/model.safetensors").stat().st_size
    adapter_file = Path(f"{folder}/adapter/adapter_model.safetensors").stat().st_size

print(f"base {base_file / 1e6:.1f} MB, adapter {adapter_file / 1e6:.2f} MB: "
      f"1/{base_file // adapter_file} of it")
hundred = base_file + 100 * adapter_file
print(f"a hundred tasks: {100 * base_file / 1e6:,.0f} MB as full models, "
      f"{hundred / 1e6:.0f} MB as one base with adapters")
assert adapter_file < 1.1 * 4 * trained["LoRA"]  # little more than A and B at four bytes a number
assert base_file > 90 * adapter_file  # page

# %%
from lessons.course.pages.drawings import benefits as draw

memory["full"]["file for one task"], memory["LoRA"]["file for one task"] = base_file, adapter_file
shown = {name: {kind: megabytes(name, kind) for kind in memory[name]} for name in memory}
draw.memory(shown, trained["full"])

# %% [markdown]
# ## Several tasks on one base
#
# Here is the sorting base again: it sorts upwards. We train two adapters on it, one to sort downwards and one to write the
# odd digits first, then the even ones. Each is saved in a folder of its own.

# %%
from lora_np.extras.adapters import disable_adapter, set_adapter

ORDERS = {"ascending": lambda digit: digit, "descending": lambda digit: -digit,
          "odd first": lambda digit: digit + 10 * (digit % 2 == 0)}


def task(order, batch, seed):
    """Like data.sorting, with the digits of the answer sorted by another key."""
    for x, _ in data.sorting(batch, seed):
        digits, mark = x[:, :8], x[:, 8:9]
        places = np.argsort(ORDERS[order](digits), axis=1, kind="stable")
        answer = np.take_along_axis(digits, places, axis=1)
        yield np.concatenate([digits, mark, answer[:, :-1]], axis=1), answer


def right(model, order):
    """The share of 500 unseen sequences put in that order without a mistake, to the nearest 10%."""
    x, answer = next(task(order, 500, seed=10_000))
    written = generate(model, x[:, :9], 8, temperature=0)[:, 9:]
    return round(float((written == answer).all(axis=1).mean()), 1)


def train_adapter(order, folder, steps=600):
    model = bases.sorting_base()
    add_lora(model, LoraConfig(r=8, lora_alpha=8))
    optimizer = AdamW(model.trainable_parameters(), 2e-2)
    fit(model, task(order, 32, seed=1), optimizer, steps, warmup_cosine(2e-2, steps, 60), every=200,
        label=order)
    save_adapter(model, folder)


served = bases.sorting_base()
with TemporaryDirectory() as folder:
    for order in ("descending", "odd first"):
        train_adapter(order, f"{folder}/{order}")
        load_adapter(served, f"{folder}/{order}", name=order)

# %% [markdown]
# `served` is now one base with two adapters, of which one at a time is active. Switching puts other $A$ and $B$ in place. The
# base's arrays are neither copied nor changed, and with no adapter it is what it was:

# %%
names = ["embed_tokens.weight", "layers.0.self_attn.q_proj.weight", "layers.1.fc1.weight"]
before = {name: served.state_dict()[name] for name in names}
table = {}
for adapter in ("descending", "odd first"):
    set_adapter(served, adapter)
    table[adapter] = {order: right(served, order) for order in ORDERS}
    assert all(served.state_dict()[name] is before[name] for name in names)  # the same arrays
with disable_adapter(served):
    table = {"no adapter": {order: right(served, order) for order in ORDERS}} | table

print("sequences right, to the nearest 10%")
print(" " * 19 + "".join(f"{order:>12}" for order in ORDERS))
for adapter, fractions in table.items():
    print(f"{adapter:19}" + "".join(f"{f:>12.0%}" for f in fractions.values()))
swapped = sum(t.data.nbytes for layer in lora_layers(served).values()
              for t in (layer.lora_A, layer.lora_B))
whole = sum(t.data.nbytes for t in bases.sorting_base().parameters())
print(f"a switch exchanges {swapped:,} bytes beside {whole:,} of the base")
for fractions, order in zip(table.values(), ORDERS, strict=True):
    assert max(fractions, key=fractions.get) == order  # each is best at its own task
    assert fractions[order] >= 0.9 and sorted(fractions.values())[1] <= 0.1  # page
assert swapped == 4 * 2048  # page

# %% [markdown]
# ## A different adapter for every row of a batch
#
# A server with many users has one base and hundreds of adapters, and the requests of one moment want different ones. To
# switch for each row and compute it alone would waste the batch. There is no need to: $W_0$ is the same for all, so its
# product is computed for the whole batch, and each row takes its own $A$ and $B$, which are small. Stack the adapters of a
# layer, and let `which` say which one each row wants:

# %%
def lora_forward_each(X, W0, A, B, s, which):
    """h (N, d) for rows X (N, k). A: (adapters, r, k), B: (adapters, d, r), s: (adapters,)."""
    u = np.einsum("nrk,nk->nr", A[which], X)
    return X @ W0.T + s[which, None] * np.einsum("ndr,nr->nd", B[which], u)


rng = np.random.default_rng(0)
d, k, r, adapters, N = 6, 5, 2, 3, 8
X, W0 = rng.normal(size=(N, k)), rng.normal(size=(d, k))
A, B = rng.normal(size=(adapters, r, k)), rng.normal(size=(adapters, d, r))
s, which = np.array([1.0, 2.0, 0.5]), rng.integers(0, adapters, N)
together = lora_forward_each(X, W0, A, B, s, which)
alone = [W0 @ x + s[i] * B[i] @ (A[i] @ x) for x, i in zip(X, which, strict=True)]
print(f"adapters of the rows: {which}; one batch, equal to one row at a time: "
      f"{np.allclose(together, alone)}")
assert np.allclose(together, alone)

# %% [markdown]
# This works for adapters that are not merged, since a merged weight has room for one. It is how servers with many adapters
# compute, with special code for the two small products ([Punica](https://arxiv.org/abs/2310.18547),
# [S-LoRA](https://arxiv.org/abs/2311.03285)).

# %% [markdown]
# ## "An adapter costs nothing at inference"
#
# That is said of LoRA, and it is true of a *merged* one: $W_0 + \frac{\alpha}{r} B A$ is one matrix like $W_0$. An
# adapter that can be switched is not merged, and it does extra work for every token: $A x$ takes $r k$ multiplications,
# each with an addition, and $B u$ for $u = A x$ takes $d r$, beside the $d k$ of $W_0 x$. We let the engine record a
# forward pass and count them, instead of timing it: times vary from run to run, counts do not. (The products inside
# attention, of queries with keys and of weights with values, are left out; an adapter does not change them.)

# %%
from lora_np.trace import record


def multiply_adds(model):
    """Multiply-adds for each token in the linear operations of one forward pass."""
    ids = np.zeros((1, 16), int)
    with record() as steps, no_grad():
        model(ids)
    total = 0
    for operation, out, edges in steps:
        if operation == "linear":
            weight = edges[1][0]  # (out, in); each row of the output takes in * out
            total += out.size // out.shape[-1] * weight.size
    return total // ids.size


set_adapter(served, "descending")
with disable_adapter(served):
    base_count = multiply_adds(served)
unmerged_count = multiply_adds(served)
x = next(task("descending", 100, seed=5))[0]
unmerged_logits = served(x).data
merge(served)
merged_count, merged_logits = multiply_adds(served), served(x).data
print(f"multiply-adds a token: base {base_count:,}, with the adapter {unmerged_count:,} "
      f"(+{unmerged_count / base_count - 1:.0%}), merged {merged_count:,}")
print(f"an adapted layer: {32 * 32:,} for W0 x, {8 * (32 + 32)} more for A and B")
assert unmerged_count - base_count == 4 * 8 * (32 + 32)  # r (d + k) in each of four layers
assert merged_count == base_count
assert base_count == 2 * (4 * 32 * 32 + 2 * 32 * 128) + 32 * 11  # page: two layers, and the head for 11 tokens

# %% [markdown]
# Half as much again in each adapted layer of this narrow model, 8% in the whole. In general it is $r (d + k) / (d k)$, for a
# square weight $2 r / d$: at $r = 8$ and $d = 4096$ that is 0.4%. That is small, but it is not nothing. It is also two
# products more in every adapted layer, of which the second waits for the first.
#
# Merging adds the update to the weight once, instead of adding its product to each output. The outputs agree to rounding, and
# unmerging gives back $W_0$ to the bit:

# %%
gap = np.abs(merged_logits - unmerged_logits).max() / np.abs(unmerged_logits).max()
print(f"largest difference of outputs, as part of the largest: below 0.00001: {gap < 1e-5}")
assert right(served, "descending") == table["descending"]["descending"] and 0 < gap < 1e-5  # page
q_proj = served.layers[0].self_attn.q_proj
once = q_proj.weight.data
assert (once != before["layers.0.self_attn.q_proj.weight"]).any()  # page
merge(served)
assert (q_proj.weight.data == once).all()  # a second merge changes nothing
try:
    set_adapter(served, "odd first")
except RuntimeError as error:
    print(f"switching while merged: {error}")
unmerge(served)
assert all((served.state_dict()[name] == before[name]).all() for name in names)

# %% [markdown]
# So it is one or the other. Merge for a single task, to serve at the base's own cost in computation. (In memory, $W_0$ is kept
# beside the merged weight for `unmerge`; `remove(model)` from `lora_np.lora` puts plain layers back and lets it go.) Leave
# unmerged to switch between tasks, and pay $2 r / d$.

# %%
counts = {"base": base_count, "adapter,\nunmerged": unmerged_count,
          "adapter,\nmerged": merged_count}
draw.switching(table, counts)

# %% [markdown]
# ## What is forgotten
#
# Frozen weights suggest that what the model knew is safe. Is it? The English base is adapted to Python with LoRA of
# rank 8 on q and v, on all six matrices of each layer, and in full, at rates that lesson 10 tried: 0.01 for LoRA and
# 0.001 in full. Then it is asked for English again. Full fine-tuning stops somewhat earlier, where it has learned about
# as much as LoRA on all six. A second full run has half the rate and more steps.

# %%
python, tests = bases.python_source(), (bases.python_source(), bases.english())
SEEDS = (0, 1, 2)
RUNS = {"LoRA, q and v": (8, ("q_proj", "v_proj"), 1e-2, 60),  # rank, layers, rate, steps
        "LoRA, all six": (8, "all-linear", 1e-2, 60), "full": (0, None, 1e-3, 50),
        "full, half the rate": (0, None, 5e-4, 80)}


def both_losses(model):
    """The losses on unseen Python and on unseen English."""
    return [evaluate(model, bases.held_out(corpus)) for corpus in tests]


def learn_python(r, targets, lr, steps, seed):
    model = bases.english_base()
    if r:
        add_lora(model, LoraConfig(r=r, target_modules=targets, seed=seed))
    optimizer = AdamW(model.trainable_parameters(), lr)
    fit(model, data.batches(python[0], 8, bases.CONTEXT, seed), optimizer, steps,
        warmup_cosine(lr, steps, steps // 10), every=steps, label="to Python")
    return model


english = bases.english_base()
start, ends = both_losses(english), {}
print(f"{'':20} {'Python':>6}  {'English':>7}\n{'base':20} {start[0]:6.2f}  {start[1]:7.2f}")
for name, run in RUNS.items():
    models = [learn_python(*run, seed) for seed in SEEDS]
    ends[name] = np.array([both_losses(model) for model in models])  # (seeds, 2)
    means = ends[name].mean(axis=0)
    print(f"{name:20} {means[0]:6.2f}  {means[1]:7.2f}   "
          f"{run[-1]} steps, mean of {len(SEEDS)} seeds")
    if name == "LoRA, all six":
        adapted = models[0]
learned = {name: start[0] - found[:, 0].mean() for name, found in ends.items()}
forgotten = {name: found[:, 1].mean() - start[1] for name, found in ends.items()}
assert min(forgotten.values()) > 0.03  # all of them forget
assert forgotten["LoRA, q and v"] < forgotten["full"] and learned["LoRA, q and v"] < learned["full"]
assert abs(learned["LoRA, all six"] - learned["full"]) < 0.02  # page: as much Python
assert abs(forgotten["LoRA, all six"] - forgotten["full"]) < 0.02  # page: as much forgotten
assert learned["full, half the rate"] > learned["full"]  # page
assert forgotten["full, half the rate"] < forgotten["full"] - 0.03  # page

# %%
draw.forgetting(start, ends)

# %% [markdown]
# LoRA on q and v forgets least, and has learned least. But set LoRA on all six beside full fine-tuning, which has
# learned as much Python: it has forgotten nearly as much. LoRA *forgets less because it learns less*. (The two differ
# by about 0.02 of 0.2: with twelve seeds LoRA on all six had forgotten that much less, and learned 0.01 less; at half
# of both rates, with three seeds, full fine-tuning had forgotten less.) In large models, too, both were found on about
# the same curve of learning against forgetting ([Biderman et al. 2024](https://arxiv.org/abs/2405.09673), section 4.3).
# What makes a difference at equal learning is the learning rate: at half the rate, with more steps, full fine-tuning
# has learned more *and* forgotten less.
#
# There is one guarantee: nothing is lost for good. Switched off, the adapter leaves the base, bit for bit. Full fine-tuning
# would have to keep a second copy of all weights for that.

# %%
x = bases.held_out(bases.english())[0][0]
with disable_adapter(adapted):
    same = (adapted(x).data == english(x).data).all()
    print(f"adapter off: English {both_losses(adapted)[1]:.2f}, "
          f"every output the base's own: {same}")
    assert same and both_losses(adapted) == start

# %% [markdown]
# ## On the scale of GPT-3
#
# What holds a large model is what was measured above: weights, gradients, optimizer. `memory_budget` computes these from the
# sizes alone. Its assumptions for GPT-3 with 175 billion parameters, LoRA of rank 4 on q_proj and v_proj, all in float16 (two
# bytes a number; [practice](../practice.md) keeps some numbers in float32):

# %%
from lora_np.extras.budget import MODELS, memory_budget, model_config, readable


def budget(name, targets):
    return memory_budget(model_config(name), targets, r=4, precision="float16")


def without_activations(b):
    return b.weights + b.gradients + b.optimizer


print(budget("175B", ("q_proj", "v_proj")))
print("\nmodel    weights   train in full   train LoRA  adapter file   (without activations)")
scale = {name: (budget(name, ()), budget(name, ("q_proj", "v_proj"))) for name in MODELS}
for name, (full, lora) in scale.items():
    print(f"{name:>5} {readable(full.weights):>10} {readable(without_activations(full)):>15} "
          f"{readable(without_activations(lora)):>12} {readable(lora.file):>13}")
for full, lora in scale.values():
    assert without_activations(full) == 4 * full.weights
    assert without_activations(lora) < 1.02 * full.weights
assert round(full.weights / 1e9) == 349 and lora.file == 2 * 18_874_368  # page: the last is 175B
assert without_activations(lora) < 1.001 * full.weights  # page

# %% [markdown]
# The [LoRA paper](https://arxiv.org/abs/2106.09685) (section 4.2) reports for GPT-3: 350 GB to store a fine-tuned
# model, and 35 MB for an adapter of rank 4 on q and v; 1.2 TB to train in full, and 350 GB with LoRA. The first, the
# second and the last agree with the table (37.7 MB is 36 times $2^{20}$ bytes). Of the 1.2 TB the paper does not say
# what it counts: weights, gradients and both of AdamW's means in float16 make 1.40 TB. The table leaves activations
# out. For a single sequence of 2,048 tokens the lines above put them at 83 GB, a fifth of what LoRA's training then
# holds; in the small model they were the largest part. Is that estimate any good? Hold it against what we measured:

# %%
for name, targets in (("full", ()), ("LoRA", ("q_proj", "v_proj"))):
    estimate = memory_budget(CONFIG, targets, r=8, batch=BATCH)
    print(f"{name}: activations measured {megabytes(name, 'activations')} MB, "
          f"estimated {np.ceil(estimate.activations / 1e6):.0f} MB, both rounded up")
    assert abs(estimate.activations / memory[name]["activations"] - 1) < 0.1
    assert estimate.weights == memory[name]["weights"]
    assert estimate.optimizer == memory[name]["AdamW's two means"]

# %%
draw.scale(scale)

# %% [markdown]
# ## Key points
#
# - LoRA cuts what grows with the trained numbers: gradients, optimizer states, files. It does not cut the weights, and only
#   a part of the activations.
# - One base serves many tasks: an adapter is a small file, switching exchanges $A$ and $B$, and the base stays untouched.
#   In one batch every row can have an adapter of its own.
# - An unmerged adapter costs $r (d + k)$ multiply-adds a token in every adapted layer. A merged one costs none, and can no
#   longer be switched until it is unmerged.
# - Merging changes the outputs by rounding only, and unmerging gives back $W_0$ bit for bit.
# - LoRA forgets less because it learns less: where it has learned as much as full fine-tuning, it has forgotten nearly as much.
#   But switched off, it leaves the base as it was.

# %% [markdown]
# **Exercise.** In [ex12_deploying.py](ex12_deploying.py) you merge a layer and take the merge back, run it merged and not,
# and count what an adapter costs. `python -m lessons check 12` merges twice, trains while merged, and checks that $W_0$
# comes back bit for bit.
