"""The README's road to Transformers, PEFT and accelerate: the same rows and the same adapter, the same losses.

Runs where these are installed: pip install torch transformers peft accelerate.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from lora_np import Llama, LlamaConfig, LoraConfig, generate, lora, optim, train
from lora_np.checkpoint import load_adapter, load_model, load_tokenizer, save_adapter, save_model
from lora_np.extras.tuning import rows
from tests.helpers import live

ROOT = Path(__file__).parents[2]
PAIRS = ROOT / "lessons" / "14_language_model" / "pairs.jsonl"
STEPS, BATCH, RATE = 20, 4, 2e-3


def small_base(folder):
    tokenizer = load_tokenizer(ROOT / "tests" / "reference" / "tokenizers" / "smollm")
    config = LlamaConfig(len(tokenizer), 256, d_model=32, n_heads=4, n_kv_heads=2, n_layers=2, d_ff=48)
    save_model(Llama(config), folder, tokenizer)


def real_base(folder):
    try:
        save_model(load_model("smollm2"), folder)
    except FileNotFoundError as error:
        pytest.skip(str(error))


@live("torch", "transformers", "peft", "accelerate")
@pytest.mark.parametrize("make", [small_base, pytest.param(real_base, marks=pytest.mark.real)])
def test_the_road_out_and_back(make, tmp_path, monkeypatch):
    import accelerate
    monkeypatch.chdir(tmp_path)
    make("base")
    chosen = PAIRS.read_text().splitlines()[:STEPS * BATCH]
    Path("pairs.jsonl").write_text("\n".join(chosen) + "\n")
    tokenizer, model = load_tokenizer("base"), load_model("base")
    lora.add_lora(model, LoraConfig(8, 16))
    for layer in lora.lora_layers(model).values():  # as if trained a little: B is not zero
        layer.lora_B.data = 0.01 * np.random.default_rng(0).normal(size=layer.lora_B.shape)
    save_adapter(model, "adapter")

    theirs, real = [], accelerate.Accelerator.backward

    def backward(self, loss, **options):
        theirs.append(loss.item())
        real(self, loss, **options)

    monkeypatch.setattr(accelerate.Accelerator, "backward", backward)
    (block,) = re.findall(r"```python\n(import json\n.*?accelerate.*?)```", (ROOT / "README.md").read_text(), re.S)
    exec(compile(block.replace("shuffle=True", "shuffle=False"), "README.md", "exec"), {})

    ours, optimizer = [], optim.AdamW(model.trainable_parameters(), RATE)
    every = [rows.to_row(json.loads(line), tokenizer) for line in chosen]
    model.train()
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = train.next_token_loss(model, *rows.pad(every[BATCH * step:BATCH * (step + 1)]))
        loss.backward()
        optimizer.step()
        ours.append(loss.item())
    assert len(theirs) == STEPS and ours[-1] < ours[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-3)

    back = load_model("base")
    load_adapter(back, "adapter-2")
    ids = tokenizer.encode(json.loads(chosen[0])["prompt"])
    answers = [generate(m.eval(), ids, 24, temperature=0, stop=[*tokenizer.eos_ids]).tolist() for m in (model, back)]
    assert answers[0] == answers[1]
