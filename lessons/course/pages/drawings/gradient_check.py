"""The figure of lesson 03."""

from .. import figures

COLORS = {"central": figures.INK, "forward": figures.OTHERS[0], "central, float32": figures.OTHERS[1]}


@figures.style()
def step_size(steps, curves):
    """The relative error of a measured slope against its step. curves: {name of the difference: errors}."""
    fig, ax = figures.new("The best step is a middling one: smaller steps drown in rounding", width=11, height=6)
    for name, errors in curves.items():
        ax.loglog(steps, errors, color=COLORS[name])
    ax.axvline(1e-6, color=figures.INK, linewidth=1.5, linestyle=":")
    for x, y, text, color, place in (
            (1e-6, 2e-12, "1e-06", figures.INK, {"ha": "right", "dx": -6}),
            (1e-13, 1, "central, float32", COLORS["central, float32"], {"dy": 14}),
            (1e-7, 7e-8, "forward", COLORS["forward"], {"dx": 0, "dy": 16, "ha": "right"}),
            (1e-4, 1e-9, "central", COLORS["central"], {"dx": 12}),
            (1e-13, 1e-6, "rounding:\n1e-16 / ε", figures.INK, {"dx": 0}),
            (1e-3, 1e-5, "ε²", figures.INK, {"dx": 30, "dy": -44}),
            (1e-3, 7e-4, "ε", figures.INK, {"dx": -6, "dy": 14})):
        figures.label(ax, x, y, text, color, **place)
    ax.set(xlabel="step ε", ylabel="relative error of the measured slope", xlim=(1e-15, 1), ylim=(1e-12, 10))
    ax.minorticks_off()
    for axis in (ax.xaxis, ax.yaxis):
        figures.plain_powers(axis)
    return figures.save(fig, "03_step_size", alt="Log-log plot of the relative error of a measured slope against the step, "
                        "three U shapes. The central difference in float64 is best near 3e-6, with an error of about "
                        "1e-11; the forward difference near 1e-8, with 1e-8; the central difference in float32 near 3e-3, "
                        "with 1e-6. To the left of each bottom rounding grows as one over the step.")
