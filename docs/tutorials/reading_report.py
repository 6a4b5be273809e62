# %% [markdown]
# # Reading a report
#
# A report answers four questions: how good is the classifier, where does it fail, how far can one
# of its answers be trusted, and how is all of it repeated? Below, a small classifier is trained and
# its report opened part by part. Everything was run when this page was built. The network is the
# small one that comes with scenelearn, so it makes plenty of mistakes to look at.

# %%
import tempfile
import textwrap
from pathlib import Path

from bs4 import BeautifulSoup

import scenelearn as sl

work = Path(tempfile.mkdtemp())
photos = sl.scan(sl.sample_scenes(work / "scenes", per_class=70, seed=5))
fit = sl.fit(
    sl.split(photos, seed=0),
    backbone="scenelearn_tiny",
    weights="scenelearn",
    image_px=48,
    epochs=15,
    seed=0,
)
page = BeautifulSoup(sl.report(fit, work / "report").read_text(), "html.parser")


def words(part, most=420):
    """The first words of a part of the report."""
    text = " ".join(page.select_one(f"section#{part}").get_text(" ").split())
    print(textwrap.fill(textwrap.shorten(text, most, placeholder=" …"), 90))


# %% [markdown]
# ## How good is it?
#
# The first number is the accuracy on the test photos, which nothing has seen before. **Read the
# interval, not the number.** It says between which values the true accuracy lies with 95 %
# confidence. Two classifiers whose intervals overlap widely may be equally good;
# [`sl.classify.compare`][scenelearn.classify.compare] tells, on the same photos.

# %%
accuracy = fit.evaluation.accuracy
print(f"{accuracy} on {fit.evaluation.n_photos} photos")
width = accuracy.high - accuracy.low
print(f"four times as many photos would about halve its width of {width:.1%}")

# %% [markdown]
# ## Where does it fail?
#
# **Class by class.** Recall: of the photos of a class, how many were recognized. Precision: of
# those said to be of a class, how many are. A class with high recall and low precision is one that
# the network takes too much for.

# %%
for score in sorted(fit.evaluation.per_class, key=lambda one: one.recall.value):
    print(f"{score.name:<10} recall {score.recall}, precision {score.precision}")

# %% [markdown]
# **Confusions.** Rows are what photos show, columns what was said. In the report each cell opens
# the photos behind it. The largest one beside the diagonal says what to photograph more of, or
# which two classes are really one.

# %%
import numpy as np

table = np.array(fit.evaluation.confusion)
np.fill_diagonal(table, 0)
row, column = np.unravel_index(table.argmax(), table.shape)
names = photos.class_names
print(f"{table[row, column]} photos of {names[row]} were taken for {names[column]}")

# %% [markdown]
# **Groups.** Dark photos, blurred ones, those of a column of your manifest: a group is named only
# where it does worse than chance explains, after a correction for the number of groups looked at.

# %%
words("groups")

# %% [markdown]
# **The most confident mistakes.** Look at these first. With clean labels they show what the network
# looks at; with real photos, more than one of them is usually a wrong label.

# %%
words("mistakes")

# %% [markdown]
# ## How far can an answer be trusted?
#
# Of answers that are 80 % sure, 80 % should be right. The report draws what really is, and says
# what so few photos would show by chance alone: a difference below that means nothing.

# %%
words("reliability")

# %% [markdown]
# An answer also carries the set of classes that holds the true one for 95 of 100 photos. Where that
# is more than one class, it abstains.

# %%
classifier = fit.classifier
for answer in classifier.predict([photos.file(int(i)) for i in fit.splits.test[:4]]):
    print(f"{answer.label:<10} {answer.probability:.0%}  may be: {', '.join(answer.classes)}")

# %% [markdown]
# ## How is it repeated?
#
# The last part holds the call with every setting, the versions it ran with and a fingerprint of the
# photos; `split.csv` beside the page has each photo's side and hash. `model-card.md` says the same
# in a page of text, to go with the classifier: what it is for, what not, and what it reaches.

# %%
words("repeat", 700)
