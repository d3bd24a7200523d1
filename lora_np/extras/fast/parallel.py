"""Data parallelism: a batch is cut into parts, each thread takes loss and gradients of one, and these are added up,
weighted by how many targets each part has. Training on many machines is the same, with a network between the parts."""

from contextlib import contextmanager
from contextvars import copy_context

import numpy as np

from ...data import count_targets
from ...graph import backpropagate
from ...nn import dropout_rng
from ...optim import for_each
from ...support.checks import check_int
from ...tensor import node
from .blas import one_blas_thread


@contextmanager
def data_parallel(loss, threads, say=print):
    """Yields a loss function that does what `loss` does, a part of the batch in each thread, with one BLAS thread each.

    loss: (model, x, y) -> a Tensor, the mean over the targets y that are not -100. Its gradients are computed with it,
    and backward hands out their sum: that of one thread to rounding, and the same each time; dropout has a generator
    for each part. An optimizer's step is shared out, too. With one thread, or no way to set BLAS's: `loss` itself.
    """
    check_int("data_parallel", threads=threads)
    with one_blas_thread(threads > 1, lambda why: say(f"threads=1: {why}")) as alone:
        if not alone:
            yield loss
            return
        from concurrent.futures import ThreadPoolExecutor  # which loads logging and more, for this alone
        with ThreadPoolExecutor(threads - 1) as pool:
            def run(function, parts):  # function(*part) of each, the first in this thread
                others = [pool.submit(copy_context().run, function, *part) for part in parts[1:]]
                return [copy_context().run(function, *parts[0]), *(other.result() for other in others)]
            before, rngs = for_each.get(), [np.random.default_rng(i) for i in range(threads)]
            for_each.set(lambda work, items: run(lambda part: list(map(work, part)), [
                (items[i::threads],) for i in range(min(threads, len(items)))]))
            try:
                yield lambda model, x, y: _shared_out(loss, run, rngs, model, x, y)
            finally:
                for_each.set(before)


def _shared_out(loss, run, rngs, model, x, y):
    def part(rng, share, x, y):  # (share times the loss of a part, {leaf: its gradient})
        dropout_rng.set(rng)
        value = loss(model, x, y)
        share = np.full_like(value.data, share)
        return share * value.data, backpropagate(value._node or value, share) if value.requires_grad else {}

    n = max(1, min(len(rngs), len(x)))
    cuts = [slice(len(x) * i // n, len(x) * (i + 1) // n) for i in range(n)]
    counts = [count_targets(x[cut], y[cut]) for cut in cuts]
    parts = [(rng, m / sum(counts), x[cut], y[cut]) for rng, m, cut in zip(rngs, counts, cuts, strict=False) if m]
    results, sums = run(part, parts or [(rngs[0], 1, x, y)]), {}  # without any target, the loss itself says so
    for leaf, g in (pair for _, gradients in results for pair in gradients.items()):
        sums[leaf] = np.add(sums[leaf], g, out=g) if leaf in sums else g  # which nobody else holds
    return node("shared out", sum(value for value, _ in results), *(
        (leaf, lambda g, d=d: d if g == 1 else g * d) for leaf, d in sums.items()))
