# %% [markdown]
# # Choose a backbone
#
# **Start with the default, `mobilenet_v3_small` at 160 pixels.** It is one of the cheapest networks
# to train, and the better of the two that were tested [with one minute on real
# photos](../results/accuracy.py). (The other, `mobilenet_v2_0.35`, was tested with an earlier
# recipe.) If you change it, measure whether the change helps:
# [`sl.compare`][scenelearn.classify.compare] tests two classifiers on the same photos.
#
# Reasons to choose another one:
#
# - **You have four minutes or more** for 6,000 photos: `mobilenet_v2`.
# - **You have 15 minutes:** `mobilenet_v2` as a [soup](../explanation/fine_tuning.py), the most
#   accurate that we measured. It predicts as fast as a single network.
# - **You do not want to decide:** `backbone="auto"` takes the most accurate of a few networks that
#   fit into `minutes`, timed on your machine. [`sl.plan`][scenelearn.finetune.plan] shows the
#   choice.
# - **The classes differ in small details** (species, defects): more pixels first (`image_px`), then
#   a wider network.
# - **You have a network of your own,** or want one of KerasHub, such as DINOv2 or a ViT: [pass
#   it](own_backbone.md).
# - **You have a GPU:** a larger network. We have not measured any.
# - **You cannot download weights:** [`scenelearn_tiny`](../explanation/bundled_backbone.py), or a
#   [weights file](offline_weights.md).
#
# ```python
# fit = sl.fit(splits, backbone="mobilenet_v2", minutes=15, recipe={"soup": 4})
# ```
#
# ## Cost
#
# A training step on 32 images of 160 pixels with Adam, with all layers trained, and the largest
# batch that fits into 8 GiB:

# %%
import scenelearn as sl
from scenelearn import sizing


def network(name):
    """Build a backbone as `fit` does, with random weights."""
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
# These are estimates; see [How sizing works](../explanation/sizing.py). Names work as well as
# models: `sizing.compare(["resnet50"])`, or `scenelearn size resnet50` on the command line.
#
# ## Speed
#
# In batches of 32, on the CPU of [Speed on a CPU](../results/speed.py):

# %% tags=["folded"]
import json
from pathlib import Path

print(f"{'ms per image':<20} {'':>6} {'predict':>8} {'train':>8}")
for row in json.loads(Path("docs/results/speed.json").read_text())["rows"]:
    times = f"{row['predict_fast_ms']:8.2f} {row['train_fast_ms']:8.2f}"
    print(f"{row['backbone']:<20} {row['image_px']} px {times}")

# %% [markdown]
# ## Accuracy
#
# On 6,000 Intel photos, by time budget. [Results](../results/accuracy.py) has the details.

# %% tags=["folded"]
accuracies = {}
for name in ("intel", "backbones", "minutes"):
    for run in json.loads(Path(f"docs/results/{name}.json").read_text())["runs"]:
        budget = f"{run['minutes']:g} min" if run["minutes"] else "linear probe"
        network_name = run["name"].rpartition(", ")[0]
        accuracies.setdefault((network_name, budget), []).append(run["test"]["value"])
for (network_name, budget), values in sorted(
    accuracies.items(), key=lambda item: sum(item[1]) / len(item[1]), reverse=True
):
    mean, splits = sum(values) / len(values), "splits" if len(values) > 1 else "split"
    print(f"{network_name:<38} {budget:<13} {mean:.1%}, mean of {len(values)} {splits}")
