"""The figure of lesson 10."""

from .. import figures


@figures.style()
def loss_curves(frozen_loss, lora, full, trained):
    """Validation losses of the frozen base and of two runs. trained: {"LoRA", "full": how many numbers they train}."""
    fig, ax = figures.new("LoRA takes half the way from frozen to full and trains "
                          f"{trained['LoRA'] / trained['full']:.1%} as many numbers", width=10)
    steps = lora.validation_steps
    for losses, color, text in (([frozen_loss] * len(steps), figures.FROZEN, "frozen:\n0 trained"),
                                (lora.validation_loss, figures.TRAINABLE, f"LoRA, r = 8:\n{trained['LoRA']:,} trained"),
                                (full.validation_loss, figures.FULL, f"full:\n{trained['full']:,} trained")):
        ax.plot(steps, losses, color=color)
        figures.label(ax, steps[-1], losses[-1], text, color)
    ax.set(xlabel="training steps on Python source", ylabel="validation loss, nats a character", xlim=(0, steps[-1]))
    return figures.save(fig, "10_fine_tuning", alt="Validation loss on Python source over 600 training steps. Frozen stays "
                        "at 2.2 nats a character, LoRA of rank 8 on q and v falls to about 1.9 with "
                        f"{trained['LoRA']:,} trained numbers, full fine-tuning to about 1.6 with {trained['full']:,}.")
