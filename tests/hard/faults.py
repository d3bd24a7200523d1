"""What goes wrong around a program: python -m tests.hard.faults [NAME ...] [--pythons PATH ...]

Processes killed while they save, full disks, folders that cannot be written to, Ctrl-C at any moment, terminals that
lack characters or width, closed streams, Windows' rules and line endings, a user's settings, other versions of Python
and NumPy. Each check raises AssertionError where something is broken, and returns a line with what it did. pytest runs
the small ones (test_faults.py).
"""

import argparse
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from lessons.course.pages import figures
from lora_np import GPT, GPTConfig, LoraConfig, data, lora
from lora_np.checkpoint import load_adapter, load_model, load_tokenizer, save_adapter, save_model
from lora_np.optim import AdamW
from lora_np.train import fit

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"vocab_size": 11, "context": 16, "d_model": 12, "n_heads": 2, "n_layers": 2, "d_ff": 16}
PLACE = "a folder, größer 数"  # spaces and letters that ASCII lacks
QUIET = {"OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
OLDEST = ("numpy==2.0.*", "matplotlib==3.9.*", "pyparsing<3.3")  # newer pyparsing makes Matplotlib 3.9 warn on import
VERSIONS = (("3.10", OLDEST), *((f"3.{n}", ("numpy", "matplotlib")) for n in range(10, 15)))  # of Python, and packages


def gpt(seed=0, **changes):
    return GPT(GPTConfig(**{**SMALL, **changes}, seed=seed))


def bits(model):
    return [t.data.tobytes() for t in model.parameters()]


def adapted(model, r=2, seed=0):
    lora.add_lora(model, LoraConfig(r=r, seed=seed))
    for t in model.trainable_parameters():
        t.data = np.random.default_rng(seed).normal(size=t.shape)
    return model


def child(function):
    """Run a function in a copy of this process; returns its process number."""
    number = os.fork()
    if number:
        return number
    try:
        function()
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)


def run(words, cwd=ROOT, **changes):
    """A command of the project, `python -m …`, to its end: (exit status, stdout, stderr)."""
    clean = {**os.environ, **QUIET, "PYTHONPATH": str(cwd), **changes}
    done = subprocess.run([sys.executable, "-m", *words.split()], cwd=cwd, env=clean, capture_output=True, timeout=300,
                          check=False)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def project(folder):
    """A copy of the project in a folder with an awkward name."""
    copy = Path(folder) / PLACE
    for part in ("lora_np", "lessons", "tests", "figures"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / part, copy / part)
    return copy


# Saving

def kills(n=200, seed=0):
    """Kill a process that saves two models in turn: every file is one of the two, whole."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        folder, tokenizer = Path(folder) / PLACE, data.CharTokenizer("0123456789 ")
        save_model(gpt(0), folder / "base", tokenizer)
        save_adapter(adapted(gpt(0)), folder / "adapter")
        allowed = {m: bits(gpt(m)) for m in (0, 1)}
        tuned = [bits(adapted(gpt(0), seed=m)) for m in (0, 1)]
        seen, partial = [0, 0], 0

        def forever():
            while True:
                for m in (0, 1):
                    save_model(gpt(m), folder / "base", tokenizer)
                    save_adapter(adapted(gpt(0), seed=m), folder / "adapter")

        for _ in range(n):
            process = child(forever)
            time.sleep(rng.uniform(0, 0.1))
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            found = bits(load_model(folder / "base"))
            assert found in allowed.values(), "a broken model"
            seen[found == allowed[1]] += 1
            assert load_tokenizer(folder / "base").alphabet == tokenizer.alphabet
            model = gpt(0)
            load_adapter(model, folder / "adapter")
            assert bits(model) in tuned, "a broken adapter"
            for path in folder.glob("*/.*"):  # what a killed process had not finished
                partial += 1
                path.unlink()
        assert n < 50 or min(seen) > 0, "the kills came too early or too late to tell"
    return f"{n} kills while saving: {seen[0]} times the one model, {seen[1]} times the other, never a broken file " \
           f"({partial} unfinished files under names of their own)"


def saves(folder):
    """(name, function that writes to the folder) of all that the project saves."""
    def figure():
        fig, ax = figures.new("a title")
        ax.plot([1, 2])
        figures.write(fig, Path(folder) / "figure.png")

    return [("model", lambda: save_model(gpt(1), folder)),
            ("adapter", lambda: save_adapter(adapted(gpt(0), seed=1), folder)), ("figure", figure)]


def cannot_write(limit):
    """Call each save after limit(), in a process of its own: an OSError, and all files as they were."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        folder = Path(folder) / PLACE
        save_model(gpt(0), folder)
        save_adapter(adapted(gpt(0), seed=0), folder)
        (folder / "figure.png").write_bytes(b"the old figure")
        before = {path.name: path.read_bytes() for path in folder.iterdir()}

        def attempt(save):
            limit(folder)
            try:
                save()
            except OSError:
                os._exit(7)
            os._exit(0)

        for name, save in saves(folder):
            status = os.waitstatus_to_exitcode(os.waitpid(child(lambda save=save: attempt(save)), 0)[1])
            assert status == 7, f"{name}: exit status {status} instead of an OSError"
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, f"{name}: files have changed"


def full_disk():
    """Writes fail in the middle, by a limit on the size of files."""
    def limit(_):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))

    cannot_write(limit)
    return "full disk: models, adapters and figures give an OSError, and the old files stay"


def full_device():
    """The same on a real file system of 64 kB, where one may be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True,
                          check=False).returncode:
            return "full file system: skipped, it takes the right to mount one"
        try:
            save_model(gpt(0), folder)
            with open(Path(folder) / "filler", "wb") as filler:
                filler.write(bytes(os.statvfs(folder).f_bavail * os.statvfs(folder).f_bsize - 4096))
            before = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
            for name, save in saves(folder)[::2]:
                try:
                    save()
                    raise AssertionError(f"{name}: written to a full file system")
                except OSError as error:
                    assert error.errno == 28, error
                assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == before
        finally:
            subprocess.run(["umount", folder], check=True)
    return "full file system of 64 kB: an OSError, and the old files stay"


def read_only():
    """A folder that belongs to somebody else."""
    def limit(folder):
        os.chmod(folder, 0o555)
        if os.geteuid() == 0:
            os.setuid(65534)  # nobody

    cannot_write(limit)
    return "read-only folder: an OSError, and the old files stay"


def command_cannot_write():
    """A command says in one line that it cannot write."""
    with open("/dev/full", "w") as full:
        for words in ("lessons list", "lora_np.byhand", "lora_np.byhand --key"):
            done = subprocess.run([sys.executable, "-m", *words.split()], cwd=ROOT, stdout=full, stderr=subprocess.PIPE,
                                  check=False)
            text = done.stderr.decode()
            assert done.returncode == 1 and "No space left" in text and "Traceback" not in text, text
    status, _, text = run("lora_np.byhand --class 2 --out /dev/null/x")
    assert status == 2 and "cannot write to /dev/null/x" in text and "Traceback" not in text, text
    return "output to a full disk: one line and status 1 (3 commands); a folder that cannot be made: status 2"


# Ctrl-C

def interrupted_fit(n=100, seed=0):
    """Ctrl-C at random moments of fit: it returns, and the model is exactly as the last counted step left it."""
    def batches():
        return data.sorting(4, seed=1)

    steps, states = 40, {}
    model = gpt()
    optimizer = AdamW(model.trainable_parameters(), 0.01)
    stream = batches()
    states[0] = bits(model)
    for step in range(1, steps + 1):
        fit(model, stream, optimizer, 1, quiet=True)
        states[step] = bits(model)
    rng, stopped = random.Random(seed), 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores Ctrl-C
    for _ in range(n):
        model = gpt()
        timer = threading.Timer(rng.uniform(0, 0.06), os.kill, (os.getpid(), signal.SIGINT))
        stream = batches()
        optimizer = AdamW(model.trainable_parameters(), 0.01)
        try:
            timer.start()
            history = fit(model, stream, optimizer, steps, validation=[next(batches())], every=5, quiet=True)
            timer.join()
            time.sleep(0.001)  # where it comes after the end
        except KeyboardInterrupt:
            continue
        assert bits(model) == states[len(history.train_loss)], "the model is not as a step left it"
        assert len(history.validation_steps) == len(history.validation_loss)
        if history.interrupted:
            assert not model.training
            stopped += 1
    signal.signal(signal.SIGINT, before)
    assert stopped > n // 10, f"only {stopped} of {n} came in the middle"
    return f"{n} times Ctrl-C in fit: {stopped} in the middle, the model always exactly as a whole step left it"


def interrupted_lessons(n=30, seed=0, lessons=("01", "04", "09", "10")):
    """Ctrl-C at random moments of `python -m lessons`: one line, status 130, no figure half written."""
    rng, codes = random.Random(seed), []
    with tempfile.TemporaryDirectory() as folder:
        copy = project(folder)
        before = {path.name for path in (copy / "figures").iterdir()}
        clean = {**os.environ, **QUIET, "PYTHONPATH": str(copy)}
        for _ in range(n):
            process = subprocess.Popen([sys.executable, "-m", "lessons", rng.choice(lessons)], cwd=copy, env=clean,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            time.sleep(rng.uniform(0.1, 1.5))  # before, Python itself is starting
            process.send_signal(signal.SIGINT)
            text = process.communicate(timeout=60)[1].decode()
            codes.append(process.returncode)
            status = process.returncode
            # -2: ended by the signal itself while Python starts or ends, when no handler holds; a shell calls that 130.
            assert status in (0, 130) or (status == -2 and not text), f"status {status}: {text}"
            assert "Traceback" not in text and (status != 130 or text.endswith("\nstopped\n")), text
            assert {path.name for path in (copy / "figures").iterdir()} - {"drawn"} == before - {"drawn"}
            for path in copy.rglob("figures/**/*.png"):
                assert path.read_bytes()[-8:-4] == b"IEND", f"{path.name} is half a figure"
    return f"{n} times Ctrl-C in python -m lessons: {codes.count(130)} ended with one line and status 130, " \
           f"{codes.count(0)} had come to their end, {codes.count(-2)} were in Python's own start or end"


# Terminals, places, files

def terminals():
    """Commands in odd terminals: no traceback, and the status that they always have."""
    odd = {"no UTF-8": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
           "ASCII": {"PYTHONIOENCODING": "ascii"}, "Japanese Windows": {"PYTHONIOENCODING": "cp932"},
           "American Windows": {"PYTHONIOENCODING": "cp437"}, "40 columns": {"COLUMNS": "40"},
           "no display": {"DISPLAY": "", "WAYLAND_DISPLAY": "", "MPLBACKEND": ""}}
    count = 0
    for name, changes in odd.items():
        for words, status in (("lessons list", 0), ("lessons --help", 0), ("lora_np.byhand", 0), ("lessons 99", 2),
                              ("lora_np.byhand --markdown", 0), ("lora_np.byhand --worksheet", 0)):
            got, out, err = run(words, **changes)
            assert got == status and "Traceback" not in err and (out or status), (name, words, err)
            count += 1
    first = subprocess.run(f"{sys.executable} -m lessons list | head -1", shell=True, cwd=ROOT, capture_output=True,
                           check=False)
    assert first.returncode == 0 and b"Traceback" not in first.stderr and b"BrokenPipe" not in first.stderr
    return f"{count} commands without UTF-8, in ASCII, cp932 and cp437, in 40 columns and without a display; a pipe " \
           "that closes early"


def places():
    """The project in a folder with spaces and other letters, its figures gone: a lesson makes them anew."""
    with tempfile.TemporaryDirectory() as folder:
        copy = project(folder)
        shutil.rmtree(copy / "figures")
        for changes in ({}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "DISPLAY": ""}):
            status, out, err = run("lessons 01", cwd=copy, **changes)
            assert status == 0 and "1 of 1 lessons ran through" in out, err
        made = [path.name for path in (copy / "figures").rglob("*.png")]
        assert made and all(name.startswith("01_") for name in made)
    return f"lesson 01 in {PLACE!r} without a figure folder, with and without UTF-8: {len(made)} figure made"


def line_endings():
    """A student's file from Windows: \\r\\n, with a byte order mark, in a folder with spaces."""
    solution = (ROOT / "lessons" / "09_lora_layer" / "solution.py").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        for mark in (b"", b"\xef\xbb\xbf"):
            path = Path(folder) / "mein Entwurf, größer.py"
            path.write_bytes(mark + solution.replace("\n", "\r\n").encode())
            done = subprocess.run([sys.executable, "-m", "lessons", "check", "09", "--file", path], cwd=ROOT,
                                  capture_output=True, check=False)
            assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return "a file with Windows line endings, with and without a byte order mark: checked as any other"


def windows():
    """Everything that writes files, under Windows' rules for files (windows.py)."""
    with tempfile.TemporaryDirectory() as folder:
        status, out, err = run("tests.hard.windows", cwd=project(folder))
        assert status == 0, err
    return f"Windows' rules for files, simulated: {out.splitlines()[-1]}"


DRIFT = "from lessons.course.pages import scripts; print([scripts.drift(p) for p in scripts.lessons().values()])"


def line_endings_of_all():
    """A checkout in which every text has Windows line endings: nothing takes that for a change."""
    with tempfile.TemporaryDirectory() as folder:
        copy = project(folder)
        unchanged = _output([sys.executable, "-c", DRIFT], copy)
        for path in copy.rglob("*"):
            if path.suffix in (".py", ".md", ".json", ".toml"):
                path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
        assert _output([sys.executable, "-c", DRIFT], copy) == unchanged, "a page seems to have drifted from its script"
        for words, status, says in (("lessons check 01", 2, "not started"), ("lessons reset 01", 0, "it was the stub"),
                                    ("lessons list", 0, "01. "), ("lora_np.byhand", 0, "agree")):
            got, out, err = run(words, cwd=copy)
            assert got == status and says in out, (words, out, err)
    return "a checkout with Windows line endings: pages, stubs and commands as ever"


def _output(command, cwd):
    return subprocess.run(command, cwd=cwd, capture_output=True, check=True, env={
        **os.environ, **QUIET, "PYTHONPATH": str(cwd)}).stdout


# A user's settings

MATPLOTLIBRC = """
text.usetex: True
figure.facecolor: black
axes.facecolor: black
text.color: white
axes.labelcolor: white
xtick.color: white
savefig.facecolor: black
savefig.transparent: True
savefig.bbox: tight
font.family: serif
font.size: 30
lines.linewidth: 9
axes.formatter.use_mathtext: True
"""
DRAWN = """
import sys
from pathlib import Path
from lessons.course.classroom import exports
from lessons.course.pages import figures
from lora_np import Tensor
from lora_np.trace.draw import draw_graph
figures.FOLDER = Path(sys.argv[1])
fig, ax = figures.new("a title that says the finding")
ax.plot([1, 2, 3], [1, 4, 9], linewidth=2)
figures.label(ax, 3, 9, "100 % of x_1", figures.TRAINABLE)
figures.save(fig, "figure", alt="")
x = Tensor([1.0, 2.0], requires_grad=True, name="x")
draw_graph(lambda: (x * 3.0).sum(), figures.FOLDER / "graph.png")
rows = [{"exercise": "08", "diagnosis": "alpha-alone", "student": str(i)} for i in range(3)]
assert exports.draw(rows, figures.FOLDER / "class.png")
"""


def matplotlib_settings():
    """Figures under a matplotlibrc with a dark style, TeX, large letters and other margins: the same bits."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "matplotlibrc"
        settings.write_text(MATPLOTLIBRC, encoding="utf-8")
        for name, changes in (("plain", {}), ("dark", {"MATPLOTLIBRC": str(settings)})):
            subprocess.run([sys.executable, "-c", DRAWN, Path(folder) / name], cwd=ROOT, check=True, capture_output=True,
                           env={**os.environ, **QUIET, **changes})
        plain, dark = ({path.name: path.read_bytes() for path in (Path(folder) / name).iterdir()}
                       for name in ("plain", "dark"))
    assert len(plain) == 3 and plain == dark, [name for name in plain if plain[name] != dark.get(name)]
    return "3 figures under a matplotlibrc with a dark style and TeX: the same bits"


def closed_streams():
    """Commands with closed streams: the status that they always have, and nothing written anywhere else."""
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        for closed in (">&-", "2>&-", "<&-", ">&- 2>&- <&-"):
            for words, status in (("lessons list", 0), ("lora_np.byhand", 0),
                                  (f"lora_np.byhand --class 2 --out '{folder}/sheets'", 0), ("lessons 99", 2)):
                done = subprocess.run(f"{sys.executable} -m {words} {closed}", shell=True, cwd=ROOT, check=False,
                                      capture_output=True, env={**os.environ, **QUIET})
                assert done.returncode == status and b"Traceback" not in done.stderr, (words, closed, done.stderr)
                count += 1
        for path in Path(folder).rglob("*.md"):
            assert path.read_text(encoding="utf-8").startswith("#"), "output went into a file"
    return f"{count} commands with closed streams"


def umasks():
    """Files made under a strict and an open umask: what the umask allows, and readable by whom it lets."""
    with tempfile.TemporaryDirectory() as folder:
        for mask in (0o077, 0o022, 0o000):
            def save(mask=mask):
                os.umask(mask)
                save_model(gpt(0), Path(folder) / str(mask))
                assert bits(load_model(Path(folder) / str(mask))) == bits(gpt(0))

            assert os.waitstatus_to_exitcode(os.waitpid(child(save), 0)[1]) == 0
            modes = {path.stat().st_mode & 0o777 for path in (Path(folder) / str(mask)).iterdir()}
            assert modes == {0o666 & ~mask}, [oct(mode) for mode in modes]
    return "a model saved under the umasks 077, 022 and 000: readable by whom they let"


def read_only_checkout():
    """A course that may only be read: lessons run, exercises are checked, and what has to write says so in one line."""
    drop = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if os.geteuid() == 0 else []
    if drop and not shutil.which("setpriv"):
        return "a read-only checkout: skipped, root may write everywhere and setpriv is not there"
    with tempfile.TemporaryDirectory() as folder:
        copy = project(folder)
        places = [copy, *(path for path in copy.rglob("*") if path.is_dir())]
        for path in places:
            path.chmod(0o555)
        try:
            for words, status, says in (("lessons list", 0, "01. "), ("lessons check 01", 2, "not started"),
                                        ("lessons 01", 0, "1 of 1 lessons ran through"), ("lora_np.byhand", 0, "agree"),
                                        ("lessons notebook 01", 1, "Permission denied")):
                done = subprocess.run([*drop, sys.executable, "-m", *words.split()], cwd=copy, capture_output=True,
                                      check=False, env={**os.environ, **QUIET, "PYTHONPATH": str(copy),
                                                        "TMPDIR": folder})
                text = (done.stdout + done.stderr).decode(errors="replace")
                assert done.returncode == status and says in text and "Traceback" not in text, (words, text)
        finally:
            for path in places:
                path.chmod(0o755)
    return "a checkout that may only be read: 4 commands as ever, one says in a line that it cannot write"


# One seed, one result

TRAINING = """
import hashlib
from lora_np import GPT, GPTConfig, LoraConfig, data, generate, lora
from lora_np.optim import AdamW
from lora_np.train import fit
model = GPT(GPTConfig(11, 16, 12, 2, 2, 16, dropout=0.1))
fit(model, data.sorting(8), AdamW(model.trainable_parameters(), 0.01), 10, quiet=True)
lora.add_lora(model, LoraConfig(r=2, lora_dropout=0.1))
fit(model, data.sorting(8, descending=True), AdamW(model.trainable_parameters(), 0.01), 10, quiet=True)
digest = hashlib.sha256(b"".join(t.data.tobytes() for t in model.parameters()))
digest.update(generate(model, [1, 2, 3], 20, seed=1).tobytes())
print(digest.hexdigest())
"""


def two_processes():
    """Training twice in processes of their own gives the same bits."""
    found = {subprocess.run([sys.executable, "-c", TRAINING], cwd=ROOT, capture_output=True, check=True, env={
        **os.environ, "PYTHONHASHSEED": str(i), "OPENBLAS_NUM_THREADS": "1"}).stdout for i in (1, 2)}
    assert len(found) == 1 and len(found.pop()) == hashlib.sha256().digest_size * 2 + 1
    return "a base and an adapter trained twice, in two processes: the same bits"


def versions(pythons=None):
    """The tests under other versions, each in a fresh virtual environment, and warnings are errors."""
    lines = []
    home = Path.home() / ".pyenv" / "versions"
    found = pythons or [str(path) for path in sorted(home.glob("3.1[0-9]*/bin/python"))]
    for version, packages in VERSIONS:
        python = next((p for p in found if subprocess.run([p, "-c", f"import sys; sys.exit(not sys.version.startswith("
                                                           f"'{version}.'))"], check=False).returncode == 0), None)
        if python is None:
            lines.append(f"Python {version}: not here")
            continue
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([python, "-m", "venv", folder], check=True)
            inside = Path(folder) / "bin" / "python"
            subprocess.run([inside, "-m", "pip", "install", "--quiet", *packages, "pytest"], check=True)
            done = subprocess.run([inside, "-m", "pytest", "-qpno:cacheprovider"], cwd=ROOT, capture_output=True,
                                  check=False, env={**os.environ, **QUIET, "PYTHONPATH": str(ROOT),
                                                    "PYTHONWARNINGS": "error"})
            tell = ("import sys, numpy, matplotlib; "
                    "print(sys.version.split()[0], numpy.__version__, matplotlib.__version__)")
            which = subprocess.run([inside, "-c", tell], capture_output=True, check=True, text=True).stdout.split()
            failed = [line for line in done.stdout.decode().splitlines() if line.startswith(("FAILED", "ERROR"))]
            lines.append(f"Python {which[0]}, NumPy {which[1]}, Matplotlib {which[2]}: " + (
                "all tests pass" if done.returncode == 0 else "\n  ".join([f"{len(failed)} tests fail", *failed[:8]])))
    assert not any("fail" in line for line in lines), "\n".join(lines)
    return "\n".join(lines)


CHECKS = (kills, full_disk, full_device, read_only, command_cannot_write, interrupted_fit, interrupted_lessons,
          terminals, places, line_endings, line_endings_of_all, windows, matplotlib_settings, closed_streams, umasks,
          read_only_checkout, two_processes, versions)


def main(arguments=None):
    names = {check.__name__: check for check in CHECKS}
    parser = argparse.ArgumentParser(prog="python -m tests.hard.faults", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these; of {', '.join(names)}")
    parser.add_argument("--pythons", nargs="+", metavar="PATH", help="interpreters for `versions`; by default pyenv's")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(names):
        parser.error(f"there is no check {sorted(unknown)[0]!r}; there are {', '.join(names)}")
    broken = 0
    for name, check in names.items():
        if name in options.names or not options.names:
            start = time.perf_counter()
            try:
                text = check(options.pythons) if name == "versions" else check()
            except AssertionError as error:
                text, broken = f"BROKEN: {error}", broken + 1
            print(f"{name} ({time.perf_counter() - start:.0f} s)\n  " + text.replace("\n", "\n  "), flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
