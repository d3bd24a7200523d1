"""The figure of lesson 02."""

from matplotlib.patches import Rectangle

from lora_np.support.palette import for_text

from .. import figures

INK, TRAINED, BACK = figures.INK, figures.TRAINABLE, figures.OTHERS[0]


@figures.style()
def shapes():
    """The linear layer forward and back, every matrix drawn cell by cell."""
    fig, ax = figures.new("Each gradient has the shape of its operand: the sizes that meet are summed away", width=13,
                          height=5.6)
    _equation(ax, 0, 7.6, "forward", ("X", 4, 3, INK), "·", ("Wᵀ", 3, 2, TRAINED), "+", ("bias", 1, 2, TRAINED), "=",
              ("H", 4, 2, INK))
    ax.text(18.6, 8.4, "weight W and bias, and their gradients", fontsize=16, color=for_text(TRAINED), va="center")
    ax.text(18.6, 6.8, "G, the gradient of H, which comes back", fontsize=16, color=for_text(BACK), va="center")
    _equation(ax, 0, 0, "back to X", ("G", 4, 2, BACK), "·", ("W", 2, 3, TRAINED), "=", ("dX", 4, 3, INK))
    _equation(ax, 13.2, 0, "back to W", ("Gᵀ", 2, 4, BACK), "·", ("X", 4, 3, INK), "=", ("dW", 2, 3, TRAINED))
    _equation(ax, 28, 0, "back to the bias: add rows", ("G", 4, 2, BACK), "→", ("dbias", 1, 2, TRAINED))
    ax.set(xlim=(-0.2, 36), ylim=(-3.3, 10.9), aspect="equal")
    ax.axis("off")
    return figures.save(fig, "02_shapes", alt="Matrices drawn cell by cell. Forward: X (4, 3) times W transposed (3, 2) "
                        "plus the bias (2,) gives H (4, 2). Back: G (4, 2) times W (2, 3) gives dX (4, 3); G transposed "
                        "(2, 4) times X (4, 3) gives dW (2, 3); the sum of G over its rows gives the gradient of the "
                        "bias (2,).")


def _matrix(ax, x, y, text, rows, columns, color):
    """Draw a matrix, its left side at x and its middle at height y; returns where its right side is."""
    for i in range(rows):
        for j in range(columns):
            ax.add_patch(Rectangle((x + j, y - rows / 2 + i), 1, 1, facecolor="white", edgecolor=color, lw=1.8))
    size = f"({rows}, {columns})" if not text.endswith("bias") else f"({columns},)"
    ax.text(x + columns / 2, y - rows / 2 - 0.3, f"{text}  {size}", ha="center", va="top", color=for_text(color),
            fontsize=15)
    return x + columns


def _equation(ax, x, y, title, *parts):
    """Draw matrices and the signs between them in a row, with a title above."""
    ax.text(x, y + 2.7, title, fontsize=16, weight="bold", color=INK)
    for part in parts:
        if isinstance(part, str):
            ax.text(x + 0.85, y, part, ha="center", va="center", fontsize=20, color=INK)
        x = x + 1.7 if isinstance(part, str) else _matrix(ax, x, y, *part)
