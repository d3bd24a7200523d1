"""The figures of the benchmarks, in the style of the course's; they stay beside the numbers, in this folder."""

import math
import statistics
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lessons.course.pages import figures

from .contenders import NAMES
from .work import SIZES, VOCABULARY

FOLDER = Path(__file__).resolve().parent
COLORS = {"lora_np": figures.TRAINABLE, "pytorch": figures.FULL, "by_hand": figures.INK,
          "hips": figures.OTHERS[0], "mygrad_": figures.OTHERS[1]}


def save(fig, name):
    with matplotlib.rc_context(figures.STYLE):
        FigureCanvasAgg(fig)
        fig.savefig(FOLDER / f"{name}.png", dpi=150, metadata={"Software": None})
    print(f"figure: tests/benchmarks/{name}.png")
    return f"{name}.png"


def parameters(size):
    """How many numbers the base model holds."""
    d, ff = size.d_model, size.d_ff
    layer = 4 * d * (d + 1) + 2 * d * ff + d + ff + 4 * d
    return (VOCABULARY + size.context) * d + size.n_layers * layer + 2 * d


def step_times(results, sizes, threads):
    """Step time against model size, LoRA mode, for the first thread count: in ms, and as multiples of lora_np's."""
    t = threads[0]
    names = [key[1] for key in results[sizes[0]] if key[0] == "lora" and key[3] == t and not key[2]]
    x = [parameters(SIZES[size]) for size in sizes]
    fig, (left, right) = figures.new(f"A LoRA training step on {t} thread{'s' * (t > 1)}, against model size", 2,
                                     width=12.5, height=5.2)
    ends = {}
    for name in names:
        keep = name == "by_hand"  # the limit is shown with freed memory kept, peers as they are installed
        measured = [results[size]["lora", name, keep, t] for size in sizes]
        left.plot(x, [1000 * statistics.median(m[1]) for m in measured], "o-", color=COLORS[name])
        ratios = [statistics.median(1 / m[0]) for m in measured]
        right.plot(x, ratios, "o-", color=COLORS[name])
        ends[name] = ratios[-1]
    ours = [1000 * statistics.median(results[size]["lora", names[0], names[0] == "by_hand", t][2]) for size in sizes]
    left.plot(x, ours, "o-", color=COLORS["lora_np"], linewidth=4)
    right.axhline(1, color=COLORS["lora_np"], linewidth=4)
    ends["lora_np"] = 1
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel("parameters of the base model")
    left.set_title("milliseconds a step")
    right.set_title("multiples of lora_np's time")
    ticks = [0.5, 0.7, 1, 1.5, 2, 3, 5]
    right.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    right.minorticks_off()
    right.set_xlim(x[0] / 1.5, x[-1] * 1.5)
    height = -1.0  # labels one above the other, each as near to its line's end as the one below allows
    for name, end in sorted(ends.items(), key=lambda item: item[1]):
        height = max(math.log10(end), height + 0.055)
        figures.label(right, x[-1] * 1.5, 10 ** height, NAMES[name], COLORS[name])
    return save(fig, "benchmark_steps")


def scaling(results, axes, labels):
    """Time above, memory below, one column for each size that was varied; LoRA against full."""
    with matplotlib.rc_context(figures.STYLE):
        fig = Figure(figsize=(15, 7), layout="constrained")
        grid = fig.subplots(2, len(axes), sharey="row", squeeze=False)
        fig.suptitle("LoRA saves little where the context is long: both modes keep attention's weights", x=0.01,
                     ha="left", fontweight="bold")
        for column, (axis, values) in enumerate(axes.items()):
            for row, scale in enumerate((1e3, 1e-6)):
                ax = grid[row][column]
                for mode, color in (("lora", figures.TRAINABLE), ("full", figures.FULL)):
                    ax.plot(values, [scale * v for v in results[axis][mode][row]], "o-", color=color)
                ax.set_xscale("log", base=2)
                ax.set_yscale("log")
                ticks = values[::1 + (len(values) > 4)]
                ax.set_xticks(ticks, [str(v) for v in ticks])
                ax.minorticks_off()
            grid[1][column].set_xlabel(labels[axis])
        grid[0][0].set_ylabel("time, ms")
        grid[1][0].set_ylabel("peak memory, MB")
        (axis, values), ax = next(iter(axes.items())), grid[1][0]
        for mode, text, color, dy in ("full", "full", figures.FULL, 12), ("lora", "LoRA", figures.TRAINABLE, -12):
            figures.label(ax, values[2], 1e-6 * results[axis][mode][1][2], text, color, dx=-dy, dy=dy,
                          ha="right" if dy > 0 else "left")
    return save(fig, "benchmark_scaling")


def inside(results, parts):
    """One bar for each size and mode, from what NumPy spends in matrix products to what Python spends around it."""
    colors = [figures.FULL, figures.OTHERS[3], figures.OTHERS[0], figures.OTHERS[2], figures.OTHERS[1], "#c9b8a8",
              figures.TRAINABLE, figures.FROZEN]
    fig, ax = figures.new("A large step is matrix products, a tiny one is overhead", width=12, height=5.5)
    for row, (name, shares) in enumerate(results.items()):
        left = 0
        for part, color in zip(parts, colors, strict=True):
            share = 100 * shares[part]
            ax.barh(row, share, left=left, color=color, edgecolor="white")
            if share >= 4.5:
                ax.text(left + share / 2, row, f"{share:.0f}", ha="center", va="center", color="white", fontsize=12,
                        fontweight="bold")
            left += share
        ax.text(-1, row, name, ha="right", va="center")
    for i, (part, color) in enumerate(zip(parts, colors, strict=True)):
        ax.text(0.25 * 100 * (i % 4), -0.75 - 0.45 * (1 - i // 4), part, color=color, fontweight="bold", va="bottom")
    ax.set_ylim(len(results) - 0.5, -1.7)
    ax.set_xlim(0, 100)
    ax.set_yticks([])
    ax.grid(False)
    ax.set_xlabel("share of the step's time, %")
    return save(fig, "benchmark_inside")
