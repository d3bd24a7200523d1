# %% [markdown]
# # 12. What LoRA buys: memory, storage, switching, merging
#
# **Objective.** Measure what LoRA saves in training, on disk and in serving, count what it costs, and say which savings are
# large and which are not.
#
# **Minutes.** 30. **Before this.** Lessons 06, 09 and 10.
#
# **Predict first.** In a model of width 32, LoRA of rank 8 sits on q_proj and v_proj and is not merged. How many more
# multiplications does an adapted layer do for each token: none, 5%, or 50%? And how many once it is merged?

# %% [markdown]
# ## Memory in training
#
# A training step holds the weights; the gradients; what the optimizer remembers (AdamW: for each number that it trains a
# running mean $m$ of the gradient and $v$ of its square); and the *activations*, the values of the forward pass that the
# backward pass will need. Python's `tracemalloc` counts every byte that NumPy asks for. We measure one model twice, trained
# in full and with LoRA: width 256, four layers, eight sequences of 64 tokens at a time. What it has learned does not matter
# for its memory, so its weights are random.

# %%
import tracemalloc

import numpy as np

from lessons.course.pages import bases, figures
from lora_np import GPT, GPTConfig, LoraConfig, data, generate, no_grad
from lora_np.lora import add_lora, lora_layers, merge, unmerge
from lora_np.optim import AdamW, warmup_cosine
from lora_np.train import fit, next_token_loss

CONFIG = GPTConfig(vocab_size=96, context=64, d_model=256, n_heads=4, n_layers=4, d_ff=1024)
BATCH = 8


def measure(r):
    """Bytes that training holds, by kind. r: the rank of LoRA on q_proj and v_proj, or 0 to train everything."""
    ids = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (BATCH, CONFIG.context))
    tracemalloc.start()
    model = GPT(CONFIG)
    if r:
        add_lora(model, LoraConfig(r=r, lora_alpha=r))
    held = {"weights": sum(t.data.nbytes for t in model.parameters())}
    optimizer = AdamW(model.trainable_parameters(), lr=1e-3)
    for _ in range(2):  # what the first step allocates once and for all is not counted in the second
        optimizer.zero_grad()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        loss = next_token_loss(model, ids, ids)
        held["activations"] = tracemalloc.get_traced_memory()[0] - before
        loss.backward()
        optimizer.step()
        del loss
    held["gradients"] = sum(t.grad.nbytes for t in model.parameters() if t.grad is not None)
    held["AdamW's m and v"] = optimizer.m.nbytes + optimizer.v.nbytes
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

trained = {name: held["gradients"] // 4 for name, held in memory.items()}  # float32: four bytes a number
print(f"trained numbers: {trained}")
assert trained == {"full": sum(t.size for t in GPT(CONFIG).parameters()), "LoRA": 4 * 2 * 2 * 256 * 8}
for name, held in memory.items():
    assert held["AdamW's m and v"] == 2 * held["gradients"] == 8 * trained[name]
assert memory["LoRA"]["weights"] > memory["full"]["weights"]
assert 0.4 < memory["LoRA"]["activations"] / memory["full"]["activations"] < 0.75
assert memory["LoRA"]["highest, in a step"] < 0.5 * memory["full"]["highest, in a step"]

# %% [markdown]
# $m$, $v$ and the gradient are three numbers for each one that is trained. In full fine-tuning that is three times the
# weights. With LoRA it nearly vanishes: it is about a hundredth of that.
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

print(f"base {base_file / 1e6:.1f} MB, adapter {adapter_file / 1e6:.2f} MB: 1/{base_file // adapter_file} of it")
hundred = base_file + 100 * adapter_file
print(f"a hundred tasks: {100 * base_file / 1e6:,.0f} MB as full models, {hundred / 1e6:.0f} MB as one base with adapters")
assert adapter_file < 1.1 * 4 * trained["LoRA"] and base_file > 90 * adapter_file

# %%
rows = ["weights", "AdamW's m and v", "gradients", "activations", "highest, in a step", "file for one task"]
memory["full"]["file for one task"], memory["LoRA"]["file for one task"] = base_file, adapter_file
fig, ax = figures.new("LoRA cuts optimizer, gradients and file a hundredfold, the rest less", width=11, height=6)
for name, color, above in (("full", figures.FULL, -0.2), ("LoRA", figures.TRAINABLE, 0.2)):
    for i, row in enumerate(rows):
        frozen = name == "LoRA" and row == "weights"
        shade = figures.FROZEN if frozen else color
        ax.barh(i + above, megabytes(name, row), height=0.38, color=shade)
        figures.label(ax, megabytes(name, row), i + above, f"{name} {megabytes(name, row)}" + ", frozen" * frozen, shade)
ax.set_yticks(range(len(rows)), rows)
ax.invert_yaxis()
ax.grid(False)
ax.set(xlabel=f"MB, for a model of {trained['full'] / 1e6:.1f} million parameters", xlim=(0, 95))
figures.save(fig, "12_memory", alt="Bars of the megabytes that training a model of 3.2 million parameters holds, in full and with "
             "LoRA of rank 8. " + "; ".join(f"{row} {megabytes('full', row)} and {megabytes('LoRA', row)}" for row in rows) + ".")

# %% [markdown]
# ## Several tasks on one base
#
# Here is the sorting base again: it sorts upwards. We train two adapters on it, one to sort downwards and one to write the
# odd digits first, then the even ones. Each is saved in a folder of its own.

# %%
from lora_np.extras.adapters import disable_adapter, set_adapter

ORDERS = {"ascending": lambda digit: digit, "descending": lambda digit: -digit, "odd first": lambda digit: digit + 10 * (digit % 2 == 0)}


def task(order, batch, seed):
    """Like data.sorting, with the digits of the answer sorted by another key."""
    for x, _ in data.sorting(batch, seed):
        digits = x[:, :8]
        answer = np.take_along_axis(digits, np.argsort(ORDERS[order](digits), axis=1, kind="stable"), axis=1)
        yield np.concatenate([digits, x[:, 8:9], answer[:, :-1]], axis=1), answer  # digits, the mark, the answer


def right(model, order):
    """The part of 500 unseen sequences that the model puts in that order without a mistake."""
    x, answer = next(task(order, 500, seed=10_000))
    return float((generate(model, x[:, :9], 8, temperature=0)[:, 9:] == answer).all(axis=1).mean())


def train_adapter(order, folder, steps=600):
    model = bases.sorting_base()
    add_lora(model, LoraConfig(r=8, lora_alpha=8))
    fit(model, task(order, 32, seed=1), AdamW(model.trainable_parameters(), 2e-2), steps, warmup_cosine(2e-2, steps, 60), every=200,
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
    assert all(served.state_dict()[name] is before[name] for name in names)  # the same arrays in memory
with disable_adapter(served):
    table = {"no adapter": {order: right(served, order) for order in ORDERS}} | table

print("sequences right, to the nearest 10%\n" + " " * 19 + "".join(f"{order:>12}" for order in ORDERS))
for adapter, fractions in table.items():
    print(f"{adapter:19}" + "".join(f"{round(f, 1):>12.0%}" for f in fractions.values()))
swapped = sum(layer.lora_A.data.nbytes + layer.lora_B.data.nbytes for layer in lora_layers(served).values())
print(f"a switch exchanges {swapped:,} bytes beside {sum(t.data.nbytes for t in bases.sorting_base().parameters()):,} of the base")
for fractions, order in zip(table.values(), ORDERS, strict=True):
    assert fractions[order] > 0.9
    assert all(f < 0.1 for other, f in fractions.items() if other != order)
assert swapped == 4 * 2048

# %% [markdown]
# ## "An adapter costs nothing at inference"
#
# That is said of LoRA, and it is true of a *merged* one: $W_0 + \frac{\alpha}{r} B A$ is one matrix like $W_0$. An adapter that can be
# switched is not merged, and it does extra work for every token: $A x$ takes $r k$ multiplications, each with an addition,
# and $B u$ for $u = A x$ takes $d r$, beside the $d k$ of $W_0 x$. We let the engine record a forward pass and count them,
# instead of timing it: times vary from run to run, counts do not. (The products inside attention, of queries with keys and
# of weights with values, are left out; an adapter does not change them.)

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
assert base_count == 2 * (4 * 32 * 32 + 2 * 32 * 128) + 32 * 11  # two layers; then the head, for 11 tokens
assert unmerged_count - base_count == 4 * 8 * (32 + 32)          # four adapted layers
assert merged_count == base_count

# %% [markdown]
# Half as much again in each adapted layer of this narrow model, 8% in the whole. In general it is $r (d + k) / d k$, for a
# square weight $2 r / d$: at $r = 8$ and $d = 4096$ that is 0.4%. That is small, but it is not nothing. It is also two
# products more in every adapted layer, of which the second waits for the first.
#
# Merging adds the update to the weight once, instead of its product to each output. The outputs agree to rounding, and
# unmerging gives back $W_0$ to the bit:

# %%
assert right(served, "descending") == table["descending"]["descending"]
gap = np.abs(merged_logits - unmerged_logits).max() / np.abs(unmerged_logits).max()
print(f"largest difference of the outputs, as part of the largest output: below 0.00001: {gap < 1e-5}")
assert 0 < gap < 1e-5
once = served.layers[0].self_attn.q_proj.weight.data
assert (once != before["layers.0.self_attn.q_proj.weight"]).any()
merge(served)
assert (served.layers[0].self_attn.q_proj.weight.data == once).all()  # merging twice is merging once
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
from matplotlib.colors import to_rgba

fig, (left, right_side) = figures.new("One base does three tasks, at a small cost until an adapter is merged", columns=2, width=13,
                                      gridspec_kw={"width_ratios": [1, 1.15]})
shares = np.array([[100 * f for f in fractions.values()] for fractions in table.values()])
shades = [figures.FROZEN, figures.TRAINABLE, figures.TRAINABLE]
left.imshow([[to_rgba(shades[i], share / 100) for share in row] for i, row in enumerate(shares)], aspect="auto")
for i, j in np.ndindex(shares.shape):
    left.text(j, i, f"{shares[i, j]:.0f}%", ha="center", va="center", fontsize=16, color="white" if i == j else figures.INK)
left.set_xticks(range(3), [f"task:\n{order}" for order in ORDERS])
left.set_yticks(range(3), ["no adapter", "adapter\n“descending”", "adapter\n“odd first”"])
left.set_title("Sequences right")
left.grid(False)
counts = {"base": base_count, "adapter,\nunmerged": unmerged_count, "adapter,\nmerged": merged_count}
for i, count in enumerate(counts.values()):
    right_side.barh(i, base_count, color=figures.FROZEN)
    right_side.barh(i, count - base_count, left=base_count, color=figures.TRAINABLE)
    extra = f"+{count - base_count:,}" if count > base_count else ""
    right_side.text(base_count / 2, i, f"{base_count:,}", ha="center", va="center", fontsize=16, color="white")
    figures.label(right_side, count, i, extra, figures.TRAINABLE, fontsize=16)
right_side.set_yticks(range(3), counts)
right_side.invert_yaxis()
right_side.set_title("Multiply-adds for each token")
right_side.set(xlim=(0, 1.22 * base_count), xticks=[])
right_side.grid(False)
figures.save(fig, "12_switching", alt="Left, a table: without adapter the base sorts ascending and fails the other tasks; each of two "
             "adapters makes it do its own task in more than 90 per cent of cases and fail the others. Right: multiply-adds a "
             "token, 24,928 for the base, 2,048 more with an unmerged adapter, none more once it is merged.")

# %% [markdown]
# ## On the scale of GPT-3
#
# What holds a large model is what was measured above: weights, gradients, optimizer. `memory_budget` computes these from the
# sizes alone. Its assumptions for GPT-3 with 175 billion parameters, LoRA of rank 4 on q_proj and v_proj, all in float16 (two
# bytes a number):

# %%
from lora_np.extras.budget import MODELS, memory_budget, model_config, readable


def budget(name, targets):
    return memory_budget(model_config(name), targets, r=4, precision="float16")


def without_activations(b):
    return b.weights + b.gradients + b.optimizer


print(budget("175B", ("q_proj", "v_proj")))
print(f"\n{'model':>5} {'weights':>10} {'train in full':>15} {'train LoRA':>12} {'adapter file':>13}   (without activations)")
scale = {name: (budget(name, ()), budget(name, ("q_proj", "v_proj"))) for name in MODELS}
for name, (full, lora) in scale.items():
    print(f"{name:>5} {readable(full.weights):>10} {readable(without_activations(full)):>15} "
          f"{readable(without_activations(lora)):>12} {readable(lora.file):>13}")
full, lora = scale["175B"]
assert round(full.weights / 1e9) == 349 and lora.file == 2 * 18_874_368
assert without_activations(full) == 4 * full.weights and without_activations(lora) < 1.001 * full.weights
for full, lora in scale.values():
    assert without_activations(lora) < 1.02 * full.weights

# %% [markdown]
# The LoRA paper (section 4.2) reports for GPT-3: 350 GB to store a fine-tuned model, and 35 MB for an adapter of rank 4 on q
# and v; 1.2 TB to train in full, and 350 GB with LoRA. The first, the second and the last agree with the table (37.7 MB is
# 36 times $2^{20}$ bytes). Of the 1.2 TB the paper does not say what it counts: weights, gradients and both of AdamW's numbers
# in float16 make 1.40 TB. The table leaves activations out. For a single sequence of 2,048 tokens the lines above put them at
# 83 GB, a fifth of what LoRA's training then holds; in the small model they were the largest part. Is that estimate any
# good? Hold it against what we measured:

# %%
for name, targets in (("full", ()), ("LoRA", ("q_proj", "v_proj"))):
    estimate = memory_budget(CONFIG, targets, r=8, batch=BATCH)
    print(f"{name}: activations measured {megabytes(name, 'activations')} MB, "
          f"estimated {np.ceil(estimate.activations / 1e6):.0f} MB, both rounded up")
    assert abs(estimate.activations / memory[name]["activations"] - 1) < 0.1
    assert estimate.weights == memory[name]["weights"] and estimate.optimizer == memory[name]["AdamW's m and v"]

# %%
fig, ax = figures.new("But for activations, training LoRA holds hardly more than the weights", width=10.5, height=5.6)
parameters = [full.parameters for full, lora in scale.values()]
ax.loglog(parameters, [without_activations(full) / 1e9 for full, lora in scale.values()], "o-", color=figures.FULL)
ax.loglog(parameters, [without_activations(lora) / 1e9 for full, lora in scale.values()], "o-", color=figures.TRAINABLE)
ax.loglog(parameters, [lora.file / 1e9 for full, lora in scale.values()], "o--", color=figures.TRAINABLE, alpha=0.6)
ax.loglog(parameters, [full.weights / 1e9 for full, lora in scale.values()], color=figures.FROZEN, linewidth=9, alpha=0.35, zorder=1)
full, lora = scale["175B"]
figures.label(ax, parameters[-1], without_activations(full) / 1e9, f"full: {readable(without_activations(full))}", figures.FULL, dx=10)
figures.label(ax, parameters[-1], without_activations(lora) / 1e9, f"LoRA: {readable(without_activations(lora))},\non the weights' own line",
              figures.TRAINABLE, dx=10, dy=-8)
figures.label(ax, parameters[-1], lora.file / 1e9, f"adapter file: {readable(lora.file)}", figures.TRAINABLE, dx=10, alpha=0.8)
ax.set(xlabel="parameters of the model", ylabel="bytes in float16, without activations", ylim=(1e-4, 4e3))
ax.set_xticks([parameters[i] for i in (0, 2, 4, 6, 8)], [list(MODELS)[i] for i in (0, 2, 4, 6, 8)])
ax.set_yticks([0.001, 0.1, 10, 1000], ["1 MB", "100 MB", "10 GB", "1 TB"])
ax.minorticks_off()
figures.save(fig, "12_scale", alt="Log-log plot against model size, 125 million to 175 billion parameters. Training in full holds four "
             "times the weights, 1.40 TB for 175B. LoRA of rank 4 on q and v lies on the line of the weights alone, 349 GB. The "
             "adapter file is thousands of times smaller, 38 MB.")

# %% [markdown]
# ## Key points
#
# - LoRA cuts what grows with the trained numbers: gradients, optimizer states, files. It does not cut the weights, and only
#   a part of the activations.
# - One base serves many tasks: an adapter is a small file, switching exchanges $A$ and $B$, and the base stays untouched.
# - An unmerged adapter costs $r (d + k)$ multiply-adds a token in every adapted layer. A merged one costs none, and can no
#   longer be switched until it is unmerged.
# - Merging changes the outputs by rounding only, and unmerging gives back $W_0$ bit for bit.

# %% [markdown]
# **Exercise.** `python -m lessons check 12`
