"""What a class of beginners types by mistake: for each call the kind of error, words that help, and nothing changed.

Each operation's own shape errors are in test_ops.py, and those of files in test_checkpoint.py; here is the rest of
what a user can reach.
"""

import signal
from types import SimpleNamespace

import numpy as np
import pytest

import lessons.__main__ as lessons_command
from lora_np import (
    GPT,
    GPTConfig,
    LoraConfig,
    Tensor,
    checkpoint,
    data,
    generate,
    gradcheck,
    lora,
    nn,
    ops,
    optim,
    trace,
    train,
)
from lora_np.byhand import __main__ as byhand_command
from lora_np.extras import adapters, budget, variants
from lora_np.trace.draw import draw_graph
from tests.helpers import small_gpt

pytestmark = pytest.mark.filterwarnings("error")
A, M, IDS = np.arange(3.0), np.ones((2, 3)), np.arange(40) % 7
SIZES = {"vocab_size": 7, "context": 5, "d_model": 6, "n_heads": 2, "n_layers": 1, "d_ff": 9}
RAGGED = [[0], [1, 2]]


def world():
    """The objects that a row may touch: o.t, o.model, o.lora with its optimizer, and a model merged and adapted."""
    o = SimpleNamespace(t=Tensor(M, requires_grad=True), p=Tensor(A, requires_grad=True), model=small_gpt())
    o.lora, o.merged = small_gpt(), small_gpt().eval()
    for model in (o.lora, o.merged):
        lora.add_lora(model, LoraConfig(r=2))
        for layer in lora.lora_layers(model).values():
            layer.lora_B.data = np.ones(layer.lora_B.shape)
    lora.merge(o.merged)
    o.first = Tensor([1.0, 2.0], requires_grad=True)
    o.sgd, o.adamw = optim.SGD([o.first, o.p], 0.1, momentum=0.9), optim.AdamW([o.first, o.p], 0.1)
    o.steps = optim.AdamW(o.model.trainable_parameters(), 0.01)
    o.pairs = data.batches(IDS, 2, 4)
    return o


def state(o):
    """Everything in there that a failed call could have changed."""
    models = {name: [(path, type(m).__name__, m.training) for path, m in model.named_modules()]
              + [(path, t.data.tobytes(), t.requires_grad, t.grad is None) for path, t in model.named_parameters()]
              for name, model in (("model", o.model), ("lora", o.lora), ("merged", o.merged))}
    tensors = [(t.data.tobytes(), t.shape, t.requires_grad) for t in (o.t, o.p, o.first)]
    optimizers = [(s.lr, list(s.steps), s.v.shape) for s in (o.sgd, o.adamw, o.steps)]
    moments = [o.sgd.v.tolist(), o.adamw.m.tolist(), o.adamw.v.tolist(), o.steps.m.tolist()]
    return models, tensors, optimizers, moments, [list(adapters.adapters(m)) for m in (o.model, o.lora)]


def stepped(name, gradient):
    """A step of o.sgd or o.adamw with this in p.grad."""
    def call(o):
        o.first.grad, o.p.grad = np.ones(2), gradient
        getattr(o, name).step()
    return call


def fit(**options):
    def call(o):
        given = {"batches": o.pairs, "optimizer": o.steps, "steps": 3, "quiet": True, **options}
        train.fit(given.pop("model", o.model), **given)
    return call


def filled(ids, **changes):
    """A cache that a small GPT with these changes filled."""
    cache = []
    small_gpt(**changes)(np.array(ids), cache)
    return cache


T, V, I, R = TypeError, ValueError, IndexError, RuntimeError
ROWS = {
    "Tensor": [
        (lambda o: Tensor([1, None]), T, "Tensor: expected numbers, got list"),
        (lambda o: Tensor(lambda: 1), T, "Tensor: expected numbers, got function"),
        (lambda o: Tensor(b"abc"), T, "Tensor: expected numbers, got bytes"),
        (lambda o: Tensor(10 ** 400), T, "Tensor: expected numbers, got int"),
        (lambda o: Tensor(np.array(["2020-01-01"], "datetime64[D]")), T, "expected numbers, got ndarray"),
        (lambda o: Tensor(np.array([1, 2], object)), T, "dtype object"),
        (lambda o: Tensor(1.0, 2.0), T, "requires_grad: expected True or False, got 2.0; several numbers go in"),
        (lambda o: Tensor([1.0], requires_grad="no"), T, "requires_grad: expected True or False, got 'no'"),
        (lambda o: setattr(o.t, "requires_grad", None), T, "requires_grad: expected True or False"),
        (lambda o: setattr(o.t, "data", "x"), T, "data: expected numbers, got str"),
        (lambda o: setattr(o.t, "data", np.ones((3, 2))), V, r"expected an array of shape \(2, 3\), got \(3, 2\)"),
        (lambda o: setattr(o.t, "shape", (3, 2)), AttributeError, "shape"),
        (lambda o: o.t + {}, T, "expected numbers, got dict"),
        (lambda o: "a" * o.t, T, "expected numbers, got str"),
        (lambda o: o.t - None, T, "expected numbers, got NoneType"),
        (lambda o: o.t / object(), T, "expected numbers, got object"),
        (lambda o: o.t ** "x", T, "expected numbers"),
        (lambda o: o.t @ None, T, "expected numbers"),
        (lambda o: o.t < "x", T, "compare: expected numbers, got <U1: 'x'"),
        (lambda o: o.t >= None, T, "compare: expected numbers, got object: 'None'"),
        (lambda o: o.t == np.ones(5), V, r"compare: shapes \(2, 3\) and \(5,\) do not broadcast"),
        (lambda o: o.t > RAGGED, V, "compare: the rows differ in length"),
        (lambda o: o.t[{}], I, r"getitem: shape \(2, 3\) has no \[\{\}\]"),
        (lambda o: o.t[:, "x"], I, "getitem: "),
        (lambda o: o.t[RAGGED], V, "getitem: the rows differ in length"),
        (lambda o: o.t[0, 1, 2], I, "too many indices"),
        (lambda o: o.t[Tensor([0.5])], I, "getitem: .*must be of integer"),
        (lambda o: o.t.item(), V, r"item: expected one element, got shape \(2, 3\)"),
        (lambda o: o.t.backward(), V, r"backward: a result of shape \(2, 3\) needs a gradient"),
        (lambda o: o.t.backward(RAGGED), V, "backward: the rows differ in length"),
        (lambda o: (o.t * 2).backward(np.ones((3, 2))), V, r"the gradient has shape \(3, 2\), the result \(2, 3\)"),
        (lambda o: o.t.detach().backward(M), R, "nothing here requires a gradient"),
    ],
    "operations": [
        (lambda o: o.t.sum(0, 1), T, r"sum: keepdims must be True or False, got 1; several axes.*axis=\(0, 1\)"),
        (lambda o: o.t.max(axis=0, keepdims="yes"), T, "max: keepdims must be True or False, got 'yes'"),
        (lambda o: o.t.mean(axis=1.0), T, "mean: axis must be None, an integer or a tuple of integers, got 1.0"),
        (lambda o: o.t.sum(True), T, "sum: axis must be None, an integer"),
        (lambda o: o.t.reshape(None), T, "reshape: sizes must be whole numbers, got None"),
        (lambda o: o.t.reshape(-2, 3), V, r"reshape: shape \(2, 3\) has 6 elements, which \(-2, 3\) cannot hold"),
        (lambda o: o.t.reshape(-1, 0), V, "cannot hold"),
        (lambda o: o.t.reshape(), V, r"reshape: .* which \(\) cannot hold"),
        (lambda o: o.t.transpose(None), T, "transpose: axis must be"),
        (lambda o: o.t.transpose([0, 1], [1, 0]), T, "transpose: axis must be"),
        (lambda o: ops.concatenate(5), T, "concatenate: expected a list of Tensors, got 5"),
        (lambda o: ops.concatenate(None), T, "concatenate: expected a list of Tensors, got None"),
        (lambda o: ops.concatenate([o.t, "x"]), T, "expected numbers, got str"),
        (lambda o: ops.concatenate([o.t], axis=None), T, "concatenate: axis must be"),
        (lambda o: ops.where(None, o.t, 0), T, "where: the condition must be an array of True and False, got object"),
        (lambda o: ops.where("x", o.t, 0), T, "where: the condition must be an array of True and False, got <U1: 'x'"),
        (lambda o: ops.where(RAGGED, o.t, 0), V, "where: the rows differ in length"),
        (lambda o: -Tensor([True]), T, r"neg: bool is not for arithmetic; write 1\.0 for True, or mask\.astype"),
        (lambda o: Tensor([True]) - Tensor([True]), T, "sub: bool and bool is not for arithmetic"),
        (lambda o: ops.exp(RAGGED), V, "Tensor: the rows differ in length"),
        (lambda o: ops.linear(o.t, None), T, "expected numbers, got NoneType"),
        (lambda o: ops.embedding(o.t, "a"), T, "embedding: expected integers, got <U1"),
        (lambda o: ops.embedding(o.t, RAGGED), V, "embedding: the rows differ in length"),
        (lambda o: ops.embedding(o.t, [10 ** 30]), T, "embedding: expected integers, got object"),
        (lambda o: ops.layer_norm(o.t, A, A, eps=-1.0), V, "layer_norm: eps must not be negative, got -1.0"),
        (lambda o: ops.layer_norm(o.t, A, A, eps=np.nan), V, "layer_norm: eps must be finite, got nan"),
        (lambda o: ops.layer_norm(o.t, A, A, eps=None), V, "layer_norm: eps must be a number, got None"),
        (lambda o: ops.dropout(o.t, "x", np.random.default_rng(0)), V, "dropout: p must be a number, got 'x'"),
        (lambda o: ops.dropout(o.t, 0.5, None), T, r"dropout: rng must be .* got None; np\.random\.default_rng\(0\)"),
        (lambda o: ops.dropout(o.t, 0.5, 3), T, "dropout: rng must be a random generator, got 3"),
        (lambda o: ops.cross_entropy(o.t, RAGGED), V, "cross_entropy: the rows differ in length"),
        (lambda o: ops.cross_entropy(o.t, "ab"), V, r"cross_entropy: logits \(2, 3\), targets \(\): expected"),
        (lambda o: ops.cross_entropy(o.t, [0, 1.5]), T, "cross_entropy: expected integers, got float64"),
        (lambda o: ops.causal_attention(1.0, M, M), V, r"causal_attention: q \(\), k \(2, 3\)"),
        (lambda o: ops.causal_attention(M, M, None), T, "expected numbers"),
    ],
    "layers": [
        *[(lambda o, args=args: nn.Linear(*args), V, f"Linear: {name} must be a whole number of at least 1, got {got}")
          for args, name, got in [((0, 3), "d_in", "0"), ((3, 0), "d_out", "0"), ((-1, 3), "d_in", "-1"),
                                  ((2.5, 3), "d_in", "2.5"), (("x", 3), "d_in", "'x'"), ((3, None), "d_out", "None"),
                                  ((True, 2), "d_in", "True")]],
        (lambda o: nn.Linear(3, 2, dtype=int), V, "Linear: dtype must be a floating point type such as np.float32"),
        (lambda o: nn.Linear(3, 2, dtype="x"), V, "Linear: dtype must be a floating point type"),
        (lambda o: nn.Linear(3, 2, rng=5), T, r"Linear: rng must be a random generator, got 5; np\.random"),
        (lambda o: nn.Embedding(0, 3), V, "Embedding: n must be a whole number"),
        (lambda o: nn.Embedding(3, 2.0), V, "Embedding: d must be a whole number"),
        (lambda o: nn.Embedding(3, 2, dtype=complex), V, "Embedding: dtype must be a floating point"),
        (lambda o: nn.LayerNorm((2, 3)), V, r"LayerNorm: d must be a whole number of at least 1, got \(2, 3\)"),
        (lambda o: nn.LayerNorm(-1), V, "LayerNorm: d must be"),
        (lambda o: nn.Dropout("x"), V, "Dropout: p must be a number, got 'x'"),
        (lambda o: nn.Dropout(True), V, "Dropout: p must be a number, got True"),
        (lambda o: nn.Dropout(0.5, rng=3), T, "Dropout: rng must be a random generator"),
        (lambda o: nn.Linear(3, 2)(None), T, "expected numbers, got NoneType"),
        (lambda o: o.model.train(o.pairs), T, "train: mode must be True or False, got a generator.*use fit"),
        (lambda o: o.model.train(None), T, "train: mode must be True or False"),
        (lambda o: o.model.load_state_dict(None), T, r"load_state_dict: expected a dict, got NoneType; another"),
        (lambda o: o.model.load_state_dict([1]), T, "load_state_dict: expected a dict, got list"),
        (lambda o: o.model.load_state_dict({1: 2}), V, "unexpected: 1"),
        (lambda o: o.model.load_state_dict({"a": RAGGED}), V, "load_state_dict: a: the rows differ in length"),
        (lambda o: o.merged.load_state_dict(o.lora.state_dict()), V,
         r"merged: layers\.0\.self_attn\.q_proj, whose weight is not W0; call unmerge\(model\) first"),
    ],
    "transformer": [
        (lambda o: GPTConfig(**{**SIZES, "vocab_size": "7"}), V, "GPTConfig: vocab_size must be a whole .*, got '7'"),
        (lambda o: GPTConfig(**{**SIZES, "d_ff": True}), V, "GPTConfig: d_ff must be a whole number.*got True"),
        (lambda o: GPTConfig(**SIZES, dropout="x"), V, "GPTConfig: dropout must be a number, got 'x'"),
        (lambda o: GPTConfig(**SIZES, dropout=None), V, "GPTConfig: dropout must be a number, got None"),
        (lambda o: GPTConfig(**SIZES, dtype="x"), V, "GPTConfig: dtype must be a floating point type"),
        (lambda o: GPTConfig(**SIZES, dtype=None), V, "GPTConfig: dtype must be a floating point type.*got None"),
        (lambda o: GPTConfig(**SIZES, seed=-1), V, "GPTConfig: seed must be a whole number of at least 0, got -1"),
        (lambda o: GPTConfig(**SIZES, seed="x"), V, "GPTConfig: seed must be a whole number"),
        (lambda o: GPT(None), T, r"GPT: expected a GPTConfig, got NoneType; write GPT\(GPTConfig\("),
        (lambda o: GPT(SIZES), T, "GPT: expected a GPTConfig, got dict"),
        (lambda o: o.model(RAGGED), V, "GPT: the rows differ in length"),
        (lambda o: o.model("ab"), V, r"GPT: expected ids of shape \(batch, time\), got \(\)"),
        (lambda o: o.model(M), T, "expected integers, got float64"),
        (lambda o: o.model([[1]], cache={}), T, "GPT: expected a list, got dict; the cache starts as an empty list"),
        (lambda o: o.model([[1]], cache=[1, 2]), V, "GPT: this cache is not one that this model filled"),
        (lambda o: o.model([[1]], cache=[{}]), V, "start with an empty list"),
        (lambda o: o.model([[1]], cache=filled([[1, 2]])), V, "this cache is not one that this model filled"),
        (lambda o: o.model([[1]], cache=filled([[1, 2]], d_model=8)), V, "this cache is not one that this"),
        (lambda o: o.model([[1]], cache=filled([[1, 2]], n_layers=1)), V, "this cache is not one that this"),
        (lambda o: [o.model(np.ones((n, 2), int), c) for c in [[]] for n in (1, 2)], V,
         "GPT: the cache holds 1 sequences, the ids 2; start with an empty list"),
        (lambda o: generate(None, [1], 3), T, "generate: expected a Decoder, got NoneType; a GPT or a Llama is one"),
        (lambda o: generate(o.model, None, 3), V, "generate: expected integer ids"),
        (lambda o: generate(o.model, RAGGED, 3), V, "generate: the rows differ in length"),
        (lambda o: generate(o.model, [1], "x"), V, "generate: n must be a whole number of at least 0, got 'x'"),
        (lambda o: generate(o.model, [1], True), V, "generate: n must be a whole number"),
        (lambda o: generate(o.model, [1], 3, temperature=None), V, "generate: temperature must be a number, got None"),
        (lambda o: generate(o.model, [1], 3, seed=-1), V, "generate: seed must be a whole number"),
        (lambda o: generate(o.model, [99], 3), I, "expected integers from 0 to 6, got 99"),
    ],
    "LoRA": [
        (lambda o: LoraConfig(r=True), V, "LoraConfig: r must be a whole number of at least 1, got True"),
        (lambda o: LoraConfig(r="8"), V, "LoraConfig: r must be a whole number of at least 1, got '8'"),
        (lambda o: LoraConfig(lora_alpha=None), V, "LoraConfig: lora_alpha must be a number, got None"),
        (lambda o: LoraConfig(lora_alpha=np.inf), V, "LoraConfig: lora_alpha must be finite, got inf"),
        (lambda o: LoraConfig(lora_dropout="x"), V, "LoraConfig: lora_dropout must be a number"),
        (lambda o: LoraConfig(target_modules=None), T, r'LoraConfig: target_modules must be names such as \["q_proj"'),
        (lambda o: LoraConfig(target_modules=[3]), T, "LoraConfig: target_modules must be names"),
        (lambda o: LoraConfig(rank_pattern=None), T, "LoraConfig: expected a dict, got NoneType; a pattern is written"),
        (lambda o: LoraConfig(rank_pattern=["q_proj"]), T, "LoraConfig: expected a dict, got list"),
        (lambda o: LoraConfig(rank_pattern={"q_proj": 0}), V, "LoraConfig: r must be a whole number"),
        (lambda o: LoraConfig(alpha_pattern={"q_proj": "x"}), V, "LoraConfig: lora_alpha must be a number, got 'x'"),
        (lambda o: LoraConfig(alpha_pattern={3: 1}), V, "the pattern 3 is not a regular expression"),
        (lambda o: LoraConfig(seed=None), V, "LoraConfig: seed must be a whole number"),
        (lambda o: lora.add_lora(o.model, None), T, r"add_lora: expected a LoraConfig, got NoneType; write add_lora\("),
        (lambda o: lora.add_lora(o.model, {"r": 2}), T, "add_lora: expected a LoraConfig, got dict"),
        (lambda o: lora.add_lora(None, LoraConfig()), T, "add_lora: expected a Module, got NoneType"),
        (lambda o: lora.add_lora(o.model, LoraConfig(r=2), nn.Linear), T, "layer must be LoraLinear or a variant"),
        (lambda o: lora.add_lora(o.lora, LoraConfig(r=2)), V, r"has LoRA layers already.*remove\(model\)"),
        (lambda o: lora.LoraLinear(M, LoraConfig()), T, "LoraLinear: expected a Linear, got ndarray"),
        (lambda o: lora.LoraLinear(nn.LayerNorm(3), LoraConfig()), T, "LoraLinear: expected a Linear, got LayerNorm"),
        (lambda o: lora.LoraLinear(nn.Linear(3, 3), None), T, "LoraLinear: expected a LoraConfig, got NoneType"),
        (lambda o: lora.merge(None), T, "lora: expected a Module, got NoneType"),
        (lambda o: lora.unmerge(o.model), V, r"no LoRA layers in this model; call add_lora"),
        (lambda o: lora.count_parameters(5), T, "count_parameters: expected a Module, got int"),
        (lambda o: o.model.replace("layers.9.fc1", nn.Linear(2, 2)), V, "no module 'layers.9.fc1'"),
        (lambda o: o.model.replace("fc1", nn.Linear(2, 2)), V, "replace: there is no module 'fc1'"),
    ],
    "adapters": [
        (lambda o: adapters.add_adapter(o.model, "", LoraConfig(r=2)), V, "add_adapter: expected a new name, got ''"),
        (lambda o: adapters.add_adapter(o.model, 3, LoraConfig(r=2)), V, "add_adapter: expected a new name, got 3"),
        (lambda o: adapters.add_adapter(o.lora, "a", None), T, "add_lora: expected a LoraConfig, got NoneType"),
        (lambda o: adapters.add_adapter(o.lora, "a", LoraConfig(r=99)), V, "r=99 is more than"),
        (lambda o: adapters.set_adapter(o.lora, "a"), V, "no adapter 'a' in this model; there are 'default'"),
        (lambda o: adapters.set_adapter(None, "a"), T, "adapters: expected a Module, got NoneType"),
        (lambda o: adapters.delete_adapter(o.model, "a"), V, "no adapter 'a' in this model; there are none yet"),
        (lambda o: adapters.combine(o.lora, "c", None), T, "combine: expected a dict, got NoneType; write {name"),
        (lambda o: adapters.combine(o.lora, "c", {"default": "x"}), V, "the weight of 'default' must be a number"),
        (lambda o: adapters.combine(o.lora, "c", {"default": np.nan}), V, "the weight of 'default'.*got nan"),
        (lambda o: adapters.combine(o.lora, "default", {"default": 1}), V, "expected a new name, got 'default'"),
        (lambda o: adapters.add_factors(o.model, "f", {}), V, "add_factors: no factors were given for 'f'"),
        (lambda o: adapters.add_factors(o.model, "f", {"layers.0.fc1": (M, M)}), V,
         r"add_factors: layers\.0\.fc1 takes \(A, B\) of shapes \(r, 6\) and \(9, r\), got \[\(2, 3\), \(2, 3\)\]"),
        (lambda o: adapters.add_factors(o.model, "f", {"layers.0.fc1": (np.ones((2, 6)), np.ones((9, 3)))}), V,
         "add_factors: layers.0.fc1 takes"),
        (lambda o: adapters.add_factors(o.model, "f", {"layers.0.fc1": 1}), V, "add_factors: layers.0.fc1 takes"),
        (lambda o: adapters.add_factors(o.model, "f", {"nope": (M, M)}), V, "target 'nope' names no Linear layer"),
        (lambda o: variants.LoraPlus(o.model, 0.1), V, "no LoRA layers in this model"),
        (lambda o: variants.LoraPlus(o.lora, "x"), V, "LoraPlus: lr must be a number, got 'x'"),
        (lambda o: variants.LoraPlus(o.lora, 0.1, ratio=-1), V, "LoraPlus: ratio must not be negative, got -1"),
        (lambda o: variants.pissa_to_lora(o.lora, "x"), V, "is a LoraLinear, not a PissaLinear"),
    ],
    "optimizers": [
        *[(stepped(name, g), V, r"step: the gradient of parameter 1 must be a floating point array of shape \(3,\), "
           f"got {got}.*nothing was moved") for name in ("sgd", "adamw") for g, got in [
               (np.ones(2), r"ndarray of \(2,\)"), (np.ones(1), r"ndarray of \(1,\)"), (np.array(1.0), "ndarray"),
               (np.ones((1, 3)), r"ndarray of \(1, 3\)"), ([1.0, 2, 3], "list"), (Tensor(A), "Tensor"),
               (np.ones(3, complex), "ndarray"), (np.ones(3, int), "ndarray"), ("x", "str")]],
        (lambda o: o.adamw.step(), R, r"AdamW.step: no parameter has a gradient; call loss.backward\(\) first"),
        (lambda o: optim.SGD(None, 0.1), T, r"SGD: expected a list of parameters, got NoneType; pass model"),
        (lambda o: optim.AdamW(o.model, 0.1), T, r"AdamW: expected a list of parameters, got GPT"),
        (lambda o: optim.AdamW("ab", 0.1), T, "AdamW: parameter 0 is a str"),
        (lambda o: optim.SGD([o.t], None), V, "SGD: lr must be a number, got None"),
        (lambda o: optim.SGD([o.t], np.inf), V, "SGD: lr must be finite, got inf"),
        (lambda o: optim.SGD([o.t], np.ones(2)), V, "SGD: lr must be a number"),
        (lambda o: optim.SGD([o.t], 0.1, momentum="x"), V, "SGD: momentum must be a number, got 'x'"),
        (lambda o: optim.AdamW([o.t], 0.1, betas=0.9), V, r"AdamW: betas must be two numbers such as \(0\.9, 0\.999\)"),
        (lambda o: optim.AdamW([o.t], 0.1, betas=(0.9, "x")), V, "AdamW: beta2 must be a number, got 'x'"),
        (lambda o: optim.AdamW([o.t], 0.1, eps=None), V, "AdamW: eps must be a number, got None"),
        (lambda o: optim.warmup_cosine("x", 10), V, "warmup_cosine: lr must be a number, got 'x'"),
        (lambda o: optim.warmup_cosine(-1, 10), V, "warmup_cosine: lr must not be negative"),
        (lambda o: optim.warmup_cosine(0.1, None), V, "warmup_cosine: steps must be a whole number"),
        (lambda o: optim.warmup_cosine(0.1, 10, None), V, "warmup_cosine: warmup must be in 0 .. steps - 1"),
        (lambda o: optim.clip_grad_norm([o.t], "x"), V, "clip_grad_norm: max_norm must be above 0, got 'x'"),
        (lambda o: optim.clip_grad_norm(None, 1), T, "clip_grad_norm: expected a list of parameters, got NoneType"),
        (lambda o: optim.clip_grad_norm([3], 1), T, r"clip_grad_norm: expected a Tensor, got int; pass model"),
    ],
    "training": [
        (fit(model=3), T, "fit: expected a Module, got int"),
        (fit(batches=None), T, "fit: expected batches to iterate over, got NoneType; see data.batches"),
        (fit(batches=data.batches), T, "fit: expected batches to iterate over, got function"),
        (fit(optimizer=None), T, r"such as AdamW\(model.trainable_parameters\(\), lr=1e-3\), got None"),
        (fit(optimizer=optim.AdamW), T, "fit: expected an optimizer such as"),
        (fit(optimizer=optim.SGD([Tensor(A, requires_grad=True)], 0.1)), V,
         "fit: the optimizer moves none of this model's trainable parameters; make it after add_lora"),
        (fit(steps="3"), V, "fit: steps must be a whole number of at least 0, got '3'"),
        (fit(steps=True), V, "fit: steps must be a whole number"),
        (fit(every=None), V, "fit: every must be a whole number of at least 1, got None"),
        (fit(schedule=0.1), T, "fit: schedule must be a function step -> learning rate, got 0.1; see warmup_cosine"),
        (fit(validation=3), T, "fit: expected a list of pairs"),
        (fit(validation=data.batches(IDS, 2, 4)), T, r"expected a list of pairs.*\[next\(stream\)\], got a generator"),
        (fit(validation=next(data.batches(IDS, 2, 4))), T, "got a tuple that holds a ndarray"),
        (fit(clip="x"), V, "fit: clip must be a number, got 'x'"),
        (fit(loss=3), T, r"fit: loss must be a function of \(model, x, y\), got 3"),
        (lambda o: train.evaluate(o.model, []), V, "evaluate: got no batches"),
        (lambda o: train.evaluate(o.model, o.pairs), T, r"evaluate: expected a list of pairs.*\[next\(stream\)\]"),
        (lambda o: train.evaluate(None, [next(o.pairs)]), T, "evaluate: expected a Module, got NoneType"),
        (lambda o: train.next_token_loss(o.model, [[1, 2]], [1, 2]), V, r"expected targets of shape \(batch, time\)"),
        (lambda o: train.next_token_loss(o.model, [1, 2], [[1, 2]]), V, "GPT: expected ids of shape"),
    ],
    "data": [
        (lambda o: data.CharTokenizer(None), T, "CharTokenizer: expected a str, got NoneType"),
        (lambda o: data.CharTokenizer(["a", "b"]), T, r'CharTokenizer: expected a str, got list; .*\("abc"\)'),
        (lambda o: data.CharTokenizer().encode(b"ab"), T, "encode: expected a str, got bytes"),
        (lambda o: data.CharTokenizer().encode(["a"]), T, "encode: expected a str, got list"),
        (lambda o: data.CharTokenizer().encode("naïve"), V, r"character 'ï' at position 2.*data\.clean\(text\)"),
        (lambda o: data.CharTokenizer().decode(None), T, "decode: expected integers, got object"),
        (lambda o: data.CharTokenizer().decode(RAGGED), V, "decode: the rows differ in length"),
        (lambda o: data.CharTokenizer().decode("ab"), T, "decode: expected integers, got <U2"),
        (lambda o: data.clean(b"x"), T, "clean: expected a str, got bytes"),
        (lambda o: data.split(None), T, "split: expected ids"),
        (lambda o: data.split(IDS, "x"), V, "split: fraction must be a number, got 'x'"),
        (lambda o: data.batches(IDS, 0, 4), V, "batches: batch must be a whole number of at least 1, got 0"),
        (lambda o: data.batches(IDS, 2.0, 4), V, "batches: batch must be a whole number"),
        (lambda o: data.batches(IDS, 2, 0), V, "data: context must be a whole number of at least 1, got 0"),
        (lambda o: data.batches(IDS, 2, "x"), V, "data: context must be a whole number"),
        (lambda o: data.batches(IDS, 2, 4, seed="x"), V, "batches: seed must be a whole number"),
        (lambda o: data.batches(IDS[:3], 2, 4), V, "3 tokens are too few for windows of 4"),
        (lambda o: data.batches("some text", 2, 4), T, r"expected ids.*CharTokenizer\(\)\.encode\(text\)"),
        (lambda o: data.windows(IDS, 0, 4), V, "windows: n must be a whole number of at least 1"),
        (lambda o: data.windows(IDS, 2, -3), V, "data: context must be"),
        (lambda o: data.windows(RAGGED, 2, 1), V, "data: the rows differ in length"),
        (lambda o: data.sorting(0), V, "sorting: batch must be a whole number of at least 1"),
        (lambda o: data.sorting("x"), V, "sorting: batch must be a whole number"),
    ],
    "files": [
        (lambda o: checkpoint.save_model(None, "x"), T, "save_model: expected a Decoder, got NoneType"),
        (lambda o: checkpoint.save_model(nn.Linear(2, 2), "x"), T, "save_model: expected a Decoder, got Linear"),
        (lambda o: checkpoint.save_model(o.model, None), T, "save_model: expected a path, got NoneType"),
        (lambda o: checkpoint.save_model(o.model, "x", tokenizer="x"), T, "save_model: expected a CharTokenizer"),
        (lambda o: checkpoint.save_model(o.lora, "x"), V, "save_model: this model has LoRA layers"),
        (lambda o: checkpoint.load_model(None), T, "load_model: expected a path, got NoneType"),
        (lambda o: checkpoint.load_model("nowhere"), FileNotFoundError, "no such file; is nowhere the folder"),
        (lambda o: checkpoint.load_tokenizer("nowhere"), FileNotFoundError, "tokenizer.json: there is no such file"),
        (lambda o: checkpoint.save_adapter(o.model, "x"), V, "no LoRA layers in this model"),
        (lambda o: checkpoint.save_adapter(o.lora, None), T, "save_adapter: expected a path, got NoneType"),
        (lambda o: checkpoint.save_adapter(o.lora, "x", name=3), V, r"no adapter 3; there are \['default'\]"),
        (lambda o: checkpoint.load_adapter(o.model, "nowhere"), FileNotFoundError, "adapter_config.json: there is no"),
        (lambda o: checkpoint.load_adapter(None, "x"), T, "load_adapter: expected a Module, got NoneType"),
        (lambda o: checkpoint.load_adapter(o.model, 3), T, "load_adapter: expected a path, got int"),
        (lambda o: data.read("nowhere"), FileNotFoundError, "nowhere"),
    ],
    "tools": [
        (lambda o: gradcheck.gradcheck(None, M), T, "gradcheck: expected a function that returns a Tensor"),
        (lambda o: gradcheck.gradcheck(ops.exp), V, "gradcheck: got a function and nothing to check"),
        (lambda o: gradcheck.gradcheck(ops.exp, "x"), T, "gradcheck: a is <U1; differences need float64"),
        (lambda o: gradcheck.gradcheck(lambda x: None, M), T, "the function must return a Tensor, got NoneType"),
        (lambda o: gradcheck.gradcheck_model(None, None), T, "gradcheck_model: expected a Module, got NoneType"),
        (lambda o: gradcheck.gradcheck_model(o.model, None), T, "gradcheck_model: expected a function"),
        (lambda o: gradcheck.gradcheck_model(o.model, lambda m: m([[1]]).sum(), sample=0), V,
         "gradcheck_model: sample must be a whole number of at least 1, got 0"),
        (lambda o: trace.trace(None), T, "trace: expected a loss or a function that returns one, got NoneType"),
        (lambda o: trace.trace(lambda: o.t * 2), V, r"the loss has shape \(2, 3\), expected one number"),
        (lambda o: draw_graph(3), T, "trace: expected a loss"),
        (lambda o: budget.memory_budget(None), T, "memory_budget: expected a GPTConfig, got NoneType"),
        (lambda o: budget.memory_budget(o.model.config, r=2, batch="x"), V, "memory_budget: batch must be a whole"),
        (lambda o: budget.memory_budget(o.model.config, r=2, precision=[1]), V, r"precision \[1\] is none of float64"),
        (lambda o: budget.model_config("7B"), V, "model_config: there is no model '7B'; there are 125M, 350M"),
    ],
}
CASES = [pytest.param(*row, id=f"{group} {i}") for group, rows in ROWS.items() for i, row in enumerate(rows)]
BARE = ("object has no attribute", "not supported between", "is not iterable", "cannot be interpreted", "ufunc",
        "operands could not be broadcast")


@pytest.mark.parametrize(("call", "error", "words"), CASES)
def test_bad_call(call, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    o = world()
    before = state(o)
    with pytest.raises(error, match=words) as caught:
        call(o)
    assert type(caught.value) is error  # not a kind of it that NumPy made
    assert not any(text in str(caught.value) for text in BARE)
    assert state(o) == before and not list(tmp_path.iterdir())


def test_the_table_is_long_enough():
    assert len(CASES) >= 150


# Errors that come in the middle of a run of fit: the model is as the step before left it

@pytest.mark.parametrize(("options", "error", "words"), [
    ({"schedule": lambda step: None}, V, "fit: the schedule at step 0: lr must be a number, got None"),
    ({"schedule": lambda step: -1.0}, V, "fit: the schedule at step 0: lr must not be negative, got -1.0"),
    ({"schedule": lambda step: np.nan}, V, "fit: the schedule at step 0: lr must be finite, got nan"),
    ({"batches": [1, 2, 3]}, T, r"fit: a batch must be a pair \(x, y\), got int"),
    ({"batches": ["ab"]}, T, r"fit: a batch must be a pair \(x, y\), got str"),
    ({"batches": []}, V, "fit: the batches ended after 0 of 3 steps"),
    ({"batches": data.batches(np.arange(40), 2, 4)}, I, "expected integers from 0 to 6"),
    ({"loss": lambda m, x, y: 3.0}, T, "fit: the loss must be a Tensor of one number, got float"),
    ({"loss": lambda m, x, y: None}, T, "fit: the loss must be a Tensor of one number, got NoneType"),
    ({"loss": lambda m, x, y: m(x)}, T, r"got shape \(2, 4, 7\); take its mean\(\)"),
    ({"loss": lambda m, x, y: m(x).mean().detach()}, R, "nothing here requires a gradient"),
])
def test_fit_stops_before_the_step(options, error, words):
    o = world()
    before = {name: t.data.tobytes() for name, t in o.model.named_parameters()}
    with pytest.raises(error, match=words):
        fit(**options)(o)
    assert {name: t.data.tobytes() for name, t in o.model.named_parameters()} == before
    assert o.steps.lr == 0.01 and not any(o.steps.steps)


def test_a_layer_that_fails_half_way_leaves_nothing_frozen():
    model = small_gpt()
    last = dict(model.named_modules())["layers.1.self_attn.v_proj"]
    last.weight.data = np.full(last.weight.shape, np.nan)
    before = [(type(m), t.requires_grad) for _, m in model.named_modules() for t in m.parameters()]
    with pytest.raises(ValueError, match=r"PissaLinear: .*not finite"):
        lora.add_lora(model, LoraConfig(r=2), variants.PissaLinear)
    assert [(type(m), t.requires_grad) for _, m in model.named_modules() for t in m.parameters()] == before


# Modules that hold one another in unusual ways

class Shared(nn.Module):
    def __init__(self):
        self.first = nn.Linear(4, 4)
        self.again, self.listed, self.me = self.first, [self.first], self

    def forward(self, x):
        return self.again(self.first(x))


def test_a_module_in_two_places_and_one_that_holds_itself_are_walked_once():
    model = Shared()
    assert [path for path, _ in model.named_modules()] == ["", "first"]
    assert [name for name, _ in model.named_parameters()] == ["first.weight", "first.bias"]
    assert not model.eval().first.training


def test_lora_takes_every_place_of_a_shared_module():
    model, x = Shared(), np.random.default_rng(0).normal(size=(3, 4))
    before = model(x).data
    assert lora.add_lora(model, LoraConfig(r=2, target_modules="first")) == ["first"]
    assert model.again is model.first is model.listed[0] and isinstance(model.first, lora.LoraLinear)
    assert np.array_equal(model(x).data, before)
    model.first.lora_B.data = np.ones((4, 2))
    trained = model(x).data
    lora.merge(model)
    np.testing.assert_allclose(model.eval()(x).data, trained, rtol=1e-12)
    lora.unmerge(model)
    lora.remove(model)
    assert model.again is model.first and np.array_equal(model(x).data, before)


def test_a_wider_bias_widens_the_result():
    x, narrow, wide = (np.ones((2, 3), np.float32), np.ones(3, np.float32), np.full(3, 1e-12))
    for y in (ops.linear(x, np.zeros((3, 3), np.float32), wide), ops.layer_norm(x, narrow, wide)):
        assert y.dtype == np.float64 and (y.data == 1e-12).all()
    assert ops.layer_norm(x, wide, narrow).dtype == np.float64
    assert ops.linear(x, x, narrow[:2]).dtype == np.float32


# Command lines: one clear line on stderr, exit status 2, no traceback

@pytest.mark.parametrize(("command", "arguments", "words"), [
    (lessons_command, "99", "there is no lesson 99; there are 01"), (lessons_command, "nope", "unknown command 'nope'"),
    (lessons_command, "run x", "there is no lesson"), (lessons_command, "check 99", "there is no exercise 99"),
    (lessons_command, "check 1 99", "there is no exercise 99"), (lessons_command, "hint", "required: NN"),
    (lessons_command, "check 09 --timeout x", "expected a number above 0 and below a million, got 'x'"),
    (lessons_command, "check 09 --timeout -1", "expected a number above 0"),
    (lessons_command, "grade", "required: folder"), (lessons_command, "grade nowhere", "nowhere is no folder"),
    (lessons_command, "grade . --jobs 0", "expected a number above 0 and below a million, got '0'"),
    (lessons_command, "grade empty", "empty holds no folders; expected one for each student"),
    (lessons_command, "--nope", "usage"), (lessons_command, "render 00", "there is no lesson 00"),
    (byhand_command, "--seed x", "expected a whole number of at least 0, got 'x'"),
    (byhand_command, "--seed -1", "whole number"), (byhand_command, "--rank 0", "at least 1, got '0'"),
    (byhand_command, "--rank 9", "rank"), (byhand_command, "--answer dB", "cannot read the answer 'dB'"),
    (byhand_command, "--answer dB=1", "dB has 2 numbers, got 1"), (byhand_command, "--answer dB=a,b", "cannot read"),
    (byhand_command, "--answer dW0=1", "dW0 is not computed"), (byhand_command, "--answer Q=1", "there is no 'Q'"),
    (byhand_command, "--class 3", "--class and --out go together"), (byhand_command, "--nope", "nope"),
])
def test_bad_command_line(command, arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as caught:
        command.main(arguments.split())
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and words in err and "Traceback" not in err and out == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_nothing_here_hangs():
    """The rows with endless streams end: an alarm would have ended the test."""
    if not hasattr(signal, "SIGALRM"):
        pytest.skip("no alarm on this system")
    previous = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError))
    signal.alarm(5)
    try:
        with pytest.raises(TypeError):
            train.evaluate(small_gpt(), data.sorting(2))
        with pytest.raises(TypeError):
            fit(validation=data.sorting(2))(world())
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
