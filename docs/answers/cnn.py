# %% [markdown]
# # Parameters and memory of a CNN
#
# Three 3×3 convolutions with stride 2 and "same" padding produce 100, 200 and 400 feature maps from
# 200×300 RGB images. How many parameters does the network have? How much memory does it need to
# predict one image, and to train on a batch of 50? These are the answers, computed when this page
# was built:

# %%
from scenelearn import sizing

layers = [sizing.Conv2D(n, 3, strides=2, padding="same") for n in (100, 200, 400)]
single = sizing.estimate(layers, input_shape=(200, 300, 3))
single

# %% [markdown]
# ## Derivation

# %% tags=["folded"]
from IPython.display import HTML, Markdown

Markdown(single.derivation())

# %% [markdown]
# ## Training on 50 images

# %%
batch = sizing.estimate(layers, input_shape=(200, 300, 3), batch_size=50, optimizer="sgd_momentum")
memory = batch.training
print(f"feature maps of 50 images    {sizing.format_bytes(memory.activations)}")
print(f"images                       {sizing.format_bytes(memory.inputs)}")
print(f"parameters                   {sizing.format_bytes(memory.parameters)}")
subtotal = memory.activations + memory.inputs + memory.parameters
print(f"subtotal (Géron)             {subtotal:,} bytes")
print(f"gradients                    {sizing.format_bytes(memory.gradients)}")
print(f"momentum                     {sizing.format_bytes(memory.optimizer_slots)}")
print(f"total                        {batch.training_bytes:,} bytes")

# %%
batch.plot()

# %% [markdown]
# ## Mistakes in the submitted answer
#
# The submitted answer has the right idea and some common mistakes. This table repeats each mistake
# on purpose, next to the correct number.

# %% tags=["folded"]
correct = [layer.n_parameters for layer in single.layers]
maps = [layer.activation_bytes for layer in single.layers]
image = 200 * 300 * 3 * 4

tripled = [1_000, (3 * 3 * 100 * 3 + 1) * 200, (3 * 3 * 200 * 3 + 1) * 400]
tripled_maps = [3 * size for size in maps]
mistakes = [
    (
        "parameters of the second and third layers",
        f"{tripled[1]:,} and {tripled[2]:,}",
        f"{correct[1]:,} and {correct[2]:,}",
        "the kernel depth is the number of input channels; only the image has three",
    ),
    (
        "parameters of the first layer",
        f"{(3 * 3 + 1) * 100:,}",
        f"{correct[0]:,}",
        "a kernel on a color image is 3 × 3 × 3, not 3 × 3",
    ),
    (
        "total parameters",
        f"{1_000 + correct[1] + correct[2]:,}",
        f"{single.n_parameters:,}",
        "follows from the mistake in the first layer",
    ),
    (
        "bytes of the three feature maps",
        " / ".join(sizing.format_bytes(size) for size in tripled_maps),
        " / ".join(sizing.format_bytes(size) for size in maps),
        "a convolution has one output channel per filter; the factor of three does not apply",
    ),
    (
        "one prediction, releasing feature maps",
        sizing.format_bytes(image + tripled_maps[0]),
        sizing.format_bytes(single.prediction_bytes),
        "two consecutive feature maps and the parameters are in memory at the same time",
    ),
    (
        "prediction of a batch of 50",
        sizing.format_bytes(50 * (image + tripled_maps[0])),
        sizing.format_bytes(batch.prediction_bytes),
        "parameters are stored once, whatever the batch size",
    ),
    (
        "training on a batch of 50",
        sizing.format_bytes(50 * (image + sum(tripled_maps) + 4 * sum(tripled))),
        sizing.format_bytes(batch.training_bytes),
        "parameters are stored once; gradients and momentum, each as large, were left out",
    ),
]
rows = "".join(
    f"<tr><td>{quantity}</td><td>{wrong}</td><td><b>{right}</b></td><td>{why}</td></tr>"
    for quantity, wrong, right, why in mistakes
)
HTML(
    "<table><thead><tr><th>Quantity</th><th>With the mistake</th><th>Correct</th><th>Why</th></tr>"
    f"</thead><tbody>{rows}</tbody></table>"
)

# %% [markdown]
# The submitted numbers for the last three rows were 18.83 MB, 941 MB and 2.2 GB. We do not know
# where the additional 0.11 MB in 18.83 MB came from.
#
# ## Memory that XLA plans
#
# On paper, each feature map is stored once. XLA, which runs Keras on JAX, also stores a transposed
# copy of it for the kernel gradient. The "xla" method reproduces XLA's memory plan without
# compiling anything:

# %%
planned = sizing.estimate(
    layers, input_shape=(200, 300, 3), batch_size=50, optimizer="sgd_momentum", method="xla"
)
print(batch.compare(planned))

# %% [markdown]
# ## Memory during a training step
#
# The memory in use while each layer runs, as XLA plans it: forward pass, backward pass, update.

# %%
planned.plot()

# %% [markdown]
# ## Comparison with MobileNetV2
#
# A network designed for mobile devices, on the same images and batch size, needs far less
# arithmetic for its accuracy. But a training step stores many more feature maps.

# %%
mobile = sizing.estimate(
    "mobilenet_v2",
    input_shape=(200, 300, 3),
    batch_size=50,
    optimizer="sgd_momentum",
)
print(batch.compare(mobile))

# %% [markdown]
# [Memory estimates](../results/memory.py) shows how accurate these estimates are.
#
# Source of the textbook method: Géron, *Hands-On Machine Learning*, 3rd edition, chapter 14,
# "Memory requirements".
