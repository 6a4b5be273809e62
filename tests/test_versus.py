"""Several runs on one page: paired on the photos that they share, and inert names."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

import scenelearn as sl
from scenelearn import cli
from scenelearn.data import Audit
from scenelearn.errors import ArgumentError
from scenelearn.finetune import FitResult
from scenelearn.metrics import evaluate
from scenelearn.reporting import report
from tests.test_reporting import HOSTILE, Page, make_fit


@pytest.fixture
def fit(tmp_path: Path) -> FitResult:
    return make_fit(tmp_path / "photos")


def judged(fit: FitResult, n_wrong: int, **changes: Any) -> FitResult:
    """The same fit with its first `n_wrong` test photos mistaken, and no others."""
    labels = fit.splits.photos.labels[fit.test_indices]
    names = fit.splits.photos.class_names
    said = np.where(np.arange(len(labels)) < n_wrong, labels + 1, labels) % len(names)
    table = np.full((len(labels), len(names)), 0.1 / (len(names) - 1), np.float32)
    table[np.arange(len(labels)), said] = 0.9
    return dataclasses.replace(
        fit,
        test_probabilities=table,
        evaluation=evaluate(labels, table, names),
        **changes,
    )


def compared(results: Any, folder: Path) -> tuple[Page, dict[str, Any]]:
    page = report(results, folder)
    assert sorted(one.name for one in folder.iterdir()) == ["comparison.json", "index.html"]
    value: dict[str, Any] = json.loads((folder / "comparison.json").read_text())
    return Page(page.read_text(encoding="utf-8")), value


def test_runs_are_compared_photo_by_photo(fit: FitResult, tmp_path: Path) -> None:
    settings = dataclasses.replace(fit.settings, learning_rate=0.25)
    environment = fit.environment | {"memory measured": "123 MB"}
    best = judged(fit, 0)
    worst = judged(fit, 8, settings=settings, environment=environment)
    page, value = compared({"large": best, "small": worst, "third": judged(fit, 1)}, tmp_path / "c")
    (pair,) = (one for one in value["pairs"] if (one["a"], one["b"]) == ("large", "small"))
    found = pair["comparison"]
    assert (found["n_photos"], found["n_only_a"], found["n_only_b"]) == (12, 8, 0)
    assert found["p_value"] == pytest.approx(binomtest(8, 8).pvalue)
    assert pair["corrected"] == pytest.approx(3 * found["p_value"])  # Holm, of three pairs
    assert pair["is_whole"]
    assert "large recognizes 100.0 % of 12 test photos" in page.text
    told = "The difference to small is significant. The difference to third may be chance."
    assert told in page.text
    assert "small against large significant -66.7 points" in page.text
    for words in ("learning rate 0.001 0.25", "memory measured – 123 MB –", "8.2 s"):
        assert words in page.text


def test_saved_results_are_as_good_as_fits(fit: FitResult, tmp_path: Path) -> None:
    runs = [judged(fit, 1), judged(fit, 3)]
    for k, one in enumerate(runs):
        report(one, tmp_path / f"run {k}" / "report")
    _, of_fits = compared({"run 0": runs[0], "run 1": runs[1]}, tmp_path / "a")
    for where in (["run 0", "run 1"], ["run 0/report", "run 1/report/result.json"]):
        _, saved = compared([tmp_path / one for one in where], tmp_path / "b")
        assert [one["name"] for one in saved["runs"]] == ["run 0", "run 1"]
        np.testing.assert_allclose(
            [one["evaluation"]["brier"] for one in saved["runs"]],
            [one["evaluation"]["brier"] for one in of_fits["runs"]],
        )
        assert saved["pairs"] == of_fits["pairs"]


def test_only_shared_photos_are_paired(fit: FitResult, tmp_path: Path) -> None:
    few = dataclasses.replace(
        judged(fit, 0),
        test_indices=fit.test_indices[:5],
        test_probabilities=judged(fit, 0).test_probabilities[:5],
    )
    page, value = compared([fit, few], tmp_path / "c")
    assert value["pairs"][0]["comparison"]["n_photos"] == 5
    assert not value["pairs"][0]["is_whole"]
    assert "5 shared" in page.text
    other = make_fit(tmp_path / "others", names=("sea", "sky"))
    page, value = compared([fit, other], tmp_path / "d")
    assert value["pairs"][0]["comparison"] is None
    assert "shares no test photos: they cannot be compared" in page.text


def test_of_many_runs_the_best_is_compared_with_each(fit: FitResult, tmp_path: Path) -> None:
    runs = [judged(fit, n) for n in (4, 3, 0, 5, 2, 1)]
    _, value = compared(runs, tmp_path / "c")
    assert len(value["pairs"]) == 5
    assert {one["a"] for one in value["pairs"]} == {"run 3"}


def test_names_are_inert(tmp_path: Path) -> None:
    fit = make_fit(tmp_path / "photos", names=HOSTILE)
    hostile = dataclasses.replace(
        fit,
        kept=HOSTILE[0],
        environment={HOSTILE[0]: HOSTILE[1], "memory measured": HOSTILE[2]},
        settings=dataclasses.replace(fit.settings, weights=HOSTILE[1]),
    )
    page, _ = compared({HOSTILE[0]: fit, HOSTILE[1]: hostile}, tmp_path / "c")
    assert page.unclosed == []
    assert page.all("img") == page.all("script") == []
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    for name in HOSTILE[:3]:
        assert name in page.text
    assert "\u202e" not in page.text


def test_page_of_runs_is_accessible(fit: FitResult, tmp_path: Path) -> None:
    page, _ = compared([judged(fit, 0), judged(fit, 3)], tmp_path / "c")
    ids = [one["id"] for _, one in page.elements if one.get("id")]
    assert len(ids) == len(set(ids))
    assert {str(one["href"])[1:] for one in page.all("a")} <= set(ids)
    assert all(one.get("scope") in ("col", "row") for one in page.all("th"))
    assert all(one.get("aria-hidden") == "true" or one.get("aria-label") for one in page.all("svg"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("no json", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ("[]", "TypeError"),
        ("{}", "KeyError: 'splits'"),
        ('{"splits": {"class_names": ["a"], "test": []}, "test": []}', "ArgumentError"),
    ],
)
def test_what_is_no_result(fit: FitResult, tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "result.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ArgumentError, match=f"(?s)must be the result.json.*{words}"):
        report([fit, file], tmp_path / "c")


@pytest.mark.parametrize("results", [[], ["one"], {"a": 1}, "folder"])
def test_fewer_than_two(tmp_path: Path, results: Any) -> None:
    with pytest.raises(ArgumentError, match="`result` must hold at least two fits"):
        report(results, tmp_path / "c")


def test_what_is_no_run(fit: FitResult, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="Received: int"):
        report([fit, 3], tmp_path / "c")


def test_command(fit: FitResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in (1, 2):
        report(judged(fit, k), tmp_path / str(k))
    out = tmp_path / "out"
    assert cli.main(["report", str(tmp_path / "1"), str(tmp_path / "2"), "--out", str(out)]) == 0
    assert f"Page: {out / 'index.html'}" in capsys.readouterr().out


# What an audit adds to the page of a fit


def with_groups(fit: FitResult, *groups: tuple[int, ...]) -> Audit:
    photos = fit.splits.photos
    numbers = np.arange(len(photos))
    for group in groups:
        numbers[list(group)] = group[0]
    return Audit(
        photos=photos, groups=numbers, copies=(), alike=groups, two_labels=(), across_sides=(),
        blank=(), tiny=(), animated=(), suspicious=(), refused=(),
    )  # fmt: skip


def test_near_copies_are_named_with_their_sides(fit: FitResult, tmp_path: Path) -> None:
    def text(*groups: tuple[int, ...]) -> str:
        page = report(fit, tmp_path / "r", audit=with_groups(fit, *groups))
        return Page(page.read_text(encoding="utf-8")).text

    assert "No picture is there twice, not even re-encoded" in text()
    one_side = text((0, 2))  # both are test photos
    assert "1 picture is there in several files" in one_side
    assert "Each of them lies on one side of this split" in one_side
    leak = text((0, 2), (3, 4))  # training and test
    assert "1 picture on two sides of this split" in leak
    assert "photo '3'.jpg" in leak
    assert "1 picture under two classes" in text((0, 10))


def test_audit_of_other_photos(fit: FitResult, tmp_path: Path) -> None:
    other = make_fit(tmp_path / "others", names=("sea", "sky"))
    with pytest.raises(ArgumentError, match="`audit` must be of the photos of the fit"):
        report(fit, tmp_path / "r", audit=with_groups(other))
    with pytest.raises(ArgumentError, match="`audit` must be of the photos of the fit"):
        report([fit, fit], tmp_path / "r", audit=with_groups(fit))


def test_bundle_and_card_name_the_license_of_the_weights(fitted: FitResult, tmp_path: Path) -> None:
    said = "none: random weights, trained on your own photos alone"
    loaded = sl.load(fitted.save(tmp_path / "scenes.keras"))
    assert loaded.facts["weights' license"] == said
    report(fitted, tmp_path / "r")
    card = (tmp_path / "r" / "model-card.md").read_text(encoding="utf-8")
    assert f"| weights&#39; license | {said} |" in card


def test_a_fit_says_what_memory_it_took(fitted: FitResult, tmp_path: Path) -> None:
    predicted, measured = (fitted.environment[f"memory {w}"] for w in ("predicted", "measured"))
    for words, least in ((predicted, 1e6), (measured, 50e6)):
        assert sl.sizing.parse_bytes(words) > least
    page = Page(sl.report(fitted, tmp_path / "r").read_text(encoding="utf-8"))
    assert f"memory measured {measured}" in page.text
    assert "test photo" in page.text
