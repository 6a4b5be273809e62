# %% [markdown]
# # Speed on a CPU
#
# scenelearn replaces slow layers of Keras on JAX by faster equivalents when it runs on a CPU. The
# numbers come from `nox -s bench` and `nox -s linear_probe`.
#
# ## Comparison with Keras on JAX, TensorFlow and Torch
#
# Milliseconds per photo in prediction and in a training step with all layers trainable and fixed
# BatchNormalization statistics, on batches of 32 photos of 160 px. Each combination has its own
# process. They run alternately, and the median ratio is reported. The ratio in parentheses is that
# of CPU time, which is more reliable if the machine was busy. "plain" is Keras on JAX without our
# layers.

# %% tags=["folded"]
import json
from pathlib import Path

VERSIONS = ("python", "keras", "jax", "tensorflow", "torch", "cores", "system")


def print_times(rows: list[dict]) -> None:
    print(f"{'':<24} {'':<7} {'ms':>8}  time relative to scenelearn, wall clock (CPU)")
    for row in rows:
        for step in ("predict", "train"):
            ratios = "  ".join(
                f"{form} {row[f'{step}_{form}_ratio']:.1f} ({row[f'{step}_{form}_cpu_ratio']:.1f})"
                for form in ("plain", "tensorflow", "torch")
                if f"{step}_{form}_ms" in row
            )
            print(f"{row['backbone']:<24} {step:<7} {row[f'{step}_fast_ms']:8.2f}  {ratios}")


speed = json.loads(Path("docs/results/speed.json").read_text())
print_times(speed["rows"])

# %% tags=["folded"]
{key: value for key, value in speed["rows"][0].items() if isinstance(value, str)}

# %% [markdown]
# ## Newer networks
#
# The same for a small vision transformer of Keras' layers, ConvNeXt and EfficientNet-Lite2, without
# "plain", on another machine: compare the ratios, not the times. TensorFlow runs the depthwise
# convolutions of ConvNeXt slowly, and Torch those of EfficientNet-Lite2. Torch trains the
# transformer and ConvNeXt faster than scenelearn. `nox -s bench -- --out
# docs/results/newer_networks.json --forms fast tensorflow torch --backbone vit_small convnext_tiny
# efficientnet_lite2.keras` repeats it.

# %% tags=["folded"]
newer = json.loads(Path("docs/results/newer_networks.json").read_text())
print_times(newer["rows"])

# %% tags=["folded"]
for row in newer["rows"]:
    versions = ", ".join(f"{name} {row[name]}" for name in VERSIONS if name in row)
    print(f"{row['backbone']}: {row['date']}, {versions}")

# %% [markdown]
# ## What makes it fast
#
# 1. Depthwise convolutions are sums of shifted copies, with custom gradients.
# 2. Gradients of other convolutions are matrix products. On large feature maps, the gradient of the
#    input is a convolution with the flipped kernel. (XLA's kernel gradient of a 3×3 convolution on
#    a few photos took fifty times as long.) Max pooling is the maximum of shifted copies.
# 3. Photos are processed in microbatches of four, so that activations stay in the CPU cache; in
#    training, all the way to the gradients.
# 4. Memory that a program frees is kept for its next run. The system need not clear new pages.
# 5. A batch runs in parts of 16 photos, or in two smaller ones, on as many cores. The gradients are
#    added in a fixed order, so that results are the same bit for bit on any number of cores.
# 6. BatchNormalization with fixed statistics is folded into the preceding convolution.
# 7. The gradient of ReLU is computed from its output.
# 8. In transformers, a barrier before each LayerNormalization keeps XLA from computing the gradient
#    of the tokens, a sum over all later layers, again in each layer.
#
# ResNet50 and EfficientNetV2, which use full 3×3 convolutions, predict as fast as on TensorFlow and
# train a little slower. There are three reasons. The activations and gradients of a step need more
# memory than glibc keeps per thread. The gradients of all weights are accumulated after every four
# photos; larger microbatches would exceed the CPU cache. And matrix products in XLA are slower for
# kernel gradients than in the forward pass.
#
# ## Mixed precision
#
# The CPU of these measurements has instructions for bfloat16 products (`avx512_bf16`). TensorFlow
# and Torch use them; XLA on CPUs does not. The table gives the milliseconds per photo of the
# training step above in float32 and in bfloat16 with float32 weights, and the speedup. (ConvNeXt in
# bfloat16 was not measured on TensorFlow.)

# %% tags=["folded"]
print(f"{'':<18} {'scenelearn on JAX':<22} {'TensorFlow':<22} {'Torch':<22} measured")
for row in speed["rows"]:
    cells = ""
    for form in ("fast", "tensorflow", "torch"):
        exact, half = (row.get(f"train_{form}{suffix}_ms") for suffix in ("", "_bfloat16"))
        cell = f"{exact:6.1f} {half:6.1f}  {exact / half:4.2f}×" if half else ""
        cells += f"{cell:<22} "
    if cells.strip():
        print(f"{row['backbone']:<18} {cells}{row['date'][:10]}")

# %% [markdown]
# `sl.fit(precision="mixed_bfloat16")` therefore takes effect on such a CPU with TensorFlow and
# Torch. With JAX, and on CPUs without these instructions, it is ignored with a warning. Networks
# dominated by large matrix products, such as ResNet and ConvNeXt, benefit; they are then also
# faster than scenelearn on JAX. MobileNets become slower: depthwise convolutions gain nothing, and
# the conversions cost more than the products save.
#
# ## Several cores
#
# The same calls, limited to some of the cores of one machine. "Serial" is the time per photo in
# which only one core computes: Keras' own work around a step, and the update of the weights.
# `nox -s cores` repeats the measurement, by default with one and two cores. More cores have not
# been measured with this version. A training step with a batch of 32 photos has two parts, so use
# larger batches there; predictions take several batches at once.

# %% tags=["folded"]
cores = json.loads(Path("docs/results/cores.json").read_text())["rows"]
columns = [f"{call}_{form}_ms" for call in ("predict", "train") for form in ("fast", "tensorflow")]
columns.append("train_fast_serial_ms")
print("ms per photo      cores  predict     TF    train     TF  serial")
for row in cores:
    cells = "{:8.2f} {:6.2f} {:8.2f} {:6.2f} {:7.3f}".format(*(row[name] for name in columns))
    print(f"{row['backbone']:<18} {row['cores']:>4} {cells}")
for name in dict.fromkeys(row["backbone"] for row in cores):
    one, *_, most = (row for row in cores if row["backbone"] == name)
    speedup = one["train_fast_ms"] / most["train_fast_ms"]
    serial = one["train_fast_serial_ms"] / one["train_fast_ms"]
    print(
        f"{name}: a training step is {speedup:.2f} times as fast on {most['cores']} cores as on "
        f"one; its serial part is {serial:.1%} of a step on one core"
    )

# %% [markdown]
# ## A few photos
#
# Up to eight photos are predicted one by one, since a batch is padded to 32. Milliseconds for all
# photos of a call, both ways, at 160 px:

# %% tags=["folded"]
few = json.loads(Path("docs/results/few_at_once.json").read_text())
facts = few["environment"]
print(f"{facts['cpu']}, {facts['cores']} cores, JAX {facts['jax']}, {facts['date'][:10]}")
print("ms                 photos  one by one  padded batch   ratio")
for row in few["rows"]:
    one, batch = row["one_by_one_ms"], row["batch_ms"]
    print(
        f"{row['backbone']:<18} {row['photos']:>6} {one:>11.1f} {batch:>13.1f} {batch / one:>7.1f}"
    )

# %% [markdown]
# ## Linear probe
#
# Multinomial logistic regression with scenelearn and with scikit-learn, on random features and on
# features of the Intel photos, for the same L2 penalty. "Excess loss" is the loss minus the
# smallest loss found, in nats. "Cross-validated l2" includes cross-validation over about nine
# penalties; the other rows are given the penalty.

# %% tags=["folded"]
probe = json.loads(Path("docs/results/linear_probe.json").read_text())
print(f"{'':<57} {'seconds (CPU)':>14} {'excess loss':>12}")
for row in probe["rows"]:
    shape = "{:,} × {:,} × {}".format(*row["shape"])
    for method, result in row["methods"].items():
        times = f"{result['seconds']:.2f} ({result['cpu_seconds']:.2f})"
        name = f"{row['features']} {shape}, {method}"
        print(f"{name:<57} {times:>14} {result['excess_loss']:>12.0e}")

# %% [markdown]
# ## Time to the first training step
#
# From the start of a process to the first trained batch, first without compiled programs on disk,
# then with those of the first run.

# %% tags=["folded"]
cold = json.loads(Path("docs/results/cold_start.json").read_text())
stages = [key.removesuffix("_cpu_s") for key in cold["runs"][0] if key.endswith("_cpu_s")]
print(f"{'seconds (CPU seconds)':<24}" + "".join(f"{stage:>15}" for stage in stages))
for run in cold["runs"]:
    times = [
        f"{run.get(f'{stage}_s', 0):.1f} ({run.get(f'{stage}_cpu_s', 0):.1f})" for stage in stages
    ]
    name = "programs on disk" if run["programs_cached"] else "nothing on disk"
    print(f"{name:<24}" + "".join(f"{time:>15}" for time in times))
