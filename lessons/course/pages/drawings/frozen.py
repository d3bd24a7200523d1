"""The figure of lesson 06."""

from .. import figures


@figures.style()
def loss_curves(frozen_loss, block_0_run, trained, full_run, total):
    """Losses with all frozen, with block 0 alone trained (so many numbers), and with everything trained."""
    fig, ax = figures.new("A block below frozen ones learns: the gradient passes through them", width=10)
    last = full_run.validation_steps[-1]
    for run, color, text, dy in ((block_0_run, figures.TRAINABLE, f"block 0 alone:\n{trained:,} trained", 8),
                                 (full_run, figures.FULL, f"everything:\n{total:,} trained", -10)):
        ax.semilogy(run.validation_steps, run.validation_loss, color=color)
        figures.label(ax, last, run.validation_loss[-1], text, color, dy=dy)
    ax.semilogy([0, last], [frozen_loss] * 2, color=figures.FROZEN)
    figures.label(ax, last, frozen_loss, "all frozen", figures.FROZEN)
    ax.set(xlabel="training steps, sorting downwards", ylabel="loss on unseen digits, nats", xlim=(0, last),
           ylim=(2e-3, 12))
    ax.set_yticks([0.01, 0.1, 1, frozen_loss], ["0.01", "0.1", "1", f"{frozen_loss:.1f}"])
    ax.minorticks_off()
    return figures.save(fig, "06_frozen", alt=f"Loss on descending order over {last} training steps, log scale. With all "
                        f"frozen it stays at {frozen_loss:.1f} nats. With block 0 alone trained, below a frozen one, it "
                        f"falls to about {block_0_run.validation_loss[-1]:.1g}, nearly as far as with everything trained, "
                        f"about {full_run.validation_loss[-1]:.1g}.")
