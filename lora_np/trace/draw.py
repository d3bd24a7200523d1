"""The tape as a drawing: operations and leaves as boxes, from left to right, with values and gradients."""

from functools import lru_cache
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from ..support.palette import FROZEN, INK, TRAINABLE
from .layout import Box, arrange
from .tape import Trace, text

SIZE, LINE, PAD = 13, 0.25, 0.12  # of the text in points; of a line and around them in inches
LIMIT = 60  # boxes


class Card(Box):
    """A box with lines of (text, colour, weight) in a frame of a colour."""

    def __init__(self, lines, color):
        super().__init__(width=2 * PAD + max(map(_width, lines)), height=2 * PAD + LINE * len(lines))
        self.lines, self.color = lines, color


def draw_graph(target, path=None, model=None):
    """Draw the computation of a loss, given as Trace takes it. Returns a matplotlib Figure, saved to path if given.

    Grey is frozen, vermilion trainable; a dashed edge is one that backward skips. Raises ValueError beyond 60
    boxes, which nobody could read.
    """
    trace = Trace(target, model)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the same drawing whatever the user's settings are
        boxes, edges = _boxes(trace)
        _check_few(boxes)
        figure = _paint(boxes, *arrange(boxes, edges))
        if path is not None:
            figure.savefig(path, dpi=150)
    return figure


def _boxes(trace):
    """The boxes, operands before results, and the edges (from, to, whether a gradient flows back)."""
    boxes, edges = {}, []
    for name, t in trace.leaves.items():
        color = {"trainable": TRAINABLE, "frozen": FROZEN, "input": INK}[trace.role(t)]
        title = ".".join(name.split(".")[-2:])  # q_proj.lora_A
        lines = [(title, color, "bold"), (_valued("", t.data), INK, "normal")]
        boxes[name] = Card([*lines, _gradient(name, trace)], color)
    for step in trace.steps:
        title = " ".join([step.operation, *(o.name for o in step.operands if o.constant)])
        lines = [(title, INK, "bold"), (_valued(step.name, step.tensor.data), INK, "normal")]
        boxes[step.name] = Card([*lines, _gradient(step.name, trace)], INK if step.g is not None else FROZEN)
        edges += [(boxes[o.name], boxes[step.name], o.gradient is not None) for o in step.operands if not o.constant]
    return list(boxes.values()), edges


def _gradient(name, trace):
    g = trace.gradients[name]
    return ("no gradient", FROZEN, "normal") if g is None else (_valued("grad", g), TRAINABLE, "normal")


def _valued(name, array):
    """The name with the numbers, or with the shape where they are too many: h = [5 2], h (3, 4)."""
    numbers = text(array)
    if len(numbers) > 16 or " to " in numbers:
        return f"{name} {array.shape}".strip()
    return f"{name} = {numbers}" if name else numbers


@lru_cache(maxsize=1024)
def _width(line):
    words, _, weight = line
    return TextPath((0, 0), words, size=SIZE, prop={"weight": weight}).get_extents().width / 72


def _paint(boxes, routes, ways):
    paths = [(_curve(route, ways), flows) for route, flows in routes]
    points = np.concatenate([path.vertices for path, _ in paths] + [
        [(b.left, b.y - b.height / 2), (b.right, b.y + b.height / 2)] for b in boxes])
    (left, top), (right, bottom) = points.min(axis=0) - 0.2, points.max(axis=0) + 0.2
    top -= 0.4  # for the line that explains the colours
    figure = Figure(figsize=(max(right - left, 6), bottom - top), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(left, max(right, left + 6)), ylim=(bottom, top))
    axes.axis("off")
    for path, flows in paths:
        axes.add_patch(PathPatch(path, fill=False, lw=1.8 if flows else 1.4, ls="-" if flows else (0, (4, 3)),
                                 edgecolor=INK if flows else FROZEN, joinstyle="round", zorder=1))
    for box in boxes:
        fill = {TRAINABLE: "#fbe9dd", FROZEN: "#eeeeee"}.get(box.color, "white")
        middle = (box.left + box.right) / 2
        axes.add_patch(FancyBboxPatch((middle - box.width / 2, box.y - box.height / 2), box.width, box.height, lw=1.8,
                                      boxstyle="round,pad=0,rounding_size=0.08", fc=fill, ec=box.color, zorder=2))
        for i, (words, color, weight) in enumerate(box.lines):
            axes.text(middle, box.y + (i - (len(box.lines) - 1) / 2) * LINE, words, size=SIZE, color=color,
                      weight=weight, ha="center", va="center_baseline", zorder=3)
    x = left + 0.2
    for line in (("trainable", TRAINABLE, "bold"), ("frozen", FROZEN, "bold"),
                 ("dashed: backward skips it", FROZEN, "normal"), ("grad: dL/d(value)", TRAINABLE, "normal")):
        axes.text(x, top + 0.3, line[0], size=SIZE, color=line[1], weight=line[2], va="center")
        x += _width(line) + 0.35
    return figure


def _curve(route, ways):
    """From the right side of the first box to the left side of the last, straight through the slots between."""
    first, last = route[0], route[-1]
    points, codes = [((first.left + first.right + first.width) / 2, first.y)], [Path.MOVETO]
    for a, b in pairwise(route):
        if (a, b) in ways:
            straight = [*ways[a, b], (b.left, b.y)]
        else:
            middle, straight = (a.right + b.left) / 2, []
            points += [(a.right, a.y), (middle, a.y), (middle, b.y), (b.left, b.y)]
            codes += [Path.LINETO, *[Path.CURVE4] * 3]
        straight.append((b.right, b.y) if b is not last else ((b.left + b.right - b.width) / 2, b.y))
        points += straight
        codes += [Path.LINETO] * len(straight)
    return Path(points, codes)


def _check_few(boxes):
    if len(boxes) > LIMIT:
        raise ValueError(f"draw_graph: {len(boxes)} boxes are more than the {LIMIT} that can be read in one drawing; "
                         "draw one module at a time: draw_graph(lambda: block(x).sum()), with a Tensor x of its input")
