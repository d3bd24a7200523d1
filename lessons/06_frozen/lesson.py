# %% [markdown]
# # 06. A pretrained base, and what frozen means
#
# **Objective.** Say which part of the backward pass freezing a weight saves and which part it cannot save, and show both on
# the engine's own record.
#
# **Minutes.** 20. **Before this.** Lessons 01 (edges and vjps), 02 (the gradients of a matrix product), 04 (a training loop)
# and 05 (a block of a transformer).
#
# **Predict first.** A model has two blocks, block 0 below block 1. We train block 0 alone. Block 1, through which its output
# must pass, is *frozen*: its numbers stay as they are, and so do all others. Will block 0 learn nothing, a little, or
# nearly as much as if everything were trained?

# %% [markdown]
# ## A base, and a task it cannot do
#
# A *pretrained base* is a model that somebody has trained before, on a task that is not quite yours. Ours is a small
# transformer of lesson 05: two blocks, model width 32. It reads eight digits and the mark `10`, and writes the digits in
# ascending order. It comes with the course; `python -m lessons retrain` makes it again from nothing.

# %%
import numpy as np

from lessons.course.pages import bases
from lora_np import GPT, Tensor, data, generate, ops
from lora_np.lora import count_parameters
from lora_np.optim import AdamW, warmup_cosine
from lora_np.trace import trace
from lora_np.train import evaluate, fit, next_token_loss

base = bases.sorting_base()
digits = [7, 1, 4, 9, 0, 4, 2, 6]
answer = generate(base, np.array([*digits, 10]), 8, temperature=0)[9:]
print(f"{count_parameters(base)[1]:,} parameters;  {digits} -> {answer.tolist()}")
print(f"of 500 unseen sequences right: ascending {bases.sorted_fraction(base):.0%}, "
      f"descending {bases.sorted_fraction(base, descending=True):.0%}")
assert answer.tolist() == sorted(digits)  # page
assert bases.sorted_fraction(base) > 0.99  # page
assert bases.sorted_fraction(base, descending=True) == 0  # page

# %% [markdown]
# Asked for descending order it is always wrong. To *fine-tune* is to go on training from the base's weights. Is that
# better than starting from random ones? Both runs below train everything, on the same batches. `fit` is the loop of
# lesson 04, with AdamW and a learning rate that first rises and then falls to zero. The loss is the mean cross-entropy in
# nats for each digit of the answer, on sequences *held out* from training; guessing among ten digits costs $\ln 10 = 2.3$.

# %%
STEPS = 300
held_out = [next(data.sorting(256, seed=9999, descending=True))]


def train(model, label):
    """Train what is not frozen to sort downwards; the losses on held-out sequences."""
    batches = data.sorting(32, seed=0, descending=True)
    return fit(model, batches, AdamW(model.trainable_parameters(), 3e-3), STEPS,
               warmup_cosine(3e-3, STEPS, warmup=30), held_out, every=25, label=label)


full = bases.sorting_base()
full_run = train(full, "everything, from the base")
random_run = train(GPT(base.config), "everything, from random weights")
for name, run in (("the base", full_run), ("random weights", random_run)):
    losses = dict(zip(run.validation_steps, run.validation_loss, strict=True))
    print(f"from {name:15} loss {losses[0]:.1f} at the start, "
          f"{losses[100]:.1g} after 100 steps, {losses[300]:.1g} after 300")
assert full_run.validation_loss[0] > random_run.validation_loss[0] + 3
assert full_run.validation_loss[-1] < random_run.validation_loss[-1] / 2
assert full_run.validation_loss[4] < random_run.validation_loss[4] / 2  # page

# %% [markdown]
# The base starts *worse* than random weights, because it is sure of the wrong answer. Yet it is soon ahead: it knows how
# to read digits, compare them and write them down, and has only the order to change. That is why one adapts a base, and
# why it may be enough to train a small part of it.
#
# ## One frozen weight
#
# Take one layer, $h = W_0 x$ with two inputs and two outputs, and a loss $L = h_1^2 + h_2^2$. Write $g = dL / dh$.
# For a column $x$ the rules of lesson 02 read:
#
# $$
# \frac{dL}{dW_0} = g x^\top, \qquad \frac{dL}{dx} = W_0^\top g .
# $$
#
# To *freeze* $W_0$ is to declare that the first is not wanted. Nothing is said about the second. Here both are wanted:

# %%
W0 = np.array([[-2.0, -1.0], [1.0, -1.0]])


def layer(weight_trains):
    weight = Tensor(W0, requires_grad=weight_trains, name="W0")
    x = Tensor([2.0, 3.0], requires_grad=True, name="x")
    return weight, x, ops.linear(x, weight)


weight, x, h = layer(weight_trains=True)
(h ** 2).sum().backward()
print("h =", h.data, "  dL/dW0 =", weight.grad.tolist(), "  dL/dx =", x.grad)
g = 2 * (W0 @ [2, 3])
assert (weight.grad == np.outer(g, [2, 3])).all()
assert (x.grad == W0.T @ g).all()

# %% [markdown]
# And here $W_0$ is frozen. `trace` prints every step forward and backward with its rule. (The engine
# holds $x$ and $g$ as rows, so its rule reads `g @ W0`: the same numbers as $W_0^\top g$.) Look at the last two lines:

# %%
weight, x, h = layer(weight_trains=False)
trace(lambda: (ops.linear(x, weight) ** 2).sum())
(h ** 2).sum().backward()
assert weight.grad is None and (x.grad == W0.T @ g).all()

# %% [markdown]
# $dL / dx$ is the same `[26, 16]` as before, and it was computed *from* $W_0$: a frozen weight still takes part in the
# backward pass. What is missing is $dL / dW_0$. It was not computed and thrown away, and not set to zero: when the layer
# ran, the engine did not even record how to compute it. A result keeps one *edge* for each operand that wants a
# gradient, and backward walks edges:

# %%
for weight_trains in (True, False):
    weight, x, h = layer(weight_trains)
    name = {id(x): "x", id(weight): "W0"}
    edges = [name[id(target)] for target, vjp in h._node.edges]
    print(f"W0 {'trainable' if weight_trains else 'frozen'}: h has edges to {edges}")
assert edges == ["x"]  # page

# %% [markdown]
# The whole rule is one line of the engine. From [lora_np/tensor.py](../../lora_np/tensor.py):
#
# ```py
# kept = [(t._node or t, vjp) for t, vjp in edges if t._requires_grad]
# ```
#
# ## A whole model
#
# Now the model of the prediction. `freeze` marks all parameters of a module as frozen; then block 0 alone is made
# trainable again. Beside it stands a way that looks equivalent: record everything, and merely give the optimizer
# block 0 alone.

# %%
def block_0_alone():
    model = bases.sorting_base().freeze()
    for t in model.layers[0].parameters():
        t.requires_grad = True
    return model


def walked(loss):
    """(all edges that backward will walk from a loss, those of them that lead to a parameter)."""
    nodes, todo = set(), [loss._node]
    while todo:
        this = todo.pop()
        if this not in nodes:
            nodes.add(this)
            todo += [target for target, vjp in this.edges if not isinstance(target, Tensor)]
    targets = [target for this in nodes for target, vjp in this.edges]
    return len(targets), sum(isinstance(target, Tensor) for target in targets)


recorded, frozen = bases.sorting_base(), block_0_alone()
batch = next(data.sorting(32, seed=0, descending=True))
for name, model in (("nothing frozen", recorded), ("block 0 alone", frozen)):
    loss = next_token_loss(model, *batch)
    edges, to_parameters = walked(loss)
    print(f"{name}: {edges} vjp calls in backward, {to_parameters} of them for a parameter")
    loss.backward()

for a, b in zip(recorded.layers[0].parameters(), frozen.layers[0].parameters(), strict=True):
    assert (a.grad == b.grad).all()
assert all(t.grad is None for t in frozen.parameters() if not t.requires_grad)
assert all(t.grad is not None for t in recorded.parameters())  # page
assert to_parameters == len(frozen.trainable_parameters()) == 16  # page

# %% [markdown]
# (On each edge stands a vjp, as in lesson 01: the function from the gradient of a result to that of one operand. Backward
# calls each recorded one once.) Block 0 gets the same gradients to the last bit either way. But freezing leaves out the vjp of every
# frozen parameter, and the array that it would have filled; below block 0 it also leaves out the way back to the
# embeddings, since nothing there wants a gradient.
#
# ## "Frozen blocks the gradient"
#
# It is easy to believe that a frozen block is a wall: that no gradient gets past it, so that only what lies above it can
# learn. If it were so, block 0 below could not be trained. Train it:

# %%
block_0_run = train(frozen, "block 0, below frozen ones")
trained, total = count_parameters(frozen)
frozen_loss = evaluate(base, held_out)
print(f"all frozen:             {0:>6,} trained, loss {frozen_loss:.1f}")
print(f"block 0 below frozen 1: {trained:>6,} trained, loss {block_0_run.validation_loss[-1]:.1g}, "
      f"{bases.sorted_fraction(frozen, descending=True):.0%} of sequences right")
print(f"everything:             {total:>6,} trained, loss {full_run.validation_loss[-1]:.1g}, "
      f"{bases.sorted_fraction(full, descending=True):.0%} of sequences right")
assert full_run.validation_loss[-1] < block_0_run.validation_loss[-1] < 0.03 < frozen_loss
for name, t in frozen.named_parameters():
    if not name.startswith("layers.0."):  # what was frozen is what it was, bit for bit
        assert (t.data == dict(base.named_parameters())[name].data).all()
assert bases.sorted_fraction(frozen, descending=True) > 0.98  # page
assert bases.sorted_fraction(full, descending=True) > 0.98  # page

# %%
from lessons.course.pages.drawings import frozen as draw

draw.loss_curves(frozen_loss, block_0_run, trained, full_run, total)

# %% [markdown]
# Block 0 learns almost as much as everything does, with half of the numbers. It could not if block 1 let no gradient
# through. What does stop a gradient is cutting the graph, with `detach` (or computing under `no_grad`): the numbers pass,
# their history does not.

# %%
def loss_with_a_cut(model, x, y):
    rows = model.embed_tokens(x) + model.embed_positions(np.arange(x.shape[1]))
    hidden = model.layers[0](rows)
    hidden = model.layers[1](hidden.detach())  # the cut: block 0 is below it
    logits = ops.linear(model.final_layer_norm(hidden), model.embed_tokens.weight)
    return ops.cross_entropy(logits[:, -y.shape[1]:], y)


cut = loss_with_a_cut(frozen, *batch)
assert cut.item() == next_token_loss(frozen, *batch).item()
try:
    cut.backward()
except RuntimeError as error:
    message = str(error)
print(message)
assert "nothing here requires a gradient" in message  # page

# %% [markdown]
# The loss is the same number, but nothing that led to it can be trained: what lies below the cut is out of reach, and
# what lies above it is frozen.
#
# This is the ground that LoRA stands on. It freezes every weight of the base and adds a few trainable numbers in every
# layer. The lowest of them learn from gradients that have come down through all the frozen weights above. And the saving
# has a limit that is now plain: a frozen layer drops $g x^\top$ from its backward pass, but not $W_0^\top g$.
#
# ## Key points
#
# - A pretrained base can be worse than random weights at the start of a new task, and far ahead of them soon after.
# - Frozen means: $dL / dW_0$ is not wanted. The engine records no edge for it, so it is never computed and never stored.
# - The gradient with respect to the input, $W_0^\top g$, still flows. A layer below frozen ones learns.
# - Leaving a parameter out of the optimizer gives the same training at a higher cost. `detach` cuts the graph;
#   freezing does not.

# %% [markdown]
# **Exercise.** In [ex06_frozen.py](ex06_frozen.py) you write the backward pass of a frozen layer and of a layer below
# it, and freeze all parameters of a model except some. `python -m lessons check 06` checks that the gradient still
# passes, and that nothing trains that should not.
