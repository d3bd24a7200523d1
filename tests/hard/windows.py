"""Windows' rules for files, simulated: python -m tests.hard.windows, in a copy of the project (faults.windows makes one).

Text is written with \\r\\n and in cp1252 unless a program says otherwise, a file that is open or mapped can be neither
replaced nor deleted, some names are not allowed, and modules that only POSIX has are missing. What stays POSIX is os.name.
"""

import builtins
import io
import os
import re
import sys
from pathlib import Path

FORBIDDEN = re.compile(r'[<>:"|?*]|[. ]$|^(con|nul|aux|prn|com\d|lpt\d)(\.|$)', re.I)
opened = io.open


def windows_open(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
    if isinstance(file, (str, os.PathLike)):
        if set(mode) & set("wax") and FORBIDDEN.search(Path(file).name):
            raise OSError(22, "Invalid argument", str(file))
        if "b" not in mode:
            encoding = encoding or "cp1252"
            newline = "\r\n" if newline is None and set(mode) & set("wax+") else newline
    return opened(file, mode, buffering, encoding, errors, newline, closefd, opener)


def in_use(path):
    """Whether this process has a file open or mapped."""
    target = os.path.realpath(path)
    with opened("/proc/self/maps") as maps:
        if any(line.rstrip("\n").endswith(target) for line in maps):
            return True
    return any(os.path.realpath(f"/proc/self/fd/{fd}") == target for fd in os.listdir("/proc/self/fd"))


def guarded(function):
    """A function that takes a file away, or puts another in its place."""
    def call(path, *others, **options):
        for name in (path, *others[:1]):
            if isinstance(name, (str, os.PathLike)) and os.path.isfile(name) and in_use(name):
                raise PermissionError(13, "The process cannot access the file because it is being used by another "
                                          "process", str(name))
        return function(path, *others, **options)
    return call


def install():
    builtins.open = io.open = windows_open
    for name in ("replace", "rename", "remove", "unlink"):
        setattr(os, name, guarded(getattr(os, name)))
    sys.modules.update(dict.fromkeys(("resource", "fcntl", "pwd", "grp", "termios"), None))


def main():
    """Everything in the project that writes a file, once."""
    root = Path.cwd()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    install()
    from lessons import __main__ as lessons
    from lora_np import GPT, GPTConfig, LoraConfig, data, lora
    from lora_np.byhand import __main__ as byhand
    from lora_np.checkpoint import load_adapter, load_model, load_tokenizer, save_adapter, save_model

    sizes = {"vocab_size": 11, "context": 16, "d_model": 12, "n_heads": 2, "n_layers": 1, "d_ff": 16}
    save_model(GPT(GPTConfig(**sizes)), root / "made", data.CharTokenizer("0123456789é"))
    model = load_model(root / "made")
    save_model(model, root / "made", load_tokenizer(root / "made"))  # over the file that it came from
    lora.add_lora(model, LoraConfig(r=2))
    save_adapter(model, root / "made" / "adapter")
    load_adapter(again := load_model(root / "made"), root / "made" / "adapter")
    save_adapter(again, root / "made" / "adapter")
    byhand.main(["--class", "2", "--out", str(root / "made" / "sheets")])

    exercise = next((root / "lessons").glob("01_*/ex01_*.py"))
    stub = exercise.read_bytes()
    for changed in (stub.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + stub, stub + b"x = 1\n"):
        exercise.write_bytes(changed)
        lessons.main(["reset", "01"])
        assert exercise.read_bytes() == stub
    backups = list((root / ".progress" / "backups").iterdir())
    assert len(backups) == 1, "only the file with work in it is kept"
    for words in (["hint", "01"], ["notebook", "01"], ["stubs"], ["01"]):
        assert not lessons.main(words), words
    made = [path for path in root.rglob("*") if path.is_file() and path.stat().st_mtime_ns != before.get(path)]
    texts = [path for path in made if path.suffix in (".py", ".md", ".json", ".ipynb", ".txt", ".csv", ".html")]
    assert len(texts) >= 8, texts
    wrong = [path.name for path in texts if b"\r" in path.read_bytes()]
    assert not wrong, f"written with \\r\\n: {wrong}"
    print(f"{len(made)} files written, {len(texts)} of them texts")


if __name__ == "__main__":
    main()
