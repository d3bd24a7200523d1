# %% [markdown]
# # 04. A training loop
#
# **Objective.** Write a training loop from nothing, tell from its loss curve whether the learning rate is too small or too
# large, and recognise what happens when gradients are not cleared.
#
# **Minutes.** 25. **Before this.** Lessons 01 to 03.
#
# **Predict first.** Somebody forgets to clear the gradients between steps. Does the program stop with an error, train as
# before but slower, or train on numbers that are no longer the gradient?

# %% [markdown]
# ## Eight planets and a law
#
# Here are the planets of the solar system: how far each is from the sun, in units of the earth's distance, and how many
# years it takes for one round.

# %%
import numpy as np

PLANETS = {"Mercury": (0.387, 0.2408), "Venus": (0.723, 0.6152), "Earth": (1.0, 1.0), "Mars": (1.524, 1.8808),
           "Jupiter": (5.203, 11.862), "Saturn": (9.537, 29.447), "Uranus": (19.19, 84.02), "Neptune": (30.07, 164.8)}
distance, years = np.array(list(PLANETS.values())).T
x, y = np.log10(distance), np.log10(years)
for i, name in enumerate(PLANETS):
    print(f"{name:8} x = {x[i]:6.3f}   y = {y[i]:6.3f}")

# %% [markdown]
# Is there a law that gives the years from the distance? If it is a power, $\text{years} = c \cdot \text{distance}^w$, then
# the logarithms lie on a straight line:
#
# $$
# y = w x + b, \qquad x = \log_{10}(\text{distance}), \quad y = \log_{10}(\text{years}), \quad b = \log_{10}(c)
# $$
#
# The model is this line, with two numbers to be found, $w$ and $b$. They are called its *parameters*. We start at zero and
# know nothing.
#
# ## The loss
#
# How wrong is a guess of $w$ and $b$? The usual measure is the mean of the squared errors over the $n = 8$ planets:
#
# $$
# L = \frac{1}{n} \sum_i (w x_i + b - y_i)^2
# $$

# %%
from lora_np import Tensor


def mean_squared_error(w, b):
    error = w * x + b - y  # (8,): w and b are broadcast
    return (error ** 2).mean()


w, b = Tensor(0.0, requires_grad=True), Tensor(0.0, requires_grad=True)
L = mean_squared_error(w, b)
L.backward()
print(f"L = {L:.3f}, gradient of w: {w.grad:.3f}, gradient of b: {b.grad:.3f}")
assert w.grad < 0 and b.grad < 0

# %% [markdown]
# Both gradients are negative: the loss falls when $w$ or $b$ grows. So move each parameter *against* its gradient, by a
# small multiple of it. The multiple is called the *learning rate*, in code `lr`:

# %%
lr = 0.1
w.data = w.data - lr * w.grad
b.data = b.data - lr * b.grad
print(f"w = {w:.3f}, b = {b:.3f}, L = {mean_squared_error(w, b):.3f}")
assert mean_squared_error(w, b).item() < L.item()

# %% [markdown]
# ## The loop
#
# Training is this step, over and over. Each round has four parts: compute the loss, clear the old gradients, run backward,
# step.

# %%
def train(lr, steps=60, clear=True):
    """The two parameters after training from zero, and the loss before each step."""
    w, b = Tensor(0.0, requires_grad=True), Tensor(0.0, requires_grad=True)
    losses = []
    for _ in range(steps):
        loss = mean_squared_error(w, b)
        losses.append(loss.item())
        if clear:
            w.grad = b.grad = None
        loss.backward()
        w.data = w.data - lr * w.grad
        b.data = b.data - lr * b.grad
    return w.item(), b.item(), losses


w_found, b_found, losses = train(lr=0.5)
for step in (0, 1, 5, 10, 20, 40, 59):
    print(f"step {step:2}  loss {losses[step]:.1e}")
print(f"w = {w_found:.3f}, b = {b_found:.3f}")

# %% [markdown]
# The loop has found $w = 1.5$ and $b = 0$, so $\text{years} = \text{distance}^{1.5}$. This is Kepler's third law, read off
# eight pairs of numbers. It also holds for what the loop has not seen: Pluto, at 39.5 times the earth's distance, takes 248
# years.

# %%
print(f"Pluto: {10 ** (w_found * np.log10(39.5) + b_found):.0f} years")
exact = np.linalg.lstsq(np.stack([x, np.ones(8)], axis=1), y, rcond=None)[0]
assert np.allclose([w_found, b_found], exact, atol=1e-5)  # the best line there is
assert abs(w_found - 1.5) < 1e-3 and abs(b_found) < 1e-3
assert abs(10 ** (w_found * np.log10(39.5) + b_found) - 248) < 2

# %% [markdown]
# ## The learning rate: too small, right, too large

# %%
runs = {lr: train(lr)[2] for lr in (0.01, 0.5, 0.8)}
for lr, losses in runs.items():
    print(f"lr = {lr:<4}  loss {losses[0]:.1f} at the start, {losses[-1]:.0e} after 60 steps")
assert 0.1 < runs[0.01][-1] < runs[0.01][0]
assert runs[0.5][-1] < 1e-7
assert runs[0.8][-1] > 1e6

# %% [markdown]
# Too small, and the loss falls so slowly that one might take it for the best there is. Too large, and it grows without
# bound. The border is sharp, and a loss of a single parameter shows why. For $L = a w^2$, with some $a > 0$, the
# gradient is $2 a w$, and a step with learning rate $\eta$ gives
#
# $$
# w - \eta \cdot 2 a w = (1 - 2 a \eta) w .
# $$
#
# Each step multiplies $w$ by the same factor. While $\eta < 1/a$ the factor lies between $-1$ and 1, and $w$ shrinks
# towards the minimum at 0. Above that, each step jumps across the minimum and lands farther away than it began:

# %%
for eta in (0.05, 0.5, 0.95, 1.05):  # a = 1, so the border is at 1
    w_now, path = 1.0, []
    for _ in range(4):
        w_now -= eta * 2 * w_now
        path.append(round(w_now, 3))
    print(f"eta = {eta:<4}  factor {1 - 2 * eta:+.1f}   w = 1 -> {' -> '.join(map(str, path))}")
assert abs(path[-1]) > 1

# %% [markdown]
# With many parameters the loss is steeper in some directions than in others, and the steepest sets the limit. The planets'
# line has two, so each direction is an angle $\varphi$, and all can be tried. Moving $w$ by $t \cos \varphi$ and $b$ by
# $t \sin \varphi$ away from the minimum raises the loss by $a t^2$, where $a$ is the mean of $(x_i \cos \varphi + \sin \varphi)^2$.
# The border is 1 over the largest such $a$:

# %%
angles = np.linspace(0, np.pi, 1000)
border = 1 / max(((x * np.cos(angle) + np.sin(angle)) ** 2).mean() for angle in angles)
print(f"the planets' border: {border:.3f}, between the 0.5 that was right and the 0.8 that was too large")
assert 0.5 < border < 0.8
assert train(border - 0.01, 600)[2][-1] < 1e-5 and train(border + 0.01, 600)[2][-1] > 1e5

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
assert w.grad == 6.0

# %% [markdown]
# In the loop, every step then moves by the sum of *all* gradients so far, most of them from places left long ago. There
# is no error, and at first the loss falls even faster. But arriving at the minimum does not stop anything: the sum is still
# large there, and drives the parameters up the other side, until enough gradients of the opposite sign have come in to turn
# them round. The loss swings like a pendulum without friction, and never comes to rest:

# %%
cleared, forgotten = train(0.1, steps=120)[2], train(0.1, steps=120, clear=False)[2]
for step in (0, 2, 8, 15, 30, 60, 119):
    print(f"step {step:3}  loss when cleared {cleared[step]:.6f}   not cleared {forgotten[step]:.2f}")
assert cleared[:2] == forgotten[:2]  # the first step is the same
assert forgotten[2] < cleared[2]  # and for a while it even looks better
assert cleared[-1] < 1e-6
assert max(forgotten[-40:]) > 0.9 * forgotten[0]  # after 80 steps it is again as bad as at the start

# %%
from lessons.course.pages import figures

TOO_LARGE, RIGHT, TOO_SMALL = figures.OTHERS[1], figures.OTHERS[0], figures.OTHERS[3]
fig, (left, right) = figures.new("Small steps crawl, large ones explode, stale gradients never settle", columns=2, width=12, height=4.8)
for lr, color in ((0.01, TOO_SMALL), (0.5, RIGHT), (0.8, TOO_LARGE)):
    left.semilogy(runs[lr], color=color)
figures.label(left, 59, runs[0.01][-1], "0.01:\ntoo small", TOO_SMALL)
figures.label(left, 59, runs[0.5][-1], "0.5:\nright", RIGHT)
figures.label(left, 26, 1e5, "0.8: too large", TOO_LARGE, ha="right")
left.set_title("Learning rate")
left.set(xlabel="step", ylabel="loss of the planets' line", xlim=(0, 59), ylim=(1e-9, 1e6))
right.plot(forgotten, color=TOO_LARGE)
right.plot(cleared, color=RIGHT)
figures.label(right, 119, forgotten[-1], "not\ncleared", TOO_LARGE)
figures.label(right, 119, cleared[-1], "cleared", RIGHT)
right.set_title("Gradients, learning rate 0.1")
right.set(xlabel="step", ylabel="loss", xlim=(0, 119), ylim=(0, 1.8))
figures.save(fig, "04_training_loop", alt="Two panels of loss against step. Left, on a logarithmic axis: learning rate 0.01 has "
             "hardly fallen after 60 steps, 0.5 has reached 1e-8, 0.8 grows beyond all bounds. Right: with gradients cleared the "
             "loss falls to zero; without, it swings between about zero and about its first value all the way.")

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
assert np.allclose([layer.weight.item(), layer.bias.item()], [w_found, b_found], atol=1e-9)

# %% [markdown]
# All training in this course is this loop. `fit` in `lora_np/train.py` is the same with progress and checks around it,
# and another optimizer, AdamW, takes the place of SGD: it also keeps, for each parameter, a running mean of its gradients
# and of their squares, and so finds a step size for each.

# %% [markdown]
# ## Key points
#
# - A training step: compute the loss, clear the gradients, run backward, move each parameter against its gradient.
# - Learning rate too small: the loss hardly moves. Too large: it grows without bound. The steepest direction sets the limit.
# - Backward adds to the gradients that are there. Without clearing, each step follows the sum of all old gradients: no
#   error, a good start, and no end.

# %% [markdown]
# **Exercise.** `python -m lessons check 04`
