"""SmolLM2-135M-Instruct as it is installed: its logits beside those that reference/make_gguf.py stored."""

import json
from pathlib import Path

import numpy as np
import pytest

from lora_np import LoraConfig, lora, no_grad
from lora_np.checkpoint import load_adapter, load_model, load_tokenizer, save_adapter
from lora_np.quantized import Packed
from tests.helpers import real

EXPECTED = json.loads((Path(__file__).parents[1] / "reference" / "smollm2.json").read_text())


@real
@pytest.mark.parametrize("quantized", [False, True])
def test_logits_of_five_prompts(quantized):
    model, tokenizer = load_model("smollm2", quantized=quantized), load_tokenizer("smollm2")
    assert (len(model.lacking), model.pad_id, model.tokenizer) == (0, 2, "bpe") and model.config.tied
    assert lora.count_parameters(model) == (0 if quantized else 134_515_008, 134_515_008)
    for case in EXPECTED:
        ids = tokenizer.encode(case["prompt"])
        assert ids.tolist() == case["ids"]
        with no_grad():
            logits = model.head(model.hidden(ids[None])[:, -1]).data[0]
        np.testing.assert_allclose(logits[case["at"]], case["logits"], rtol=0, atol=2e-4)
        assert abs(np.log(np.exp(logits.astype(float)).sum()) - case["logsumexp"]) < 2e-4
        assert logits.argmax() == case["at"][0]
    assert tokenizer.decode([EXPECTED[0]["at"][0]]) == " Paris"


@real
def test_an_adapter_goes_from_blocks_to_floats(tmp_path):
    ours = load_model("smollm2", quantized=True)
    lora.add_lora(ours, LoraConfig(r=2, target_modules="all-linear"))
    assert sum(isinstance(t, Packed) for t in ours.parameters()) == 211  # 7 in each of 30 layers, and the embedding
    for t in ours.trainable_parameters():
        t.data = t.data + np.random.default_rng(0).normal(0, 0.01, t.shape)
    save_adapter(ours, tmp_path)
    floats, ids = load_model("smollm2"), np.arange(300, 316)[None]
    load_adapter(floats, tmp_path)
    with no_grad():
        np.testing.assert_allclose(ours(ids).data, floats(ids).data, rtol=0, atol=2e-3)
