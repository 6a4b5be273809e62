# %% [markdown]
# # What is measured, and how
#
# Each number on this site was computed when the site was built, or was read from a file that a
# named command wrote. These are the files, with what wrote them:

# %%
import json
from pathlib import Path


def found(value, key):
    """The first value of a key, however deep it lies."""
    if isinstance(value, dict):
        if isinstance(value.get(key), str):
            return value[key]
        value = list(value.values())
    if isinstance(value, list):
        return next((got for one in value if (got := found(one, key))), "")
    return ""


for path in sorted(Path("docs/results").glob("*.json")):
    about = json.loads(path.read_text())
    command = found(about, "command").split(" --")[0]
    print(f"{path.name:<20} {found(about, 'date')[:10]:<11} {command}")

# %% [markdown]
# ## Accuracy
#
# - **Test photos are used once**, after everything has been chosen on validation photos.
# - **The interval** of a share is Wilson's, at 95 %: it says how far chance in the choice of the
#   test photos can carry the share. How narrow it is follows from the number of photos alone:

# %%
from scenelearn import metrics

for n in (50, 200, 1000, 5000):
    share = metrics.wilson(round(0.9 * n), n)
    print(f"90 % of {n:>5,} photos: {share.low:.1%} to {share.high:.1%}")

# %% [markdown]
# - **Two classifiers** are compared on the same photos, by those on which only one of them is right
#   (McNemar's exact test, and an interval for the difference). Overlapping intervals of the two
#   would say less.
# - **Seeds** that draw splits of their own share photos, so several seeds are no independent
#   repetitions: we show each, and a mean only beside them.
# - **Calibration error** is given with the value that perfectly calibrated answers would show on so
#   many photos. Below that it means nothing.
# - **Many groups** looked at make one of them look bad by chance: p-values are corrected (Holm).
#
# ## Time
#
# - Other libraries run in the same session on the same machine, in turns, each in a process of its
#   own, and the **ratio** counts. Milliseconds of another machine are another number.
# - The first call is left out where it compiles, and shown by itself where it matters.
# - Where other work ran meanwhile, processor time stands beside that of the clock.
#
# ## Memory
#
# - The plan is XLA's own, of compiled predict and train steps, as `memory_analysis()` gives it.
# - What a process takes is its peak resident memory, each step in a process of its own.
#
# ## What is not measured
#
# GPUs; photos other than the Intel scenes and drawn ones; people's judgement of the photos. The
# Intel scenes have 150×150 pixels and some wrong labels, so nothing reaches 100 % on them.
#
# Sources: E. B. Wilson (1927), Probable inference, the law of succession, and statistical
# inference, JASA 22; Q. McNemar (1947), Note on the sampling error of the difference between
# correlated proportions or percentages, Psychometrika 12; S. Holm (1979), A simple sequentially
# rejective multiple test procedure, Scandinavian Journal of Statistics 6.
