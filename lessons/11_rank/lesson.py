# %% [markdown]
# # 11. r, alpha and targets: what each choice buys
#
# **Objective.** Choose the rank, alpha and the target modules of a LoRA, and know what to measure instead of guessing.
#
# **Minutes.** 30. **Before this.** Lessons 08 and 10.
#
# **Predict first.** Doubling the rank doubles the trained numbers. On which of these will it help more: teaching a model
# that sorts digits upwards to sort them downwards, or teaching a model of English to write Python? And which is better
# for the same number of parameters: rank 4 on q and v, or rank 2 on q, k, v and out?

# %% [markdown]
# ## A floor that can be computed
#
# First a case with an exact answer. A teacher's weight is $W_0 + \Delta W$, and $\Delta W$ has rank 6 with known singular values
# $\sigma_1 \ge \sigma_2 \ge \dots$. A LoRA of rank $r$ is trained until $W_0 + \frac{\alpha}{r} B A$ is as close to it as it can
# get. No matrix $M$ of rank $r$ is closer to $\Delta W$ than the one that keeps its $r$ largest singular values (lesson 07),
# and the squared distance that then remains is the tail:
#
# $$
# \min_{\text{rank}(M) \le r} \lVert \Delta W - M \rVert^2 = \sigma_{r+1}^2 + \sigma_{r+2}^2 + \dots
# $$
#
# So the loss must come down to that sum and not go below it. Training on the columns of the identity makes the loss
# exactly this distance.

# %%
import numpy as np

from lessons.course.pages import bases
from lora_np import LoraConfig, Tensor, data
from lora_np.lora import LoraLinear, add_lora, count_parameters, lora_layers
from lora_np.nn import Linear
from lora_np.optim import AdamW, warmup_cosine
from lora_np.train import evaluate, fit

rng = np.random.default_rng(0)
d, singular = 16, np.array([3.0, 2.5, 2.0, 1.5, 1.0, 0.5])
columns, rows = (np.linalg.qr(rng.normal(size=(d, len(singular))))[0] for _ in range(2))
D = columns * singular @ rows.T  # the teacher's change of the weight


def distance_after_training(r, steps=1500):
    student = LoraLinear(Linear(d, d, bias=False), LoraConfig(r=r, lora_alpha=r, seed=1))
    target = Tensor(student.weight.data.T + D.T)  # what the teacher makes of the identity
    optimizer = AdamW(student.trainable_parameters(), 3e-2)
    schedule = warmup_cosine(3e-2, steps)
    for step in range(steps):
        optimizer.lr = schedule(step)
        optimizer.zero_grad()
        loss = ((student(np.eye(d)) - target) ** 2).sum()
        loss.backward()
        optimizer.step()
    return loss.item()


ranks = range(1, 9)
floors = [float((singular[r:] ** 2).sum()) for r in ranks]
reached = [distance_after_training(r) for r in ranks]
for r, floor, distance in zip(ranks, floors, reached, strict=True):
    print(f"r = {r}: floor {floor:5.2f}   reached {distance:5.2f}")
    assert floor - 1e-9 <= distance <= floor + 1e-3

# %% [markdown]
# Training finds the floor at every rank, and from $r = 6$ on the floor is zero: more rank than the task has buys nothing.
# For a real task nobody knows the singular values beforehand. So one tries several ranks and measures, as follows.

# %% [markdown]
# ## Two shifts, one large and one small
#
# The large shift is that of lesson 10: from English prose to Python source. The small one is a toy whose answers can be
# checked: a model of 26,336 parameters has learned to write eight digits in ascending order, and is now to write them
# in descending order.

# %%
python, held_out = bases.python_source(), bases.held_out(bases.python_source())


def to_python(r, steps=150, only=None):
    """The English base, adapted to Python at rank r; 0: all is trained, or `only` these weights."""
    model = bases.english_base()
    lr = 1e-2 if r or only else 3e-3
    if r:
        add_lora(model, LoraConfig(r=r, lora_alpha=r))
    elif only:
        for name, t in model.named_parameters():
            t.requires_grad = name.endswith(tuple(f"{module}.weight" for module in only))
    batches = data.batches(python[0], 16, bases.CONTEXT, seed=1)
    fit(model, batches, AdamW(model.trainable_parameters(), lr), steps,
        warmup_cosine(lr, steps, steps // 10), every=steps,
        label=f"to Python, r = {r}" if r else "to Python, full")
    return model


def to_descending(r, seed=0, steps=400, alpha=None, targets=("q_proj", "v_proj")):
    """The share of sequences right after adapting the sorting base; at rank 0 all is trained."""
    model = bases.sorting_base()
    lr = 2e-2 if r else 3e-3
    if r:
        add_lora(model, LoraConfig(r=r, lora_alpha=alpha or r, target_modules=targets, seed=seed))
    batches = data.sorting(32, seed, descending=True)
    fit(model, batches, AdamW(model.trainable_parameters(), lr), steps,
        warmup_cosine(lr, steps, steps // 10), every=steps,
        label=f"to descending, r = {r}, seed {seed}")
    return bases.sorted_fraction(model, descending=True), count_parameters(model)[0]


# %%
RANKS = (1, 2, 4, 8, 16, 32, 64)
adapted = {r: to_python(r) for r in (*RANKS, 0)}
text = {r: evaluate(model, held_out) for r, model in adapted.items()}
q_and_v = evaluate(to_python(0, only=("q_proj", "v_proj")), held_out)
frozen = evaluate(bases.english_base(), held_out)
print(f"English to Python, 150 steps; frozen: {frozen:.1f} nats a character")
for r in RANKS:
    trained = count_parameters(adapted[r])[0]
    print(f"  r = {r:>2}: {trained:>7,} trained, validation loss {text[r]:.2f}")
print(f"  q and v in full:  16,384 trained, validation loss {q_and_v:.2f}")
print(f"  everything:      110,336 trained, validation loss {text[0]:.2f}")

losses = [text[r] for r in RANKS]
assert max(np.diff(losses)) < 0.02  # each doubling helps a little, or at least does no harm
assert min(losses[-1], q_and_v) > text[0] + 0.05  # full fine-tuning is not reached, even at r = d
assert losses[0] - losses[-1] > 0.08 and abs(losses[-1] - q_and_v) < 0.05  # page

# %%
SEEDS = (0, 1, 2)
digits = {r: [to_descending(r, seed)[0] for seed in SEEDS] for r in (1, 2, 4, 8)}
full_digits, full_count = to_descending(0)
print("ascending to descending, 400 steps; frozen: 0% of sequences right")
for r, fractions in digits.items():
    print(f"  r = {r}: {256 * r:>6,} trained, about {np.mean(fractions):.0%} right")
print(f"  full : {full_count:>6,} trained, about {full_digits:.0%} right")
means = [np.mean(fractions) for fractions in digits.values()]
assert means == sorted(means)
assert means[0] < 0.3 and means[-1] > 0.8 and full_digits > 0.95  # page

# %% [markdown]
# On the small shift, rank 8 with 2,048 numbers comes close to full fine-tuning with 26,336. On the large one every
# doubling of the rank helps a little, and even $r = 64$ on q and v (as many as the matrices have rows) stays behind
# training everything. Training the weights of q and v in full stays behind by as much: what is missing is not rank but
# the other layers. So there is no rank that is best: *higher r is always better* fails in one direction (nothing left to
# gain), *r = 8 is enough* in the other.
#
# One thing rises with the rank here beside the rank: $\alpha = r$ keeps the factor $\alpha / r$ at 1, and with Adam a product of
# more columns then moves further in one step (lesson 09). How much of the curve is that? The section on alpha comes
# back to it.

# %%
from lessons.course.pages.drawings import rank as draw

draw.two_shifts(digits, full_digits, RANKS, losses, text[0], frozen)

# %% [markdown]
# ## Which modules?
#
# Here is the same budget of about 1,000 numbers, spent on one matrix of each layer, on two, on four, or on all six:

# %%
ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
spent = {}
for name, r, targets, seeds in (("q", 8, ("q_proj",), (0,)), ("v", 8, ("v_proj",), (0,)),
                                ("q k v out", 2, ATTENTION, SEEDS),
                                ("all six", 1, (*ATTENTION, "fc1", "fc2"), (0,))):
    spent[name] = [to_descending(r, seed, targets=targets)[0] for seed in seeds]
spent["q v"] = digits[4]
for name, fractions in spent.items():
    seeds = f"{len(fractions)} seed{'s' * (len(fractions) > 1)}"
    print(f"  {name:10} about {round(np.mean(fractions), 1):.0%} right, mean of {seeds}")
one, several = spent["q"] + spent["v"], spent["q v"] + spent["q k v out"] + spent["all six"]
assert max(one) < min(several)
assert max(one) < 0.6 < min(several)  # page
assert abs(np.mean(spent["q v"]) - np.mean(spent["q k v out"])) < 0.15  # page

# %% [markdown]
# One matrix at rank 8 does far worse than two at rank 4: a query that may change cannot make up for a value that may
# not. Two matrices at rank 4 or four at rank 2 make no difference that three seeds could show. The
# [LoRA paper](https://arxiv.org/abs/2106.09685) finds the same direction at the scale of GPT-3, much weaker (its Table 5,
# 18 million parameters on WikiSQL: 70.4, 70.0, 73.0 and 73.2 for q, k, v and out alone, 73.7 for q and v together, 73.7
# for all four).

# %% [markdown]
# ## And alpha?
#
# The update is $\frac{\alpha}{r} B A$. Dividing by $r$ keeps its size about the same when $r$ changes, so that one learning rate
# serves several ranks. Alpha itself then acts much like a learning rate on the update: within a wide range an optimizer
# such as Adam makes up for it, and outside of it training fails.

# %%
ratios = {ratio: to_descending(4, alpha=4 * ratio)[0] for ratio in (0.25, 4, 64)}
ratios[1] = digits[4][0]
for ratio, fraction in sorted(ratios.items()):
    print(f"  r = 4, alpha / r = {ratio:>5}: about {round(fraction, 1):.0%} right")
assert ratios[64] < 0.5 < min(ratios[1], ratios[4])  # page

fixed = {r: to_descending(r, alpha=4)[0] for r in (2, 8)}
for r, fraction in fixed.items():
    print(f"  r = {r}: with alpha = 4 about {round(fraction, 1):.0%} right, "
          f"with alpha = r about {round(digits[r][0], 1):.0%}")
assert fixed[8] - fixed[2] < digits[8][0] - digits[2][0]

# %% [markdown]
# The last two lines answer the question from above. With $\alpha = 4$ at every rank, the low rank does better than with $\alpha = r$
# and the curve is flatter: part of what looked like rank was size of step. A comparison of ranks is fair only if it says
# what it held fixed, $\alpha$ or $\alpha / r$; a better one tries some values of alpha at every rank.

# %%
draw.choices(floors, reached, spent, ratios)

# %% [markdown]
# ## What the update looks like inside
#
# The paper's section 7 asks two questions of a trained update. We ask them of the adapters trained above.
#
# *Do different ranks find the same directions?* Let $\hat A_i$ be the rows of the $i$ largest singular values of $A$ at
# $r = 8$ (lesson 07), and $\hat A'_j$ those of the $j$ largest of $A$ at $r = 64$. Their overlap is between 0 and 1 (equation
# 4 of the paper):
#
# $$
# \phi(i, j) = \frac{\lVert \hat A_i \hat A_j'^\top \rVert^2}{\min(i, j)}
# $$
#
# For directions that have nothing to do with each other it is about $\max(i, j) / k$.

# %%
def largest_rows(A, n):
    """The rows of the n largest singular values of A."""
    return np.linalg.svd(A.astype(np.float64))[2][:n]


paths = list(lora_layers(adapted[8]))
overlap = []
for path in paths:
    low, high = (largest_rows(lora_layers(adapted[r])[path].lora_A.data, 8) for r in (8, 64))
    overlap.append([np.linalg.norm(low[:i] @ high.T) ** 2 / i for i in (1, 8)])
best, all_eight = np.mean(overlap, axis=0)
print("mean overlap with the top 8 directions at r = 64: "
      f"of the first direction at r = 8 about {best:.1f}, of all eight about {all_eight:.1f}; "
      f"unrelated directions: {8 / 64:.1f}")
assert best > all_eight > 8 / 64
assert best > all_eight + 0.1  # page

# %% [markdown]
# As in the paper, the top direction is shared between ranks far more than the rest: that is why a small rank can do much
# of the work. Unlike in the paper, the others still overlap clearly more than chance; our matrices are small.
#
# *Does the update repeat what the weight already does?* Project $W_0$ on the update's own directions, its columns $\hat B$ and
# its rows $\hat A$, and compare sizes. The amplification factor is $\lVert \Delta W \rVert / \lVert \hat B^\top W_0 \hat A^\top \rVert$ (the
# paper's Table 7: 21.6 at $r = 4$ and 1.88 at $r = 64$ for a matrix of GPT-3).

# %%
def amplification(layer, r):
    columns, _, rows = np.linalg.svd(layer.delta().astype(np.float64))
    projected = columns[:, :r].T @ layer.weight.data @ rows[:r].T
    return np.linalg.norm(layer.delta()) / np.linalg.norm(projected)


median = {r: np.median([amplification(layer, r) for layer in lora_layers(adapted[r]).values()])
          for r in (1, 4, 64)}
for r, factor in median.items():
    print(f"r = {r:>2}: median amplification {f'{factor:.0f}' if factor > 1 else 'below 1'}")
assert median[1] > median[4] > 1 > median[64]

# %% [markdown]
# The tendency is the paper's: an update of low rank amplifies directions that the base hardly uses, and the factor falls
# with the rank. The size is not: about 2 at $r = 4$ here, 21.6 there. With 64 dimensions there are few directions that a
# trained $W_0$ does not use.

# %% [markdown]
# ## Key points
#
# - A rank-r update can do no better than the tail of the squared singular values of the update that the task wants.
# - How much rank is enough depends on how far the task is from the base. Measure on held-out data.
# - For the same number of parameters, several matrices at a low rank beat one matrix at a high rank.
# - alpha / r scales the update and is forgiving within a factor of a few. When ranks are compared, say which of alpha and
#   alpha / r was held fixed.

# %% [markdown]
# **Exercise.** In [ex11_rank.py](ex11_rank.py) you compute the floor that no LoRA of rank $r$ can go below, and the alpha that
# keeps the scaling when the rank changes. `python -m lessons check 11` tries both with and without rsLoRA.
