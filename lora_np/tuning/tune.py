"""Fine-tuning on one's own data, a training that can be stopped at any step and gone on with bit for bit.

Beside the adapter, which PEFT opens, its folder holds training_state.json and training_state.safetensors: the settings,
the step, the place in the data, and the optimizer's arrays.
"""

import hashlib
import io
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..checkpoint import load_adapter, load_model, load_tokenizer, safetensors, save_adapter
from ..checkpoint.atomic import read_json
from ..config import LoraConfig
from ..lora import add_lora, trainable_summary
from ..nn import Dropout, Linear
from ..optim import AdamW, warmup_cosine
from ..support.checks import check_int, check_number
from ..tokenizer import check_tokenizer
from ..train import fit
from .rows import RowBatches, pad, read_rows, read_text, split_rows, text_rows, to_rows

STATE = "training_state"
SAVED_EVERY = 20  # steps


@dataclass(frozen=True)
class Settings:
    """What a training depends on beside its model and its data."""

    r: int = 8
    alpha: float = 16
    targets: str = "q_proj,v_proj"
    steps: int = 60
    batch: int = 4
    lr: float = 2e-3
    context: int = 256
    held_out: float = 0.1
    seed: int = 0
    quantized: bool = False

    def __post_init__(self):
        check_int("tune", r=self.r, steps=self.steps, batch=self.batch, context=self.context)
        check_int("tune", least=0, seed=self.seed)
        check_number("tune", alpha=self.alpha, lr=self.lr)
        check_number("tune", below=1, held_out=self.held_out)


def tune(model_path, data, out, given, text=False, resume=False):
    """Train an adapter on a file, keep it in the folder `out`, and return a line that sums up.

    data: a file of rows, JSON lines, or with text=True of plain text. given: {name: value} of the Settings that were
    chosen. resume: go on with the training that `out` holds. Ctrl-C keeps the last whole step, and so does a loss that
    is no longer finite. Raises ValueError, before anything is written, for what cannot be trained on.
    """
    before = _read_state(out) if resume else None
    settings = _check_same(given, before, out) if resume else Settings(**given)
    content = Path(data).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if resume and before["data"] != digest:
        raise ValueError(f"--resume: {data} is not the data that {out} was trained on; begin anew with another --out")
    if resume and before["step"] == settings.steps:
        raise ValueError(f"--resume: {out} holds all {settings.steps} steps of its training; there is nothing to go on "
                         "with")
    if not resume:
        check_out(out)
    model, tokenizer = load_model(model_path, quantized=settings.quantized), load_tokenizer(model_path)
    check_tokenizer(model, tokenizer)
    if "context" not in given:
        settings = replace(settings, context=min(settings.context, model.config.context))
    if settings.context > model.config.context:
        raise ValueError(f"--context {settings.context}: the model's own is {model.config.context}, which is the most")
    form, train, held, left_out = _rows(data, tokenizer, settings, text)
    if resume:
        load_adapter(model, out)
    else:
        add_lora(model, LoraConfig(settings.r, settings.alpha, resolve(model, settings.targets), seed=settings.seed))

    run = Run(model, AdamW(model.trainable_parameters(), settings.lr), RowBatches(train, settings.batch, settings.seed),
              out, {"data": digest, "form": form, "model": str(model_path), "settings": asdict(settings)})
    if resume:
        run.go_on_from(before)
    _say(trainable_summary(model))
    _say(f"{len(train)} rows to train on, {len(held)} held out"
         + ": there are too few to hold any out" * (not held and settings.held_out > 0)
         + f"; {left_out} left out, longer than {settings.context} tokens" * bool(left_out))
    validation = [pad(held[i:i + settings.batch]) for i in range(0, len(held), settings.batch)]
    try:
        history = fit(model, run.stream, run.optimizer, settings.steps, label="tune", start=run.step, after=run.after,
                      schedule=warmup_cosine(settings.lr, settings.steps, min(5, settings.steps - 1)),
                      validation=validation, every=max(1, settings.steps // 5))
    finally:  # also where Ctrl-C or a loss that is not finite ended it, as the last whole step left it
        run.save()
    if history.interrupted:
        return f"{out} holds step {run.step} of {settings.steps}; the same command with --resume goes on from there"
    size = (Path(out) / "adapter_model.safetensors").stat().st_size
    return f"{out}: {size / 1e6:.1f} MB; python -m lora_np generate --model {model_path} --adapter {out} \"…\" uses it"


class Run:
    """A training between two steps: all that the next one depends on, which can be saved and read back.

    record: what else its folder says of it. The stream is one batch ahead of no step: its place is that of the next.
    """

    def __init__(self, model, optimizer, stream, out, record):
        self.model, self.optimizer, self.stream, self.out, self.record = model, optimizer, stream, Path(out), record
        self.step, self.place = 0, stream.place

    def after(self, step, history):
        """Note that a step has been taken, and save it now and then."""
        self.step, self.place = step, self.stream.place
        if step % SAVED_EVERY == 0:
            self.save()

    def save(self):
        """Write adapter and state; both say which step they are of."""
        step, arrays = {"step": str(self.step)}, io.BytesIO()
        safetensors.write(arrays, self.optimizer.state_dict(), step)
        state = {**self.record, "step": self.step, "place": self.place, "generators": _generators(self.model)}
        save_adapter(self.model, self.out, base=self.record["model"], note=step, beside={
            f"{STATE}.safetensors": arrays.getvalue(), f"{STATE}.json": json.dumps(state, indent=2).encode()})

    def go_on_from(self, state):
        """Take up what save wrote, as _read_state gives it."""
        self.optimizer.load_state_dict(state["arrays"])
        self.step, self.place = state["step"], state["place"]
        self.stream.place = self.place
        for rng, kept in zip(_rngs(self.model), state["generators"], strict=True):
            rng.bit_generator.state = kept


def resolve(model, targets):
    """The names of layers that targets stand for: "q_proj,v_proj", or "all-linear" for all but the head."""
    if targets != "all-linear":
        return tuple(name.strip() for name in targets.split(","))
    paths = [path for path, m in model.named_modules() if isinstance(m, Linear)]
    return tuple(dict.fromkeys(path.rpartition(".")[2] for path in paths if path != "lm_head"))


def check_out(out):
    """Raise ValueError unless `out` is a folder that is still to be made, or is empty."""
    if Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        kind = "a folder with files in it" if Path(out).is_dir() else "a file"
        raise ValueError(f"--out {out} is {kind}; give the name of a new folder")


def _rows(data, tokenizer, settings, text):
    """(form, rows to train on, rows held out, how many were too long)."""
    if text:
        form, rows, left_out = "text", text_rows(read_text(data), tokenizer, settings.context), 0
    else:
        form, records = read_rows(data)
        rows, left_out = to_rows(records, tokenizer, settings.context, f"{data}: line")
    return form, *split_rows(rows, settings.held_out, settings.seed), left_out


def _read_state(out):
    path = Path(out) / f"{STATE}.json"
    if not path.exists():
        raise ValueError(f"--resume: {out} holds no training to go on with; leave --resume out to begin one")
    state = read_json(path)
    arrays, note = safetensors.read(Path(out) / f"{STATE}.safetensors")
    steps = {state.get("step"), int(note["step"]),
             int(safetensors.read(Path(out) / "adapter_model.safetensors")[1].get("step", -1))}
    if len(steps) > 1:
        raise ValueError(f"--resume: the files in {out} are of different steps, {sorted(steps)}; one of them was "
                         "replaced, or writing them was cut short")
    return {**state, "arrays": arrays}


def _check_same(given, before, out):
    """The Settings of a training to go on with; those that are given must be what they were."""
    settings = Settings(**before["settings"])
    for name, value in given.items():
        if value != getattr(settings, name):
            raise ValueError(f"--resume: --{name.replace('_', '-')} was {getattr(settings, name)} and is {value} now; "
                             f"it must stay, or begin anew with another --out than {out}")
    return settings


def _rngs(model):
    """The random generators of dropout in a model, each once."""
    found = [m.rng for _, m in model.named_modules() if isinstance(m, Dropout)]
    return list({id(rng): rng for rng in found}.values())


def _generators(model):
    return [rng.bit_generator.state for rng in _rngs(model)]


def _say(text):
    print(text, file=sys.stderr, flush=True)
