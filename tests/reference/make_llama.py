"""Make the Llamas beside this file with PyTorch, Transformers and PEFT, which the tests then do without:

    python tests/reference/make_llama.py        (needs torch, transformers, peft, safetensors; takes seconds)

llama/NAME/            small random models with numbers of bfloat16: grouped heads tied and untied, "llama3" scaling, Qwen2, Qwen3
llama/NAME/adapter/    an adapter for each, as PEFT writes it, with no factor zero
llama/expected.safetensors    in float64: logits and loss of each with its adapter, gradients, the adapter after 20 steps
"""

from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import save_file
from shared import loss_of, trained

HERE = Path(__file__).parent / "llama"
SIZES = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 24, "rms_norm_eps": 1e-5, "pad_token_id": 3,
         "bos_token_id": 1, "eos_token_id": [2, 4]}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 20.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 12}
MODELS = {
    "tied": (transformers.LlamaConfig, {"tie_word_embeddings": True}),
    "untied": (transformers.LlamaConfig, {"num_key_value_heads": 1}),
    "llama3": (transformers.LlamaConfig, {"head_dim": 8, "rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "qwen2": (transformers.Qwen2Config, {"rms_norm_eps": 1e-6, "tie_word_embeddings": True}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 6, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}),
}
ADAPTERS = {
    "tied": {"target_modules": ["q_proj", "v_proj"]}, "untied": {"target_modules": "all-linear", "r": 1},
    "llama3": {"target_modules": ["k_proj", "down_proj"], "use_rslora": True},
    "qwen2": {"target_modules": ["q_proj", "k_proj", "v_proj"], "rank_pattern": {"layers.1.self_attn.q_proj": 1}},
    "qwen3": {"target_modules": r".*\.1\..*(o_proj|up_proj)", "use_dora": True},
}


def base(name):
    """A model with the numbers of its files, in float64."""
    config = transformers.AutoConfig.from_pretrained(HERE / name)
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.float64)
    model.load_state_dict({key: t.to(torch.float64) for key, t in STATES[name].items()})
    return model


torch.manual_seed(0)
torch.set_num_threads(1)
STATES, expected = {}, {}
for name, (config, changes) in MODELS.items():
    model = transformers.AutoModelForCausalLM.from_config(config(**{**SIZES, **changes}))
    with torch.no_grad():
        for t in model.parameters():  # biases begin at zero and gains at 1, which would hide mistakes
            t += 0.3 * torch.randn_like(t)
    model.to(torch.bfloat16).save_pretrained(HERE / name)
    STATES[name] = model.state_dict()

import float64  # noqa: E402, F401 - from here on all of it in float64

ids, targets = (torch.randint(0, 30, (1, 18)) for _ in range(2))
expected.update(ids=ids.double(), targets=targets.double())
for name, settings in ADAPTERS.items():
    model = peft.get_peft_model(base(name), peft.LoraConfig(task_type="CAUSAL_LM", **{"r": 2, "lora_alpha": 6, **settings}))
    with torch.no_grad():
        for t in trained(model).values():
            t += 0.2 * torch.randn_like(t)
    model.peft_config["default"].base_model_name_or_path = "../"  # not this machine's path
    model.save_pretrained(HERE / name / "adapter")
    expected[f"{name}/logits"], expected[f"{name}/loss"] = loss_of(model, ids, targets)
    expected[f"{name}/loss"].backward()
    expected.update({f"{name}/gradient/{key}": t.grad for key, t in trained(model).items()})
    optimizer = torch.optim.AdamW(trained(model).values(), lr=1e-2, weight_decay=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        loss_of(model, ids, targets)[1].backward()
        optimizer.step()
    expected.update({f"{name}/after20/{key}": t for key, t in trained(model).items()})

versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
save_file({key: t.detach().clone().contiguous() for key, t in expected.items()}, HERE / "expected.safetensors", versions)
for path in HERE.glob("*/adapter/README.md"):
    path.unlink()
