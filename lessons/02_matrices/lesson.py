# %% [markdown]
# # 02. Matrices: matmul and broadcasting, forward and back
#
# **Objective.** Write down the gradients of a matrix product and of a broadcast sum, and say why each transpose stands
# where it does.
#
# **Minutes.** 25. **Before this.** Lesson 01, the matrix product, and NumPy's arrays.
#
# **Predict first.** $H = X M$ with three square matrices. The gradient of $H$ is known and called $G$. Is the gradient of
# $X$ now $G M$, $G M^\top$, $M G$ or $M^\top G$? All four have the right shape.

# %% [markdown]
# ## A matrix product is many small sums
#
# Take $X$ with 4 rows of 3 numbers, and $M$ with 3 rows and 2 columns. Each element of $H = X M$ is a sum of products of
# numbers, and all of lesson 01 applies to it:
#
# $$
# H_{ij} = \sum_l X_{il} M_{lj}
# $$

# %%
import numpy as np

rng = np.random.default_rng(0)
X = rng.integers(-3, 4, (4, 3)).astype(float)
M = rng.integers(-3, 4, (3, 2)).astype(float)
H = X @ M
print(f"X =\n{X}\n\nM =\n{M}\n\nH =\n{H}")

# %% [markdown]
# Further on, some loss $L$ is computed from $H$. All that we need to know about it is the gradient of each element of
# $H$. These gradients form an array of $H$'s own shape: $G_{ij} = dL / dH_{ij}$. Here we make one up. (The gradient
# that comes back to the result of an operation is called its *upstream* gradient, and is $G$ or $g$ throughout this
# course.)
#
# Now the rule of lesson 01: multiply by the slope at each step, and add up over all uses. The product
# $X_{il} M_{lj}$ has slope $M_{lj}$ in $X_{il}$, and slope $X_{il}$ in $M_{lj}$. Three loops go through all of these products:

# %%
G = rng.integers(-3, 4, H.shape).astype(float)
dX, dM = np.zeros(X.shape), np.zeros(M.shape)
for i in range(4):
    for j in range(2):
        for l in range(3):
            dX[i, l] += G[i, j] * M[l, j]
            dM[l, j] += G[i, j] * X[i, l]
print(f"dX =\n{dX}\n\ndM =\n{dM}")

# %% [markdown]
# Each $X_{il}$ is used once for every column $j$ of $H$, so its gradient is a sum over $j$. Each $M_{lj}$ is used once for
# every row $i$, so its gradient is a sum over $i$:
#
# $$
# \frac{dL}{dX_{il}} = \sum_j G_{ij} M_{lj}, \qquad \frac{dL}{dM_{lj}} = \sum_i X_{il} G_{ij}
# $$
#
# A matrix product sums over the last index of its left factor and the first of its right one. In the first sum $j$ is
# the last index of $G$, but also the last of $M$: so $M$ has to be transposed, and $dX = G M^\top$. In the second, $i$
# is the first index of both $X$ and $G$: the factor on the left has to be transposed, and for the result to be indexed
# $lj$ that is $X$. So $dM = X^\top G$. As in lesson 01, $dX$ is short for the array of all $dL/dX_{il}$.

# %%
assert np.array_equal(dX, G @ M.T)
assert np.array_equal(dM, X.T @ G)

# %% [markdown]
# NumPy's `einsum` takes such sums as they are written: the indices of each factor, and those of the result. An index
# that is missing from the result is summed over. There is nothing to transpose, and nothing to guess.

# %%
assert np.array_equal(dX, np.einsum("ij,lj->il", G, M))
assert np.array_equal(dM, np.einsum("il,ij->lj", X, G))

# %% [markdown]
# And this is what the engine finds. `backward` can start from a given $G$ instead of from a loss:

# %%
from lora_np import Tensor

x, m = Tensor(X, requires_grad=True), Tensor(M, requires_grad=True)
(x @ m).backward(G)
assert np.array_equal(x.grad, dX) and np.array_equal(m.grad, dM)
print(f"X {x.shape} has a gradient of shape {x.grad.shape}, "
      f"M {m.shape} one of shape {m.grad.shape}")

# %% [markdown]
# A gradient always has the shape of what it is the gradient of: one slope for each number.
#
# ## The mistake: transposes guessed from shapes
#
# That last sentence tempts many to shuffle transposes until the shapes fit. For $dX$ there are four candidates. We try
# them, first with the matrices above, then with square ones:

# %%
candidates = {"G @ M": lambda G, M: G @ M, "G @ M.T": lambda G, M: G @ M.T,
              "M @ G": lambda G, M: M @ G, "M.T @ G": lambda G, M: M.T @ G}


def verdict(candidate, X, M, G):
    """Whether a candidate for the gradient of X has the right shape, and the right numbers."""
    try:
        guess = candidate(G, M)
    except ValueError:
        return "does not fit"
    if guess.shape != X.shape:
        return "does not fit"
    right = np.einsum("ij,lj->il", G, M)
    return "fits and is right" if np.allclose(guess, right) else "fits and is wrong"


square = [rng.normal(size=(3, 3)) for _ in range(3)]
tall = {name: verdict(candidate, X, M, G) for name, candidate in candidates.items()}
even = {name: verdict(candidate, *square) for name, candidate in candidates.items()}
for name in candidates:
    print(f"{name:8} X (4, 3), M (3, 2): {tall[name]:18}  both (3, 3): {even[name]}")
assert list(even.values()).count("fits and is wrong") == 3
assert [name for name in tall if tall[name] == "fits and is right"] == ["G @ M.T"]  # page
assert "fits and is wrong" not in tall.values()  # page

# %% [markdown]
# With three different sizes, only the right one fits. With square matrices all four fit, and three of them are wrong,
# without any error. The answer to the prediction is $G M^\top$, and only the indices say so. This is no rare case: most
# weights in the attention of a transformer, which we come to in lesson 05, are square. Shapes can refute a formula but
# not prove it. Derive it from the indices, and test it where no two sizes are equal.
#
# ## The same layer, written the other way
#
# The matrix of a layer is called its *weight*, and in practice it is stored the other way round, with one row for each
# *output*: as $W = M^\top$, of shape (outputs, inputs). A batch of inputs, one in each row of $X$, goes through it as
# $H = X W^\top$. If you learned by heart that "the gradient of $X$ has a transpose", you are now wrong. The indices tell:
# $H_{ij} = \sum_l X_{il} W_{jl}$, so

# %%
W = M.T  # (outputs, inputs) = (2, 3)
dX_again = np.einsum("ij,jl->il", G, W)
dW = np.einsum("ij,il->jl", G, X)
assert np.array_equal(dX_again, G @ W) and np.array_equal(dX_again, dX)
assert np.array_equal(dW, G.T @ X) and np.array_equal(dW, dM.T)
print("dX = G @ W, dW = G.T @ X")

# %% [markdown]
# No transpose on the weight now. This form, with a bias added, is the linear layer of every model in this course:
# `ops.linear`. The next section uses it.
#
# ## Broadcasting copies, so its gradient adds
#
# A *bias* has one number for each output and is added to every row: $H = X W^\top + \text{bias}$. NumPy *broadcasts* it,
# as if it had been copied 4 times. So each of its numbers is used 4 times, and its gradient is the sum of 4
# contributions: the sum of the rows of $G$.

# %%
from lora_np import ops

bias = Tensor([10.0, 20.0], requires_grad=True)
h = ops.linear(Tensor(X), Tensor(W), bias)
assert np.array_equal(h.data, X @ W.T + [10, 20])  # page
h.backward(G)
print(f"the bias has shape {bias.shape}, G has shape {G.shape}; "
      f"the gradient of the bias is {bias.grad}, the sum of G's rows")
assert np.array_equal(bias.grad, G.sum(axis=0))

# %% [markdown]
# Every broadcast works the same way. NumPy aligns shapes at the right, adds missing axes at the left, and stretches
# each axis of size 1. Backward sums over exactly those axes. The function that does it for all operations is
# `unbroadcast` in [lora_np/graph.py](../../lora_np/graph.py):

# %%
from lora_np.graph import unbroadcast

for shape in ((2,), (1, 2), (4, 1), (1, 1), ()):
    t = Tensor(np.ones(shape), requires_grad=True)
    (t * H).backward(G)
    assert t.grad.shape == shape and np.array_equal(t.grad, unbroadcast(G * H, shape))
    print(f"{shape!s:7} stretched to (4, 2); its gradient is a sum over {8 // t.size} uses")

# %% [markdown]
# Broadcasting can also strike where nobody asked for it. A column (4, 1) minus a row of four gives 16 differences instead
# of 4, and no error. Print shapes when a result looks odd:

# %%
predicted, wanted = np.ones((4, 1)), np.ones(4)
print(f"{predicted.shape} - {wanted.shape} has shape {(predicted - wanted).shape}")
assert (predicted - wanted).shape == (4, 4)  # page

# %% [markdown]
# ## Shapes, forward and back
#
# The whole layer in one picture, each cell one number. In a product, the columns of the left factor meet the rows of
# the right one, and disappear.

# %%
from lessons.course.pages.drawings import matrices as draw

draw.shapes()

# %% [markdown]
# ## Key points
#
# - $H = X M$ gives $dX = G M^\top$ and $dM = X^\top G$; with a weight as it is stored, $H = X W^\top$ gives $dX = G W$ and
#   $dW = G^\top X$.
# - Both follow from one rule: multiply by the slope, and sum over every index that the operand does not have.
# - Shapes can refute a formula, not prove it. With square matrices four formulas fit and three are wrong.
# - What broadcasting copied, backward sums up again.

# %% [markdown]
# **Exercise.** In [ex02_matrices.py](ex02_matrices.py) you write the backward pass of a matrix product, and the sum
# that undoes a broadcast. `python -m lessons check 02` tries both on shapes in which no two sizes are equal, and the
# product on square matrices, too, where every transpose fits.
