# %% [markdown]
# # How fine-tuning works
#
# [`sl.fit`][scenelearn.finetune.fit] fits a linear probe and fine-tunes from there. This page
# explains each step and the reason for it. [Ablations](../results/accuracy.py#ablations) shows what
# each step contributes.
#
# ## 1. Extract features once
#
# The frozen backbone processes each photo once, and each training photo also mirrored. The
# [features][scenelearn.finetune.extract_features] are cached on disk, keyed by the content of the
# photo and the values of the weights. Later fits reuse them.
#
# ## 2. Fit a linear probe
#
# With fixed features, the best head for a given L2 penalty is the minimum of a convex function. A
# solver finds it in seconds. The penalty is cross-validated on the training photos
# ([`cross_validate_l2`][scenelearn.finetune.cross_validate_l2]). The linear probe is the baseline
# that fine-tuning must improve on.
#
# It is also the better start. A random head would send large random gradients through the backbone
# and destroy pretrained features before the head has learned anything. From a linear probe, the
# first gradients are small and informative.
#
# ## 3. Unfreeze the upper layers
#
# Edges and textures transfer as they are, and the early layers with their large feature maps would
# take most of the time. So training starts at the first layer from which all feature maps are at
# least 16 times smaller than the image (`unfreeze="stride16"`). The layers below need no gradients.
# The exception is `scenelearn_tiny`, whose weights come from synthetic images: all of its layers
# are trained, with a higher learning rate. At 160 pixels:

# %% tags=["folded"]
import scenelearn as sl
from scenelearn import sizing
from scenelearn.finetune._model import freeze_layers


def fractions(name, image_px=160):
    """The fraction of weights that are trained, and of multiply-adds in the frozen layers."""
    features = sl.backbones.build(name, weights=None, image_px=image_px)
    freeze_layers(features, image_px, "stride16")
    trained = {layer.name for layer in features.get_layer("backbone").layers if layer.trainable}
    layers = [layer for layer in sizing.estimate(features).layers if layer.n_parameters]
    first = next(k for k, layer in enumerate(layers) if layer.name.split("/")[-1] in trained)
    n_trained = sum(layer.n_trainable_parameters for layer in layers[first:])
    n_frozen_adds = sum(layer.n_multiply_adds for layer in layers[:first])
    return (
        n_trained / sum(layer.n_parameters for layer in layers),
        n_frozen_adds / sum(layer.n_multiply_adds for layer in layers),
    )


print(f"{'':<20} {'trained weights':>16} {'multiply-adds in frozen layers':>32}")
for name in ("mobilenet_v3_small", "mobilenet_v2_0.35", "mobilenet_v2", "efficientnet_b0"):
    weights, multiply_adds = fractions(name)
    print(f"{name:<20} {weights:>16.0%} {multiply_adds:>32.0%}")

# %% [markdown]
# BatchNormalization keeps its pretrained mean and variance, because a batch of 32 photos estimates
# them poorly. Its scale and offset are trained.
#
# The feature maps of transformers do not get smaller. All their layers are trained, and each
# attention layer closer to the input has 0.75 times the learning rate of the next.
#
# ## 4. Train on smaller images than those of the prediction
#
# Augmentation crops photos and enlarges what is left, so a network is trained on larger objects
# than whole photos show it. Whole photos of more pixels make up for that (FixRes), and training at
# their size would take twice the time per step. So a pretrained network that takes squares of any
# size and is to predict at 224 pixels is trained at 160
# ([`Recipe.train_px`][scenelearn.finetune.Recipe]): at 5/7 of the size, in multiples of 32, but at
# least 160 pixels. Features, linear probe and fine-tuning are at this size, calibration and test at
# that of the prediction. [Accuracy](../results/accuracy.py#backbones) has the accuracies of
# `mobilenet_v3_small` at both sizes.
#
# ## 5. Scale the learning rate and schedule it to end in time
#
# A step of Adam changes each weight by about the learning rate, whatever the size of the weight and
# the number of inputs. One rate is therefore too large for wide layers and for small weights. `fit`
# scales the rate of each kernel channel by the size of its weights and the number of its inputs
# ([`Recipe.scale_lr_by_weights`][scenelearn.finetune.Recipe]). With ImageNet weights, one peak rate
# then suited all networks that we measured.
#
# The learning rate warms up over the first tenth of the steps and decays to 0 along a half cosine.
# With a time budget, the schedule is recomputed after each epoch from the time that epochs take, so
# the rate reaches 0 as the time runs out.
#
# ## 6. Interpolate the weights
#
# With few photos, fine-tuning overfits and forgets some of what the backbone knew. Weights on the
# straight line between the linear probe and the fine-tuned network are often better than both
# (WiSE-FT). `fit` uses a coefficient that depends on the number of photos per class, unless
# validation data significantly favor another one. The linear probe itself is among the candidates.
# Only then are the test photos used, once.
#
# ## 7. Average several networks: soups
#
# After some minutes, more epochs or more pixels bring little: the network has converged. Fine-tuned
# again from the same linear probe, with other augmentation in another order, it converges to a
# different point nearby, and the average of such points is better. With
# [`recipe={"soup": 4}`][scenelearn.finetune.Recipe], `fit` trains four learning rate cycles one
# after the other and averages their final weights. The result is one network, as fast as any other.
#
# The cycles share the time budget. Each has its own warmup, decay and optimizer state. The
# interpolation of step 6 is then between the linear probe and the soup.
# [Backbones](../results/accuracy.py#backbones) shows the accuracy of a soup of four in 15 minutes.
# Each cycle needs enough time: with 100 photos per class and ten epochs per cycle, one cycle of
# four times as many epochs [was better](../results/accuracy.py#ablations).
#
# ## What was tried and left out
#
# Label smoothing, an exponential moving average of the weights, layer-wise learning rate decay of
# convolutional networks, a fixed number of views per photo, training only the layers at least 32
# times smaller than the image, and predictions averaged over mirror images were options of `Recipe`
# once. On [three splits](../results/accuracy.py#ablations), they gained nothing significant, or
# less than CutMix, which takes less code. So they were removed.
#
# References: A. Kumar et al. (2022), *Fine-tuning can distort pretrained features and underperform
# out-of-distribution*, ICLR. M. Wortsman et al. (2022), *Robust fine-tuning of zero-shot models*,
# CVPR. M. Wortsman et al. (2022), *Model soups: averaging weights of multiple fine-tuned models
# improves accuracy without increasing inference time*, ICML. I. Loshchilov, F. Hutter (2017),
# *SGDR: stochastic gradient descent with warm restarts*, ICLR. N. Shazeer, M. Stern (2018),
# *Adafactor: adaptive learning rates with sublinear memory cost*, ICML. H. Touvron et al. (2019),
# *Fixing the train-test resolution discrepancy*, NeurIPS.
