# %% [markdown]
# # Speed on a CPU
#
# Read from the files that `python -m tests.bench.speed` and `python -m tests.bench.cold_start`
# wrote (`nox -s bench` runs both).
#
# ## Against plain Keras on JAX, TensorFlow and Torch
#
# Prediction, and a training step with all layers trainable and stored statistics, on batches of 32
# photos of 160 px. Each form has a process of its own; they take turns, and the median of the
# ratios counts. Where other work ran on the machine meanwhile, the ratio of processor time says
# more than that of the clock.

# %%
import json
from pathlib import Path

speed = json.loads(Path("docs/results/speed.json").read_text())
print(f"{'':<18} {'':<7} {'ours, ms':>8}  times as long as ours, clock (processor)")
for row in speed["rows"]:
    for what in ("predict", "train"):
        others = [form for form in ("plain", "tensorflow", "torch") if f"{what}_{form}_ms" in row]
        ratios = "  ".join(
            f"{form} {row[f'{key}_ratio']:.1f} ({row[f'{key}_processor_ratio']:.1f})"
            for form, key in ((form, f"{what}_{form}") for form in others)
        )
        print(f"{row['backbone']:<18} {what:<7} {row[f'{what}_fast_ms']:8.2f}  {ratios}")

# %%
{key: value for key, value in speed["rows"][0].items() if isinstance(value, str)}

# %% [markdown]
# What is done (the code says how, and what each brings, with a paragraph each):
#
# 1. Depthwise convolutions as sums of shifted copies, with derivatives of their own.
# 2. Gradients of all other convolutions as matrix products; at large maps those of the inputs as a
#    convolution with the kernel turned round. (XLA's own kernel gradient of a 3×3 convolution on a
#    few photos took fifty times as long.) The largest of a window as that of shifted copies.
# 3. A few photos at a time, so that what passes between layers stays in the cache; in training, all
#    the way to the loss and back.
# 4. Memory that a program gives back is kept for its next run, instead of pages that the system has
#    to clear anew.
# 5. The two halves of a batch run beside each other, each with what passes between its layers.
# 6. BatchNormalization with stored statistics as part of the convolution before it.
# 7. ReLU's derivative from its output.
#
# ResNet50 and EfficientNetV2, whose 3×3 convolutions are of all channels, are no slower than with
# TensorFlow where they predict, and a little slower where they train, for three reasons. The maps
# and gradients of a step are more memory than glibc keeps for a thread, so that the system clears
# it anew. The gradients of all weights are summed up after every four photos; with more photos at a
# time, their maps leave the cache. And XLA's products are slower for kernel gradients than forward.
#
# ## In 16 bits
#
# The CPU of these figures has instructions for products in bfloat16 (`avx512_bf16`). TensorFlow
# and Torch use them, XLA's programs for CPUs do not. Milliseconds a photo of a training step as
# above, in 32 bits and in bfloat16 with the weights in 32, and how many times faster that is
# (ConvNeXt was not measured on TensorFlow):

# %%
print(f"{'':<18} {'ours on JAX':<22} {'TensorFlow':<22} {'Torch':<22} measured")
for row in speed["rows"]:
    cells = ""
    for form in ("fast", "tensorflow", "torch"):
        exact, half = (row.get(f"train_{form}{bits}_ms") for bits in ("", "_bfloat16"))
        cell = f"{exact:6.1f} {half:6.1f}  {exact / half:4.2f}×" if half else ""
        cells += f"{cell:<22} "
    if cells.strip():
        print(f"{row['backbone']:<18} {cells}{row['date'][:10]}")

# %% [markdown]
# So `sl.fit(precision="mixed_bfloat16")` is heeded on such a CPU with TensorFlow and Torch, and
# left out, with a warning, with JAX and on CPUs without these instructions. It pays for networks
# that spend their time in large products, as ResNets and ConvNeXt do, and those are then faster
# than ours on JAX as well. MobileNets lose: depthwise convolutions are no faster in 16 bits, and
# what is converted around them costs more than the products save.
#
# ## More cores
#
# All of this was measured on two cores, and more of them are hardly used yet: a few photos at a
# time are too little for XLA to spread over many, and a batch has two halves. The same fit of 4,139
# training photos at 160 px in batches of 128, by `python -m tests.bench.accelerator --forms CPU`,
# on two machines:

# %%
fits = json.loads(Path("docs/results/accelerator.json").read_text())["rows"]
for fit in fits:
    if fit["form"] == "CPU":
        about = fit["environment"]
        took = f"{fit['backbone']}, {about['cores']:>2} cores: {fit['epoch_seconds']:.1f} s"
        print(f"{took} an epoch ({about['system']}, JAX {about['jax']}, {about['date'][:10]})")

# %% [markdown]
# ## The solved head
#
# Multinomial logistic regression, ours and scikit-learn's, on features that were drawn at random
# and on those of the Intel photos, for the same penalty (`python -m tests.bench.head`). The last
# column says how far the solution's value lies above the least one, in nats. "Strength chosen" also
# contains the cross-validation over about nine penalties; the others are given the penalty.

# %%
head = json.loads(Path("docs/results/head.json").read_text())
print(f"{'':<45} {'seconds (processor)':>20} {'above the least':>16}")
for row in head["rows"]:
    shape = "{:,} × {:,} × {}".format(*row["shape"])
    for method, found in row["methods"].items():
        times = f"{found['seconds']:.2f} ({found['processor_seconds']:.2f})"
        what = f"{row['features']} {shape}, {method}"
        print(f"{what:<45} {times:>20} {found['above_the_least']:>16.0e}")

# %% [markdown]
# ## From the start of a process to the first trained batch
#
# Once with nothing on disk, then with the compiled programs that the first run left there.

# %%
cold = json.loads(Path("docs/results/cold_start.json").read_text())
stages = ("imports", "network", "head", "first_step", "total")
print(f"{'seconds (processor seconds)':<28}" + "".join(f"{stage:>14}" for stage in stages))
for run in cold["runs"]:
    times = [f"{run[f'{stage}_s']:.1f} ({run[f'{stage}_processor_s']:.1f})" for stage in stages]
    name = "programs on disk" if run["programs_on_disk"] else "nothing on disk"
    print(f"{name:<28}" + "".join(f"{time:>14}" for time in times))
