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

# %%
import html
import json
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


intel = json.loads(Path("docs/results/intel.json").read_text())
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
    f"{intel['photos']['n']:,} photos, {intel['minutes']:g} minutes asked for",
)

# %%
means = {}
for run in intel["runs"]:
    means.setdefault(run["what"], []).append(run["test"]["value"])
for what, values in means.items():
    print(f"{what}: mean of {len(values)} seeds {sum(values) / len(values):.1%}")

# %%
first = intel["runs"][0]["environment"]
table(("", ""), sorted(first.items()), "What the first of these runs was made on")

# %% [markdown]
# The interval of a row says how far chance in the choice of its test photos can carry its
# accuracy. Rows of one seed share their test photos; rows of other seeds overlap in photos, so
# the seeds are no independent repetitions.
#
# ## How far an answer can be trusted
#
# Calibrated probabilities, sets of classes and the flag for photos of another kind rest on each
# seed's validation photos; here they meet its test photos, and drawings of things that are no
# scenes. Every number but the floor is measured. The floor is what the calibration error of
# perfectly calibrated answers would be with so many photos, by chance alone. How photos are flagged
# was chosen on six kinds of drawings; fractals, mosaics, sheet music and stars were kept for the
# end.

# %%
trust = json.loads(Path("docs/results/trust.json").read_text())
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
    f"Solved head; of all {trust['together']['n']:,} test photos together the calibration error is "
    f"{trust['together']['calibration_error']:.3f}, the floor "
    f"{trust['together']['calibration_floor']:.3f}",
)

# %% [markdown]
# ## Sample scenes
#
# How hard are the scenes that `sl.sample_scenes` draws? Colour alone, and a linear model on the
# pixels, should come nowhere near a convolutional network.

# %%
scenes = json.loads(Path("docs/results/sample_scenes.json").read_text())
rows = [
    (what, percent(scenes[key]["interval"][0], scenes[key]["accuracy"], scenes[key]["interval"][1]))
    for what, key in (
        ("logistic regression on a colour histogram", "colour_histogram"),
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
