"""The figures of lesson 09: what flows where in a LoRA layer, and the graph of the worked example."""

from matplotlib.colors import to_hex
from matplotlib.offsetbox import AnnotationBbox, HPacker, TextArea
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle
from matplotlib.path import Path

from lora_np.support.palette import for_text
from lora_np.trace.draw import draw_graph

from .. import figures

GREY, RED, INK = figures.FROZEN, figures.TRAINABLE, figures.INK
SIDE, NARROW = 3.6, 0.6  # d = k, and r
TINT = "#eeeeee"  # the darkest ground of a box in a drawn graph
WIDE = 9  # the line that carries k or d numbers; one of r numbers is to scale


@figures.style()
def data_flow():
    """h = W0 x + (alpha/r) B A x in matrices drawn to scale: x through the frozen W0, and through A then B, added."""
    fig, ax = figures.new("", width=13, height=7.2)
    ax.set_title("LoRA: the frozen weight stays as it is, and a narrow path beside it learns", loc="left", fontsize=19,
                 fontweight="bold")

    def block(x, y, width, height, color):
        ax.add_patch(Rectangle((x - width / 2, y - height / 2), width, height, color=color, linewidth=0))

    def arrow(color, *points, line=WIDE):
        ax.add_patch(FancyArrowPatch(path=Path(points), color=color, linewidth=line, joinstyle="miter", capstyle="butt",
                                     arrowstyle=f"-|>,head_length={0.6 + line / 10},head_width={0.3 + line / 16}",
                                     mutation_scale=10))

    def say(x, y, text, color=INK, size=18, **options):
        ax.text(x, y, text, color=for_text(color), fontsize=size, **{"ha": "center", "va": "center", **options})

    def knot(x, y, text, color, size):
        ax.add_patch(Circle((x, y), 0.45, facecolor="white", edgecolor=color, linewidth=3, zorder=3))
        say(x, y, text, color, size, zorder=4)

    arrow(INK, (0.86, 4.1), (1.75, 4.1), (1.75, 6.4), (4.5, 6.4))  # x to W0
    arrow(INK, (1.75, 4.1), (1.75, 1.9), (2.7, 1.9))               # x to A
    arrow(RED, (6.45, 1.9), (8.2, 1.9), line=WIDE * NARROW / SIDE)  # A to B: only r numbers pass
    arrow(RED, (8.9, 1.9), (12.2, 1.9), (12.2, 3.55))              # B to the sum
    arrow(GREY, (8.2, 6.4), (12.2, 6.4), (12.2, 4.65))             # W0 to the sum
    arrow(INK, (12.65, 4.1), (13.7, 4.1))
    for at, name, length in ((0.65, "x", "k"), (14.0, "h", "d")):
        block(at, 4.1, 0.42, SIDE, INK)
        say(at, 6.25, name, size=28)
        say(at, 1.95, length, size=22)
    block(6.4, 6.4, SIDE, SIDE, GREY)
    say(6.4, 6.75, "W₀", "#000000", 46)
    say(6.4, 5.45, "d × k, frozen", "#000000", 20)
    block(4.6, 1.9, SIDE, NARROW, RED)
    say(4.6, 1.9, "A", "#000000", 27)
    say(4.6, 1.2, "r × k, starts random", RED)
    block(8.6, 1.9, NARROW, SIDE, RED)
    say(8.6, 1.9, "B", "#000000", 27)
    say(9.1, 0.5, "d × r, starts at zero", RED, ha="left")
    for at, height, above, below, color in ((7.35, 1.9, "A x", "r numbers", RED), (9.8, 1.9, "B A x", "d numbers", RED),
                                            (10.2, 6.4, "W₀ x", "d numbers", GREY), (3.1, 6.4, "x", "k numbers", INK)):
        say(at, height + 0.5, above, color, 22)
        say(at, height - 0.45, below, color, 15)
    knot(11.3, 1.9, "α/r", RED, 17)
    knot(12.2, 4.1, "+", INK, 32)
    words = [("h  =  ", INK), ("W₀ x", GREY), ("  +  ", INK), ("(α/r) B A x", RED)]
    formula = HPacker(children=[TextArea(t, textprops={"color": for_text(c), "fontsize": 27}) for t, c in words], pad=0,
                      sep=0)
    ax.add_artist(AnnotationBbox(formula, (5.0, 3.45), frameon=False))
    ax.set(xlim=(0.3, 14.4), ylim=(-0.05, 8.3), aspect="equal")
    ax.axis("off")
    return figures.save(fig, "09_lora_layer", alt="Data flow of a LoRA layer: h = W0 x + (alpha/r) B A x. x, of k numbers, "
                        "goes two ways. Above it passes through the large grey square W0, d by k and frozen, and gives W0 "
                        "x of d numbers. Below it passes through the orange A, r by k and random at the start, which "
                        "leaves r numbers, then through the orange B, d by r and zero at the start, which makes them d "
                        "numbers; these are scaled by alpha/r. The two results are added and give h.")


def graph(loss, layer):
    """The graph of the worked example, as the engine draws it. loss: a function that computes it."""
    fig = draw_graph(loss, model=layer)
    for text in fig.axes[0].texts:
        text.set_color(for_text(to_hex(text.get_color()), TINT))
    return figures.save(fig, "09_graph", alt="The graph of the worked example, with the value and "
                        "the gradient in each box. x leads to two linear operations: one with lora_A, then times 2 and with "
                        "lora_B, and one with the weight. lora_A and lora_B are orange and hold their gradients, 10 and 15, "
                        "and 12 and minus 18. The weight and the target y are grey, and dashed lines lead from them: they "
                        "have no gradient. That of x, 8 and minus 4, comes from both paths.")
