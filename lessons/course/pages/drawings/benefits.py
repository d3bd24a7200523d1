"""The four figures of lesson 12."""

from matplotlib.colors import to_rgba

from lora_np.extras.budget import readable

from .. import figures

ROWS = ("weights", "AdamW's two means", "gradients", "activations", "highest, in a step", "file for one task")


@figures.style()
def memory(megabytes, parameters):
    """What training holds, in full and with LoRA. megabytes: {"full", "LoRA": {kind: MB}}; parameters of the model."""
    fig, ax = figures.new("LoRA cuts optimizer, gradients and file a hundredfold, the rest less", width=11, height=6)
    for name, color, above in (("full", figures.FULL, -0.2), ("LoRA", figures.TRAINABLE, 0.2)):
        for i, row in enumerate(ROWS):
            frozen = name == "LoRA" and row == "weights"
            shade = figures.FROZEN if frozen else color
            ax.barh(i + above, megabytes[name][row], height=0.38, color=shade)
            figures.label(ax, megabytes[name][row], i + above, f"{name} {megabytes[name][row]}" + ", frozen" * frozen,
                          shade)
    ax.set_yticks(range(len(ROWS)), ROWS)
    ax.invert_yaxis()
    ax.grid(False)
    ax.set(xlabel=f"MB, for a model of {parameters / 1e6:.1f} million parameters", xlim=(0, 95))
    return figures.save(fig, "12_memory", alt="Bars of the megabytes that training a model of 3.2 million parameters holds, "
                        "in full and with LoRA of rank 8. "
                        + "; ".join(f"{row} {megabytes['full'][row]} and {megabytes['LoRA'][row]}" for row in ROWS) + ".")


@figures.style()
def switching(table, counts):
    """Shares right of each task with each adapter, and multiply-adds. table: {adapter: {task: share}}, "no adapter" first."""
    fig, (left, right) = figures.new("One base does three tasks, at a small cost until an adapter is merged", columns=2,
                                     width=13, gridspec_kw={"width_ratios": [1, 1.05]})
    shades = [figures.FROZEN, figures.TRAINABLE, figures.TRAINABLE]
    left.imshow([[to_rgba(shade, share) for share in shares.values()]
                 for shade, shares in zip(shades, table.values(), strict=True)], aspect="auto")
    for i, shares in enumerate(table.values()):
        for j, share in enumerate(shares.values()):
            left.text(j, i, f"{share:.0%}", ha="center", va="center", fontsize=17, color="#000000")
    left.set_xticks(range(3), [f"task:\n{task}" for task in table["no adapter"]])
    left.set_yticks(range(3), [name if name == "no adapter" else f"adapter\n“{name}”" for name in table])
    figures.subtitle(left, "Sequences right, to the nearest 10%")
    base = counts["base"]
    for i, count in enumerate(counts.values()):
        right.barh(i, base, color=figures.FROZEN)
        right.barh(i, count - base, left=base, color=figures.TRAINABLE)
        right.text(base / 2, i, f"{base:,}", ha="center", va="center", fontsize=17, color="#000000")
        if count > base:
            figures.label(right, count, i, f"+{count - base:,}", figures.TRAINABLE, fontsize=17)
    right.set_yticks(range(3), counts)
    right.invert_yaxis()
    figures.subtitle(right, "Multiply-adds for each token")
    right.set(xlim=(0, 1.25 * base), xticks=[])
    for ax in (left, right):
        ax.grid(False)
    return figures.save(fig, "12_switching", alt="Left, a table: without adapter the base sorts ascending and fails the "
                        "other tasks; each of two adapters makes it do its own task nearly every time and fail the others. "
                        "Right: multiply-adds a token, 24,928 for the base, 2,048 more with an unmerged adapter, none more "
                        "once it is merged.")


@figures.style()
def forgetting(start, ends):
    """What was learned against what was forgotten. start: losses on Python and English; ends: {run: (seeds, 2)}."""
    fig, ax = figures.new("At equal learning LoRA forgets nearly as much as full fine-tuning", width=10.5, height=5.8)
    markers = {"LoRA, q and v": "o", "LoRA, all six": "o", "full": "s", "full, half the rate": "v"}
    aside = {"LoRA, q and v": (0, -24, "center"), "LoRA, all six": (-16, -14, "right"), "full": (20, 8, "left"),
             "full, half the rate": (24, -24, "right")}
    for name, found in ends.items():
        color = figures.TRAINABLE if name.startswith("LoRA") else figures.FULL
        learned, forgotten = start[0] - found[:, 0], found[:, 1] - start[1]
        ax.plot(learned, forgotten, markers[name], color=color, alpha=0.4)
        ax.plot(learned.mean(), forgotten.mean(), markers[name], color=color, markersize=12)
        dx, dy, ha = aside[name]
        figures.label(ax, learned.mean(), forgotten.mean(), name, color, dx=dx, dy=dy, ha=ha)
    ax.plot(0, 0, "o", color=figures.FROZEN, markersize=12)
    figures.label(ax, 0, 0, "base, or adapter off", figures.FROZEN, dx=14, dy=0)
    ax.set(xlabel="learned: how far the loss on Python fell, nats a character",
           ylabel="forgotten: how far that on English rose", ylim=(-0.02, None), xlim=(-0.01, None))
    ax.set_xmargin(0.12)
    pairs = {name: (start[0] - found[:, 0].mean(), found[:, 1].mean() - start[1]) for name, found in ends.items()}
    return figures.save(fig, "12_forgetting", alt="How far the loss on Python fell and that on English rose, large marks for "
                        "means and small ones for seeds: " + "; ".join(f"{name} {fell:.2f} and {rose:.2f}" for name, (fell, rose)
                                                                        in pairs.items()) + ". The base is at zero.")


@figures.style()
def scale(budgets):
    """Bytes against the size of a model. budgets: {name: (Budget in full, Budget with LoRA)}, in order of size."""
    fig, ax = figures.new("Activations aside, training LoRA holds little more than the weights", width=10.5, height=5.6)
    parameters = [full.parameters for full, lora in budgets.values()]
    lines = {"full": [full.weights + full.gradients + full.optimizer for full, lora in budgets.values()],
             "LoRA": [lora.weights + lora.gradients + lora.optimizer for full, lora in budgets.values()],
             "file": [lora.file for full, lora in budgets.values()],
             "weights": [full.weights for full, lora in budgets.values()]}
    smaller = [full.weights / lora.file for full, lora in budgets.values()]
    gigabytes = {name: [value / 1e9 for value in values] for name, values in lines.items()}
    ax.loglog(parameters, gigabytes["weights"], color=figures.FROZEN, linewidth=9, alpha=0.35)
    ax.loglog(parameters, gigabytes["full"], "o-", color=figures.FULL)
    ax.loglog(parameters, gigabytes["LoRA"], "o-", color=figures.TRAINABLE)
    ax.loglog(parameters, gigabytes["file"], "o--", color=figures.TRAINABLE, alpha=0.6)
    for name, text, color, dy in (
            ("full", "full: {}", figures.FULL, 0), ("LoRA", "LoRA: {},\non the weights' own line", figures.TRAINABLE, -8),
            ("file", "adapter file: {}", figures.TRAINABLE, 0)):
        figures.label(ax, parameters[-1], gigabytes[name][-1], text.format(readable(lines[name][-1])), color, dx=10, dy=dy)
    ax.set(xlabel="parameters of the model", ylabel="bytes in float16, without activations", ylim=(1e-4, 4e3))
    ax.set_xticks([parameters[i] for i in (0, 2, 4, 6, 8)], [list(budgets)[i] for i in (0, 2, 4, 6, 8)])
    ax.set_yticks([0.001, 0.1, 10, 1000], ["1 MB", "100 MB", "10 GB", "1 TB"])
    ax.minorticks_off()
    return figures.save(fig, "12_scale", alt="Log-log plot against model size, 125 million to 175 billion parameters. "
                        "Training in full holds four times the weights, 1.40 TB for 175B. LoRA of rank 4 on q and v lies on "
                        f"the line of the weights alone, 349 GB. The adapter file is {smaller[0]:.0f} times smaller than the "
                        f"weights at 125M, and {smaller[-1]:,.0f} times at 175B, 38 MB.")
