"""Changes of a solution that make no difference, for survivors.py: {function: {change: why}}."""

FLOAT = "a number of NumPy's is a number too"
ORDER = "neither needs what the other does"

EQUAL = {
    "unbroadcast": {
        "G.ndim > len(shape) -> G.ndim != len(shape)": "it never has fewer axes",
        "n == 1 -> n <= 1": "no axis has a size of 0",
    },
    "central_difference": {
        "np.zeros(x.shape) -> np.ones(x.shape)": "every entry is written over",
        "x -> slopes #2": "both have one shape",
        "x -> slopes #3": "both have one shape",
    },
    "relative_error": {
        "np.maximum(np.abs(a), np.abs(n)) -> np.maximum(np.abs(n), np.abs(a))": "the larger is the larger",
        "float((np.abs(a - n) / np.where(size > 0, size, 1)).max()) -> "
        "(np.abs(a - n) / np.where(size > 0, size, 1)).max()": FLOAT,
        "a - n -> n - a": "abs follows",
        "size > 0 -> size != 0": "a size is never below 0",
        "1 -> 2": "where it is used, 0 is divided by it",
        "1 -> -1": "where it is used, 0 is divided by it",
    },
    "best_step": {
        "(f(x + h) - f(x - h)) / (2 * h) - slope -> slope - (f(x + h) - f(x - h)) / (2 * h)": "abs follows",
    },
    "train": {
        "for p in parameters: before value = loss()": ORDER,
        "losses.append(value.item()) before for p in parameters:": ORDER,
        "None -> 0": "0 plus a gradient is the gradient",
    },
    "causal_mask": {"i[None, :] -> i": "broadcasting puts the axis there"},
    "attention_weights": {
        "Q -> K #2": "Q and K have one shape",
        "Q -> K #3": "Q and K have one shape",
        "1 -> -1": "Q has two axes",
    },
    "low_rank": {
        "np.linalg.svd(D, full_matrices=False) -> np.linalg.svd(D)": "the first r columns and rows are the same",
        "False -> True": "the first r columns and rows are the same",
    },
    "effective_rank": {
        "int(np.argmax(kept >= share)) -> np.argmax(kept >= share)": FLOAT,
        "s -> D #2": "the squared singular values and the squared entries have one sum",
    },
    "largest_rank": {"0 -> -1": "rank 0 saves everything, so the first turn makes it 0"},
    "adapted": {
        "zip(paths, last, strict=True) -> zip(paths, last)": "both have one length",
        "True -> False": "both have one length",
    },
    "who_trains": {"('lora_A', 'lora_B') -> ('lora_B', 'lora_A')": "in either order it holds both"},
    "load": {
        "for name, array in adapter['parameters'].items(): before if adapter['base'] != model['base']:":
            "the same error comes for another reason",
    },
    "floor": {
        "float((np.linalg.svd(D, compute_uv=False)[r:] ** 2).sum()) -> "
        "(np.linalg.svd(D, compute_uv=False)[r:] ** 2).sum()": FLOAT,
    },
    "set_merged": {
        "update = layer['alpha'] / len(layer['A']) * layer['B'] @ layer['A'] before if not merged:": ORDER,
        "dict(layer) -> layer": "where nothing changes, the layer itself has the right entries too",
    },
    "forward": {"scale = layer['alpha'] / len(layer['A']) before if layer['W0'] is not None:": ORDER},
    "adamw_step": {
        "square = 0.999 * square + 0.001 * g ** 2 before mean = 0.9 * mean + 0.1 * g": ORDER,
        "corrected_mean = mean / (1 - 0.9 ** t) before square = 0.999 * square + 0.001 * g ** 2": ORDER,
        "corrected_square = square / (1 - 0.999 ** t) before corrected_mean = mean / (1 - 0.9 ** t)": ORDER,
    },
    "completion_targets": {"x -> y #2": "x and y have one length", "y -> x #2": "x and y have one length"},
    "unpack_q4_1": {
        "np.concatenate([codes & 15, codes >> 4], axis=1) -> np.concatenate([codes & 15, codes >> 4], axis=-1)":
            "codes has two axes",
        "codes & 15 -> 15 & codes": "& may be turned round",
    },
    "rms_norm": {
        "(g * xhat).sum(axis=0) -> (g * xhat).sum(axis=-2)": "x has two axes",
        "(x ** 2).mean(axis=1, keepdims=True) -> (x ** 2).mean(keepdims=True, axis=-1)": "x has two axes",
        "(dxhat * xhat).mean(axis=1, keepdims=True) -> (dxhat * xhat).mean(keepdims=True, axis=-1)": "x has two axes",
        "1 -> -1": "x has two axes",
        "1 -> -1 #2": "x has two axes",
    },
}
