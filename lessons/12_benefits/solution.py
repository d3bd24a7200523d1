"""Exercise 12: merging, running, and what an adapter costs.

A layer is a dict: "W" (d, k), the weight that is used; "A" (r, k), "B" (d, r) and "alpha"; and "W0": None, or, while
the layer is merged, the array that W was before. Its update is (alpha / r) B A.
Check your work with: python -m lessons check 12
"""


def set_merged(layer, merged):
    """A new layer, merged or not as asked for; its other entries are those of the given one, which stays as it is.

    Merged: "W" is W0 plus the update and "W0" the array of before. Merging a merged layer changes nothing.
    Not merged: "W" is that very array again, bit for bit, and "W0" is None.

    Example: merging W = [[1.0]], A = [[2.0]], B = [[3.0]], alpha = 1 gives W = [[7.0]] and W0 = [[1.0]].
    """
    # <solution>
    if merged == (layer["W0"] is not None):
        return dict(layer)
    if not merged:
        return {**layer, "W": layer["W0"], "W0": None}
    update = layer["alpha"] / len(layer["A"]) * layer["B"] @ layer["A"]
    return {**layer, "W": layer["W"] + update, "W0": layer["W"]}
    # </solution>


def forward(layer, x, training, mask):
    """h (n, d) for x (n, k). mask: (n, k), the dropout of LoRA: in training, A gets x * mask in the place of x.

    Merged, W does all the work. Raises RuntimeError where a merged layer is trained: A and B would get no gradient.

    Example: with W = [[1.0]], A = [[2.0]], B = [[3.0]], alpha = 1, x = [[1.0]] and mask = [[0.0]], not merged: h is
    [[1.0]] in training and [[7.0]] otherwise.
    """
    # <solution>
    if layer["W0"] is not None:
        if training:
            raise RuntimeError("merged, so A and B are not used: unmerge before training")
        return x @ layer["W"].T
    scale = layer["alpha"] / len(layer["A"])
    return x @ layer["W"].T + scale * (x * mask if training else x) @ layer["A"].T @ layer["B"].T
    # </solution>


def costs(d, k, r, merged):
    """(multiply-adds for a token, bytes of the adapter's file) of a layer d x k with an update of rank r.

    W x takes d k multiply-adds. Unmerged, A x and then B times that come on top; merged, nothing does.
    The file holds A and B, merged or not, at 4 bytes a number.

    Example: costs(4096, 4096, 8, False) is (16842752, 262144).
    """
    # <solution>
    adapter = r * (d + k)
    return d * k + (0 if merged else adapter), 4 * adapter
    # </solution>
