"""What gradcheck measures with: slopes by central differences, and how far off they may be."""

import numpy as np

from ..graph import backpropagate, no_grad

STEP, RTOL = 1e-6, 1e-5
EPS = 2.0 ** -50  # four times the rounding of one operation in float64, relative to its result


def upstream_gradients(rng, y):
    """Gradients dL/dy to check under, a row each: random, once for each layout in memory; with the other sign, for
    outputs of one order of magnitude at a time, as the large would drown the small; large, beside zeros; small."""
    # No |g| near 0, where it would hide an error, and none near 1, where ignoring g would go unseen.
    g = (rng.choice([-1.0, 1.0], y.shape) * rng.uniform(1.5, 2.5, y.shape)).ravel()
    size = np.abs(y.ravel())
    largest = size[np.isfinite(size)].max(initial=0) or 1
    order = np.log10(np.where(np.isfinite(size) & (size > 0), size / largest, 1)) // 4
    return np.array([g, g, g, g, *(np.where(order == n, -g, 0) for n in np.unique(order)),
                     np.where(np.arange(g.size) % 2, 0, 1000 * g), np.full(g.shape, -0.001)])


def analytic_gradients(y, G, leaves):
    """{name: the engine's dL/dt for each row of G, flat} of the leaves {name: t}."""
    found = [backpropagate(y._node or y, _laid_out(i, g.reshape(y.shape)), retain_graph=True) if y.requires_grad else {}
             for i, g in enumerate(G)]
    return {name: np.array([d.get(t, np.zeros(t.shape)) for d in found]).reshape(len(G), -1)
            for name, t in leaves.items()}


def _laid_out(i, g):
    """A copy of g that lies in memory as numbers that were broadcast, slices, transposed or reversed arrays do."""
    if g.size and np.all(g == g.flat[0]):
        return np.broadcast_to(g.flat[0], g.shape)
    if i == 1:
        return np.repeat(g[..., None], 2, -1)[..., 0]
    if i == 2:
        return np.flip(np.flip(g).copy())
    return g.copy("F" if i == 3 else "C")


def excess(a, n, error):
    """|a - n| in units of what is allowed; nan is more than anything."""
    with np.errstate(all="ignore"):
        allowed = RTOL * np.abs(n) + error + np.finfo(float).tiny
        return np.nan_to_num(np.abs(a - n) / allowed, nan=np.inf, posinf=np.inf)


class Slopes:
    """The slopes of L = sum(g * forward()), for each row g of G, along steps of a leaf t: t.flat[at] + step * v.

    y: forward() where nothing is moved. failure: the last error that forward raised away from there.
    """

    def __init__(self, forward, t, y, G):
        self.forward, self.t, self.y, self.shape, self.G, self.failure = forward, t, y.ravel(), y.shape, G, None

    def beside(self, a, chosen):
        """(n, error), each like a (chosen, gradients): the slopes in each t.flat[i], and how far off they may be.

        A central difference serves where it is near a. Others are measured closer, from the worst on, until a proves
        wrong; where all drown in rounding, until the largest does. Those that are left have an infinite error.
        """
        n, rounding = np.array([self.central(i) for i in chosen]).reshape(-1, 2, len(self.G)).swapaxes(0, 1)
        largest = np.fmax.reduce(np.fmax(np.abs(a), np.abs(n)), initial=0)
        error, drowned = np.minimum(rounding, 1e-6 * largest), np.all(rounding > 1e-3 * largest)
        doubtful = drowned | np.any(excess(a, n, error) > 1, 1)
        order = [j for j in np.lexsort(-(np.abs(a) if drowned else excess(a, n, rounding)).T[::-1]) if doubtful[j]]
        error[order] = np.inf
        for j in order:
            n[j], error[j] = self.closer(chosen[j])
            if excess(a[j], n[j], error[j]).max() > 1 or (drowned and not np.any(np.abs(n) > 30 * error)):
                break
        return n, error

    def central(self, at, v=1.0):
        """(the central difference with a step of 1e-6, what rounding may add to it), for each g."""
        step = STEP * max(1, np.abs(self.t.data.flat[at]).max())
        (up, right), (down, left) = self._moved(at, v, step), self._moved(at, v, -step)
        changed = np.flatnonzero(up != down)
        G, up, down = self.G[:, changed], up[changed], down[changed]
        with np.errstate(all="ignore"):
            return G @ (up - down) / (right - left), EPS * np.abs(G) @ (np.abs(up) + np.abs(down)) / (right - left)

    def closer(self, at, v=1.0):
        """(the slope, how far off it may be), for each g, by the best of many steps: each a quarter of the last.

        Two central differences D give the slope R without the error that falls with the square of the step
        (Richardson). What is left of it is less than what is between them; rounding shows in what smaller steps
        miss; and at a kink, where right and left differ however small the step, any slope between the two is right.
        """
        x = np.abs(self.t.data.flat[at]).max()
        large, small = 64 * max(1, x), 2.0 ** -50 * min(1, x) or 2.0 ** -80
        h = large * 4.0 ** -np.arange(np.ceil(np.log2(large / small) / 2))
        up, right, down, left = map(np.array, zip(*((*self._moved(at, v, step), *self._moved(at, v, -step))
                                                    for step in h), strict=True))
        right, left, finite = right[:, None], left[:, None], np.where(np.isfinite(self.y), np.abs(self.y), 0)
        with np.errstate(all="ignore"):
            lost = (up != down) & ~np.isfinite(up - down)
            moved = np.any((up != down) & ~lost, 0)
            up, down, y, G = up[:, moved], down[:, moved], self.y[moved], self.G[:, moved].T
            D = (up - down) @ G / (right - left)  # (steps, gradients)
            D[lost.any(1)] = np.nan
            R = (16 * D[1:] - D[:-1]) / 15
            kink = (up - y) @ G / right - (y - down) @ G / -left
            rounding = EPS * (np.abs(up) + np.abs(down) + finite.max(initial=0)) @ np.abs(G) / (right - left)
            ratio = np.tril(np.ones((len(h), len(h) - 1)), -2).T * h / h[1:, None]  # 0 for steps that are not smaller
            missed = np.nan_to_num(np.abs(D - R[:, None]) * ratio[..., None], nan=0, posinf=0).max(1)
            error = 3 * (np.abs(D[1:] - D[:-1]) / 15 + rounding[1:] + missed) + np.abs(4 * kink[1:] - kink[:-1]) / 6
            error = np.nan_to_num(error + EPS * np.abs(self.G) @ finite / max(1, x), nan=np.inf, posinf=np.inf)
            relative = np.nan_to_num(error / np.abs(R), nan=np.inf, posinf=np.inf)
        told = relative.min(0) < 0.03
        best, each = np.where(told, relative.argmin(0), error.argmin(0)), np.arange(len(self.G))
        hidden = EPS * np.abs(G).sum(0) * finite.max(initial=0) / (STEP * max(1, x))  # what the steps cannot show
        return R[best, each], np.where(told, error[best, each], np.maximum(error[best, each], hidden))

    def _moved(self, at, v, step):
        """(forward() where t.flat[at] is moved by step * v, how long the step was after rounding)."""
        before = self.t.data
        after = before.copy()
        after.flat[at] += step * v
        self.t.replace_array(after)
        try:
            with no_grad(), np.errstate(all="ignore"):
                y = self.forward().data.ravel()
        except Exception as error:  # the step leaves what forward takes
            y, self.failure = np.empty(0), error
        finally:
            self.t.replace_array(before)
        return (y if y.shape == self.y.shape else np.full(self.y.shape, np.nan),
                np.dot(after.flat[at] - before.flat[at], v) / np.dot(v, v))
