"""LoRA from scratch, on a NumPy autograd engine that is small enough to read to the last derivative."""

from . import data, lora, nn, ops, optim, train, transformer
from .config import LoraConfig
from .generate import generate
from .graph import no_grad
from .tensor import Tensor
from .transformer import GPT, GPTConfig

__version__ = "2.0.0"
__all__ = ["GPT", "GPTConfig", "LoraConfig", "Tensor", "data", "generate", "lora", "nn", "no_grad", "ops", "optim",
           "train", "transformer"]
