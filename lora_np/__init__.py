"""lora_np: LoRA from scratch, on a NumPy autograd engine small enough to read in one sitting."""

from . import data, llama, lora, nn, ops, optim, train, transformer
from .config import LoraConfig
from .generate import generate
from .graph import no_grad
from .llama import Llama, LlamaConfig
from .support.memory import keep_freed_memory
from .tensor import Tensor
from .transformer import GPT, GPTConfig

__all__ = ["GPT", "GPTConfig", "Llama", "LlamaConfig", "LoraConfig", "Tensor", "data", "generate", "llama", "lora", "nn",
           "no_grad", "ops", "optim", "train", "transformer"]

keep_freed_memory()
