"""LoRA from scratch, on a NumPy autograd engine that is small enough to read to the last derivative."""

from . import data, llama, lora, nn, ops, optim, train, transformer
from .config import LoraConfig
from .generate import generate
from .graph import no_grad
from .llama import Llama, LlamaConfig
from .tensor import Tensor
from .transformer import GPT, GPTConfig

__version__ = "2.0.0"
__all__ = ["GPT", "GPTConfig", "Llama", "LlamaConfig", "LoraConfig", "Tensor", "data", "generate", "llama", "lora",
           "nn", "no_grad", "ops", "optim", "train", "transformer"]
