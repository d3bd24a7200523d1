# %% [markdown]
# # 04. A training loop
#
# **Objective.** Write a training loop from scratch, tell from its loss curve whether the learning rate is too small or
# too large, recognise what happens when gradients are not cleared, and take a step of AdamW by hand.
#
# **Minutes.** 35. **Before this.** Lessons 01 to 03.
#
# **Predict first.** Somebody forgets to clear the gradients between steps. Does the program stop with an error, train as
# before but slower, or train on numbers that are no longer the gradient?

# %% [markdown]
# ## Eight planets and a law
#
# Here are the planets of the solar system: how far each is from the Sun, in units of the Earth's distance, and how many
# years it takes to go round the Sun once.

# %%
import numpy as np

PLANETS = {"Mercury": (0.387, 0.2408), "Venus": (0.723, 0.6152), "Earth": (1.0, 1.0),
           "Mars": (1.524, 1.8808), "Jupiter": (5.203, 11.862), "Saturn": (9.537, 29.447),
           "Uranus": (19.19, 84.02), "Neptune": (30.07, 164.8)}
distance, years = np.array(list(PLANETS.values())).T
x, y = np.log10(distance), np.log10(years)
for i, name in enumerate(PLANETS):
    print(f"{name:8} x = {x[i]:6.3f}   y = {y[i]:6.3f}")

# %% [markdown]
# Is there a law that gives the years from the distance? If it is a power of the distance times a constant, the logarithms
# lie on a straight line:
#
# $$
# y = w x + \text{bias}, \qquad x = \log_{10}(\text{distance}), \qquad y = \log_{10}(\text{years})
# $$
#
# The model is this line, with two numbers to be found, $w$ and the bias. They are called its *parameters*. We start at
# zero and know nothing.
#
# ## The loss
#
# How wrong is a guess of the two? The usual measure is the mean of the squared errors over the $N = 8$ planets:
#
# $$
# L = \frac{1}{N} \sum_i (w x_i + \text{bias} - y_i)^2
# $$

# %%
from lora_np import Tensor


def mean_squared_error(w, bias):
    error = w * x + bias - y  # (8,): w and the bias are broadcast
    return (error ** 2).mean()


w, bias = Tensor(0.0, requires_grad=True), Tensor(0.0, requires_grad=True)
L = mean_squared_error(w, bias)
L.backward()
print(f"L = {L:.3f}, gradient of w: {w.grad:.3f}, gradient of the bias: {bias.grad:.3f}")
assert w.grad < 0 and bias.grad < 0  # page

# %% [markdown]
# Both gradients are negative: the loss falls when $w$ or the bias grows. So move each parameter *against* its gradient,
# by a fraction of it. That fraction is called the *learning rate*, $\eta$, in code `lr`:

# %%
lr = 0.1
w.data = w.data - lr * w.grad
bias.data = bias.data - lr * bias.grad
print(f"w = {w:.3f}, bias = {bias:.3f}, L = {mean_squared_error(w, bias):.3f}")
assert mean_squared_error(w, bias).item() < L.item()

# %% [markdown]
# ## The loop
#
# Training is this step, over and over. Each round has four parts: compute the loss, clear the old gradients, run backward,
# step.

# %%
def train(lr, steps=60, clear=True):
    """The two parameters after training from zero, and the loss before each step."""
    w, bias = Tensor(0.0, requires_grad=True), Tensor(0.0, requires_grad=True)
    losses = []
    for _ in range(steps):
        loss = mean_squared_error(w, bias)
        losses.append(loss.item())
        if clear:
            w.grad = bias.grad = None
        loss.backward()
        w.data = w.data - lr * w.grad
        bias.data = bias.data - lr * bias.grad
    return w.item(), bias.item(), losses


w_found, bias_found, losses = train(lr=0.5)
for step in (0, 1, 5, 10, 20, 40, 59):
    print(f"step {step:2}  loss {losses[step]:.1e}")
print(f"w = {w_found:.3f}, bias = {bias_found:.3f}")

# %% [markdown]
# The loop has found $w = 1.5$ and a bias of 0, so $\text{years} = \text{distance}^{1.5}$. This is Kepler's third law,
# read off eight pairs of numbers. It also holds for what the loop has not seen: Pluto, at 39.5 times the Earth's
# distance, takes 248 years.

# %%
print(f"Pluto: {10 ** (w_found * np.log10(39.5) + bias_found):.0f} years")
exact = np.linalg.lstsq(np.stack([x, np.ones(8)], axis=1), y, rcond=None)[0]
assert np.allclose([w_found, bias_found], exact, atol=1e-5)  # the best line there is
assert abs(w_found - 1.5) < 1e-3 and abs(bias_found) < 1e-3  # page
assert abs(10 ** (w_found * np.log10(39.5) + bias_found) - 248) < 2  # page

# %% [markdown]
# ## The learning rate: too small, right, too large

# %%
runs = {lr: train(lr)[2] for lr in (0.01, 0.5, 0.8)}
for lr, losses in runs.items():
    print(f"lr = {lr:<4}  loss {losses[0]:.1f} at the start, {losses[-1]:.0e} after 60 steps")
assert 0.1 < runs[0.01][-1] < runs[0.01][0] and runs[0.5][-1] < 1e-7 and runs[0.8][-1] > 1e6  # page

# %% [markdown]
# If the learning rate is too small, the loss falls so slowly that one might take it for the best there is. If it is
# too large, the loss grows without bound. The border is sharp, and a loss of a single parameter shows why. For
# $L = \kappa w^2$, with some $\kappa > 0$, the gradient is $2 \kappa w$, and a step with learning rate $\eta$ gives
#
# $$
# w - \eta \cdot 2 \kappa w = (1 - 2 \kappa \eta) w .
# $$
#
# Each step multiplies $w$ by the same factor. While $\eta < 1/\kappa$ the factor lies between $-1$ and 1, and $w$ shrinks
# towards the minimum at 0. Above that, each step jumps across the minimum and lands farther away than it began:

# %%
for lr in (0.05, 0.5, 0.95, 1.05):  # kappa = 1, so the border is at 1
    w_now, path = 1.0, []
    for _ in range(4):
        w_now -= lr * 2 * w_now
        path.append(round(w_now, 3))
    print(f"lr = {lr:<4}  factor {1 - 2 * lr:+.1f}   w = 1 -> {' -> '.join(map(str, path))}")
assert abs(path[-1]) > 1  # page

# %% [markdown]
# With many parameters the loss is steeper in some directions than in others, and the steepest sets the limit. The planets'
# line has two, so each direction is an angle $\theta$, and all can be tried. Moving $w$ by $\rho \cos \theta$ and the bias by
# $\rho \sin \theta$ away from the minimum raises the loss by $\kappa \rho^2$, where $\kappa$ is the mean of
# $(x_i \cos \theta + \sin \theta)^2$. The border is 1 over the largest such $\kappa$:

# %%
angles = np.linspace(0, np.pi, 1000)
border = 1 / max(((x * np.cos(angle) + np.sin(angle)) ** 2).mean() for angle in angles)
print(f"the planets' border: {border:.3f}, "
      "between the 0.5 that was right and the 0.8 that was too large")
assert 0.5 < border < 0.8  # page
assert train(border - 0.01, 600)[2][-1] < 1e-5  # a little below it, the loss falls
assert train(border + 0.01, 600)[2][-1] > 1e5   # a little above it, it grows

# %% [markdown]
# ## The mistake: forgetting to clear the gradients
#
# Lesson 01 taught the engine to add what comes back to a value, because a value may be used several times. It cannot know
# that a second `backward` belongs to a new step. So it adds that too:

# %%
w = Tensor(3.0, requires_grad=True)
for _ in range(3):
    (w * 2).backward()
    print(f"gradient of w: {w.grad}")  # the slope of w * 2 is 2, every time
assert w.grad == 6.0  # page

# %% [markdown]
# That is the answer to the prediction: the program does not stop, and it is not merely slower. It trains on numbers that
# are no longer the gradient. In the loop, every step moves by the sum of *all* gradients so far, most of them from places
# left long ago. At first the loss falls even faster. But arriving at the minimum does not stop anything: the sum is still
# large there, and drives the parameters up the other side, until enough gradients of the opposite sign have come in to
# turn them round. The loss swings like a pendulum without friction, and never comes to rest:

# %%
cleared, forgotten = train(0.1, steps=120)[2], train(0.1, steps=120, clear=False)[2]
for step in (0, 2, 8, 15, 30, 60, 119):
    print(f"step {step:3}  loss when cleared {cleared[step]:.6f}   "
          f"not cleared {forgotten[step]:.2f}")
assert cleared[:2] == forgotten[:2]  # page: the first step is the same
assert forgotten[2] < cleared[2]  # for a while it even looks better
assert max(forgotten[-40:]) > 0.9 * forgotten[0]  # after 80 steps it is as bad as at the start
assert cleared[-1] < 1e-6  # page

# %%
from lessons.course.pages.drawings import training_loop as draw

draw.losses(runs, cleared, forgotten)

# %% [markdown]
# ## The same with the library
#
# The line is a linear layer with one input and one output, and the step is an *optimizer*: SGD, stochastic gradient
# descent ("stochastic", random, because with more data than eight planets each step sees a random part of it). It holds
# the parameters, clears their gradients and moves them. Inputs and outputs are now columns, one planet in each row.

# %%
from lora_np.nn import Linear
from lora_np.optim import SGD

layer = Linear(1, 1)
layer.weight.data = np.zeros((1, 1))  # it starts at random; we start where we started before
optimizer = SGD(layer.parameters(), lr=0.5)
inputs, targets = x[:, None], y[:, None]  # (8, 1), both of them: see the end of lesson 02
for _ in range(60):
    loss = ((layer(inputs) - targets) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"weight {layer.weight.item():.3f}, bias {layer.bias.item():.3f}")
assert np.allclose([layer.weight.item(), layer.bias.item()], [w_found, bias_found], atol=1e-9)

# %% [markdown]
# ## AdamW: a step size for every number
#
# One learning rate for all parameters is a compromise: the steepest direction sets the limit, and the others crawl. The
# optimizer that most models are trained with, AdamW ([Kingma and Ba 2014](https://arxiv.org/abs/1412.6980), [Loshchilov
# and Hutter 2017](https://arxiv.org/abs/1711.05101)), keeps two more numbers for every parameter: a running mean of its
# gradients $g$, and one of their squares. (The papers call them m and v.) Both start at zero, and at step
# $t = 1, 2, \dots$
#
# $$
# \text{mean} \leftarrow \beta_1 \, \text{mean} + (1 - \beta_1) \, g, \qquad \text{square} \leftarrow \beta_2 \, \text{square} + (1 - \beta_2) \, g^2
# $$
#
# with $\beta_1 = 0.9$ and $\beta_2 = 0.999$. Having started at zero, both are too small at first: after one step the mean
# is a tenth of $g$ and the square a thousandth of $g^2$. Dividing by $1 - \beta^t$ makes up for exactly that, and is called
# *bias correction*. Then the parameter moves by the mean over the root of the square:
#
# $$
# w \leftarrow w - \eta \, \frac{\text{mean} / (1 - \beta_1^t)}{\sqrt{\text{square} / (1 - \beta_2^t)} + 10^{-8}}
# $$
#
# The W stands for *weight decay*: $\eta$ times a chosen rate times $w$ is subtracted as well, which pulls every parameter
# towards zero. It is set to 0 here, and everywhere in this course.

# %%
def adamw_step(w, g, mean, square, t, lr, beta1=0.9, beta2=0.999):
    mean = beta1 * mean + (1 - beta1) * g
    square = beta2 * square + (1 - beta2) * g ** 2
    corrected_mean = mean / (1 - beta1 ** t)
    corrected_square = square / (1 - beta2 ** t)
    return w - lr * corrected_mean / (np.sqrt(corrected_square) + 1e-8), mean, square


def gradient(parameters):
    """The gradient of the planets' loss in (w, bias)."""
    both = [Tensor(number, requires_grad=True) for number in parameters]
    mean_squared_error(*both).backward()
    return np.array([t.grad for t in both])


found, mean, square = np.zeros(2), np.zeros(2), np.zeros(2)
for t in range(1, 301):
    g = gradient(found)
    found, mean, square = adamw_step(found, g, mean, square, t, lr=0.1)
    if t in (1, 2, 30, 300):
        print(f"step {t:3}  gradients {g[0]:6.3f} {g[1]:6.3f}   "
              f"w = {found[0]:.3f}, bias = {found[1]:.3f}")
    assert t > 1 or np.allclose(found, 0.1)  # step 1 moves both by the learning rate

# %% [markdown]
# At step 1 the corrected mean is $g$ and the corrected square is $g^2$, so the quotient is $g / \lvert g \rvert$, which is 1 or
# $-1$. **The first step moves every number by the learning rate, however large or small its gradient is.** Only the sign
# counts. Later a number whose gradient keeps its sign goes on at about that pace, and one whose gradient changes its sign
# at every step hardly moves. (Without bias correction the first step would be $0.1 / \sqrt{0.001}$, more than three
# learning rates long.) So a learning rate of AdamW says how far a number moves, whatever the loss is measured in. That
# matters in lesson 09.
#
# The library's AdamW, in [lora_np/optim.py](../../lora_np/optim.py), gives the same numbers:

# %%
from lora_np.optim import AdamW

w, bias = Tensor(0.0, requires_grad=True), Tensor(0.0, requires_grad=True)
optimizer = AdamW([w, bias], lr=0.1)
for _ in range(300):
    optimizer.zero_grad()
    mean_squared_error(w, bias).backward()
    optimizer.step()
print(f"w = {w:.3f}, bias = {bias:.3f}")
assert np.allclose([w.item(), bias.item()], found, atol=1e-9)

# %% [markdown]
# All training in this course is this loop, with AdamW. `fit` in [lora_np/train.py](../../lora_np/train.py) is the same with
# progress and checks around it, and does two things more. Its learning rate can follow a *schedule*: it rises over the
# first steps and then falls, so that the last steps are small. And it *clips* gradients: before the step it takes all of
# them as one long vector, and where that is longer than 1, it multiplies all of them by the one factor that makes its
# length 1. The direction stays as it was; but a single odd batch, whose gradients are huge, cannot throw the model far away.

# %% [markdown]
# ## One batch, many machines
#
# The loss of a batch is a mean over its rows. So its gradient is the mean of the gradients of its parts, each weighted by
# how many of the rows it has:

# %%
def weight_gradient(rows):
    """The gradient of the weight at zero, from some of the planets."""
    layer = Linear(1, 1)
    layer.weight.data = np.zeros((1, 1))
    ((layer(inputs[rows]) - targets[rows]) ** 2).mean().backward()
    return layer.weight.grad.item()


three, five, all_eight = (weight_gradient(rows) for rows in (slice(0, 3), slice(3, 8), slice(0, 8)))
print(f"three planets {three:.3f}, the other five {five:.3f}, all eight {all_eight:.3f}")
print(f"3/8 and 5/8 of the first two: {3 / 8 * three + 5 / 8 * five:.3f}")
assert np.isclose(3 / 8 * three + 5 / 8 * five, all_eight)

# %% [markdown]
# This is how training is spread over many machines: each holds all parameters and takes loss and gradients of its own part
# of the batch, the gradients are added up over the network, and every machine takes the same step. It is called *data
# parallelism*. `fit(…, threads=2)` does it with two threads of one machine
# ([extras/fast/parallel.py](../../lora_np/extras/fast/parallel.py)); a larger model gains from it, a small one does not.

# %% [markdown]
# ## Key points
#
# - A training step: compute the loss, clear the gradients, run backward, move each parameter against its gradient.
# - Learning rate too small: the loss hardly moves. Too large: it grows without bound. The steepest direction sets the limit.
# - Backward adds to the gradients that are there. Without clearing, each step follows the sum of all old gradients: no
#   error, a good start, and no end.
# - AdamW divides a running mean of the gradients by the root of a running mean of their squares. Its first step moves
#   every number by the learning rate.
# - Clipping shortens a gradient that is too long, and keeps its direction.
# - The gradient of a batch is the weighted mean of the gradients of its parts, so parts can be taken by many machines.

# %% [markdown]
# **Exercise.** In [ex04_training_loop.py](ex04_training_loop.py) you write a step of gradient descent, the loop around it,
# and a step of AdamW with weight decay. `python -m lessons check 04` runs them, and tells a loop that never clears its
# gradients from one that clears them too late.
