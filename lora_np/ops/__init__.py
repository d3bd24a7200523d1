"""Every differentiable operation, as a function of Tensors (numbers and arrays are taken as constants).

Each is written the same way: the docstring holds the formula of the value y and of the gradient of
each operand (da is dL/da, g is dL/dy), then the code computes the value and gives `node` one vjp per
operand. The tape prints those formulas and the tests evaluate them, so they cannot drift from the code.

elementwise.py   add sub mul div neg pow exp log sqrt tanh relu
arrays.py        matmul sum mean reshape transpose getitem concatenate
layers.py        linear embedding layer_norm dropout
softmax.py       softmax
loss.py          cross_entropy
attention.py     causal_attention
llama.py         rms_norm silu swiglu rotary, for Llama's decoder
others.py        gelu where max log_softmax, for models of your own
../extras/fast/       causal_attention of long sequences, linear_cross_entropy: the same in less time or memory
"""

from ..extras.fast.head import linear_cross_entropy
from .arrays import concatenate, getitem, matmul, mean, reshape, sum, transpose
from .attention import causal_attention
from .elementwise import add, div, exp, log, mul, neg, pow, relu, sqrt, sub, tanh
from .layers import dropout, embedding, layer_norm, linear
from .llama import rms_norm, rotary, silu, swiglu
from .loss import cross_entropy
from .others import gelu, log_softmax, max, where
from .softmax import softmax

__all__ = ["add", "sub", "mul", "div", "neg", "pow", "exp", "log", "sqrt", "tanh", "relu", "gelu", "silu", "where",
           "matmul", "sum", "mean", "max", "reshape", "transpose", "getitem", "concatenate",
           "linear", "embedding", "layer_norm", "rms_norm", "swiglu", "rotary", "dropout",
           "softmax", "log_softmax", "cross_entropy", "linear_cross_entropy", "causal_attention"]
