# %% [markdown]
# # How sizing counts
#
# `sizing.estimate` answers what a network costs before anything runs. It reads a Keras model, or a
# list of descriptions, into a graph of layer calls; gives every value of it a shape; and counts.
# Two rules count memory. Both fill in the same fields, so they can be laid side by side.
#
# ## What each layer gives
#
# With n the batch, h′ × w′ the places of the output, k × l the kernel, s the stride, d the
# dilation, c channels read, f filters made and g groups:
#
# | | a convolution |
# |---|---|
# | output along an axis of size m, "same" | ⌈m / s⌉ |
# | output along an axis of size m, "valid" | ⌊(m − d (k − 1) − 1) / s⌋ + 1 |
# | parameters | (k l c / g + 1) f |
# | multiply-adds | n h′ w′ f k l c / g |
# | bytes of its map | 4 n h′ w′ f |
# | receptive field along an axis | r + d (k − 1) j, with j the product of the strides before it |
#
# Every layer's own arithmetic stands in the [reference](../reference/sizing.md). Parameters and
# shapes are checked against Keras for every network of `keras.applications` and for 500 random
# ones; multiply-adds against XLA's own count of products; receptive fields against gradients.

# %%
from scenelearn import sizing

layers = [sizing.Conv2D(n, 3, strides=2, padding="same") for n in (100, 200, 400)]
one = sizing.estimate(layers, input_shape=(200, 300, 3))
for row in one.rows:
    field = row.receptive_field
    print(
        f"{row.output_shape}  {row.n_parameters:>7,} parameters  {row.n_multiply_adds:>11,} "
        f"multiply-adds  sees {field.size[0]}×{field.size[1]} px, every {field.stride[0]}"
    )

# %% [markdown]
# ## The textbook rule
#
# By hand, and reproducible on paper:
#
# - **Prediction**: parameters, and the maps that are there at once. A map is released after the
#   last layer that reads it, so in a chain two neighbors are there together; where branches meet,
#   a map waits for its merge. `prediction_bytes_all_kept` keeps every map.
# - **Training**: parameters, gradients of the trained ones, what the optimizer keeps of each
#   (momentum 1, Adam 2, and so on for every optimizer of Keras), the batch, and every map from the
#   first trained layer on, since the way back needs it.
#
# It leaves out: copies, gradients of maps, scratch memory. Source: Géron, *Hands-On Machine
# Learning*, 3rd edition, chapter 14, "Memory requirements".
#
# ## The XLA rule
#
# What XLA:CPU itself plans for Keras's predict and train steps on JAX, worked out without compiling
# and without a weight. It follows XLA's own passes, each from the source:
#
# 1. **Lowering.** Each layer becomes the operations that Keras's JAX backend asks for, and their
#    gradients as JAX transposes them. The gradient of a kernel reads copies of map and gradient
#    with batch and channels in exchanged places: this is why training takes far more than on paper.
#    The gradient of a depthwise kernel is computed dense, for every pair of channels. Dropout keeps
#    two arrays of random words for each of its maps.
# 2. **Library calls.** Products, convolutions, reductions and pooling windows go to a library
#    (YNN), several operations to a call, up to a hundred (LibraryRewriter). What lies inside a call
#    is in none of XLA's buffers.
# 3. **Fusion.** What is cheap to compute again is computed inside its readers
#    (CpuInstructionFusion): activations, batch normalization, sums of branches.
# 4. **Copies** of donated weights that are read after their update (CopyInsertion).
# 5. **Order.** Kernels run breadth first (BFScheduler), so that much waits.
# 6. **Places.** Each array goes, largest first, into an argument's memory that is free all its
#    life (BufferAssigner); the rest is packed into one block (GlobalDecreasingSizeBestFitHeap).

# %%
fifty = {
    rule: sizing.estimate(
        layers,
        input_shape=(200, 300, 3),
        batch_size=50,
        optimizer="sgd_momentum",
        rule=rule,
    )
    for rule in sizing.RULES
}
print(fifty["textbook"].compare(fifty["xla"]))

# %% [markdown]
# It holds for Keras 3.15 on JAX 0.10.2 on a CPU, in 32-bit floats. Other versions change other
# passes: [Memory, planned and estimated](../results/memory.py) says how far it is off, and
# `nox -s memory` measures it anew. It does not know attention other than `MultiHeadAttention`,
# `TimeDistributed`, resizing, and equations of `EinsumDense` that sum over more than the last axis:
# an error says so, and the textbook rule knows them. Farthest off are group normalization in
# prediction (up to a half too much, on small networks) and networks that join many branches.
#
# To see XLA's side of it, run a program with `TF_CPP_VMODULE=library_rewriter=4` and
# `TF_CPP_MAX_VLOG_LEVEL=4` in the environment, or print
# `jax.jit(f).lower(...).compile().as_text()`.
#
# ## What a process takes
#
# XLA's plan is not what the system shows for a process. Python, Keras and JAX themselves take some
# hundreds of MB; the kernels take scratch memory while they run; and the maps inside a library call
# are in no plan at all. So `prediction_resident_bytes` and `training_resident_bytes` add a margin
# to the plan. Measured, each step in a process of its own; "fit" is a network and its steps as
# `sl.fit` takes them on a CPU, with the maps of a few photos of the batch at a time:

# %%
import json
from pathlib import Path

measured = json.loads(Path("docs/results/resident.json").read_text())
for row in measured["rows"]:
    plan = sizing.megabytes(row["plan_bytes"]) if "plan_bytes" in row else "-"
    print(
        f"{row['model']:<15} {row['step']:<19} plan {plan:>8}, "
        f"took {sizing.megabytes(row['resident_bytes']):>8}, "
        f"at most {sizing.megabytes(row['at_most_bytes']):>8}"
    )
share = measured["share_highest"]
print(f"\nthe highest took {share:.0%} of what was expected at most")
measured["environment"]
