# %% [markdown]
# # Dimensions of a recurrent layer
#
# How many dimensions do the input and the output of a recurrent layer have, and what does each
# stand for?

# %% tags=["answer"]
from IPython.display import HTML, Markdown

from scenelearn import sizing

example = {"units": 64, "batch_size": 8, "timesteps": 50, "features": 10, "cell": "LSTM"}
shapes = sizing.recurrent_shapes(**example)
sequences = sizing.recurrent_shapes(**example, return_sequences=True, return_state=True)


def row(name, axes):
    return f"| {name} | **{len(axes)}** | {', '.join(axis.name for axis in axes)} |\n"


meanings = {axis.name: axis.meaning for axis in (*shapes.input, *shapes.output)}
Markdown(
    "| Array | Dimensions | In this order |\n|---|---|---|\n"
    + row("Input", shapes.input)
    + row("Output, last time step", shapes.output)
    + row("Output, all time steps", sequences.output)
    + "".join(f"\n- **{name}**: {meaning}" for name, meaning in meanings.items())
    + "\n\nA layer returns all time steps if `return_sequences=True`."
)

# %% [markdown]
# ## Derivation

# %%
shapes

# %% tags=["folded"]
Markdown(shapes.explanation())

# %% [markdown]
# ### Illustration
#
# Each sheet is one sample of the batch, each column one time step, each cell one feature.


# %% tags=["folded"]
def illustration(batch=3, time=6, features=3, step=2):
    """Draw the input as one sheet per sample, with the slice of one time step filled in."""
    cell, offset = 26, 16  # pixels
    width, height = time * cell, features * cell
    parts = []
    for sample in reversed(range(batch)):
        left, top = 60 + sample * offset, 20 + (batch - 1 - sample) * offset
        for column in range(time):
            fill = "#e8a33d" if column == step else "var(--md-default-bg-color, #fff)"
            parts += [
                f'<rect x="{left + column * cell}" y="{top + row * cell}" width="{cell}" '
                f'height="{cell}" fill="{fill}" stroke="currentColor"/>'
                for row in range(features)
            ]
    bottom = 20 + (batch - 1) * offset + height + 20
    texts = [
        (60 + width / 2, bottom, "time →"),
        (22, 20 + (batch - 1) * offset + height / 2, "features ↓"),
        (60 + width + (batch - 1) * offset / 2 + 34, bottom - 30, "batch ↗"),
    ]
    parts += [
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="13" text-anchor="middle" '
        f'fill="currentColor">{text}</text>'
        for x, y, text in texts
    ]
    caption = (
        f"{batch} samples of {time} time steps with {features} features: three dimensions. Filled: "
        f"the input of the cell at one time step, {batch} × {features}, two dimensions."
    )
    return HTML(
        f'<figure><svg viewBox="-20 0 {width + 160} {bottom + 10}" width="{width + 160}" '
        f'role="img" style="max-width:100%;height:auto" aria-label="{caption}">'
        f"{''.join(parts)}</svg>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


illustration()

# %% [markdown]
# ### With sequences and states as outputs

# %%
Markdown(sequences.explanation())

# %% [markdown]
# ### Stacked and bidirectional layers
#
# A second recurrent layer also needs three dimensions, so every layer but the last returns
# sequences. A bidirectional layer has twice as many outputs.

# %%
stack = sizing.recurrent_shapes(
    units=[64, 32], batch_size=8, timesteps=50, features=10, cell="GRU", bidirectional=True
)
Markdown(stack.explanation())

# %% [markdown]
# ## Checks
#
# Keras has the same shapes:

# %%
import keras
import numpy as np

layer = keras.layers.LSTM(64, return_sequences=True, return_state=True)
outputs = layer(np.zeros((8, 50, 10), "float32"))
actual = [tuple(output.shape) for output in outputs]
computed = [
    sequences.output_shape,
    *(tuple(axis.size for axis in state) for state in sequences.states),
]
assert actual == computed
actual

# %% [markdown]
# It rejects a two-dimensional input.

# %%
import textwrap

try:
    keras.layers.LSTM(64)(np.zeros((8, 10), "float32"))
except ValueError as error:
    print(textwrap.fill(str(error).splitlines()[0], 90))

# %% [markdown]
# ## Mistake in the submitted answer
#
# The submitted answer gave an input of m × n_inputs and an output of m × n_neurons: two dimensions
# each. That is correct for the cell at **one** time step, where it computes h(t) = φ(x(t) Wₓ +
# h(t−1) Wₕ + b) for m samples at once. A layer runs the cell over all time steps, so its input has
# one dimension more:

# %%
print("one time step:  ", *(axis.name for axis in shapes.step))
print("layer input:    ", *(axis.name for axis in shapes.input))

# %% [markdown]
# Sources: Géron, *Hands-On Machine Learning*, 3rd edition, chapter 15; Hochreiter and Schmidhuber,
# "Long short-term memory", 1997; Cho et al., 2014, for the GRU.
