"""Derivations written out in plain NumPy, with no engine: what to hold your own against.

Each function takes the forward pass line by line, then walks back over the same lines in reverse. A name
with d in front is the gradient of the loss in that array and has its shape; g is dL/dy, what arrives from
above. The tests compare every gradient with the engine's, to 1e-12 in float64. For a loss of L = sum(g * y),
dL/dy is g, so any g may be sent in.
"""

import numpy as np
import pytest

from lora_np import GPTConfig, LoraConfig, Tensor, ops
from lora_np.lora import LoraLinear, add_lora
from lora_np.nn import Linear
from lora_np.transformer import CausalSelfAttention


def softmax_by_hand(z, g):
    """y = softmax(z) for one row z (V,); returns y and dz.

        y[i] = exp(z[i]) / sum_k exp(z[k])

    Raising z[j] raises the numerator of y[j] and the denominator of every y[i]:

        dy[i]/dz[j] = y[i] * (1 if i == j else 0) - y[i] * y[j]
        dz[j] = sum_i g[i] * dy[i]/dz[j] = y[j] * (g[j] - sum_i g[i] * y[i])
    """
    y = np.exp(z) / np.exp(z).sum()
    jacobian = np.diag(y) - np.outer(y, y)                     # (V, V): [i, j] is dy[i]/dz[j]
    return y, g @ jacobian


def cross_entropy_by_hand(z, targets):
    """Softmax with cross-entropy, z (n, V), targets (n,); returns L and dz.

        L = mean over the rows of  -log softmax(z)[target] = -z[target] + log sum_k exp(z[k])

    The first term has slope -1 at the target and 0 elsewhere. The second has slope exp(z[j]) / sum_k exp(z[k]),
    which is the softmax p. So dz is p, less 1 at the target, over n: no Jacobian is left.
    """
    n = len(z)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)       # (n, V)
    at_target = np.zeros_like(z)
    at_target[np.arange(n), targets] = 1
    L = -np.log(p[at_target == 1]).mean()
    return L, (p - at_target) / n


def layer_norm_by_hand(x, weight, bias, g, eps=1e-5):
    """Layer normalisation of rows, x (n, d); returns y, dx, dweight, dbias.

        mu = mean(x)    c = x - mu    std = sqrt(mean(c^2) + eps)    xhat = c / std    y = xhat * weight + bias

    weight and bias serve every row, so their gradients are sums over rows. x[j] reaches xhat[i] in three ways:
    by itself (if i == j), through mu (slope -1/d) and through std:

        dstd/dx[j] = sum_i c[i] * dc[i]/dx[j] / (d * std) = c[j] / (d * std),   as the c[i] sum to 0
        dxhat[i]/dx[j] = ((1 if i == j else 0) - 1/d) / std - c[i] / std^2 * dstd/dx[j]
                       = ((1 if i == j else 0) - 1/d - xhat[i] * xhat[j] / d) / std
    """
    n, d = x.shape
    c = x - x.mean(axis=1, keepdims=True)
    std = np.sqrt((c ** 2).mean(axis=1) + eps)                 # (n,)
    xhat = c / std[:, None]
    y = xhat * weight + bias

    dbias = g.sum(axis=0)                                      # (d,)
    dweight = (g * xhat).sum(axis=0)                           # (d,)
    dxhat = g * weight                                         # (n, d)
    dx = np.empty_like(x)
    for row in range(n):
        jacobian = (np.eye(d) - 1 / d - np.outer(xhat[row], xhat[row]) / d) / std[row]
        dx[row] = dxhat[row] @ jacobian
    return y, dx, dweight, dbias


def attention_by_hand(q, k, v, g):
    """Causal attention of one head, q, k, v (T, c); returns y, dq, dk, dv.

    Position t looks at the positions j = 0 .. t:

        s[t, j] = q[t] . k[j] / sqrt(c)      p[t] = softmax(s[t])      y[t] = sum_j p[t, j] * v[j]

    Going back: v[j] was weighed by p[t, j] in every y[t], and p[t, j] by v[j]; the softmax is the one above;
    s[t, j] is a product of q[t] and k[j], so each gets the other.
    """
    T, c = q.shape
    y, dq, dk, dv = np.zeros_like(v), np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for t in range(T):
        s = np.array([q[t] @ k[j] for j in range(t + 1)]) / np.sqrt(c)
        dp = np.array([g[t] @ v[j] for j in range(t + 1)])
        p, ds = softmax_by_hand(s, dp)
        for j in range(t + 1):
            y[t] += p[j] * v[j]
            dv[j] += p[j] * g[t]
            dq[t] += ds[j] * k[j] / np.sqrt(c)
            dk[j] += ds[j] * q[t] / np.sqrt(c)
    return y, dq, dk, dv


def rms_norm_by_hand(x, weight, g, eps=1e-5):
    """Root mean square normalisation of rows, x (n, d); returns y, dx, dweight.

        rms = sqrt(mean(x^2) + eps)    xhat = x / rms    y = xhat * weight

    As in layer_norm_by_hand, but x[j] reaches xhat[i] in two ways only: by itself (if i == j) and through rms.

        drms/dx[j] = x[j] / (d * rms)
        dxhat[i]/dx[j] = (1 if i == j else 0) / rms - x[i] / rms^2 * drms/dx[j]
                       = ((1 if i == j else 0) - xhat[i] * xhat[j] / d) / rms
    """
    n, d = x.shape
    rms = np.sqrt((x ** 2).mean(axis=1) + eps)                 # (n,)
    xhat = x / rms[:, None]
    y = xhat * weight

    dweight = (g * xhat).sum(axis=0)                           # (d,)
    dxhat = g * weight                                         # (n, d)
    dx = np.empty_like(x)
    for row in range(n):
        jacobian = (np.eye(d) - np.outer(xhat[row], xhat[row]) / d) / rms[row]
        dx[row] = dxhat[row] @ jacobian
    return y, dx, dweight


def swiglu_by_hand(a, b, g):
    """The gated unit of one number each, y = silu(a) * b with silu(a) = a * s; returns silu(a), y, da, db.

        s = 1 / (1 + exp(-a))

    The sigmoid's slope is its value times what it lacks to 1, because with e = exp(-a)

        ds/da = e / (1 + e)^2 = s * e / (1 + e) = s * (1 - s)
        dsilu/da = s + a * ds/da = s + a * s * (1 - s)
    """
    s = 1 / (1 + np.exp(-a))
    silu = a * s
    slope = s + a * s * (1 - s)
    return silu, silu * b, g * b * slope, g * silu


def rotary_by_hand(x, angles, g):
    """Rotary positions of one head, x (T, c), angles (T, c / 2); returns y, dx.

    Columns j and j + c / 2 at position t are a point, which a matrix turns by the angle a = angles[t, j]:

        [y1]   [cos a  -sin a] [x1]
        [y2] = [sin a   cos a] [x2]

    It is linear in x, so the gradient goes back through the transpose, and that is the rotation by -a.
    """
    T, c = x.shape
    y, dx = np.empty_like(x), np.empty_like(x)
    for t in range(T):
        for j in range(c // 2):
            a, point = angles[t, j], [j, j + c // 2]
            rotation = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
            y[t, point] = rotation @ x[t, point]
            dx[t, point] = rotation.T @ g[t, point]
    return y, dx


def grouped_attention_by_hand(q, k, v, g):
    """Grouped-query attention, q (heads, T, c), k and v (kv_heads, T, c); returns y, dq, dk, dv.

    Query head h looks at key/value head h // (heads / kv_heads). Each of these serves a group of query heads, so its
    gradient is a sum over them.
    """
    y, dq, dk, dv = np.empty_like(q), np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
    group = len(q) // len(k)
    for h in range(len(q)):
        y[h], dq[h], dk_h, dv_h = attention_by_hand(q[h], k[h // group], v[h // group], g[h])
        dk[h // group] += dk_h
        dv[h // group] += dv_h
    return y, dq, dk, dv


def head_and_loss_by_hand(x, weight, targets):
    """The head of a language model with its loss, x (n, d), weight (V, d), targets (n,); returns L, dx, dweight.

        z = x weight^T    L = cross-entropy of z and the targets, over the rows that have one (not -100)

    A row without a target is in no term of L, so it gets no gradient. dz is that of cross_entropy_by_hand.
    """
    rows = targets != -100
    L, dz = cross_entropy_by_hand(x[rows] @ weight.T, targets[rows])
    dx = np.zeros_like(x)
    dx[rows] = dz @ weight                                     # (n, d)
    return L, dx, dz.T @ x[rows]                               # dweight (V, d)


def lora_by_hand(x, W0, bias, A, B, s, g):
    """A LoRA layer on rows, x (n, k); returns h, dx, dA, dB. There is no dW0 and no dbias: both are frozen.

        u = x A^T    v = u B^T    h = x W0^T + bias + s v

    Entry by entry, v[n, i] = sum_j u[n, j] B[i, j]; so B[i, j] collects dv[n, i] * u[n, j] over the rows n,
    and u[n, j] collects dv[n, i] * B[i, j] over i. x is in both products, and gets a gradient from each:
    W0 passes the error on although it is not trained.
    """
    u = x @ A.T                     # (n, r)
    v = u @ B.T                     # (n, d)
    h = x @ W0.T + bias + s * v     # (n, d)

    dv = s * g                      # (n, d)
    dB = dv.T @ u                   # (d, r)
    du = dv @ B                     # (n, r)
    dA = du.T @ x                   # (r, k)
    dx = g @ W0 + du @ A            # (n, k)
    return h, dx, dA, dB


def agree(engine, hand):
    np.testing.assert_allclose(engine, hand, rtol=1e-12, atol=1e-12)


def all_agree(y, leaves, hand):
    """What the engine gives for y, and for the gradient of each leaf, is what was derived by hand."""
    for engine, by_hand in zip([y.data, *(t.grad for t in leaves)], hand, strict=True):
        agree(engine, by_hand)


def leaves(*arrays):
    return [Tensor(a, requires_grad=True) for a in arrays]


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_softmax(rng):
    z, g = rng.normal(size=5), rng.normal(size=5)
    t = leaves(z)
    y = ops.softmax(*t)
    y.backward(g)
    all_agree(y, t, softmax_by_hand(z, g))


def test_softmax_with_cross_entropy(rng):
    z, targets = 2 * rng.normal(size=(4, 6)), np.array([5, 0, 2, 2])
    t = leaves(z)
    loss = ops.cross_entropy(*t, targets)
    loss.backward()
    all_agree(loss, t, cross_entropy_by_hand(z, targets))


def test_layer_norm(rng):
    x, g = 3 * rng.normal(size=(4, 5)) + 1, rng.normal(size=(4, 5))
    weight, bias = rng.normal(size=5), rng.normal(size=5)
    t = leaves(x, weight, bias)
    y = ops.layer_norm(*t)
    y.backward(g)
    all_agree(y, t, layer_norm_by_hand(x, weight, bias, g))


def test_rms_norm(rng):
    x, weight, g = 3 * rng.normal(size=(4, 5)) + 1, rng.normal(size=5), rng.normal(size=(4, 5))
    t = leaves(x, weight)
    y = ops.rms_norm(*t)
    y.backward(g)
    all_agree(y, t, rms_norm_by_hand(x, weight, g))


def test_silu_and_swiglu(rng):
    a, b, g = 2 * rng.normal(size=(3, 4, 5))
    t, alone = leaves(a, b), leaves(a)
    y, silu = ops.swiglu(*t), ops.silu(*alone)
    y.backward(g)
    silu.backward(g)
    silu_by_hand, *hand = swiglu_by_hand(a, b, g)
    all_agree(y, t, hand)
    all_agree(silu, alone, (silu_by_hand, swiglu_by_hand(a, 1, g)[2]))


def test_rotary(rng):
    x, g, angles = rng.normal(size=(2, 4, 12)), rng.normal(size=(2, 4, 12)), 3 * rng.normal(size=(4, 3))
    (t,) = leaves(x)
    y = ops.rotary(t, np.cos(angles), np.sin(angles), heads=2)
    y.backward(g)
    for row in range(2):
        for columns in (slice(0, 6), slice(6, 12)):
            by_hand, dx = rotary_by_hand(x[row][:, columns], angles, g[row][:, columns])
            agree(y.data[row][:, columns], by_hand)
            agree(t.grad[row][:, columns], dx)


def test_grouped_attention(rng):
    heads, kv_heads, T, c = 6, 2, 4, 3
    q, k, v, g = (rng.normal(size=(n, T, c)) for n in (heads, kv_heads, kv_heads, heads))

    def side_by_side(x):  # (heads, T, c) -> (T, heads c)
        return np.concatenate(x, axis=-1)

    t = leaves(*map(side_by_side, (q, k, v)))
    y = ops.causal_attention(*t, heads, kv_heads)
    y.backward(side_by_side(g))
    all_agree(y, t, map(side_by_side, grouped_attention_by_hand(q, k, v, g)))


def test_the_head_with_its_loss(rng):
    x, weight, targets = rng.normal(size=(4, 5)), rng.normal(size=(6, 5)), np.array([5, -100, 0, 2])
    t = leaves(x, weight)
    loss = ops.linear_cross_entropy(*t, targets)
    loss.backward()
    all_agree(loss, t, head_and_loss_by_hand(x, weight, targets))


def test_attention(rng):
    q, k, v, g = rng.normal(size=(4, 2, 5, 3))
    t = leaves(q, k, v)
    y = ops.causal_attention(*t)
    y.backward(g)
    for head in range(2):
        hand = attention_by_hand(q[head], k[head], v[head], g[head])
        for engine, by_hand in zip([y.data, *(leaf.grad for leaf in t)], hand, strict=True):
            agree(engine[head], by_hand)


def test_lora_layer(rng):
    d, k, r, alpha = 3, 5, 2, 5
    layer = LoraLinear(Linear(k, d), LoraConfig(r=r, lora_alpha=alpha))
    x, W0, bias, A, B, g = (rng.normal(size=shape) for shape in ((4, k), (d, k), (d,), (r, k), (d, r), (4, d)))
    layer.weight.data, layer.bias.data, layer.lora_A.data, layer.lora_B.data = W0, bias, A, B
    (t,) = leaves(x)
    h = layer(t)
    h.backward(g)
    all_agree(h, [t, layer.lora_A, layer.lora_B], lora_by_hand(x, W0, bias, A, B, alpha / r, g))
    assert layer.weight.grad is None and layer.bias.grad is None


def test_a_whole_attention_layer_with_lora(rng):
    """The pieces put together: projections, two heads, LoRA on q_proj and v_proj; gradients of A, B and x."""
    T, d, heads, r, alpha = 5, 6, 2, 2, 3
    layer = CausalSelfAttention(GPTConfig(vocab_size=2, context=T, d_model=d, n_heads=heads, n_layers=1, d_ff=1,
                                          dtype=np.float64), rng)
    add_lora(layer, LoraConfig(r=r, lora_alpha=alpha))
    for t in layer.parameters():
        t.data = rng.normal(size=t.shape) / 2
    W = {name: t.data for name, t in layer.named_parameters()}
    x, g, s, c = rng.normal(size=(T, d)), rng.normal(size=(T, d)), alpha / r, d // heads

    # Forward to q, k and v; the gradients of lora_by_hand are not used yet.
    def lora(name, g):
        return lora_by_hand(x, *(W[f"{name}.{part}"] for part in ("weight", "bias", "lora_A", "lora_B")), s, g)
    q, v = lora("q_proj", g)[0], lora("v_proj", g)[0]
    k = x @ W["k_proj.weight"].T + W["k_proj.bias"]
    # Back through the output projection, then head by head: head i holds the columns i c .. (i + 1) c.
    dy = g @ W["out_proj.weight"]
    y, dq, dk, dv = (np.empty((T, d)) for _ in range(4))
    for i in range(heads):
        columns = slice(i * c, (i + 1) * c)
        y[:, columns], dq[:, columns], dk[:, columns], dv[:, columns] = attention_by_hand(
            q[:, columns], k[:, columns], v[:, columns], dy[:, columns])
    # x enters three projections, so its gradient is a sum of three.
    _, dx_q, dA_q, dB_q = lora("q_proj", dq)
    _, dx_v, dA_v, dB_v = lora("v_proj", dv)
    dx = dx_q + dk @ W["k_proj.weight"] + dx_v

    (t,) = leaves(x[None])
    out = layer(t)
    out.backward(g[None])
    agree(out.data[0], y @ W["out_proj.weight"].T + W["out_proj.bias"])
    agree(t.grad[0], dx)
    agree(layer.q_proj.lora_A.grad, dA_q)
    agree(layer.q_proj.lora_B.grad, dB_q)
    agree(layer.v_proj.lora_A.grad, dA_v)
    agree(layer.v_proj.lora_B.grad, dB_v)
    assert layer.k_proj.weight.grad is None and layer.q_proj.weight.grad is None
