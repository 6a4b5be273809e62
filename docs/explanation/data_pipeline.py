# %% [markdown]
# # The data pipeline
#
# A folder of photos goes in; a classifier and a report come out. Each step is a function that
# returns a small immutable object. This figure is generated from the signatures of the functions.

# %% tags=["folded"]
import ast
import inspect
from html import escape
from pathlib import Path

from IPython.display import HTML

import scenelearn as sl

pipeline = [
    ("data", sl.scan, "find the photos; use or reject every file"),
    ("data", sl.audit, "find duplicates, label conflicts, blank photos"),
    ("data", sl.split, "assign photos to train, validation and test"),
    ("data", sl.data.decode, "decode each photo once"),
    ("data", sl.data.Batches, "any batch by (seed, epoch, step)"),
    ("augment", sl.augment.sample, "sample augmentation parameters"),
    ("finetune", sl.fit, "features, linear probe, fine-tuning"),
    ("metrics", sl.metrics.evaluate, "accuracy and more, with intervals"),
    ("classify", sl.load, "load a saved classifier"),
    ("reporting", sl.report, "write the report"),
]


def return_type(function):
    """The name of the type that a function returns; a class returns itself."""
    if inspect.isclass(function):
        return function.__name__
    return str(inspect.signature(function).return_annotation).rpartition(".")[2]


def figure(steps):
    """Draw the steps from top to bottom: function, return type, purpose."""
    height = 46
    parts = []
    for k, (package, function, purpose) in enumerate(steps):
        y = 10 + k * height
        call = f"{package}.{function.__name__}"
        parts += [
            f'<rect x="10" y="{y}" width="168" height="30" rx="4" fill="none" '
            'stroke="currentColor"/>',
            f'<text x="94" y="{y + 19}" text-anchor="middle" font-family="monospace">{call}</text>',
            f'<text x="192" y="{y + 19}" font-weight="bold">{escape(return_type(function))}</text>',
            f'<text x="280" y="{y + 19}">{escape(purpose)}</text>',
        ]
        if k:
            parts.append(
                f'<path d="M94 {y - 16}v12m-4 -5l4 5l4 -5" fill="none" stroke="currentColor"/>'
            )
    caption = "The pipeline from a folder to a report: " + ", ".join(
        f"{package}.{function.__name__} returns {return_type(function)}"
        for package, function, _ in steps
    )
    return HTML(
        f'<figure><svg viewBox="0 0 700 {height * len(steps)}" role="img" style="max-width:100%" '
        f'font-size="13" fill="currentColor" aria-label="{escape(caption)}">{"".join(parts)}</svg>'
        "<figcaption>Each step, the object that it returns, and its purpose.</figcaption></figure>"
    )


figure(pipeline)

# %% [markdown]
# ## Where each decision is made
#
# - **Splits** depend on the content of a photo and a seed, before any decoding. A photo keeps its
#   split when you add others, and copies of a file are always in the same split. With
#   `groups=audit.groups`, so are photos of the same picture that were re-encoded, resized,
#   mirrored, rotated or cropped by a few percent. The price: each class gets the requested fraction
#   only up to chance (of 1,000 photos, 150 ± 11 test photos).
# - **Pixels** are decoded once and cached: upright, in sRGB, antialiased, as uint8. Training and
#   testing see the same pixels.
# - **Preprocessing** is the first layer of the network. Predictions cannot forget it.
# - **Choices** are made on validation photos: how far to go from the linear probe to the fine-tuned
#   weights, and the calibration. The L2 penalty of the linear probe is cross-validated on training
#   photos. Test photos are used once, at the end.
# - **Uncertainty** (calibration, prediction sets, OOD detection) is fitted on validation photos and
#   saved with the classifier.
#
# ## Caching
#
# Decoded photos, the features of pretrained networks, checkpoints and compiled programs are cached
# in `~/.cache/scenelearn`. Set `SCENELEARN_CACHE` to use another folder, and `SCENELEARN_CACHE_GIB`
# to limit each part, such as the pixels at one image size.
#
# ## Package dependencies
#
# Imports go in one direction, so each package can be read, tested and used on its own. `sizing`,
# `metrics` and `samples` import no other package, and `data` does not load Keras. A test enforces
# this.

# %% tags=["folded"]
root = Path(sl.__file__).parent
packages = sorted(path.parent.name for path in root.glob("[!_]*/__init__.py"))


def imported_by(package):
    """The packages that a package imports."""
    imported = set()
    for path in (root / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("scenelearn"):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                imported |= {name.split(".")[1] for name in names}
    return sorted(imported & set(packages) - {package})


imports = {package: imported_by(package) for package in packages}
for package in sorted(packages, key=lambda package: len(imports[package])):
    print(f"{package:<10} imports {', '.join(imports[package]) or 'no other package'}")
