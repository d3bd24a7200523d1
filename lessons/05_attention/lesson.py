# %% [markdown]
# # 05. Attention, then the block
#
# **Objective.** Compute an attention head and a whole transformer block in plain NumPy, and say at each line what its axes
# stand for.
#
# **Minutes.** 40. **Before this.** Lesson 02 for matrix products, lesson 04 for loss and parameters. All the rest is
# introduced here.
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
answer = generate(model, question, 8, temperature=0)[9:]  # temperature 0: the likeliest token each time
print(f"{question[:8]} sorted by the model: {answer.tolist()}")
print(f"of 500 sequences it gets right: {bases.sorted_fraction(model):.0%}")
assert answer.tolist() == sorted(question[:8])
assert bases.sorted_fraction(model) > 0.99

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
assert x.shape == (16, 32)

# %% [markdown]
# Before a row is used, it is *normalised*: shifted and scaled to mean 0 and variance 1, whatever came before, and then
# multiplied and shifted by parameters, elementwise. This is called a LayerNorm. The axis is the last one: each position is
# normalised by itself.

# %%
def layer_norm(x, name):
    mean, variance = x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]  # lesson 02


n = layer_norm(x, "layers.0.self_attn_layer_norm")  # (16, 32)

# %% [markdown]
# ## Queries, keys, values
#
# So far each row knows its own token and nothing of the others. Attention is the part in which positions learn from each
# other. Every row is sent through three linear layers:
#
# - its *query* $q$ says what this position looks for,
# - its *key* $k$ says what it can be found by,
# - its *value* $v$ is what it hands over when it is found.
#
# The layer has four *heads*, which look for different things. Each works with $c = 8$ of the 32 columns of $q$, $k$ and $v$,
# which all come from the whole input row. We follow head 1, counted from 0, which has the columns 8 to 15:

# %%
attention = "layers.0.self_attn"
c, head = 8, 1
columns = slice(head * c, (head + 1) * c)
q, k, v = (linear(n, f"{attention}.{name}")[:, columns] for name in ("q_proj", "k_proj", "v_proj"))
print(f"q {q.shape}, k {k.shape}, v {v.shape}")

# %% [markdown]
# ## Scores
#
# How well does the key of position $j$ fit the query of position $i$? The score is their product, element by element,
# summed:
#
# $$
# S_{ij} = \frac{1}{\sqrt{c}} \sum_m q_{im} k_{jm}, \qquad S = \frac{q k^\top}{\sqrt{c}}
# $$
#
# Row $i$ belongs to the query, column $j$ to the key. Why divide by $\sqrt c$? A sum of $c$ products of random numbers of
# size 1 has a size of about $\sqrt c$. Divided by that, the scores have a size of about 1 for any $c$:

# %%
S = q @ k.T / np.sqrt(c)
print(f"scores {S.shape}")
rng = np.random.default_rng(0)
for size in (8, 128):
    sums = (rng.normal(size=(10_000, size)) * rng.normal(size=(10_000, size))).sum(axis=-1)
    print(f"c = {size:3}: typical size {sums.std():4.1f}, divided by the root {sums.std() / np.sqrt(size):.1f}")
    assert 0.9 < sums.std() / np.sqrt(size) < 1.1

# %% [markdown]
# ## The mask
#
# While the model is trained, all positions are computed at once, and each has to predict the token that comes next. It must
# not see that token, nor any later one. So wherever the key is later than the query, $j > i$, the score becomes
# $-\infty$:

# %%
masked = np.where(np.arange(T)[None, :] > np.arange(T)[:, None], -np.inf, S)  # queries down, keys across
print(np.isinf(masked[:5, :5]).astype(int))

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
    E = np.exp(S - S.max(axis=axis, keepdims=True))
    return E / E.sum(axis=axis, keepdims=True)


P = softmax(masked)
print(P[:4, :5].round(2))
assert np.allclose(P.sum(axis=-1), 1) and (P[np.isinf(masked)] == 0).all()
assert np.allclose(P, softmax(masked + 5))

# %% [markdown]
# The first position sees only itself. The weights then mix the values. Row $i$ of the result is an average of the rows of
# $v$, in which $v_j$ counts with weight $P_{ij}$:

# %%
y = P @ v  # (16, 16) @ (16, 8) -> (16, 8)
assert np.allclose(y[0], v[0])
assert np.allclose(y[3], sum(P[3, j] * v[j] for j in range(4)))
print(f"weights {P.shape} @ values {v.shape} -> {y.shape}")

# %% [markdown]
# This is a complete attention head: `softmax(mask(q @ k.T / sqrt(c))) @ v`.
#
# ## The mistake: softmax over the wrong axis
#
# The scores are a square, so a softmax over axis 0 gives the same shape and no error. Its columns sum to 1. Two things are
# now wrong. First, the weights of a query no longer sum to 1, so its result is no average:

# %%
wrong = softmax(masked, axis=0)
print(f"sums of rows, right axis: {P.sum(axis=1)[[0, 4, 15]].round(1)}, wrong axis: {wrong.sum(axis=1)[[0, 4, 15]].round(1)}")
assert abs(wrong.sum(axis=1) - 1).max() > 0.5

# %% [markdown]
# Second, and worse: the sum in a column goes over all queries, also those that come later. What an early position
# computes then depends on tokens that it must not see, in spite of the mask. To show it, we change the last token alone and
# look at all positions before it:

# %%
def head_output(ids, axis):
    x = weights["embed_tokens.weight"][ids] + weights["embed_positions.weight"][np.arange(T)]
    n = layer_norm(x, "layers.0.self_attn_layer_norm")
    q, k, v = (linear(n, f"{attention}.{name}")[:, columns] for name in ("q_proj", "k_proj", "v_proj"))
    later = np.arange(T)[None, :] > np.arange(T)[:, None]
    return softmax(np.where(later, -np.inf, q @ k.T / np.sqrt(c)), axis) @ v


other = ids.copy()
other[-1] = 3
for axis, name in ((-1, "right"), (0, "wrong")):
    change = abs(head_output(other, axis) - head_output(ids, axis))[:-1].max()
    print(f"{name} axis: the last token {'changes' if change > 1e-3 else 'does not change'} what earlier positions compute")
    assert change > 1e-3 if axis == 0 else change < 1e-12

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
    """Multi-head attention of layer number `layer` on rows n (T, 32): the result (T, 32), the weights (4, T, T)."""
    q, k, v = (linear(n, f"layers.{layer}.self_attn.{name}") for name in ("q_proj", "k_proj", "v_proj"))
    later = np.arange(len(n))[None, :] > np.arange(len(n))[:, None]
    patterns, results = [], []
    for columns in (slice(i, i + c) for i in range(0, 32, c)):
        P = softmax(np.where(later, -np.inf, q[:, columns] @ k[:, columns].T / np.sqrt(c)))
        patterns.append(P)
        results.append(P @ v[:, columns])
    return linear(np.concatenate(results, axis=-1), f"layers.{layer}.self_attn.out_proj"), np.array(patterns)


result, patterns = attend(n, 0)
assert np.allclose(patterns[head], P)
library = model.layers[0].self_attn(n.astype(np.float32)[None]).data[0]  # the library takes a batch: (1, 16, 32)
assert np.allclose(result, library, atol=1e-5)
print(f"{result.shape}, equal to the library's CausalSelfAttention")

# %% [markdown]
# The library computes all heads of all sequences of a batch in one operation, `ops.causal_attention`. It takes 32 queries at
# a time, so that most of what the mask would hide is never computed. Its gradients in q, k and v pass the check of lesson
# 03, here with two heads:

# %%
from lora_np.gradcheck import gradcheck

assert gradcheck(lambda q, k, v: ops.causal_attention(q, k, v, heads=2), *rng.normal(size=(3, 2, 5, 4)), quiet=True)

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
    for step in range(1, 8):  # position 8 + step has just written right[step - 1], and is to write right[step]
        to_digits = pattern[8 + step, :8]
        np.add.at(weight, (right[step - 1], row[:8]), to_digits)
        np.add.at(count, (right[step - 1], row[:8]), 1)
        strongest_is_next.append(row[to_digits.argmax()] == right[step])
        chance.append((row[:8] == right[step]).mean())
mean_weight = weight / count
print("just written   mean weight on a 0, 1, 2, … 9 of the question")
for written in (1, 3, 5, 7):
    print(f"     {written}         {' '.join(f'{value:.2f}' for value in mean_weight[written])}")
print(f"the digit with the strongest weight is the one to be written next: {np.mean(strongest_is_next):.0%}; "
      f"picked at random it would be: {np.mean(chance):.0%}")
for written in range(9):
    near = np.isin(np.arange(10), np.arange(written, written + 4))
    assert mean_weight[written, near].mean() > 2 * mean_weight[written, ~near].mean()
assert 0.5 < np.mean(strongest_is_next) < 0.7 and np.mean(chance) < 0.25

# %% [markdown]
# Each number is a mean over the occurrences of that digit in the questions, so a row of the table need not sum to 1.
#
# After writing a 5 it looks for 5, 6 and 7, after a 3 for 3, 4, 5 and 6: for the digits that can come next. That is a good
# part of sorting, found by training alone. But it is not all of it. The digit that gets most weight is the one to be
# written next in 60% of the cases, and the model is right in all of them: the other heads and the second layer do the
# rest. A heat map shows where a head looks. It does not show how the model arrives at its answer.

# %%
from matplotlib.patches import Rectangle

from lessons.course.pages import figures

fig, (left, right) = figures.new("This head looks at the digits just above the one it wrote last", columns=2, width=14, height=6,
                                 gridspec_kw={"width_ratios": [1.5, 1]})
shown = np.where(np.isinf(masked), np.nan, P)[8:]
left.imshow(shown, cmap="YlGnBu", vmin=0, vmax=0.4, aspect="auto")
left.set_facecolor("#e4e4e4")
for i, digit in enumerate(answer):
    left.add_patch(Rectangle((question.index(digit) - 0.46, i - 0.46), 0.92, 0.92, fill=False, edgecolor=figures.INK, lw=2.5))
left.text(15.4, 0.4, "later positions:\nmasked", ha="right", va="center", fontsize=13)
left.set_xticks(range(T), ["sort" if t == 10 else str(t) for t in ids])
left.set_yticks(range(8), ["sort" if t == 10 else str(t) for t in ids[8:]])
left.set(xlabel="key: the token looked at", ylabel="query: the token just written")
left.set_title("One sequence; boxed: the digit to be written next")
image = right.imshow(mean_weight, cmap="YlGnBu", vmin=0, vmax=0.4, aspect="auto")
right.plot([-0.5, 9.5], [-0.5, 9.5], color=figures.INK, linewidth=1.5, linestyle=":")
right.set_xticks(range(10))
right.set_yticks(range(10))
right.set(xlabel="digit looked at", ylabel="digit just written")
right.set_title("Mean weight on a digit, 500 sequences")
fig.colorbar(image, ax=right, label="attention weight", extend="max")
for ax in (left, right):
    ax.grid(False)
figures.save(fig, "05_attention", alt="Two heat maps. Left: the weights of one head while a sequence is sorted, one row for each "
             "digit written, one column for each token looked at; in most rows the boxed digit, which is to be written next, is "
             "among the darkest; later positions are masked. Right: over 500 sequences, after each digit the weight is "
             "highest on the digits equal to it or up to three above.")

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
    hidden = np.maximum(linear(layer_norm(x, f"{name}.final_layer_norm"), f"{name}.fc1"), 0)  # (16, 128)
    return x + linear(hidden, f"{name}.fc2")


after = block(x, 0)
assert np.allclose(after, model.layers[0](x.astype(np.float32)[None]).data[0], atol=1e-4)
print(f"{x.shape} -> {after.shape}, equal to the library's Block")

# %% [markdown]
# By adding, a block changes its input a little instead of replacing it; this is called a residual connection. It helps
# training, too: a sum passes its gradient on unchanged to both of its operands (lesson 01), so each layer gets a gradient
# that did not have to pass through all the layers behind it.
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
assert predicted.tolist() == sorted(question[:8])

# %% [markdown]
# This is the whole model: two tables, two blocks, a LayerNorm and a product. What was its loss in training? For numbers, lesson 04 took
# the squared error. For tokens one takes the *cross-entropy*: minus the logarithm of the probability that the model gave to
# the token that did come, averaged over the positions. A model that is certain and right has loss 0. One that gives
# each of the 11 tokens the same probability has $\ln 11$. The unit, because of the natural logarithm, is called a *nat*.

# %%
loss = -np.log(probabilities[np.arange(8, 16), answer]).mean()
print(f"loss below 0.1 nats: {loss < 0.1}; guessing blindly would give {np.log(11):.2f}")
assert loss < 0.1
assert np.isclose(loss, ops.cross_entropy(logits[8:], answer).item())

# %% [markdown]
# ## Key points
#
# - A head: $q$, $k$ and $v$ are linear layers of the normalised rows; scores $q k^\top / \sqrt c$; mask; softmax; times $v$.
# - Scores have queries down and keys across. The softmax goes over the keys, the last axis: each query's weights sum to 1.
# - Over the wrong axis there is no error, the results are no averages, and the future leaks in through the sums.
# - A block adds attention to its input, then an MLP, each of a normalised copy. All its parameters are in linear layers and
#   LayerNorms; the attention between them has none.
# - A heat map shows where a head looks, and no more than that.

# %% [markdown]
# **Exercise.** `python -m lessons check 05`
