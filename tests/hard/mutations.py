"""Does a small fault in lora_np make a test fail? python -m tests.hard.mutations [--sample N --seed S]

Each fault is (place, old text, new text, tests). The place is a file of lora_np and in it a function, as
"lora.py LoraLinear.merge"; there the old text stands once. In a copy of the project the new text takes its place, and
the named test files must then fail. A fault that they miss is a survivor: the tests are mended until there is none.
Exit status: 0, or 1 with survivors, or 2 where a fault does not fit the code any more.
"""

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60  # a test run that takes longer hangs, and that is noticed too

FAULTS = [
    # the walk back over the graph
    ("graph.py backpropagate", "arrived[target] += d", "arrived[target] = d", "tensor"),
    ("graph.py backpropagate", "arrived[target] + d", "arrived[target] - d", "tensor"),
    ("graph.py backpropagate", "elif target in summed", "elif True", "tensor"),
    ("graph.py backpropagate", "else g.copy()", "else g", "tensor"),
    ("graph.py backpropagate", "g.setflags(False)", "pass", "tensor"),
    ("graph.py backpropagate", "arrived.pop(this).view()", "arrived.pop(this)", "tensor"),
    ("graph.py backpropagate", "not retain_graph", "retain_graph", "tensor"),
    ("graph.py backpropagate", "arrived.pop(this)", "arrived[this]", "tensor"),
    ("graph.py _oldest_first", 'attrgetter("serial"))', 'attrgetter("serial"), reverse=True)', "tensor"),
    ("graph.py _fitted", "np.asarray(d, target.dtype)", "d", "tensor"),
    ("graph.py unbroadcast", "g.ndim - len(shape)", "g.ndim - len(shape) - 1", "tensor"),
    ("graph.py unbroadcast", "(*range(extra), *stretched)", "tuple(range(extra))", "tensor"),
    ("graph.py unbroadcast", "[i + extra for", "[i for", "tensor"),
    ("graph.py unbroadcast", "g.shape[extra:] == shape", "True", "tensor"),
    ("graph.py unbroadcast", 'g.dtype if g.dtype.kind == "f" else float', "g.dtype", "tensor"),
    ("graph.py no_grad", "this.clear()", "pass", "tensor"),
    ("graph.py no_grad", "tuple(filter(None, unrecorded.get()))", "()", "tensor"),
    ("graph.py unbroadcast", "dtype=np.result_type(g, np.float32)", "dtype=g.dtype", "fused"),
    ("graph.py memoize_last", "before is not g", "before is None", "tensor"),
    # Tensor
    ("tensor.py node", "if t._requires_grad]", "]", "tensor"),
    ("tensor.py node", "if not (open_blocks and any(unrecorded.get()))", "if True", "tensor"),
    ("graph.py no_grad", "open_blocks.add(id(this))", "pass", "tensor"),
    ("graph.py no_grad", "open_blocks.discard(id(this))", "pass", "tensor"),
    ("trace/tape.py record", "open_blocks.discard(id(steps))", "pass", "trace"),
    ("tensor.py node", "if id(steps) in open_blocks]", "]", "trace"),
    ("tensor.py Tensor.replace_array", "array.setflags(False)", "pass", "tensor"),
    ("tensor.py Tensor.backward", "else leaf.grad + g", "else g", "tensor"),
    ("tensor.py Tensor.numpy", ".copy()", "", "tensor"),
    ("tensor.py Tensor.__rsub__", "(other, self)", "(self, other)", "tensor"),
    ("tensor.py as_tensor", "return Tensor.from_array(np.asarray(value, dtype))", "pass", "tensor"),
    ("support/checks.py as_array", "if _holds(data, _masked)", "if False", "tensor"),
    ("support/checks.py as_array", "np.array(data, copy=copy)", "np.asarray(data)", "tensor"),
    ("support/checks.py as_upstream", "np.ones_like(value)", "np.full_like(value, 2)", "tensor"),
    ("ops/arrays.py widened", "x.astype(np.float32) if x.dtype.char == \"e\" else x", "x", "fused"),
    ("ops/layers.py layer_norm", "X = widened(X.reshape(-1, d))", "X = X.reshape(-1, d)", "fused"),
    ("ops/loss.py cross_entropy", "share = widened(g) / n", "share = g / n", "fused"),
    ("ops/others.py log_softmax", "np.minimum(y, 0, dtype=y.dtype)", "y", "fused"),
    # elementwise operations
    ("ops/elementwise.py sub", "lambda g: -g", "lambda g: g", "ops"),
    ("ops/elementwise.py mul", "lambda g: g * y", "lambda g: g * x", "ops"),
    ("ops/elementwise.py div", "-g * value", "g * value", "ops"),
    ("ops/elementwise.py pow", "np.where(n == 0, 1, n - 1)", "n - 1", "ops"),
    ("ops/elementwise.py pow", "(n >= 0), 1, x)", "(n >= 0), 2, x)", "ops"),
    ("ops/elementwise.py sqrt", "lambda g: g / (2 * y)", "lambda g: g / y", "ops"),
    ("ops/elementwise.py tanh", "1 - y * y", "1 - y", "ops"),
    ("ops/elementwise.py relu", "a.data > 0", "a.data >= 0", "ops"),
    ("ops/others.py gelu", "(1 - t * t) * c", "(1 - t * t)", "ops"),
    ("ops/others.py gelu", "(2 / np.pi) ** 0.5", "np.sqrt(2 / np.pi)", "ops"),
    ("ops/others.py where", "np.where(chosen, 0, g)", "np.where(chosen, g, 0)", "ops"),
    # operations on arrays
    ("ops/arrays.py matmul", "g.reshape(shape) @ Y.swapaxes(-1, -2)", "g.reshape(shape) @ Y", "ops"),
    ("ops/arrays.py matmul", "X.swapaxes(-1, -2) @ g", "X @ g", "ops"),
    ("ops/arrays.py matmul", "g.reshape(shape))[..., column]", "g.reshape(shape))", "ops"),
    ("ops/arrays.py mean", "widened(with_axes(g, axes, shape)) / n", "with_axes(g, axes, shape)", "ops"),
    ("ops/others.py max", "(with_axes(g, axes, x.shape) / n)", "with_axes(g, axes, x.shape)", "ops"),
    ("ops/arrays.py with_axes", "if i in axes", "if i + 1 in axes", "ops"),
    ("ops/arrays.py as_axes", "int(i) % a.ndim", "abs(int(i))", "ops"),
    ("ops/arrays.py transpose", "g.transpose(inverse)", "g.transpose(order)", "ops"),
    ("ops/arrays.py getitem", "np.add.at(d, parts, g)", "d[parts] = g", "ops"),
    ("ops/arrays.py concatenate", "part(end - s[axis], end)", "part(0, s[axis])", "ops"),
    ("ops/arrays.py reshape", "or min(shape, default=0) < -1", "", "bad_input"),
    # layers as operations
    ("ops/layers.py linear", "(rows, d) @ W)", "(rows, d) @ W * 2)", "ops"),
    ("ops/layers.py linear", "g.reshape(rows, d).T @ X", "(X.T @ g.reshape(rows, d)).reshape(d, k)", "ops"),
    ("ops/layers.py linear", "edges.append((bias, lambda g: g))", "pass", "ops"),
    ("ops/layers.py linear", "bias.dtype != value.dtype", "False", "bad_input"),
    ("ops/layers.py in_range", "index.view(np.uintp).max()", "index.max()", "ops"),
    ("ops/layers.py embedding", "np.add.at(dweight, places, g)", "dweight[places] = g", "ops"),
    ("ops/layers.py embedding", "widened(g).ravel()", "g.ravel()", "fused"),
    ("ops/layers.py layer_norm", "g -= g.dot(average)[:, None]", "pass", "fused"),
    ("ops/layers.py layer_norm", "g -= xhat * along", "g += xhat * along", "fused"),
    ("ops/layers.py layer_norm", "X - X[:, :1]", "X - 0", "numerics"),
    ("ops/layers.py layer_norm", "np.vecdot(xhat, xhat) / d", "np.vecdot(xhat, xhat) / (d - 1)", "fused"),
    ("ops/arrays.py product", "x.shape[-1] == 5", "False", "numerics"),
    ("ops/layers.py dropout", "mask *= 1 / (1 - p)", "pass", "ops"),
    ("ops/layers.py dropout", ">= p)", ">= 1 - p)", "ops"),
    # softmax, its loss, attention
    ("ops/softmax.py stabilised", "np.subtract(x, top, out=out)", "x", "fused"),
    ("ops/softmax.py stabilised", "refused(top).any()", "False", "ops"),
    ("ops/softmax.py softmax", "g - (widened(g) * y).sum(", "g - g.sum(", "ops"),
    ("ops/others.py log_softmax", "g - np.exp(y) * widened(g)", "g - y * widened(g)", "ops"),
    ("ops/loss.py cross_entropy", "targets] -= share", "targets] -= share * n", "ops"),
    ("extras/fast/head.py linear_cross_entropy", "share / row_sums", "1 / row_sums", "ops"),
    ("extras/fast/head.py linear_cross_entropy", "dW += ", "dW[:] = ", "fused"),
    ("ops/loss.py counted_targets", "targets != ignore_index", "targets >= 0", "ops"),
    ("ops/llama.py rotary", "y[..., 0, :] -=", "y[..., 0, :] +=", "fused"),
    ("ops/llama.py rotary", "turn(g, -sin)", "turn(g, sin)", "fused"),
    ("ops/llama.py rms_norm", "g -= X * along", "g += X * along", "fused"),
    ("ops/llama.py swiglu", "slope += s", "pass", "fused"),
    ("ops/softmax.py causal_mask", "np.tri(n, ", "np.tri(n, k=-1, ", "fused"),
    ("ops/softmax.py causal_mask", "np.tri(n, dtype=dtype)", "np.ones((n, n), dtype)", "fused"),
    ("ops/softmax.py exp_is_safe", "< 30", "< 300", "ops fused numerics"),
    ("ops/softmax.py exp_is_safe", "> -30", "> -300", "ops fused numerics"),
    ("ops/softmax.py masked_exp", "scores -= scores.max(axis=-1, keepdims=True)", "pass", "fused"),
    ("ops/attention.py causal_attention", "c ** 0.5", "c ** 1.0", "fused"),
    ("ops/attention.py causal_attention", "split(x):", "split(x, kv_heads=1):", "fused"),
    ("ops/attention.py causal_attention", "else x.sum(axis=-3, keepdims=True)", "else x[..., :1, :, :]", "fused"),
    ("extras/fast/attention.py blocked_attention", "n_keys = S - T + rows.stop", "n_keys = S", "fused"),
    ("extras/fast/attention.py blocked_attention", "c + 1, S), -1, work)", "c + 1, S), 0, work)", "fused"),
    ("extras/fast/attention.py blocked_attention", "dq *= c ** -0.5", "pass", "fused"),
    ("extras/fast/attention.py blocked_attention", "if need_k:", "if True:", "fused"),
    ("extras/fast/attention.py blocked_attention", "(E, G[..., rows, :c])", "(E, split(g)[..., rows, :])", "fused"),
    ("extras/fast/attention.py _sum", "so_far[..., :part.shape[-2], :] += part", "pass", "fused"),
    # modules and the transformer
    ("nn.py Module.named_parameters", " and id(value) not in seen", "", "nn transformer"),
    ("nn.py Module.named_modules", "self not in seen", "True", "bad_input"),
    ("nn.py Module.load_state_dict", "if problems", "if False", "nn"),
    ("nn.py Module.load_state_dict", 'if getattr(m, "merged", False)', "if False", "bad_input"),
    ("nn.py Module.train", "module.training", "self.training", "nn"),
    ("nn.py Dropout.forward", "self.training and self.p", "self.p", "nn"),
    ("nn.py evaluating", "module.training = mode", "pass", "generate"),
    ("transformer.py Block.forward", "x = x + ", "x = ", "transformer"),
    ("transformer.py Block.forward", "ops.relu", "ops.gelu", "transformer"),
    ("decoder.py Decoder.prepare", "return ids, start,", "return ids, 0,", "transformer"),
    ("decoder.py Decoder._cached", "!= self.layers", "== 0", "bad_input"),
    ("generate.py _choice", " / temperature", "", "generate"),
    ("generate.py _sampled", "np.where(stopped, seen[:, -1], new)", "new", "generate"),
    ("generate.py _sampled", "model.lacking", "[]", "generate"),
    ("generate.py _nucleus", "reached[:, :-1] >=", "reached[:, 1:] >=", "generate"),
    ("generate.py _nucleus", "(1 - 1e-9) * ", "", "generate"),
    ("decoder.py LayerCache.append", "before:S] = k.data, v.data", "before:S] = k.data, k.data", "llama"),
    ("decoder.py LayerCache.append", "any(t.requires_grad for t in (k, v, *self.kept))", "False", "llama"),
    ("decoder.py Decoder.head_weight", "type(self.lm_head) not in (type(None), Linear, QuantizedLinear)", "False", "llama"),
    ("decoder.py Decoder.head_weight", "if not plain or", "if", "llama"),
    ("decoder.py Decoder.refuse_left_padding", " & ~padding.all(axis=1)", "", "llama"),
    ("llama.py CausalSelfAttention.forward", "self.n_heads, self.n_kv_heads))", "self.n_heads))", "llama"),
    ("llama.py frequencies", 'f / scaling["factor"]', "f", "llama"),
    ("llama.py frequencies", "-2 * np.arange", "2 * np.arange", "llama"),
    ("llama.py MLP.forward", "ops.swiglu(self.gate_proj(x), self.up_proj(x))",
     "ops.swiglu(self.up_proj(x), self.gate_proj(x))", "llama"),
    ("generate.py _sampled", "seen[:, -((context + 1) // 2):]", "seen", "generate"),
    # LoRA
    ("lora.py LoraLinear.__init__", "np.zeros(", "np.ones(", "lora"),
    ("lora.py LoraLinear.__init__", "rng.uniform(-k ** -0.5, k ** -0.5,", "rng.uniform(-1, 1,", "lora"),
    ("lora.py LoraLinear.__init__", "base.freeze()", "pass", "lora"),
    ("lora.py LoraLinear.forward", "self.lora_A) * self.scaling", "self.lora_A)", "lora"),
    ("lora.py LoraLinear.forward", "self.lora_dropout(x)", "x", "lora"),
    ("lora.py LoraLinear.delta", "self.scaling * ", "", "lora"),
    ("lora.py LoraLinear.merge", "if not self.merged", "if True", "lora"),
    ("lora.py LoraLinear.unmerge", "self.weight, self._w0 = self._w0, None",
     "self.weight = Tensor(self.weight.data - self.delta())", "lora"),
    ("lora.py _check_not_trained", "if layer.training and grad_enabled()", "if False", "lora"),
    ("lora.py _ends", 'f".{path}".endswith(f".{name}")', "path.endswith(name)", "lora"),
    ("lora.py add_lora", "model.freeze()", "pass", "lora"),
    ("lora.py add_lora", "t.requires_grad = True", "pass", "bad_input"),
    ("config.py LoraConfig.scaling", " if self.use_rslora else self.r", "", "lora"),
    ("extras/adapters.py add_adapter", "        _swap(model, before)\n        raise", "        raise", "adapters"),
    ("extras/adapters.py combine", "w * layer.scaling * layer", "w * layer", "adapters"),
    ("extras/variants.py LoraPlus.__init__", "ratio * lr, **settings", "lr, **settings", "variants"),
    ("extras/variants.py PissaLinear.__init__", "W0 - self.delta()", "W0", "variants"),
    ("extras/variants.py DoraLinear.forward", "self.weight.data + super().delta()", "self.weight.data", "variants"),
    # optimizers and training
    ("optim.py SGD.update", "self.momentum * self.v[part] + g", "self.v[part] + g", "optim"),
    ("optim.py AdamW.update", "v / (1 - beta2 ** t)", "v", "optim"),
    ("optim.py AdamW.update", "m / (1 - beta1 ** t)", "m", "optim"),
    ("optim.py AdamW.update", " + self.eps", "", "optim"),
    ("optim.py AdamW.update", "(1 - beta1) * g", "g", "optim"),
    ("optim.py Optimizer._move", "(1 - self.lr * self.weight_decay)", "(1 - self.lr * self.weight_decay) ** 2", "optim"),
    ("optim.py Optimizer._move", "1 - self.lr * self.weight_decay", "1 - self.weight_decay", "optim"),
    ("optim.py Optimizer.step", "map(add, self.steps, reached)", "map(add, self.steps, [2] * len(reached))", "optim"),
    ("optim.py Optimizer.step", "all(reached) and", "", "optim"),
    ("optim.py Optimizer.__init__", "np.result_type(np.float32, *", "np.result_type(*", "optim"),
    ("optim.py Optimizer._move", "axis=None, dtype=self.dtype)", "axis=None)", "optim"),
    ("optim.py Optimizer._move", "not all(map(is_, arrays, parts))", "False", "optim"),
    ("optim.py Optimizer._move", "start - begin:end - begin", "start:end", "optim"),
    ("extras/fast/parallel.py _shared_out", "m / sum(counts)", "1 / n", "parallel"),
    ("extras/fast/parallel.py _shared_out", " if m]", "]", "parallel"),
    ("extras/fast/parallel.py _shared_out", "d if g == 1 else g * d", "d", "parallel"),
    ("optim.py Optimizer._check_gradients", "g.shape != array.shape or", "", "bad_input"),
    ("optim.py Optimizer._check_gradients", '{g.dtype.kind for g in gradients} == {"f"}', "True", "bad_input"),
    ("optim.py Optimizer._check_gradients", "[g.shape for g in gradients] == [a.shape for a in arrays]", "True",
     "bad_input"),
    ("optim.py Optimizer.state_dict", "array.copy()", "array", "optim"),
    ("optim.py warmup_cosine", "if fall else steps > 1", "if fall else 0", "optim"),
    ("optim.py warmup_cosine", "(step + 1) / warmup", "step / warmup", "optim"),
    ("optim.py clip_grad_norm", "max_norm < norm < math.inf", "max_norm < norm", "optim"),
    ("optim.py clip_grad_norm", "p.grad * (max_norm / norm)", "p.grad * (max_norm / norm) ** 2", "optim"),
    ("train.py fit", "optimizer.zero_grad()", "pass", "train"),
    ("train.py _checked_loss", '_check_finite("loss", value.item(), step, optimizer)', "pass", "train"),
    ("train.py evaluate", "np.average(losses, weights=[count_targets(x, y) for x, y in batches])", "np.mean(losses)",
     "train"),
    ("data.py count_targets", "return len(x)", "return 1", "train"),
    ("data.py count_targets", 'y.size if y.dtype.kind == "f" else ', "", "train"),
    ("generate.py _refuse_right_padding", "0 < len(padded) < len(prompt)", "False", "generate"),
    ("train.py next_token_loss", "out[:, -y.shape[1]:]", "out[:, :y.shape[1]]", "train"),
    ("train.py _check_fit", "if not own.intersection(optimizer.parameters)", "if False", "bad_input"),
    # data and files
    ("data.py batches", "ids[at + 1]", "ids[at]", "data"),
    ("data.py batches", "len(ids) - context", "len(ids) - context - 1", "data"),
    ("tokenizer.py CharTokenizer.encode", "if len(wrong)", "if False", "data"),
    ("tokenizer.py BPETokenizer._merged", "parts[i] != left or", "", "tokenizer"),
    ("tokenizer.py BPETokenizer._merged", "before[after[i]] = i", "pass", "tokenizer"),
    ("tokenizer.py BPETokenizer._merged", "(before[i], i), ", "", "tokenizer"),
    ("tokenizer.py BPETokenizer.encode", "if special else self.added", "", "tokenizer"),
    ("tokenizer.py BPETokenizer._piece_ids", "self.ignore_merges and", "False and", "tokenizer tokenizers"),
    ("tokenizer.py _any_of", ", reverse=True", "", "tokenizer"),
    ("tokenizer.py _ranks", "if pair[0] + pair[1] not in special", "", "tokenizer"),
    ("support/token_ids.py check_tokenizer", "own and kind and kind != own", "False", "tokenizer"),
    ("support/patterns.py _characters", "letter.isupper() !=", "False !=", "tokenizer"),
    ("checkpoint/tokenizer_json.py _around", "side = suffix", "pass", "tokenizers"),
    ("checkpoint/tokenizers.py from_gguf", "if types[i] != UNUSED", "", "tokenizers"),
    ("checkpoint/tokenizers.py _with_special_tokens", "(*ends, eos)", "(eos, *ends)", "tokenizers"),
    ("extras/tuning/rows.py to_row", ">= given", "> given", "rows"),
    ("extras/tuning/rows.py to_row", "learned.append(tokenizer.eos_id)", "pass", "rows"),
    ("extras/tuning/rows.py with_prefix", "ids if ids[:len(prefix)] == prefix else prefix + ids", "prefix + ids", "rows"),
    ("extras/tuning/rows.py to_rows", "<= context + 1", "<= context", "rows"),
    ("extras/tuning/rows.py split_rows", "(row.ids.tobytes(), row.target.tobytes())", "i", "rows"),
    ("extras/tuning/rows.py pad", "target[1:]", "target[:-1]", "rows"),
    ("extras/tuning/rows.py pad", "np.where(target[1:], ids[1:], IGNORE)", "np.where(ids[1:] == 257, IGNORE, ids[1:])", "rows"),
    ("extras/tuning/rows.py RowBatches.__next__", "[self.seed, turn]", "self.seed", "rows"),
    ("extras/tuning/rows.py RowBatches.__next__", "[turn + 1, 0]", "[turn, 0]", "rows"),
    ("extras/tuning/rows.py _checked", "if padding >", "if False >", "rows"),
    ("extras/tuning/tune.py tune", "settings.steps + 1", "settings.steps", "tune"),
    ("extras/tuning/chatml.py chat_ids", "special=False", "special=True", "rows"),
    ("extras/tuning/chatml.py chat_ids", 'messages[0]["role"] != "system"', "True", "rows"),
    ("checkpoint/atomic.py atomic_write", 'folder / f".{name}.{stamp}", "xb"', 'folder / name, "wb"', "checkpoint"),
    ("checkpoint/atomic.py atomic_write", "Path(file.name).unlink(missing_ok=True)", "pass", "checkpoint"),
    ("checkpoint/safetensors.py read", "if start + end != len(raw)", "if False", "checkpoint"),
    ("checkpoint/safetensors.py read", "if begin != end", "if False", "checkpoint"),
    ("checkpoint/safetensors.py read", ".tobytes().decode()", '.tobytes().decode("utf-8", "replace")', "safetensors"),
    ("checkpoint/safetensors.py _object", "if len(found) < len(pairs)", "if False", "safetensors"),
    ("checkpoint/safetensors.py _object", "text.encode()", "pass", "safetensors"),
    ("checkpoint/safetensors.py _whole", "not text.isdigit() or", "", "safetensors"),
    ("checkpoint/atomic.py file_bytes", "os.path.getsize(path) < MAPPED", "False", "safetensors"),
    ("checkpoint/atomic.py _check_fetched", "if content.startswith(LFS)", "if False", "checkpoint"),
    ("checkpoint/atomic.py read_json", "if not os.path.isfile(path)", "if False", "checkpoint"),
    ("checkpoint/families.py", "POSITION_OFFSET = 2", "POSITION_OFFSET = 0", "reference checkpoint"),
    ("checkpoint/models.py load_model", "[POSITION_OFFSET:]", "[:-POSITION_OFFSET]", "checkpoint"),
    ("checkpoint/peft.py", "if given.get(option) != value", "if False", "checkpoint"),
    ("checkpoint/peft.py load_adapter", "if check_base", "if False", "checkpoint"),
    ("support/slopes.py upstream_gradients", "rng.choice([-1.0, 1.0], y.shape) * rng.uniform(1.5, 2.5, y.shape)",
     "np.ones(y.shape)", "gradcheck"),
    ("gradcheck.py _compare", "wrong = np.any(off > 1)", "wrong = False", "gradcheck"),
    ("gradcheck.py _compare_calls", "1e-9", "1e9", "gradcheck"),
    ("gradcheck.py _check", 'row.verdict == "wrong"', "True", "gradcheck"),
    ("gradcheck.py _likeness", 'not in ("0", "1")', 'not in ("0",)', "gradcheck"),
    ("support/slopes.py upstream_gradients", "*(np.where(order == n, -g, 0) for n in np.unique(order))", "-g",
     "gradcheck"),
    ("support/slopes.py upstream_gradients", "1000 * g", "g", "gradcheck"),
    ("support/slopes.py upstream_gradients", "np.full(g.shape, -0.001)", "-g", "gradcheck"),
    ("support/slopes.py _laid_out", "np.repeat(g[..., None], 2, -1)[..., 0]", "g.copy()", "gradcheck"),
    ("support/slopes.py _laid_out", "np.flip(np.flip(g).copy())", "g.copy()", "gradcheck"),
    ("support/slopes.py Slopes.closer", "np.abs(4 * kink[1:] - kink[:-1]) / 6", "0", "gradcheck"),
    ("support/slopes.py Slopes.closer", "+ rounding[1:] + missed)", ")", "gradcheck"),
    ("support/slopes.py Slopes.closer", "64 * max(1, x)", "1e-5", "gradcheck"),
    ("support/slopes.py Slopes.closer", "2.0 ** -50 * min(1, x) or 2.0 ** -80", "1e-7", "gradcheck"),
]


def plant(place, old, new, root=ROOT):
    """(the file, its text, the text with the fault). Raises ValueError where the old text does not stand there once."""
    file, _, name = place.partition(" ")
    path = root / "lora_np" / file
    text = path.read_text(encoding="utf-8")
    lines, first, last = text.splitlines(True), 0, None
    if name:
        found = ast.parse(text)
        for part in name.split("."):
            found = next((n for n in found.body if getattr(n, "name", None) == part), ast.Module([], []))
        if not hasattr(found, "lineno"):
            raise ValueError(f"{place}: there is no such function")
        first, last = found.lineno - 1, found.end_lineno
    before, inside = "".join(lines[:first]), "".join(lines[first:last])
    if inside.count(old) != 1:
        raise ValueError(f"{place}: {old!r} stands there {inside.count(old)} times")
    return path, text, before + inside.replace(old, new) + text[len(before) + len(inside):]


def misfits():
    """What is wrong with the faults that do not fit the code any more."""
    wrong = []
    for place, old, new, _ in FAULTS:
        try:
            plant(place, old, new)
        except (ValueError, OSError) as error:
            wrong.append(str(error))
    return wrong


def run(copy, names, seconds=SECONDS):
    """Whether these test files pass in the copy; None where they do not end in time."""
    files = [next((copy / "tests").glob(f"*/test_{name}.py")).relative_to(copy) for name in names]
    clean = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run([sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files], cwd=copy,
                              env=clean, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode not in (0, 1, 2):  # 2: an error while a test file was imported
        raise RuntimeError(done.stdout.decode()[-2000:] + done.stderr.decode()[-2000:])
    return done.returncode == 0


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.hard.mutations", description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, metavar="N", help="only N of them, drawn at random")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="for the sample (default 0)")
    options = parser.parse_args(arguments)
    if wrong := misfits():
        print("\n".join(wrong), file=sys.stderr)
        return 2
    chosen = FAULTS if options.sample is None else random.Random(options.seed).sample(FAULTS, options.sample)
    begin, survivors = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("lora_np", "tests", "lessons", "pyproject.toml", "README.md"):
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / part, copy / part)
        if not run(copy, sorted({name for *_, tests in chosen for name in tests.split()}), 10 * SECONDS):
            print("the tests do not pass without a fault either", file=sys.stderr)
            return 2
        for i, (place, old, new, tests) in enumerate(chosen, 1):
            path, right, wrong = plant(place, old, new, copy)
            path.write_text(wrong, encoding="utf-8")
            caught = not run(copy, tests.split())
            path.write_text(right, encoding="utf-8")
            print(f"{i:>3}/{len(chosen)} {'caught' if caught else 'SURVIVED'}  {place}: {old.strip()[:60]!r} -> "
                  f"{new.strip()[:40]!r}", flush=True)
            survivors += [] if caught else [place]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} faults caught, in {time.perf_counter() - begin:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
