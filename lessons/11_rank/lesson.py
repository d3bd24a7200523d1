# %% [markdown]
# # 11. r, alpha and targets: what each choice buys
#
# **Objective.** Choose the rank, alpha and the target modules of a LoRA, and know what to measure instead of guessing.
#
# **Minutes.** 35. **Before this.** Lessons 08 and 10.
#
# **Predict first.** Doubling the rank doubles the trained numbers. On which of these will it help more: teaching a model
# that sorts digits upwards to sort them downwards, or teaching a model of English to write Python? And which is better
# for the same number of parameters: rank 8 on q and v, as in the LoRA paper, or rank 3 on the two matrices of the MLP?

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


def distance_after_training(r, steps=500):
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
#
# Alpha is 8 at every rank, so that one learning rate can serve all of them (lesson 10 measured that). All runs are short. Runs
# with the same seed see the same batches. LoRA on sorting and the choice of layers have three seeds, all else has one.
# The learning rates are 0.02 for LoRA and 0.003 in full, 0.001 where all of the English model trains: of three or four that
# were tried with two other seeds, LoRA at $r = 8$, these were best or level with the best.

# %%
python, held_out = bases.python_source(), bases.held_out(bases.python_source())
SEEDS, Q_AND_V, ALPHA = (0, 1, 2), ("q_proj", "v_proj"), 8


def to_python(r, targets=Q_AND_V, seed=0, lr=2e-2, alpha=ALPHA, steps=50, only=""):
    """The English base, adapted to Python. Rank 0: all is trained, or only what is so named."""
    model = bases.english_base()
    if r:
        add_lora(model, LoraConfig(r=r, lora_alpha=alpha, target_modules=targets, seed=seed))
    elif only:
        for name, t in model.named_parameters():
            t.requires_grad = name.endswith(only)
    batches = data.batches(python[0], 8, bases.CONTEXT, seed)
    fit(model, batches, AdamW(model.trainable_parameters(), lr), steps,
        warmup_cosine(lr, steps, steps // 10), every=steps,
        label=f"to Python, r = {r}, seed {seed}" if r else "to Python, in full")
    return model


def to_descending(r, targets=Q_AND_V, seed=0, lr=2e-2, steps=300):
    """The sorting base, adapted to write downwards. Rank 0: all is trained."""
    model = bases.sorting_base()
    if r:
        add_lora(model, LoraConfig(r=r, lora_alpha=ALPHA, target_modules=targets, seed=seed))
    batches = data.sorting(16, seed, descending=True)
    fit(model, batches, AdamW(model.trainable_parameters(), lr), steps,
        warmup_cosine(lr, steps, steps // 10), every=steps,
        label=f"to descending, r = {r}, seed {seed}" if r else "to descending, in full")
    return model


def right(model):
    """The share of the digits of unseen sequences that it writes in their place."""
    return bases.sorted_digits(model, descending=True)


# %%
RANKS = (1, 4, 8, 16, 64)
adapted = {r: to_python(r) for r in RANKS}
text = {r: evaluate(model, held_out) for r, model in adapted.items()}
full_text = evaluate(to_python(0, lr=1e-3), held_out)
full_q_and_v = evaluate(to_python(0, lr=3e-3, only=("q_proj.weight", "v_proj.weight")), held_out)
frozen = evaluate(bases.english_base(), held_out)
print(f"English to Python; frozen: {frozen:.2f} nats a character")
for r in RANKS:
    trained = count_parameters(adapted[r])[0]
    print(f"  r = {r:>2}: {trained:>7,} trained, validation loss {text[r]:.2f}")
print(f"  q and v in full:  16,384 trained, validation loss {full_q_and_v:.2f}")
print(f"  everything:      110,336 trained, validation loss {full_text:.2f}")

losses = [text[r] for r in RANKS]
assert losses[0] - losses[-1] > 0.04 and max(np.diff(losses)) < 0.02  # rank helps, or does no harm
assert min(losses[-1], full_q_and_v) > full_text + 0.05  # full is not reached, even at r = d
assert abs(losses[-1] - full_q_and_v) < 0.03  # page

# %%
SMALL_RANKS = (2, 4, 8)
digits = {r: [right(to_descending(r, seed=seed)) for seed in SEEDS] for r in SMALL_RANKS}
full_model = to_descending(0, lr=3e-3)
full_digits, full_count = right(full_model), count_parameters(full_model)[0]
frozen_digits = right(bases.sorting_base())
print(f"ascending to descending; frozen: about {frozen_digits:.0%} of digits in their place")
for r, shares in digits.items():
    print(f"  r = {r}: {256 * r:>6,} trained, about {np.mean(shares):.0%}, "
          f"mean of {len(SEEDS)} seeds")
print(f"  full : {full_count:>6,} trained, about {full_digits:.0%}")
means = [np.mean(shares) for shares in digits.values()]
assert means[0] < means[-1] < full_digits
assert means == sorted(means) and means[-1] > 0.88 and full_digits > 0.98  # page

# %% [markdown]
# On the small shift, rank 8 with 2,048 numbers comes close to full fine-tuning with 26,336. On the large one, a
# higher rank helps little, and even $r = 64$ on q and v (as many as the matrices have rows) stays behind training everything. Training the
# weights of q and v in full stays behind by as much: what is missing is not rank but the other layers. Doubling
# the rank helps more on the small shift (some 8 points each time) than on the large one (0.01 to 0.02 nats). And *higher
# r is always better* fails where nothing is left to gain, as with the teacher above from $r = 6$ on.

# %%
from lessons.course.pages.drawings import rank as draw

draw.two_shifts(digits, full_digits, frozen_digits, RANKS, losses, full_text, frozen)

# %% [markdown]
# ## Which layers?
#
# The same budget of about 4,000 numbers, spent on one matrix of each layer, on q and v, on the two matrices of the MLP, or on all
# six; and on the small shift about 1,000 numbers. Three seeds each. The learning rate is 0.02, for all six matrices 0.01: in trials
# with other seeds these were best, or level with the best, of 0.01, 0.02 and 0.04.

# %%
MLP, ALL_SIX = ("fc1", "fc2"), "all-linear"  # all-linear: q, k, v, out, fc1 and fc2, not the head
PLACES = {"q": ("q_proj",), "v": ("v_proj",), "q and v": Q_AND_V, "MLP": MLP, "all six": ALL_SIX}


def spend(adapt, measure, ranks):
    """{place: (how many numbers train, a result for each seed)}, at {place: rank}."""
    results = {}
    for place, r in ranks.items():
        lr = 1e-2 if place == "all six" else 2e-2
        models = [adapt(r, PLACES[place], seed, lr) for seed in SEEDS]
        results[place] = count_parameters(models[0])[0], [measure(model) for model in models]
        trained, found = results[place]
        print(f"  {place:8} r = {r:>2}: {trained:>6,} trained, "
              + "  ".join(f"{x:.2f}" for x in found))
    return results


print("English to Python, validation loss, lower is better")
large = spend(to_python, lambda model: evaluate(model, held_out),
              {"q": 16, "v": 16, "q and v": 8, "MLP": 3, "all six": 2})
print("ascending to descending, share of digits in their place, higher is better")
small = {"q and v": (256 * 4, digits[4])}
small |= spend(to_descending, right, {"MLP": 2, "all six": 1})
print(f"  q and v  r =  4: {small['q and v'][0]:>6,} trained, "
      + "  ".join(f"{share:.2f}" for share in digits[4]))

loss = {place: np.mean(found) for place, (_, found) in large.items()}
share = {place: np.mean(found) for place, (_, found) in small.items()}
assert loss["MLP"] < loss["q and v"] and large["MLP"][0] < large["q and v"][0]
assert loss["all six"] < loss["q and v"] < loss["q"]
assert share["all six"] > share["MLP"]
assert max(large["MLP"][1] + large["all six"][1]) < min(large["q and v"][1])  # page: with every seed
assert share["all six"] > share["q and v"] > share["MLP"]  # page
assert abs(loss["MLP"] - loss["all six"]) < 0.03 and abs(loss["v"] - loss["q and v"]) < 0.03  # page
assert loss["q"] > frozen - 0.1  # page

# %% [markdown]
# On text the MLP alone beats q and v, with fewer numbers and with every seed. On sorting, which is a task of attention
# (where to look, and what to bring from there), the MLP alone is the worst place. Nobody knows beforehand what a task wants.
# All six at the lowest rank are best, or level with the best, on both. So if you do not know, adapt all layers, at a lower rank:
# that is also what was found for large models ([Schulman and Thinking Machines Lab 2025](https://thinkingmachines.ai/blog/lora/)).
#
# A single matrix can be as good as two (v, on the text) or nearly useless (q alone: a query that may change cannot make
# up for a value that may not). The [LoRA paper](https://arxiv.org/abs/2106.09685) finds the same direction at the scale
# of GPT-3, much weaker (its Table 5, 18 million parameters on WikiSQL: 70.4, 70.0, 73.0 and 73.2 for q, k, v and out
# alone, 73.7 for q and v together, 73.7 for all four). It leaves the MLP frozen, for simplicity (section 4.2), and
# takes q and v. That is the default here and in PEFT for many models, and it stays ours, because with two small
# matrices a layer everything can be followed by hand. Its price is what you see: on the text q and v go a good half of
# the way to full fine-tuning, and as many numbers elsewhere go about three quarters of it:

# %%
part = {place: (frozen - loss[place]) / (frozen - full_text) for place in loss}
print("of the way from frozen to full: "
      + ", ".join(f"{place} {x:.0%}" for place, x in part.items()))
assert 0.5 < part["q and v"] < 0.65 and 0.7 < min(part["MLP"], part["all six"]) < 0.85  # page
draw.places(large, small, frozen, full_text, full_digits)

# %% [markdown]
# ## And alpha?
#
# The update is $\frac{\alpha}{r} B A$. With Adam, alpha acts much like a learning rate: within a wide range the result
# is about the same, and outside of it training fails. Rank 4 on q and v, with other alphas:

# %%
alphas = {alpha: evaluate(to_python(4, alpha=alpha), held_out) for alpha in (2, 32, 512)}
alphas = dict(sorted({**alphas, ALPHA: text[4]}.items()))
for alpha, found in alphas.items():
    print(f"  r = 4, alpha = {alpha:>3}, alpha / r = {alpha / 4:>5}: validation loss {found:.2f}")
assert alphas[512] > max(alphas[alpha] for alpha in (2, 8, 32)) + 0.1
assert np.ptp([alphas[alpha] for alpha in (2, 8, 32)]) < 0.04 and alphas[512] > frozen  # page

# %% [markdown]
# A factor of four up or down changes little, and 64 times the alpha makes the model worse than the frozen one. So with
# $\alpha = r$ a comparison of ranks is also one of step sizes: the high ranks take the larger steps (lesson 09), and
# what looks like rank may be learning rate. A comparison of ranks is fair if it says what it held fixed, $\alpha$ or
# $\alpha / r$; a better one tries some learning rates at every rank.

# %%
draw.choices(floors, reached, alphas, frozen)

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
print("mean overlap with the top 8 directions at r = 64")
print(f"  of the first direction at r = 8: about {best:.1f}")
print(f"  of all eight: about {all_eight:.1f}")
print(f"  of unrelated directions: {8 / 64:.1f}")
assert best > all_eight > 8 / 64
assert best > all_eight + 0.1  # page

# %% [markdown]
# As in the paper, the top direction is shared between ranks far more than the rest: that is why a small rank can do much
# of the work. Unlike in the paper, the others still overlap clearly more than chance; our matrices are small.
#
# *Does the update repeat what the weight already does?* Project $W_0$ on the update's own directions, its columns
# $\hat B$ and its rows $\hat A$, and compare sizes. The amplification factor is
# $\lVert \Delta W \rVert / \lVert \hat B^\top W_0 \hat A^\top \rVert$ (the paper's Table 7: 21.6 at $r = 4$ and 1.88 at
# $r = 64$ for a matrix of GPT-3).

# %%
def amplification(layer, r):
    columns, _, rows = np.linalg.svd(layer.delta().astype(np.float64))
    projected = columns[:, :r].T @ layer.weight.data @ rows[:r].T
    return np.linalg.norm(layer.delta()) / np.linalg.norm(projected)


median = {r: np.median([amplification(layer, r) for layer in lora_layers(adapted[r]).values()])
          for r in (1, 4, 64)}
for r, factor in median.items():
    print(f"r = {r:>2}: median amplification {f'{factor:.0f}' if factor > 1 else 'below 1'}")
assert median[1] > median[4] > median[64]
assert 3 < median[4] < 6 and median[64] < 1  # page

# %% [markdown]
# The tendency is the paper's: an update of low rank amplifies directions that the base hardly uses, and the factor falls
# with the rank. The size is not: about 4 at $r = 4$ here, 21.6 there. With 64 dimensions there are few directions that a
# trained $W_0$ does not use.

# %% [markdown]
# ## Key points
#
# - A rank-r update can do no better than the tail of the squared singular values of the update that the task wants.
# - How much rank is enough depends on how far the task is from the base. Measure on held-out data.
# - For the same number of parameters, all layers at a low rank are best or level on both tasks. q and v, the paper's default,
#   are simple, and cost part of what could be learned; the MLP alone wins on one task and loses on the other.
# - alpha / r scales the update and is forgiving within a factor of a few. When ranks are compared, say which of alpha and
#   alpha / r was held fixed.

# %% [markdown]
# **Exercise.** In [ex11_rank.py](ex11_rank.py) you compute the floor that no LoRA of rank $r$ can go below, and the alpha that
# keeps the scaling when the rank changes. `python -m lessons check 11` tries both with and without rsLoRA.
