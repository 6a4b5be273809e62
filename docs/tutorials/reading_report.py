# %% [markdown]
# # Read a report
#
# A report answers four questions. How good is the classifier? Where does it fail? How far can you
# trust a prediction? How can you repeat the run? This tutorial fits a linear probe and goes
# through its report; [the gallery](../gallery/reports.py) has whole reports to click through. All
# outputs were computed when this page was built.

# %%
import tempfile
import textwrap
from pathlib import Path

from bs4 import BeautifulSoup

import scenelearn as sl

work = Path(tempfile.mkdtemp())
photos = sl.scan(sl.sample_scenes(work / "scenes", per_class=100, seed=0))
fit = sl.fit(sl.split(photos, seed=0), weights="scenelearn", image_px=64, epochs=0, seed=0)
page = BeautifulSoup(sl.report(fit, work / "report").read_text(), "html.parser")


def excerpt(section, length=420):
    """Print the start of a section of the report."""
    text = " ".join(page.select_one(f"section#{section}").get_text(" ").split())
    print(textwrap.fill(textwrap.shorten(text, length, placeholder=" …"), 90))


# %% [markdown]
# ## How good is the classifier?
#
# The first number is the accuracy on the test photos. **Read the interval, not the number.** If the
# intervals of two classifiers overlap widely, they may be equally good. To find out, compare them
# on the same photos with [`sl.compare`][scenelearn.classify.compare].

# %%
accuracy = fit.evaluation.accuracy
print(f"{accuracy} on {fit.evaluation.n_photos} photos")
width = accuracy.high - accuracy.low
print(f"The interval is {width:.1%} wide. Four times as many photos would about halve it.")

# %% [markdown]
# ## Where does it fail?
#
# **Per-class metrics.** Recall is the fraction of the photos of a class that were recognized.
# Precision is the fraction of the predictions of a class that are correct. High recall with low
# precision means that the classifier predicts the class too often.

# %%
for metrics in sorted(fit.evaluation.per_class, key=lambda metrics: metrics.recall.value):
    print(f"{metrics.label:<10} recall {metrics.recall}, precision {metrics.precision}")

# %% [markdown]
# **Confusion matrix.** Rows are true classes, columns are predictions. In the report, each cell
# opens the photos behind it. The largest off-diagonal cell tells you which class needs more photos,
# or which two classes are really one.

# %%
for true, predicted, n, _ in fit.most_confused()[:3]:
    print(f"{n} photos of {true} were predicted as {predicted}")

# %% [markdown]
# **Slices.** Dark or blurred photos, for example. `Classifier.evaluate` also takes the columns of a
# manifest, such as the camera. A slice is listed if its accuracy is significantly lower, corrected
# for the number of slices tested.

# %%
excerpt("slices")

# %% [markdown]
# **Top mistakes.** Look at the most confident mistakes first. They show what the network pays
# attention to. With real photos, some of them are usually wrong labels.

# %%
excerpt("mistakes")

# %% [markdown]
# ## How far can you trust a prediction?
#
# Of the predictions made with 80% probability, 80% should be correct. The report plots the actual
# fraction. It also states how large the calibration error would be by chance with so few photos;
# smaller values mean nothing.

# %%
excerpt("calibration")

# %% [markdown]
# Each prediction has a `prediction_set`, which contains the true class 95% of the time. The
# classifier abstains unless the set has exactly one member and the photo is not flagged.

# %%
for prediction in fit.predict([photos.file(int(i)) for i in fit.splits.test[:4]]):
    classes = ", ".join(prediction.prediction_set)
    print(f"{prediction.label:<10} {prediction.probability:.0%}  prediction set: {classes}")

# %% [markdown]
# ## How can you repeat the run?
#
# The last section contains the call with all settings, the versions and a fingerprint of the
# photos. `split.csv` has the split and the hash of each photo. `model-card.md` summarizes the
# classifier on one page: intended use, limitations and results. Distribute it with the classifier.

# %%
excerpt("reproduction", 700)
