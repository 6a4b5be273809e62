# %% [markdown]
# # Accuracy
#
# Test accuracy on the Intel scene photos: six classes, 150×150 pixels, 6,000 photos. Each seed has
# its own split: about 15% of the photos for validation, 15% for test, the rest for training. Test
# photos are used once, at the end of a fit. Backbone, image size and recipe were chosen on
# validation photos.
#
# Every number is read from a file in `docs/results/` that [the commands
# below](#reproduce-these-results) wrote. Each file records seeds, versions, device and date.
#
# ## Accuracy by time budget
#
# The linear probe comes first; fine-tuning uses the rest of the budget. Each point is one fit, with
# its 95% confidence interval. Times cover the whole fit, from decoding to the test.
#
# The networks were measured on different machines, some twice as fast as others. So compare times
# within a network only.

# %% tags=["folded"]
import itertools
import json
from pathlib import Path

from IPython.display import HTML

from docs import _figures
from docs._measured import html_table


def table(columns, rows, caption):
    """A plain HTML table; cells are escaped."""
    return HTML(html_table(columns, rows, caption))


def percent(low, value, high):
    """An accuracy with its 95% confidence interval."""
    return f"{100 * value:.1f}% ({100 * low:.1f} to {100 * high:.1f})"


def read(name):
    """The contents of a file in docs/results/, or None if it was not measured yet."""
    path = Path(f"docs/results/{name}.json")
    return json.loads(path.read_text()) if path.exists() else None


intel, backbones = read("intel"), read("backbones") or {"runs": []}
HTML(_figures.accuracy())

# %% [markdown]
# ## Backbones
#
# The networks of `keras.applications` whose weights were at hand, and the bundled one. Seeds have
# their own splits, so a mean over three seeds and a mean over five are not on the same photos.
# "deq8" marks 8-bit weights that were converted back to 32 bits, with BatchNormalization folded in.

# %% tags=["folded"]
by_backbone = {}
for run in [*intel["runs"], *backbones["runs"]]:
    network = run["name"].rpartition(", ")[0].replace(" at 160 px", "")
    by_minutes = by_backbone.setdefault((network, run["settings"]["weights"]), {})
    by_minutes.setdefault(run["minutes"], []).append(run)


def mean(runs, quantity):
    """The mean of a quantity over runs."""
    return sum(quantity(run) for run in runs) / len(runs)


rows = []
for (network, weights), by_minutes in by_backbone.items():
    for minutes, runs in by_minutes.items():
        accuracy = mean(runs, lambda run: run["test"]["value"])
        each = ", ".join(f"{100 * run['test']['value']:.1f}" for run in runs)
        budget = f"{minutes:g} min" if minutes else "linear probe only"
        seconds = f"{mean(runs, lambda run: run['seconds']):.0f}"
        name = weights.replace("_", "_\u200b")  # a place to break the line
        rows.append((accuracy, (network, name, budget, f"{accuracy:.1%}", each, seconds)))
table(
    ("Network", "Weights", "Time budget", "Test accuracy, mean", "Each seed, %", "Seconds, mean"),
    [row for _, row in sorted(rows, reverse=True)],
    "Best first, at 160 px unless another size is given; with about 900 test photos, the 95% "
    "confidence interval of one seed is about ±2 points",
)

# %% [markdown]
# For a single run, more minutes stop helping, and so do more pixels in training: `mobilenet_v2` at
# 192 and 224 px was trained at these sizes. More pixels in prediction alone do help:
# `mobilenet_v3_small` at 224 px was trained at 160 px. So does a soup, the mean of the weights of
# four runs: see [How fine-tuning works](../explanation/fine_tuning.py). Validation accuracy agrees.
# (Validation photos selected only the interpolation coefficient.)

# %% tags=["folded"]
for (network, _), by_minutes in by_backbone.items():
    if network.partition(" ")[0].partition(",")[0] in ("mobilenet_v2", "mobilenet_v3_small"):
        for minutes, runs in sorted(by_minutes.items(), key=lambda item: item[0] or 0):
            budget = f"{minutes:g} min" if minutes else "linear probe"
            validation, test = (
                mean(runs, lambda run, split=split: run[split]["value"])
                for split in ("validation", "test")
            )
            print(f"{network:<36} {budget:<13} validation {validation:.1%}, test {test:.1%}")

# %% [markdown]
# ## The default backbone, run by run
#
# An interval covers the uncertainty from the choice of test photos. Rows with the same seed share
# their test photos. Seeds share photos, too, so they are not independent repetitions.

# %% tags=["folded"]
settings = intel["runs"][0]["settings"]
table(
    ("Seed", "Run", "Test accuracy (95% CI)", "Test photos", "Calibration error", "Seconds"),
    [
        (
            run["seed"],
            run["name"],
            percent(run["test"]["low"], run["test"]["value"], run["test"]["high"]),
            f"{run['test']['n']:,}",
            f"{run['test_calibration_error']:.3f}",
            f"{run['seconds']:.0f}",
        )
        for run in intel["runs"]
    ],
    f"{intel['photos']['n']:,} photos, {settings['backbone']}",
)

# %% tags=["folded"]
by_name = {}
for run in intel["runs"]:
    by_name.setdefault(run["name"], []).append(run["test"]["value"])
for name, values in by_name.items():
    print(f"{name}: mean of {len(values)} seeds {sum(values) / len(values):.1%}")

# %% tags=["folded"]
environment = intel["runs"][0]["environment"]
table(("Item", "Value"), sorted(environment.items()), "Environment of the first of these runs")

# %% [markdown]
# ## Accuracy by number of photos
#
# In three splits, each class keeps only this many training photos. Validation and test photos stay
# the same. The augmentation policy is "standard".

# %% tags=["folded"]
sizes = [run for run in read("augmentation_accuracy")["runs"] if run["policy"] == "standard"]
by_size, points = {}, {}
for run in sizes:
    by_size.setdefault(run["per_class"], []).append(run["test"]["value"])
    name = f"seed {run['seed']}"
    points.setdefault(name, []).append(_figures.accuracy_point(run, run["per_class"]))
means = ", ".join(
    f"{size} photos {sum(values) / len(values):.1%}" for size, values in sorted(by_size.items())
)
HTML(
    _figures.plot(
        points,
        _figures.number_axis("training photos per class", sorted(by_size), logarithmic=True),
        _figures.percent_axis("test accuracy", points),
        f"{sizes[0]['settings']['backbone']}: test accuracy over training photos per class, every "
        f"seed with its 95% confidence interval. Means: {means}.",
    )
)

# %% [markdown]
# Is each step significant? McNemar's test on the same test photos answers that. (A photo that two
# seeds test counts twice, so p is slightly too small.)

# %% tags=["folded"]
from scenelearn import metrics

fits = {(run["per_class"], run["seed"]): run for run in sizes}
for fewer, more in itertools.pairwise(sorted(by_size)):
    only_more = only_fewer = 0
    for (size, seed), run in fits.items():
        if size == more and (fewer, seed) in fits:
            pairs = list(zip(run["test_correct"], fits[fewer, seed]["test_correct"], strict=True))
            only_more += pairs.count(("1", "0"))
            only_fewer += pairs.count(("0", "1"))
    p = metrics.mcnemar(only_more, only_fewer)
    verdict = "significant" if p < 0.05 else "not significant"
    print(f"{more} instead of {fewer} photos per class: {only_more} test photos only correct with")
    print(f"    more photos, {only_fewer} only with fewer; {verdict} (p = {p:.2g})")

# %% [markdown]
# ## Few photos: comparison with Keras' recipe
#
# 10, 25 or 100 photos per class, including validation. scenelearn is `sl.fit` with two minutes.
# Keras' recipe follows its transfer learning guide: 20 epochs with a frozen backbone, then 10
# epochs of fine-tuning the whole network with a small learning rate, on TensorFlow. Both use the
# same photos and the same weights of `mobilenet_v2_0.35`, and the same 900 test photos per seed.
# They ran alternately, but seconds depend on the load of the machine.

# %% tags=["folded"]
few = read("few_photos") or {"runs": []}
by_recipe = {}
for run in few["runs"]:
    by_recipe.setdefault((run["per_class"], run["name"]), []).append(run)


def summary(runs):
    """The mean accuracy, the accuracy of each seed, and the mean seconds."""
    values = [run["test"]["value"] for run in runs]
    each = ", ".join(f"{100 * value:.1f}" for value in values)
    seconds = mean(runs, lambda run: run["seconds"])
    return f"{100 * sum(values) / len(values):.1f}%", each, f"{seconds:.0f}"


table(
    ("Photos per class", "Recipe", "Test accuracy, mean", "Each seed, %", "Seconds, mean"),
    [(*key, *summary(runs)) for key, runs in sorted(by_recipe.items())],
    f"{len({run['seed'] for run in few['runs']})} seeds; with 900 test photos, the 95% confidence "
    "interval of one seed is about ±2.5 points",
)

# %% [markdown]
# With few photos, fine-tuning overfits and forgets. `fit` therefore interpolates between the linear
# probe and the fine-tuned weights. The coefficient depends on the number of photos per class,
# unless validation data significantly favor another: see
# [`FitResult.interpolation`][scenelearn.finetune.FitResult].
#
# ## Ablations
#
# The defaults of `fit`, with one setting changed at a time, on three splits with a fixed number of
# training photos per class. Gains are paired on the same test photos. If the interval of a gain
# contains 0, it is not significant.

# %% tags=["folded"]
ablations = read("ablations")


def verdict_of(row):
    """Whether a gain is significant."""
    if row["low"] <= 0 <= row["high"]:
        return "not significant"
    return "better" if row["low"] > 0 else "worse"


n_comparisons = len(ablations["comparisons"]) - 1
table(
    ("Change", "Test accuracy", "Gain in points (95% CI)", "Verdict"),
    [
        (
            row["name"],
            f"{row['test']:.1%}",
            f"{100 * row['test_gain']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})",
            verdict_of(row),
        )
        if row["name"] != "defaults"
        else (row["name"], f"{row['test']:.1%}", "", "")
        for row in ablations["comparisons"]
    ],
    f"{ablations['backbone']}, {ablations['per_class']} photos per class, "
    f"{ablations['epochs']} epochs; of {n_comparisons} intervals, about {0.05 * n_comparisons:.1f} "
    "exclude 0 by chance",
)

# %% [markdown]
# ## Other libraries
#
# Other libraries by the calls that their documentation shows, on the split of seed 0, from the same
# weights of EfficientNet-Lite0 at 160 px. A run ends before training if its features of 16 photos
# differ from those of Keras by more than 0.0001 of the largest feature. AutoGluon and scenelearn
# have a time limit; the others count epochs, as few as their recipe allows. Minutes count from the
# first photo read to the last test prediction, CPU minutes and memory are those of all processes.
# KerasHub, fastai and AutoGluon shared the machine with work of the lowest priority, so their
# minutes are somewhat too long. The others' fine-tuning is made for more epochs or a GPU, and is
# likely to gain from them. One seed does not rank recipes whose intervals overlap. Not measured:
# networks whose weights cannot be had offline, among them the defaults of AutoGluon and fastai, and
# KerasHub's presets.

# %% tags=["folded"]
HTML(_figures.peers())

# %% [markdown]
# ## Other recipes
#
# Accuracies of other recipes on the Intel photos, some of them published by others, with what each
# number leaves out. None has a confidence interval, so this table does not show that one recipe is
# better.

# %% tags=["folded"]
others = read("other_recipes")
table(
    ("Recipe", "Accuracy", "Evaluated on", "Source", "Limitations"),
    [
        (
            row["recipe"],
            f"{row['accuracy']:.1%}",
            row["evaluated_on"],
            row["source"],
            row["limitations"],
        )
        for row in others["rows"]
    ],
    others["note"],
)

# %% [markdown]
# ## Calibration, prediction sets and OOD detection
#
# Calibration, prediction sets and the out-of-distribution (OOD) detector are fitted on the
# validation photos of each seed. This table evaluates them on the test photos and on synthetic
# images that are not scenes. The noise floor is the calibration error that a perfectly calibrated
# classifier would show on so many photos by chance. The OOD detector was chosen on six kinds of
# synthetic images, with `mobilenet_v2_0.35`. Four kinds (fractals, mosaics, sheet music and stars)
# were held out.

# %% tags=["folded"]
uncertainty = read("uncertainty")
HELD_OUT = ("fractal", "mosaic", "music", "stars")


def cells(run):
    """The table row of a run."""
    sets = run["prediction_sets"]["0.95"]
    flagged = run["synthetic_flagged"]
    lowest = [
        min(fraction for kind, fraction in flagged.items() if (kind in HELD_OUT) is held_out)
        for held_out in (False, True)
    ]
    return (
        run["seed"],
        f"{run['calibration_error']:.3f} ({run['calibration_noise_floor']:.3f})",
        percent(*(sets["coverage"][key] for key in ("low", "value", "high"))),
        f"{sets['mean_size']:.2f}",
        f"{run['answer_rate']['value']:.1%}",
        f"{run['selective_accuracy']['value']:.1%}",
        f"{run['test_flagged']['value']:.1%}",
        *(f"{fraction:.0%}" for fraction in lowest),
    )


pooled = uncertainty["pooled"]
table(
    (
        "Seed",
        "Calibration error (noise floor)",
        "Coverage of 95% prediction sets",
        "Classes per set",
        "Answered (not abstained)",
        "Accuracy on these",
        "Test photos flagged OOD",
        "Synthetic images flagged, lowest of six kinds",
        "Lowest of four held-out kinds",
    ),
    [cells(run) for run in uncertainty["runs"]],
    f"Linear probe of {uncertainty['backbone']}, {uncertainty['environment']['date']}. On "
    f"all {pooled['n']:,} test photos pooled, the calibration error is "
    f"{pooled['calibration_error']:.3f} and the noise floor "
    f"{pooled['calibration_noise_floor']:.3f}",
)

# %% [markdown]
# ## Sample scenes
#
# The scenes that `sl.sample_scenes` renders cannot be classified by color alone. A color histogram
# and a linear model on the pixels are far below a convolutional network trained from scratch:

# %% tags=["folded"]
scenes = read("sample_scenes")
rows = [
    (name, percent(scenes[key]["interval"][0], scenes[key]["accuracy"], scenes[key]["interval"][1]))
    for name, key in (
        ("logistic regression on a color histogram", "color_histogram"),
        ("logistic regression on pixels", "linear_pixels"),
    )
]
rows += [
    (
        f"convolutional network from scratch, seed {run['seed']}",
        percent(run["interval"][0], run["accuracy"], run["interval"][1]),
    )
    for run in scenes["network"]["runs"]
]
table(
    ("Classifier", "Test accuracy (95% CI)"),
    rows,
    f"{scenes['n_train']:,} training and {scenes['n_test']:,} test scenes, seed "
    f"{scenes['scene_seed']}, {scenes['date']}",
)

# %% [markdown]
# ## Reproduce these results
#
# FOLDER holds the photos in class folders: 1,000 of each class of `seg_train` in "Intel Image
# Classification", a dataset on Kaggle, of 150×150 pixels. Each file of results has their
# fingerprint. FILE is an ImageNet weights file of that network.
# The default backbone, uncertainty and sample scenes:
#
# ```text
# nox -s results -- --photos FOLDER --weights FILE
# ```
#
# Other backbones; each line ends in the arguments for one row of the table:
#
# ```text
# backbones="nox -s backbones -- --photos FOLDER"
# $backbones --weights mobilenet_v2=FILE
# $backbones --weights mobilenet_v2=FILE --minutes 15 --recipe soup=4 --no-linear-probe
# $backbones --weights mobilenet_v2=FILE --minutes 10 --image-px 192 --recipe train_px=192 \
#     --no-linear-probe
# $backbones --weights mobilenet_v2=FILE --minutes 20 --image-px 224 \
#     --recipe cutmix_alpha=1 train_px=224 --no-linear-probe
# $backbones --weights mobilenet_v3_small=FILE --minutes 4.5 --image-px 224 --no-linear-probe
# $backbones --weights mobilenet_v2_0.35=FILE --minutes 1 4.5 --seeds 0 1 2
# $backbones --weights mobilenet_0.25=FILE --minutes --seeds 0 1 2
# $backbones --weights scenelearn_tiny=scenelearn --minutes
# ```
#
# Accuracy by number of photos, the comparisons with Keras' recipe and with other libraries, and the
# ablations:
#
# ```text
# nox -s augmentation -- --photos FOLDER
# nox -s few_photos -- --photos FOLDER --weights FILE
# nox -s peers -- --photos FOLDER --backbone efficientnet_lite0.keras
# nox -s ablations -- --photos FOLDER --weights FILE
# ```
