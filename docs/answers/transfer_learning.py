# %% [markdown]
# # Transfer learning on a large set of photos
#
# The assignment asks for four steps: photos with at least 100 per class; a split; an input pipeline
# with preprocessing and augmentation; and fine-tuning, evaluated once on unseen photos. This page
# runs all four, offline, on rendered photos with the [bundled
# backbone](../explanation/bundled_backbone.py).

# %% [markdown]
# ## a. Photos
#
# Photos are in one folder per class. [`sl.scan`][scenelearn.data.scan] uses or rejects every file.

# %%
import tempfile
from pathlib import Path

import scenelearn as sl

work = Path(tempfile.mkdtemp())
photos = sl.scan(sl.sample_scenes(work / "scenes", per_class=100, seed=0))
photos

# %% [markdown]
# Before splitting, check for duplicates, conflicting labels and blank photos:

# %%
audit = sl.audit(photos)
print(audit)

# %% [markdown]
# ## b. Split
#
# [`sl.split`][scenelearn.data.split] assigns the photos of each class to train, validation and
# test, and keeps duplicates together. The network learns from training photos, choices are made on
# validation photos, and test photos are used once.

# %%
splits = sl.split(photos, seed=0, groups=audit.groups, quarantine=audit.quarantine)
splits

# %% [markdown]
# ## c. Input pipeline
#
# Each photo is decoded once: upright by its EXIF orientation, in sRGB, center-cropped to a square,
# antialiased, as uint8. A batch is a function of (seed, epoch, step): every epoch has a new order,
# the same on every machine.

# %%
from scenelearn.data import Batches, decode

pixels = decode(photos, 64)
train = Batches(pixels=pixels, labels=photos.labels, indices=splits.train, batch_size=32, seed=0)
images, labels, indices = train.batch(epoch=1, step=0)
print(images.shape, images.dtype, labels.shape, f"{len(train)} batches per epoch")

# %% [markdown]
# **Augmentation** changes each training photo differently in each epoch, in ways that suit scenes:
# horizontal flips but no vertical ones, crops, small rotations, changes of brightness. Parameters
# are sampled first and then applied in a single resampling:

# %%
from scenelearn import augment

parameters = augment.sample("standard", seed=0, n=indices, epoch=1)
augmented = augment.apply(images, parameters)
print(augmented.shape)
print("first photo:", *parameters.caption(0).split(", "), sep="\n  ")

# %%
augment.preview(photos, "standard", n=5, rows=3, image_px=96)

# %% [markdown]
# **Preprocessing** is part of the network. Its first layers scale uint8 pixels to the range of the
# pretrained weights, so a saved classifier takes plain images.

# %%
from scenelearn import backbones

network = backbones.build("scenelearn_tiny", weights="scenelearn", image_px=64)
print(network.input.shape, "→", network.output.shape)
for layer in network.layers:
    print(f"{layer.name:<12} {type(layer).__name__}")

# %% [markdown]
# ## d. Fine-tuning
#
# [`sl.fit`][scenelearn.finetune.fit] includes step c. It runs the frozen network once on every
# photo, fits a linear probe on the features, fine-tunes from there, and interpolates between the
# two.

# %%
fit = sl.fit(
    splits, backbone="scenelearn_tiny", weights="scenelearn", image_px=64, epochs=8, seed=0
)
print(fit)

# %% [markdown]
# The result on the test photos, with 95% confidence intervals:

# %%
fit.evaluation

# %% [markdown]
# ## Checks
#
# No photo is in two splits, duplicates share a split, every class has enough photos, and the saved
# classifier predicts the same:

# %%
import numpy as np

parts = splits.train, splits.validation, splits.test
assert sum(map(len, parts)) == len(set(np.concatenate(parts))) <= len(photos.paths)
for group in set(audit.groups):
    assert sum(bool(np.any(audit.groups[part] == group)) for part in parts) <= 1
assert min(np.bincount(photos.labels)) >= 100

fit.save(work / "scenes.keras")
some = [photos.file(i) for i in splits.test[:8]]
before, after = fit.classifier.predict(some), sl.load(work / "scenes.keras").predict(some)
assert [p.label for p in before] == [p.label for p in after]
assert np.allclose([p.probability for p in before], [p.probability for p in after], atol=1e-6)

# %% [markdown]
# The same steps on 6,000 real photos with ImageNet weights, `sl.fit(splits, minutes=4.5)`, are in
# [Results](../results/accuracy.py), by time budget and next to the linear probe alone.

# %% tags=["answer"]
import json

from IPython.display import Markdown

probe = fit.history[0].validation_accuracy
real = json.loads(Path("docs/results/intel.json").read_text())
by_time = [
    [run["test"]["value"] for run in real["runs"] if run["minutes"] == minutes]
    for minutes in (None, 1, 4.5)
]
probed, *tuned = (f"{sum(values) / len(values):.1%}" for values in by_time)
Markdown(
    f"""
| Step | Result |
|---|---|
| a. Photos | **{len(photos.paths):,}** in {photos.n_classes} classes, \
{min(np.bincount(photos.labels))} or more per class |
| b. Split | **{len(splits.train)}** train, **{len(splits.validation)}** validation, \
**{len(splits.test)}** test |
| c. Pipeline | decoded to 64 × 64 × 3, batches of 32, augmented; pixels scaled in the network |
| d. Test accuracy | **{fit.evaluation.accuracy}**, {fit.kept}, in {fit.seconds:.0f} seconds |

The brackets hold the 95% confidence interval. On validation photos, the linear probe alone has
{probe:.1%}. On {real["photos"]["n"]:,} [real photos](../results/accuracy.py) with ImageNet weights:
{probed} with the linear probe, {tuned[0]} if the whole fit may take one minute, and {tuned[1]} with
4.5 minutes (means over seeds).
"""
)

# %% [markdown]
# Sources: Géron, *Hands-On Machine Learning*, 3rd edition, chapter 14, "Pretrained models for
# transfer learning"; Kumar et al., "Fine-tuning can distort pretrained features and underperform
# out-of-distribution", ICLR 2022.
