"""The four figures of lesson 14."""

from math import sqrt
from statistics import mean

from matplotlib.patches import Rectangle

from .. import figures


@figures.style()
def sizes(trained, frozen):
    """How many numbers are trained and how many are frozen, as squares to scale."""
    fig, ax = figures.new(f"{trained:,} numbers learn beside {frozen:,} that do not", width=8, height=4.4)
    side = sqrt(trained / frozen)
    ax.add_patch(Rectangle((0, 0), 1, 1, color=figures.FROZEN))
    ax.add_patch(Rectangle((1.06, 0), side, side, color=figures.TRAINABLE))
    ax.text(0.5, 0.5, f"frozen:\n{frozen:,}", ha="center", va="center", color="#000000")
    figures.label(ax, 1.06 + side, side / 2, f"A and B: {trained:,},\n{trained / (trained + frozen):.2%} of all",
                  figures.TRAINABLE)
    ax.set(xlim=(-0.02, 1.75), ylim=(-0.02, 1.02), aspect="equal")
    ax.axis("off")
    return figures.save(fig, "14_sizes", alt=f"Two squares whose areas are to scale: a large grey one for the {frozen:,} frozen "
                        f"numbers of the model, and beside it a small orange one, a seventeenth as wide, for the {trained:,} "
                        "of A and B.")


@figures.style()
def loss(losses):
    """The loss of each step of the live training."""
    first, last = losses[0], mean(losses[-10:])
    fig, ax = figures.new(f"In {len(losses)} steps the loss of the answers falls from {first:.1f} to {last:.2f}", height=4.6)
    ax.semilogy(range(len(losses)), losses, color=figures.TRAINABLE)
    figures.label(ax, 0, first, f"{first:.2f}", figures.TRAINABLE, dx=10)
    figures.label(ax, len(losses) - 1, last, f"{last:.3f}, the\nmean of the\nlast ten", figures.TRAINABLE)
    ax.set(xlabel="training step, four questions each", ylabel="loss, nats a token", xlim=(0, len(losses) - 1))
    figures.plain_powers(ax.yaxis)
    return figures.save(fig, "14_loss", alt="The loss of each training step, on a logarithmic axis. It starts at "
                        f"{first:.1f} nats a token, falls fast in the first ten steps, and goes up and down around "
                        f"{last:.2g} in the last ten.")


@figures.style()
def answers(before, after, asked):
    """Right answers before and after training. before, after: {"seen", "unseen": how many of those asked}."""
    fig, ax = figures.new(f"From {sum(before.values())} to {sum(after.values())} right answers of {2 * asked}, on unseen tables "
                          "too", height=4.8)
    rows = [(kind, when, values[kind]) for kind in ("seen", "unseen") for when, values in (("before", before), ("after", after))]
    for i, (_, when, value) in enumerate(rows):
        color = figures.FROZEN if when == "before" else figures.TRAINABLE
        at = i + 0.5 * (i > 1)
        ax.barh(at, asked, color="#eeeeee", height=0.8)
        ax.barh(at, value, color=color, height=0.8)
        figures.label(ax, value, at, f"{value} of {asked}", "#000000", **({"dx": -8, "ha": "right"} if value > asked / 2 else {}))
    ax.set_yticks([i + 0.5 * (i > 1) for i in range(4)], [f"tables {'never ' * (kind == 'unseen')}seen,\n{when}" for kind, when, _ in rows])
    ax.invert_yaxis()
    ax.set(xlim=(0, asked), xlabel="right answers", xticks=range(0, asked + 1, 5))
    ax.grid(False)
    return figures.save(fig, "14_answers", alt=f"Bars of right answers to {asked} questions each. On tables that were trained on: "
                        f"{before['seen']} before and {after['seen']} after; on tables never trained on: {before['unseen']} "
                        f"before and {after['unseen']} after.")


@figures.style()
def comparison(rows, asked):
    """Right answers to hard questions, a dot for each seed. rows: {what is compared: [(seen, unseen) of each seed]}."""
    fig, axes = figures.new("More layers help more than a higher rank; a tenth of the rate learns nothing", columns=2, width=12,
                            height=4.8, sharey=True)
    for k, (ax, kind) in enumerate(zip(axes, ("tables seen in training", "tables never seen"), strict=True)):
        for i, runs in enumerate(rows.values()):
            found = [run[k] for run in runs]
            ax.plot([mean(found)] * 2, [i - 0.3, i + 0.3], color=figures.INK)
            ax.plot(found, [i] * len(found), "o", color=figures.TRAINABLE, markersize=11, alpha=0.75, clip_on=False)
            figures.label(ax, max(found), i, f"{mean(found):.0f}", figures.INK, dx=12)
        figures.subtitle(ax, kind[0].upper() + kind[1:])
        ax.set(xlim=(0, asked), xlabel=f"right answers, of {asked}")
        ax.grid(True, axis="x")
        ax.grid(False, axis="y")
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].invert_yaxis()
    return figures.save(fig, "14_comparison", alt=f"Right answers to {asked} hard questions, a dot for each of three seeds, means: "
                        + "; ".join(f"{name.replace(chr(10), ' ')}: {mean(run[0] for run in runs):.0f} on seen and "
                                    f"{mean(run[1] for run in runs):.0f} on unseen tables" for name, runs in rows.items()) + ".")
