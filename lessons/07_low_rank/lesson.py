# %% [markdown]
# # 07. Why BA: how low the rank of an update is
#
# **Objective.** Say what the rank of a matrix is and is not, measure how close a real fine-tuning update is to low rank,
# and judge what that does and does not prove for LoRA.
#
# **Minutes.** 25. **Before this.** Lesson 06; the matrix product.
#
# **Predict first.** Full fine-tuning adds a matrix of 32 by 32 to a weight. Such a matrix can be written as a sum of 32
# simple pieces, a column times a row each, the largest first. Nothing asks training to make the later ones small. How
# many pieces hold three quarters of the squared size: 24, 12 or 4? And if only those are kept, does the model still work?

# %% [markdown]
# ## What rank is
#
# Multiply a column by a row and the result is a full matrix. Each of its rows is the same row, times one number:

# %%
import numpy as np

B = np.array([[1.0], [2.0], [-3.0]])      # (3, 1)
A = np.array([[5.0, -1.0, 2.0, 7.0]])     # (1, 4)
print(B @ A)
assert np.linalg.matrix_rank(B @ A) == 1  # page

# %% [markdown]
# All its rows point in one direction: the matrix has *rank* 1. The rank is the number of independent directions among
# the rows (and it is the same among the columns). If $B$ has $r$ columns and $A$ has $r$ rows, then $B A$ is a sum of
# $r$ such matrices, column $b_i$ of $B$ times row $a_i$ of $A$, and so its rank is at most $r$:
#
# $$
# B A = b_1 a_1 + b_2 a_2 + \dots + b_r a_r
# $$

# %%
rng = np.random.default_rng(0)
B, A = rng.normal(size=(30, 3)), rng.normal(size=(3, 40))
assert np.allclose(B @ A, sum(np.outer(B[:, i], A[i]) for i in range(3)))
print(f"B A is {B.shape[0]} x {A.shape[1]} and has rank {np.linalg.matrix_rank(B @ A)}")
assert np.linalg.matrix_rank(B @ A) == 3  # page

# %% [markdown]
# ## "Rank r means r numbers"
#
# It does not, in either direction. A matrix of rank 3 is not made of 3 numbers: here it has 1,200 entries, no two
# alike, and writing it as $B A$ takes 210 numbers, $r$ for each row and $r$ for each column. And a matrix with few
# numbers in it need not have a low rank: the identity of 30 by 30 has 30 ones, and rank 30.

# %%
different = len(np.unique(B @ A))
print(f"different entries of B A: {different:,};  numbers in B and A: {B.size + A.size}")
print(f"the identity of 30 x 30: {np.count_nonzero(np.eye(30))} numbers that are not zero, rank "
      f"{np.linalg.matrix_rank(np.eye(30))}")
assert different == 1200 and B.size + A.size == 3 * (30 + 40) == 210  # page
assert np.linalg.matrix_rank(np.eye(30)) == 30  # page

# %% [markdown]
# ## The best approximation of rank r
#
# The *singular value decomposition* (SVD) writes any matrix $M$ as such a sum, in a special way: the columns $\hat b_i$
# have length 1 and are at right angles to each other, as are the rows $\hat a_i$, and each term has a size
# $\sigma_i \ge 0$ of its own, its *singular value*:
#
# $$
# M = \sigma_1 \hat b_1 \hat a_1 + \sigma_2 \hat b_2 \hat a_2 + \dots, \qquad \sigma_1 \ge \sigma_2 \ge \dots
# $$
#
# (Side by side, the columns make the matrix $\hat B$ and the rows $\hat A$. Elsewhere they are often called U and V: here
# those letters are in use, and the hats say what belongs to what.) Measure the size of a matrix by the root of the sum
# of its squared entries: its Frobenius norm, written $\lVert M \rVert$. The terms are at right angles, so their squares
# add up: $\lVert M \rVert^2 = \sigma_1^2 + \sigma_2^2 + \dots$ To *truncate* $M$ to rank $r$ is to keep the first $r$
# terms, $M_r$. What is lost is what was left out, and no other matrix of rank $r$ comes closer to $M$
# ([Eckart and Young 1936](https://doi.org/10.1007/BF02288367)):
#
# $$
# \lVert M - M_r \rVert^2 = \sigma_{r+1}^2 + \sigma_{r+2}^2 + \dots
# $$

# %%
def truncate(M, r):
    """The matrix of rank r that is closest to M."""
    columns, sizes, rows = np.linalg.svd(M, full_matrices=False)
    return columns[:, :r] * sizes[:r] @ rows[:r]


def best_rank_2_by_search(M, tries=20):
    """The smallest error of B A of rank 2, by solving for B and A in turn, from random starts."""
    errors = []
    for _ in range(tries):
        A = rng.normal(size=(2, M.shape[1]))
        for _ in range(200):
            B = M @ np.linalg.pinv(A)
            A = np.linalg.pinv(B) @ M
        errors.append(np.linalg.norm(M - B @ A))
    return min(errors)


M = rng.normal(size=(6, 5))
sigma = np.linalg.svd(M, compute_uv=False)
error, formula = np.linalg.norm(M - truncate(M, 2)), np.sqrt((sigma[2:] ** 2).sum())
searched = best_rank_2_by_search(M)
print("singular values:", sigma.round(2))
print(f"rank 2: truncated {error:.4f}, by the formula {formula:.4f}, by search {searched:.4f}")
assert np.isclose(error, formula) and np.isclose(searched, error, rtol=1e-3)

# %% [markdown]
# ## A real update
#
# Now train the whole sorting base of lesson 06 to sort downwards, and look at what became of its weights. In attention,
# `q_proj` makes the queries and `v_proj` the values; in each of the two blocks both are 32 by 32. We call the weight
# before $W_0$ and the change $\Delta W = W - W_0$.

# %%
from lessons.course.pages import bases
from lora_np import LoraConfig, data
from lora_np.lora import add_lora, count_parameters
from lora_np.optim import AdamW, warmup_cosine
from lora_np.train import fit

STEPS = 400
QV = [f"layers.{i}.self_attn.{name}.weight" for i in (0, 1) for name in ("q_proj", "v_proj")]
before = {name: t.data.astype(float) for name, t in bases.sorting_base().named_parameters()}


def sort_down(model, lr, label):
    """Train whatever in the model is not frozen to sort downwards."""
    batches = data.sorting(32, seed=0, descending=True)
    optimizer = AdamW(model.trainable_parameters(), lr)
    schedule = warmup_cosine(lr, STEPS, STEPS // 10)
    fit(model, batches, optimizer, STEPS, schedule, every=STEPS, label=label)
    return model


def updates(model):
    """{name: what training added to that weight} for the weights of q_proj and v_proj."""
    after = dict(model.named_parameters())
    return {name: after[name].data - before[name] for name in QV}


full = sort_down(bases.sorting_base(), 3e-3, "full fine-tuning")
full_update = updates(full)
right = bases.sorted_fraction(full, descending=True)
print(f"of 500 sequences right after full fine-tuning: {right:.0%}")
for name, change in full_update.items():
    relative = np.linalg.norm(change) / np.linalg.norm(before[name])
    print(f"{name.removesuffix('.weight'):26} rank {np.linalg.matrix_rank(change)}, "
          f"size of the change: {relative:.1f} of the size of the weight")
    sigma = np.linalg.svd(change, compute_uv=False)
    assert sigma[-1] > 1e-6 * sigma[0]  # none of the 32 is zero: they are above float32's rounding
    assert np.linalg.matrix_rank(change) == 32  # page
assert right > 0.98  # page

# %% [markdown]
# Taken strictly, the update is *not* low-rank at all: every one of its 32 singular values differs from zero, and its rank
# is 32. The useful question is how its size is spread over them. To see whether that is remarkable, compare it with
# $W_0$ itself and with a matrix of random numbers of the same shape.

# %%
def share(M, r):
    """The part of the squared size of M that its first r singular values hold."""
    sigma = np.linalg.svd(M, compute_uv=False)
    return (sigma[:r] ** 2).sum() / (sigma ** 2).sum()


random = {i: rng.normal(size=(32, 32)) for i in range(4)}
kinds = {"update": full_update, "W0": {name: before[name] for name in QV}, "random": random}
RANKS = (1, 2, 4, 8, 16)
held = {kind: {r: np.mean([share(M, r) for M in matrices.values()]) for r in RANKS}
        for kind, matrices in kinds.items()}
print("squared size held by the first r of 32 singular values, mean of four matrices")
print("  r" + "".join(f"{kind:>9}" for kind in kinds) + "   lost of the update's own length")
for r in RANKS:
    lost = np.sqrt(1 - held["update"][r])
    print(f"{r:>3}" + "".join(f"{held[kind][r]:>9.0%}" for kind in kinds) + f"{lost:>9.0%}")
assert held["update"][4] > 1.5 * max(held["W0"][4], held["random"][4])
assert 0.65 < held["update"][4] < 0.85 and held["update"][8] > 0.85  # page
assert held["random"][4] < 0.4 and held["random"][4] < held["W0"][4] < 0.5  # page

# %% [markdown]
# The update is clearly concentrated: 4 of 32 directions hold about three quarters of its squared size, where a random
# matrix has a bit more than a third. $W_0$ is spread nearly as evenly as random numbers, so it is not that all matrices
# in this model are of low rank: the *change* is special.
#
# It is less low-rank than is often said. Three quarters of the squared size sounds like nearly all, but it leaves an error of
# half the update's length (the last column), and even rank 8 loses more than a quarter. This model is small, and its
# directions are few: 8 of 32 is a quarter of all there are. In the [LoRA paper](https://arxiv.org/abs/2106.09685) ranks of
# 1 to 8 suffice for GPT-3, of 12,288 that its weights could have; but that is measured by the results of training at
# those ranks, as below, and not by the singular values of a full update.

# %%
from lessons.course.pages.drawings import low_rank as draw

draw.singular_values(kinds)

# %% [markdown]
# ## What the model makes of it
#
# An error in a weight is not an error in the task. So put the truncated updates into the fine-tuned model, in place of the
# whole ones in q_proj and v_proj, leave everything else as training left it, and let it sort.

# %%
def right_with(model, changes, r):
    """The share of sequences right, to the nearest 10%, with the updates truncated to rank r."""
    kept = model.state_dict()
    for name, t in model.named_parameters():
        if name in changes:
            t.data = (before[name] + truncate(changes[name], r)).astype(t.dtype)
    fraction = bases.sorted_fraction(model, descending=True)
    model.load_state_dict(kept)
    return round(fraction, 1)


CUTS = (0, 1, 2, 4, 6, 8, 12, 16, 24, 32)
cut_full = {r: right_with(full, full_update, r) for r in CUTS}
for r, fraction in cut_full.items():
    print(f"q and v truncated to rank {r:>2}: about {fraction:.0%} right")
assert cut_full[8] == 1  # as good as before
assert cut_full[1] < 0.5 < cut_full[4] <= 0.9  # page

# %% [markdown]
# So the answer to the second question at the top: with the 4 pieces that hold about three quarters of the squared size,
# the model still gets most sequences right, but not as many as before. At rank 8, where more than a quarter of the
# length was still lost, it sorts as well as before: the directions left out did not matter for the task. This is the
# observation that LoRA rests on. But note what helped: everything else, from the embeddings to the MLPs and the other
# half of attention, kept its full update, 22,240 numbers that LoRA on q and v would not have.

# %% [markdown]
# ## Cutting afterwards, or training at low rank
#
# So take that help away. Train only the weights of q_proj and v_proj, in full, all else frozen; then truncate. And
# against that set the other order: fix the rank first, and train $B$ and $A$ themselves. `add_lora` from
# [lora_np/lora.py](../../lora_np/lora.py) does that; lesson 09 builds it from nothing, here only the result counts.
# Each way gets a learning rate that it does well with.

# %%
only_qv = bases.sorting_base().freeze()
for name, t in only_qv.named_parameters():
    t.requires_grad = name in QV
sort_down(only_qv, 1e-2, "q and v in full")
qv_update = updates(only_qv)
cut_qv = {r: right_with(only_qv, qv_update, r) for r in CUTS}

trained_at = {}
for r in (1, 2, 4, 8):
    model = bases.sorting_base()
    # lora_alpha: see lesson 09
    add_lora(model, LoraConfig(r=r, lora_alpha=r, target_modules=("q_proj", "v_proj")))
    sort_down(model, 2e-2, f"B and A of rank {r}")
    trained_at[r] = round(bases.sorted_fraction(model, descending=True), 1)

print("only q and v trained; sequences right:")
for r in trained_at:
    print(f"rank {r}: trained in full and then truncated, about {cut_qv[r]:.0%}; "
          f"trained as B A, about {trained_at[r]:.0%}")
print(f"rank 32, nothing truncated: about {cut_qv[32]:.0%}")
assert cut_qv[4] < 0.1 < 0.5 < trained_at[4]
assert cut_qv[8] <= 0.6 and trained_at[8] >= 0.8  # page
assert np.mean([share(M, 8) for M in qv_update.values()]) > 0.8  # page
assert count_parameters(full)[1] - 4 * 32 * 32 == 22_240  # page

# %% [markdown]
# The two differ widely. With nothing else to help, the update that training finds in q and v needs more than 8 directions,
# although its first 8 hold most of its squared size; cut to 4, it does nothing right. Yet there is *another* update, of
# rank 4 from the start, that does most of the task, and one of rank 8 that does nearly all of it. Training $B$ and $A$
# finds them.
#
# So the case for LoRA is not that a full update is of low rank: ours is not, quite. It is that among all updates that do
# the task there is one of low rank, and that gradient descent on $B$ and $A$ reaches it. How low the rank may be, nobody
# knows beforehand; lesson 11 measures it.

# %%
draw.cut_or_train(cut_full, cut_qv, trained_at)

# %% [markdown]
# ## Key points
#
# - The rank of a matrix counts independent directions, not numbers. A product $B A$, with $r$ columns in $B$ and $r$
#   rows in $A$, has rank at most $r$ and takes $r$ numbers for each row and each column of the matrix.
# - Truncating the SVD gives the closest matrix of rank $r$; the squared error is the sum of the squared singular values left out.
# - A full fine-tuning update has full rank, but is concentrated: 4 of 32 directions hold about three quarters of its
#   squared size here, which still is an error of half its length.
# - Training at rank $r$ is not truncating to rank $r$. LoRA needs some low-rank update that does the task, not the one
#   that full fine-tuning happens to find.

# %% [markdown]
# **Exercise.** In [ex07_low_rank.py](ex07_low_rank.py) you write the best approximation of rank $r$ as a product $B A$,
# and find the smallest rank that keeps a given share of a matrix's squared size. `python -m lessons check 07` tries the
# one on matrices of several shapes, the other on singular values that fall slowly and fast.
