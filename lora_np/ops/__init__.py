"""Every differentiable operation, as a function of Tensors (numbers and arrays are taken as constants).

Each is written the same way: the docstring holds the formula of the value y and of the gradient of
each operand (da is dL/da, g is dL/dy), then the code computes the value and gives `node` one vjp per
operand. The tape prints those formulas and the tests evaluate them, so they cannot drift from the code.

elementwise.py   add sub mul div neg pow exp log sqrt tanh relu gelu silu where
arrays.py        matmul sum mean max reshape transpose getitem concatenate
layers.py        linear embedding layer_norm rms_norm swiglu dropout
positions.py     rotary
softmax.py       softmax log_softmax
loss.py          cross_entropy linear_cross_entropy
attention.py     causal_attention (blocks.py: the same for long sequences)
"""

from .arrays import concatenate, getitem, matmul, max, mean, reshape, sum, transpose
from .attention import causal_attention
from .elementwise import add, div, exp, gelu, log, mul, neg, pow, relu, silu, sqrt, sub, tanh, where
from .layers import dropout, embedding, layer_norm, linear, rms_norm, swiglu
from .loss import cross_entropy, linear_cross_entropy
from .positions import rotary
from .softmax import log_softmax, softmax

__all__ = ["add", "sub", "mul", "div", "neg", "pow", "exp", "log", "sqrt", "tanh", "relu", "gelu", "silu", "where",
           "matmul", "sum", "mean", "max", "reshape", "transpose", "getitem", "concatenate",
           "linear", "embedding", "layer_norm", "rms_norm", "swiglu", "rotary", "dropout",
           "softmax", "log_softmax", "cross_entropy", "linear_cross_entropy", "causal_attention"]
