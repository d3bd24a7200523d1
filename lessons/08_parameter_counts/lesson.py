# %% [markdown]
# # 08. d² against 2dr: what low rank saves
#
# **Objective.** Count the parameters of a LoRA update for any weight and any model, and say when it saves nothing.
#
# **Minutes.** 15. **Before this.** A matrix product; lesson 07 if you want to know why a low rank can be enough.
#
# **Predict first.** A weight of 4096 by 4096 is adapted at rank 8. How many times fewer numbers are trained:
# 8 times, 64 times, 256 times or 4096 times? Write your guess down.

# %% [markdown]
# ## One matrix
#
# A weight $W_0$ has $d$ rows and $k$ columns: it maps $k$ inputs to $d$ outputs. Full fine-tuning trains all
# $d k$ numbers. LoRA leaves $W_0$ as it is and trains two thin matrices whose product has the same shape:
#
# $$
# \Delta W = B A, \qquad B: d \times r, \qquad A: r \times k .
# $$
#
# $B$ has $d r$ numbers and $A$ has $r k$, together $r (d + k)$. For a square weight that is $2 d r$ instead of $d^2$.

# %%
def full(d, k):
    """Numbers in a weight of d rows and k columns."""
    return d * k


def lora(d, k, r):
    """Numbers in B (d x r) and A (r x k)."""
    return r * (d + k)


d = 4096
print(f"full fine-tuning of {d} x {d}: {full(d, d):>12,}")
for r in (1, 4, 8, 64):
    n = lora(d, d, r)
    print(f"LoRA at r = {r:>2}:               {n:>12,}   "
          f"1/{full(d, d) // n} of it, {1 - n / full(d, d):.3%} fewer")

assert full(d, d) // lora(d, d, 8) == 256
assert full(d, d) == 16_777_216 and lora(d, d, 8) == 65_536  # page

# %% [markdown]
# The saving is $d^2 / 2dr = d / 2r$: it grows with the matrix and shrinks with the rank. At $r = 8$ it is 256 times.
#
# <!-- live: counts -->
#
# The library, in [lora_np/lora.py](../../lora_np/lora.py), counts the same. Here is a small layer of its own:

# %%
from lora_np.lora import LoraConfig, LoraLinear, count_parameters
from lora_np.nn import Linear

layer = LoraLinear(Linear(d_in=96, d_out=64, bias=False), LoraConfig(r=8))
trainable, everything = count_parameters(layer)
print(f"trainable {trainable:,} of {everything:,}")
assert trainable == lora(64, 96, 8) and everything == full(64, 96) + lora(64, 96, 8)

# %% [markdown]
# ## A puzzle: "over 99.8% fewer"
#
# A text about LoRA says that for a 4096 by 4096 weight the number of trained parameters falls by "over 99.8%",
# and does not say at which rank. Which ranks make the sentence true?

# %%
for r in range(1, 10):
    saved = 1 - lora(d, d, r) / full(d, d)
    print(f"r = {r}: {saved:.3%}  {'true' if saved > 0.998 else 'false'}")

assert [r for r in range(1, 65) if 1 - lora(d, d, r) / full(d, d) > 0.998] == [1, 2, 3, 4]  # page

# %% [markdown]
# Ranks 1 to 4. At the popular $r = 8$ it is 99.609%, and the sentence holds only if one of the two matrices is
# forgotten. A percentage without its rank says little; so does one without the matrix it is a percentage of.

# %% [markdown]
# ## When LoRA saves nothing
#
# $2 d r < d^2$ holds while $r < d / 2$. At $r = d/2$ the two thin matrices have as many numbers as the weight, and
# above that LoRA trains *more* than full fine-tuning does, for an update that full fine-tuning could have made
# directly.

# %%
for d in (64, 1024, 4096):
    assert lora(d, d, d // 2) == full(d, d)
    assert lora(d, d, d // 2 + 1) > full(d, d)
    print(f"d = {d}: break-even at r = {d // 2}")

# %% [markdown]
# A weight that is not square breaks even at $r = d k / (d + k)$: above half of its smaller side, below the whole of it.

# %%
d, k = 3072, 768
print(f"{d} x {k}: break-even at r = {d * k / (d + k):.1f}, although the rank could be {min(d, k)}")
assert lora(d, k, 614) < full(d, k) < lora(d, k, 615)  # page

# %%
from lessons.course.pages.drawings import parameter_counts as draw

draw.growth()

# %% [markdown]
# ## Whole models
#
# A model has many layers, and LoRA adapts some matrices of each. With square weights that is
# $\text{layers} \cdot \text{matrices of each} \cdot 2 d r$ numbers. The LoRA paper
# ([Hu et al. 2021](https://arxiv.org/abs/2106.09685)) states such counts for real models. Recomputing them is a good
# habit: most agree, and some do not.

# %%
PAPER = [  # model, layers, d, r, matrices a layer, what the paper says (in millions)
    ("RoBERTa-base", 12, 768, 8, 2, 0.3),
    ("RoBERTa-large", 24, 1024, 8, 2, 0.8),
    ("DeBERTa-XXL, its Table 10", 48, 1536, 8, 2, 4.7),
    ("DeBERTa-XXL, released script", 48, 1536, 16, 2, 4.7),
    ("GPT-2 M", 24, 1024, 4, 2, 0.35),
    ("GPT-2 L", 36, 1280, 4, 2, 0.77),
    ("GPT-3 175B", 96, 12288, 1, 2, 4.7),
    ("GPT-3 175B", 96, 12288, 8, 2, 37.7),
    ("GPT-3 175B, App. D.4: q k v o", 96, 12288, 2, 4, 37.7),
]
print(f"{'model':30} layers      d   r matrices     computed   paper")
differing = []
for model, layers, d, r, matrices, stated in PAPER:
    computed = layers * matrices * lora(d, d, r)
    decimals = len(str(stated).split(".")[1])
    agrees = round(computed / 1e6, decimals) == stated
    differing += [] if agrees else [model]
    print(f"{model:30} {layers:>6} {d:>6} {r:>3} {matrices:>8} {computed:>12,} {stated:>6}M"
          + ("" if agrees else "  does not match"))

expected = ["DeBERTa-XXL, its Table 10", "GPT-2 M", "GPT-2 L", "GPT-3 175B, App. D.4: q k v o"]  # page
assert differing == expected  # page

# %% [markdown]
# Four of the nine rows do not match. For DeBERTa-XXL the paper's table says $r = 8$, its released script uses 16, and 16
# gives the stated 4.7M. The last row needs $r = 4$. The counts of GPT-2 are off by 12% and 4%. Published numbers are written
# by people, and with a formula as short as this one you can check them.

# %% [markdown]
# ## Key points
#
# - A full update of a $d \times k$ weight has $d k$ numbers, a LoRA update $r (d + k)$: for a square weight $2 d r$ against $d^2$.
# - The saving is $d / 2r$. It is large because $r$ is far below $d$, not because LoRA is used.
# - Break-even is at $r = d/2$, or $d k / (d + k)$; beyond it LoRA trains more than full fine-tuning.
# - "Rank $r$" does not mean "$r$ numbers": it means $r$ columns of $B$ and $r$ rows of $A$.

# %% [markdown]
# **Exercise.** In [ex08_parameter_counts.py](ex08_parameter_counts.py) you count the numbers of a LoRA update, and find the
# break-even rank and the largest rank that saves a given share. `python -m lessons check 08` tries weights that are not
# square, where "half of d" is wrong.
