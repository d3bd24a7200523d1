"""The figure of lesson 01."""

from matplotlib.patches import Rectangle

from lora_np.support.palette import for_text

from .. import figures

PLACES = {"w": (0, 3), "x": (0, 2), "a": (0, 1), "b": (0, 0), "p": (1, 2.5), "u": (1, 1.5), "v": (2, 0.75), "h": (3, 1.6),
          "L": (4, 1.6)}
COMPUTED = {"p": "w · x", "u": "a · x", "v": "b · u", "h": "p + v", "L": "h²"}
BACK = for_text(figures.TRAINABLE)


@figures.style()
def graph(values, gradients, to_x):
    """The graph of L = (w x + b a x)²: values in the boxes, gradients on the arrows. to_x: those by way of p and of u."""
    fig, ax = figures.new(f"x is used twice, so two gradients come back and add up: {_number(to_x[0])} + "
                          f"{_number(to_x[1])} = {_number(gradients['x'])}", width=12, height=6)
    arrows = {"wp": gradients["w"], "xp": to_x[0], "au": gradients["a"], "xu": to_x[1], "bv": gradients["b"],
              "uv": gradients["u"], "ph": gradients["p"], "vh": gradients["v"], "hL": gradients["h"]}
    for (start, end), gradient in arrows.items():
        left, y_left, right, y_right = *PLACES[start], *PLACES[end]
        left, right = left + _half_width(start), right - _half_width(end)
        ax.annotate("", (right, y_right), (left, y_left),
                    arrowprops={"arrowstyle": "-|>", "color": figures.INK, "lw": 1.5, "shrinkA": 0, "shrinkB": 0})
        ax.text(left + 0.18, y_left + 0.18 * (y_right - y_left) / (right - left), _number(gradient), color=BACK,
                ha="center", va="center", fontsize=22 if start == "x" else 15,
                weight="bold" if start == "x" else "normal",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
    for name, (left, y_left) in PLACES.items():
        half = _half_width(name)
        ax.add_patch(Rectangle((left - half, y_left - 0.29), 2 * half, 0.58, facecolor="white", edgecolor=figures.INK,
                               lw=1.5))
        shown = " = ".join([name, *([COMPUTED[name]] if name in COMPUTED else []), _number(values[name])])
        ax.text(left, y_left + 0.12, shown, ha="center", va="center", fontsize=15)
        ax.text(left, y_left - 0.13, f"gradient {_number(gradients[name])}", color=BACK, ha="center", va="center",
                fontsize=15)
    ax.text(2.35, 3.1, "values go forward, left to right", fontsize=16)
    ax.text(2.35, 2.8, "gradients come back, right to left", fontsize=16, color=BACK)
    ax.set(xlim=(-0.29, 4.36), ylim=(-0.35, 3.4))
    ax.axis("off")
    return figures.save(fig, "01_chain_rule", alt="The graph of L = (wx + bax)². Each box holds a number's value and its "
                        "gradient; each arrow is marked with the gradient that comes back along it. Minus 2 and 3 come "
                        "back to x, and its gradient is their sum, 1.")


def _half_width(name):
    return 0.34 if name in COMPUTED else 0.27


def _number(value):
    return f"{value:g}".replace("-", "−")
