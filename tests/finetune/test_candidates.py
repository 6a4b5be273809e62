"""The networks among which "auto" chooses, and the accuracies that rank them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean

import pytest

import scenelearn
from scenelearn.backbones._names import find_architecture
from scenelearn.finetune._candidates import CANDIDATES

RESULTS = Path(scenelearn.__file__).parent.parent / "docs" / "results"


def test_each_accuracy_is_the_published_one() -> None:
    rows = json.loads((RESULTS / "published.json").read_text(encoding="utf-8"))["rows"]
    published = {row["network"]: (row["top1"], row["source"]) for row in rows}
    for candidate in CANDIDATES:
        assert find_architecture(candidate.name).name == candidate.name
        assert (candidate.top1, candidate.source) == published[candidate.name]
    accuracies = [candidate.top1 for candidate in CANDIDATES]
    assert accuracies == sorted(accuracies)


@pytest.mark.parametrize("minutes", [None, 4.5])
def test_measured_accuracies_have_the_same_order(minutes: float | None) -> None:
    values = defaultdict(list)
    for name in ("intel", "backbones"):
        for run in json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["runs"]:
            settings = run["settings"]
            if settings["image_px"] == 160 and run["minutes"] == minutes:
                values[settings["backbone"]].append(run["validation"]["value"])
    measured = [candidate.name for candidate in CANDIDATES if candidate.name in values]
    assert len(measured) >= 3
    assert sorted(measured, key=lambda name: mean(values[name])) == measured
