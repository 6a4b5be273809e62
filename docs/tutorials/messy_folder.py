# %% [markdown]
# # Clean up a messy folder
#
# Real folders contain text files named `.jpg`, incomplete downloads, and the same picture twice,
# sometimes in the wrong class. Each of these makes a classifier worse, or makes it look better than
# it is. In this tutorial you create such a folder and clean it up step by step. The photos are
# rendered. All outputs were computed when this page was built.
#
# ## Create the mess

# %%
import tempfile
from pathlib import Path

from PIL import Image, ImageOps

import scenelearn as sl

work = Path(tempfile.mkdtemp())
folder = sl.sample_scenes(work / "photos", per_class=60, seed=0)

sea, street = folder / "sea", folder / "street"
(sea / "notes.jpg").write_text("Remember to sort these.")  # not an image
(sea / "late.jpg").write_bytes((sea / "sea_0001.jpg").read_bytes()[:900])  # truncated
(sea / "copy of 2.jpg").write_bytes((sea / "sea_0002.jpg").read_bytes())  # an exact duplicate
with Image.open(sea / "sea_0003.jpg") as photo:  # a near duplicate: mirrored and smaller
    ImageOps.mirror(photo).resize((120, 120)).save(sea / "mirrored.jpg", quality=70)
with Image.open(sea / "sea_0004.jpg") as photo:  # the same picture in another class
    photo.save(street / "at the shore.jpg", quality=80)
Image.new("RGB", (150, 150), "gray").save(street / "lens cap.jpg")  # blank

# %% [markdown]
# ## Scan: use or reject every file
#
# [`sl.scan`][scenelearn.data.scan] opens each file. Files that it cannot use are rejected, with a
# reason from a fixed list. None is skipped silently.

# %%
photos = sl.scan(folder)
print(photos)
for rejected in photos.rejected:
    print(rejected)

# %% [markdown]
# ## Audit: find problems among the usable photos
#
# [`sl.audit`][scenelearn.data.audit] compares the pictures. It finds exact duplicates, and near
# duplicates that were mirrored, resized or saved again.

# %%
audit = sl.audit(photos)
print(audit)

# %% [markdown]
# The audit suggests two remedies. Photos of the same picture belong in **the same split**;
# otherwise the test rewards memorization. And some photos belong in **no split**: a picture in two
# classes, because nobody knows which one is right, and blank photos.

# %%
print(*audit.quarantine, sep="\n")

# %% [markdown]
# `sl.report(audit, "audit/")` writes a page that shows these photos. Select those to exclude, and
# save the list as `quarantine.json`. Or decide photo by photo, by
# [`scenelearn clean`](../how-to/clean.md).
#
# ## Split with groups and quarantine

# %%
splits = sl.split(photos, seed=0, groups=audit.groups, quarantine=audit.quarantine)
print(splits)

split_of = {int(i): name for name in ("train", "validation", "test") for i in getattr(splits, name)}
for group in audit.near_duplicates + audit.exact_duplicates:
    names = {split_of.get(i, "quarantine") for i in group}
    print(" and ".join(photos.paths[i] for i in group), "→", *names)

# %% [markdown]
# ## Fit and report
#
# The bundled network and small images keep this page fast. Leave these settings out for your own
# photos.

# %%
fit = sl.fit(splits, weights="scenelearn", image_px=64, epochs=0, seed=0)
print(fit.evaluation.accuracy, "on", fit.evaluation.n_photos, "test photos")
page = sl.report(fit, work / "report")
print(*sorted(path.name for path in page.parent.iterdir()))

# %% [markdown]
# The report lists the rejected files, so readers know what the numbers are based on. `split.csv`
# reproduces the split. To interpret the report, continue with [Read a report](reading_report.py).
#
# The same steps on the command line:
#
# ```sh
# scenelearn audit photos/ --out audit/
# scenelearn fit photos/ --quarantine audit/quarantine.json --out run/
# ```
