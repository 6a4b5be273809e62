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
# ## A drawing
#
# Each sheet is one sample of the batch, each column one time step, each cell one feature.

# %% tags=["folded"]
from IPython.display import HTML


def drawing(batch=3, time=6, features=3, step=2):
    """The input as sheets, one a sample, with the slice of one time step filled in."""
    cell, shift = 26, 16  # pixels
    width, height = time * cell, features * cell
    parts = []
    for sample in reversed(range(batch)):
        left, top = 60 + sample * shift, 20 + (batch - 1 - sample) * shift
        for column in range(time):
            fill = "#e8a33d" if column == step else "var(--md-default-bg-color, #fff)"
            parts += [
                f'<rect x="{left + column * cell}" y="{top + row * cell}" width="{cell}" '
                f'height="{cell}" fill="{fill}" stroke="currentColor"/>'
                for row in range(features)
            ]
    low = 20 + (batch - 1) * shift + height + 20
    words = [
        (60 + width / 2, low, "time →"),
        (22, 20 + (batch - 1) * shift + height / 2, "features ↓"),
        (60 + width + (batch - 1) * shift / 2 + 34, low - 30, "batch ↗"),
    ]
    parts += [
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="13" text-anchor="middle" '
        f'fill="currentColor">{word}</text>'
        for x, y, word in words
    ]
    caption = (
        f"{batch} samples of {time} time steps with {features} features: three dimensions. "
        f"Filled in: what the cell reads at one time step, {batch} × {features}, two dimensions."
    )
    return HTML(
        f'<figure><svg viewBox="-20 0 {width + 160} {low + 10}" width="{width + 160}" role="img" '
        f'style="max-width:100%;height:auto" aria-label="{caption}">{"".join(parts)}</svg>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


drawing()

# %% [markdown]
# ## Why the submitted answer is one time step of it
#
# The answer that was submitted gave an input of m × n_inputs and an output of m × n_neurons: two
# dimensions each. That is right for the cell at **one** time step, where it computes
# h(t) = φ(x(t) Wₓ + h(t−1) Wₕ + b) for m samples at once. A layer runs the cell over all time
# steps, so what it is handed has one dimension more. The step's dimensions and the layer's:

# %%
print("at one time step ", *(axis.name for axis in shapes.step))
print("the layer's input", *(axis.name for axis in shapes.input))

# %% [markdown]
# Keras says the same: it refuses an input of two dimensions.

# %%
import textwrap

import keras
import numpy as np

try:
    keras.layers.LSTM(64)(np.zeros((8, 10), "float32"))
except ValueError as error:
    print(textwrap.fill(str(error).splitlines()[0], 90))

# %% [markdown]
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
layer = keras.layers.LSTM(64, return_sequences=True, return_state=True)
outputs = layer(np.zeros((8, 50, 10), "float32"))
real = [tuple(output.shape) for output in outputs]
computed = [every.output_shape, *(tuple(axis.size for axis in state) for state in every.states)]
assert real == computed
real

# %% [markdown]
# Sources: Géron, *Hands-On Machine Learning*, 3rd edition, chapter 15; Hochreiter and Schmidhuber,
# "Long short-term memory", 1997; Cho et al., 2014, for the GRU.
