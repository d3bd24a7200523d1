"""The same training step without an engine: forward, backward and AdamW written out in NumPy.

This is about the least that NumPy can do, and what an engine saves a person from writing. Each line of
`forward` has its counterpart in `backward`, in reverse order. What backward will need is kept by hand, and what
nobody needs, such as the gradient of a frozen weight, has to be left out by hand.

x: (N, d), the N = B * T positions of a batch as rows. g: dL/d(what forward had there), of the same shape.
"""

import numpy as np

from .. import work

VERSION = f"NumPy {np.__version__}"
CHUNK = 1 << 16  # elements that AdamW updates at a time: few enough to stay in the processor's cache
BLOCK = 32  # queries that attention takes at a time, each block against the keys up to its end


class Contender:
    def __init__(self, size, weights, mode):
        self.size, self.mode = size, mode
        # What is trained lies in one array and its gradients in another: w and dw hold views of their parts.
        names = [name for name in weights if work.is_trained(name, mode)]
        self.theta = np.concatenate([weights[name].ravel() for name in names])
        self.gradient, self.m, self.v = (np.zeros_like(self.theta) for _ in range(3))
        ends = np.cumsum([weights[name].size for name in names])[:-1]
        self.w, self.dw = dict(weights), {}
        for views, flat in (self.w, self.theta), (self.dw, self.gradient):
            for name, part in zip(names, np.split(flat, ends), strict=True):
                views[name] = part.reshape(weights[name].shape)
        self.t, self.dtype = 0, self.theta.dtype
        self.ones, whole = np.ones((size.context, 1), self.dtype), np.tri(size.context, dtype=self.dtype)
        self.masks = {start: np.ascontiguousarray(whole[start:start + BLOCK, :start + BLOCK])
                      for start in range(0, size.context, BLOCK)}
        self.average = np.full(size.d_model, 1 / size.d_model, self.dtype)

    # Each layer, forward and backward. backward stores the gradients of what is trained, and returns that of x.

    def linear(self, name, x):
        """y = x W^T + b, and with LoRA + u B^T where u = s x A^T."""
        y = x @ self.w[f"{name}.weight"].T
        y += self.w[f"{name}.bias"]
        if f"{name}.lora_A" in self.w:
            u = x @ self.w[f"{name}.lora_A"].T  # (N, r)
            u *= self.size.scaling
            y += u @ self.w[f"{name}.lora_B"].T
            return y, (x, u)
        return y, (x if f"{name}.weight" in self.dw else None, None)

    def linear_backward(self, name, g, kept, need_x=True):
        x, u = kept
        if f"{name}.weight" in self.dw:
            np.matmul(g.T, x, out=self.dw[f"{name}.weight"])
            np.sum(g, axis=0, out=self.dw[f"{name}.bias"])
        if u is not None:
            np.matmul(g.T, u, out=self.dw[f"{name}.lora_B"])
            du = g @ self.w[f"{name}.lora_B"]
            du *= self.size.scaling
            np.matmul(du.T, x, out=self.dw[f"{name}.lora_A"])
        if not need_x:
            return None
        dx = g @ self.w[f"{name}.weight"]
        if u is not None:
            dx += du @ self.w[f"{name}.lora_A"]
        return dx

    def norm(self, name, x):
        """xhat = (x - mean) / std; y = xhat * weight + bias."""
        xhat = x - x.dot(self.average)[:, None]
        rstd = 1 / np.sqrt(np.vecdot(xhat, xhat) / x.shape[1] + 1e-5)[:, None]
        xhat *= rstd
        y = xhat * self.w[f"{name}.weight"]
        y += self.w[f"{name}.bias"]
        return y, (xhat, rstd)

    def norm_backward(self, name, g, kept):
        xhat, rstd = kept
        if f"{name}.weight" in self.dw:
            np.einsum("nd,nd->d", g, xhat, out=self.dw[f"{name}.weight"])
            np.sum(g, axis=0, out=self.dw[f"{name}.bias"])
        dx = g * self.w[f"{name}.weight"]
        along = np.vecdot(dx, xhat)[:, None] / g.shape[1]
        dx -= dx.dot(self.average)[:, None]
        dx -= xhat * along
        dx *= rstd
        return dx

    def split(self, x):
        """(N, n_heads * c) -> (B, heads, T, c), a view."""
        return x.reshape(-1, self.size.context, self.size.n_heads, x.shape[1] // self.size.n_heads).swapaxes(1, 2)

    def attention(self, q, k, v):
        """y = softmax(q k^T / sqrt(d_head) + mask) v, with E = exp(scores) and total its row sums, in blocks.

        The scores are small here, so that exp needs no shift: not to be copied for a model that learns.
        """
        q = q * (q.shape[1] // self.size.n_heads) ** -0.5
        y, total, blocks = np.empty_like(q), np.empty((len(q), self.size.n_heads), self.dtype), []
        Q, K, V, Y, Total = map(self.split, (q, k, v, y, total))
        KT = np.ascontiguousarray(K.swapaxes(2, 3))
        for start in range(0, self.size.context, BLOCK):
            stop = min(start + BLOCK, self.size.context)
            E = Q[:, :, start:stop] @ KT[..., :stop]  # (B, heads, up to BLOCK, stop)
            np.exp(E, out=E)
            E *= self.masks[start]
            Total[:, :, start:stop] = E @ self.ones[:stop]
            np.matmul(E, V[:, :, :stop], out=Y[:, :, start:stop])
            blocks.append((start, stop, E))
        Y /= Total
        return y, (Q, K, V, Y, Total, blocks)

    def attention_backward(self, g, kept, need_k=True):
        Q, K, V, Y, Total, blocks = kept
        # G = [g / total, D / total] by [v, -1]^T is (g v^T - D) / total, where D = sum(g * y).
        B, heads, T, c = V.shape
        G = self.split(np.empty((len(g), heads * (c + 1)), self.dtype))
        np.divide(self.split(g), Total, out=G[..., :c])
        G[..., c] = np.einsum("bhtc,bhtc->bht", G[..., :c], Y)
        VT = np.full((B, heads, c + 1, T), -1, self.dtype)
        VT[:, :, :c] = V.swapaxes(2, 3)
        dq, dk, dv = np.empty_like(g), None, None
        for start, stop, E in reversed(blocks):  # the last block saw all keys, the others fewer
            dS = G[:, :, start:stop] @ VT[..., :stop]
            dS *= E
            np.matmul(dS, K[:, :, :stop], out=self.split(dq)[:, :, start:stop])
            dv = self.plus(dv, E, G[:, :, start:stop, :c])
            if need_k:
                dk = self.plus(dk, dS, Q[:, :, start:stop])
        dq *= c ** -0.5
        return dq, dk.reshape(g.shape) if need_k else None, dv.reshape(g.shape)

    def plus(self, so_far, a, b):
        """so_far (B, T, d), None at first, plus a^T b of each head, which may lack the last positions."""
        B, heads, _, positions = a.shape
        part = np.empty((B, positions, self.size.d_model), self.dtype)
        np.matmul(a.swapaxes(2, 3), b, out=part.reshape(B, positions, heads, -1).swapaxes(1, 2))
        if so_far is None:
            return part
        so_far[:, :positions] += part
        return so_far

    # The model.

    def forward(self, ids):
        w, layers = self.w, []
        x = (w["embed_tokens.weight"][ids] + w["embed_positions.weight"]).reshape(ids.size, -1)  # (N, d)
        for i in range(self.size.n_layers):
            at, kept = f"layers.{i}", {}
            n, kept["norm1"] = self.norm(f"{at}.self_attn_layer_norm", x)
            q, kept["q"] = self.linear(f"{at}.self_attn.q_proj", n)
            k, kept["k"] = self.linear(f"{at}.self_attn.k_proj", n)
            v, kept["v"] = self.linear(f"{at}.self_attn.v_proj", n)
            y, kept["attention"] = self.attention(q, k, v)
            y, kept["out"] = self.linear(f"{at}.self_attn.out_proj", y)
            x = x + y
            n, kept["norm2"] = self.norm(f"{at}.final_layer_norm", x)
            h, kept["fc1"] = self.linear(f"{at}.fc1", n)
            np.maximum(h, 0, out=h)
            kept["relu"] = h > 0
            y, kept["fc2"] = self.linear(f"{at}.fc2", h)
            x = x + y
            layers.append(kept)
        n, last = self.norm("final_layer_norm", x)
        return n @ w["embed_tokens.weight"].T, (ids, layers, n, last)

    def backward(self, g, kept):
        ids, layers, n, last = kept
        w, dw, full = self.w, self.dw, self.mode == "full"
        if full:
            np.matmul(g.T, n, out=dw["embed_tokens.weight"])
        g = self.norm_backward("final_layer_norm", g @ w["embed_tokens.weight"], last)
        for i in reversed(range(self.size.n_layers)):
            at, kept, below = f"layers.{i}", layers.pop(), full or i > 0  # below: is anything trained below this layer?
            dh = self.linear_backward(f"{at}.fc2", g, kept["fc2"])
            dh *= kept["relu"]
            dn = self.linear_backward(f"{at}.fc1", dh, kept["fc1"])
            g += self.norm_backward(f"{at}.final_layer_norm", dn, kept["norm2"])
            dy = self.linear_backward(f"{at}.self_attn.out_proj", g, kept["out"])
            dq, dk, dv = self.attention_backward(dy, kept["attention"], below)
            dn = self.linear_backward(f"{at}.self_attn.q_proj", dq, kept["q"], below)
            dn_v = self.linear_backward(f"{at}.self_attn.v_proj", dv, kept["v"], below)
            if below:
                dn += dn_v
                dn += self.linear_backward(f"{at}.self_attn.k_proj", dk, kept["k"])
                g += self.norm_backward(f"{at}.self_attn_layer_norm", dn, kept["norm1"])
        if full:
            np.sum(g.reshape(*ids.shape, -1), axis=0, out=dw["embed_positions.weight"])
            places = ids.ravel()[:, None] * g.shape[1] + np.arange(g.shape[1])  # (N, d): where each number of g goes
            np.add.at(dw["embed_tokens.weight"].reshape(-1), places.ravel(), g.ravel())

    def loss_and_gradients(self, x, y):
        logits, kept = self.forward(x)
        rows, y = np.arange(y.size), y.ravel()
        logits -= logits.max(axis=1, keepdims=True)
        picked = logits[rows, y]
        p = np.exp(logits, out=logits)
        total = p.sum(axis=1)
        loss = (np.log(total) - picked).mean()
        p /= (total * self.dtype.type(y.size))[:, None]
        p[rows, y] -= self.dtype.type(1 / y.size)
        self.backward(p, kept)
        return loss, self.dw

    def step(self, x, y):
        loss, _ = self.loss_and_gradients(x, y)
        self.move()
        return loss

    def move(self):
        """A step of AdamW with the gradients that are there, which it overwrites."""
        self.t += 1
        (beta1, beta2), t = work.BETAS, self.t
        for i in range(0, len(self.theta), CHUNK):
            theta, g, m, v = (flat[i:i + CHUNK] for flat in (self.theta, self.gradient, self.m, self.v))
            m *= beta1
            m += (1 - beta1) * g
            g *= g
            g *= 1 - beta2
            v *= beta2
            v += g
            np.sqrt(v, out=g)
            g *= (1 - beta2 ** t) ** -0.5
            g += work.EPS
            np.divide(m, g, out=g)
            g *= work.LEARNING_RATE / (1 - beta1 ** t)
            theta -= g
