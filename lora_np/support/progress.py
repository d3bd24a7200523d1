"""How far a training has come, on stderr or in one line of a notebook; and Ctrl-C that waits for the end of a step."""

import io
import signal
import sys
import time
from contextlib import contextmanager

import numpy as np

from .memory import peak_memory


class Progress:
    """How far fit has come: a live line on a terminal, one line a cell in Jupyter, plain lines elsewhere on stderr."""

    cell = None  # (number of the Jupyter cell that runs, its line), shared by all that is trained in the cell

    def __init__(self, label, steps, quiet, start=0):
        self.label, self.steps, self.quiet, self.start = label, steps, quiet, start
        self.stream = sys.stderr or io.StringIO()  # None where stderr is closed
        self.on_terminal, self.jupyter = self.stream.isatty(), _jupyter()
        self.begin = self.last = time.perf_counter()
        self.open = False

    def text(self, step, history):
        parts = [f"{self.label}: step {step}/{self.steps}"]
        if history.train_loss:
            parts.append(f"loss {np.mean(history.train_loss[-20:]):.3f}")
        if history.validation_loss:
            parts.append(f"validation {history.validation_loss[-1]:.3f}")
        if (held := peak_memory()) > 5e8:  # bytes; below, nobody need care
            parts.append(f"{held / 1e9:.1f} GB")
        if step > self.start:
            rate = (step - self.start) / (time.perf_counter() - self.begin)
            parts += [f"{rate:.{0 if rate >= 10 else 1}f} steps/s", f"{(self.steps - step) / rate:.0f} s left"]
        return "  ".join(parts)

    def live(self, step, history):
        """Rewrite the line, ten times a second at most."""
        now = time.perf_counter()
        if self.quiet or now - self.last < 0.1 or not (self.on_terminal or self.jupyter):
            return
        self.last = now
        if self.jupyter:
            self.rewrite(self.text(step, history))
            return
        self.open = True
        print("\r\x1b[K" + self.text(step, history), end="", file=self.stream, flush=True)

    def milestone(self, step, history):
        """A plain line where there is none to rewrite."""
        if not self.quiet and not self.on_terminal:
            (self.rewrite if self.jupyter else self.say)(self.text(step, history))

    def rewrite(self, text):
        """Change the line of the Jupyter cell that runs, or begin it."""
        from IPython.display import display, update_display
        number, line = Progress.cell or (None, None)
        if number == self.jupyter.execution_count:
            update_display({"text/plain": text}, raw=True, display_id=line)
        else:
            line = display({"text/plain": text}, raw=True, display_id=True).display_id
            Progress.cell = self.jupyter.execution_count, line

    def say(self, text):
        self.end()
        print(text, file=sys.stdout if self.jupyter else self.stream, flush=True)

    def end(self):
        """Leave the live line."""
        if self.open:
            print(file=self.stream, flush=True)
            self.open = False


def _jupyter():
    """The shell of the Jupyter kernel that this runs in, or None."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell if hasattr(shell, "kernel") else None


@contextmanager
def defer_interrupt():
    """Ctrl-C waits for the end of the block, so that no step is half taken."""
    waiting = []
    try:
        before = signal.signal(signal.SIGINT, lambda *received: waiting.append(received))
    except ValueError:  # Python sends Ctrl-C to the main thread alone
        before = None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
        if waiting and callable(before):
            before(*waiting[0])
