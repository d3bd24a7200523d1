"""Models, tokenizers and adapters on disk, in the layouts of Transformers and PEFT."""

from .models import load_model, save_model
from .peft import load_adapter, save_adapter
from .tokenizers import load_tokenizer

__all__ = ["load_adapter", "load_model", "load_tokenizer", "save_adapter", "save_model"]
