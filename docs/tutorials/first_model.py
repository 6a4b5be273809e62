# %% [markdown]
# # Train a first classifier
#
# In this tutorial you train a classifier on a folder of photos, save it, use it, and read how good
# it is. It runs offline: the photos are rendered, and the network starts from [weights that ship
# with scenelearn](../explanation/bundled_backbone.py). All outputs were computed when this page was
# built. With [your own photos](#use-your-own-photos) and ImageNet weights,
# expect a much higher accuracy.
#
# ## Prepare the photos
#
# [`sl.sample_scenes`][scenelearn.samples.sample_scenes] renders six classes of scenes as JPEG
# files, in one folder per class. Your own photos need the same layout.

# %%
import tempfile
from pathlib import Path

import scenelearn as sl

work = Path(tempfile.mkdtemp())
folder = sl.sample_scenes(work / "scenes", per_class=120, seed=0)

# %% [markdown]
# [`sl.scan`][scenelearn.data.scan] checks every file. Each one is used, or rejected with a reason.

# %%
photos = sl.scan(folder)
photos

# %% [markdown]
# Look at the photos before you train. Here are four of each class.

# %% tags=["folded"]
import base64
import io

import numpy as np
from IPython.display import HTML
from PIL import Image


def show(files, alt, columns=6):
    """Show photos in a grid."""
    rows = -(-len(files) // columns)
    sheet = Image.new("RGB", (104 * columns - 4, 104 * rows - 4), "white")
    for i, file in enumerate(files):
        row, column = divmod(i, columns)
        with Image.open(file) as photo:
            sheet.paste(photo.resize((100, 100)), (104 * column, 104 * row))
    jpeg = io.BytesIO()
    sheet.save(jpeg, "jpeg", quality=80)
    source = "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
    return HTML(f'<figure><img alt="{alt}" src="{source}"></figure>')


columns = [np.flatnonzero(photos.labels == k)[:4] for k in range(photos.n_classes)]
show(
    [photos.file(i) for i in np.transpose(columns).ravel()],
    alt="Four rows of rendered scenes; columns: " + ", ".join(photos.class_names),
)

# %% [markdown]
# ## Split the photos
#
# [`sl.split`][scenelearn.data.split] assigns each photo to train, validation or test. The
# classifier learns from the training photos, choices are made on the validation photos, and the
# test photos are used once, at the end. The assignment depends on the content of a photo. Two
# copies of a photo are therefore always in the same split, and a photo keeps its split when you add
# others.

# %%
splits = sl.split(photos, seed=0)
splits

# %% [markdown]
# ## Train
#
# [`sl.fit`][scenelearn.finetune.fit] trains within a time budget in minutes. It computes the
# features of each photo with the frozen network, fits a linear probe on them, fine-tunes from
# there, and [interpolates](../explanation/fine_tuning.py) between the two. This tutorial uses the
# small bundled network and small images.

# %%
fit = sl.fit(
    splits,
    backbone="scenelearn_tiny",
    weights="scenelearn",
    image_px=64,
    minutes=0.5,
    seed=0,
)
print(fit)

# %% [markdown]
# This is how the time was spent:

# %%
for phase in fit.phases:
    print(f"{phase.seconds:6.1f} s  {phase.name}: {phase.note}")

# %% [markdown]
# ## Evaluate
#
# The accuracy on the test photos comes with a 95% confidence interval. Few photos give a wide
# interval. Random guessing would be right one time in six.

# %%
fit.evaluation

# %%
accuracy = fit.evaluation.accuracy
print(f"{accuracy:.1%}, 95% confidence interval {accuracy.low:.1%} to {accuracy.high:.1%}")

# %% [markdown]
# ## Save and predict
#
# A saved classifier is one file. It accepts photos of any size and returns the class name with a
# probability.

# %%
fit.save(work / "scenes.keras")
classifier = sl.load(work / "scenes.keras")

step = len(splits.test) // 6
files = [photos.file(i) for i in splits.test[::step][:6]]
for file, prediction in zip(files, classifier.predict(files), strict=True):
    print(f"{file.name:20}  {prediction.label:10} {prediction.probability:.0%}")

# %%
show(files, alt="The photos of these predictions, in the same order")

# %% [markdown]
# ## Write a report
#
# [`sl.report`][scenelearn.reporting.report] writes a self-contained page with the training curves,
# the confusion matrix, per-class metrics, the most confident mistakes with their photos, rejected
# files, and the settings to repeat the run.

# %%
page = sl.report(fit, work / "report")
print(f"{page.name}, {page.stat().st_size / 1000:.0f} kB")

# %% [markdown]
# ## Use your own photos
#
# Put them in one folder per class and leave out the settings of this tutorial. Training then starts
# from ImageNet weights, which Keras downloads once. [How many photos you
# need](../results/accuracy.py#accuracy-by-number-of-photos) was measured:
#
# ```python
# photos = sl.scan("photos/")
# fit = sl.fit(sl.split(photos, seed=0), minutes=5)
# ```
#
# On the [command line](../reference/cli.md), run `scenelearn fit photos/`. If a file was rejected
# or a call failed, see [Errors](../reference/errors.md).
#
# Next: [Clean up a messy folder](messy_folder.py).
