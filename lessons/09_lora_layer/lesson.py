# %% [markdown]
# # 09. The LoRA layer: h = W0 x + (alpha/r) B A x
#
# **Objective.** Build a LoRA layer by hand, forward and backward, say why it starts as it does, and scale it correctly.
#
# **Minutes.** 30. **Before this.** Lesson 02 (the backward pass), 06 (what frozen means), 07 (what rank means) and 08
# (how many numbers).
#
# **Predict first.** A starts random and B at zero. After the first step of training, which of them has changed: A alone, B
# alone, or both? And after a hundred steps, if both had started at zero?

# %% [markdown]
# ## One layer, two paths
#
# A layer with the pretrained weight $W_0$ computes $W_0 x$. LoRA ([Hu et al. 2021](https://arxiv.org/abs/2106.09685),
# section 4.1) freezes $W_0$ and adds a second path beside it, of two thin matrices:
#
# $$
# h = W_0 x + \frac{\alpha}{r} B A x, \qquad W_0: d \times k, \qquad A: r \times k, \qquad B: d \times r
# $$
#
# $x$ has $k$ numbers and $h$ has $d$. The rank $r$ is chosen, far below $d$ and $k$, and so is the number $\alpha$; what they do is
# shown below. The drawing is to scale for $d = k = 6 r$; an arrow is as wide as what it carries:

# %%
from lessons.course.pages.drawings import lora_layer as draw

draw.data_flow()

# %% [markdown]
# ## With numbers
#
# Everything below can be checked with a pencil. There are two inputs, two outputs, $r = 1$ and $\alpha = 2$. We write $s$ for
# $\alpha / r$, and take as loss half the squared distance from a target $y$: $L = \frac{1}{2} \lVert h - y \rVert^2$.

# %%
import numpy as np

x, y = np.array([2.0, 3.0]), np.array([3.0, 5.0])
W0 = np.array([[-2.0, -1.0], [1.0, -1.0]])
A, B = np.array([[3.0, -1.0]]), np.array([[2.0], [0.5]])
alpha, r = 2.0, 1
s = alpha / r

u = A @ x              # (r,): two numbers have become one
v = B @ u              # (d,)
h = W0 @ x + s * v
L = ((h - y) ** 2).sum() / 2
print(f"W0 x = {W0 @ x}   u = A x = {u}   v = B u = {v}\nh = W0 x + {s:g} v = {h}   L = {L}")
assert (W0 @ x == [-7, -1]).all() and u == [3] and (v == [6, 1.5]).all()  # page
assert (h == [5, 2]).all() and L == 6.5  # page

# %% [markdown]
# Backward, from the end to the start, with the rules of lesson 02. We write $dh$ for $dL / dh$, and so on:
#
# $$
# dh = h - y, \qquad dv = s \, dh, \qquad dB = dv \, u^\top, \qquad du = B^\top dv, \qquad dA = du \, x^\top
# $$
#
# The gradient of the input comes back on both paths, and the two parts add up. That of $W_0$ has no line: it is frozen.
#
# $$
# dx = W_0^\top dh + A^\top du
# $$

# %%
dh = h - y
dv = s * dh
dB = np.outer(dv, u)
du = B.T @ dv
dA = np.outer(du, x)
dx = W0.T @ dh + A.T @ du
print(f"dh = {dh}   dv = {dv}   dB = {dB.tolist()}   du = {du}   dA = {dA.tolist()}")
print(f"dx = {W0.T @ dh} through W0, + {A.T @ du} through A and B = {dx}")
assert (dB == [[12], [-18]]).all() and (dA == [[10, 15]]).all() and (dx == [8, -4]).all()  # page

# %% [markdown]
# Are these the slopes of the loss? Change one number by +1 and by -1, and halve the difference. For a quadratic that is
# exact, and $L$ is quadratic in each single entry:

# %%
def loss(x=x, A=A, B=B):
    return ((W0 @ x + s * (B @ (A @ x)) - y) ** 2).sum() / 2


def moved(array, index, step):
    array = array.copy()
    array[index] += step
    return array


for name, array, gradient in (("A", A, dA), ("B", B, dB), ("x", x, dx)):
    for index in np.ndindex(array.shape):
        up, down = (loss(**{name: moved(array, index, step)}) for step in (1, -1))
        print(f"d{name}{list(index)} = ({up} - {down}) / 2 = {(up - down) / 2:g}")
        assert (up - down) / 2 == gradient[index]

# %% [markdown]
# The library's layer gives the same, number for number. `LoraLinear` wraps a `Linear` layer, freezes its weight, and has
# `lora_A` and `lora_B` as its only trainable parameters.

# %%
from lora_np import LoraConfig, Tensor
from lora_np.lora import LoraLinear
from lora_np.nn import Linear

layer = LoraLinear(Linear(d_in=2, d_out=2, bias=False), LoraConfig(r=1, lora_alpha=2))
layer.weight.data, layer.lora_A.data, layer.lora_B.data = W0, A, B
given = Tensor(x, requires_grad=True, name="x")
out = layer(given)
(((out - y) ** 2).sum() / 2).backward()
print("h =", out.data, "  dA =", layer.lora_A.grad.tolist(), "  dB =", layer.lora_B.grad.tolist())
print("dx =", given.grad, "  dW0 =", layer.weight.grad)
assert (layer.lora_A.grad == dA).all() and (layer.lora_B.grad == dB).all()
assert (given.grad == dx).all() and layer.weight.grad is None
assert (out.data == h).all()  # page

# %% [markdown]
# The engine can draw what it computed, each operation as a box. Grey is frozen, and a dashed line is one that backward skips:

# %%
draw.graph(lambda: ((layer(given) - Tensor(y, name="y")) ** 2).sum() / 2, layer)

# %% [markdown]
# <!-- live: byhand -->
#
# (`python -m lora_np.byhand` prints this example line by line, and `--worksheet` others with blanks to fill in; the code
# is in [lora_np/byhand](../../lora_np/byhand).)
#
# **On rows.** In a model the inputs are the rows of an array $X$ of shape $(\dots, k)$, so every product stands the other way
# round: `X @ W0.T + s * (X @ A.T) @ B.T`. The brackets matter for the cost: $X A^\top$ has $r$ columns only, and the $d \times k$
# matrix $B A$ is never formed.

# %%
rng = np.random.default_rng(0)
d, k, N = 3, 5, 4
wide = LoraLinear(Linear(k, d, bias=False), LoraConfig(r=2, lora_alpha=6))
wide.lora_B.data = rng.normal(size=(d, 2))
X = rng.normal(size=(N, k))
W0_wide, A_wide, B_wide = wide.weight.data, wide.lora_A.data, wide.lora_B.data
by_hand = X @ W0_wide.T + 6 / 2 * (X @ A_wide.T) @ B_wide.T
print("shapes: X", X.shape, " A", A_wide.shape, " B", B_wide.shape, " h", by_hand.shape)
assert np.allclose(wide(X).data, by_hand)
assert np.allclose(by_hand[0], W0_wide @ X[0] + 6 / 2 * B_wide @ (A_wide @ X[0]))  # page

# %% [markdown]
# ## How it starts
#
# $A$ starts random, from the uniform distribution on $(-1/\sqrt{k}, 1/\sqrt{k})$, and $B$ at zero. There are four ways in which
# two matrices can be zero or random. Try them all: a target that differs from $W_0$ by a matrix of rank 2, and
# 300 steps of training.

# %%
from lora_np.optim import AdamW

d, k, r = 8, 10, 2
X = rng.normal(size=(64, k))
plain = Linear(k, d, bias=False)
change = rng.normal(size=(d, r)) @ rng.normal(size=(r, k)) * 0.3
target = X @ (plain.weight.data + change).T
random_A = rng.uniform(-k ** -0.5, k ** -0.5, (r, k))
random_B = rng.uniform(-r ** -0.5, r ** -0.5, (d, r))


def train_from(A, B, steps=300):
    """How far the output is from the base's at first; first and last loss; what step 1 moved."""
    layer = LoraLinear(plain, LoraConfig(r=r, lora_alpha=r))
    layer.lora_A.data, layer.lora_B.data = A, B
    differs = np.abs(layer(X).data - plain(X).data).max()
    optimizer, losses = AdamW(layer.trainable_parameters(), lr=2e-2), []
    for step in range(steps):
        optimizer.zero_grad()
        loss = ((layer(X) - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step == 0:
            moved = {"A": (layer.lora_A.data != A).any(), "B": (layer.lora_B.data != B).any()}
            first = [name for name in moved if moved[name]]
    return differs, losses[0], losses[-1], first


ZERO_A, ZERO_B = np.zeros((r, k)), np.zeros((d, r))
starts = {"A random, B zero": (random_A, ZERO_B), "A zero, B random": (ZERO_A, random_B),
          "both zero": (ZERO_A, ZERO_B), "both random": (random_A, random_B)}
results = {name: train_from(*start) for name, start in starts.items()}
for name, (differs, before, after, first) in results.items():
    print(f"{name:17} output {'as the base' if differs == 0 else 'changed':11}  "
          f"step 1 moves {' and '.join(first) or 'nothing':8} loss {before:.1f} -> {after:.1f}")
assert results["A random, B zero"][3] == ["B"] and results["A zero, B random"][3] == ["A"]
assert results["both zero"][1] == results["both zero"][2]
assert results["A random, B zero"][0] == results["A zero, B random"][0] == 0  # page
assert results["both random"][0] > 0.1 and results["both zero"][3] == []  # page
assert all(results[name][2] < 0.01 for name in starts if name != "both zero")  # page

# %% [markdown]
# - **One of them zero.** $B A = 0$, so the adapted model starts as the base, exactly. Look at the formulas again:
#   $dB = dv \, u^\top$ with $u = A x$ is not zero, while $dA = B^\top dv \, x^\top$ is. So the first step moves $B$ alone, and
#   from the second on both learn.
# - **Both zero.** $u = 0$ makes $dB$ zero, and $B = 0$ makes $dA$ zero. Nothing moves, at this step or at any later one.
#   "Start at zero, to be safe" is a LoRA that never learns, and reports no error.
# - **Both random.** It learns, but the model is disturbed before it has seen a single example.
#
# $A$ zero and $B$ random would serve as well here; that $A$ is the random one is the paper's choice, and a good one in wide
# layers (lesson 13). Note also that with $B = 0$ a gradient check of $dA$
# compares zero with zero. It proves nothing: check with both at random numbers.
#
# ## Alpha over r, not alpha
#
# The scale is $s = \alpha / r$. Code that multiplies by $\alpha$ and forgets to divide passes every test at $r = 1$, where the two are the
# same; our example above could not tell. At $r = 2$ it is wrong by a factor of 2, at $r = 64$ by 64:

# %%
def update_of(layer, scale):
    return scale * layer.lora_B.data @ layer.lora_A.data


for rank in (1, 2, 64):
    trained = LoraLinear(Linear(64, 64, bias=False), LoraConfig(r=rank, lora_alpha=16))
    trained.lora_B.data = rng.normal(size=(64, rank))
    wrong = np.linalg.norm(update_of(trained, 16)) / np.linalg.norm(trained.delta())
    print(f"r = {rank:>2}, alpha = 16: scaling {trained.scaling:g}; "
          f"with alpha alone the update is {wrong:.0f} times as large")
    assert np.allclose(trained.delta(), update_of(trained, 16 / rank))
    assert np.isclose(wrong, rank)  # page

# %% [markdown]
# Why divide at all? $B A$ is a sum of $r$ terms, one for each column of $B$ and row of $A$. The first step of AdamW moves
# every entry of $B$ by the learning rate, whatever the size of its gradient (lesson 04), and in the direction that lowers
# the loss. So the $r$ terms push the same way, and the change of $h$ grows with $r$. Divided by $r$, it stays: if you have
# found a good learning rate at $r = 8$, you can try $r = 64$ with the same $\alpha$ and need not look for another. (With
# $\alpha = r$, as much code has it, the scale is 1 at every rank, and you would have to. Lesson 10 measures both.)

# %%
def change_of_h(rank, scale):
    """The mean change of h that the first step of AdamW makes, on an input of 256 numbers."""
    rng = np.random.default_rng(1)
    layer = LoraLinear(Linear(256, 256, bias=False, rng=rng), LoraConfig(r=rank), rng)
    layer.scaling = scale
    x, y = rng.normal(size=256), rng.normal(size=256)
    before = layer(x).data
    (((layer(x) - y) ** 2).sum() / 2).backward()
    AdamW(layer.trainable_parameters(), lr=1e-3).step()
    return np.abs(layer(x).data - before).mean()


alone = {rank: change_of_h(rank, 8) for rank in (4, 16, 64)}
over_r = {rank: change_of_h(rank, 8 / rank) for rank in alone}
for rank in alone:
    print(f"r = {rank:>2}: h moves by {alone[rank]:.2f} with alpha, "
          f"by {over_r[rank]:.4f} with alpha / r")
assert 12 < alone[64] / alone[4] < 20  # 16 times the rank, 16 times the change
assert 0.75 < over_r[64] / over_r[4] < 1.25  # about the same

# %% [markdown]
# So $\alpha$ sets how strongly the update acts, and $r$ how many directions it has. When $r$ changes and $\alpha$ stays, the
# factor $\alpha / r$ changes, and that is meant: it makes up for the number of terms. (Dividing by $\sqrt{r}$ has been
# proposed for large ranks, [Kalajdzievski 2023](https://arxiv.org/abs/2312.03732): `LoraConfig(use_rslora=True)`.)
#
# ## Merged, it is a plain layer
#
# After training the two paths can be made one: $W' = W_0 + s B A$ has the shape of $W_0$, and $W' x$ is $h$.

# %%
merged = W0 + s * B @ A
print("W' =", merged.tolist(), "  W' x =", merged @ x)
assert (merged @ x == h).all()
assert (merged == [[10, -5], [4, -2]]).all()  # page
layer.merge()
assert (layer.weight.data == merged).all()
layer.unmerge()
assert (layer.weight.data == W0).all()

# %% [markdown]
# Engine, layer, training and merging fit on one page of NumPy: [one_page.py](../one_page.py). Lesson 10 puts such layers
# into a transformer, lesson 11 chooses $r$ and $\alpha$, and lesson 12 measures what merging saves.
#
# ## Key points
#
# - $h = W_0 x + \frac{\alpha}{r} B A x$: two paths from the same input, added. Only $A$ and $B$ train; $dx$ comes back through both.
# - $A$ random and $B$ zero: the model starts as the base, and $B$ moves first. Both zero never learns.
# - The scale is $\alpha / r$. A test at $r = 1$ cannot tell it from $\alpha$, and a test at $B = 0$ tells nothing about $dA$.
# - $W_0 + \frac{\alpha}{r} B A$ is a weight like any other: a LoRA can be merged, and taken out again.

# %% [markdown]
# **Exercise.** In [ex09_lora_layer.py](ex09_lora_layer.py) you write the start, the forward pass and the backward pass of a
# LoRA layer on a batch. `python -m lessons check 09` tries them first at $r = 2$ with $B$ not zero and no two sizes
# equal, where each of the known mistakes shows.
