"""The figure of lesson 04."""

from .. import figures

TOO_LARGE, RIGHT, TOO_SMALL = figures.OTHERS[1], figures.OTHERS[0], figures.OTHERS[3]


@figures.style()
def losses(runs, cleared, forgotten):
    """Loss curves of three learning rates, and of gradients cleared and not. runs: {learning rate: losses}."""
    fig, (left, right) = figures.new("Small steps crawl, large ones explode, stale gradients never settle", columns=2,
                                     width=12, height=4.8)
    for lr, color in ((0.01, TOO_SMALL), (0.5, RIGHT), (0.8, TOO_LARGE)):
        left.semilogy(runs[lr], color=color)
    figures.label(left, 59, runs[0.01][-1], "0.01:\ntoo small", TOO_SMALL)
    figures.label(left, 59, runs[0.5][-1], "0.5:\nright", RIGHT)
    figures.label(left, 26, 1e5, "0.8: too large", TOO_LARGE, ha="right")
    figures.subtitle(left, "Learning rate")
    left.set(xlabel="step", ylabel="loss of the planets' line", xlim=(0, 59), ylim=(1e-9, 1e6))
    figures.plain_powers(left.yaxis)
    right.plot(forgotten, color=TOO_LARGE)
    right.plot(cleared, color=RIGHT)
    figures.label(right, 119, forgotten[-1], "not\ncleared", TOO_LARGE)
    figures.label(right, 119, cleared[-1], "cleared", RIGHT)
    figures.subtitle(right, "Gradients, learning rate 0.1")
    right.set(xlabel="step", ylabel="loss", xlim=(0, 119), ylim=(0, 1.8))
    return figures.save(fig, "04_training_loop", alt="Two panels of loss against step. Left, on a logarithmic axis: "
                        "learning rate 0.01 has hardly fallen after 60 steps, 0.5 has reached 1e-8, 0.8 grows beyond all "
                        "bounds. Right: with gradients cleared the loss falls to zero; without, it swings between about "
                        "zero and about its first value all the way.")
