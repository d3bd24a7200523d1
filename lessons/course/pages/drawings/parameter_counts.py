"""The figure of lesson 08."""

import numpy as np

from .. import figures


@figures.style()
def growth():
    """Trained numbers of one square weight against its side, in full and with LoRA of three ranks."""
    fig, ax = figures.new("A full update grows with d², LoRA with d: they cross at d = 2r", height=5.6)
    d = np.geomspace(8, 16384, 100)
    ax.loglog(d, d * d, color=figures.FULL)
    figures.label(ax, d[-1], d[-1] ** 2, "full: d²", figures.FULL)
    for r, shade in ((1, 0.35), (8, 1.0), (64, 0.6)):
        ax.loglog(d, 2 * d * r, color=figures.TRAINABLE, alpha=shade)
        figures.label(ax, d[-1], 2 * d[-1] * r, f"LoRA, r = {r}", figures.TRAINABLE)
        if r > 1:
            ax.plot(2 * r, 4 * r * r, "o", color=figures.INK)
            figures.label(ax, 2 * r, 4 * r * r, f"d = {2 * r}", figures.INK, dx=8, dy=-15)
    ax.plot([4096, 4096], [65536, 4096 ** 2], ":", color=figures.INK, linewidth=1.5)
    figures.label(ax, 4096, 4e6, "256 times", figures.INK)
    ax.set(xlabel="d, the side of a square weight", ylabel="trained parameters of one weight", xlim=(8, 16384),
           ylim=(10, 4e8))
    ax.set_xticks([16, 128, 1024, 4096], ["16", "128", "1024", "4096"])
    ax.set_yticks([100, 10_000, 1_000_000, 100_000_000], ["100", "10,000", "1 million", "100 million"])
    ax.minorticks_off()
    return figures.save(fig, "08_parameter_counts", alt="Log-log plot of trained parameters against the side d of a square "
                        "weight. The full matrix rises as d squared; LoRA at r = 1, 8 and 64 rises as d. They cross at "
                        "d = 2r; at d = 4096 and r = 8 LoRA trains 256 times fewer.")
