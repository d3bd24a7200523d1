"""How many threads matrix products may take: a setting of the BLAS library that NumPy calls."""

import ctypes
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np


@contextmanager
def one_blas_thread(wanted=True, say=print):
    """Inside, a matrix product takes one thread, so that Python's own threads have a core each. Yields whether this
    is so: NumPy's wheels bring OpenBLAS, whose number of threads can be set. With other libraries nothing changes, and
    `say` is told; without `wanted` nothing changes either."""
    functions = _openblas() if wanted else None
    if functions is None:
        if wanted:
            say("the matrix library of this NumPy is not its OpenBLAS, so its own threads cannot be set")
        yield False
        return
    get, put = functions
    before = get()
    put(1)
    try:
        yield True
    finally:
        put(before)


@cache
def _openblas():
    """OpenBLAS's functions (get, put) of the number of threads, or None where NumPy's own cannot be found."""
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs", package / ".libs"):
        for path in sorted(folder.glob("*openblas*")):
            library = ctypes.CDLL(str(path))  # already loaded: this only finds it
            for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
                names = [f"{prefix}openblas_{verb}_num_threads{suffix}" for verb in ("get", "set")]
                if all(hasattr(library, name) for name in names):
                    get, put = (getattr(library, name) for name in names)
                    get.restype, put.argtypes, put.restype = ctypes.c_int, [ctypes.c_int], None
                    return get, put
    return None
