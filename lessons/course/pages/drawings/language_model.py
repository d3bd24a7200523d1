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
    return figures.save(fig, "14_sizes", alt="Two squares whose areas are to scale: a large grey one for the "
                        f"{frozen:,} frozen numbers of the model, and beside it a small orange one, a "
                        f"{1 / side:.0f}th as wide, for the {trained:,} of A and B.")


@figures.style()
def loss(losses):
    """The loss of each step of the training that the lesson runs."""
    first, last = losses[0], mean(losses[-10:])
    fig, ax = figures.new(f"In {len(losses)} steps the loss of the answers falls from {first:.1f} to {last:.2f}",
                          height=4.6)
    ax.semilogy(range(len(losses)), losses, color=figures.TRAINABLE)
    figures.label(ax, 0, first, f"{first:.2f}", figures.TRAINABLE, dx=10)
    figures.label(ax, len(losses) - 1, last, f"{last:.3f}, the\nmean of the\nlast ten", figures.TRAINABLE)
    ax.set(xlabel="training step, four questions each", ylabel="loss, nats a token", xlim=(0, len(losses) - 1))
    figures.plain_powers(ax.yaxis)
    return figures.save(fig, "14_loss", alt="The loss of each training step, on a logarithmic axis. It starts at "
                        f"{first:.1f} nats a token, falls fastest in the first steps, and goes up and down around "
                        f"{last:.2g} in the last ten.")


@figures.style()
def answers(before, after, asked):
    """Right answers before and after training. before, after: {"seen", "unseen": how many of those asked}."""
    fig, ax = figures.new(f"From {sum(before.values())} to {sum(after.values())} right answers of {2 * asked}, on "
                          "tables never seen too", height=4.8)
    bars = {"tables seen,\nbefore": before["seen"], "tables seen,\nafter": after["seen"],
            "tables never seen,\nbefore": before["unseen"], "tables never seen,\nafter": after["unseen"]}
    places = (0, 1, 2.5, 3.5)
    for at, found, color in zip(places, bars.values(), (figures.FROZEN, figures.TRAINABLE) * 2, strict=True):
        ax.barh(at, asked, color="#eeeeee")
        ax.barh(at, found, color=color)
        inside = {"dx": -8, "ha": "right"} if found > asked / 2 else {}
        figures.label(ax, found, at, f"{found} of {asked}", "#000000", **inside)
    ax.set_yticks(places, bars)
    ax.invert_yaxis()
    ax.set(xlim=(0, asked), xlabel="right answers", xticks=range(0, asked + 1, 5))
    ax.grid(False)
    return figures.save(fig, "14_answers", alt=f"Bars of right answers to {asked} questions each. On tables that were "
                        f"trained on: {before['seen']} before and {after['seen']} after; on tables never trained on: "
                        f"{before['unseen']} before and {after['unseen']} after.")


@figures.style()
def comparison(rows, asked):
    """Right answers to hard questions, a dot a seed. rows: {what is compared: [(seen, unseen) of each seed]}."""
    fig, axes = figures.new("Seeds differ more than ranks do; all seven layers also learn at a lower rate", columns=2,
                            width=12, height=5.6, sharey=True)
    means = {name: [mean(found) for found in zip(*runs, strict=True)] for name, runs in rows.items()}
    for k, (ax, kind) in enumerate(zip(axes, ("Tables seen in training", "Tables never seen"), strict=True)):
        for i, (name, runs) in enumerate(rows.items()):
            found = [run[k] for run in runs]
            ax.plot([means[name][k]] * 2, [i - 0.3, i + 0.3], color=figures.INK)
            ax.plot(found, [i] * len(found), "o", color=figures.TRAINABLE, markersize=11, alpha=0.75, clip_on=False)
            figures.label(ax, max(found), i, f"{means[name][k]:.0f}", figures.INK, dx=12)
        figures.subtitle(ax, kind)
        ax.set(xlim=(0, asked), xlabel=f"right answers, of {asked}")
        ax.grid(True, axis="x")
        ax.grid(False, axis="y")
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].invert_yaxis()
    told = "; ".join(f"{name.replace(chr(10), ' ')}: {seen:.0f} on tables seen, {unseen:.0f} on tables never seen"
                     for name, (seen, unseen) in means.items())
    return figures.save(fig, "14_comparison", alt=f"Right answers to {asked} hard questions, a dot for each seed. "
                        f"Means: {told}.")
