# %% [markdown]
# # 03. Checking a gradient numerically
#
# **Objective.** Check any gradient without trusting the code that computed it, and choose the step with which to do so.
#
# **Minutes.** 25. **Before this.** Lessons 01 and 02.
#
# **Predict first.** A slope is measured as the change of $f$ over a small step $\varepsilon$. Which step gives the smallest error in
# ordinary float64 numbers: $10^{-2}$, $10^{-5}$, $10^{-10}$ or $10^{-16}$?

# %% [markdown]
# ## Two ways to measure a slope
#
# Lesson 01 moved a number a little and looked at the change. Formulas for gradients can be wrong, as lesson 02 showed;
# this measurement needs no formula, so it can check them. How good is it? Take a function whose slope we know: $f(x) = x^3$,
# with slope $3 x^2$. The *forward difference* takes one step ahead. Multiplied out, it is
#
# $$
# \frac{(x + \varepsilon)^3 - x^3}{\varepsilon} = 3 x^2 + 3 x \varepsilon + \varepsilon^2 .
# $$
#
# So its error is about $3 x \varepsilon$: ten times smaller for a step ten times smaller. The *central difference* takes one step
# ahead and one back:
#
# $$
# \frac{(x + \varepsilon)^3 - (x - \varepsilon)^3}{2 \varepsilon} = 3 x^2 + \varepsilon^2 .
# $$
#
# Here the terms with $\varepsilon$ cancel, and the error is $\varepsilon^2$: a *hundred* times smaller for a step ten times smaller. The
# same happens for every smooth function, with other constants.

# %%
import numpy as np


def f(x):
    return x * x * x


def forward(f, x, step):
    return (f(x + step) - f(x)) / step


def central(f, x, step):
    return (f(x + step) - f(x - step)) / (2 * step)


x = 1.3
for step in (0.1, 0.01, 0.001):
    errors = [difference(f, x, step) - 3 * x ** 2 for difference in (forward, central)]
    print(f"step {step:<5}  forward is off by {errors[0]:.6f}, central by {errors[1]:.6f}")
    assert np.allclose(errors, [3 * x * step + step ** 2, step ** 2])  # the formulas above

# %% [markdown]
# ## The mistake: a smaller step is always better
#
# By these formulas a step of $10^{-16}$ would be all but perfect. Try it:

# %%
step = 1e-16
print(f"x + step == x is {x + step == x}; forward: {forward(f, x, step)}, "
      f"central: {central(f, x, step)}; the slope is {3 * x ** 2:.2f}")
assert forward(f, x, step) == central(f, x, step) == 0.0  # page

# %% [markdown]
# A float64 holds about 16 decimal digits. The neighbours of 1.3 are about $2 \cdot 10^{-16}$ away, so $x + \varepsilon$ is rounded
# back to $x$, nothing changes, and the measured slope is 0.
#
# Long before that, digits get lost. $f(x + \varepsilon)$ and $f(x - \varepsilon)$ agree in most of their digits, each of them is off by
# a rounding error of about $10^{-16}$, and the difference has to be divided by a small number. So rounding contributes an
# error of about $10^{-16} / \varepsilon$, which *grows* as the step shrinks. Both errors together make a U. Here they are
# measured, as the median over a thousand values of $x$ between 1 and 2:

# %%
def median_error(difference, step, x):
    """The relative error of a difference as a slope of f, its median over an array of x."""
    exact = 3 * x.astype(np.float64) ** 2
    return float(np.median(np.abs(difference(f, x, x.dtype.type(step)) - exact) / exact))


xs = np.linspace(1, 2, 1000)
steps = 10.0 ** np.arange(-15, 0.1, 0.5)
xs_32 = xs.astype(np.float32)
curves = {"forward": [median_error(forward, step, xs) for step in steps],
          "central": [median_error(central, step, xs) for step in steps],
          "central, float32": [median_error(central, step, xs_32) for step in steps]}
best = {name: steps[np.argmin(errors)] for name, errors in curves.items()}
lowest = {name: min(errors) for name, errors in curves.items()}
for name in curves:
    print(f"{name:16} best step about {best[name]:.0e}, "
          f"relative error there about 1e{round(np.log10(lowest[name])):+03}")
assert lowest["central"] < lowest["forward"] / 100 < lowest["central, float32"]
assert 1e-9 < best["forward"] < 1e-7 and 1e-6 <= best["central"] <= 1e-4 and best["central, float32"] > 1e-3  # page
assert median_error(central, 1e-12, xs) > 1e5 * median_error(central, 1e-6, xs)  # page

# %%
from lessons.course.pages.drawings import gradient_check as draw

draw.step_size(steps, curves)

# %% [markdown]
# Of the four steps to choose from at the top, $10^{-5}$ is the best. The forward difference at its own best is hundreds of
# times worse than the central one. In float32, which holds about 7 digits, the best step is good for 5 or 6 of them, and a
# step of $10^{-6}$ for one or two. So gradients are checked in float64, with central differences.
#
# ## Why 1e-6, if 3e-6 is better here?
#
# Because other functions bend more. The same cube bends more strongly, relative to its slope, where $x$ is small: the error
# $\varepsilon^2$ is then divided by a slope $3 x^2$ that is small too.

# %%
gently, sharply = np.linspace(1, 2, 1000), np.linspace(0.05, 0.1, 1000)
print("step    error for x in 1 .. 2    for x in 0.05 .. 0.1")
for step in (1e-4, 1e-5, 1e-6, 1e-7):
    orders = [round(np.log10(median_error(central, step, xs))) for xs in (gently, sharply)]
    print(f"{step:.0e}   about 1e{orders[0]:+03}              about 1e{orders[1]:+03}")
assert median_error(central, 1e-5, sharply) > 10 * median_error(central, 1e-6, sharply)
assert median_error(central, 1e-6, gently) < 1e-9 and median_error(central, 1e-6, sharply) < 1e-9  # page

# %% [markdown]
# A step of $10^{-6}$ is good in both places. It gives up a little where a function bends gently and gains a lot where
# it bends sharply.
#
# One thing no step can cure is a kink. `relu(x)`, the larger of $x$ and 0, has slope 0 on the left of zero and 1 on the right.
# A central difference at the kink takes one step to each side, and measures the mean:

# %%
print(f"relu at 0: {central(lambda x: max(x, 0.0), 0.0, 1e-6)}")
assert central(lambda x: max(x, 0.0), 0.0, 1e-6) == 0.5  # page

# %% [markdown]
# So keep inputs more than a step away from kinks when you check.
#
# ## From one number to whole arrays
#
# `gradcheck` in [lora_np/gradcheck.py](../../lora_np/gradcheck.py) does all this for a function of arrays: it moves every
# element of every array by $\pm 10^{-6}$ and compares the central difference with the gradient that the engine computed,
# the *analytic* one. First the linear layer of lesson 02:

# %%
from lora_np import ops
from lora_np.gradcheck import gradcheck

rng = np.random.default_rng(0)
X, W, bias = rng.normal(size=(4, 3)), rng.normal(size=(2, 3)), rng.normal(size=2)
report = gradcheck(ops.linear, X, W, bias, quiet=True)
for row in report.rows:
    print(f"{row.name:6} {row.shape!s:6}  {row.checked:>2} elements checked: {row.verdict}, "
          f"error below 1e-6: {row.error < 1e-6}")
assert report.ok

# %% [markdown]
# Now a wrong one. Here is a matrix product of our own whose gradient of `x` lacks its transpose: the mistake of lesson 02,
# with a square `M`, where no shape gives it away. `node`, of [lora_np/tensor.py](../../lora_np/tensor.py), is how an
# operation enters the engine: its name, its value, and a vjp for each operand.

# %%
from lora_np.tensor import node

M = rng.normal(size=(3, 3))


def wrong_product(x):
    return node("wrong_product", x.data @ M, (x, lambda g: g @ M))  # should be g @ M.T


assert not gradcheck(wrong_product, X)

# %% [markdown]
# The table names the worst element and both values there: the analytic gradient disagrees with the measured slope, so the
# formula is wrong.
#
# ## Two ways to be fooled
#
# An operation gives an array, and a slope needs one number. Which? It is tempting to take the sum of the result, that
# is, a $G$ of ones. Look at what that does to an operation that subtracts the mean:

# %%
def centred(x):
    return x - x.mean()


x = rng.normal(size=4)
slopes = []
for i in range(4):
    at_i = np.eye(4)[i]  # 1 at place i, 0 elsewhere
    slopes.append(central(lambda move, at_i=at_i: centred(x + move * at_i).sum(), 0.0, 1e-6))
print(f"all slopes of the sum are zero: {np.allclose(slopes, 0, atol=1e-9)}")
assert np.allclose(slopes, 0, atol=1e-9)  # page

# %% [markdown]
# Whatever $x$ is, the result sums to 0, so a gradient of zeros passes, right or wrong. `gradcheck` therefore weighs the
# elements with random numbers, a random $G$. A backward pass that returns zeros is then found out:

# %%
def lazy(x):
    return node("lazy", x.data - x.data.mean(), (x, np.zeros_like))


assert gradcheck(centred, x, quiet=True)
assert not gradcheck(lazy, x)

# %% [markdown]
# The other way to be fooled is to check where everything is zero. In $a \cdot b$ each slope is the other factor. At
# $a = b = 0$ both are 0, and so is the answer of nearly any wrong formula. Such a check proves nothing, and `gradcheck`
# says so:

# %%
report = gradcheck(lambda a, b: a * b, np.zeros(3), np.zeros(3))
assert [row.verdict for row in report.rows] == ["vacuous", "vacuous"] and not report.ok

# %% [markdown]
# ## Key points
#
# - A central difference, $(f(x + \varepsilon) - f(x - \varepsilon)) / 2\varepsilon$, checks a gradient without any formula. Its error is
#   about $\varepsilon^2$ from bending plus $10^{-16} / \varepsilon$ from rounding.
# - A smaller step is not always better. In float64 steps of about $10^{-6}$ serve well; at $10^{-16}$ every slope is 0.
# - Check in float64, every element, with a random $G$, at inputs that are not zero and not at a kink.
# - Agreement to six digits in every element at random inputs is strong evidence. Both sides zero is none.

# %% [markdown]
# **Exercise.** In [ex03_gradient_check.py](ex03_gradient_check.py) you measure slopes by central differences, say how far a
# gradient is from them, and find the best step. `python -m lessons check 03` tries your functions on arrays of several
# shapes, zeros included.
