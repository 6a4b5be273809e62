"""The figures of the results, drawn at build from the files in docs/results.

Each is a `<figure>`: an SVG in the colors of the page, a legend that wraps on a phone, and a
caption that says what to see. `FIGURES` names those of the overview.
"""

from __future__ import annotations

import html
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from docs._measured import html_table, read
from scenelearn.finetune._candidates import CANDIDATES

COLORS = ("#3b7ea1", "#c4820e", "#6b8e23", "#a1503b", "#8a5fa8", "#7a7a7a", "#c2528b")
SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
    "M-4-4h8v8h-8z",
    "M0-5L5 0L0 5L-5 0z",
    "M0-5L5 4H-5z",
)
WIDTH, RIGHT = 480, 466
_CHARACTER_PX = 6.6  # mean width at a font size of 12


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis: its title, and its ticks with their labels; the outer ticks are its ends."""

    title: str
    ticks: Mapping[float, str]
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """The position of a value, 0 at the first tick and 1 at the last."""
        scale = math.log if self.logarithmic else float
        low, high = scale(min(self.ticks)), scale(max(self.ticks))
        return (scale(value) - low) / (high - low)


@dataclass(frozen=True, slots=True)
class Point:
    """A measurement, with the interval of y, or of x if `sideways`."""

    x: float
    y: float
    name: str = ""
    low: float | None = None
    high: float | None = None


Series = Mapping[str, Sequence[Point]]


def percent_axis(title: str, series: Series, step: float = 0.02) -> Axis:
    """An axis of fractions that covers all intervals."""
    points = [point for group in series.values() for point in group]
    low = math.floor(min(p.y if p.low is None else p.low for p in points) / step + 1e-9)
    high = math.ceil(max(p.y if p.high is None else p.high for p in points) / step - 1e-9)
    return Axis(title, {k * step: f"{100 * k * step:g}%" for k in range(low, high + 1)})


def number_axis(title: str, ticks: Sequence[float], *, logarithmic: bool = False) -> Axis:
    """An axis with these numbers."""
    return Axis(title, {tick: f"{tick:g}" for tick in ticks}, logarithmic)


def category_axis(names: Sequence[str]) -> Axis:
    """An axis of names from the top down; the i-th is at -i."""
    return Axis("", {0.7: "", **{-i: name for i, name in enumerate(names)}, 0.3 - len(names): ""})


def plot(
    series: Series,
    x: Axis,
    y: Axis,
    caption: str,
    *,
    sideways: bool = False,
    line: str = "",
    label: str = "",
) -> str:
    """Plot points with their intervals.

    Args:
        series: names to points; each has its own color and shape.
        x: the horizontal axis.
        y: the vertical axis.
        caption: what the figure shows and what to see in it.
        sideways: whether intervals are of x.
        line: "diagonal", "vertical" or "horizontal" through 0, or "" for none.
        label: the description for screen readers (default: the caption).
    """
    if len(series) > len(COLORS):
        raise ValueError(f"A figure has {len(COLORS)} colors. Received: {len(series)} series.")
    left = 14 + _CHARACTER_PX * max(map(len, y.ticks.values()))
    top = 26 if y.title else 10
    bottom = top + (26 * (len(y.ticks) - 1) if not y.title else 236)
    height = bottom + 40

    def x_of(value: float) -> float:
        return left + 8 + (RIGHT - left - 16) * x.at(value)

    def y_of(value: float) -> float:
        return bottom - (bottom - top) * y.at(value)

    parts = [f'<text x="0" y="12">{html.escape(y.title)}</text>'] if y.title else []
    for value, text in y.ticks.items():
        if text:
            at = f"{y_of(value):.0f}"
            parts.append(
                f'<path class="grid" d="M{left:.0f} {at}H{RIGHT}"/>'
                f'<text x="{left - 6:.0f}" y="{float(at) + 4:.0f}" text-anchor="end">{text}</text>'
            )
    for value, text in x.ticks.items():
        anchor = "end" if x_of(value) > RIGHT - 12 and len(text) > 3 else "middle"
        parts.append(
            f'<text x="{x_of(value):.0f}" y="{bottom + 17}" text-anchor="{anchor}">{text}</text>'
        )
    if line == "diagonal":
        low, high = (end([*x.ticks, *y.ticks]) for end in (min, max))
        low, high = max(low, min(x.ticks), min(y.ticks)), min(high, max(x.ticks), max(y.ticks))
        ends = (x_of(low), y_of(low), x_of(high), y_of(high))
        parts.append('<path class="ideal" d="M{:.0f} {:.0f}L{:.0f} {:.0f}"/>'.format(*ends))
    elif line == "horizontal":
        parts.append(f'<path class="ideal" d="M{left:.0f} {y_of(0):.0f}H{RIGHT}"/>')
    elif line == "vertical":
        parts.append(f'<path class="ideal" d="M{x_of(0):.0f} {top}V{bottom}"/>')
    legend = []
    for k, (name, points) in enumerate(series.items()):
        color, shape = COLORS[k], SHAPES[k % len(SHAPES)]
        offset = (5 if sideways else 4) * (k - (len(series) - 1) / 2) if len(series) < 6 else 0
        if len(points) > 200:  # dots of one path
            dots = "".join(f"M{x_of(p.x):.0f} {y_of(p.y):.0f}h0" for p in points)
            parts.append(f'<path class="dots" stroke="{color}" d="{dots}"/>')
        else:
            for p in points:
                at_x = x_of(p.x) + (0 if sideways else offset)
                at_y = y_of(p.y) + (offset if sideways else 0)
                if p.low is not None and p.high is not None:
                    path = f"M{at_x:.1f} {y_of(p.low):.1f}V{y_of(p.high):.1f}"
                    if sideways:
                        path = f"M{x_of(p.low):.1f} {at_y:.1f}H{x_of(p.high):.1f}"
                    parts.append(f'<path class="whisker" d="{path}" stroke="{color}"/>')
                title = f"<title>{html.escape(p.name)}</title>" if p.name else ""
                parts.append(
                    f'<path transform="translate({at_x:.1f} {at_y:.1f})" fill="{color}" '
                    f'd="{shape}">{title}</path>'
                )
        legend.append(
            f'<li><svg viewBox="-6 -6 12 12" aria-hidden="true"><path fill="{color}" d="{shape}"/>'
            f"</svg>{html.escape(name)}</li>"
        )
    text = html.escape(label or caption)
    keys = f'<ul class="legend">{"".join(legend)}</ul>' if len(series) > 1 else ""
    return (
        f'<figure class="chart"><svg viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{text}">{"".join(parts)}<text x="{(left + RIGHT) / 2:.0f}" '
        f'y="{height - 5}" text-anchor="middle">{html.escape(x.title)}</text></svg>{keys}'
        f"<figcaption>{caption if label else text}</figcaption></figure>"
    )


def accuracy_point(run: Mapping[str, Any], x: float, name: str = "") -> Point:
    """The test accuracy of a run with its interval."""
    test = run["test"]
    text = f"{name}, seed {run['seed']}: " if name else ""
    text += f"{test['value']:.1%} ({test['low']:.1%} to {test['high']:.1%})"
    return Point(x, test["value"], text, test["low"], test["high"])


def _mean(runs: Sequence[Mapping[str, Any]]) -> str:
    return f"{mean(run['test']['value'] for run in runs):.1%}"


RECIPES = ("scenelearn", "Keras' recipe")
MINUTES = (0.2, 0.5, 1, 2, 5, 10, 22)


def accuracy() -> str:
    """Accuracy over minutes, all recipes."""
    series, budgets = defaultdict(list), defaultdict(list)
    for file in ("intel", "backbones", "minutes"):
        for run in read(file)["runs"]:
            network = run["settings"]["backbone"]
            network += " (soup)" if "soup" in run["name"] else ""
            minutes = run["seconds"] / 60
            name = f"{run['name']}, {minutes:.1f} min"
            series[network].append(accuracy_point(run, minutes, name))
            if run["settings"]["recipe"].get("train_px"):
                network += f" at {run['settings']['image_px']} px"
            budgets[network, run["minutes"] or 0].append(run)
    for run in read("peers")["runs"]:
        if not run["name"].startswith("scenelearn"):
            minutes = run["seconds"] / 60
            name = f"{run['name']}, {minutes:.1f} min"
            series["other libraries"].append(accuracy_point(run, minutes, name))
    best, at = max(budgets, key=lambda key: mean(r["test"]["value"] for r in budgets[key]))
    default = [key for key in budgets if key[0] == "mobilenet_v3_small"]
    first, last = min(default, key=lambda key: key[1]), max(default, key=lambda key: key[1])
    return plot(
        series,
        number_axis("minutes the whole fit took", MINUTES, logarithmic=True),
        percent_axis("test accuracy", series, step=0.05),
        "Test accuracy over minutes on 6,000 Intel photos, every fit with its 95% confidence "
        "interval. What to see: the linear probe, the leftmost points of a network, already gives "
        f"{_mean(budgets[first])} with the default backbone; {last[1]:g} minutes raise "
        f"it to {_mean(budgets[last])}. The best, {best} with {at:g} minutes, reaches "
        f"{_mean(budgets[best, at])}. The intervals of neighbors overlap. Other libraries have one "
        "seed, see the next figure.",
    )


def peers() -> str:
    """Accuracy over minutes of other libraries, then their table."""
    table = read("peers")
    runs = sorted(table["runs"], key=lambda run: run["test"]["value"], reverse=True)
    series = {run["name"]: [accuracy_point(run, run["seconds"] / 60, run["name"])] for run in runs}
    ours = next(run for run in runs if run["name"] == "scenelearn")
    others = [run for run in runs if not run["name"].startswith("scenelearn")]
    best, fine_tuned = others[0], next(run for run in others if run["epochs"])
    overlaps = "overlap" if best["test"]["high"] >= ours["test"]["low"] else "do not overlap"
    figure = plot(
        series,
        number_axis("minutes", (1, 2, 5, 10, 20), logarithmic=True),
        percent_axis("test accuracy", series, step=0.05),
        f"scenelearn and other libraries: the same photos, the same weights of "
        f"{table['backbone']}, the same {ours['cores']} cores, a time budget of "
        f"{ours['minutes']:g} minutes, one seed. What to see: scenelearn has "
        f"{ours['test']['value']:.1%}, the best of the others, {best['name']}, "
        f"{best['test']['value']:.1%}; their 95% confidence intervals {overlaps}. The best of the "
        f"others with fine-tuning, {fine_tuned['name']}, has {fine_tuned['test']['value']:.1%}.",
    )
    rows = [
        (
            run["name"],
            f"{run['test']['value']:.1%} ({run['test']['low']:.1%} to {run['test']['high']:.1%})",
            f"{run['seconds'] / 60:.1f}",
            f"{run['processor_seconds'] / 60:.1f}",
            f"{run['peak_bytes'] / 1e9:.1f}",
            ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
            run["notes"],
        )
        for run in runs
    ]
    columns = (
        "Recipe",
        "Test accuracy (95% CI)",
        "Minutes",
        "CPU minutes",
        "Memory, GB",
        "Versions",
        "Notes",
    )
    dates = sorted(run["date"][:10] for run in runs)
    caption = f"{runs[0]['test']['n']} test photos, {dates[0]} to {dates[-1]}"
    return f'{figure}<div class="sortable">{html_table(columns, rows, caption)}</div>'


def few_photos() -> str:
    """Accuracy over minutes with few photos, and the recipe of Keras' guide."""
    runs = read("few_photos")["runs"]
    series, groups = defaultdict(list), defaultdict(list)
    for run in runs:
        name = f"{run['name']}, {run['per_class']} per class"
        minutes = run["seconds"] / 60
        series[name].append(accuracy_point(run, minutes, f"{name}, {minutes:.1f} min"))
        groups[run["name"], run["per_class"]].append(run)
    sizes = sorted({run["per_class"] for run in runs})
    ours, keras = ({size: _mean(groups[name, size]) for size in sizes} for name in RECIPES)
    pairs = "; ".join(f"{size} photos: {ours[size]} and {keras[size]}" for size in sizes)
    return plot(
        series,
        number_axis("minutes", (0.1, 0.2, 0.5, 1, 2), logarithmic=True),
        percent_axis("test accuracy", series),
        "Few photos per class, the same network, weights and test photos: scenelearn, and the "
        "recipe of Keras' transfer learning guide on TensorFlow. What to see: scenelearn takes "
        f"less time and is as accurate or more. Means per class: {pairs}.",
    )


def speed() -> str:
    """Milliseconds per photo in prediction, by framework."""
    rows = sorted(read("speed")["rows"], key=lambda row: row["predict_fast_ms"])
    names = {"fast": "scenelearn", "tensorflow": "Keras on TensorFlow", "torch": "Keras on Torch"}
    series = {
        name: [
            Point(row[key], -i, f"{row['backbone']}, {name}: {row[key]:.2f} ms")
            for i, row in enumerate(rows)
            if (key := f"predict_{form}_ms") in row
        ]
        for form, name in names.items()
    }
    ratios = [row["predict_tensorflow_ratio"] for row in rows if "predict_tensorflow_ratio" in row]
    return plot(
        series,
        number_axis("ms per photo, prediction", (0.2, 0.5, 1, 2, 5, 10, 20, 50), logarithmic=True),
        category_axis([row["backbone"] for row in rows]),
        f"Time per photo at {rows[0]['image_px']} px in batches of 32 on two CPU cores; left is "
        f"faster. What to see: Keras on TensorFlow takes {min(ratios):.1f} to {max(ratios):.1f} "
        "times as long. Networks with depthwise convolutions gain the most.",
        sideways=True,
    )


def memory() -> str:
    """Estimated over planned memory."""
    cases = [case for case in read("memory")["cases"] if "estimated_bytes" in case]
    errors = [abs(case["estimated_bytes"] / case["total_bytes"] - 1) for case in cases]
    gib = 2.0**30
    kinds = {"predict": "prediction", "head": "training the head", "train": "training all layers"}
    series = {
        name: [
            Point(case["total_bytes"] / gib, case["estimated_bytes"] / case["total_bytes"] - 1)
            for case in cases
            if case["step"].startswith(kind)
        ]
        for kind, name in kinds.items()
    }
    values = [p.x for points in series.values() for p in points]
    powers = range(math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))) + 1)
    axis = Axis("GiB that XLA plans", {10.0**k: f"{10.0**k:g}" for k in powers}, logarithmic=True)
    within = sum(error <= 0.01 for error in errors) / len(errors)
    return plot(
        series,
        axis,
        percent_axis("error of the estimate", series, step=0.05),
        f"Error of the memory estimate over the memory that XLA plans, {len(cases):,} steps of "
        f"{len({case['model'] for case in cases})} networks. What to see: {within:.0%} of the "
        f"estimates are within 1%, the median error is {median(errors):.2%}, the largest "
        f"{max(errors):.1%}.",
        line="horizontal",
    )


def coverage() -> str:
    """Coverage of prediction sets over their target."""
    uncertainty = read("uncertainty")
    targets = sorted(map(float, uncertainty["runs"][0]["prediction_sets"]))
    series = {
        f"seed {run['seed']}": [
            Point(target, found["value"], f"{found['value']:.1%}", found["low"], found["high"])
            for target in targets
            for found in [run["prediction_sets"][f"{target:g}"]["coverage"]]
        ]
        for run in uncertainty["runs"]
    }
    pooled = uncertainty["pooled"]
    at = targets.index(0.95)
    values = [points[at].y for points in series.values()]
    return plot(
        series,
        Axis("target coverage", {t: f"{100 * t:g}%" for t in (0.75, *targets)}),
        percent_axis("coverage on test photos", series),
        "How often prediction sets contain the true class, over the target, with 95% confidence "
        "intervals. On the dashed line, both are equal. What to see: sets for 95% contain it for "
        f"{min(values):.1%} to {max(values):.1%} of test photos. Sets for 80% and 90% have one "
        "class, so they contain it as often as the classifier is right. Probabilities are "
        f"calibrated: the error on {pooled['n']:,} photos is {pooled['calibration_error']:.3f}, "
        f"and {pooled['calibration_noise_floor']:.3f} by chance.",
        line="diagonal",
    )


def out_of_distribution() -> str:
    """Images flagged as out of distribution, by kind."""
    runs = read("uncertainty")["runs"]
    kinds = sorted(runs[0]["synthetic_flagged"])
    rows = {"Intel test photos": [run["test_flagged"]["value"] for run in runs]}
    rows |= {kind: [run["synthetic_flagged"][kind] for run in runs] for kind in kinds}
    points = [
        Point(value, -i, f"{name}, seed {run['seed']}: {value:.0%}")
        for i, (name, values) in enumerate(rows.items())
        for run, value in zip(runs, values, strict=True)
    ]
    lowest = min(kinds, key=lambda kind: min(rows[kind]))
    flagged = mean(rows["Intel test photos"])
    return plot(
        {"flagged": points},
        Axis("flagged as out of distribution", {k / 4: f"{25 * k}%" for k in range(5)}),
        category_axis(list(rows)),
        "Test photos, and synthetic images that are not scenes, flagged as out of distribution; "
        f"every point is a seed. What to see: {flagged:.1%} of test photos are flagged (about 3% "
        f"by design), and at least {min(rows[lowest]):.0%} of every kind of synthetic image "
        f"(lowest: {lowest}).",
        sideways=True,
    )


def augmentation() -> str:
    """Gains of augmentation with their intervals."""
    rows = read("augmentation_accuracy")["comparisons"]
    names = [f"{row['per_class']} per class, {row['policy']}" for row in rows]
    points = [
        Point(
            100 * row["test_gain"],
            -i,
            f"{names[i]}: {100 * row['test_gain']:+.1f} points",
            100 * row["low"],
            100 * row["high"],
        )
        for i, row in enumerate(rows)
    ]
    excluding = sum(row["low"] > 0 or row["high"] < 0 for row in rows)
    return plot(
        {"gain": points},
        number_axis("gain in test accuracy over no augmentation, points", (-2, -1, 0, 1, 2)),
        category_axis(names),
        "What augmentation gains, with 95% confidence intervals, paired on the same test photos. "
        f"What to see: {excluding or 'none'} of {len(rows)} intervals exclude 0. With 25 photos "
        "per class, this earlier recipe kept the linear probe, which augmentation does not change.",
        sideways=True,
        line="vertical",
    )


def budgets() -> str:
    """A table of the mean accuracy of each recipe."""
    groups = defaultdict(list)
    for name in ("intel", "backbones", "minutes"):
        for run in read(name)["runs"]:
            groups[run["name"]].append(run)
    rows = []
    for name, runs in groups.items():
        values = [run["test"]["value"] for run in runs]
        spread = f"{min(values):.1%} to {max(values):.1%}" if len(runs) > 1 else "–"
        seconds = mean(run["seconds"] for run in runs)
        rows.append((name, f"{mean(values):.1%}", spread, len(runs), f"{seconds / 60:.1f}"))
    rows.sort(key=lambda row: row[1], reverse=True)
    columns = ("Recipe", "Test accuracy", "Seeds from, to", "Seeds", "Minutes")
    table = html_table(columns, rows, f"{len(rows)} recipes on 6,000 Intel photos")
    return f'<div class="sortable">{table}</div>'


def networks(sizes: Mapping[str, tuple[int, int]]) -> str:
    """The table of networks to sort.

    Args:
        sizes: names to the number of parameters and the bytes to train, at 160 px.
    """
    published = {row["network"]: row for row in read("published")["rows"]}
    times = {row["backbone"].removesuffix("_1.0"): row for row in read("speed")["rows"]}
    probe, tuned = _accuracies(None), _accuracies(4.5)
    rows = [
        (
            name,
            f"{probe[name]:.1%}" if name in probe else "–",
            f"{tuned[name]:.1%}" if name in tuned else "–",
            f"{published[name]['top1']:.1%}" if name in published else "–",
            f"{times[name]['predict_fast_ms']:.2f}" if name in times else "–",
            f"{times[name]['train_fast_ms']:.1f}" if name in times else "–",
            f"{n_parameters / 1e6:.1f}",
            f"{n_bytes / 2**20:,.0f}",
        )
        for name, (n_parameters, n_bytes) in sizes.items()
    ]
    columns = (
        "Network",
        "Linear probe",
        "Fine-tuned, 4.5 min",
        "ImageNet top-1",
        "Predict, ms",
        "Train, ms",
        "Million weights",
        "MiB to train",
    )
    sources = "; ".join(sorted({row["source"] for row in published.values()}))
    return (
        f'<div class="sortable">{html_table(columns, rows, "Networks at 160 px")}</div>'
        "<p>Linear probe and fine-tuned: mean test accuracy on 6,000 Intel photos. ImageNet "
        "top-1: published, at 224 px, EfficientNetV2S at 384 px "
        f"({html.escape(sources)}). Times per photo: two CPU cores, batches of 32. Weights and "
        "memory, with Adam and batches of 32, all layers trained: estimates. A dash: not measured."
        "</p>"
    )


def candidates() -> str:
    """The table of the networks among which "auto" chooses."""
    rows = [(one.name, f"{one.top1:.1%}", one.source) for one in CANDIDATES]
    return html_table(("Network", "ImageNet top-1", "Source"), rows, "Networks by accuracy")


def _accuracies(minutes: float | None) -> dict[str, float]:
    """Mean test accuracies at 160 px by network, for a time budget or the linear probe."""
    values = defaultdict(list)
    for name in ("intel", "backbones"):
        for run in read(name)["runs"]:
            if run["minutes"] == minutes and run["settings"]["image_px"] == 160:
                values[run["settings"]["backbone"]].append(run["test"]["value"])
    return {name: mean(each) for name, each in values.items()}


def accuracy_by_time() -> str:
    """Accuracy over the time of a prediction, by network."""
    times = {row["backbone"].removesuffix("_1.0"): row for row in read("speed")["rows"]}
    series = {
        name: [
            Point(times[network]["predict_fast_ms"], value, f"{network}: {value:.1%}")
            for network, value in _accuracies(minutes).items()
            if network in times
        ]
        for name, minutes in (("linear probe", None), ("fine-tuned, 4.5 minutes", 4.5))
    }
    names = sorted(
        {p.name.partition(":")[0]: p.x for p in series["linear probe"]}.items(),
        key=lambda item: item[1],
    )
    order = ", ".join(f"{name} ({ms:.2f} ms)" for name, ms in names)
    return plot(
        series,
        number_axis("ms per photo, prediction", (0.2, 0.5, 1, 2, 5), logarithmic=True),
        percent_axis("test accuracy", series),
        "Mean test accuracy on the Intel photos over the time per photo. From left to right: "
        f"{order}. What to see: fine-tuning gains more than a slower network does.",
    )


FIGURES = {
    function.__name__: function
    for function in (
        accuracy,
        peers,
        few_photos,
        speed,
        memory,
        coverage,
        out_of_distribution,
        augmentation,
        budgets,
    )
}
