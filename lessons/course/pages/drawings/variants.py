"""The two figures of lesson 13."""

from .. import figures

COLORS = {"LoRA": figures.TRAINABLE, "rsLoRA": figures.OTHERS[3], "LoRA+": figures.OTHERS[0],
          "PiSSA": figures.OTHERS[2], "DoRA": figures.OTHERS[1]}


@figures.style()
def ideas(ranks, drop, growth, singular, stretched):
    """A panel for each variant: first step's effect by rank, length of B by step, singular values, distance left."""
    fig, (one, two, three, four) = figures.new("Four changes to LoRA, each doing what it is for", columns=4, width=16,
                                               height=5.4)
    for name in ("LoRA", "rsLoRA"):
        one.plot(ranks, drop[name, "SGD"], "o-", color=COLORS[name])
    figures.label(one, 32, drop["rsLoRA", "SGD"][-1], "rsLoRA", COLORS["rsLoRA"], dx=0, dy=16, ha="right")
    figures.label(one, 32, drop["LoRA", "SGD"][-1], "LoRA", COLORS["LoRA"], dx=-14, dy=-2, ha="right")
    figures.subtitle(one, "rsLoRA: high ranks\nlearn as fast (SGD)")
    one.set(xscale="log", yscale="log", xlabel="rank r", ylabel="first step's effect, relative", ylim=(0.01, 4))
    one.set_xticks(ranks, map(str, ranks))
    one.set_yticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
    one.minorticks_off()
    for name, lengths in growth.items():
        two.plot(lengths, color=COLORS[name])
        figures.label(two, 30, lengths[-1], name, COLORS[name], dx=0, dy=16, ha="right")
    figures.subtitle(two, "LoRA+: B grows faster\nat the same rate for A")
    two.set(xlabel="training steps", ylabel="length of B", ylim=(0, 15))
    three.bar(range(1, 33), singular, color=[figures.TRAINABLE] * 4 + [figures.FROZEN] * 28)
    figures.label(three, 5, singular[0], "4 trained", figures.TRAINABLE, dx=0)
    figures.label(three, 14, singular[10], "28 frozen", figures.FROZEN, dx=0, dy=14)
    figures.subtitle(three, "PiSSA: train the top\nsingular values of W0")
    three.set(xlabel="number, by size", ylabel="singular value of q_proj")
    four.bar(range(len(stretched)), [100 * rest for rest in stretched.values()],
             color=[COLORS[name[:4]] for name in stretched])
    figures.label(four, 3, 0, "0", COLORS["DoRA"], dx=0, dy=12, ha="center")
    figures.subtitle(four, "DoRA: stretched rows\nneed no rank")
    four.set_xticks(range(len(stretched)), [name.replace(", r = ", "\n") for name in stretched])
    four.set(xlabel="rank r", ylabel="squared distance left, %")
    return figures.save(fig, "13_ideas", alt="Four panels. rsLoRA: the effect of the first step of gradient descent stays "
                        "the same from rank 1 to 32, while LoRA's falls as 1 over r. LoRA+: B grows several times as long in "
                        "30 steps. PiSSA: the four largest of 32 singular values train, the others are frozen. DoRA: at rank "
                        "1 nothing remains of a change that stretches rows, while a fifth or more remains for LoRA of rank "
                        "4.")


@figures.style()
def comparison(gap, more, steps):
    """Losses minus LoRA's with the same seed. gap: {(variant, rank): a number a seed}; more: {variant: at the last rank}."""
    names, ranks = list(more), sorted({r for _, r in gap})
    ahead = [f"{name} at r = {r}" for r in ranks for name in names
             if (gap[name, r] < 0).all() and (r < ranks[-1] or (more[name] < 0).all())]
    fig, axes = figures.new(_finding(ahead, steps), columns=len(ranks), width=12, sharey=True)
    for ax, r in zip(axes, ranks, strict=True):
        ax.axhline(0, color=COLORS["LoRA"])
        figures.label(ax, -0.45, 0, "LoRA", COLORS["LoRA"], dx=0, dy=10)
        for x, name in enumerate(names):
            ax.plot([x] * len(gap[name, r]), gap[name, r], "o", color=COLORS[name], markersize=10)
            if r == ranks[-1]:
                ax.plot([x + 0.2] * len(more[name]), more[name], "o", color=COLORS[name], markersize=10,
                        fillstyle="none", markeredgewidth=2)
        ax.set_xticks(range(len(names)), names)
        ax.set(xlim=(-0.5, len(names) - 0.5))
        figures.subtitle(ax, f"r = {r}, {len(gap[names[0], r])} seeds"
                         + (f"; open: {len(more[names[0]])} more" if r == ranks[-1] else "; lower is better"))
    axes[0].set(ylabel="loss minus LoRA's, nats a digit")
    counts = [", ".join(f"{name} in {(gap[name, r] < 0).sum()} of {len(gap[name, r])}" for name in names) for r in ranks]
    return figures.save(fig, "13_variants", alt=f"Loss after {steps} steps minus plain LoRA's with the same seed, a dot for each "
                        "seed. Below zero at " + "; at ".join(f"rank {r} {text}" for r, text in zip(ranks, counts, strict=True))
                        + "; of the further seeds " + ", ".join(f"{name} in {(found < 0).sum()} of {len(found)}"
                                                                 for name, found in more.items()) + ".")


def _finding(ahead, steps):
    """The title. ahead: who is below LoRA with every seed, as in "PiSSA at r = 4"."""
    only, verb = ("only ", "beats") if len(ahead) == 1 else ("", "beat")
    return (f"At {steps} steps {only}{' and '.join(ahead)} {verb} LoRA with every seed" if ahead else
            f"At {steps} steps no variant beats LoRA with every seed")
