"""Make the files beside this one with PyTorch, Transformers and PEFT, which the tests then do without:

    python tests/reference/make_reference.py        (needs torch, transformers, peft, safetensors; takes seconds)

base/       a small random OPT in float64, as save_pretrained writes it
sharded/    the same in bfloat16, in several files
lora/ rslora/ patterns/ dora/ second/    adapters for it, as PEFT writes them, with no factor zero
expected.safetensors    what PEFT computes with each of them: logits, loss, gradients, merged weights, and the
            adapter after 20 steps of AdamW; the versions that did so are in the file's metadata
"""

import math
from pathlib import Path

import peft
import torch
import transformers
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file
from shared import loss_of, plain, trained

HERE = Path(__file__).parent
SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "ffn_dim": 40, "max_position_embeddings": 12,
         "num_attention_heads": 2, "word_embed_proj_dim": 16, "dropout": 0.0, "pad_token_id": None,
         "bos_token_id": None, "eos_token_id": None}
ADAPTERS = {
    "lora": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "rslora": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
    "patterns": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "fc1"],
                 "rank_pattern": {"layers.1.self_attn.q_proj": 2, "fc[12]": 6}, "alpha_pattern": {"v_proj": 3}},
    "dora": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "fc1"], "use_dora": True},
    "second": {"r": 2, "lora_alpha": 6, "target_modules": ["v_proj", "fc2"]},
}
ADAMW = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}

torch.manual_seed(0)
torch.set_num_threads(1)
expected = {}


def base(dtype=torch.float64):
    return transformers.AutoModelForCausalLM.from_pretrained(HERE / "base", dtype=dtype)


def twenty_steps(model, optimizer, ids, targets):
    for _ in range(20):
        optimizer.zero_grad()
        loss_of(model, ids, targets)[1].backward()
        optimizer.step()
    return {name: t.detach().clone() for name, t in trained(model).items()}


def keep(case, **values):
    for kind, value in values.items():
        named = value.items() if isinstance(value, dict) else [("", value)]
        for name, t in named:
            expected[f"{case}/{kind}/{name}".rstrip("/")] = t.detach().clone().contiguous()


model = transformers.OPTForCausalLM(transformers.OPTConfig(**SIZES)).double()
with torch.no_grad():
    for t in model.parameters():  # OPT starts with zero biases and gains of 1, which would hide mistakes
        t += 0.2 * torch.randn_like(t)
model.save_pretrained(HERE / "base")
model.to(torch.bfloat16).save_pretrained(HERE / "sharded", max_shard_size="4KB")

ids, targets = torch.randint(0, 40, (3, 12)), torch.randint(0, 40, (3, 12))
keep("inputs", ids=ids.double(), targets=targets.double())
with torch.no_grad():
    keep("base", logits=base()(ids).logits)
    keep("sharded", logits=model.double()(ids).logits)

for case, settings in ADAPTERS.items():
    model = peft.get_peft_model(base(), peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for t in trained(model).values():
            t += 0.2 * torch.randn_like(t)
    model.peft_config["default"].base_model_name_or_path = "../base"  # not this machine's path
    model.save_pretrained(HERE / case)
    logits, loss = loss_of(model, ids, targets)
    loss.backward()
    keep(case, logits=logits, loss=loss, gradient={name: t.grad for name, t in trained(model).items()})
    keep(case, after20=twenty_steps(model, torch.optim.AdamW(model.parameters(), **ADAMW), ids, targets))
    merged = peft.PeftModel.from_pretrained(base(), HERE / case).merge_and_unload()
    adapted = {name.rpartition(".")[0] for name in trained(model)}
    keep(case, merged={plain(n): t for n, t in merged.named_parameters() if plain(n) in adapted})

model = peft.PeftModel.from_pretrained(base(), HERE / "lora", is_trainable=True)
optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16,
                                      loraplus_weight_decay=0.01)
keep("loraplus", after20=twenty_steps(model, optimizer, ids, targets))

model = peft.PeftModel.from_pretrained(base(), HERE / "lora", adapter_name="lora")
model.load_adapter(HERE / "second", adapter_name="second")
model.add_weighted_adapter(["lora", "second"], [0.75, -0.5], "combined", combination_type="cat")
model.set_adapter("combined")
with torch.no_grad():
    keep("combined", logits=model(ids).logits)

# PEFT takes the singular value decomposition in float32 only.
model = peft.get_peft_model(base(torch.float32), peft.LoraConfig(init_lora_weights="pissa", **ADAPTERS["lora"]))
keep("pissa", start={name: t.detach() for name, t in trained(model).items()},
     residual={plain(n): t for n, t in model.named_parameters() if "base_layer.weight" in n})
keep("pissa", after20=twenty_steps(model, torch.optim.AdamW(model.parameters(), **ADAMW), ids, targets))
with torch.no_grad():
    keep("pissa", logits=model(ids).logits)

assert all(math.isfinite(t.abs().max()) for t in expected.values())
save_file(expected, HERE / "expected.safetensors", {m.__name__: m.__version__ for m in (torch, transformers, peft)})
for path in [*HERE.glob("*/README.md"), *HERE.glob("*/generation_config.json")]:
    path.unlink()
