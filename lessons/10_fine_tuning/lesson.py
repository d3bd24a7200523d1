# %% [markdown]
# # 10. LoRA on q_proj and v_proj: fine-tuning a transformer on real text
#
# **Objective.** Adapt a pretrained transformer to a new kind of text with LoRA, see exactly which numbers train, and
# compare the result with leaving the model frozen and with training all of it.
#
# **Minutes.** 20. **Before this.** Lessons 08 and 09, and a rough idea of attention (lesson 05): each position asks
# (q), offers (k) and hands over (v).
#
# **Predict first.** The base below has 110,336 parameters and has read English. We adapt it to Python source by
# training $A$ and $B$ of rank 8 on q_proj and v_proj in both layers. How many numbers is that, as a share of those that
# full fine-tuning trains? And how much of full fine-tuning's improvement will it reach: a tenth, a half, or all of it?

# %% [markdown]
# ## A base that has read English
#
# The base is a decoder-only transformer over single characters: model width $d = 64$, four heads, two layers, a
# context of 64 characters. It was trained from nothing on Python's own language reference, which is English prose.
# Its loss is the mean cross-entropy, in nats for each character: $\ln 96 = 4.56$ would be blind guessing among the 96
# characters of the alphabet.

# %%
import math

from lessons.course.pages import bases
from lora_np import LoraConfig, data, generate
from lora_np.lora import add_lora, count_parameters, lora_layers, merge, trainable_summary
from lora_np.optim import AdamW, warmup_cosine
from lora_np.train import evaluate, fit

base = bases.english_base()
python = bases.python_source()
english_loss = evaluate(base, bases.held_out(bases.english()))
frozen_loss = evaluate(base, bases.held_out(python))
print(f"{count_parameters(base)[1]:,} parameters")
print(f"held-out English: {english_loss:.1f} nats a character; Python source: {frozen_loss:.1f}; "
      f"guessing: {math.log(96):.1f}")
assert english_loss < 1.4 < 2.0 < frozen_loss  # page

# %% [markdown]
# On Python source the same model is much worse. It has met keywords and identifiers in the reference, but hardly any
# indentation, and no long runs of code. This is what it writes when it is asked to continue a class:

# %%
def sample(model, prompt="class Reader:\n    def __init__(self", n=180):
    ids = generate(model, bases.TOKENIZER.encode(prompt), n, temperature=0.8)
    return bases.TOKENIZER.decode(ids)


print(sample(base))

# %% [markdown]
# ## Freeze everything, add A and B
#
# `add_lora`, in [lora_np/lora.py](../../lora_np/lora.py), freezes the whole model and puts a `LoraLinear` in the place of
# each layer named in `target_modules`. It returns their paths.

# %%
lora = bases.english_base()
paths = add_lora(lora, LoraConfig(r=8, lora_alpha=8, target_modules=("q_proj", "v_proj")))
print("\n".join(paths))
print(trainable_summary(lora))

# %% [markdown]
# Four layers, each with $2 d r = 2 \cdot 64 \cdot 8 = 1024$ trainable numbers. Which parameters are they exactly? It is easy to
# believe that all of attention trains now, k_proj and out_proj included, or that the biases do. Look:

# %%
trainable = [name for name, t in lora.named_parameters() if t.requires_grad]
print("\n".join(trainable))
assert all(name.endswith(("lora_A", "lora_B")) for name in trainable)
assert trainable == [f"{path}.lora_{x}" for path in paths for x in "AB"]  # page
assert count_parameters(lora)[0] == 4 * 2 * 64 * 8 == 4096  # page

# %% [markdown]
# $B$ starts at zero, so $W_0 x + \frac{\alpha}{r} B A x = W_0 x$: before the first step, the adapted model computes exactly what the
# base does.

# %%
assert evaluate(lora, bases.held_out(python)) == frozen_loss
before = {path: layer.weight.data for path, layer in lora_layers(lora).items()}

# %% [markdown]
# ## Train
#
# Both runs see the same 600 batches of Python source, each with a learning rate that suits it. LoRA usually takes a
# larger one than full fine-tuning, since its update $BA$ starts at zero and grows only as $B$ does.

# %%
STEPS = 600


def adapt(model, lr, label):
    batches = data.batches(python[0], batch=16, context=bases.CONTEXT, seed=1)
    optimizer = AdamW(model.trainable_parameters(), lr)
    schedule = warmup_cosine(lr, STEPS, warmup=60)
    return fit(model, batches, optimizer, STEPS, schedule, bases.held_out(python), every=50,
               label=label)


full = bases.english_base()
curves = {"lora": adapt(lora, 1e-2, "LoRA on q and v"),
          "full": adapt(full, 3e-3, "full fine-tuning")}

# %%
lora_loss, full_loss = curves["lora"].validation_loss[-1], curves["full"].validation_loss[-1]
share = (frozen_loss - lora_loss) / (frozen_loss - full_loss)
trained = {"LoRA": count_parameters(lora)[0], "full": count_parameters(full)[0]}
print(f"frozen {frozen_loss:.1f}   LoRA {lora_loss:.1f}   full {full_loss:.1f}")
print(f"LoRA trains {trained['LoRA'] / trained['full']:.1%} of what full fine-tuning trains, "
      f"and goes about {round(share, 1):.0%} of its way")
assert full_loss < lora_loss < frozen_loss
assert full_loss + 0.1 < lora_loss < frozen_loss - 0.15 and 0.3 < share < 0.8  # page

# %% [markdown]
# LoRA on q and v reaches about half of what full fine-tuning does, and trains 3.7% as many numbers. (`trainable_summary`
# above says 3.6%: it counts A and B among all the parameters, as PEFT does.) English prose to source code is a large step
# for a small model, and q and v are only a sixth of each layer's weights. Lesson 11 shows what rank and targets change,
# and a task on which the same method gets nearly all the way.

# %%
from lessons.course.pages.drawings import fine_tuning as draw

draw.loss_curves(frozen_loss, curves["lora"], curves["full"], trained)

# %% [markdown]
# ## After
#
# The same prompt, continued by both adapted models. Neither writes Python that runs. Look for what each has picked up:
# indentation, `self.`, calls, quotes, the length of lines.

# %%
print(sample(lora))
print("\n--- full fine-tuning:\n")
print(sample(full))

# %% [markdown]
# ## What did not change
#
# Every $W_0$ is what it was, to the last bit: no gradient of it was ever computed. What the run produced is 4,096 numbers
# beside a base that can serve other tasks with other numbers.

# %%
same = [(layer.weight.data == before[path]).all() for path, layer in lora_layers(lora).items()]
print(f"adapted layers whose W0 is what it was, bit for bit: {sum(same)} of {len(same)}")
assert all(same)

# %% [markdown]
# And the update can be folded into the weight, after which the model has the base's own shape and cost:

# %%
unmerged = evaluate(lora, bases.held_out(python))
merge(lora)
merged = evaluate(lora, bases.held_out(python))
print(f"difference that merging makes to the loss: below 0.0001: {abs(merged - unmerged) < 1e-4}")
assert abs(merged - unmerged) < 1e-4  # page

# %% [markdown]
# ## Key points
#
# - `add_lora` freezes everything; the only trainable numbers are A and B of the layers that it names: here 4,096 of
#   114,432.
# - At the start B = 0, so the adapted model is the base. After training, W0 is still the base, bit for bit.
# - LoRA and full fine-tuning need learning rates of their own: 1e-2 and 3e-3 here.
# - On a large change of domain, q and v at r = 8 reach about half of full fine-tuning's improvement, not all of it.

# %% [markdown]
# **Exercise.** In [ex10_targets.py](ex10_targets.py) you choose the layers that target names stand for, say which parameters
# train, and load an adapter into a model. `python -m lessons check 10` also looks whether a name that matches nothing, and
# an adapter of another base, are refused.
