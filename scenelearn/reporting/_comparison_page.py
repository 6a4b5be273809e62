"""The page that compares several fits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scenelearn._json import dataclass_json
from scenelearn.reporting._fit_page import MEMORY_KEYS
from scenelearn.reporting._render import NONE, duration, render, with_interval
from scenelearn.reporting._runs import Pair, Run


def comparison_page(runs: Sequence[Run], pairs: Sequence[Pair], folder: Path) -> str:
    """The page as HTML, to be written to a folder. Runs link to their reports below it."""
    best = max(range(len(runs)), key=lambda k: runs[k].evaluation.accuracy.value)
    others: dict[str, list[str]] = {"significant": [], "insignificant": [], "incomparable": []}
    for pair in pairs:
        if best in (pair.a, pair.b):
            kind = "significant" if pair.is_significant else "insignificant"
            other = runs[pair.b if pair.a == best else pair.a].name
            others[kind if pair.comparison else "incomparable"].append(other)
    differences = [pair.comparison.accuracy_difference for pair in pairs if pair.comparison]
    recalls = [
        {metrics.label: with_interval(metrics.recall) for metrics in run.evaluation.per_class}
        for run in runs
    ]
    phases = [{phase: duration(seconds) for phase, seconds in run.phases.items()} for run in runs]
    totals = [
        {"total": duration(run.seconds)}
        | {key: run.environment.get(key, NONE) for key in MEMORY_KEYS}
        for run in runs
    ]
    settings = _by_key(
        [
            {
                key.replace("_", " "): str(value)
                for key, value in ({"kept": run.kept} | run.settings | run.environment).items()
                if key not in MEMORY_KEYS
            }
            for run in runs
        ]
    )
    return render(
        "comparison.html",
        runs=runs,
        pairs=pairs,
        links=[_link(run.page, folder) for run in runs],
        best=runs[best],
        others=others,
        limit=max([0.05, *(abs(end) for d in differences for end in (d.low, d.high))]),
        recalls=_by_key(recalls),
        phases=_by_key(phases) | _by_key(totals),
        same_settings=[f"{key} {row[0]}" for key, row in settings.items() if len(set(row)) == 1],
        different_settings={key: row for key, row in settings.items() if len(set(row)) > 1},
    )


def comparison_json(runs: Sequence[Run], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The numbers on the page as plain values."""
    names = [run.name for run in runs]
    return {
        "runs": [dataclass_json(run, omit=("predictions", "page")) for run in runs],
        "pairs": [
            dataclass_json(pair) | {"a": names[pair.a], "b": names[pair.b]} for pair in pairs
        ],
    }


def _link(page: Path | None, folder: Path) -> str:
    """The relative URL of a page below a folder; empty for one elsewhere, which may not move."""
    if page is None or not page.resolve().is_relative_to(folder.resolve()):
        return ""
    return quote(os.fsencode(page.resolve().relative_to(folder.resolve())).replace(b"\\", b"/"))


def _by_key(columns: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """One row per key that any column has, with a dash where a column lacks it."""
    keys = dict.fromkeys(key for column in columns for key in column)
    return {key: [column.get(key, NONE) for column in columns] for key in keys}
