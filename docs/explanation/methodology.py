# %% [markdown]
# # How results are measured
#
# Every number on this site was computed when the site was built, or read from a file that a
# documented command wrote. These are the files and their commands:

# %% tags=["folded"]
import json
from pathlib import Path


def first_value(data, key):
    """The first string under a key, at any depth."""
    if isinstance(data, dict):
        if isinstance(data.get(key), str):
            return data[key]
        data = list(data.values())
    if isinstance(data, list):
        return next((value for item in data if (value := first_value(item, key))), "")
    return ""


for path in sorted(Path("docs/results").glob("*.json")):
    data = json.loads(path.read_text())
    command = first_value(data, "command").split(" --")[0]
    print(f"{path.name:<27} {first_value(data, 'date')[:10]:<11} {command}")

# %% [markdown]
# ## Accuracy
#
# - **Test photos are used once**, after all choices have been made on validation photos.
# - **Confidence intervals** of accuracies are Wilson intervals at 95%. They cover the uncertainty
#   from the choice of test photos. Their width depends on the number of photos:

# %%
from scenelearn import metrics

for n in (50, 200, 1000, 5000):
    interval = metrics.wilson(round(0.9 * n), n)
    print(f"90% of {n:>5,} photos: {interval.low:.1%} to {interval.high:.1%}")

# %% [markdown]
# - **Comparisons of two classifiers** are paired: on the same photos, with McNemar's exact test and
#   a confidence interval for the difference. Overlapping intervals of the two accuracies would say
#   less.
# - **Seeds** have their own splits, which share photos. They are not independent repetitions, so we
#   report each one and not only the mean.
# - **The calibration error** comes with its noise floor, the error that a perfectly calibrated
#   classifier would show on so many photos. Smaller values mean nothing.
# - **Slices** are tested with Holm's correction: among many slices, one looks bad by chance.
#
# ## Time
#
# - Other libraries run alternately in the same session on the same machine, each in its own
#   process. Compare the **ratios**. Milliseconds depend on the machine.
# - The first call is excluded if it compiles, and reported separately if it matters.
# - CPU time is reported next to wall-clock time where other processes ran on the machine.
#
# ## Memory
#
# - The memory plan is XLA's own, for compiled predict and train steps, from `memory_analysis()`.
# - The memory of a process is its peak resident memory, with one process per step.
#
# ## Not measured
#
# GPUs, photos other than the Intel scenes and synthetic images, and human accuracy. The Intel
# scenes have 150×150 pixels and some wrong labels, so no classifier reaches 100%.
#
# Sources: E. B. Wilson (1927), Probable inference, the law of succession, and statistical
# inference, JASA 22; Q. McNemar (1947), Note on the sampling error of the difference between
# correlated proportions or percentages, Psychometrika 12; S. Holm (1979), A simple sequentially
# rejective multiple test procedure, Scandinavian Journal of Statistics 6.
