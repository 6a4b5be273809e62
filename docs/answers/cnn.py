# %% [markdown]
# # Parameters and memory of a CNN
#
# Three 3×3 convolutions with stride 2 and "same" padding produce 100, 200 and 400 feature maps from
# 200×300 RGB images. How many parameters does the network have? How much memory does it need to
# predict one image, and to train on a batch of 50?

# %% tags=["answer"]
from IPython.display import HTML, Markdown

from scenelearn import sizing

layers = [sizing.Conv2D(n, 3, strides=2, padding="same") for n in (100, 200, 400)]
shape = (200, 300, 3)
single = sizing.estimate(layers, input_shape=shape)
batch = sizing.estimate(layers, input_shape=shape, batch_size=50, optimizer="sgd_momentum")
planned = sizing.estimate(
    layers, input_shape=shape, batch_size=50, optimizer="sgd_momentum", method="xla"
)
memory = batch.training
subtotal = memory.parameters + memory.inputs + memory.activations


def megabytes(n_bytes):
    return f"**{n_bytes / 1e6:,.1f} MB**"


Markdown(
    f"""
| Quantity | Answer | What it includes |
|---|---|---|
| Parameters | **{single.n_parameters:,}** | weights and biases of the three layers |
| One prediction | {megabytes(single.prediction_bytes)} | parameters, the two largest consecutive \
feature maps |
| Training on 50 images | {megabytes(subtotal)} | parameters, images, all feature maps (Géron) |
| … with SGD momentum | {megabytes(batch.training_bytes)} | also gradients and momentum |

Float32; 1 MB is 1,000,000 bytes. These are minimums: [XLA](#memory-that-xla-plans), which runs
Keras on JAX, plans {megabytes(planned.training_bytes)} for the last.
"""
)

# %% [markdown]
# ## Derivation

# %%
single

# %% tags=["folded"]
Markdown(single.derivation())

# %% [markdown]
# ### Training on 50 images
#
# The backward pass reads all feature maps again, so none is released.

# %%
for name, size in (
    ("feature maps of 50 images", memory.activations),
    ("images", memory.inputs),
    ("parameters", memory.parameters),
    ("subtotal (Géron)", subtotal),
    ("gradients", memory.gradients),
    ("momentum", memory.optimizer_slots),
    ("total", batch.training_bytes),
):
    print(f"{name:<26}{size:>14,} bytes")

# %%
batch.plot()

# %% [markdown]
# ## Checks
#
# Keras builds the same network and counts the same parameters and shapes:

# %%
import keras

model = keras.Sequential([keras.Input(shape)])
for n in (100, 200, 400):
    model.add(keras.layers.Conv2D(n, 3, strides=2, padding="same"))
assert model.count_params() == single.n_parameters
print(f"{model.count_params():,} parameters, output {model.output_shape}")

# %% [markdown]
# ### Memory that XLA plans
#
# On paper, each feature map is stored once. XLA, which runs Keras on JAX, also stores a transposed
# copy of it for the kernel gradient. The "xla" method reproduces XLA's memory plan without
# compiling anything:

# %%
print(batch.compare(planned))

# %% [markdown]
# ### Memory during a training step
#
# The memory in use while each layer runs, as XLA plans it: forward pass, backward pass, update.

# %%
planned.plot()

# %% [markdown]
# ### Comparison with MobileNetV2
#
# A network designed for mobile devices, on the same images and batch size, needs far less
# arithmetic for its accuracy. But a training step stores many more feature maps.

# %%
mobile = sizing.estimate(
    "mobilenet_v2",
    input_shape=shape,
    batch_size=50,
    optimizer="sgd_momentum",
)
print(batch.compare(mobile))

# %% [markdown]
# [Memory estimates](../results/memory.py) shows how accurate these estimates are.
#
# ## Mistakes in the submitted answer
#
# The submitted answer has the right idea and some common mistakes. This table repeats each mistake
# on purpose, next to the correct number.

# %% tags=["folded"]
correct = [layer.n_parameters for layer in single.layers]
maps = [layer.activation_bytes for layer in single.layers]
image = memory.inputs // 50

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
# Source of the textbook method: Géron, *Hands-On Machine Learning*, 3rd edition, chapter 14,
# "Memory requirements".
