"""The three figures of lesson 11."""

import numpy as np

from .. import figures


@figures.style()
def two_shifts(digits, full_digits, frozen_digits, ranks, losses, full_loss, frozen_loss):
    """What the rank does on a small shift and on a large one. digits: {rank: a share of digits in their place a seed}."""
    fig, (left, right) = figures.new("The rank that is enough depends on the task", columns=2, width=12)
    means = [100 * np.mean(shares) for shares in digits.values()]
    left.plot(list(digits), means, color=figures.TRAINABLE)
    for r, shares in digits.items():
        left.plot([r] * len(shares), [100 * share for share in shares], "o", color=figures.TRAINABLE, alpha=0.5)
    first, last = min(digits), max(digits)
    for height, color, text in ((full_digits, figures.FULL, "full: 26,336 trained"), (frozen_digits, figures.FROZEN, "frozen")):
        left.axhline(100 * height, color=color)
        figures.label(left, first, 100 * height, text, color, dx=0, dy=12)
    figures.label(left, last, means[-1], f"{256 * last:,} trained", figures.TRAINABLE, dx=0, dy=-34, ha="right")
    figures.label(left, first, means[0], f"{256 * first:,} trained", figures.TRAINABLE, dx=6, dy=-20)
    figures.subtitle(left, "Small shift: sort down instead of up")
    left.set(xscale="log", xlabel="rank r on q and v", ylabel="digits in their place, %", ylim=(0, 112))
    left.set_xticks(list(digits), map(str, digits))
    right.plot(ranks, losses, "o-", color=figures.TRAINABLE)
    right.axhline(full_loss, color=figures.FULL)
    figures.label(right, ranks[0], full_loss, "full: 110,336 trained", figures.FULL, dx=0, dy=12)
    right.axhline(frozen_loss, color=figures.FROZEN)
    figures.label(right, ranks[-1], frozen_loss, "frozen", figures.FROZEN, dx=0, dy=-12, ha="right")
    figures.label(right, ranks[-1], losses[-1], f"{512 * ranks[-1]:,} trained", figures.TRAINABLE, dx=0, dy=-16, ha="right")
    figures.label(right, ranks[0], losses[0], f"{512 * ranks[0]:,} trained", figures.TRAINABLE, dx=6, dy=12)
    figures.subtitle(right, "Large shift: English to Python")
    right.set(xscale="log", xlabel="rank r on q and v", ylabel="validation loss, nats a character")
    right.set_xticks(ranks, map(str, ranks))
    for ax in (left, right):
        ax.minorticks_off()
    return figures.save(fig, "11_rank", alt="Two panels. Left: after adapting a sorting model to sort downwards, the share "
                        f"of digits in their place rises from {means[0]:.0f} per cent at rank {first} to {means[-1]:.0f} per "
                        f"cent at rank {last}, near full fine-tuning with {100 * full_digits:.0f}. Right: after adapting from "
                        f"English to Python the validation loss falls slowly from rank {ranks[0]} to {ranks[-1]} and does "
                        "not reach full fine-tuning.")


@figures.style()
def places(large, small, frozen_loss, full_loss, full_digits):
    """What as many numbers do in other layers. large, small: {place: (how many train, a result for each seed)}."""
    fig, (left, right) = figures.new("The MLP alone wins on one task and loses on the other; all layers are good on both",
                                     columns=2, width=12, gridspec_kw={"width_ratios": [1.15, 1]})
    for ax, results in ((left, large), (right, small)):
        scale = 1 if ax is left else 100
        for i, (_, found) in enumerate(results.values()):
            mean = scale * np.mean(found)
            start = frozen_loss if ax is left else 0
            ax.barh(i, mean - start, left=start, height=0.62, color=figures.TRAINABLE, alpha=0.55)
            ax.plot([scale * x for x in found], [i] * len(found), "o", color=figures.INK, markersize=5)
        ax.set_yticks(range(len(results)), [f"{place}: {trained:,}" for place, (trained, _) in results.items()])
        ax.set_ylim(-0.5, len(results) + 0.1)
        ax.invert_yaxis()
        ax.grid(False)
    left.axvline(full_loss, color=figures.FULL)
    figures.label(left, full_loss, len(large) - 0.3, "full", figures.FULL, dx=-6, ha="right")
    left.axvline(frozen_loss, color=figures.FROZEN)
    figures.label(left, frozen_loss, len(large) - 0.3, "frozen", figures.FROZEN)
    margin = 0.1 * (frozen_loss - full_loss)
    left.set(xlabel="validation loss, nats a character", xlim=(frozen_loss + margin, full_loss - margin))
    figures.subtitle(left, "English to Python, better to the right")
    right.axvline(100 * full_digits, color=figures.FULL)
    figures.label(right, 100 * full_digits, len(small) - 0.25, "full", figures.FULL, dx=-6, ha="right")
    right.set(xlabel="digits in their place, %", xlim=(0, 106))
    figures.subtitle(right, "Sort down instead of up")
    ends = {place: np.mean(found) for place, (_, found) in large.items()}
    shares = {place: 100 * np.mean(found) for place, (_, found) in small.items()}
    return figures.save(fig, "11_places", alt="Two panels of bars, a dot for each seed. English to Python, loss with about "
                        "4,000 numbers: " + ", ".join(f"{place} {loss:.2f}" for place, loss in ends.items())
                        + f"; frozen {frozen_loss:.2f}, full {full_loss:.2f}. Sorting downwards, digits in their place with "
                        "about 1,000 numbers: " + ", ".join(f"{place} {share:.0f}%" for place, share in shares.items()) + ".")


@figures.style()
def choices(floors, reached, alphas, frozen_loss):
    """Distances reached beside their floors, and losses by alpha at rank 4, {alpha: loss}."""
    fig, (left, right) = figures.new("Rank has a floor, alpha is forgiving within limits", columns=2, width=12)
    ranks, (least, *_, most, too_much) = range(1, len(floors) + 1), alphas
    left.plot(ranks, floors, color=figures.INK, linewidth=1.5)
    left.plot(ranks, reached, "o", color=figures.TRAINABLE)
    figures.label(left, 1, reached[0], "reached by training", figures.TRAINABLE, dx=10)
    figures.label(left, 3, floors[3], "floor: squared\nsingular values\nthat do not fit", figures.INK, dx=14, dy=54)
    figures.subtitle(left, "Known rank 6: loss, floor")
    left.set(xlabel="rank r", ylabel="squared distance to the teacher")
    right.plot(list(alphas), list(alphas.values()), "o-", color=figures.TRAINABLE)
    right.axhline(frozen_loss, color=figures.FROZEN)
    figures.label(right, min(alphas), frozen_loss, "frozen", figures.FROZEN, dx=0, dy=12)
    figures.subtitle(right, "English to Python, r = 4 on q and v")
    right.set(xscale="log", xlabel="alpha", ylabel="validation loss, nats a character")
    right.set_xticks(list(alphas), map(str, alphas))
    right.minorticks_off()
    return figures.save(fig, "11_choices", alt="Two panels. A student of rank r reaches exactly the sum of the squared "
                        "singular values that do not fit, zero from rank 6. At rank 4 the loss on Python hardly changes "
                        f"with alpha from {least} to {most}; with {too_much} it ends far above "
                        "that of the frozen base.")
