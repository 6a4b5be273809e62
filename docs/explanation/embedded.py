# %% [markdown]
# # The embedded backbone
#
# `scenelearn_tiny` with `weights="scenelearn"` is transfer learning with no download: a network of
# a third of a million parameters whose weights lie in the package. They were learned from drawn
# images alone. No photo and no other model's weights had a part in it, so no licence but
# scenelearn's own rides along.
#
# ```python
# fit = sl.fit(splits, weights="scenelearn", image_px=128)
# ```
#
# For photos of your own, weights from ImageNet are far better where they can be had. They stay the
# default; how much better is [measured below](#what-it-can-do).
#
# ## What it learned from
#
# Some hundred classes, each defined by a seed. Half of them are layouts: shapes in an order, before
# a ground and a sky. The others are textures (noise by its spectrum, waves, walls, cells, rings,
# spots), attractors of affine maps, and Julia sets. A class has its own colours or, in every second
# one, none, so that only shape tells it. Light, exposure, sharpness and noise differ from image to
# image. Here are four images of each of twelve classes:

# %%
import base64
import io
import json
from pathlib import Path

import numpy as np
from IPython.display import HTML
from PIL import Image

from tests.bench.pretrain import _kinds

drawn = [np.concatenate(_kinds.images(0, label, range(4), 72), 1) for label in range(12)]
rows = [np.concatenate(drawn[first : first + 3], 1) for first in (0, 3, 6, 9)]
picture = io.BytesIO()
Image.fromarray(np.concatenate(rows)).save(picture, "jpeg", quality=85)
source = "data:image/jpeg;base64," + base64.b64encode(picture.getvalue()).decode()
kinds = ", ".join(_kinds.kind_of(label) for label in range(12))
HTML(
    '<figure><img alt="Four rows of three classes, four small drawn images of each. '
    f'The kinds, row by row: {kinds}." src="{source}"></figure>'
)

# %% [markdown]
# These are other generators and other classes than those of `sl.sample_scenes`: nothing of that
# code is used. An image is a function of (seed, class, index).
#
# ## How it learned
#
# By telling the classes apart: cross-entropy with smoothed labels, AdamW with a half cosine, images
# cropped, turned a little, and changed in their colours. `nox -s pretrain` repeats it, goes on
# where it was cut off, and wrote this:

# %%
pretrain = json.loads(Path("docs/results/pretrain.json").read_text())
store, lesson = pretrain["store"], pretrain["lesson"]
print(f"{store['n_classes']} classes of {store['per_class']} images, {store['px']} px")
print(f"{pretrain['images_seen']:,} images seen at {lesson['image_px']} px", end=", ")
print(f"{pretrain['steps']:,} steps, {pretrain['seconds'] / 60:.0f} minutes")
print(f"{pretrain['parameters']:,} parameters, {pretrain['weights_bytes']:,} bytes\n")
print(f"{'step':>6} {'loss':>7} {'held-out images told right':>28}")
for row in pretrain["history"]:
    print(f"{row['step']:6,} {row['loss']:7.3f} {row['held_out_accuracy']:28.1%}")
print("\nat the end, by kind of class:")
for kind, right in pretrain["held_out_accuracy_by_kind"].items():
    print(f"  {kind:<10} {right:.1%}")

# %% [markdown]
# That was a short run, on two cores that had other work to do; by default the command goes on for
# many times as many images:

# %%
from tests.bench.pretrain.__main__ import planned

share = pretrain["images_seen"] / planned()
print(f"{share:.0%} of the images of a run of full length")

# %% [markdown]
# The weights are kept in half precision (those of BatchNormalization in single).
#
# ## What it can do
#
# The Intel photos, six classes: a head solved on the frozen features, and the same network with
# random weights beside it. Last the default of `sl.fit`, from ImageNet. Each seed has its own
# split; the image size was chosen on validation photos. Written by `nox -s embedded`.

# %%
embedded = json.loads(Path("docs/results/embedded.json").read_text())
print(f"{'weights':<12} {'px':>4} {'seed':>5}  test photos")
for row in embedded["rows"]:
    for run in row["runs"]:
        test = run["test"]
        share = f"{test['value']:.1%} ({test['low']:.1%} to {test['high']:.1%})"
        print(f"{row['what']:<12} {row['image_px']:4} {run['seed']:5}  {share}")

# %% [markdown]
# Sample scenes, fine-tuned for 25 epochs at 64 px:

# %%
print(f"{'a class':>8} {'seed':>5} {'weights':<12}  test scenes")
for run in embedded.get("scenes", []):
    test = run["test"]
    share = f"{test['value']:.1%} ({test['low']:.1%} to {test['high']:.1%})"
    print(f"{run['per_class']:8} {run['seed']:5} {run['what']:<12}  {share}, {run['kept']}")

# %% [markdown]
# ## What it cannot do
#
# - It has never seen a photo: it knows edges, textures and arrangements, not things. A dog is to it
#   what its fur and its outline are.
# - It was trained at 64 px. Of 96 and 128 px the larger did better on validation photos; more was
#   not tried.
# - What it learned from was not compared with other drawings, nor telling classes apart with other
#   ways to learn. Two seeds of splits and one of training say little about small differences.
# - Where you can download weights from ImageNet, do: see [offline weights](../how-to/weights.md).
#
# References: H. Kataoka et al. (2020), *Pre-training without natural images*, ACCV. M. Baradad et
# al. (2021), *Learning to see by looking at noise*, NeurIPS.
