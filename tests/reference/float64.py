"""Transformers computes rotary cosines, RMSNorm and eager softmax in float32, even for a float64 model. Importing this
before models are built makes it float64 throughout: what these modules call float32 is float64 from then on."""

import torch
import transformers  # noqa: F401 - it looks up its names of dtypes while it is imported

torch.float32 = torch.float = torch.float64
torch.Tensor.float = torch.Tensor.double
