"""The page that compares several fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scenelearn._json import plain
from scenelearn.reporting import _figures as figures
from scenelearn.reporting._html import (
    NONE,
    count,
    document,
    duration,
    escape,
    name,
    percent,
    percent_range,
    section,
    table,
)
from scenelearn.reporting._runs import Pair, Run
from scenelearn.reporting._statements import MEMORY_KEYS, MEMORY_NOTE, with_interval

_LEVEL = 0.05
_SECTIONS = (
    ("runs", "Runs"),
    ("differences", "Differences"),
    ("per-class-recall", "Per-class recall"),
    ("cost", "Time and memory"),
    ("settings", "Settings"),
)


def comparison_page(runs: Sequence[Run], pairs: Sequence[Pair]) -> str:
    """The page as HTML."""
    links = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title in _SECTIONS)
    body = (
        f'<main>\n<header>\n<p class="eyebrow">scenelearn comparison</p>\n'
        f"<h1>Comparison of {count(len(runs), 'run')}</h1>\n"
        f"{_summary(runs, pairs)}\n"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n</header>\n'
        f"{_runs(runs)}{_differences(runs, pairs)}{_per_class_recall(runs)}{_cost(runs)}"
        f"{_settings(runs)}</main>\n<footer><p>All numbers on this page are in "
        "<code>comparison.json</code>.</p></footer>\n"
    )
    return document(f"Comparison of {len(runs)} runs · scenelearn", body)


def comparison_json(runs: Sequence[Run], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The numbers on the page as plain values."""
    value: dict[str, Any] = plain(
        {
            "runs": [
                {
                    "name": run.name,
                    "kept": run.kept,
                    "evaluation": run.evaluation,
                    "seconds": run.seconds,
                    "phases": run.phases,
                    "settings": run.settings,
                    "environment": run.environment,
                }
                for run in runs
            ],
            "pairs": [
                {
                    "a": runs[pair.a].name,
                    "b": runs[pair.b].name,
                    "comparison": pair.comparison,
                    "adjusted_p_value": pair.adjusted_p_value,
                    "same_photos": pair.same_photos,
                }
                for pair in pairs
            ],
        }
    )
    return value


def _summary(runs: Sequence[Run], pairs: Sequence[Pair]) -> str:
    """The run with the highest accuracy, and from which others it differs significantly."""
    best = max(range(len(runs)), key=lambda k: runs[k].evaluation.accuracy.value)
    evaluation = runs[best].evaluation
    significant: list[str] = []
    insignificant: list[str] = []
    incomparable: list[str] = []
    for pair in pairs:
        if best not in (pair.a, pair.b):
            continue
        other = name(runs[pair.b if pair.a == best else pair.a].name)
        if pair.comparison is None:
            incomparable.append(other)
        else:
            (significant if _is_significant(pair) else insignificant).append(other)
    lead = (
        f"{name(runs[best].name)} has the highest accuracy: "
        f"<strong>{percent(evaluation.accuracy.value)}</strong> on "
        f"{count(evaluation.n_photos, 'test photo')} (95% confidence interval "
        f"{percent_range(evaluation.accuracy.low, evaluation.accuracy.high)})."
    )
    sentences = []
    if significant:
        sentences.append(f"The difference to {_join(significant)} is significant.")
    if insignificant:
        sentences.append(f"The difference to {_join(insignificant)} is not significant.")
    if incomparable:
        sentences.append(
            f"It cannot be compared with {_join(incomparable)}: no shared test photos."
        )
    return f'<p class="lead">{lead}</p>\n<p>{" ".join(sentences)}</p>'


def _join(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _is_significant(pair: Pair) -> bool:
    return pair.comparison is not None and pair.adjusted_p_value < _LEVEL


def _runs(runs: Sequence[Run]) -> str:
    rows = [
        (
            name(run.name),
            percent(run.evaluation.accuracy.value) + figures.interval_bar(run.evaluation.accuracy),
            percent_range(run.evaluation.accuracy.low, run.evaluation.accuracy.high),
            percent(run.evaluation.balanced_accuracy.value),
            percent(run.evaluation.calibration_error),
            f"{run.evaluation.n_photos:,}",
        )
        for run in runs
    ]
    columns = (
        "run", "accuracy", "95% interval", "balanced accuracy", "calibration error", "photos",
    )  # fmt: skip
    intro = (
        "<p>Each run is evaluated on its own test photos. Overlapping intervals do not mean that "
        "two runs are equally good: see the paired differences below.</p>"
    )
    return section("runs", "Runs", intro + table("Runs", columns, rows, "lnnnnn"))


def _differences(runs: Sequence[Run], pairs: Sequence[Pair]) -> str:
    differences = [pair.comparison.accuracy_difference for pair in pairs if pair.comparison]
    limit = max([0.05, *(abs(end) for d in differences for end in (d.low, d.high))])
    rows = []
    for pair in pairs:
        names = f"{name(runs[pair.b].name)} minus {name(runs[pair.a].name)}"
        comparison = pair.comparison
        if comparison is None:
            rows.append((names, "no shared test photos, or different classes", *[NONE] * 5))
            continue
        d = comparison.accuracy_difference
        mark = '<span class="rare">significant</span>' if _is_significant(pair) else ""
        rows.append(
            (
                names + mark,
                f"{100 * d.value:+.1f} points" + figures.difference_bar(d, limit),
                f"{100 * d.low:+.1f} to {100 * d.high:+.1f}",
                f"{pair.adjusted_p_value:.2g}",
                f"{comparison.n_only_b_correct:,}",
                f"{comparison.n_only_a_correct:,}",
                f"{comparison.n_photos:,}{'' if pair.same_photos else ' shared'}",
            )
        )
    columns = (
        "runs", "difference", "95% interval", "p-value", "only first correct",
        "only second correct", "photos",
    )  # fmt: skip
    intro = (
        "<p>Paired comparison on the test photos that two runs share, identified by content. The "
        "difference in accuracy has a paired bootstrap interval. The p-value is from McNemar's "
        "exact test, adjusted for the number of pairs (Holm); below 0.05, a difference counts as "
        f"significant. Bars run from -{100 * limit:.0f} to +{100 * limit:.0f} points. Compare runs "
        "with the same split: test photos that are training photos of another run would inflate "
        "its accuracy.</p>"
    )
    body = intro + table("Differences", columns, rows, "lnnnnnn")
    return section("differences", "Differences", body)


def _per_class_recall(runs: Sequence[Run]) -> str:
    labels: dict[str, None] = {}
    for run in runs:
        labels |= dict.fromkeys(run.evaluation.class_names)
    recalls = [{m.label: m.recall for m in run.evaluation.per_class} for run in runs]
    rows = [
        (
            name(label),
            *(
                with_interval(by_label[label]) if label in by_label else NONE
                for by_label in recalls
            ),
        )
        for label in labels
    ]
    columns = ("class", *(name(run.name) for run in runs))
    body = table("Per-class recall", columns, rows, "l" + "n" * len(runs))
    return section("per-class-recall", "Per-class recall", body)


def _cost(runs: Sequence[Run]) -> str:
    phases: dict[str, None] = {}
    for run in runs:
        phases |= dict.fromkeys(run.phases)
    rows = [
        (
            escape(phase),
            *(duration(run.phases[phase]) if phase in run.phases else NONE for run in runs),
        )
        for phase in phases
    ]
    rows.append(("total", *(duration(run.seconds) for run in runs)))
    rows += [
        (key, *(escape(run.environment.get(key, NONE)) for run in runs)) for key in MEMORY_KEYS
    ]
    columns = ("phase", *(name(run.name) for run in runs))
    times = table("Time and memory", columns, rows, "l" + "n" * len(runs))
    return section("cost", "Time and memory", f"<p>{MEMORY_NOTE}</p>{times}")


def _settings(runs: Sequence[Run]) -> str:
    """A table of the settings that differ; the others on one line."""
    settings = [
        {"kept": run.kept}
        | {key: str(value) for key, value in run.settings.items()}
        | {key: value for key, value in run.environment.items() if key not in MEMORY_KEYS}
        for run in runs
    ]
    keys: dict[str, None] = {}
    for values in settings:
        keys |= dict.fromkeys(values)
    different = [key for key in keys if len({values.get(key) for values in settings}) > 1]
    rows = [
        (escape(key.replace("_", " ")), *(escape(values.get(key, NONE)) for values in settings))
        for key in different
    ]
    columns = ("setting", *(name(run.name) for run in runs))
    differences = (
        table("Different settings", columns, rows, "l" * (1 + len(runs)))
        if rows
        else "<p>All settings are the same.</p>"
    )
    same = [f"{key.replace('_', ' ')} {settings[0][key]}" for key in keys if key not in different]
    common = f"<p>The same in all runs: {escape('; '.join(same))}.</p>" if same else ""
    return section("settings", "Settings", common + differences)
