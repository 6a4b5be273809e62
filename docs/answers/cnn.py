# %% [markdown]
# # The parameters and the memory of a CNN
#
# Three 3×3 convolutions with stride 2 and "same" padding make 100, 200 and 400 feature maps of
# 200×300 RGB images. How many parameters has it, what memory takes one prediction, and what takes
# training on a batch of 50? Everything below is computed when this page is built.

# %%
from scenelearn import sizing

layers = [sizing.Conv2D(n, 3, strides=2, padding="same") for n in (100, 200, 400)]
one = sizing.estimate(layers, input_shape=(200, 300, 3))
one

# %% [markdown]
# ## The way there

# %%
from IPython.display import HTML, Markdown

Markdown(one.derivation())

# %% [markdown]
# ## Training on 50 images

# %%
fifty = sizing.estimate(layers, input_shape=(200, 300, 3), batch_size=50, optimizer="sgd_momentum")
parts = fifty.training
print(f"maps of 50 images      {sizing.megabytes(parts.activations)}")
print(f"the images             {sizing.megabytes(parts.inputs)}")
print(f"parameters             {sizing.megabytes(parts.parameters)}")
print(f"these three (Géron)    {parts.activations + parts.inputs + parts.parameters:,} bytes")
print(f"gradients              {sizing.megabytes(parts.gradients)}")
print(f"momenta                {sizing.megabytes(parts.optimizer)}")
print(f"all of it              {fifty.training_bytes:,} bytes")

# %%
fifty.plot()

# %% [markdown]
# ## What went wrong in the submitted answer
#
# The answer that this project started from has the right idea and some slips that nearly everybody
# makes once. Each is made again here, on purpose, beside the right number.

# %% tags=["folded"]
right = [row.n_parameters for row in one.rows]
maps = [row.activation_bytes for row in one.rows]
image = 200 * 300 * 3 * 4

tripled = [1_000, (3 * 3 * 100 * 3 + 1) * 200, (3 * 3 * 200 * 3 + 1) * 400]
three_times = [3 * size for size in maps]
slips = [
    (
        "second and third layer's parameters",
        f"{tripled[1]:,} and {tripled[2]:,}",
        f"{right[1]:,} and {right[2]:,}",
        "the kernel's depth is that of the map it reads; the three colors are gone by then",
    ),
    (
        "first layer's parameters",
        f"{(3 * 3 + 1) * 100:,}",
        f"{right[0]:,}",
        "a kernel on a color image is 3 × 3 × 3, not 3 × 3",
    ),
    (
        "all parameters",
        f"{1_000 + right[1] + right[2]:,}",
        f"{one.n_parameters:,}",
        "the slip in the first layer, carried on",
    ),
    (
        "bytes of the three maps",
        " / ".join(sizing.megabytes(size) for size in three_times),
        " / ".join(sizing.megabytes(size) for size in maps),
        "a map's depth is its number of filters; nothing has three channels any more",
    ),
    (
        "one prediction, maps released",
        sizing.megabytes(image + three_times[0]),
        sizing.megabytes(one.prediction_bytes),
        "two neighboring maps are there at once, and the parameters",
    ),
    (
        "a batch of 50",
        sizing.megabytes(50 * (image + three_times[0])),
        sizing.megabytes(fifty.prediction_bytes),
        "parameters are there once, whatever the batch",
    ),
    (
        "training on 50",
        sizing.megabytes(50 * (image + sum(three_times) + 4 * sum(tripled))),
        sizing.megabytes(fifty.training_bytes),
        "parameters once; and gradients and momenta, as large as they, were left out",
    ),
]
rows = "".join(
    f"<tr><td>{what}</td><td>{wrong}</td><td><b>{correct}</b></td><td>{why}</td></tr>"
    for what, wrong, correct, why in slips
)
HTML(
    "<table><thead><tr><th>what</th><th>with the slip</th><th>right</th><th>why</th></tr></thead>"
    f"<tbody>{rows}</tbody></table>"
)

# %% [markdown]
# The submitted numbers for the last three were 18.83 MB, 941 MB and 2.2 GB. Where its 18.83 has
# 0.11 MB more than the rule gives, we do not know.
#
# ## What XLA really plans
#
# On paper a map is kept once. XLA, which runs Keras on JAX, keeps for the gradient of each kernel
# a transposed copy of the map beside it. The second rule follows XLA's own way to that plan,
# without compiling anything:

# %%
planned = sizing.estimate(
    layers, input_shape=(200, 300, 3), batch_size=50, optimizer="sgd_momentum", rule="xla"
)
print(fifty.compare(planned))

# %% [markdown]
# ## Over the course of a step
#
# The memory in use while each layer runs, by XLA's plan: forward, backward, update.

# %%
planned.plot()

# %% [markdown]
# ## What if it were MobileNetV2?
#
# A network made for small devices, on the same images with the same batch: far less arithmetic for
# what it can do, but a training step keeps many more maps.

# %%
mobile = sizing.estimate(
    sizing.application("MobileNetV2"),
    input_shape=(200, 300, 3),
    batch_size=50,
    optimizer="sgd_momentum",
)
print(fifty.compare(mobile))

# %% [markdown]
# How close that comes is measured in [Memory, planned and estimated](../results/memory.py).
#
# Source of the rule on paper: Géron, *Hands-On Machine Learning*, 3rd edition, chapter 14, "Memory
# requirements".
