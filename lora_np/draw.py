"""The tape as a drawing: operations and leaves as boxes, in layers from left to right, with values and gradients.

Layers by longest path; an edge over several layers gets a slot in each that it passes, so that no edge runs
through a box; order within a layer by barycentres, keeping the order with the fewest crossings. A drawing too
wide for a slide goes on in a second row, as text does.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from .palette import FROZEN, INK, TRAINABLE
from .trace import Trace, text

SIZE, LINE, PAD, GAP, BETWEEN, LANE = 13, 0.25, 0.12, 0.22, 0.5, 0.16  # points; the others in inches
WIDEST, LIMIT = 16, 60  # inches of a row; boxes


@dataclass(eq=False)
class Box:
    """A node of the drawing, or, without lines, the slot of an edge that passes a layer."""

    lines: list = field(default_factory=list)  # (text, colour, weight)
    color: str = INK
    layer: int = 0
    row: int = 0
    y: float = 0.0  # the middle; y runs down
    left: float = 0.0  # of the layer it stands in
    right: float = 0.0
    before: list = field(default_factory=list)
    after: list = field(default_factory=list)

    @property
    def height(self):
        return LINE * len(self.lines) + 2 * PAD if self.lines else 0.12

    @property
    def width(self):
        """Of the box itself, which stands in the middle of its layer; a slot is as wide as the layer."""
        return 2 * PAD + max(map(_width, self.lines)) if self.lines else self.right - self.left


def draw_graph(target, path=None, model=None):
    """Draw the computation of a loss, given as Trace takes it. Returns a matplotlib Figure, saved to path if given.

    Grey is frozen, vermilion trainable; a dashed edge is one that backward skips. Raises ValueError beyond 60
    boxes, which nobody could read.
    """
    trace = Trace(target, model)
    boxes, edges = _boxes(trace)
    if len(boxes) > LIMIT:
        raise ValueError(f"draw_graph: {len(boxes)} boxes are more than the {LIMIT} that can be read in one drawing; "
                         "draw one module at a time: draw_graph(lambda: block(x).sum()), with a Tensor x of its input")
    layers, routes = _layers(boxes, edges)
    _order(layers)
    figure = _paint(boxes, routes, _place(layers))
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _boxes(trace):
    """The boxes, operands before results, and the edges (from, to, whether a gradient flows back)."""
    boxes, edges = {}, []
    for name, t in trace.leaves.items():
        color = {"trainable": TRAINABLE, "frozen": FROZEN, "input": INK}[trace.role(t)]
        title = ".".join(name.split(".")[-2:])  # q_proj.lora_A
        boxes[name] = Box([(title, color, "bold"), (_valued("", t.data), INK, "normal"), _gradient(name, trace)], color)
    for step in trace.steps:
        title = " ".join([step.operation, *(o.name for o in step.operands if o.constant)])
        lines = [(title, INK, "bold"), (_valued(step.name, step.tensor.data), INK, "normal")]
        boxes[step.name] = Box([*lines, _gradient(step.name, trace)], INK if step.g is not None else FROZEN)
        edges += [(boxes[o.name], boxes[step.name], o.gradient is not None) for o in step.operands if not o.constant]
    return list(boxes.values()), edges


def _gradient(name, trace):
    g = trace.gradients[name]
    return ("no gradient", FROZEN, "normal") if g is None else (_valued("grad", g), TRAINABLE, "normal")


def _valued(name, array):
    """The name with the numbers, or with the shape where they are too many: h = [5 2], h (3, 4)."""
    numbers = text(array)
    few = len(numbers) <= 16 and " to " not in numbers
    return f"{name} = {numbers}" if few and name else numbers if few else f"{name} {array.shape}".strip()


def _layers(boxes, edges):
    """The boxes and slots of each layer, and each edge's route [from, slots …, to] with its flag."""
    depth = dict.fromkeys(boxes, 0)
    for a, b, _ in edges:  # in the order of the tape: a's depth is final by now
        depth[b] = max(depth[b], depth[a] + 1)
    for box in boxes:  # a leaf stands next to its first use
        if all(b is not box for _, b, _ in edges):
            depth[box] = min((depth[b] for a, b, _ in edges if a is box), default=1) - 1
    layers = [[] for _ in range(max(depth.values()) + 1)]
    for box in boxes:
        box.layer = depth[box]
        layers[box.layer].append(box)
    routes = []
    for a, b, flows in edges:
        route = [a, *(Box(layer=i) for i in range(a.layer + 1, b.layer)), b]
        for slot in route[1:-1]:
            layers[slot.layer].append(slot)
        for left, right in pairwise(route):
            left.after.append(right)
            right.before.append(left)
        routes.append((route, flows))
    return layers, routes


def _order(layers):
    """Sort each layer, in place, so that few edges cross: sweeps of barycentres, the best result kept."""
    best, fewest = [list(layer) for layer in layers], _crossings(layers)
    for sweep in range(24):
        ahead = sweep % 2 == 0
        for i in range(1, len(layers)) if ahead else range(len(layers) - 2, -1, -1):
            rank = {box: j for j, box in enumerate(layers[i - 1 if ahead else i + 1])}
            centre = {box: float(np.mean([rank[n] for n in (box.before if ahead else box.after)] or [j]))
                      for j, box in enumerate(layers[i])}
            layers[i].sort(key=centre.get)
        if (now := _crossings(layers)) < fewest:
            best, fewest = [list(layer) for layer in layers], now
    for layer, order in zip(layers, best, strict=True):
        layer[:] = order


def _crossings(layers):
    total = 0
    for left, right in pairwise(layers):
        rank = {box: j for j, box in enumerate(right)}
        ends = [(i, rank[n]) for i, box in enumerate(left) for n in box.after]
        total += sum((a - c) * (b - d) < 0 for k, (a, b) in enumerate(ends) for c, d in ends[:k])
    return total


def _place(layers):
    """Give every box its place, row by row. Returns {(box, next): way} for the edges from one row to the next."""
    rows, ways, top = _rows(layers), {}, 0.0
    for number, row in enumerate(rows):
        ends = [] if number == 0 else [(a, b) for a in rows[number - 1][-1] for b in row[0] if b in a.after]
        x = LANE * (len(ends) + 2) if number else 0.0
        for layer in row:
            width = _layer_width(layer)
            for box in layer:
                box.row, box.left, box.right = number, x, x + width
            x += width + BETWEEN
            _stack(layer, np.zeros(len(layer)))
        for sweep in range(11):  # y by averaging the neighbours', as far as the boxes above and below allow
            ahead = sweep % 2 == 0
            for layer in row if ahead else row[::-1]:
                _stack(layer, [_wanted(box, ahead) for box in layer])
        inside = [box for layer in row for box in layer]
        down = top + LANE * (len(ends) + 1) - min(box.y - box.height / 2 for box in inside)
        for box in inside:
            box.y += down
        for i, (a, b) in enumerate(sorted(ends, key=lambda e: (e[0].y, e[1].y))):
            lane = LANE * (len(ends) - i)  # nested lanes around the end of a row do not cross
            ways[a, b] = [(a.right + lane, a.y), (a.right + lane, top + lane), (lane, top + lane), (lane, b.y)]
        top = max(box.y + box.height / 2 for box in inside)
    return ways


def _wanted(box, ahead):
    """The mean y of the neighbours on the side that the sweep comes from, in the same row; else its own."""
    ys = [n.y for n in (box.before if ahead else box.after) if n.row == box.row]
    return np.mean(ys) if ys else box.y


def _layer_width(layer):
    return max(box.width for box in layer if box.lines)


def _rows(layers):
    """The layers in as many rows as their width takes, cut where few edges pass."""
    ends = np.cumsum([_layer_width(layer) + BETWEEN for layer in layers])
    count, cuts = int(np.ceil(ends[-1] / WIDEST)), [0]
    for k in range(1, count):
        cost = {i: sum(len(box.after) for box in layers[i - 1]) + abs(ends[i - 1] - ends[-1] * k / count)
                for i in range(cuts[-1] + 1, len(layers))}
        cuts.append(min(cost, key=cost.get))
    return [layers[i:j] for i, j in pairwise([*cuts, len(layers)])]


def _stack(layer, wanted):
    """Set y as near to what is wanted as the order and the gaps allow (isotonic regression)."""
    heights = np.array([box.height for box in layer])
    offset = np.concatenate([[0], np.cumsum((heights[:-1] + heights[1:]) / 2 + GAP)])
    blocks = []  # (mean, count) of neighbours that touch
    for value in np.asarray(wanted) - offset:
        mean, count = value, 1
        while blocks and blocks[-1][0] > mean:
            other, n = blocks.pop()
            mean, count = (mean * count + other * n) / (count + n), count + n
        blocks.append((mean, count))
    for box, y in zip(layer, np.repeat(*zip(*blocks, strict=True)) + offset, strict=True):
        box.y = float(y)


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
