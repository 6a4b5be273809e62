"""The comparison page: paired on shared photos, escaped names; and audits in fit reports."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

import scenelearn as sl
from scenelearn import _json, cli
from scenelearn.errors import ArgumentError
from scenelearn.finetune import FitResult
from scenelearn.reporting import report
from tests.helpers.results import HOSTILE, Page, make_audit, make_fit, with_errors


@pytest.fixture
def fit(tmp_path: Path) -> FitResult:
    return make_fit(tmp_path / "photos")


def write_comparison(results: Any, folder: Path) -> tuple[Page, dict[str, Any]]:
    page = report(results, folder)
    assert sorted(file.name for file in folder.iterdir()) == ["comparison.json", "index.html"]
    value: dict[str, Any] = json.loads((folder / "comparison.json").read_text())
    return Page(page.read_text(encoding="utf-8")), value


def test_runs_are_compared_on_the_same_photos(fit: FitResult, tmp_path: Path) -> None:
    settings = dataclasses.replace(fit.settings, learning_rate=0.25)
    environment = fit.environment | {"memory measured": "123 MB"}
    best = with_errors(fit, 0)
    worst = with_errors(fit, 8, settings=settings, environment=environment)
    page, value = write_comparison(
        {"large": best, "small": worst, "third": with_errors(fit, 1)}, tmp_path / "c"
    )
    (pair,) = (p for p in value["pairs"] if (p["a"], p["b"]) == ("large", "small"))
    comparison = pair["comparison"]
    assert (
        comparison["n_photos"],
        comparison["n_only_a_correct"],
        comparison["n_only_b_correct"],
    ) == (12, 8, 0)
    assert comparison["p_value"] == pytest.approx(binomtest(8, 8).pvalue)
    assert pair["adjusted_p_value"] == pytest.approx(
        3 * comparison["p_value"]
    )  # Holm, of three pairs
    assert pair["same_photos"]
    assert "large has the highest accuracy: 100.0% on 12 test photos" in page.text
    for words in ("to small is significant.", "to third is not significant."):
        assert f"The difference {words}" in page.text
    assert "small minus large significant -66.7 points" in page.text
    for words in ("learning rate 0.001 0.25", "memory measured – 123 MB –", "8.2 s"):
        assert words in page.text


def test_best_of_six_runs_is_compared_as_one_of_all_pairs(fit: FitResult, tmp_path: Path) -> None:
    runs = [with_errors(fit, n_errors) for n_errors in (8, 0, 8, 8, 8, 8)]
    _, value = write_comparison(
        {f"run {k}": run for k, run in enumerate(runs)}, tmp_path / "comparison"
    )
    assert len(value["pairs"]) == 5
    for pair in value["pairs"]:
        expected = min(1, 15 * binomtest(8, 8).pvalue)  # Holm, of fifteen pairs
        assert "run 1" in (pair["a"], pair["b"])
        assert pair["adjusted_p_value"] == pytest.approx(expected)


def test_many_probabilities_are_saved_compactly(
    fit: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {"one": with_errors(fit, 1), "three": with_errors(fit, 3)}
    expected = write_comparison(runs, tmp_path / "expected")[1]
    monkeypatch.setattr(_json, "_MAX_LISTED", runs["one"].test_probabilities.size - 1)
    for name, run in runs.items():
        report(run, tmp_path / name)
    saved = json.loads((tmp_path / "one/result.json").read_text())["test"]
    numbers = np.frombuffer(base64.b64decode(saved[2]["probabilities"]), "<f4")
    np.testing.assert_array_equal(numbers, runs["one"].test_probabilities[2])
    _, value = write_comparison({n: tmp_path / n for n in runs}, tmp_path / "c")
    assert value["pairs"] == expected["pairs"]


def test_saved_results_compare_like_fits(fit: FitResult, tmp_path: Path) -> None:
    runs = [with_errors(fit, 1), with_errors(fit, 3)]
    for k, run in enumerate(runs):
        report(run, tmp_path / f"run {k}" / "report")
    _, of_fits = write_comparison({"run 0": runs[0], "run 1": runs[1]}, tmp_path / "a")
    for where in (["run 0", "run 1"], ["run 0/report", "run 1/report/result.json"]):
        _, saved = write_comparison([tmp_path / path for path in where], tmp_path / "b")
        assert [run["name"] for run in saved["runs"]] == ["run 0", "run 1"]
        np.testing.assert_allclose(
            [run["evaluation"]["brier_score"] for run in saved["runs"]],
            [run["evaluation"]["brier_score"] for run in of_fits["runs"]],
        )
        assert saved["pairs"] == of_fits["pairs"]


def test_only_shared_photos_are_paired(fit: FitResult, tmp_path: Path) -> None:
    few = dataclasses.replace(
        with_errors(fit, 0),
        test_indices=fit.test_indices[:5],
        test_probabilities=with_errors(fit, 0).test_probabilities[:5],
    )
    page, value = write_comparison([fit, few], tmp_path / "c")
    assert value["pairs"][0]["comparison"]["n_photos"] == 5
    assert not value["pairs"][0]["same_photos"]
    assert "5 shared" in page.text
    other = make_fit(tmp_path / "others", names=("sea", "sky"))
    page, value = write_comparison([fit, other], tmp_path / "d")
    assert value["pairs"][0]["comparison"] is None
    assert "no shared test photos, or different classes." in page.text


def test_with_many_runs_only_the_best_is_compared_with_the_others(
    fit: FitResult, tmp_path: Path
) -> None:
    runs = [with_errors(fit, n) for n in (4, 3, 0, 5, 2, 1)]
    _, value = write_comparison(runs, tmp_path / "c")
    assert len(value["pairs"]) == 5
    assert {pair["a"] for pair in value["pairs"]} == {"run 3"}


def test_names_are_escaped(tmp_path: Path) -> None:
    fit = make_fit(tmp_path / "photos", names=HOSTILE)
    hostile = dataclasses.replace(
        fit,
        kept=HOSTILE[0],
        environment={HOSTILE[0]: HOSTILE[1], "memory measured": HOSTILE[2]},
        settings=dataclasses.replace(fit.settings, weights=HOSTILE[1]),
    )
    page, _ = write_comparison({HOSTILE[0]: fit, HOSTILE[1]: hostile}, tmp_path / "c")
    assert page.unclosed == []
    assert page.all("img") == page.all("script") == []
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    for name in HOSTILE[:3]:
        assert name in page.text
    assert "\u202e" not in page.text


def test_comparison_page_is_accessible(fit: FitResult, tmp_path: Path) -> None:
    page, _ = write_comparison([with_errors(fit, 0), with_errors(fit, 3)], tmp_path / "c")
    ids = [element["id"] for _, element in page.elements if element.get("id")]
    assert len(ids) == len(set(ids))
    assert {str(element["href"])[1:] for element in page.all("a")} <= set(ids)
    assert all(element.get("scope") in ("col", "row") for element in page.all("th"))
    assert all(
        element.get("aria-hidden") == "true" or element.get("aria-label")
        for element in page.all("svg")
    )


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
def test_invalid_result_file(
    fit: FitResult, tmp_path: Path, content: str | None, words: str
) -> None:
    file = tmp_path / "result.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ArgumentError, match=f"(?s)must be the result.json.*{words}"):
        report([fit, file], tmp_path / "c")


@pytest.mark.parametrize("results", [[], ["one"], {"a": 1}, "folder"])
def test_fewer_than_two_runs(tmp_path: Path, results: Any) -> None:
    with pytest.raises(ArgumentError, match="`result` must contain at least two fits"):
        report(results, tmp_path / "c")


def test_invalid_run(fit: FitResult, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="Received: int"):
        report([fit, 3], tmp_path / "c")


def test_command(fit: FitResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in (1, 2):
        report(with_errors(fit, k), tmp_path / str(k))
    out = tmp_path / "out"
    assert cli.main(["report", str(tmp_path / "1"), str(tmp_path / "2"), "--out", str(out)]) == 0
    assert f"Report: {out / 'index.html'}" in capsys.readouterr().out


def test_page_of_all_runs_in_a_folder_links_to_their_reports(
    fit: FitResult, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    for k, name in enumerate(("a run", "b#1"), start=1):
        report(with_errors(fit, k), runs / name / "report")
    report(with_errors(fit, 3), tmp_path / "elsewhere")
    (runs / "cv").mkdir()
    (runs / "cv" / "result.json").write_text('{"folds": [], "test": []}')  # no run to compare
    (runs / "other").mkdir()
    (runs / "other" / "result.json").write_text("{}\n{}\n")  # of another tool

    for _ in range(2):  # the page itself is no run
        page = Page(report(runs, runs).read_text(encoding="utf-8"))
        links = [str(a["href"]) for a in page.all("a") if not str(a["href"]).startswith("#")]
        assert links == ["a%20run/report/index.html", "b%231/report/index.html"]
    assert "Comparison of 2 runs" in page.text
    assert "a run has the highest accuracy" in page.text
    page = Page(report([runs, tmp_path / "elsewhere"], tmp_path / "c").read_text(encoding="utf-8"))
    assert "Comparison of 3 runs" in page.text
    assert all(str(a["href"]).startswith("#") for a in page.all("a"))  # none is below the page


# An audit in the report of a fit


def test_near_duplicates_and_leaks_are_shown(fit: FitResult, tmp_path: Path) -> None:
    def text(*groups: tuple[int, ...]) -> str:
        page = report(fit, tmp_path / "r", audit=make_audit(fit, *groups))
        return Page(page.read_text(encoding="utf-8")).text

    assert "There are no exact or near-duplicates." in text()
    one_split = text((0, 2))  # both are test photos
    assert "1 group of exact or near-duplicates" in one_split
    assert "There are no leaks between splits." in one_split
    leak = text((0, 2), (3, 4))  # training and test
    assert "1 leak between splits" in leak
    assert "Next steps The accuracy is too high: 1 picture is in several splits." in leak
    assert "The accuracy is too high" not in one_split
    assert "photo '3'.jpg" in leak
    assert "1 group with conflicting labels." in text((0, 10))


def test_audit_of_other_photos(fit: FitResult, tmp_path: Path) -> None:
    other = make_fit(tmp_path / "others", names=("sea", "sky"))
    with pytest.raises(ArgumentError, match="`audit` must be an audit of the photos of the fit"):
        report(fit, tmp_path / "r", audit=make_audit(other))
    with pytest.raises(ArgumentError, match="`audit` must be an audit of the photos of the fit"):
        report([fit, fit], tmp_path / "r", audit=make_audit(fit))


@pytest.mark.slow
def test_bundle_and_card_name_the_license_of_the_weights(fitted: FitResult, tmp_path: Path) -> None:
    license_ = "none: random weights, trained on your photos only"
    loaded = sl.load(fitted.save(tmp_path / "scenes.keras"))
    assert loaded.metadata["weights' license"] == license_
    report(fitted, tmp_path / "r")
    card = (tmp_path / "r" / "model-card.md").read_text(encoding="utf-8")
    assert f"| weights' license | {license_} |" in card


def test_report_shows_predicted_and_measured_memory(fitted: FitResult, tmp_path: Path) -> None:
    predicted, measured = (fitted.environment[f"memory {w}"] for w in ("predicted", "measured"))
    for words, least in ((predicted, 1e6), (measured, 50e6)):
        assert sl.sizing.parse_bytes(words) > least
    page = Page(sl.report(fitted, tmp_path / "r").read_text(encoding="utf-8"))
    assert f"memory measured {measured}" in page.text
    assert "test photo" in page.text
