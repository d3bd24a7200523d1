# %% [markdown]
# # 01. A graph of numbers, and the chain rule
#
# **Objective.** Find how steeply a result rises or falls in every number that it was computed from, by walking the
# computation backwards once.
#
# **Minutes.** 25. **Before this.** Python, and the derivative from school: how fast $y$ changes when $x$ does.
#
# **Predict first.** In $y = x \cdot x + x$ the number $x$ is used three times. At $x = 3$, by how much does $y$ grow when
# $x$ grows by a thousandth: by about one, three, six or seven thousandths? Write your guess down.

# %% [markdown]
# ## A computation in single steps
#
# Training a model means changing its numbers so that one result, the loss, gets smaller. For that we need to know, for
# each number, whether the loss rises or falls when that number grows, and how steeply. Our whole model in this lesson
# is
#
# $$
# L = (w x + b a x)^2
# $$
#
# with four numbers that go in, $x$, $w$, $a$ and $b$, and the loss $L$ that comes out. Written with one operation a
# line, so that every number on the way has a name:

# %%
x, w, a, b = 2.0, -1.0, 3.0, 0.5

p = w * x
u = a * x
v = b * u
h = p + v
L = h ** 2
print(f"p = {p}, u = {u}, v = {v}, h = {h}, L = {L}")

# %% [markdown]
# ## Slopes by trying
#
# The plainest way to find a slope: move one number a little, compute everything again, and divide the change of $L$ by
# the move.

# %%
def loss(x, w, a, b):
    return (w * x + b * a * x) ** 2


numbers = {"x": x, "w": w, "a": a, "b": b}
tried = {}
for name in numbers:
    moved = numbers | {name: numbers[name] + 0.001}
    tried[name] = (loss(**moved) - loss(**numbers)) / 0.001
    print(f"slope of L in {name}: about {tried[name]:.1f}")

# %% [markdown]
# That is one more computation of $L$ for every number. With four numbers nobody minds; a model has millions. The chain
# rule gives all of the slopes at once.
#
# ## The chain rule
#
# Each single step has slopes that can be read off:
#
# | step | slopes of its result |
# |---|---|
# | $L = h^2$ | $2h$ in $h$ |
# | $h = p + v$ | 1 in $p$, 1 in $v$ |
# | $v = b u$ | $u$ in $b$, $b$ in $u$ |
# | $u = a x$ | $x$ in $a$, $a$ in $x$ |
# | $p = w x$ | $x$ in $w$, $w$ in $x$ |
#
# One step after another means one slope times the other. If $v$ grows half as fast as $u$, and $L$ twice as fast as
# $v$, then $L$ grows just as fast as $u$:
#
# $$
# \frac{dL}{du} = \frac{dL}{dv} \cdot \frac{dv}{du} = 2 \cdot \frac{1}{2} = 1
# $$
#
# The slope of the loss in a number is called the *gradient* of that number. In code we write `du` for $dL/du$, `dv` for
# $dL/dv$ and so on. Start at the end, where the slope of $L$ in itself is 1, and walk the steps backwards. At each step,
# multiply the gradient of the result by the slope from the table:

# %%
dL = 1.0
dh = dL * 2 * h             # L = h ** 2
dp, dv = dh * 1, dh * 1     # h = p + v
db, du = dv * u, dv * b     # v = b * u
da, dx_from_u = du * x, du * a  # u = a * x
dw, dx_from_p = dp * x, dp * w  # p = w * x
print(f"dh = {dh}, dp = {dp}, dv = {dv}, du = {du}")
print(f"dw = {dw}, da = {da}, db = {db}")
print(f"to x: {dx_from_u} by way of u, {dx_from_p} by way of p")

# %% [markdown]
# Two gradients arrive at $x$, because $x$ was used twice. When $x$ moves, $p$ moves and $u$ moves, and $L$ feels both. So
# the two add up:

# %%
dx = dx_from_u + dx_from_p
print(f"dx = {dx}")
for name, gradient in {"x": dx, "w": dw, "a": da, "b": db}.items():
    assert abs(gradient - tried[name]) < 0.05  # the chain rule found the slopes that we measured
assert (dx, dw, da, db) == (1.0, 4.0, 2.0, 12.0)  # page

# %% [markdown]
# Drawn as a graph, with an arrow from each number to whatever was computed from it. The values were found from left to
# right, the gradients from right to left:

# %%
from lessons.course.pages.drawings import chain_rule as draw

values = {"x": x, "w": w, "a": a, "b": b, "p": p, "u": u, "v": v, "h": h, "L": L}
gradients = {"x": dx, "w": dw, "a": da, "b": db, "p": dp, "u": du, "v": dv, "h": dh, "L": dL}
draw.graph(values, gradients, to_x=(dx_from_p, dx_from_u))

# %% [markdown]
# ## What an operation does to a gradient
#
# Each operation deals in its own way with the gradient that comes back to its result. Three of them explain most of a
# model:
#
# | operation | what it sends back |
# |---|---|
# | a sum of two numbers | to each, the gradient as it came |
# | a product of two | to each, the gradient times the other one's value |
# | the larger of two | to the larger, all of it; to the smaller, 0 |
#
# So an addition copies, a multiplication swaps and scales, and a maximum is a switch.

# %% [markdown]
# ## The same in a dozen lines
#
# What we did by hand is a recipe. Let each result remember what it was computed from, and its slope in each of those.
# Then one loop finds all gradients.

# %%
made = []  # every value, in the order in which it was made


class Value:
    def __init__(self, number, edges=()):
        self.number, self.edges, self.grad = number, edges, 0.0
        made.append(self)


def add(a, b):
    return Value(a.number + b.number, [(a, 1.0), (b, 1.0)])


def mul(a, b):
    return Value(a.number * b.number, [(a, b.number), (b, a.number)])


def backward():
    made[-1].grad = 1.0
    for result in reversed(made):
        for operand, slope in result.edges:
            operand.grad += result.grad * slope


def forward():
    made.clear()
    X, W, A, B = (Value(n) for n in (x, w, a, b))
    H = add(mul(W, X), mul(B, mul(A, X)))
    mul(H, H)
    return X, W, A, B


X, W, A, B = forward()
backward()
print(f"x {X.grad}, w {W.grad}, a {A.grad}, b {B.grad}")
assert (X.grad, W.grad, A.grad, B.grad) == (dx, dw, da, db)

# %% [markdown]
# The square is the product of `H` with itself: that too is one value used twice, and its two parts add up to
# $h + h = 2h$ by the same line.
#
# ## Why the order matters
#
# The list `made` holds every value in the order in which it was made, so each result comes after its operands. Walked
# from the end, every value has received all of its gradient before it passes any on. In the figure, $u$ must not pass
# on before $v$ has, and $x$ has to wait for both $p$ and $u$.
#
# The engine of this course keeps no such list: a result knows only its operands. So `backward` begins at the loss, goes
# back to everything that the loss was computed from, and *sorts* it: results before operands. (The order is called
# topological.) Could it do without, and pass on every part as soon as it arrives? The sum would be right, but each value
# would be visited once for every way that leads to it. Square a number thirty times in a row: each square uses its
# operand twice, so there are $2^{30}$ ways, about a thousand million, and sorted it is 31 visits.
#
# ## The mistake: overwriting
#
# It is tempting to write `=` instead of `+=` in the last line of `backward`. After all, the gradient *is* that product,
# by the chain rule. Nothing crashes:

# %%
def backward_that_overwrites():
    made[-1].grad = 1.0
    for result in reversed(made):
        for operand, slope in result.edges:
            operand.grad = result.grad * slope  # wrong: forgets what arrived before


X, W, A, B = forward()
backward_that_overwrites()
print(f"x {X.grad}, w {W.grad}, a {A.grad}, b {B.grad}")
assert (W.grad, A.grad, B.grad) == (dw / 2, da / 2, db / 2)
assert X.grad == -1.0 and dx == 1.0  # page

# %% [markdown]
# The gradients of $w$, $a$ and $b$ are half of what they should be, because only one of the square's two uses of `H`
# was counted. That of $x$ even has the wrong sign: of its two parts only the one by way of $p$ was kept. A negative
# gradient says that the loss falls when $x$ grows. Let $x$ grow, and the loss rises:

# %%
assert loss(x + 0.1, w, a, b) > loss(x, w, a, b)
print(f"at x = {x}: L = {loss(x, w, a, b):.2f}; at x = {x + 0.1}: L = {loss(x + 0.1, w, a, b):.2f}")

# %% [markdown]
# Whenever a value is used more than once, its gradient is the sum over its uses. This one rule explains most of the next
# lesson.
#
# ## The same with lora_np
#
# The engine of this course does the same for arrays. A `Tensor` holds an array, here a single number; with
# `requires_grad=True` it collects a gradient. Operations are written as usual, and `backward` is our loop:

# %%
from lora_np import Tensor

X, W, A, B = (Tensor(n, requires_grad=True) for n in (x, w, a, b))
H = W * X + B * (A * X)
loss_tensor = H * H
loss_tensor.backward()
print(loss_tensor)
print(f"x {X.grad}, w {W.grad}, a {A.grad}, b {B.grad}")
assert (X.grad, W.grad, A.grad, B.grad) == (dx, dw, da, db)

# %% [markdown]
# The one difference lies in what an edge remembers: not the slope itself but a function that takes the gradient of the
# result and gives the gradient of the operand. For a product of numbers that function multiplies by the slope. For
# arrays it can be more, as the next lesson shows. Such a function is called a *vector-Jacobian product*, for short vjp.
# There is one for each operand of each operation in [lora_np/ops](../../lora_np/ops), and the loop, with the sorting,
# in [lora_np/graph.py](../../lora_np/graph.py).
#
# The engine can print all of its steps, forward and backward, with names that you choose. *Leaves* are the numbers that
# go in, `t1` to `t4` are our $p$, $u$, $v$ and $h$, and `()` is the shape of a single number. `g` is the gradient of the step's
# own result, and `+=` marks a second use. The `2` that is skipped is the exponent. Compare it with the figure:

# %%
from lora_np.trace import trace

X, W, A, B = (Tensor(n, requires_grad=True, name=name) for name, n in numbers.items())
worked = trace(lambda: (W * X + B * (A * X)) ** 2)
assert worked.gradients["x"] == dx  # page

# %% [markdown]
# A Tensor made without `requires_grad=True` is a constant: no edge leads back to it, so nothing is computed for it. What
# arrives elsewhere stays the same.

# %%
X, A, B = (Tensor(n, requires_grad=True) for n in (x, a, b))
W = Tensor(w)
H = W * X + B * (A * X)
(H * H).backward()
print(f"x {X.grad}, w {W.grad}, a {A.grad}, b {B.grad}")
assert W.grad is None and (X.grad, A.grad, B.grad) == (dx, da, db)

# %% [markdown]
# And the prediction? In $x \cdot x + x$ each of the three uses sends its part: 3, 3 and 1. So $y$ grows by about seven
# thousandths.

# %%
X = Tensor(3.0, requires_grad=True)
(X * X + X).backward()
print(f"slope of x · x + x at 3: {X.grad}")
assert X.grad == 3 + 3 + 1

# %% [markdown]
# ## Key points
#
# - The gradient of a number is the slope of the loss in it. The chain rule multiplies slopes along a way through the
#   graph, and adds up the ways.
# - Backward walks the steps from last to first and finds all gradients in one pass, however many there are.
# - A value that is used more than once gets the sum of what comes back. Overwriting gives numbers that look just as
#   good and are wrong.
# - A constant gets no gradient and costs nothing; gradients still flow past it to everything else.

# %% [markdown]
# **Exercise.** In [ex01_chain_rule.py](ex01_chain_rule.py) you find the slopes of two small graphs by hand, and then
# write `backward` for any graph that is given as a list of its steps. `python -m lessons check 01` tries your functions
# on numbers of its own, and shows the first thing that goes wrong.
