"""The two figures of lesson 11."""

import numpy as np

from .. import figures


@figures.style()
def two_shifts(digits, full_digits, ranks, losses, full_loss, frozen_loss):
    """What the rank does on a small shift and on a large one. digits: {rank: a share of sequences right a seed}."""
    fig, (left, right) = figures.new("The rank that is enough depends on the task", columns=2, width=12)
    means = [100 * np.mean(shares) for shares in digits.values()]
    left.plot(list(digits), means, color=figures.TRAINABLE)
    for r, shares in digits.items():
        left.plot([r] * len(shares), [100 * share for share in shares], "o", color=figures.TRAINABLE, alpha=0.5)
    left.axhline(100 * full_digits, color=figures.FULL)
    figures.label(left, 1, 100 * full_digits, "full: 26,336 trained", figures.FULL, dx=0, dy=-12)
    left.axhline(0, color=figures.FROZEN)
    figures.label(left, 8, 0, "frozen", figures.FROZEN, dx=0, dy=10, ha="right")
    figures.label(left, 8, means[-1], "2,048 trained", figures.TRAINABLE, dx=0, dy=-42, ha="right")
    figures.subtitle(left, "Small shift: sort down instead of up")
    left.set(xscale="log", xlabel="rank r on q and v", ylabel="sequences right, %", ylim=(-4, 106))
    left.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
    right.plot(ranks, losses, "o-", color=figures.TRAINABLE)
    right.axhline(full_loss, color=figures.FULL)
    figures.label(right, 1, full_loss, "full: 110,336 trained", figures.FULL, dx=0, dy=12)
    right.axhline(frozen_loss, color=figures.FROZEN)
    figures.label(right, 64, frozen_loss, "frozen", figures.FROZEN, dx=0, dy=-12, ha="right")
    figures.label(right, 64, losses[-1], "32,768 trained", figures.TRAINABLE, dx=0, dy=-16, ha="right")
    figures.label(right, 1, losses[0], "512 trained", figures.TRAINABLE, dx=6, dy=12)
    figures.subtitle(right, "Large shift: English to Python")
    right.set(xscale="log", xlabel="rank r on q and v", ylabel="validation loss, nats a character")
    right.set_xticks(ranks, map(str, ranks))
    for ax in (left, right):
        ax.minorticks_off()
    return figures.save(fig, "11_rank", alt="Two panels. Left: after adapting a sorting model to sort downwards, the share "
                        "of sequences right rises from a few per cent at rank 1 to about 90 per cent at rank 8, near full "
                        "fine-tuning. Right: after adapting from English to Python the validation loss falls slowly and "
                        "steadily from rank 1 to 64 and does not reach full fine-tuning.")


@figures.style()
def choices(floors, reached, spent, ratios):
    """Distances reached beside their floors; shares right by targets, {targets: a share a seed}, and by alpha / r."""
    fig, (left, middle, right) = figures.new("Rank has a floor, one target is too few, alpha is forgiving", columns=3,
                                             width=14)
    ranks = range(1, len(floors) + 1)
    left.plot(ranks, floors, color=figures.INK, linewidth=1.5)
    left.plot(ranks, reached, "o", color=figures.TRAINABLE)
    figures.label(left, 1, reached[0], "reached by training", figures.TRAINABLE, dx=10)
    figures.label(left, 3, floors[3], "floor: squared\nsingular values\nthat do not fit", figures.INK, dx=14, dy=54)
    figures.subtitle(left, "Known rank 6: loss, floor")
    left.set(xlabel="rank r", ylabel="squared distance to the teacher")
    order = sorted(spent, key=lambda name: np.mean(spent[name]))
    middle.barh(order, [100 * np.mean(spent[name]) for name in order], color=figures.TRAINABLE)
    for i, name in enumerate(order):
        middle.plot([100 * share for share in spent[name]], [i] * len(spent[name]), "o", color=figures.INK, markersize=5)
    figures.subtitle(middle, "About 1,000 numbers on …")
    middle.set(xlabel="sequences right, %", xlim=(0, 100))
    middle.grid(False)
    shown = sorted(ratios)
    right.plot(shown, [100 * ratios[ratio] for ratio in shown], "o-", color=figures.TRAINABLE)
    figures.subtitle(right, "r = 4, other alpha / r")
    right.set(xscale="log", xlabel="alpha / r", ylabel="sequences right, %", ylim=(0, 100))
    right.set_xticks(shown, [f"{ratio:g}" for ratio in shown])
    right.minorticks_off()
    return figures.save(fig, "11_choices", alt="Three panels. A student of rank r reaches exactly the sum of the squared "
                        "singular values that do not fit, zero from rank 6. About 1,000 numbers do far better on several "
                        "matrices than on one. With alpha over r between a quarter and four the result hardly changes; at "
                        "64 training fails.")
