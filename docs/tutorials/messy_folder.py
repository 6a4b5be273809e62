# %% [markdown]
# # From a messy folder to a report
#
# Real folders are untidy: text files that call themselves photos, downloads that were cut short,
# the same picture twice, once under the wrong name. Each of these makes a classifier worse, or
# makes it look better than it is. Here we make such a mess on purpose and clean up step by step.
# Everything below was run when this page was built; the photos are drawn by scenelearn.
#
# ## The mess

# %%
import tempfile
from pathlib import Path

from PIL import Image, ImageOps

import scenelearn as sl

work = Path(tempfile.mkdtemp())
folder = sl.sample_scenes(work / "photos", per_class=60, seed=7)

sea, street = folder / "sea", folder / "street"
(sea / "notes.jpg").write_text("Remember to sort these.")  # no photo at all
(sea / "late.jpg").write_bytes((sea / "sea_0001.jpg").read_bytes()[:900])  # cut short
(sea / "copy of 2.jpg").write_bytes((sea / "sea_0002.jpg").read_bytes())  # the same file
with Image.open(sea / "sea_0003.jpg") as photo:  # the same picture, mirrored and smaller
    ImageOps.mirror(photo).resize((120, 120)).save(sea / "mirrored.jpg", quality=70)
with Image.open(sea / "sea_0004.jpg") as photo:  # the same picture under another class
    photo.save(street / "at the shore.jpg", quality=80)
Image.new("RGB", (150, 150), "gray").save(street / "lens cap.jpg")  # nothing to see

# %% [markdown]
# ## Scan: every file is accounted for
#
# [`sl.scan`][scenelearn.data.scan] opens each file. What it cannot use it refuses, with a reason
# from a closed list, and nothing is passed over in silence.

# %%
photos = sl.scan(folder)
print(photos)
for refused in photos.refused:
    print(refused)

# %% [markdown]
# ## Audit: what is wrong with those that open
#
# [`sl.audit`][scenelearn.data.audit] compares the pictures. It finds copies that are equal to the
# byte, and such that were mirrored, made smaller or saved anew.

# %%
audit = sl.audit(photos)
print(audit)

# %% [markdown]
# Two answers follow from it. Photos that show the same picture belong on **one side** of the split:
# otherwise the classifier is asked in the test what it has learned by heart. And some photos should
# be on **no side**: a picture that lies under two classes (nobody knows which one is right), and a
# blank one.

# %%
print(*audit.quarantine, sep="\n")

# %% [markdown]
# `sl.report(audit, "audit/")` writes a page with the photos themselves, where you tick what should
# go and save the list as `quarantine.json`.
#
# ## Split, with both in mind

# %%
splits = sl.split(photos, seed=0, groups=audit.groups, quarantine=audit.quarantine)
print(splits)

side = {int(i): name for name in ("train", "validation", "test") for i in getattr(splits, name)}
for group in audit.alike + audit.copies:
    print(" and ".join(photos.paths[i] for i in group), "→", *{side.get(i, "none") for i in group})

# %% [markdown]
# ## Fit and report
#
# The small network that comes with scenelearn, and small images, so that this page is built
# quickly: expect little of its accuracy. With your own photos leave these settings out.

# %%
fit = sl.fit(
    splits, backbone="scenelearn_tiny", weights="scenelearn", image_px=48, epochs=12, seed=0
)
print(fit.evaluation.accuracy, "on", fit.evaluation.n_photos, "test photos")
page = sl.report(fit, work / "report")
print(*sorted(path.name for path in page.parent.iterdir()))

# %% [markdown]
# The report lists what was refused, so that whoever reads it knows what the numbers rest on, and
# `split.csv` repeats the run photo by photo. How to read it is the [next
# tutorial](reading_report.py).
#
# On the command line the same way is:
#
# ```sh
# scenelearn audit photos/ --out audit/
# scenelearn fit photos/ --quarantine audit/quarantine.json --out run/
# ```
