# %% [markdown]
# # Choose a backbone
#
# **Take the default, `mobilenet_v3_small`, at 160 pixels.** It is among the cheapest there are to
# train, and of the two networks that were given one minute [on real photos](../results/index.py) it
# was the better one on validation photos (the other, `mobilenet_v2_0.35`, with an earlier recipe).
# Change it only for a reason, and then measure:
# [`sl.classify.compare`][scenelearn.classify.compare] says whether the other one is really better.
#
# ## What they cost
#
# Computed when this page is built: a training step on 32 images of 160 pixels with Adam, all layers
# trained, and the largest batch that fits into 8 GiB.

# %%
import scenelearn as sl
from scenelearn import sizing


def network(name):
    """A backbone as `fit` builds it, with random weights."""
    model = sl.backbones.build(name, weights=None, image_px=160)
    model.name = name
    return model


names = (
    "mobilenet_v3_small",
    "mobilenet_v2",
    "mobilenet_v2_0.35",
    "efficientnet_b0",
    "resnet50",
    "scenelearn_tiny",
)
sizing.compare([network(name) for name in names], image_px=160, memory="8 GiB")

# %% [markdown]
# These are sizes on paper; [how sizing counts](../explanation/sizing.py) has the rule. No network
# needs to be built for them: `sizing.compare(["resnet50"])` takes names, and
# `scenelearn size resnet50` says it on the command line.
#
# ## How fast they are
#
# On the processor that [Speed on a CPU](../results/speed.py) names, in batches of 32:

# %%
import json
from pathlib import Path

for row in json.loads(Path("docs/results/speed.json").read_text())["rows"]:
    print(
        f"{row['backbone']:<20} {row['image_px']} px: predicting {row['predict_fast_ms']:6.2f}, "
        f"training {row['train_fast_ms']:6.2f} ms an image"
    )

# %% [markdown]
# ## How good they are
#
# On 6,000 Intel photos, by the minutes that were given, or with the solved head alone; more on
# [the page of results](../results/index.py):

# %%
reached = {}
for name in ("intel", "backbones", "minutes"):
    for run in json.loads(Path(f"docs/results/{name}.json").read_text())["runs"]:
        spent = f"{run['minutes']:g} min" if run["minutes"] else "head alone"
        how = run["what"].rpartition(", ")[0]
        reached.setdefault((how, spent), []).append(run["test"]["value"])
for (how, spent), values in sorted(
    reached.items(), key=lambda item: sum(item[1]) / len(item[1]), reverse=True
):
    mean, splits = sum(values) / len(values), "splits" if len(values) > 1 else "split"
    print(f"{how:<36} {spent:<10} {mean:.1%}, the mean of {len(values)} {splits}")

# %% [markdown]
# ## Reasons to take another one
#
# - **There is time for it**, four minutes for 6,000 photos: `mobilenet_v2`. `backbone="auto"` takes
#   the best of a few that the minutes allow, by timing them on your machine;
#   [`sl.finetune.plan`][scenelearn.finetune.plan] says which.
# - **There is a quarter of an hour**: `mobilenet_v2` as a [soup](../explanation/finetuning.py), the
#   best that we have measured, and no slower in use.
# - **The classes differ in small things** (species, defects): more pixels first, then more width.
# - **You have a GPU**: arithmetic is cheap there. We have not measured how cheap.
# - **No download is possible**: `scenelearn_tiny` has [weights in the
#   package](../explanation/embedded.py). Or bring a [weights file](weights.md).
#
# The call is the same for all of them:
#
# ```python
# fit = sl.fit(splits, backbone="mobilenet_v2", minutes=15, recipe={"soup": 4})
# ```
