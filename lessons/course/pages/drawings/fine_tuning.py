"""The two figures of lesson 10."""

from .. import figures


@figures.style()
def learning_rates(by_rate, by_rank, frozen_loss):
    """Losses by learning rate. by_rate: {"full", "LoRA": {rate: loss}}; by_rank: {(r, alpha): {rate: loss}}."""
    fig, axes = figures.new("LoRA wants a larger learning rate than full; with alpha = r the best one falls with the rank", columns=3, width=14,
                            sharey=True)
    top = frozen_loss + 0.14
    ranks = sorted({r for r, _ in by_rank})
    shades = dict(zip(ranks, (figures.OTHERS[0], figures.TRAINABLE, figures.OTHERS[1]), strict=True))
    lines = ([("full", by_rate["full"], figures.FULL, 0, 14), ("LoRA, r = 8", by_rate["LoRA"], figures.TRAINABLE, 2, -20)],
             [(f"r = {r}", by_rank[r, r], shades[r], 0, 14) for r in ranks],  # 0, 14: named above its first point
             [(f"r = {r}", by_rank[r, 8], shades[r], int(r > ranks[0]), -14 if r == ranks[-1] else 14) for r in ranks])
    for ax, curves, text in zip(axes, lines, ("q and v, or everything", "q and v, alpha = r", "q and v, alpha = 8"),
                                strict=True):
        ax.axhline(frozen_loss, color=figures.FROZEN)
        for name, found, color, at, dy in curves:
            rates, losses = list(found), list(found.values())
            ax.plot(rates, losses, "o-", color=color)
            lowest = min(found, key=found.get)
            ax.plot(lowest, found[lowest], "o", color=color, markersize=13, fillstyle="none", markeredgewidth=2)
            figures.label(ax, rates[at], losses[at], name, color, dx=24 if at == 1 and dy > 0 else 0, dy=dy,
                          ha="center" if at else "left")
        figures.subtitle(ax, text)
        ax.set(xscale="log", xlabel="learning rate", ylim=(min(by_rate["full"].values()) - 0.05, top))
        ticks = list(curves[0][1]) if ax is not axes[0] else [3e-4, 3e-3, 3e-2]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.minorticks_off()
    figures.label(axes[0], 3e-4, frozen_loss, "frozen", figures.FROZEN, dx=0, dy=12)
    axes[0].set(ylabel="validation loss, nats a character")

    def lowest(found):
        return f"{min(found, key=found.get):g}"

    return figures.save(fig, "10_learning_rates", alt="Three panels of validation loss against the learning rate, the lowest "
                        f"point of each line ringed. Full fine-tuning is best at {lowest(by_rate['full'])}, LoRA of rank 8 at "
                        f"{lowest(by_rate['LoRA'])}. With alpha = r: "
                        + ", ".join(f"rank {r} at {lowest(by_rank[r, r])}" for r in ranks) + ". With alpha = 8: "
                        + ", ".join(f"rank {r} at {lowest(by_rank[r, 8])}" for r in ranks) + ".")


@figures.style()
def loss_curves(frozen_loss, lora, full, trained):
    """Validation losses of the frozen base and of two runs. trained: {"LoRA", "full": how many numbers they train}."""
    share = (frozen_loss - lora.validation_loss[-1]) / (frozen_loss - full.validation_loss[-1])
    fig, ax = figures.new(f"LoRA goes {round(share, 1):.0%} of the way from frozen to full and trains "
                          f"{trained['LoRA'] / trained['full']:.1%} as many numbers", width=10)
    steps = lora.validation_steps
    for losses, color, text in (([frozen_loss] * len(steps), figures.FROZEN, "frozen:\n0 trained"),
                                (lora.validation_loss, figures.TRAINABLE, f"LoRA, r = 8:\n{trained['LoRA']:,} trained"),
                                (full.validation_loss, figures.FULL, f"full:\n{trained['full']:,} trained")):
        ax.plot(steps, losses, color=color)
        figures.label(ax, steps[-1], losses[-1], text, color)
    ax.set(xlabel="training steps on Python source", ylabel="validation loss, nats a character", xlim=(0, steps[-1]))
    return figures.save(fig, "10_fine_tuning", alt=f"Validation loss on Python source over {steps[-1]} training steps. Frozen "
                        f"stays at {frozen_loss:.1f} nats a character, LoRA of rank 8 on q and v falls to about "
                        f"{lora.validation_loss[-1]:.1f} with {trained['LoRA']:,} trained numbers, full fine-tuning to about "
                        f"{full.validation_loss[-1]:.1f} with {trained['full']:,}.")
