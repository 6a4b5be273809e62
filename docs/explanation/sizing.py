# %% [markdown]
# # How sizing works
#
# `sizing.estimate` predicts what a network costs before anything runs. It converts a Keras model,
# or a list of layer descriptions, to a graph of layer calls, infers all shapes, and counts
# parameters, multiply-adds and bytes. Memory is estimated by one of two methods, "textbook" and
# "xla". Both fill the same fields, so you can compare them.
#
# ## What each layer costs
#
# For a convolution with batch size n, output size h′ × w′, kernel size k × l, stride s, dilation d,
# c input channels, f filters and g groups:
#
# | Quantity | Formula |
# |---|---|
# | output size along an axis of size m, "same" | ⌈m / s⌉ |
# | output size along an axis of size m, "valid" | ⌊(m − d (k − 1) − 1) / s⌋ + 1 |
# | parameters | (k l c / g + 1) f |
# | multiply-adds | n h′ w′ f k l c / g |
# | bytes of the output | 4 n h′ w′ f |
# | receptive field along an axis | r + d (k − 1) j |
#
# Here r is the receptive field of the input and j the product of all earlier strides.
#
# The [API reference](../reference/sizing.md) documents the arithmetic of every layer. Parameters
# and shapes are tested against Keras for all networks of `keras.applications` and 500 random
# networks, multiply-adds against the operation count of XLA, and receptive fields against
# gradients.

# %%
from scenelearn import sizing

layers = [sizing.Conv2D(n, 3, strides=2, padding="same") for n in (100, 200, 400)]
estimate = sizing.estimate(layers, input_shape=(200, 300, 3))
for layer in estimate.layers:
    field = layer.receptive_field
    print(
        f"{layer.output_shape}  {layer.n_parameters:>7,} parameters  "
        f"{layer.n_multiply_adds:>11,} multiply-adds  "
        f"receptive field {field.size[0]}×{field.size[1]} px, stride {field.stride[0]}"
    )

# %% [markdown]
# ## Layers of your own
#
# A layer that Keras does not have, such as one of KerasHub or your own, needs no description. If
# its call consists of layers of Keras and elementwise operations, it is replaced by these.
# Otherwise JAX traces its call on shapes, without computing anything, and its line is marked
# "traced": its multiply-adds are those of all products inside, and its activations include the
# arrays inside that its gradients read. Tracing needs the JAX backend of Keras. If the parameters
# do not add up to `model.count_params()`, an error says so. A subclassed model needs
# `input_shape=` if it was not called yet; it is built then.
#
# ## The textbook method
#
# This method can be reproduced on paper:
#
# - **Prediction:** parameters, and the outputs that are alive at the same time. An output is
#   released after the last layer that reads it. In a chain, that is two consecutive outputs; with
#   branches, outputs wait for the merge. `prediction_bytes_without_reuse` keeps all outputs.
# - **Training:** parameters, their gradients, the optimizer state (1 slot per parameter for
#   momentum, 2 for Adam, and so on for every Keras optimizer), the batch, and all outputs from the
#   first trained layer on, which the backward pass needs.
#
# It leaves out copies, gradients of outputs and scratch memory. Source: Géron, *Hands-On Machine
# Learning*, 3rd edition, chapter 14, "Memory requirements".
#
# ## The XLA method
#
# This method computes what XLA:CPU plans for the predict and train steps of Keras on JAX, without
# compiling and without weights. It follows the passes of XLA:
#
# 1. **Lowering.** Each layer becomes the operations of the JAX backend of Keras, with their
#    gradients. The gradient of a kernel reads transposed copies of the activations and their
#    gradients. This is why training needs far more memory than on paper. The gradient of a
#    depthwise kernel is computed densely, for all pairs of channels. Dropout keeps two arrays of
#    random bits per output.
# 2. **Library calls.** Matrix products, convolutions, reductions and pooling are passed to a
#    library (YNN), up to a hundred operations per call (LibraryRewriter). Memory inside a call is
#    in none of XLA's buffers.
# 3. **Fusion.** Cheap operations are recomputed inside their consumers (CpuInstructionFusion):
#    activation functions, batch normalization, sums of branches.
# 4. **Copies** of donated weights that are read after their update (CopyInsertion).
# 5. **Scheduling.** Kernels run breadth first (BFScheduler), so many buffers are alive at the same
#    time.
# 6. **Buffer assignment.** Each array goes, largest first, into the memory of an argument that is
#    free during its whole lifetime (BufferAssigner). The rest is packed into one block
#    (GlobalDecreasingSizeBestFitHeap).

# %%
estimates = {
    method: sizing.estimate(
        layers,
        input_shape=(200, 300, 3),
        batch_size=50,
        optimizer="sgd_momentum",
        method=method,
    )
    for method in sizing.METHODS
}
print(estimates["textbook"].compare(estimates["xla"]))

# %% [markdown]
# The method is valid for Keras 3.15 on JAX 0.10.2 on a CPU, in float32. Other versions have other
# passes. [Memory estimates](../results/memory.py) reports its accuracy; `nox -s memory` measures it
# again. Layers without a description of their own are lowered from the program that JAX traces of
# their call, with the gradients that JAX derives. It does not support Keras' attention layers other
# than `MultiHeadAttention`, `TimeDistributed`, `Resizing`, and `EinsumDense` equations that sum
# over more than the last axis. These raise an error; the textbook method supports them.
#
# To inspect XLA itself, set `TF_CPP_VMODULE=library_rewriter=4` and `TF_CPP_MAX_VLOG_LEVEL=4` in
# the environment, or print `jax.jit(f).lower(...).compile().as_text()`.
#
# ## Memory of a process
#
# A process needs more memory than XLA plans. Python, Keras and JAX take some hundreds of MB,
# kernels need scratch memory, and the memory inside library calls is not in the plan.
# `prediction_resident_bytes` and `training_resident_bytes` are upper bounds that add a margin for
# these. Measured with one process per step ("fit" is the network and the training step of `sl.fit`
# on a CPU, which processes a few photos of the batch at a time):

# %% tags=["folded"]
import json
from pathlib import Path

measured = json.loads(Path("docs/results/resident_memory.json").read_text())
print(f"{'model':<15} {'step':<19} {'plan':>9} {'measured':>9} {'bound':>9}")
for row in measured["rows"]:
    plan = sizing.format_bytes(row["plan_bytes"]) if "plan_bytes" in row else "-"
    print(
        f"{row['model']:<15} {row['step']:<19} {plan:>9} "
        f"{sizing.format_bytes(row['resident_bytes']):>9} "
        f"{sizing.format_bytes(row['bound_bytes']):>9}"
    )
print(f"\nhighest measured value relative to its bound: {measured['fraction_max']:.0%}")

# %% tags=["folded"]
measured["environment"]
