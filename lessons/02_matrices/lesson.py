# %% [markdown]
# # 02. Matrices: matmul and broadcasting, forward and back
#
# **Objective.** Write down the gradients of a matrix product and of a broadcast sum, and say why each transpose stands
# where it does.
#
# **Minutes.** 25. **Before this.** Lesson 01, the matrix product, and NumPy's arrays.
#
# **Predict first.** $Y = X W$ with three square matrices. The gradient of $Y$ is known and called $G$. Is the gradient of
# $X$ now $G W$, $G W^\top$, $W G$ or $W^\top G$? All four have the right shape.

# %% [markdown]
# ## A matrix product is many small sums
#
# Take $X$ with 4 rows of 3 numbers, and $W$ with 3 rows and 2 columns. Each element of $Y = X W$ is a sum of products of
# numbers, and all of lesson 01 applies to it:
#
# $$
# Y_{ij} = \sum_k X_{ik} W_{kj}
# $$

# %%
import numpy as np

rng = np.random.default_rng(0)
X = rng.integers(-3, 4, (4, 3)).astype(float)
W = rng.integers(-3, 4, (3, 2)).astype(float)
Y = X @ W
print(f"X =\n{X}\n\nW =\n{W}\n\nY =\n{Y}")

# %% [markdown]
# Further on, some loss $L$ is computed from $Y$. All that we need to know of that is the gradient of each element of $Y$.
# These gradients form an array of $Y$'s own shape: $G_{ij} = dL / dY_{ij}$. Here we make one up.
#
# Now the rule of lesson 01: multiply by the slope at each step, and add up over all uses. The product
# $X_{ik} W_{kj}$ has slope $W_{kj}$ in $X_{ik}$, and slope $X_{ik}$ in $W_{kj}$. Three loops go through all of these products:

# %%
G = rng.integers(-3, 4, Y.shape).astype(float)
dX, dW = np.zeros(X.shape), np.zeros(W.shape)
for i in range(4):
    for j in range(2):
        for k in range(3):
            dX[i, k] += G[i, j] * W[k, j]
            dW[k, j] += G[i, j] * X[i, k]
print(f"dX =\n{dX}\n\ndW =\n{dW}")

# %% [markdown]
# Each $X_{ik}$ is used once for every column $j$ of $Y$, so its gradient is a sum over $j$. Each $W_{kj}$ is used once for
# every row $i$, so its gradient is a sum over $i$:
#
# $$
# \frac{dL}{dX_{ik}} = \sum_j G_{ij} W_{kj}, \qquad \frac{dL}{dW_{kj}} = \sum_i X_{ik} G_{ij}
# $$
#
# A matrix product adds up over the last index of its left factor and the first of its right one. In the first sum $j$ is
# the last index of $G$, but also the last of $W$: so $W$ has to be transposed, and $dX = G W^\top$. In the second, $i$ is the
# first index of both $X$ and $G$: the factor on the left has to be transposed, and for the result to be indexed $kj$ that
# is $X$. So $dW = X^\top G$. As in lesson 01, $dX$ is short for the array of all $dL/dX_{ik}$.

# %%
assert np.array_equal(dX, G @ W.T)
assert np.array_equal(dW, X.T @ G)

# %% [markdown]
# NumPy's `einsum` takes such sums as they are written: the indices of each factor, and those of the result. An index
# that is missing from the result is summed over. There is nothing to transpose, and nothing to guess.

# %%
assert np.array_equal(dX, np.einsum("ij,kj->ik", G, W))
assert np.array_equal(dW, np.einsum("ik,ij->kj", X, G))

# %% [markdown]
# And this is what the engine finds. `backward` can start from a given $G$ instead of from a loss:

# %%
from lora_np import Tensor

x, w = Tensor(X, requires_grad=True), Tensor(W, requires_grad=True)
(x @ w).backward(G)
assert np.array_equal(x.grad, dX) and np.array_equal(w.grad, dW)
print(f"x {x.shape} has a gradient of shape {x.grad.shape}, w {w.shape} one of shape {w.grad.shape}")

# %% [markdown]
# A gradient always has the shape of what it is the gradient of: one slope for each number.
#
# ## The mistake: transposes guessed from shapes
#
# That last sentence tempts many to shuffle transposes until the shapes fit. For $dX$ there are four candidates. We try
# them, first with the matrices above, then with square ones:

# %%
candidates = {"G @ W": lambda G, W: G @ W, "G @ W.T": lambda G, W: G @ W.T, "W @ G": lambda G, W: W @ G,
              "W.T @ G": lambda G, W: W.T @ G}


def verdicts(X, W, G):
    """{candidate: "fits and is right", "fits and is wrong" or "does not fit"} for the gradient of X."""
    found = {}
    for name, candidate in candidates.items():
        try:
            guess = candidate(G, W)
        except ValueError:
            guess = None
        right = np.einsum("ij,kj->ik", G, W)
        fits = guess is not None and guess.shape == X.shape
        found[name] = ("fits and is right" if np.allclose(guess, right) else "fits and is wrong") if fits else "does not fit"
    return found


square = [rng.normal(size=(3, 3)) for _ in range(3)]
tall = verdicts(X, W, G)
for name, verdict in verdicts(*square).items():
    print(f"{name:8} X (4, 3), W (3, 2): {tall[name]:18}  both (3, 3): {verdict}")
assert list(tall.values()).count("fits and is right") == 1 and "fits and is wrong" not in tall.values()
assert list(verdicts(*square).values()).count("fits and is wrong") == 3

# %% [markdown]
# With three different sizes, only the right one fits. With square matrices all four fit, and three of them are wrong,
# without any error. The answer to the prediction is $G W^\top$, and only the indices say so. This is no rare case: most
# weights in the attention of a transformer, which we come to in lesson 05, are square. Shapes can refute a formula but
# not prove it. Derive it from the indices, and test it where no two sizes are equal.
#
# ## The same layer, written the other way
#
# In practice a weight is stored the other way round, with one row for each *output*. Our weight stored so is
# $V = W^\top$, of shape (outputs, inputs), and a batch of inputs, one in each row of $X$, goes through it as $Y = X V^\top$.
# Whoever has learned "the gradient of $X$ has a transpose" by heart is now wrong. The indices tell:
# $Y_{ij} = \sum_k X_{ik} V_{jk}$, so

# %%
V = W.T  # (outputs, inputs) = (2, 3)
assert np.array_equal(X @ V.T, Y)
dX_again = np.einsum("ij,jk->ik", G, V)
dV = np.einsum("ij,ik->jk", G, X)
assert np.array_equal(dX_again, G @ V)
assert np.array_equal(dV, G.T @ X)
assert np.array_equal(dX_again, dX) and np.array_equal(dV, dW.T)
print("dX = G @ V, dV = G.T @ X")

# %% [markdown]
# No transpose on the weight now. This form, with a bias added, is the linear layer of every model in this course:
# `ops.linear`. The next section uses it.
#
# ## Broadcasting copies, so its gradient adds
#
# A bias $b$ has one number for each output and is added to every row: $Y = X V^\top + b$. NumPy *broadcasts* it, as if it
# had been copied 4 times. So each of its numbers is used 4 times, and its gradient is the sum of 4 contributions: the sum
# of the rows of $G$.

# %%
from lora_np import ops

b = Tensor([10.0, 20.0], requires_grad=True)
y = ops.linear(Tensor(X), Tensor(V), b)
assert np.array_equal(y.data, X @ V.T + [10, 20])
y.backward(G)
print(f"b has shape {b.shape}, G has shape {G.shape}; the gradient of b is {b.grad}, the sum of G's rows")
assert np.array_equal(b.grad, G.sum(axis=0))

# %% [markdown]
# Every broadcast goes the same way. NumPy aligns shapes at the right, puts in missing axes at the left, and stretches each
# axis of size 1. Backward sums over exactly those axes. The function that does it for all operations is `unbroadcast`:

# %%
from lora_np.graph import unbroadcast

for shape in ((2,), (1, 2), (4, 1), (1, 1), ()):
    t = Tensor(np.ones(shape), requires_grad=True)
    (t * Y).backward(G)
    assert t.grad.shape == shape
    assert np.array_equal(t.grad, unbroadcast(G * Y, shape))
    print(f"{shape!s:7} stretched to (4, 2); its gradient is a sum over {8 // t.size} uses")

# %% [markdown]
# Broadcasting can also strike where nobody asked for it. A column (4, 1) minus a row of four gives 16 differences instead
# of 4, and no error. Print shapes when a result looks odd:

# %%
predicted, wanted = np.ones((4, 1)), np.ones(4)
print(f"{predicted.shape} - {wanted.shape} has shape {(predicted - wanted).shape}")
assert (predicted - wanted).shape == (4, 4)

# %% [markdown]
# ## Shapes, forward and back
#
# The whole layer in one picture, each cell one number. In a product, the columns of the left factor meet the rows of
# the right one, and disappear.

# %%
from matplotlib.patches import Rectangle

from lessons.course.pages import figures


def matrix(ax, x, y, text, rows, columns, color):
    """Draw a matrix, its left side at x and its middle at height y; returns where its right side is."""
    for i in range(rows):
        for j in range(columns):
            ax.add_patch(Rectangle((x + j, y - rows / 2 + i), 1, 1, facecolor="white", edgecolor=color, lw=1.8))
    size = f"({rows}, {columns})" if text[-1] != "b" else f"({columns},)"
    ax.text(x + columns / 2, y - rows / 2 - 0.3, f"{text}  {size}", ha="center", va="top", color=color, fontsize=15)
    return x + columns


def equation(ax, x, y, title, *parts):
    """Draw matrices and the signs between them in a row, with a title above."""
    ax.text(x, y + 2.7, title, fontsize=16, weight="bold", color=figures.INK)
    for part in parts:
        if isinstance(part, str):
            ax.text(x + 0.85, y, part, ha="center", va="center", fontsize=20, color=figures.INK)
        x = x + 1.7 if isinstance(part, str) else matrix(ax, x, y, *part)


INK, TRAINED, COMING = figures.INK, figures.TRAINABLE, figures.OTHERS[0]
fig, ax = figures.new("Each gradient has the shape of its operand: the sizes that meet are summed away", width=13, height=5.9)
equation(ax, 0, 7.6, "forward", ("X", 4, 3, INK), "·", ("Vᵀ", 3, 2, TRAINED), "+", ("b", 1, 2, TRAINED), "=", ("Y", 4, 2, INK))
ax.text(18, 8.4, "weight V and bias b, and their gradients", fontsize=16, color=TRAINED, va="center")
ax.text(18, 6.8, "G, the gradient of Y, which comes back", fontsize=16, color=COMING, va="center")
equation(ax, 0, 0, "back to X", ("G", 4, 2, COMING), "·", ("V", 2, 3, TRAINED), "=", ("dX", 4, 3, INK))
equation(ax, 13.2, 0, "back to V", ("Gᵀ", 2, 4, COMING), "·", ("X", 4, 3, INK), "=", ("dV", 2, 3, TRAINED))
equation(ax, 28, 0, "back to b: sum the rows", ("G", 4, 2, COMING), "→", ("db", 1, 2, TRAINED))
ax.set(xlim=(-0.2, 36), ylim=(-3.3, 11), aspect="equal")
ax.axis("off")
figures.save(fig, "02_shapes", alt="Matrices drawn cell by cell. Forward: X (4, 3) times V transposed (3, 2) plus b (2,) gives Y "
             "(4, 2). Back: G (4, 2) times V (2, 3) gives dX (4, 3); G transposed (2, 4) times X (4, 3) gives dV (2, 3); the "
             "sum of G over its rows gives db (2,).")

# %% [markdown]
# ## Key points
#
# - $Y = X W$ gives $dX = G W^\top$ and $dW = X^\top G$; stored the other way round, $Y = X V^\top$ gives $dX = G V$ and
#   $dV = G^\top X$.
# - Both follow from one rule: multiply by the slope, sum over every index that the operand does not have.
# - Shapes can refute a formula, not prove it. With square matrices four formulas fit and three are wrong.
# - What broadcasting copied, backward sums up again.

# %% [markdown]
# **Exercise.** `python -m lessons check 02`
