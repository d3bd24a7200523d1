"""How every figure of the course looks, and where it goes.

    @figures.style()
    def counts(...):
        fig, ax = figures.new("Rank 1 is 8,192 numbers; the matrix is 16.8 million")
        ...
        return figures.save(fig, "08_parameter_counts", alt="what the figure shows, in words")

Figures are made without pyplot, so they need no screen and leave no state behind.
"""

import errno
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from lora_np.checkpoint.atomic import atomic_write
from lora_np.support.palette import FROZEN, FULL, INK, OTHERS, READABLE, TRAINABLE, contrast, for_text

from .. import ROOT, shown

__all__ = ["FOLDER", "FROZEN", "FULL", "INK", "OTHERS", "TRACKED", "TRAINABLE", "label", "new", "plain_powers", "save",
           "saved", "style", "subtitle", "write"]

TRACKED = ROOT / "figures"  # what the pages show
FOLDER = TRACKED / "drawn"  # where save writes, unless the tracked ones are to be made again: git ignores it
PAGE, SMALLEST = 830, 12  # pixels: how wide a page shows a figure, and how high its letters are at least
STYLE = {
    "font.size": 13, "axes.titlesize": 15, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.titlepad": 14, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "lines.linewidth": 2.5, "lines.markersize": 7, "lines.solid_capstyle": "round",
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#e4e4e4", "axes.axisbelow": True,
    "axes.prop_cycle": matplotlib.cycler(color=[TRAINABLE, FULL, *OTHERS, FROZEN]),
}


@dataclass
class Saved:
    """A figure that was saved, which a notebook shows."""

    path: Path
    alt: str

    def _repr_png_(self):
        return self.path.read_bytes()

    def __repr__(self):
        return self.alt


@contextmanager
def style():
    """Draw in the style of the course, whatever the user's own Matplotlib settings are. Also a decorator."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


saved = []  # the Saved of each figure, in order; the renderer empties it cell by cell


@style()
def new(title, columns=1, width=9.0, height=5.0, **options):
    """A figure with one axes, or a row of them, in the style of the course. The title says the finding."""
    matplotlib.rcParams["font.size"] = size = max(STYLE["font.size"], 1.01 * points(SMALLEST, width))
    fig = Figure(figsize=(width, height), layout="constrained")
    axes = fig.subplots(1, columns, **options)
    if columns == 1:
        axes.set_title(title, fontsize=15 / 13 * size)
    else:
        fig.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=15 / 13 * size)
    return fig, axes


def points(pixels, width):
    """The size of letters so many pixels high where a figure `width` inches wide fills a page."""
    return pixels * 72 * width / PAGE


def subtitle(ax, text):
    """What one of several axes shows, in the size of its labels."""
    ax.set_title(text, fontsize=ax.xaxis.label.get_fontsize(), fontweight="normal")


@style()
def label(ax, x, y, text, color, dx=6, dy=0, **options):
    """Write a name beside its line, at the data point (x, y), dx and dy points away: no legend to look up."""
    options = {"ha": "left", "va": "center", "fontsize": ax.xaxis.label.get_fontsize(), **options}
    ax.annotate(text, (x, y), xytext=(dx, dy), textcoords="offset points", color=for_text(color),
                annotation_clip=False, **options)


def plain_powers(axis):
    """Write powers of ten along an axis as Python does, 1e-05: raised exponents are too small to read."""
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def save(fig, name, alt):
    """Write <name>.png to FOLDER, and note the alt text for the page. Raises ValueError for text that nobody can read.

    Where the course may only be read, figures go to a temporary folder.
    """
    global FOLDER
    _check_legible(fig, name)
    try:
        write(fig, FOLDER / f"{name}.png")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or FOLDER == TRACKED:
            raise
        FOLDER = Path(tempfile.mkdtemp(prefix="figures-"))
        write(fig, FOLDER / f"{name}.png")
    saved.append(Saved(FOLDER / f"{name}.png", alt))
    print(f"figure: {shown(saved[-1].path)}")
    return saved[-1]


@style()
def write(fig, path):
    """Write a figure to a PNG file, whole or not at all."""
    with atomic_write(path.parent) as create:
        FigureCanvasAgg(fig)
        fig.savefig(create(path.name), format="png", dpi=min(150, 2100 / fig.get_figwidth()),
                    metadata={"Software": None})


@style()
def _check_legible(fig, name):
    """Raise for text that is too small on a page, or too pale on white."""
    FigureCanvasAgg(fig)
    fig.draw_without_rendering()  # only now are the numbers along the axes there
    hidden = {text for ax in fig.axes if not ax.axison for axis in (ax.xaxis, ax.yaxis) for text in axis.findobj(Text)}
    for text in fig.findobj(Text):
        if text in hidden or not text.get_visible() or not text.get_text().strip():
            continue
        size = text.get_fontsize() / points(1, fig.get_figwidth()) * (0.7 if "mathdefault" in text.get_text() else 1)
        if size < SMALLEST:
            raise ValueError(f"{name}: {text.get_text()!r} is {size:.1f} px high on a page {PAGE} px wide, expected "
                             f"{SMALLEST} at least; write it larger or make the figure narrower")
        shade = (text.get_alpha() or 1) * contrast(to_hex(text.get_color()))
        if shade < READABLE:
            raise ValueError(f"{name}: {text.get_text()!r} has a contrast of {shade:.2f} with white, expected "
                             f"{READABLE} at least; see for_text in lora_np/support/palette.py")
