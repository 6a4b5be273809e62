# %% [markdown]
# # How many dimensions does a recurrent layer have?
#
# Three go in: **(batch, time, features)**. What comes out has two or three, depending on whether
# you ask for the output of every step. Everything below is computed when this page is built.

# %%
from scenelearn import sizing

shapes = sizing.recurrent_shapes(units=64, batch=8, time=50, features=10, cell="LSTM")
shapes

# %%
from IPython.display import Markdown

Markdown(shapes.explanation())

# %% [markdown]
# A common mistake is to look at one time step, which is a (batch, features) slice, and to take its
# two dimensions for those of the input. The time axis is the third.
#
# ## With an output for every step, and with the states

# %%
every = sizing.recurrent_shapes(
    units=64, batch=8, time=50, features=10, return_sequences=True, return_state=True
)
Markdown(every.explanation())

# %% [markdown]
# ## Stacked, and in both directions
#
# A second recurrent layer wants three dimensions as well, so every layer but the last returns
# sequences. A layer that reads both ways has twice the outputs.

# %%
stack = sizing.recurrent_shapes(
    units=[64, 32], batch=8, time=50, features=10, cell="GRU", bidirectional=True
)
Markdown(stack.explanation())

# %% [markdown]
# ## Checked against Keras

# %%
import keras
import numpy as np

layer = keras.layers.LSTM(64, return_sequences=True, return_state=True)
outputs = layer(np.zeros((8, 50, 10), "float32"))
real = [tuple(output.shape) for output in outputs]
computed = [every.output_shape, *(tuple(axis.size for axis in state) for state in every.states)]
assert real == computed
real

# %% [markdown]
# Sources: Géron, *Hands-On Machine Learning*, 3rd edition, chapter 15; Hochreiter and Schmidhuber,
# "Long short-term memory", 1997; Cho et al., 2014, for the GRU.
