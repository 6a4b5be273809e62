# %% [markdown]
# # Choose a backbone
#
# **Start with the default, `mobilenet_v3_small` at 160 pixels.** It is one of the cheapest networks
# to train. With 4.5 minutes it was [more accurate](../results/accuracy.py#backbones) than
# `mobilenet_v2_0.35`, which was tested with an earlier recipe. If you change it, measure whether
# the change helps: [`sl.compare`][scenelearn.classify.compare] tests two classifiers on the same
# photos.
#
# Reasons to choose something else:
#
# - **A prediction may take twice as long:** `image_px=224`. The network is still trained at 160
#   pixels, in the same time, and was [more accurate](../results/accuracy.py#backbones).
# - **You have four minutes or more** for 6,000 photos: `mobilenet_v2`.
# - **You have 15 minutes:** `mobilenet_v2` as a [soup](../explanation/fine_tuning.py), the most
#   accurate network of `keras.applications` that we measured. It predicts as fast as a single
#   network.
# - **You do not want to decide:** `backbone="auto"` takes the most accurate of [a few
#   networks](#automatic-choice) that fit into `minutes`, timed on your machine, and into free
#   memory. [`sl.plan`][scenelearn.finetune.plan] shows the choice.
# - **The classes differ in small details** (species, defects): more pixels first (`image_px`, and
#   `recipe={"train_px": …}` to train on them, too), then a wider network.
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
# ## Networks compared

# %% tags=["folded"]
from IPython.display import HTML

from docs import _figures
from scenelearn import backbones, sizing

NAMES = (
    "mobilenet_v3_small",
    "mobilenet_v2",
    "mobilenet_v2_0.35",
    "mobilenet_0.25",
    "scenelearn_tiny",
    "efficientnet_b0",
    "efficientnet_v2_b0",
    "resnet50",
    "convnext_tiny",
)
sizes = {}
for name in NAMES:
    network = backbones.build(name, weights=None, image_px=160)
    estimate = sizing.estimate(network, batch_size=32, optimizer="adam")
    sizes[name] = estimate.n_parameters, estimate.training_bytes
HTML(_figures.networks(sizes))

# %% tags=["folded"]
HTML(_figures.accuracy_by_time())

# %% [markdown]
# Select a heading to sort by it. `sizing.compare` also takes your own models; on the command line,
# it is `scenelearn size mobilenet_v2 resnet50`. See [Results](../results/index.md) for intervals
# and budgets, and [How sizing works](../explanation/sizing.py) for the estimates.
#
# ## Automatic choice
#
# `backbone="auto"` ranks them by their top-1 accuracy on ImageNet. The three that we measured on
# Intel photos have the same order there. It takes the last one in this table for which the features
# and four epochs of all photos fit into `minutes`, and a training step into free memory.

# %% tags=["folded"]
HTML(_figures.candidates())
