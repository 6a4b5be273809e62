# %% [markdown]
# # What it reaches
#
# The numbers on this page are read, when the page is built, from JSON files that a command of the
# repository wrote: `nox -s results -- --photos FOLDER --weights FILE`. Each file holds the seeds,
# versions, device and date of its run.
#
# ## Real photos
#
# The Intel scene photos: six classes, 150×150 pixels. Each seed draws a split of its own, with
# about 15 % of the photos for validation and as many for the test, and trains on the rest. The
# test photos are judged once, at the end of each fit. The network, its image size and the recipe
# of fine-tuning were chosen on validation photos.

# %% tags=["folded"]
import html
import itertools
import json
import math
from pathlib import Path

from IPython.display import HTML


def table(columns, rows, caption):
    """A plain table of cells that are escaped."""
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return HTML(
        f"<table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def percent(low, value, high):
    """An accuracy with its 95 % interval."""
    return f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def read(name):
    """What a command wrote into docs/results/; None where it has not been run yet."""
    path = Path(f"docs/results/{name}.json")
    return json.loads(path.read_text()) if path.exists() else None


INKS = ("#3b7ea1", "#c4820e", "#6b8e23", "#a1503b", "#8a5fa8", "#7a7a7a", "#c2528b")


def chart(groups, x_name, ticks, caption, logarithmic=False):
    """Accuracies with their intervals over a quantity; groups: {name: [(x, low, value, high)]}."""
    points = [point for group in groups.values() for point in group]
    scale = math.log if logarithmic else float
    left, right = scale(min(ticks)), scale(max(ticks))
    bottom = math.floor(20 * min(low for _, low, _, _ in points)) / 20
    top = math.ceil(20 * max(high for *_, high in points)) / 20

    def x_of(x):
        return 80 + 520 * (scale(x) - left) / (right - left)

    def y_of(share):
        return 20 + 220 * (top - share) / (top - bottom)

    parts = []
    for k in range(round(20 * bottom), round(20 * top) + 1):
        y = y_of(k / 20)
        parts.append(
            f'<line x1="54" x2="626" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" '
            f'stroke-opacity=".15"/><text x="48" y="{y + 4:.1f}" text-anchor="end">{5 * k} %</text>'
        )
    for x in ticks:
        parts.append(f'<text x="{x_of(x):.1f}" y="258" text-anchor="middle">{x:g}</text>')
    if len(groups) > len(INKS):
        raise ValueError(
            f"{len(groups)} groups are too many for one chart; it has {len(INKS)} inks"
        )
    for k, (ink, (name, group)) in enumerate(zip(INKS, groups.items(), strict=False)):
        shift = 4 * (k - (len(groups) - 1) / 2)
        for x, low, value, high in group:
            at = x_of(x) + shift
            parts.append(
                f'<path d="M{at:.1f} {y_of(low):.1f}V{y_of(high):.1f}" stroke="{ink}" '
                f'stroke-width="2"/><circle cx="{at:.1f}" cy="{y_of(value):.1f}" r="4" '
                f'fill="{ink}"><title>{html.escape(name)}, {x:g}: {percent(low, value, high)}'
                "</title></circle>"
            )
    columns = 3 if max(map(len, groups)) < 29 else 2
    for k, (ink, name) in enumerate(zip(INKS, groups, strict=False)):
        at, y = 30 + 630 // columns * (k % columns), 292 + 20 * (k // columns)
        parts.append(
            f'<circle cx="{at}" cy="{y}" r="4" fill="{ink}"/>'
            f'<text x="{at + 10}" y="{y + 4}">{html.escape(name)}</text>'
        )
    height = 304 + 20 * ((len(groups) - 1) // columns)
    return HTML(
        f'<figure><svg viewBox="0 0 640 {height}" role="img" aria-label="{html.escape(caption)}" '
        f'style="max-width:100%" font-size="12" fill="currentColor">{"".join(parts)}'
        f'<text x="340" y="276" text-anchor="middle">{html.escape(x_name)}</text></svg>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


# %%
intel = read("intel")
network = intel["runs"][0]["settings"]
table(
    ("seed", "what", "test accuracy, 95 % interval", "test photos", "calibration error", "seconds"),
    [
        (
            run["seed"],
            run["what"],
            percent(run["test"]["low"], run["test"]["value"], run["test"]["high"]),
            f"{run['test']['n']:,}",
            f"{run['test_calibration_error']:.3f}",
            f"{run['seconds']:.0f}",
        )
        for run in intel["runs"]
    ],
    f"{intel['photos']['n']:,} photos; {network['backbone']}, the default; minutes as asked for",
)

# %%
means = {}
for run in intel["runs"]:
    means.setdefault(run["what"], []).append(run["test"]["value"])
for what, values in means.items():
    print(f"{what}: mean of {len(values)} seeds {sum(values) / len(values):.1%}")

# %%
first = intel["runs"][0]["environment"]
table(("what", "which"), sorted(first.items()), "What the first of these runs was made on")

# %% [markdown]
# The interval of a row says how far chance in the choice of its test photos can carry its
# accuracy. Rows of one seed share their test photos; rows of other seeds overlap in photos, so
# the seeds are no independent repetitions.
#
# ## Against the number of photos
#
# How many photos of each class does it take? Of the training side of three splits each class keeps
# as many photos as said; validation and test stay whole. `nox -s augment -- --photos FOLDER`
# measured it, with the policy "standard"; the caption names the network.

# %%
sizes = [run for run in read("augment_helps")["runs"] if run["policy"] == "standard"]
by_size = {}
for run in sizes:
    by_size.setdefault(run["per_class"], []).append(run["test"])
means = {
    size: sum(test["value"] for test in tests) / len(tests)
    for size, tests in sorted(by_size.items())
}
caption = (
    f"{sizes[0]['settings']['backbone']}: "
    "test accuracy over training photos a class, each seed with its 95 % interval; means: "
    + ", ".join(f"{size} photos {mean:.1%}" for size, mean in means.items())
    + "."
)
groups = {}
for run in sizes:
    point = (run["per_class"], *(run["test"][key] for key in ("low", "value", "high")))
    groups.setdefault(f"seed {run['seed']}", []).append(point)
chart(groups, "training photos a class", sorted(by_size), caption, logarithmic=True)

# %% [markdown]
# Each seed has test photos of its own, so differences between seeds are differences between
# photos, too. Which of the steps between the means are more than chance, on the same test photos (a
# photo that two seeds test counts twice, so p is a little too small):

# %%
from scenelearn import metrics

fits = {(run["per_class"], run["seed"]): run for run in sizes}
for fewer, more in itertools.pairwise(sorted(by_size)):
    only_more = only_fewer = 0
    for (size, seed), run in fits.items():
        if size == more and (fewer, seed) in fits:
            pairs = list(zip(run["test_right"], fits[fewer, seed]["test_right"], strict=True))
            only_more += pairs.count(("1", "0"))
            only_fewer += pairs.count(("0", "1"))
    p = metrics.mcnemar(only_more, only_fewer)
    said = "more than chance explains" if p < 0.05 else "no more than chance explains"
    print(f"{more} instead of {fewer} photos a class: {only_more} test photos more are right,")
    print(f"    {only_fewer} more are wrong; {said} (p = {p:.2g})")

# %% [markdown]
# ## Few photos, beside Keras' own recipe
#
# What one has who starts: 10, 25 or 100 photos a class, validation included. Ours is `sl.fit` with
# two minutes; Keras' is the recipe of its guide to transfer learning (20 epochs with the backbone
# frozen, then 10 of all of it with a small rate), on TensorFlow, with the same photos and weights.
# Both are judged on the same 900 photos of each seed. `nox -s few -- --photos FOLDER --weights
# FILE` measured it, with `mobilenet_v2_0.35`. Seconds depend on what else the machine does; both
# sides took turns.

# %%
few = read("few") or {"runs": []}
groups = {}
for run in few["runs"]:
    groups.setdefault((run["per_class"], run["what"]), []).append(run)


def told(runs):
    """Each seed's accuracy, the mean, and the mean seconds."""
    values = [run["test"]["value"] for run in runs]
    each = ", ".join(f"{100 * value:.1f}" for value in values)
    seconds = sum(run["seconds"] for run in runs) / len(runs)
    return f"{100 * sum(values) / len(values):.1f} %", each, f"{seconds:.0f}"


table(
    ("photos a class", "what", "mean test accuracy", "by seed, %", "mean seconds"),
    [(*key, *told(runs)) for key, runs in sorted(groups.items())],
    f"{len({run['seed'] for run in few['runs']})} seeds; with 900 test photos the 95 % interval of "
    "one accuracy is about ±2.5 points",
)

# %% [markdown]
# A solved head alone fits few photos well. Fine-tuned from there, the network fits them entirely
# and forgets some of what it knew. So `fit` keeps a network on the way between the two, how far
# along by the photos a class, unless the validation photos tell another to be better by more than
# chance; see [`FitResult.share`][scenelearn.finetune.FitResult].
#
# ## Against minutes
#
# The solved head is there first; fine-tuning takes what is left of the budget. Each point is one
# fit: of the tables on this page, or another by the same bench, e.g. `python -m tests.bench.intel …
# --backbone mobilenet_v2 --image-px 224 --minutes 10`. Times are of the whole fit, from decoding to
# the test.

# %%
groups, reached = {}, {}
for name in ("intel", "backbones", "minutes"):
    for run in (read(name) or {"runs": []})["runs"]:
        how = run["what"].rpartition(", ")[0]
        if how.startswith("mobilenet_v"):
            test = run["test"]
            point = run["seconds"] / 60, test["low"], test["value"], test["high"]
            groups.setdefault(how, []).append(point)
            by_minutes = reached.setdefault(how, {})
            by_minutes.setdefault(run["minutes"] or 0, []).append(test["value"])


def told_means(by_minutes):
    """The mean accuracy over seeds, by the minutes that were given; 0 is the head alone."""
    return ", ".join(
        f"{sum(values) / len(values):.1%} "
        + (f"({minutes:g} min)" if minutes else "(solved head alone)")
        for minutes, values in sorted(by_minutes.items())
    )


chart(
    groups,
    "minutes that the fit took",
    (0.25, 0.5, 1, 2, 5, 10, 22),
    "Test accuracy over minutes, each seed with its 95 % interval. Means: "
    + "; ".join(f"{how}: {told_means(by_minutes)}" for how, by_minutes in reached.items())
    + ".",
    logarithmic=True,
)

# %% [markdown]
# ## Which network
#
# Heads solved on the features of each network whose weights were at hand, the default among them,
# and fits of so many minutes. Seeds draw their own splits, so means of three seeds and of five are
# not of the same photos. It was measured by `nox -s backbones -- --photos FOLDER --weights
# NAME=FILE`. Weights "deq8" are 8-bit ones made 32-bit again, with BatchNormalization folded in.

# %%
at_hand = {}
for run in [*intel["runs"], *(read("backbones") or {"runs": []})["runs"]]:
    how = run["what"].rpartition(", ")[0].replace(" at 160 px", "")
    key = how, run["settings"]["weights"]
    at_hand.setdefault(key, {}).setdefault(run["minutes"], []).append(run)


def mean(runs, quantity):
    """The mean of a quantity over runs, and how many they are."""
    return sum(quantity(run) for run in runs) / len(runs)


rows = []
for (name, weights), by_minutes in at_hand.items():
    for minutes, runs in by_minutes.items():
        reached_here = mean(runs, lambda run: run["test"]["value"])
        spent = f"{minutes:g}" if minutes else "head alone"
        seconds = mean(runs, lambda run: run["seconds"])
        cells = name, weights.replace("_", "_\u200b"), spent, f"{reached_here:.1%}", len(runs)
        rows.append((reached_here, (*cells, f"{seconds:.0f}")))
table(
    ("network", "weights", "minutes", "test accuracy", "seeds", "seconds"),
    [row for _, row in sorted(rows, reverse=True)],
    "Means over seeds, the best first, at 160 px where no other size is named; with 900 test "
    "photos the 95 % interval of one seed is about ±2 points",
)

# %% [markdown]
# In a single run, more minutes and more pixels do not go on helping; the mean of the weights of
# four runs (soup=4) does: see [how fine-tuning works](../explanation/finetuning.py). The validation
# photos, which chose no more than how far along the network is kept, say so as well:

# %%
for (how, _), by_minutes in at_hand.items():
    if how.partition(" ")[0] == "mobilenet_v2":
        for minutes, runs in sorted(by_minutes.items(), key=lambda of: of[0] or 0):
            spent = f"{minutes:g} min" if minutes else "head"
            validation, test = (
                mean(runs, lambda run, side=side: run[side]["value"])
                for side in ("validation", "test")
            )
            print(f"{how:<34} {spent:<8} validation {validation:.1%}, test {test:.1%}")

# %% [markdown]
# ## What each part of fine-tuning is worth
#
# The defaults of `fit`, and one thing changed at a time: three splits, of whose training side each
# class keeps as many photos as said below, the same for all. Gains are on the same test photos,
# with their 95 % interval over photos; an interval that holds 0 says that chance explains it.
# `nox -s ablations -- --photos FOLDER --weights FILE` measured it.

# %%
ablations = read("ablations")


def verdict(row):
    """What a gain's interval says."""
    if row["low"] <= 0 <= row["high"]:
        return "not significant"
    return "better" if row["low"] > 0 else "worse"


table(
    ("changed", "test accuracy", "gain in points, 95 % interval", "so"),
    [
        (
            row["what"],
            f"{row['test']:.1%}",
            f"{100 * row['test_gain']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})",
            verdict(row),
        )
        if row["what"] != "defaults"
        else (row["what"], f"{row['test']:.1%}", "", "")
        for row in ablations["compared"]
    ],
    f"{ablations['backbone']}, {ablations['per_class']} photos a class, "
    f"{ablations['epochs']} epochs; of {len(ablations['compared']) - 1} such intervals, "
    f"{0.05 * (len(ablations['compared']) - 1):.1f} miss 0 by chance alone",
)

# %% [markdown]
# ## Beside others
#
# What other recipes reach on the Intel photos, as far as we have measured it, with what each number
# leaves out. None of them has an interval, so no row says that one is better.

# %%
others = read("others")
table(
    ("recipe", "accuracy", "on", "source", "leaves out"),
    [
        (row["recipe"], f"{row['accuracy']:.1%}", row["on"], row["source"], row["leaves_out"])
        for row in others["rows"]
    ],
    others["note"],
)

# %% [markdown]
# ## How far an answer can be trusted
#
# Calibrated probabilities, sets of classes and the flag for photos of another kind rest on each
# seed's validation photos; here they meet its test photos, and drawings of things that are no
# scenes. Every number but the floor is measured. The floor is what the calibration error of
# perfectly calibrated answers would be with so many photos, by chance alone. How photos are flagged
# was chosen on six kinds of drawings, with `mobilenet_v2_0.35`; fractals, mosaics, sheet music and
# stars were kept for the end. `python -m tests.bench.trust --photos FOLDER --weights FILE --out
# docs/results/trust.json` measured it.

# %%
trust = read("trust")
HELD_OUT = ("fractal", "mosaic", "music", "stars")


def cells(run):
    """A run's row: what was promised, and what came of it."""
    sets = run["sets"]["0.95"]
    kinds = run["unlike"]
    lowest = [
        min(share for kind, share in kinds.items() if (kind in HELD_OUT) is held)
        for held in (False, True)
    ]
    return (
        run["seed"],
        f"{run['calibration_error']:.3f} ({run['calibration_floor']:.3f})",
        percent(*(sets["coverage"][key] for key in ("low", "value", "high"))),
        f"{sets['mean_size']:.2f}",
        f"{run['answered']['value']:.1%}",
        f"{run['accuracy_answered']['value']:.1%}",
        f"{run['unlike_of_test']['value']:.1%}",
        *(f"{share:.0%}" for share in lowest),
    )


table(
    (
        "seed",
        "calibration error (floor)",
        "sets of 95 % hold the truth",
        "classes a set",
        "answered",
        "of these right",
        "test photos flagged",
        "drawings flagged, least of six kinds",
        "least of four kept kinds",
    ),
    [cells(run) for run in trust["runs"]],
    f"Solved head of {trust['backbone']}, {trust['environment']['date']}; of all "
    f"{trust['together']['n']:,} test photos together the calibration error is "
    f"{trust['together']['calibration_error']:.3f}, the floor "
    f"{trust['together']['calibration_floor']:.3f}",
)

# %% [markdown]
# ## Sample scenes
#
# How hard are the scenes that `sl.sample_scenes` draws? Color alone, and a linear model on the
# pixels, should come nowhere near a convolutional network.

# %%
scenes = read("sample_scenes")
rows = [
    (what, percent(scenes[key]["interval"][0], scenes[key]["accuracy"], scenes[key]["interval"][1]))
    for what, key in (
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
    ("classifier", "test accuracy, 95 % interval"),
    rows,
    f"{scenes['n_train']:,} training and {scenes['n_test']:,} test scenes, seed "
    f"{scenes['scene_seed']}, {scenes['date']}",
)
