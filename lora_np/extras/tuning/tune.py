"""Fine-tuning on one's own data, a training that can be stopped at any step and gone on with bit for bit.

Beside the adapter, which PEFT opens, its folder holds training_state.json and training_state.safetensors: the settings,
a digest of the rows, the step and the place in them, and the optimizer's arrays.
"""

import hashlib
import io
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...checkpoint import load_adapter, load_model, load_tokenizer, safetensors, save_adapter
from ...checkpoint.atomic import json_bytes, read_json
from ...config import LoraConfig
from ...lora import add_lora, trainable_summary
from ...nn import Dropout
from ...optim import AdamW, warmup_cosine
from ...support.checks import check_int, check_number
from ...support.notation import brief
from ...support.progress import defer_interrupt
from ...support.token_ids import check_tokenizer
from ...train import fit
from ..budget import readable
from .rows import RowBatches, pad, read_rows, read_text, split_rows, text_rows, to_rows

STATE = "training_state"
RECORD = {"rows": str, "form": str, "settings": dict, "step": int, "place": list, "generators": list}
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
    if not resume:
        check_out(out)
    form, content = ("text", read_text(data)) if text else read_rows(data)
    model, tokenizer = load_model(model_path, quantized=settings.quantized), load_tokenizer(model_path)
    check_tokenizer(model, tokenizer)
    if "context" not in given:
        settings = replace(settings, context=min(settings.context, model.config.context))
    if settings.context > model.config.context:
        raise ValueError(f"--context {settings.context}: the model's own is {model.config.context}, which is the most")
    rows, left_out = ((text_rows(content, tokenizer, settings.context, data), 0) if text else
                      to_rows(content, tokenizer, settings.context, f"{data}: line"))
    digest = hashlib.sha256(b"".join(part.tobytes() for row in rows for part in row)).hexdigest()
    if resume and before["rows"] != digest:
        raise ValueError(f"--resume: {data} is not the data that {out} was trained on; begin anew with another --out")
    if resume and before["step"] == settings.steps:
        raise ValueError(f"--resume: {out} holds all {settings.steps} steps of its training; there is nothing to go on "
                         "with")
    train, held = split_rows(rows, settings.held_out, settings.seed)
    if resume:
        load_adapter(model, out)
    else:
        names = [name.strip() for name in settings.targets.split(",")]
        add_lora(model, LoraConfig(settings.r, settings.alpha, names, seed=settings.seed))
    run = Run(model, AdamW(model.trainable_parameters(), settings.lr), RowBatches(train, settings.batch, settings.seed),
              out, {"rows": digest, "form": form, "model": str(model_path), "settings": asdict(settings)})
    if resume:
        run.go_on_from(before)
    _say(trainable_summary(model))
    _say(f"{len(train)} rows to train on, {len(held)} held out"
         + ": there are too few to hold any out" * (not held and settings.held_out > 0)
         + f"; {left_out} left out, longer than {settings.context} tokens" * bool(left_out))
    validation = [pad(held[i:i + settings.batch]) for i in range(0, len(held), settings.batch)]
    schedule = warmup_cosine(settings.lr, settings.steps + 1, min(5, settings.steps - 1))  # 0 only after the last step
    try:
        history = fit(model, run.stream, run.optimizer, settings.steps, schedule, validation,
                      every=max(1, settings.steps // 5), label="tune", start=run.step, after=run.after)
    finally:  # also where Ctrl-C or a loss that is not finite ended it, as the last whole step left it
        run.save()
    if history.interrupted:
        return f"{out} holds step {run.step} of {settings.steps}; the same command with --resume goes on from there"
    size = (Path(out) / "adapter_model.safetensors").stat().st_size
    return f"{out}: {readable(size)}; python -m lora_np generate --model {model_path} --adapter {out} \"…\" uses it"


class Run:
    """A training between two steps: all that the next one depends on, which can be saved and read back.

    record: what else its folder says of it. The stream is one batch ahead of no step: its place is that of the next.
    """

    def __init__(self, model, optimizer, stream, out, record):
        self.model, self.optimizer, self.stream, self.out, self.record = model, optimizer, stream, Path(out), record
        self.rngs = list(dict.fromkeys(m.rng for _, m in model.named_modules() if isinstance(m, Dropout)))  # each once
        self.note(0)

    def note(self, step):
        """Note where everything stands between two steps; the next may be broken off when it has drawn from it."""
        self.step, self.place = step, self.stream.place
        self.generators = [rng.bit_generator.state for rng in self.rngs]

    def after(self, step, history):
        """Note that a step has been taken, and save it now and then."""
        self.note(step)
        if step % SAVED_EVERY == 0:
            self.save()

    def save(self):
        """Write adapter and state; both say which step they are of."""
        step, arrays = {"step": str(self.step)}, io.BytesIO()
        safetensors.write(arrays, self.optimizer.state_dict(), step)
        state = {**self.record, "step": self.step, "place": self.place, "generators": self.generators}
        with defer_interrupt():  # whoever presses Ctrl-C a second time wants it saved, too
            save_adapter(self.model, self.out, base=self.record["model"], note=step, beside={
                f"{STATE}.safetensors": arrays.getvalue(), f"{STATE}.json": json_bytes(state)})

    def go_on_from(self, state):
        """Take up what save wrote, as _read_state gives it."""
        self.optimizer.load_state_dict(state["arrays"])
        self.stream.place = state["place"]
        for rng, kept in zip(self.rngs, state["generators"], strict=True):
            rng.bit_generator.state = kept
        self.note(state["step"])


def check_out(out):
    """Raise ValueError unless `out` is a folder that is still to be made, or is empty, and can be written to."""
    out = Path(out)
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"--out {out} is a folder with files in it; give the name of a new folder")
    at = next(path for path in (out, *out.absolute().parents) if os.path.lexists(path))
    inside = "" if at == out else f": {at}"
    if not at.is_dir():
        raise ValueError(f"--out {out}{inside} is a file; give the name of a new folder")
    if not os.access(at, os.W_OK | os.X_OK):
        raise ValueError(f"--out {out}{inside} cannot be written to; give the name of another folder")


def _read_state(out):
    path = Path(out) / f"{STATE}.json"
    if not path.exists():
        raise ValueError(f"--resume: {out} holds no training to go on with; leave --resume out to begin one")
    state = read_json(path)
    (arrays, note), (_, adapter) = (safetensors.read(Path(out) / f"{name}.safetensors")
                                    for name in (STATE, "adapter_model"))
    steps = {str(record.get("step")) for record in (state, note, adapter)}
    if len(steps) > 1:
        raise ValueError(f"--resume: the files in {out} are of different steps, {' and '.join(sorted(steps))}; one of "
                         "them was replaced, or writing them was cut short")
    wrong = [name for name, kind in RECORD.items() if not isinstance(state.get(name), kind)]
    if not wrong and state["settings"].keys() != asdict(Settings()).keys():
        wrong = ["settings"]
    if wrong:
        raise ValueError(f"--resume: {path}: {wrong[0]} is {brief(state.get(wrong[0]))}, not as this version writes it")
    return {**state, "arrays": arrays}


def _check_same(given, before, out):
    """The Settings of a training to go on with; those that are given must be what they were."""
    settings = Settings(**before["settings"])
    for name, value in given.items():
        if value != getattr(settings, name):
            raise ValueError(f"--resume: --{name.replace('_', '-')} was {getattr(settings, name)} and is {value} now; "
                             f"keep it, or begin anew with another --out than {out}")
    return settings


def _say(text):
    print(text, file=sys.stderr, flush=True)
