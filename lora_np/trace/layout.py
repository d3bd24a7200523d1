"""Where the boxes of a graph stand, so that one can follow its edges: nothing here knows what a box says.

Layers by longest path; an edge over several layers gets a slot in each that it passes, so that no edge runs
through a box; order within a layer by barycentres, keeping the order with the fewest crossings (Sugiyama et al.
1981). A graph too wide for a slide goes on in a second row, as text does.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

GAP, BETWEEN, LANE, WIDEST = 0.22, 0.5, 0.16, 10  # inches: between boxes, layers and edges around a row; of a row


@dataclass(eq=False)
class Box:
    """A node of the graph, of a size in inches; without a width, the slot of an edge that passes a layer."""

    width: float = 0.0
    height: float = 0.12
    layer: int = 0
    row: int = 0
    y: float = 0.0  # the middle; y runs down
    left: float = 0.0  # of the layer it stands in
    right: float = 0.0
    before: list = field(default_factory=list)
    after: list = field(default_factory=list)


def arrange(boxes, edges):
    """Give every box its place.

    boxes: operands before results. edges: (from, to, flag), in the order of their results. Returns the routes
    ([from, slots …, to], flag) of the edges, and {(box, next): points} of the ways from one row to the next.
    """
    layers, routes = _layers(boxes, edges)
    _order(layers)
    return routes, _place(layers)


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
    return max(box.width for box in layer)


def _rows(layers):
    """The layers in as few rows as their widths take, cut where few edges pass."""
    begins = np.cumsum([0, *(_layer_width(layer) + BETWEEN for layer in layers)])
    for count in range(int(np.ceil(begins[-1] / WIDEST)), len(layers) + 1):
        cuts = [0]
        for k in range(1, count):
            cost = {i: sum(len(box.after) for box in layers[i - 1]) + abs(begins[i] - begins[-1] * k / count)
                    for i in range(cuts[-1] + 1, len(layers) - (count - 1 - k))}
            cuts.append(min(cost, key=cost.get))
        if np.diff(begins[[*cuts, -1]]).max() <= WIDEST:
            break
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
