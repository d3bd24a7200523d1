"""The figure of lesson 05."""

import numpy as np
from matplotlib.patches import Rectangle

from .. import figures


@figures.style()
def weights(ids, question, answer, P, mean_weight):
    """The weights P (T, T) of one head on one sequence, and its mean weight (10, 10): digit just written, digit looked at."""
    fig, (left, right) = figures.new("This head looks at the digits equal to the one it wrote last, or just above", columns=2,
                                     width=14, height=6.6, gridspec_kw={"width_ratios": [1.45, 1]})
    later = np.arange(len(ids))[None, :] > np.arange(len(ids))[:, None]
    left.imshow(np.where(later, np.nan, P)[8:], cmap="YlGnBu", vmin=0, vmax=0.4, aspect="auto")
    left.set_facecolor("#e4e4e4")
    for i, digit in enumerate(answer):
        left.add_patch(Rectangle((question.index(digit) - 0.46, i - 0.46), 0.92, 0.92, fill=False,
                                 edgecolor=figures.INK, lw=2.5))
    left.text(15.4, 0.4, "later positions:\nmasked", ha="right", va="center", fontsize=15)
    left.set_xticks(range(len(ids)), ["sort" if t == 10 else str(t) for t in ids])
    left.set_yticks(range(8), ["sort" if t == 10 else str(t) for t in ids[8:]])
    left.set(xlabel="key: the token looked at", ylabel="query: the token just written")
    figures.subtitle(left, "One sequence; boxed: the digit to be written next")
    image = right.imshow(mean_weight, cmap="YlGnBu", vmin=0, vmax=0.4, aspect="auto")
    right.plot([-0.5, 9.5], [-0.5, 9.5], color=figures.INK, linewidth=1.5, linestyle=":")
    right.set_xticks(range(10))
    right.set_yticks(range(10))
    right.set(xlabel="digit looked at", ylabel="digit just written")
    figures.subtitle(right, "Mean weight, 500 sequences")
    bar = fig.colorbar(image, ax=right, extend="max")
    bar.set_label("attention weight", fontsize=right.xaxis.label.get_fontsize())
    bar.ax.tick_params(labelsize=right.xaxis.label.get_fontsize())
    for ax in (left, right):
        ax.grid(False)
    return figures.save(fig, "05_attention", alt="Two heat maps. Left: the weights of one head while a sequence is sorted, "
                        "one row for each digit written, one column for each token looked at; in most rows the boxed "
                        "digit, which is to be written next, is among the darkest; later positions are masked. Right: over "
                        "500 sequences, after each digit from 0 to 8 the weight is highest on a digit equal to it or up to "
                        "three above.")
