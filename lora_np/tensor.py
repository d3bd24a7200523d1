"""Tensor: a NumPy array that remembers how it was computed, and node, which makes it remember.

One idea carries the engine: an operation returns its value and, for each operand, how the gradient
flows back to it. `node` records those edges as the forward pass runs; graph.py walks them back.

An array inside a Tensor is never written to. That is why a gradient is always computed from the
numbers that the forward pass saw, and why operations may keep arrays without copying them.
"""

from contextvars import ContextVar
from operator import attrgetter

import numpy as np

from .graph import Node, backpropagate, open_blocks, unrecorded
from .support.checks import as_numbers, as_upstream, compare
from .support.protocols import Protocols

tape = ContextVar("tape", default=())  # lists, while trace/ records in the last of them what each node computed
operations = {}  # name -> function: ops, which needs Tensor, enters them; Tensor's operators and methods look them up


def operation(function):
    """Register a differentiable operation, so that Tensor can offer it as an operator or a method."""
    operations[function.__name__] = function
    return function


def node(name, value, *edges) -> "Tensor":
    """The result of an operation, as a Tensor.

    value: the array that the operation computed. edges: an (operand, vjp) pair for each operand,
    where vjp maps g = dL/d(value) to dL/d(operand). Only the edges whose operand needs a gradient
    are kept, and none under no_grad: the gradient of a frozen weight is not thrown away, it is
    never computed. A vjp may return a gradient of the broadcast shape; backward sums it down.
    """
    out = Tensor.from_array(value)
    if not (open_blocks and any(unrecorded.get())):
        kept = [(t._node or t, vjp) for t, vjp in edges if t._requires_grad]
        if kept:
            out._node, out._requires_grad = Node(name, kept, out._data), True
    if open_blocks and (tapes := [steps for steps in tape.get() if id(steps) in open_blocks]):
        tapes[-1].append((name, out, edges))
    return out


def as_tensor(value, like=None) -> "Tensor":
    """The value itself if it is a Tensor, else a constant Tensor holding a copy of it.

    A single number takes the precision of `like`: 2 * t and np.sqrt(2) * t stay float32 if t is.
    """
    if isinstance(value, Tensor):
        return value
    dtype = getattr(like, "dtype", None)
    if isinstance(value, (int, float, np.integer, np.floating)) and dtype is not None and dtype.kind == "f":
        return Tensor.from_array(np.asarray(value, dtype))
    return Tensor(value)


class Tensor(Protocols):
    """A NumPy array that remembers how it was computed.

    Tensor(data, requires_grad=False, name=None): data is anything np.array takes, and is copied.
    Python floats become float64, as in NumPy; a float32 array stays float32. Only floating point can
    require a gradient. After `loss.backward()`, `t.grad` is an array of t's shape and dtype.

    `t.data` is read-only; `t.data = new` replaces all of it (shape and dtype stay).
    """

    __slots__ = ("_data", "_node", "_requires_grad", "grad", "name", "__weakref__")
    edges, serial = (), 0  # as a leaf of the graph: nothing behind it, older than every node
    operations = operations  # for Protocols
    __hash__ = object.__hash__  # by identity, although == compares elementwise

    def __init__(self, data, requires_grad=False, name=None):
        array = as_numbers("Tensor", data)
        self._node, self._requires_grad, self.grad, self.name = None, False, None, name
        self.replace_array(array)
        if requires_grad is not False:
            self.requires_grad = requires_grad

    @classmethod
    def from_array(cls, value) -> "Tensor":
        """A Tensor around an array that nobody else will write to: no copy."""
        self = object.__new__(cls)
        value = value if type(value) is np.ndarray else np.asarray(value)
        value.setflags(False)  # not writeable
        self._data = value
        self._node = self.grad = self.name = None
        self._requires_grad = False
        return self

    def replace_array(self, array):
        """Hold this array itself, which nobody else will write to: no copy, no checks."""
        array.setflags(False)  # not writeable
        self._data = array

    def _replace_data(self, new):
        if self._node is not None:
            raise RuntimeError(f"data: this Tensor is the result of {self._node.name}; only a Tensor "
                               "that you made can be given new numbers, such as t.detach()")
        new = as_numbers("data", new, self.dtype)
        if new.shape != self.shape:
            raise ValueError(f"data: expected an array of shape {self.shape}, got {new.shape}; "
                             "make a new Tensor for a new shape")
        self.replace_array(new)

    data = property(attrgetter("_data"), _replace_data,
                    doc="The array, read-only. Assign to it to replace all its numbers; shape and dtype stay.")

    @property
    def requires_grad(self) -> bool:
        """Whether backward brings a gradient here. Set it to False to freeze a Tensor you made."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, flag):
        if self._node is not None:
            raise RuntimeError(f"requires_grad: this Tensor is the result of {self._node.name}; it follows "
                               "its operands. Freeze those, or cut here with t.detach()")
        if not isinstance(flag, (bool, np.bool_)):
            raise TypeError(f"requires_grad: expected True or False, got {flag!r}; several numbers go in one list")
        if flag and self.dtype.kind != "f":
            raise TypeError(f"requires_grad: a gradient needs floating point, got {self.dtype}; "
                            "write 1.0 for 1, or Tensor(np.array(data, dtype=float), requires_grad=True)")
        self._requires_grad = bool(flag)

    def backward(self, gradient=None, retain_graph=False) -> None:
        """Add dL/dt to t.grad for every leaf t that requires a gradient and led to this Tensor L.

        gradient: dL/d(this), of this shape; may be left out where there is one element (then it is 1).
        The graph is freed as it is used; retain_graph=True keeps it for another backward.
        Raises RuntimeError if nothing here requires a gradient or the graph was freed already,
        ValueError if the gradient is missing or of another shape. Nothing changes when it raises.
        """
        if not self._requires_grad:
            raise RuntimeError("backward: nothing here requires a gradient; was every operand made with "
                               "requires_grad=False, frozen, or used under no_grad()?")
        gradient = as_upstream(gradient, self._data)
        for leaf, g in backpropagate(self._node or self, gradient, retain_graph).items():
            leaf.grad = g if leaf.grad is None else leaf.grad + g

    def detach(self) -> "Tensor":
        """A Tensor of the same array, cut from the graph: no gradient flows through."""
        return Tensor.from_array(self._data)

    def numpy(self) -> np.ndarray:
        """The numbers as an ordinary array: a copy, yours to write to."""
        return self._data.copy()

    def item(self) -> float:
        """The one number of a one-element Tensor, as a Python number."""
        if self.size != 1:
            raise ValueError(f"item: expected one element, got shape {self.shape}; index it first")
        return self._data.item()

    # Operators and methods: each is the operation of that name in ops.
    def __add__(self, other) -> "Tensor": return operations["add"](self, other)
    def __radd__(self, other) -> "Tensor": return operations["add"](other, self)
    def __sub__(self, other) -> "Tensor": return operations["sub"](self, other)
    def __rsub__(self, other) -> "Tensor": return operations["sub"](other, self)
    def __mul__(self, other) -> "Tensor": return operations["mul"](self, other)
    def __rmul__(self, other) -> "Tensor": return operations["mul"](other, self)
    def __truediv__(self, other) -> "Tensor": return operations["div"](self, other)
    def __rtruediv__(self, other) -> "Tensor": return operations["div"](other, self)
    def __pow__(self, other) -> "Tensor": return operations["pow"](self, other)
    def __rpow__(self, other) -> "Tensor": return operations["pow"](other, self)
    def __matmul__(self, other) -> "Tensor": return operations["matmul"](self, other)
    def __rmatmul__(self, other) -> "Tensor": return operations["matmul"](other, self)
    def __neg__(self) -> "Tensor": return operations["neg"](self)
    def __getitem__(self, index) -> "Tensor": return operations["getitem"](self, index)
    def exp(self) -> "Tensor": return operations["exp"](self)
    def log(self) -> "Tensor": return operations["log"](self)
    def sqrt(self) -> "Tensor": return operations["sqrt"](self)
    def tanh(self) -> "Tensor": return operations["tanh"](self)
    def sum(self, axis=None, keepdims=False) -> "Tensor": return operations["sum"](self, axis, keepdims)
    def mean(self, axis=None, keepdims=False) -> "Tensor": return operations["mean"](self, axis, keepdims)
    def max(self, axis=None, keepdims=False) -> "Tensor": return operations["max"](self, axis, keepdims)
    def reshape(self, *shape) -> "Tensor": return operations["reshape"](self, *shape)
    def transpose(self, *axes) -> "Tensor": return operations["transpose"](self, *axes)

    # Comparisons give arrays of bool, for masks; they have no gradient.
    def __lt__(self, other): return compare(np.less, self._data, other)
    def __le__(self, other): return compare(np.less_equal, self._data, other)
    def __gt__(self, other): return compare(np.greater, self._data, other)
    def __ge__(self, other): return compare(np.greater_equal, self._data, other)
    def __eq__(self, other): return compare(np.equal, self._data, other)
    def __ne__(self, other): return compare(np.not_equal, self._data, other)

    shape = property(attrgetter("_data.shape"))
    dtype = property(attrgetter("_data.dtype"))
    ndim = property(attrgetter("_data.ndim"))
    size = property(attrgetter("_data.size"))
    nbytes = property(attrgetter("_data.nbytes"))

    @property
    def T(self) -> "Tensor": return self.transpose()
