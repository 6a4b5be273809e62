# %% [markdown]
# # The data's way
#
# A folder of photos goes in, a classifier and a page about it come out. On the way the data passes
# six rooms, each a package of scenelearn, and what passes between them are small frozen objects.
# The drawing is made from the code when this page is built: the objects are read off the functions'
# signatures, and who uses whom off the imports.

# %% tags=["folded"]
import ast
import inspect
from html import escape
from pathlib import Path

from IPython.display import HTML

import scenelearn as sl

walk = [
    ("data", sl.scan, "finds the photos; every file is used, or refused with a reason"),
    ("data", sl.audit, "looks for copies, wrong labels, blank photos"),
    ("data", sl.split, "gives each photo its side"),
    ("data", sl.data.decode, "decodes each photo once"),
    ("data", sl.data.Batches, "any batch by (seed, epoch, step)"),
    ("augment", sl.augment.draw, "draws what happens to which photo"),
    ("finetune", sl.fit, "features, head, fine-tuning; the best is kept"),
    ("metrics", sl.metrics.evaluate, "accuracy and more, with intervals"),
    ("classify", sl.load, "opens a saved classifier"),
    ("reporting", sl.report, "one page about all of it"),
]


def gives(function):
    """The name of what a function gives: its own, if it is a class."""
    if inspect.isclass(function):
        return function.__name__
    return str(inspect.signature(function).return_annotation).rpartition(".")[2]


def drawing(steps):
    """The steps from top to bottom: room, call, what it gives."""
    high = 46
    parts = []
    for k, (room, function, what) in enumerate(steps):
        y = 10 + k * high
        call = f"{room}.{function.__name__}"
        parts += [
            f'<rect x="10" y="{y}" width="168" height="30" rx="4" fill="none" '
            'stroke="currentColor"/>',
            f'<text x="94" y="{y + 19}" text-anchor="middle" font-family="monospace">{call}</text>',
            f'<text x="192" y="{y + 19}" font-weight="bold">{escape(gives(function))}</text>',
            f'<text x="280" y="{y + 19}">{escape(what)}</text>',
        ]
        if k:
            parts.append(
                f'<path d="M94 {y - 16}v12m-4 -5l4 5l4 -5" fill="none" stroke="currentColor"/>'
            )
    caption = "The way from a folder to a page: " + ", ".join(
        f"{room}.{function.__name__} gives {gives(function)}" for room, function, _ in steps
    )
    return HTML(
        f'<figure><svg viewBox="0 0 700 {high * len(steps)}" role="img" style="max-width:100%" '
        f'font-size="13" fill="currentColor" aria-label="{escape(caption)}">{"".join(parts)}</svg>'
        "<figcaption>Each step, the object that it gives, and what happens there.</figcaption>"
        "</figure>"
    )


drawing(walk)

# %% [markdown]
# ## Who uses whom
#
# Imports run in one direction. So a room can be read, tested and used by itself: `sizing` and
# `evaluate` import no other room, and `data` loads no Keras. A test keeps it so.

# %%
package = Path(sl.__file__).parent
rooms = sorted(path.parent.name for path in package.glob("[!_]*/__init__.py"))


def used_by(room):
    """The rooms whose names a room imports."""
    found = set()
    for path in (package / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scenelearn"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found |= {name.split(".")[1] for name in names}
    return sorted(found & set(rooms) - {room})


for room in sorted(rooms, key=lambda room: (len(used_by(room)), room)):
    print(f"{room:<10} uses {', '.join(used_by(room)) or 'no other room'}")

# %% [markdown]
# ## What is decided where
#
# - **Sides** are decided by the content of a photo and a seed, before anything is decoded. Nothing
#   that comes later can move a photo.
# - **Pixels** are made once and kept: upright, in sRGB, antialiased, as bytes. All that follows
#   sees the same pixels, the test too.
# - **Preprocessing** is the first layer of the network, so it cannot be forgotten when predicting.
# - **Choices** (penalty of the head, solved or fine-tuned, calibration) are made on the validation
#   photos. The test photos are looked at once, at the end.
# - **Trust** (calibration, sets of classes, the flag for strange photos) is learned on
#   validation photos and saved with the classifier.
