# %% [markdown]
# # How fine-tuning works
#
# [`sl.fit`][scenelearn.finetune.fit] solves a head first and fine-tunes from there. This page says
# what each step does, why, and what was left out. Its numbers are computed when the page is built.
# What the steps are worth is
# [measured](../results/index.py#what-each-part-of-fine-tuning-is-worth).
#
# ## 1. Features, once
#
# The frozen backbone sees each photo once, and each training photo mirrored as well. The
# [features][scenelearn.finetune.features] are kept on disk by the content of the photo and the
# values of the weights, so no later fit computes them again.
#
# ## 2. A head that is solved
#
# On fixed features the best head of a given penalty is the minimum of a convex function: it is
# found in seconds, not approached over epochs. How strong the penalty should be is cross-validated
# on the training photos ([`choose`][scenelearn.finetune.choose]). That is the first honest answer,
# and what fine-tuning has to improve on.
#
# A random head would send large and random gradients through the backbone, and spoil what it knows
# before the head has learned anything. From a solved head, the first gradients are small and have
# to do with the photos.
#
# ## 3. The layers with coarse maps train
#
# Edges and textures carry over as they are, and the early layers with their large maps would take
# most of the time. So those layers train from where on all maps are at least 16 times smaller than
# the image; what lies below needs no gradients. (Of `scenelearn_tiny`, whose weights were learned
# from drawn images, all layers train, and by a higher rate.) `recipe={"trained": "coarsest"}` asks
# for 32 times. At 160 pixels:

# %%
import scenelearn as sl
from scenelearn import sizing
from scenelearn.finetune._network import choose_trained


def cut(name, image_px=160):
    """Shares: the weights that train, and the multiply-adds of what lies below them."""
    features = sl.backbones.build(name, weights=None, image_px=image_px)
    choose_trained(features, image_px, "coarse")
    trained = {one.name for one in features.get_layer("backbone").layers if one.trainable}
    rows = [row for row in sizing.estimate(features).rows if row.n_parameters]
    first = next(k for k, row in enumerate(rows) if row.name.split("/")[-1] in trained)
    total = sum(row.n_multiply_adds for row in rows)
    return (
        sum(row.n_trainable for row in rows[first:]) / sum(row.n_parameters for row in rows),
        sum(row.n_multiply_adds for row in rows[:first]) / total,
    )


networks = {
    name: cut(name)
    for name in ("mobilenet_v3_small", "mobilenet_v2_0.35", "mobilenet_v2", "efficientnet_b0")
}
print(f"{'':<20} {'weights that train':>20} {'multiply-adds below them':>26}")
for name, (weights, below) in networks.items():
    print(f"{name:<20} {weights:>20.0%} {below:>26.0%}")

# %% [markdown]
# BatchNormalization keeps the mean and variance that it has stored, as 32 photos of one's own would
# be a poor estimate of them; its scale and offset train.
#
# ## 4. A rate for each kernel, and a course that ends in time
#
# A step of Adam moves each weight by about the learning rate, however large the weight is and
# however many inputs are summed up. So one rate is too much for wide layers and for small weights.
# Here each channel of a kernel has a share of it, by the size of its weights and the number of its
# inputs ([`Recipe.relative_rates`][scenelearn.finetune.Recipe]), and from ImageNet weights one peak
# served all networks that we measured. The rate rises over the first tenth of the course and falls
# to 0 along a half cosine. Where `minutes` decide, the course is planned anew after each epoch, by
# how long it took: the rate comes to 0 just when the time is over.
#
# ## 5. What is kept
#
# Where there are few photos, fine-tuning fits them all and forgets some of what was known before.
# On the straight way between the solved head's network and the fine-tuned one there are often some
# that are better than both. The one that is usually good, by the number of photos a class, is kept,
# unless the validation photos tell another to be better by more than chance; among the choices is
# the head's own network. Only then are the test photos looked at, once.
#
# ## 6. With more time: a soup
#
# More epochs, or more pixels, bring little after some minutes: one run of fine-tuning comes to
# where it can come. But another run from the same head, which sees other views of the photos in
# another order, comes to another place nearby, and between such places there are better ones. With
# [`recipe={"soup": 4}`][scenelearn.finetune.Recipe] a fit makes four runs, one after the other, and
# keeps the mean of the weights that they end with: one network, which answers as fast as any. The
# runs share the time; each has its own warm-up and its own fall of the rate to 0, and an optimizer
# that has forgotten the one before. What is kept is then chosen as in section 5, on the way from
# the head's network to the soup. What a soup of four reached in a quarter of an hour is [in the
# table](../results/index.py#which-network). A run must have had its time first: with 100 photos a
# class and ten epochs a run, one run of four times as many epochs [gained
# more](../results/index.py#what-each-part-of-fine-tuning-is-worth).
#
# ## 7. Seen twice
#
# With `recipe={"mirrored": True}` the classifier answers by the mean of what a photo and its mirror
# image have: of the features, and so of the logits. Nothing in training changes. But from
# calibration on, the network that looks twice is the one that is judged, saved, explained and
# exported, so its probabilities are calibrated as they are. Each answer takes twice the time. It is
# for photos of which the mirror image could be one as well: not for writing.
#
# ## 8. Where views come again, their maps are kept
#
# What lies below the layers that train gives the same maps for the same view of a photo, unless it
# drops out at random (EfficientNet does; on kept maps, only the layers that train do). With
# `augmentation="none"` each photo has one view, and with
# [`Recipe.views`][scenelearn.finetune.Recipe] as many as that says, drawn once and seen in turn.
# Then a fit keeps these maps the first time that it computes them, in a file of the cache that is
# gone when the fit is, and later steps begin there. The network is parted where few numbers pass.
# Whether there is room for the maps changes only the time: on a CPU, what is read is to the bit
# what would be computed. `python -m tests.bench.frozen_maps` measured a training step of the whole
# network, one that begins at kept maps, and the pass that computes these:

# %%
import json
from pathlib import Path

maps = json.loads(Path("docs/results/frozen_maps.json").read_text())
columns = ("layers that train", "a step", "from maps", "times as fast", "pass below", "maps")
print(f"{'':<18} " + " ".join(f"{name:>{max(10, len(name))}}" for name in columns))
for row in maps["rows"]:
    print(
        f"{row['backbone']:<18} {row['trained']:>17} {row['step_ms']:>7.2f} ms "
        f"{row['kept_ms']:>7.2f} ms {row['ratio']:>13.2f} {row['below_ms']:>7.2f} ms "
        f"{row['kept_bytes'] / 1e3:>7.1f} kB"
    )
about = maps["environment"]
print(f"\nof a photo; {maps['image_px']} px, batches of {maps['batch']}")
print(f"{about['cores']} CPU cores, Keras {about['keras']} on JAX {about['jax']}, {about['date']}")

# %% [markdown]
# By default each epoch has new views, and there is nothing to keep. What a few views in place of
# new ones are worth, and the coarsest layers alone, is [measured beside the other
# parts](../results/index.py#what-each-part-of-fine-tuning-is-worth).
#
# References: A. Kumar et al. (2022), *Fine-tuning can distort pretrained features and underperform
# out-of-distribution*, ICLR. M. Wortsman et al. (2022), *Robust fine-tuning of zero-shot models*,
# CVPR. M. Wortsman et al. (2022), *Model soups: averaging weights of multiple fine-tuned models
# improves accuracy without increasing inference time*, ICML. I. Loshchilov, F. Hutter (2017),
# *SGDR: stochastic gradient descent with warm restarts*, ICLR. N. Shazeer, M. Stern (2018),
# *Adafactor: adaptive learning rates with sublinear memory cost*, ICML.
