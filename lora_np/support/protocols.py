"""What Python and NumPy ask of an array-like object: its text, its length, its truth, np.exp of it."""

import numpy as np


class Protocols:
    """The part of Tensor that has nothing to do with gradients."""

    __slots__ = ()

    def __repr__(self):
        text = np.array2string(self._data, separator=", ", threshold=60, precision=6, prefix="Tensor(")
        extra = [] if self.name is None else [f"name={self.name!r}"]
        if self.dtype != np.float64:
            extra.append(f"dtype={self.dtype}")
        if self._node is not None:
            extra.append(f"from {self._node.name}")
        elif self._requires_grad:
            extra.append("requires_grad=True" if self.grad is None else "requires_grad=True, has grad")
        return f"Tensor({', '.join([text, *extra])})"

    def __len__(self):
        if not self.ndim:
            raise TypeError("len: a Tensor of shape () has no length")
        return len(self._data)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __bool__(self):
        if self.size != 1:
            raise ValueError(f"bool: shape {self.shape} has no single truth; use t.data.any() or t.data.all()")
        return bool(self._data)

    def __float__(self):
        return float(self.item())

    def __format__(self, spec):  # f"{loss:.3f}"
        return format(self.item(), spec) if spec else repr(self)

    def __reduce__(self):  # for copy, deepcopy and pickle: the numbers, without graph or gradient
        return type(self), (self._data, self._requires_grad and self._node is None, self.name)

    def __array__(self, dtype=None, copy=None):
        return np.array(self._data, dtype=dtype)

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        """np.float64(2) * t, array @ t, array > t and np.exp(t) arrive here."""
        if method == "__call__" and not options and ufunc in _COMPARISONS:
            return ufunc(*(np.asarray(x) for x in inputs))
        name = _UFUNCS.get(ufunc)
        if name is None or method != "__call__" or options:
            raise TypeError(f"np.{ufunc.__name__}: has no gradient here with these arguments; use what "
                            "lora_np.ops offers, or t.data for the array")
        return self.operations[name](*inputs)

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(f"np.{function.__name__}: works on arrays and has no gradient; use what lora_np.ops "
                        "offers, or t.data for the array")


_UFUNCS = {np.add: "add", np.subtract: "sub", np.multiply: "mul", np.divide: "div", np.power: "pow",
           np.matmul: "matmul", np.negative: "neg", np.exp: "exp", np.log: "log", np.sqrt: "sqrt",
           np.tanh: "tanh"}
_COMPARISONS = {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal}
