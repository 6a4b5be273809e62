# %% [markdown]
# # A first model
#
# From a folder of photos to a classifier, and to a page that shows how good it is. Every number
# and picture below was made by this code when the page was built. The photos are drawn by
# scenelearn and the network starts from [weights that come with it](../explanation/embedded.py), so
# that all of it runs offline in about two minutes. With [photos of your own](#your-own-photos) and
# ImageNet weights you get far more.
#
# ## The photos
#
# [`sl.sample_scenes`][scenelearn.samples.sample_scenes] draws six classes of scenes as JPEG files,
# one folder a class: the layout that your own photos need as well.

# %%
import tempfile
from pathlib import Path

import scenelearn as sl

work = Path(tempfile.mkdtemp())
folder = sl.sample_scenes(work / "scenes", per_class=120, seed=0)

# %% [markdown]
# [`sl.scan`][scenelearn.data.scan] accounts for every file that it finds: it is used, or it is
# refused with a reason.

# %%
photos = sl.scan(folder)
photos

# %% [markdown]
# Look at your photos before you train on them. Here are four of each class.

# %%
import base64
import io

import numpy as np
from IPython.display import HTML
from PIL import Image


def show(files, alt, columns=6):
    """The photos side by side, row by row."""
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
    alt="Four rows of drawn scenes; columns: " + ", ".join(photos.class_names),
)

# %% [markdown]
# ## Three sides
#
# [`sl.split`][scenelearn.data.split] gives each photo its side. The classifier learns from the
# training photos, choices are made on the validation photos, and the test photos are used once, at
# the end. The side follows from the photo's content, so two copies of a photo are always on the
# same side, and a photo keeps its side when you add others.

# %%
splits = sl.split(photos, seed=0)
splits

# %% [markdown]
# ## The fit
#
# [`sl.fit`][scenelearn.finetune.fit] works within a budget of minutes. It computes what the frozen
# network sees in each photo, solves a head on that, fine-tunes the whole from there, and keeps
# what does best on the validation photos. The small network that comes with scenelearn, and small
# images, are enough to see all of it happen.

# %%
fit = sl.fit(
    splits,
    backbone="scenelearn_tiny",
    weights="scenelearn",
    image_px=64,
    minutes=1.5,
    seed=0,
)
print(fit)

# %% [markdown]
# Where the time went:

# %%
for phase in fit.phases:
    print(f"{phase.seconds:6.1f} s  {phase.name}: {phase.note}")

# %% [markdown]
# ## How good is it?
#
# The accuracy on the test photos comes with the interval in which the true one lies with 95 %
# confidence. Few photos make a wide interval. Guessing would reach one in six.

# %%
fit.evaluation

# %%
low, high = fit.evaluation.accuracy.low, fit.evaluation.accuracy.high
print(f"between {low:.1%} and {high:.1%}")

# %% [markdown]
# ## Use it
#
# A saved classifier is one file. It takes photos as they are, whatever their size, and gives the
# name of the class with a probability.

# %%
fit.save(work / "scenes.keras")
classifier = sl.load(work / "scenes.keras")

step = len(splits.test) // 6
some = [photos.file(i) for i in splits.test[::step][:6]]
for file, prediction in zip(some, classifier.predict(some), strict=True):
    print(f"{file.name:20}  {prediction.label:10} {prediction.probability:.0%}")

# %%
show(some, alt="The photos of these predictions, in the same order")

# %% [markdown]
# ## The report
#
# [`sl.report`][scenelearn.reporting.report] writes one self-contained page: the curves of the fit,
# the confusion matrix, every class, the most confident mistakes with their photos, what was
# refused and why, and how to repeat the run.

# %%
page = sl.report(fit, work / "report")
print(f"{page.name}, {page.stat().st_size / 1000:.0f} kB")

# %% [markdown]
# ## Your own photos
#
# Put them in one folder a class and leave the settings of this page out. The network then starts
# from ImageNet weights, which Keras downloads once, and a few hundred photos are enough:
#
# ```python
# photos = sl.scan("photos/")
# fit = sl.fit(sl.split(photos, seed=0), minutes=5)
# ```
#
# On the command line that is `scenelearn fit photos/`; see the
# [command line](../reference/cli.md). Something was refused or went wrong?
# [Errors](../reference/errors.md) says what each one means.
