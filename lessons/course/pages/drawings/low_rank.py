"""The two figures of lesson 07."""

import numpy as np

from .. import figures


@figures.style()
def singular_values(kinds):
    """How the size of matrices is spread over their singular values. kinds: {"update", "W0", "random": {name: matrix}}."""
    fig, (left, right) = figures.new("A full update is concentrated in few directions, yet not truly of low rank",
                                     columns=2, width=12, height=5)
    for kind, color, line in (("update", figures.FULL, "-"), ("W0", figures.FROZEN, "-"), ("random", figures.INK, ":")):
        spectra = np.array([np.linalg.svd(M, compute_uv=False) / np.linalg.norm(M) for M in kinds[kind].values()])
        left.plot(range(1, 33), spectra.mean(axis=0), line, color=color)
        lost = 100 * np.sqrt(np.maximum(0, 1 - (spectra ** 2).cumsum(axis=1))).mean(axis=0)
        right.plot(range(33), [100, *lost], line, color=color)
        if kind == "update":
            right.plot(4, lost[3], "o", color=color)
    figures.label(left, 3, 0.36, "ΔW of full fine-tuning\n(mean of q and v, two blocks)", figures.FULL, dx=10, dy=14)
    figures.label(left, 15, 0.18, "W0: nearly like\nrandom numbers (dotted)", figures.FROZEN, dx=0, dy=14)
    figures.subtitle(left, "Singular values")
    left.set(xlabel="number i of the singular value", ylabel="its size, as part of ‖M‖", xlim=(1, 32), ylim=(0, None))
    figures.label(right, 14, 40, "W0, and random\nnumbers (dotted)", figures.FROZEN, dx=6, dy=20)
    figures.label(right, 0.4, 14, "rank 4 misses\nhalf of ΔW", figures.FULL, dx=0)
    right.plot([4, 4], [23, 50], ":", color=figures.FULL, linewidth=1.5)
    figures.subtitle(right, "Error of the best approximation of rank r")
    right.set(xlabel="rank r", ylabel="‖M − Mᵣ‖ as % of ‖M‖", xlim=(0, 32), ylim=(0, 103))
    for ax in (left, right):
        ax.set_xticks([1, 4, 8, 16, 32])
    return figures.save(fig, "07_singular_values", alt="Two panels. Left: the singular values of the update of full "
                        "fine-tuning fall steeply, those of W0 slowly, nearly as the dotted line of random numbers. Right: "
                        "the error of the best rank-r approximation; rank 4 still misses half of the update's length, rank "
                        "16 less than a tenth, and W0 is approximated far worse.")


@figures.style()
def cut_or_train(cut_full, cut_qv, trained_at):
    """Shares of sequences right, {rank: share}: q and v cut after training all, or themselves alone; trained as B A."""
    fig, ax = figures.new(f"Trained at rank 4, {trained_at[4]:.0%} are right; trained in full and cut to rank 4, "
                          f"{cut_qv[4]:.0%}", width=11, height=5.4)
    for shares, line, color, width in ((cut_qv, "o-", figures.FULL, 2.5), (trained_at, "o-", figures.TRAINABLE, 4),
                                       (cut_full, "o--", figures.FULL, 1.5)):
        ranks = [r for r in shares if r]
        ax.plot(ranks, [100 * shares[r] for r in ranks], line, color=color, linewidth=width,
                fillstyle="none" if line == "o--" else "full")
    figures.label(ax, 2, 100 * cut_full[2], "everything trained,\nq and v then cut", figures.FULL, dx=-8, dy=24, ha="right")
    figures.label(ax, 8, 40, "q and v trained,\nthen cut to rank r", figures.FULL, dx=14)
    figures.label(ax, 4, 100 * trained_at[4], "trained as B A\nof rank r", figures.TRAINABLE, dx=10, dy=-30)
    ax.set(xscale="log", xlabel="rank r of the update of q and v", ylabel="sequences right, to the nearest 10%",
           xlim=(0.93, 33), ylim=(-3, 105))
    ax.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    ax.minorticks_off()
    return figures.save(fig, "07_cut_or_train", alt="Share of sequences right against the rank of the update in q and v. "
                        "Where everything was trained and q and v were truncated afterwards, rank 8 suffices. Where only q "
                        f"and v were trained and then truncated, rank 4 gives about {cut_qv[4]:.0%} and rank 8 about "
                        f"{cut_qv[8]:.0%}. Trained as B A, rank 4 gives about {trained_at[4]:.0%}, rank 8 "
                        f"{trained_at[8]:.0%}.")
