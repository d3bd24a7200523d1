"""Does a small fault in lora_np make a test fail? python -m tests.hard.mutations [--sample N --seed S]

Each fault is (file, old text, new text, tests): in a copy of the project the old text, which stands there once, is
put out for the new, and the named test files must then fail. A fault that they miss is a survivor: the tests are
mended until there is none. Exit status: 0, or 1 with survivors, or 2 where a fault does not fit the code any more.
"""

import argparse
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
    ("graph.py", "np.add(pending[target], d, out=d if ours and d.ndim else None)", "d", "tensor"),
    ("graph.py", "np.add(pending[target], d,", "np.subtract(pending[target], d,", "tensor"),
    ("graph.py", "ours = d is not g and d.base is None and d.flags.writeable", "ours = True", "tensor"),
    ("graph.py", "d = d.copy()  # a leaf's", "d = d + 0 if d is g else d  # a leaf's", "tensor"),
    ("graph.py", "if not retain_graph:", "if retain_graph:", "tensor"),
    ("graph.py", 'key=attrgetter("serial"), reverse=True', 'key=attrgetter("serial"), reverse=False', "tensor"),
    ("graph.py", "g = pending.pop(this)", "g = pending[this]", "tensor"),
    ("graph.py", "return np.asarray(d, target.dtype)", "return d", "tensor"),
    ("graph.py", "extra = g.ndim - len(shape)", "extra = g.ndim - len(shape) - 1", "tensor"),
    ("graph.py", "g.sum(axis=(*range(extra), *stretched))", "g.sum(axis=tuple(range(extra)))", "tensor"),
    ("graph.py", "stretched = [i + extra for", "stretched = [i for", "tensor"),
    ("graph.py", "if shape and not stretched:", "if shape:", "tensor"),
    ("graph.py", 'g.dtype if g.dtype.kind == "f" else float', "g.dtype", "tensor"),
    ("graph.py", "        grad_enabled.reset(token)", "        pass", "tensor"),
    ("graph.py", "if last[0] is not g:", "if last[0] is None:", "tensor"),
    # Tensor
    ("tensor.py", "if t._requires_grad]", "]", "tensor"),
    ("tensor.py", "if grad_enabled.get():", "if True:", "tensor"),
    ("tensor.py", "array.setflags(write=False)", "pass", "tensor"),
    ("tensor.py", "leaf.grad = g if leaf.grad is None else leaf.grad + g", "leaf.grad = g", "tensor"),
    ("tensor.py", "return self._data.copy()", "return self._data", "tensor"),
    ("tensor.py", 'def __rsub__(self, other): return operations["sub"](other, self)',
     'def __rsub__(self, other): return operations["sub"](self, other)', "tensor"),
    ("tensor.py", "        return Tensor.from_array(np.asarray(value, dtype))\n", "        pass\n", "tensor"),
    ("support/checks.py", "return np.array(data, copy=copy)", "return np.asarray(data)", "tensor"),
    ("support/checks.py", "return np.ones_like(value)", "return np.full_like(value, 2)", "tensor"),
    # elementwise operations
    ("ops/elementwise.py", "(b, lambda g: -g))", "(b, lambda g: g))", "ops"),
    ("ops/elementwise.py", "(a, lambda g: g * y),\n                (b, lambda g: g * x))",
     "(a, lambda g: g * x),\n                (b, lambda g: g * y))", "ops"),
    ("ops/elementwise.py", "(b, lambda g: -g * value / y))", "(b, lambda g: g * value / y))", "ops"),
    ("ops/elementwise.py", "down = np.where(n == 0, 1, n - 1)", "down = n - 1", "ops"),
    ("ops/elementwise.py", "g * value * np.log(np.where(x == 0, 1, x))",
     "g * value * np.log(np.where(x == 0, 2, x))", "ops"),
    ("ops/elementwise.py", "lambda g: g / (2 * y)", "lambda g: g / y", "ops"),
    ("ops/elementwise.py", "lambda g: g * (1 - y * y)", "lambda g: g * (1 - y)", "ops"),
    ("ops/elementwise.py", "positive = a.data > 0", "positive = a.data >= 0", "ops"),
    ("ops/elementwise.py", "0.5 * x * (1 - t * t) * c", "0.5 * x * (1 - t * t)", "ops"),
    ("ops/elementwise.py", "c = (2 / np.pi) ** 0.5", "c = np.sqrt(2 / np.pi)", "ops"),
    ("ops/elementwise.py", "(b, lambda g: np.where(chosen, 0, g)))", "(b, lambda g: np.where(chosen, g, 0)))", "ops"),
    # operations on arrays
    ("ops/arrays.py", "(a, lambda g: whole(g) @ columns.swapaxes(-1, -2))", "(a, lambda g: whole(g) @ columns)", "ops"),
    ("ops/arrays.py", "d = rows.swapaxes(-1, -2) @ whole(g)", "d = rows @ whole(g)", "ops"),
    ("ops/arrays.py", "return d[..., 0] if column else d", "return d", "ops"),
    ("ops/arrays.py", "_kept(g, axes, shape) / n, shape", "_kept(g, axes, shape), shape", "ops"),
    ("ops/arrays.py", " / ties.sum(axis=axes, keepdims=True, dtype=g.dtype))", ")", "ops"),
    ("ops/arrays.py", "1 if i in axes else n for i, n in", "1 if i + 1 in axes else n for i, n in", "ops"),
    ("ops/arrays.py", "axes = tuple(int(i) % a.ndim for i in axes)", "axes = tuple(abs(int(i)) for i in axes)", "ops"),
    ("ops/arrays.py", "lambda g: g.transpose(inverse)", "lambda g: g.transpose(order)", "ops"),
    ("ops/arrays.py", "np.add.at(d, parts, g)", "d[parts] = g", "ops"),
    ("ops/arrays.py", "part(end - s[axis], end)", "part(0, s[axis])", "ops"),
    ("ops/arrays.py", "or min(shape, default=0) < -1", "", "bad_input"),
    # layers as operations
    ("ops/layers.py", "(g.reshape(rows, d) @ W).reshape(shape)", "(g.reshape(rows, d) @ W * 2).reshape(shape)", "ops"),
    ("ops/layers.py", "g.reshape(rows, d).T @ X.reshape(rows, k)",
     "(X.reshape(rows, k).T @ g.reshape(rows, d)).reshape(d, k)", "ops"),
    ("ops/layers.py", "        edges.append((bias, lambda g: g))", "        pass", "ops"),
    ("ops/layers.py", "        if bias.dtype != value.dtype:  # +=", "        if False:  # +=", "bad_input"),
    ("ops/layers.py", "0 <= ids.min() <= ids.max() < size", "ids.max() < size", "ops"),
    ("ops/layers.py", "out[rows] = np.add.reduceat(g.reshape(len(flat), d)[order], starts)",
     "out[flat] = g.reshape(len(flat), d)", "ops"),
    ("ops/layers.py", "g -= (g @ average)[:, None]", "pass", "fused"),
    ("ops/layers.py", "g -= xhat * along", "g += xhat * along", "fused"),
    ("ops/layers.py", "np.vecdot(xhat, xhat) / d + eps", "np.vecdot(xhat, xhat) / (d - 1) + eps", "fused"),
    ("ops/layers.py", "mask *= 1 / (1 - p)", "pass", "ops"),
    ("ops/layers.py", ">= p).astype(x.dtype)", ">= 1 - p).astype(x.dtype)", "ops"),
    # softmax, its loss, attention
    ("ops/attention.py", "return x - top", "return x", "fused"),
    ("ops/attention.py", "    if refused(top).any():", "    if False:", "ops"),
    ("ops/attention.py", "y * (g - (g * y).sum(axis=axis, keepdims=True))",
     "y * (g - g.sum(axis=axis, keepdims=True))", "ops"),
    ("ops/attention.py", "g - np.exp(y) * g.sum(axis=axis, keepdims=True)",
     "g - y * g.sum(axis=axis, keepdims=True)", "ops"),
    ("ops/attention.py", "d[rows, targets] -= g / n", "d[rows, targets] -= g", "ops"),
    ("ops/attention.py", "np.tri(n, dtype=dtype)", "np.tri(n, k=-1, dtype=dtype)", "fused"),
    ("ops/attention.py", "np.tri(n, dtype=dtype)", "np.ones((n, n), dtype)", "fused"),
    ("ops/attention.py", "root = c ** -0.5", "root = c ** -1.0", "fused"),
    ("ops/attention.py", "(30 if x.itemsize > 2 else 3)", "30", "fused"),
    ("ops/attention.py", "    scores -= scores.max(axis=-1, keepdims=True)\n", "", "fused"),
    ("ops/attention.py", "seen = S - T + rows.stop", "seen = S", "fused"),
    ("ops/attention.py", "VT = np.full((*V.shape[:-2], c + 1, S), -1, dtype)",
     "VT = np.zeros((*V.shape[:-2], c + 1, S), dtype)", "fused"),
    ("ops/attention.py", "        dq *= root\n", "", "fused"),
    ("ops/attention.py", "            if need_k:", "            if True:", "fused"),
    ("ops/attention.py", "E.swapaxes(-1, -2), G[..., rows, :c]", "E.swapaxes(-1, -2), split(g)[..., rows, :]", "fused"),
    ("ops/attention.py", "    so_far[..., :part.shape[-2], :] += part\n", "", "fused"),
    ("ops/attention.py", "heads, x.shape[-1] // heads).swapaxes(-2, -3)",
     "x.shape[-1] // heads, heads).swapaxes(-1, -2).swapaxes(-2, -3)", "fused"),
    # modules and the transformer
    ("nn.py", 'if isinstance(value, Tensor) and not name.startswith("_") and id(value) not in seen:',
     'if isinstance(value, Tensor) and not name.startswith("_"):', "nn transformer"),
    ("nn.py", "        if self not in seen:", "        if True:", "bad_input"),
    ("nn.py", "        if problems:\n", "        if False:\n", "nn"),
    ("nn.py", "module.training = mode", "self.training = mode", "nn"),
    ("nn.py", "if self.training and self.p else x", "if self.p else x", "nn"),
    ("nn.py", 'if getattr(m, "merged", False)]', "if False]", "bad_input"),
    ("transformer.py", "x = x + self.dropout(self.self_attn(", "x = self.dropout(self.self_attn(", "transformer"),
    ("transformer.py", "ops.relu(self.fc1(", "ops.gelu(self.fc1(", "transformer"),
    ("transformer.py", "np.arange(start, stop)", "np.arange(stop - start)", "transformer"),
    ("generate.py", "logits / temperature + rng", "logits + rng", "transformer"),
    ("generate.py", "out[:, -((context + 1) // 2):]", "out[:, -context:]", "transformer"),
    ("transformer.py", "for kept in cache] != self.layers:", "for kept in cache] == 0:", "bad_input"),
    ("generate.py", "    finally:\n        model.train(was_training)", "    finally:\n        pass", "transformer"),
    # LoRA
    ("lora.py", "parameter(np.zeros((d, config.r)),", "parameter(np.ones((d, config.r)),", "lora"),
    ("lora.py", "rng.uniform(-k ** -0.5, k ** -0.5, (config.r, k))", "rng.uniform(-1, 1, (config.r, k))", "lora"),
    ("lora.py", "self.lora_A) * self.scaling  #", "self.lora_A)  #", "lora"),
    ("config.py", "self.r ** 0.5 if self.use_rslora else self.r", "self.r ** 0.5", "lora"),
    ("lora.py", "            t.requires_grad = False\n\n    def forward",
     "            pass\n\n    def forward", "lora"),
    ("lora.py", "    model.freeze()\n", "", "lora"),
    ("lora.py", "return self.scaling * (self.lora_B.data", "return (self.lora_B.data", "lora"),
    ("lora.py", "if not self.merged:\n", "if True:\n", "lora"),
    ("lora.py", "self.weight, self._w0 = self._w0, None",
     "self.weight = Tensor(self.weight.data - self.delta())", "lora"),
    ("lora.py", "if self.training and grad_enabled.get():", "if False:", "lora"),
    ("lora.py", "self.lora_dropout(x), self.lora_A)", "x, self.lora_A)", "lora"),
    ("lora.py", 'f".{path}".endswith(f".{name}")', "path.endswith(name)", "lora"),
    ("lora.py", "        for t in trained:\n            t.requires_grad = True\n", "", "bad_input"),
    ("extras/adapters.py", "        _swap(model, before)\n        raise", "        raise", "adapters"),
    ("extras/adapters.py", "w * layer.scaling * layer.lora_B.data", "w * layer.lora_B.data", "adapters"),
    ("extras/variants.py", "ratio * lr, **settings)", "lr, **settings)", "variants"),
    ("extras/variants.py", "self.weight = Tensor(W0 - self.delta())", "self.weight = Tensor(W0)", "variants"),
    ("extras/variants.py", "self.lora_magnitude_vector / _lengths(self.weight.data + super().delta())",
     "self.lora_magnitude_vector / _lengths(self.weight.data)", "variants"),
    # optimizers and training
    ("optim.py", "v *= self.momentum", "pass", "optim"),
    ("optim.py", "g *= float(1 - beta2 ** t) ** -0.5", "pass", "optim"),
    ("optim.py", "g *= self.lr / float(1 - beta1 ** t)", "g *= self.lr", "optim"),
    ("optim.py", "        g += self.eps\n", "", "optim"),
    ("optim.py", "m += (1 - beta1) * g", "m += g", "optim"),
    ("optim.py", "kept = p.data * (1 - self.lr * self.weight_decay)",
     "kept = p.data * (1 - self.lr * self.weight_decay) ** 2", "optim"),
    ("optim.py", "kept = p.data * (1 - self.lr * self.weight_decay)",
     "kept = p.data * (1 - self.weight_decay)", "optim"),
    ("optim.py", "            self.steps[i] += 1", "            self.steps[i] += 2", "optim"),
    ("optim.py", "p.grad.shape != p.shape or", "False or", "bad_input"),
    ("optim.py", "return lr * (step + 1) / warmup", "return lr * step / warmup", "optim"),
    ("optim.py", "if max_norm < norm < math.inf:", "if max_norm < norm:", "optim"),
    ("optim.py", "p.grad = p.grad * (max_norm / norm)", "p.grad = p.grad * (max_norm / norm) ** 2", "optim"),
    ("train.py", "            optimizer.zero_grad()\n", "", "train"),
    ("train.py", '            _check_finite("loss", value.item(), step, optimizer)\n', "", "train"),
    ("train.py", "            return float(np.mean(", "            return float(np.sum(", "train"),
    ("train.py", "logits[:, -y.shape[1]:]", "logits[:, :y.shape[1]]", "train"),
    ("train.py", "if not own.intersection(optimizer.parameters):", "if False:", "bad_input"),
    # data and files
    ("data.py", "yield ids[at], ids[at + 1]", "yield ids[at], ids[at]", "data"),
    ("data.py", "rng.integers(0, len(ids) - context, (batch, 1))",
     "rng.integers(0, len(ids) - context - 1, (batch, 1))", "data"),
    ("tokenizer.py", "        if len(wrong):\n", "        if False:\n", "data"),
    ("checkpoint/atomic.py", 'open(folder / f".{name}.{stamp}", "xb")', 'open(folder / name, "wb")', "checkpoint"),
    ("checkpoint/atomic.py", "Path(file.name).unlink(missing_ok=True)", "pass", "checkpoint"),
    ("checkpoint/safetensors.py", "        if start + end != len(raw):", "        if False:", "checkpoint"),
    ("checkpoint/safetensors.py", "if begin != end:", "if False:", "checkpoint"),
    ("checkpoint/models.py", "OPT_POSITION_OFFSET = 2", "OPT_POSITION_OFFSET = 0", "reference checkpoint"),
    ("checkpoint/models.py", 'arrays["embed_positions.weight"][OPT_POSITION_OFFSET:]',
     'arrays["embed_positions.weight"][:-OPT_POSITION_OFFSET]', "checkpoint"),
    ("checkpoint/peft.py", "        if given.get(option) != value:", "        if False:", "checkpoint"),
    ("checkpoint/peft.py", "            if metadata.get(key, value) != value:", "            if False:", "checkpoint"),
    ("gradcheck.py", "rng.choice([-1.0, 1.0], y.shape) * rng.uniform(1.5, 2.5, y.shape)",
     "np.ones(y.shape)", "gradcheck"),
    ("gradcheck.py", "ok = excess[worst] <= 1", "ok = True", "gradcheck"),
]


def misfits():
    """The faults whose old text does not stand exactly once in their file."""
    return [(file, old) for file, old, _, _ in FAULTS
            if (ROOT / "lora_np" / file).read_text(encoding="utf-8").count(old) != 1]


def run(copy, names):
    """Whether these test files pass in the copy; None where they do not end."""
    files = [next((copy / "tests").glob(f"*/test_{name}.py")) for name in names]
    clean = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run([sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files], cwd=copy,
                              env=clean, capture_output=True, timeout=SECONDS, check=False)
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
        print("\n".join(f"{file}: does not hold once: {old!r}" for file, old in wrong), file=sys.stderr)
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
        if not run(copy, sorted({name for *_, tests in chosen for name in tests.split()})):
            print("the tests do not pass without a fault either", file=sys.stderr)
            return 2
        for i, (file, old, new, tests) in enumerate(chosen, 1):
            path = copy / "lora_np" / file
            right = path.read_text(encoding="utf-8")
            path.write_text(right.replace(old, new), encoding="utf-8")
            caught = not run(copy, tests.split())
            path.write_text(right, encoding="utf-8")
            print(f"{i:>3}/{len(chosen)} {'caught' if caught else 'SURVIVED'}  {file}: {old.strip()[:60]!r} -> "
                  f"{new.strip()[:40]!r}", flush=True)
            survivors += [] if caught else [(file, old, new)]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} faults caught, in {time.perf_counter() - begin:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
