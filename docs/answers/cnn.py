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
from IPython.display import Markdown

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
# ## Mistakes to avoid
#
# - The depth of a kernel is that of the map it reads, and nothing else: the second layer has
#   3·3·100 weights for each of its maps, not 3·3·100·3.
# - The parameters are there once, whatever the size of the batch.
# - A map of 100×150×100 has that many numbers; the three colours are gone after the first layer.
# - When maps are released, two neighbours still coexist: the one read and the one written.
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
# How close that comes is measured in [Memory, planned and estimated](../results/memory.py).
#
# Source of the rule on paper: Géron, *Hands-On Machine Learning*, 3rd edition, chapter 14, "Memory
# requirements".
