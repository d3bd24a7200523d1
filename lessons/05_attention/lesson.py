# %% [markdown]
# # 05. Attention, then the block
#
# **Objective.** Compute an attention head and a whole transformer block in plain NumPy, and say at each line what its axes
# stand for.
#
# **Minutes.** 40. **Before this.** Lesson 02 for matrix products, lesson 04 for loss and parameters. Everything else
# is introduced here. Attention is from [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762); the model has the form
# of [OPT](https://arxiv.org/abs/2205.01068).
#
# **Predict first.** The scores of attention are a square: one row for each position that asks, one column for each
# position that is asked. They are to become weights that sum to 1. Must the rows sum to 1, or the columns? And what would
# go wrong with the other?

# %% [markdown]
# ## A model that sorts
#
# We take apart a small transformer that was trained beforehand, with the loop of lesson 04. It reads *tokens*, which are
# integers: the digits 0 to 9, and 10 for "now sort". It gets eight digits and the 10, and writes the digits in ascending
# order, one after the other.

# %%
import numpy as np

from lessons.course.pages import bases
from lora_np import data, generate, ops

model = bases.sorting_base()
question = [7, 2, 9, 4, 0, 5, 8, 1, 10]
answer = generate(model, question, 8, temperature=0)[9:]  # 0: the token of the highest probability
print(f"{question[:8]} sorted by the model: {answer.tolist()}")
print(f"of 500 sequences it gets right: {bases.sorted_fraction(model):.0%}")
assert answer.tolist() == sorted(question[:8])
assert bases.sorted_fraction(model) > 0.99  # page

# %% [markdown]
# While writing the last digit, it reads the eight digits, the mark 10, and the seven digits written so far. These are the
# $T = 16$ positions that we follow through the model:

# %%
ids = np.array(question + answer[:7].tolist())
T = len(ids)
print(ids)

# %% [markdown]
# ## From tokens to rows
#
# A token becomes a row of $d = 32$ numbers: row number 7 of a table stands for the digit 7. A second table has a row for
# each position, so that the model can tell the first digit from the fifth. Both tables are parameters, found by training.
# The two rows are added:

# %%
weights = {name: t.data.astype(np.float64) for name, t in model.named_parameters()}
x = weights["embed_tokens.weight"][ids] + weights["embed_positions.weight"][np.arange(T)]
print(f"tokens {ids.shape} -> rows {x.shape}")
assert x.shape == (16, 32)  # page

# %% [markdown]
# Before a row is used, it is *normalised*: shifted and scaled to mean 0 and variance 1, whatever came before, and then
# multiplied and shifted by parameters, elementwise. This is called a
# [LayerNorm](https://arxiv.org/abs/1607.06450). The axis is the last one: each position is normalised by itself.

# %%
def layer_norm(x, name):
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    normalised = (x - mean) / np.sqrt(variance + 1e-5)
    return normalised * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]  # lesson 02


n = layer_norm(x, "layers.0.self_attn_layer_norm")  # (16, 32)

# %% [markdown]
# ## Queries, keys, values
#
# So far each row knows its own token and nothing of the others. Attention is the part in which positions learn from each
# other. Every row is sent through three linear layers:
#
# - its *query* says what this position looks for,
# - its *key* says what it can be found by,
# - its *value* is what it hands over when it is found.
#
# $Q$, $K$ and $V$ hold them, a row for each position. The layer has four *heads*, which look for different things. Each
# works with $c = 8$ of the 32 columns of $Q$, $K$ and $V$, which all come from the whole input row. We follow head 2,
# counted from 0, which has the columns 16 to 23:

# %%
PROJECTIONS = ("q_proj", "k_proj", "v_proj")
c, head = 8, 2
columns = slice(head * c, (head + 1) * c)
Q, K, V = (linear(n, f"layers.0.self_attn.{name}")[:, columns] for name in PROJECTIONS)
print(f"Q {Q.shape}, K {K.shape}, V {V.shape}")

# %% [markdown]
# ## Scores
#
# How well does the key of position $j$ fit the query of position $i$? The score is their product, element by element,
# summed:
#
# $$
# S_{ij} = \frac{1}{\sqrt{c}} \sum_l Q_{il} K_{jl}, \qquad S = \frac{Q K^\top}{\sqrt{c}}
# $$
#
# Row $i$ belongs to the query, column $j$ to the key. Why divide by $\sqrt c$? A sum of $c$ products of random numbers of
# size 1 has a size of about $\sqrt c$. Divided by that, the scores have a size of about 1 for any $c$:

# %%
S = Q @ K.T / np.sqrt(c)
print(f"scores {S.shape}")
rng = np.random.default_rng(0)
for size in (8, 128):
    sums = (rng.normal(size=(10_000, size)) * rng.normal(size=(10_000, size))).sum(axis=-1)
    print(f"c = {size:3}: typical size {sums.std():4.1f}, "
          f"divided by the root {sums.std() / np.sqrt(size):.1f}")
    assert 0.9 < sums.std() / np.sqrt(size) < 1.1  # page

# %% [markdown]
# ## The mask
#
# While the model is trained, all positions are computed at once, and each has to predict the token that comes next. It must
# not see that token, nor any later one. So wherever the key is later than the query, $j > i$, the score becomes
# $-\infty$:

# %%
later = np.arange(T)[None, :] > np.arange(T)[:, None]  # queries down, keys across
masked = np.where(later, -np.inf, S)
print(later[:5, :5].astype(int))

# %% [markdown]
# ## Softmax
#
# Scores become weights: all at least 0, and for each query a sum of 1. The *softmax* takes exponentials, which are never
# negative, and divides by their sum:
#
# $$
# P_{ij} = \frac{e^{S_{ij}}}{\sum_{l} e^{S_{il}}}
# $$
#
# The sum goes over the keys: along row $i$, the last axis. A masked score gives $e^{-\infty} = 0$, no weight at all. If all
# scores of a row are lowered by the same number, the weights stay the same; lowering by the largest keeps the exponentials
# from overflowing.

# %%
def softmax(S, axis=-1):
    exponentials = np.exp(S - S.max(axis=axis, keepdims=True))
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


P = softmax(masked)
print(P[:4, :5].round(2))
assert np.allclose(P.sum(axis=-1), 1) and (P[later] == 0).all()
assert np.allclose(P, softmax(masked + 5))  # page

# %% [markdown]
# The first position sees only itself. The weights then mix the values. Row $i$ of the result is an average of the rows of
# $V$, in which row $j$ counts with weight $P_{ij}$:

# %%
out = P @ V  # (16, 16) @ (16, 8) -> (16, 8)
print(f"weights {P.shape} @ values {V.shape} -> {out.shape}")
assert np.allclose(out[3], sum(P[3, j] * V[j] for j in range(4)))
assert np.allclose(out[0], V[0])  # page

# %% [markdown]
# This is a complete attention head: `softmax(mask(Q @ K.T / sqrt(c))) @ V`.
#
# ## The mistake: softmax over the wrong axis
#
# The scores are a square, so a softmax over axis 0 gives the same shape and no error. Its columns sum to 1. Two things are
# now wrong. First, the weights of a query no longer sum to 1, so its result is no average:

# %%
wrong = softmax(masked, axis=0)
for name, weights_of in (("right", P), ("wrong", wrong)):
    print(f"{name} axis: rows 0, 4 and 15 sum to {weights_of.sum(axis=1)[[0, 4, 15]].round(1)}")
assert abs(wrong.sum(axis=1) - 1).max() > 0.5  # page

# %% [markdown]
# Second, and worse: the sum in a column goes over all queries, also those that come later. What an early position
# computes then depends on tokens that it must not see, in spite of the mask. To show it, we change the last token alone and
# look at all positions before it:

# %%
def head_output(ids, axis):
    x = weights["embed_tokens.weight"][ids] + weights["embed_positions.weight"][np.arange(T)]
    n = layer_norm(x, "layers.0.self_attn_layer_norm")
    Q, K, V = (linear(n, f"layers.0.self_attn.{name}")[:, columns] for name in PROJECTIONS)
    return softmax(np.where(later, -np.inf, Q @ K.T / np.sqrt(c)), axis) @ V


other = ids.copy()
other[-1] = 3
for axis, name in ((-1, "right"), (0, "wrong")):
    change = abs(head_output(other, axis) - head_output(ids, axis))[:-1].max()
    effect = "changes" if change > 1e-3 else "does not change"
    print(f"{name} axis: the last token {effect} what earlier positions compute")
    assert change > 1e-3 if axis == 0 else change < 1e-12  # page

# %% [markdown]
# A model trained like that sees something of the answer in training, and has to do without it when it writes: then there
# are no later tokens.
#
# ## All heads
#
# The four heads do the same with their own columns. Their results are put side by side again, and a last linear layer,
# `out_proj`, mixes them:

# %%
def attend(n, layer):
    """Multi-head attention on rows n (T, 32): the result (T, 32), the weights (4, T, T)."""
    Q, K, V = (linear(n, f"layers.{layer}.self_attn.{name}") for name in PROJECTIONS)
    later = np.arange(len(n))[None, :] > np.arange(len(n))[:, None]
    patterns, results = [], []
    for columns in (slice(i, i + c) for i in range(0, 32, c)):
        S = Q[:, columns] @ K[:, columns].T / np.sqrt(c)
        patterns.append(softmax(np.where(later, -np.inf, S)))
        results.append(patterns[-1] @ V[:, columns])
    together = np.concatenate(results, axis=-1)
    return linear(together, f"layers.{layer}.self_attn.out_proj"), np.array(patterns)


result, patterns = attend(n, 0)
assert np.allclose(patterns[head], P)  # page
batch = n.astype(np.float32)[None]  # a batch of one: (1, 16, 32)
library = model.layers[0].self_attn(batch).data[0]
assert np.allclose(result, library, atol=1e-5)
print(f"{result.shape}, equal to the library's CausalSelfAttention")

# %% [markdown]
# The library, in [lora_np/ops/attention.py](../../lora_np/ops/attention.py), computes all heads of all sequences of a batch
# in one operation. Its gradients in $Q$, $K$ and $V$ pass the check of lesson 03, here with two heads:

# %%
from lora_np.gradcheck import gradcheck

report = gradcheck(lambda Q, K, V: ops.causal_attention(Q, K, V, heads=2),
                   *rng.normal(size=(3, 2, 5, 4)), quiet=True)
print("gradients of causal_attention:", {row.name: row.verdict for row in report.rows})
assert report.ok

# %% [markdown]
# ## What does this head look at?
#
# The weights $P$ can be looked at. Let 500 other sequences go through the head. At each position where the model is about
# to write a digit, note which digit it has just written, and how much weight goes to each of the eight digits of the
# question:

# %%
sequences, answers = next(data.sorting(500, seed=10_000))
weight, count = np.zeros((10, 10)), np.zeros((10, 10))
strongest_is_next, chance = [], []
for row, right in zip(sequences, answers, strict=True):
    rows = weights["embed_tokens.weight"][row] + weights["embed_positions.weight"]
    pattern = attend(layer_norm(rows, "layers.0.self_attn_layer_norm"), 0)[1][head]
    for step in range(1, 8):  # at position 8 + step right[step - 1] is written, right[step] is next
        to_digits = pattern[8 + step, :8]
        np.add.at(weight, (right[step - 1], row[:8]), to_digits)
        np.add.at(count, (right[step - 1], row[:8]), 1)
        strongest_is_next.append(row[to_digits.argmax()] == right[step])
        chance.append((row[:8] == right[step]).mean())
mean_weight = weight / count
print("just written   mean weight on a 0, 1, 2, … 9 of the question")
for written in (1, 3, 5, 7):
    print(f"     {written}         {' '.join(f'{value:.2f}' for value in mean_weight[written])}")
print("the digit with the strongest weight is the one to be written next: "
      f"{np.mean(strongest_is_next):.0%}; picked at random it would be: {np.mean(chance):.0%}")
for written in range(9):
    near = np.isin(np.arange(10), np.arange(written, written + 4))
    assert mean_weight[written, near].mean() > 2 * mean_weight[written, ~near].mean()
assert 0.4 < np.mean(strongest_is_next) < 0.6 and np.mean(chance) < 0.25  # page

# %% [markdown]
# Each number is a mean over the occurrences of that digit in the questions, so a row of the table need not sum to 1.
#
# After writing a 5 it looks for 5, 6 and 7, after a 3 for 3, 4 and 5: for the digits that can come next. That is a good
# part of sorting, found by training alone. But it is not all of it. The digit that gets most weight is the one to be
# written next in about half of the cases, and the model is right in all of them: the other heads and the second layer do
# the rest. A heat map shows where a head looks. It does not show how the model arrives at its answer.

# %%
from lessons.course.pages.drawings import attention as draw

draw.weights(ids, question, answer, P, mean_weight)

# %% [markdown]
# ## The block
#
# Attention is one half of a *block*. The other half works at each position by itself: a linear layer to 128 numbers, a
# relu (the larger of a number and 0), and a linear layer back to 32. It is called the MLP, for multi-layer perceptron. Each
# half normalises a copy of its input, and *adds* its result to the input. (The LayerNorm before the MLP is called
# `final_layer_norm`, the name it has in OPT; another of that name, outside the blocks, comes at the end.)

# %%
def block(x, layer):
    name = f"layers.{layer}"
    x = x + attend(layer_norm(x, f"{name}.self_attn_layer_norm"), layer)[0]
    hidden = linear(layer_norm(x, f"{name}.final_layer_norm"), f"{name}.fc1")  # (16, 128)
    return x + linear(np.maximum(hidden, 0), f"{name}.fc2")


after = block(x, 0)
assert np.allclose(after, model.layers[0](x.astype(np.float32)[None]).data[0], atol=1e-4)
print(f"{x.shape} -> {after.shape}, equal to the library's Block")

# %% [markdown]
# By adding, a block changes its input a little instead of replacing it; this is called a residual connection. It helps
# training, too: a sum passes its gradient on unchanged to both of its operands (lesson 01), so each layer gets a
# gradient that did not have to pass through all the layers after it.
#
# ## From rows to the next token
#
# After the last block, each row is normalised once more and multiplied with each row of the token table. That gives a
# score for each of the 11 tokens, called its *logit*. A softmax over the tokens makes them probabilities for the token that
# comes next:

# %%
rows = layer_norm(block(block(x, 0), 1), "final_layer_norm")
logits = rows @ weights["embed_tokens.weight"].T  # (16, 32) @ (32, 11) -> (16, 11)
probabilities = softmax(logits)  # over the last axis: the tokens
assert np.allclose(logits, model(ids[None]).data[0], atol=1e-3)
predicted = probabilities[8:].argmax(axis=-1)
print(f"from the mark on, the likeliest next tokens are {predicted}")
assert predicted.tolist() == sorted(question[:8])  # page

# %% [markdown]
# This is the whole model: two tables, two blocks, a LayerNorm and a product. What was its loss in training? For
# numbers, lesson 04 took the squared error. For tokens one takes the *cross-entropy*: minus the logarithm of the
# probability that the model gave to the token that actually came, averaged over the positions. A model that is certain
# and right has loss 0. One that gives each of the 11 tokens the same probability has $\ln 11$. The unit, because of the
# natural logarithm, is called a *nat*.

# %%
loss = -np.log(probabilities[np.arange(8, 16), answer]).mean()
print(f"loss below 0.1 nats: {loss < 0.1}; guessing blindly would give {np.log(11):.2f}")
assert np.isclose(loss, ops.cross_entropy(logits[8:], answer).item())  # the library's
assert loss < 0.1  # page

# %% [markdown]
# ## Key points
#
# - A head: $Q$, $K$ and $V$ are linear layers of the normalised rows; scores $Q K^\top / \sqrt c$; mask; softmax; times $V$.
# - Scores have queries down and keys across. The softmax goes over the keys, the last axis: each query's weights sum to 1.
# - Over the wrong axis there is no error; but the results are no averages, and the future leaks in through the sums.
# - A block adds attention to its input, then an MLP, each of a normalised copy. All its parameters are in linear layers and
#   LayerNorms; the attention between them has none.
# - A heat map shows where a head looks, and no more than that.

# %% [markdown]
# **Exercise.** In [ex05_attention.py](ex05_attention.py) you write the softmax, the causal mask, and with them the
# attention weights of one head. `python -m lessons check 05` tries them on scores of any size, and sees whether it is
# the rows that sum to 1 or the columns.
