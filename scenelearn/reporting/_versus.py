"""The page of several runs: how each does, and which differences are more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scenelearn.reporting import _figures as figures
from scenelearn.reporting._markup import (
    NONE,
    count,
    duration,
    name,
    percent,
    section,
    span,
    table,
    text,
)
from scenelearn.reporting._runs import Pair, Run
from scenelearn.reporting._sentences import MEMORY, MEMORY_FACTS, measured
from scenelearn.reporting._shell import document

_LEVEL = 0.05
_PARTS = (
    ("runs", "Runs"),
    ("pairs", "Differences"),
    ("classes", "Classes"),
    ("cost", "Cost"),
    ("settings", "Settings"),
)


def versus_page(runs: Sequence[Run], pairs: Sequence[Pair]) -> str:
    """The page as HTML."""
    links = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title in _PARTS)
    body = (
        f'<main>\n<header>\n<p class="eyebrow">scenelearn report</p>\n'
        f"<h1>{count(len(runs), 'run')} compared</h1>\n"
        f"{_verdict(runs, pairs)}\n"
        f'<nav aria-label="Parts of the report"><ul>{links}</ul></nav>\n</header>\n'
        f"{_runs(runs)}{_pairs(runs, pairs)}{_classes(runs)}{_cost(runs)}{_settings(runs)}"
        "</main>\n<footer><p>All numbers of this page are in <code>comparison.json</code>.</p>"
        "</footer>\n"
    )
    return document(f"{len(runs)} runs compared · scenelearn", body)


def versus_json(runs: Sequence[Run], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The numbers of the page as plain values."""
    return {
        "runs": [
            {
                "name": run.name,
                "kept": run.kept,
                "evaluation": run.evaluation.to_json(),
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
                "comparison": pair.comparison.to_json() if pair.comparison else None,
                "corrected": pair.corrected if pair.comparison else None,
                "is_whole": pair.is_whole,
            }
            for pair in pairs
        ],
    }


def _verdict(runs: Sequence[Run], pairs: Sequence[Pair]) -> str:
    """Which run reaches most, and of which others that is more than chance."""
    best = max(range(len(runs)), key=lambda k: runs[k].evaluation.accuracy.value)
    judged = runs[best].evaluation
    beaten: list[str] = []
    equal: list[str] = []
    apart: list[str] = []
    for pair in pairs:
        if best not in (pair.a, pair.b):
            continue
        other = name(runs[pair.b if pair.a == best else pair.a].name)
        which = apart if pair.comparison is None else beaten if _differs(pair) else equal
        which.append(other)
    lead = (
        f"{name(runs[best].name)} recognizes <strong>{percent(judged.accuracy.value)}</strong> of "
        f"{count(judged.n_photos, 'test photo')} (95\N{NO-BREAK SPACE}% interval "
        f"{span(judged.accuracy.low, judged.accuracy.high)})."
    )
    told = []
    if beaten:
        told.append(f"The difference to {_listed(beaten)} is significant.")
    if equal:
        told.append(f"The difference to {_listed(equal)} may be chance.")
    if apart:
        told.append(f"With {_listed(apart)} it shares no test photos: they cannot be compared.")
    return f'<p class="lead">{lead}</p>\n<p>{" ".join(told)}</p>'


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _differs(pair: Pair) -> bool:
    return pair.comparison is not None and pair.corrected < _LEVEL


def _runs(runs: Sequence[Run]) -> str:
    rows = [
        (
            name(run.name),
            percent(run.evaluation.accuracy.value) + figures.interval_bar(run.evaluation.accuracy),
            span(run.evaluation.accuracy.low, run.evaluation.accuracy.high),
            percent(run.evaluation.balanced_accuracy.value),
            percent(run.evaluation.calibration_error),
            f"{run.evaluation.n_photos:,}",
        )
        for run in runs
    ]
    columns = (
        "run", "accuracy", "95 % interval", "mean recall", "calibration error", "test photos",
    )  # fmt: skip
    intro = (
        "<p>Each run on its own test photos. Whether two differ is not told by their intervals, "
        "but photo by photo, below.</p>"
    )
    return section("runs", "What each run reaches", intro + table("Runs", columns, rows, "lnnnnn"))


def _pairs(runs: Sequence[Run], pairs: Sequence[Pair]) -> str:
    found = [pair.comparison.difference for pair in pairs if pair.comparison]
    reach = max([0.05, *(abs(end) for d in found for end in (d.low, d.high))])
    rows = []
    for pair in pairs:
        names = f"{name(runs[pair.b].name)} against {name(runs[pair.a].name)}"
        one = pair.comparison
        if one is None:
            rows.append((names, "no shared test photos, or other classes", *[NONE] * 5))
            continue
        d = one.difference
        mark = '<span class="rare">significant</span>' if _differs(pair) else ""
        rows.append(
            (
                names + mark,
                f"{100 * d.value:+.1f} points" + figures.difference_bar(d, reach),
                f"{100 * d.low:+.1f} to {100 * d.high:+.1f}",
                f"{pair.corrected:.2g}",
                f"{one.n_only_b:,}",
                f"{one.n_only_a:,}",
                f"{one.n_photos:,}{'' if pair.is_whole else ' shared'}",
            )
        )
    columns = (
        "runs", "difference", "95 % interval", "p-value", "only the first right",
        "only the second right", "photos",
    )  # fmt: skip
    intro = (
        "<p>Two runs on the same photos, told by their content: the difference of their "
        "accuracies with its interval (a paired bootstrap), and the chance of one so large if "
        "both were equally good (McNemar's exact test), corrected for the number of pairs (Holm); "
        "below 0.05 it counts as a difference. The bars run from "
        f"-{100 * reach:.0f} to +{100 * reach:.0f} points. Photos that another run has trained on "
        "would flatter it: runs with one split have one test set.</p>"
    )
    body = intro + table("Every pair", columns, rows, "lnnnnnn")
    return section("pairs", "Which differences are more than chance", body)


def _classes(runs: Sequence[Run]) -> str:
    names: dict[str, None] = {}
    for run in runs:
        names |= dict.fromkeys(run.evaluation.class_names)
    scores = [{score.name: score for score in run.evaluation.per_class} for run in runs]
    rows = [
        (
            name(one),
            *(measured(of[one].recall) if one in of else NONE for of in scores),
        )
        for one in names
    ]
    columns = ("class", *(name(run.name) for run in runs))
    body = table("Recall by class and run", columns, rows, "l" + "n" * len(runs))
    return section("classes", "Recall, class by class", body)


def _cost(runs: Sequence[Run]) -> str:
    phases: dict[str, None] = {}
    for run in runs:
        phases |= dict.fromkeys(run.phases)
    rows = [
        (
            text(phase),
            *(duration(run.phases[phase]) if phase in run.phases else NONE for run in runs),
        )
        for phase in phases
    ]
    rows.append(("together", *(duration(run.seconds) for run in runs)))
    rows += [(key, *(text(run.environment.get(key, NONE)) for run in runs)) for key in MEMORY_FACTS]
    columns = ("phase", *(name(run.name) for run in runs))
    body = f"<p>{MEMORY}</p>" + table("Cost by run", columns, rows, "l" + "n" * len(runs))
    return section("cost", "Time and memory", body)


def _settings(runs: Sequence[Run]) -> str:
    """What differs between the runs; the rest in one line."""
    facts = [
        {"kept": run.kept}
        | {key: str(value) for key, value in run.settings.items()}
        | {key: value for key, value in run.environment.items() if key not in MEMORY_FACTS}
        for run in runs
    ]
    keys: dict[str, None] = {}
    for one in facts:
        keys |= dict.fromkeys(one)
    differ = [key for key in keys if len({one.get(key) for one in facts}) > 1]
    rows = [
        (text(key.replace("_", " ")), *(text(one.get(key, NONE)) for one in facts))
        for key in differ
    ]
    same = [f"{key.replace('_', ' ')} {facts[0][key]}" for key in keys if key not in differ]
    columns = ("setting", *(name(run.name) for run in runs))
    shown = (
        table("Settings that differ", columns, rows, "l" * (1 + len(runs)))
        if rows
        else "<p>The runs do not differ in any setting.</p>"
    )
    alike = f"<p>Alike in all: {text('; '.join(same))}.</p>" if same else ""
    return section("settings", "In what the runs differ", alike + shown)
