# %% [markdown]
# # The bundled backbone
#
# `weights="scenelearn"` selects `scenelearn_tiny`, a network with 0.4 million parameters whose
# weights ship with the package. No download is needed. The weights were trained on synthetic images
# only. No photo and no other model was involved, so the license of scenelearn is the only one that
# applies.
#
# ```python
# fit = sl.fit(splits, weights="scenelearn")
# ```
#
# ImageNet weights are far better and remain the default. [Accuracy](#accuracy) compares the two.
#
# ## Training data
#
# Hundreds of synthetic classes, each defined by a seed. Half are layouts: arrangements of shapes in
# front of a ground and a sky. The others are textures (noise spectra, waves, walls, cells, rings,
# spots), attractors of affine maps, and Julia sets. Half of the classes have their own colors; the
# others can be recognized only by shape. Illumination, exposure, sharpness and noise vary between
# images. Here are four images of each of twelve classes:

# %% tags=["folded"]
import json
from pathlib import Path

import numpy as np
from IPython.display import HTML

picture = json.loads(Path("docs/results/pretrain_classes.json").read_text())
HTML(
    '<figure><img alt="Four rows of three classes, four small synthetic images of each. '
    f'The kinds, row by row: {", ".join(picture["kinds"])}." '
    f'src="data:image/jpeg;base64,{picture["jpeg_base64"]}"></figure>'
)

# %% [markdown]
# The generators and classes are independent of `sl.sample_scenes`: they share no code. An image is
# a function of (seed, class, index).
#
# ## Training
#
# The network was trained to classify these images: cross-entropy with label smoothing, AdamW with
# cosine decay, and crops, small rotations and color changes as augmentation. BatchNormalization
# uses groups of 16 images. `nox -s pretrain` repeats the training, resumes after an interruption,
# and wrote these figures:

# %% tags=["folded"]
pretrain = json.loads(Path("docs/results/pretrain.json").read_text())
store, config = pretrain["store"], pretrain["config"]
print(f"{store['n_classes']} classes of {store['per_class']} images, {store['px']} px")
print(f"{pretrain['images_seen']:,} images seen at {config['image_px']} px", end=", ")
print(f"{pretrain['steps']:,} steps, {pretrain['seconds'] / 60:.0f} minutes")
print(f"{pretrain['parameters']:,} parameters, {pretrain['weights_bytes']:,} bytes\n")
print(f"{'step':>6} {'loss':>7} {'accuracy on held-out images':>28}")
for row in pretrain["history"]:
    print(f"{row['step']:6,} {row['loss']:7.3f} {row['held_out_accuracy']:28.1%}")
print("\nat the end, by kind of class:")
for kind, accuracy in pretrain["held_out_accuracy_by_kind"].items():
    print(f"  {kind:<10} {accuracy:.1%}")

# %% [markdown]
# Weights are stored in half precision, those of BatchNormalization in single precision.
#
# ## Ablations
#
# One setting changed at a time, in short runs at 64 px with 384 features. ("defaults" is this short
# run, not the long run above.) They see a sixth of its images; the 96 px run sees half as many, in
# about the same time. Each is evaluated by the cross-validated accuracy of linear probes on Intel
# photos that are in no test split below, so choices made here do not bias the results there.
# Written by `nox -s pretrain_ablations -- --photos FOLDER`.

# %% tags=["folded"]
ablations = json.loads(Path("docs/results/pretrain_ablations.json").read_text())
sizes = list(ablations["rows"][0]["cross_validated"])
print(f"{'':<46} " + " ".join(f"{'at ' + px + ' px':>24}" for px in sizes))
for row in ablations["rows"]:
    cells = [
        f"{result['value']:.1%} ({result['low']:.1%} to {result['high']:.1%})"
        for result in (row["cross_validated"][px] for px in sizes)
    ]
    print(f"{row['name']:<46} " + " ".join(f"{cell:>24}" for cell in cells))
print("\nnot run yet:", *(ablations["not_run"] or ["none"]), sep="\n  ")

# %% [markdown]
# "Every image its own class" needs no labels: the network learns to recognize each image under
# augmentation (A. Dosovitskiy et al. 2014, *Discriminative unsupervised feature learning with
# exemplar convolutional neural networks*). Each row is a single run, so differences of a point are
# not significant. The number of features, 768, was chosen by this table. The image size, 96 px, was
# not: there is no visible difference, and it was a guess for the longer run.
#
# ## Accuracy
#
# Linear probes on the six classes of the Intel photos: the same network with random weights, the
# bundled weights, and the default backbone with ImageNet weights. Each seed has its own split. The
# image size was chosen among 128, 160 and 192 px on validation photos. For 160 px, the default of
# `fit`, see [Backbones](../results/accuracy.py#backbones). Written by `nox -s bundled_backbone`.

# %% tags=["folded"]
from scipy.special import stdtrit


def mean_of(values):
    """A mean in percent with its 95% confidence interval over seeds (Student's t)."""
    if len(values) == 1:
        return f"{100 * values[0]:5.1f}"
    mean, n = np.mean(values), len(values)
    margin = stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / np.sqrt(n)
    return f"{100 * mean:5.1f} ({100 * (mean - margin):.1f} to {100 * (mean + margin):.1f})"


results = json.loads(Path("docs/results/bundled_backbone.json").read_text())
accuracies = {}
for row in results["rows"]:
    values = accuracies[row["name"]] = [run["test"]["value"] for run in row["runs"]]
    each = ", ".join(f"{100 * value:.1f}" for value in values)
    print(f"{row['name']:<10} {row['image_px']:4} px: test accuracy in %: {mean_of(values)}")
    print(f"{'':<19} each seed {each}")
gain = np.subtract(accuracies["pretrained"], accuracies["random"])
print(f"\ngain of pretrained over random: {mean_of(gain)} points")
print("(each seed has an uncertainty of about ±2 points from its test photos alone)")

# %% [markdown]
# The splits of different seeds share photos, so the intervals are slightly too narrow.
#
# The next tables show fine-tuning. Training starts from the bundled weights with 25 epochs, or from
# random weights with 25 and, because these need longer, 100 epochs. The first table uses Intel
# photos at 96 px, by training photos per class. The second uses sample scenes at 64 px, by scenes
# per class, 70% of them for training.


# %% tags=["folded"]
def compare(runs, heading):
    """Print mean accuracies by number of photos, and the gain within each seed."""
    print(f"{heading:<16} {'':<24} {'seeds':>5} {'accuracy, %':>22} {'gain of pretrained':>22}")
    for size in sorted({run["per_class"] for run in runs}):
        by_name = {}
        for run in runs:
            if run["per_class"] == size:
                by_name.setdefault(run["name"], {})[run["seed"]] = run["test"]["value"]
        pretrained = by_name.get("pretrained", {})
        for name, label in (
            ("random", "random, 25 epochs"),
            ("longer", "random, 100 epochs"),
            ("pretrained", "pretrained, 25 epochs"),
        ):
            values = by_name.get(name, {})
            seeds = sorted(values.keys() & pretrained.keys())
            if not seeds:
                print(f"{size:>16} {label:<24} not run")
                continue
            line = f"{size:>16} {label:<24} {len(seeds):>5} "
            line += f"{mean_of([values[seed] for seed in seeds]):>22}"
            if name != "pretrained":
                gains = [pretrained[seed] - values[seed] for seed in seeds]
                line += f" {mean_of(gains):>22}"
            print(line)
    print()


compare(results["fits"], "photos per class")
compare(results["scenes"], "scenes per class")

# %% [markdown]
# ## Limitations
#
# - The network has never seen a photo. It knows edges, textures and arrangements, not objects. It
#   recognizes a dog by its fur and its outline.
# - It was trained at 96 px and is more accurate on larger images. It was not tested on mixed
#   collections with many sizes and subjects.
# - Each ablation is a single training run, which says little about small differences.
# - If you can download ImageNet weights, use them: see [Train
#   offline](../how-to/offline_weights.md).
#
# References: H. Kataoka et al. (2020), *Pre-training without natural images*, ACCV. M. Baradad et
# al. (2021), *Learning to see by looking at noise*, NeurIPS.
