"""How much memory training needs, on paper: full fine-tuning and LoRA, for models of any size.

Of GPT-3 175B the LoRA paper (section 4.2) says: checkpoint 350 GB, with r = 4 on q and v 35 MB; training 1.2 TB,
with LoRA 350 GB. Here, in float16 with AdamW and without activations: 349.2 GB, 37.7 MB (36.0 MiB); 1.40 TB
(1.27 TiB, or 1.05 TB if gradients are used up layer by layer), 349.4 GB. It does not say what its 1.2 TB counts.
"""

from dataclasses import dataclass

from ..lora import LoraConfig
from ..support.checks import check_int, expect
from ..transformer import GPTConfig
from .fast.attention import BLOCK

BYTES = {"float64": 8, "float32": 4, "float16": 2, "mixed": 2}  # of a weight, a gradient, an activation
STATES = {"adamw": 2, "momentum": 1, "sgd": 0}  # numbers that an optimizer keeps for each trainable parameter
MODELS = {"125M": (12, 768, 12), "350M": (24, 1024, 16), "1.3B": (24, 2048, 32), "2.7B": (32, 2560, 32),
          "6.7B": (32, 4096, 32), "13B": (40, 5120, 40), "30B": (48, 7168, 56), "66B": (64, 9216, 72),
          "175B": (96, 12288, 96)}  # layers, d_model, heads: OPT's family (Zhang et al. 2022, table 1), GPT-3's sizes


@dataclass(frozen=True)
class Budget:
    """Bytes, and what each line assumes. As text: a table of them.

    weights, gradients, optimizer, activations: held during training; `training` is their sum. file: what is
    saved. trainable, parameters: counts; parameters includes A and B.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    file: int
    trainable: int
    parameters: int
    assumptions: dict

    @property
    def training(self):
        """Bytes held during training."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def __str__(self):
        return "\n".join(f"{name:<12}{readable(getattr(self, name)):>10}   {why}"
                         for name, why in self.assumptions.items())


def memory_budget(config, targets=("q_proj", "v_proj"), r=8, precision="float32", optimizer="adamw", batch=1,
                  context=None):
    """The Budget of training a GPT of this config.

    targets: what LoRA adapts with rank r; () for full fine-tuning. precision: float64, float32 or float16 for
    everything, or mixed: float16, but trainable parameters and optimizer states in float32 as well. optimizer:
    adamw, momentum or sgd. batch: sequences at a time, of `context` tokens (by default the config's longest).
    Raises ValueError for a name that is none of these and for sizes that no such model can have.
    """
    expect("memory_budget", config, GPTConfig)
    targets = LoraConfig(r=r, target_modules=targets).target_modules if targets else ()
    shapes = linear_shapes(config)
    for what, value, choices in (("precision", precision, BYTES), ("optimizer", optimizer, STATES),
                                 *(("target", target, shapes) for target in targets)):
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"memory_budget: {what} {value!r} is none of {', '.join(choices)}")
    if targets and r > (most := min(min(shapes[target]) for target in targets)):
        raise ValueError(f"memory_budget: r={r} is more than {most}, the highest rank of a targeted weight")
    T = config.context if context is None else context
    check_int("memory_budget", batch=batch, context=T)
    if config.context < T:
        raise ValueError(f"memory_budget: context must be at most the model's {config.context}, got {T}")
    size, states = BYTES[precision], STATES[optimizer]
    base = base_parameters(config)
    adapter = config.n_layers * sum(r * sum(shapes[target]) for target in targets)
    trainable = adapter or base
    mixed = precision == "mixed"
    each = 4 * (states + 1) if mixed else size * states
    kept = batch * activations(config, targets, r, T, size)
    return Budget(
        weights=(base + adapter) * size, gradients=trainable * size, optimizer=trainable * each, activations=kept,
        file=trainable * size, trainable=trainable, parameters=base + adapter,
        assumptions={
            "weights": f"{base + adapter:,} parameters, {size} bytes each ({'float16' if mixed else precision})",
            "gradients": f"{trainable:,} trainable parameters, {size} bytes each, all at the same time",
            "optimizer": f"{each} bytes for each of them: {states} numbers"
                         + ", and the parameter itself in float32" * mixed,
            "activations": f"what the backward pass needs of {batch} x {T} tokens, nothing computed twice",
            "training": "the sum; without the temporaries of the one operation at work",
            "file": f"the {trainable:,} trained parameters, {size} bytes each"})


def linear_shapes(config):
    """{name: (d_out, d_in)} of the Linear layers of one block."""
    d, hidden = config.d_model, config.d_ff
    return {"q_proj": (d, d), "k_proj": (d, d), "v_proj": (d, d), "out_proj": (d, d), "fc1": (hidden, d),
            "fc2": (d, hidden)}


def base_parameters(config):
    """The number of parameters of a GPT: embeddings, blocks (matrices, biases, two LayerNorms), last LayerNorm."""
    d = config.d_model
    block = sum(d_out * d_in + d_out for d_out, d_in in linear_shapes(config).values()) + 4 * d
    return (config.vocab_size + config.context) * d + config.n_layers * block + 2 * d


def activations(config, targets, r, T, size):
    """Bytes that the engine keeps for the backward pass of a sequence of length T.

    The input of a weight is kept only if that weight is trained. The rest is kept with LoRA too: through it the
    gradient reaches the adapters below.
    """
    d, hidden, heads = config.d_model, config.d_ff, config.n_heads
    full = not targets

    def trained(*names):
        return full or any(name in targets for name in names)

    token = size * (
        2 * d  # the normalised input of either LayerNorm
        + 4 * d + heads * (T > BLOCK)  # attention: q, k, v, its output; in blocks, also the sum of the weights
        + d * trained("q_proj", "k_proj", "v_proj") + d * trained("fc1")
        + hidden * trained("fc2")  # the inputs of what is trained; that of out_proj is attention's output
        + r * len(targets)  # A x, the input of B
    ) + hidden  # which hidden units were positive: a byte each
    last = size * 2 * d  # the last LayerNorm, and its gradient from the head and the loss, which are computed together
    return config.n_layers * (T * token + size * heads * attention_weights(T)) + T * last


def attention_weights(T):
    """How many weights attention computes and keeps for a head and T positions: from each block of queries to what
    lies before its end. That is near T^2 / 2 for a long sequence."""
    blocks = [(start, min(BLOCK, T - start)) for start in range(0, T, BLOCK)]
    return sum(rows * (start + rows) for start, rows in blocks)


def model_config(name):
    """The GPTConfig of one of MODELS: 50,272 tokens, 2,048 positions, d_ff = 4 d_model."""
    if name not in MODELS:
        raise ValueError(f"model_config: there is no model {name!r}; there are {', '.join(MODELS)}")
    layers, d, heads = MODELS[name]
    return GPTConfig(vocab_size=50272, context=2048, d_model=d, n_heads=heads, n_layers=layers, d_ff=4 * d)


def readable(n):
    """A number of bytes in decimal units: 349.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 999.95:
            return f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.2f} TB"
