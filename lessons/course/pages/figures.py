"""How every figure of the course looks, and where it goes.

    fig, ax = figures.new("Rank 1 is 8,192 numbers; the matrix is 16.8 million")
    ...
    figures.save(fig, "08_parameter_counts", alt="what the figure shows, in words")

Figures are made without pyplot, so they need no screen and leave no state behind.
"""

from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lora_np.checkpoint.atomic import atomic_write
from lora_np.support.palette import FROZEN, FULL, INK, OTHERS, TRAINABLE

__all__ = ["FOLDER", "FROZEN", "FULL", "INK", "OTHERS", "TRAINABLE", "label", "new", "save", "saved", "write"]

FOLDER = Path(__file__).resolve().parents[3] / "figures"
STYLE = {
    "font.size": 13, "axes.titlesize": 15, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.titlepad": 14, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "lines.linewidth": 2.5, "lines.markersize": 7, "lines.solid_capstyle": "round",
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#e4e4e4", "axes.axisbelow": True,
    "axes.prop_cycle": matplotlib.cycler(color=[TRAINABLE, FULL, *OTHERS, FROZEN]),
}

saved = []  # (file name, alt text) of each figure, in order; the renderer empties it cell by cell


def new(title, columns=1, width=9.0, height=5.0, **options):
    """A figure with one axes, or a row of them, in the style of the course. The title says the finding."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(width, height), layout="constrained")
        axes = fig.subplots(1, columns, **options)
        if columns == 1:
            axes.set_title(title)
        else:
            fig.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=STYLE["axes.titlesize"])
            for ax in axes:
                ax.title.set_fontsize(STYLE["font.size"])
    return fig, axes


def label(ax, x, y, text, color, dx=6, dy=0, **options):
    """Write a name beside its line, at the data point (x, y), dx and dy points away: no legend to look up."""
    options = {"ha": "left", "va": "center", "fontsize": 13, **options}
    ax.annotate(text, (x, y), xytext=(dx, dy), textcoords="offset points", color=color, annotation_clip=False,
                **options)


def save(fig, name, alt):
    """Write figures/<name>.png, and note the alt text for the page."""
    write(fig, FOLDER / f"{name}.png")
    saved.append((f"{name}.png", alt))
    print(f"figure: figures/{name}.png")


def write(fig, path):
    """Write a figure to a PNG file, whole or not at all."""
    with matplotlib.rc_context(STYLE), atomic_write(path.parent) as create:
        FigureCanvasAgg(fig)
        fig.savefig(create(path.name), format="png", dpi=150, metadata={"Software": None})
