# %% [markdown]
# # Gallery of reports
#
# What [a report](../tutorials/reading_report.py) looks like for good data, few photos, wrong
# labels, leaks between splits, and an unlike test set. Each frame is a whole report to scroll and
# click through, made by the lines above it from rendered scenes. All fits are linear probes on the
# small bundled network, to be fast; your own need only `minutes`.

# %% tags=["folded"]
import os
import random
import shutil
import tempfile
from pathlib import Path

from IPython.display import HTML
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

import scenelearn as sl

out = Path(os.environ.get("SCENELEARN_GALLERY", "gallery")).absolute()
os.chdir(tempfile.mkdtemp())
FAST = {"weights": "scenelearn", "image_px": 64, "epochs": 0, "seed": 0}
scenes = sl.sample_scenes("scenes", per_class=100, seed=0)


def show(page, title):
    """Publish a report with the site, and show it in a frame."""
    name = page.parent.name
    (out / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(page, out / name / "index.html")
    return HTML(
        f'<iframe src="{name}/index.html" title="{title}" loading="lazy"></iframe>'
        f'<p><a href="{name}/index.html">Open this report</a></p>'
    )


# %% [markdown]
# ## Good data
#
# 100 photos per class. **Look at** the interval around the accuracy, the weakest class, and the
# next steps.

# %%
photos = sl.scan("scenes")
fit = sl.fit(sl.split(photos, seed=0), **FAST)
show(sl.report(fit, "good"), "Report of a fit on good data")

# %% [markdown]
# ## 40 photos per class
#
# **Look at** the width of the intervals: with so few test photos, the report asks for more of them
# before anything else can be concluded.

# %% tags=["folded"]
for path in sorted(Path("scenes").rglob("*_00[0-3]*.jpg")):
    target = Path("few", path.parent.name, path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)

# %%
photos = sl.scan("few")
fit = sl.fit(sl.split(photos, seed=0), **FAST)
show(sl.report(fit, "few-photos"), "Report of a fit on 40 photos per class")

# %% [markdown]
# ## Wrong labels
#
# One photo in twenty was moved into the folder of another class. **Look at** the suggested classes
# in the audit: it finds label issues from the features, before any training. Select the photos to
# exclude, and save the quarantine.

# %% tags=["folded"]
shutil.copytree("scenes", "mislabeled")
paths = sorted(Path("mislabeled").rglob("*.jpg"))
names = sorted({path.parent.name for path in paths})
for path in random.Random(0).sample(paths, len(paths) // 20):
    other = random.Random(path.name).choice([name for name in names if name != path.parent.name])
    path.rename(Path("mislabeled", other, f"from {path.name}"))

# %%
photos = sl.scan("mislabeled")
features = sl.finetune.extract_features(photos, weights="scenelearn", image_px=64)
show(sl.report(sl.audit(photos, features=features), "wrong-labels"), "Audit of wrong labels")

# %% [markdown]
# ## Leaks between splits
#
# A third of the photos were mirrored, resized and saved again, and split without the groups of the
# audit. **Look at** the first of the next steps, and at the pairs below "Rejected files": the same
# pictures are in training and in test, so this accuracy is too high.

# %% tags=["folded"]
shutil.copytree("scenes", "copies")
for path in sorted(Path("copies").rglob("*.jpg"))[::3]:
    with Image.open(path) as picture:
        ImageOps.mirror(picture).resize((120, 120)).save(path.with_stem(f"{path.stem} copy"))

# %%
photos = sl.scan("copies")
fit = sl.fit(sl.split(photos, seed=0), **FAST)
show(sl.report(fit, "leaks", audit=sl.audit(photos)), "Report of a fit with leaks")

# %% [markdown]
# ## An out-of-distribution test set
#
# The test photos were darkened and blurred, as if taken by another camera. **Look at** the
# difference between validation and test accuracy, at the calibration, and at how many photos are
# flagged as out of distribution.

# %% tags=["folded"]
for i, path in enumerate(sorted(Path("scenes").rglob("*.jpg"))):
    split = ("train", "train", "train", "valid", "test")[i % 5]
    target = Path("unlike", split, path.parent.name, path.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)
    if split == "test":
        with Image.open(path) as picture:
            dark = ImageEnhance.Brightness(picture).enhance(0.3)
        dark.filter(ImageFilter.GaussianBlur(4)).save(target)

# %%
photos = sl.scan("unlike")
fit = sl.fit(sl.split(photos, seed=0), **FAST)
show(sl.report(fit, "unlike"), "Report of a fit with an unlike test set")
