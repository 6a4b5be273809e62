"""Reports: correct numbers, escaped names, self-contained pages."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import math
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import scenelearn as sl
from scenelearn.data import Rejected, RejectionReason
from scenelearn.errors import ArgumentError
from scenelearn.finetune import FitResult, Phase, Recipe
from scenelearn.metrics import evaluate, wilson
from scenelearn.reporting import report
from scenelearn.reporting._analysis import calibration_limit, coverage_limit, leading_metric
from tests.helpers.patches import show_confusion_matrix, show_findings, show_photos_in_cells
from tests.helpers.results import (
    HOSTILE,
    Explainer,
    Page,
    make_audit,
    make_fit,
    with_slices_and_sets,
)


@pytest.fixture
def fit(tmp_path: Path) -> FitResult:
    return make_fit(tmp_path / "photos")


def write_page(fit: FitResult, folder: Path) -> Page:
    return Page(report(fit, folder).read_text(encoding="utf-8"))


def strict_json(file: Path) -> Any:
    def fail(constant: str) -> None:
        pytest.fail(f"{file} contains {constant}, which is not JSON")

    return json.loads(file.read_text(encoding="utf-8"), parse_constant=fail)


def test_report_writes_the_page_and_its_numbers_only(fit: FitResult, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"

    index = report(fit, folder)
    report(fit, str(folder))

    assert index == folder / "index.html"
    names = ["index.html", "model-card.md", "result.json", "split.csv"]
    assert sorted(file.name for file in folder.iterdir()) == names


def test_page_and_card_say_if_validation_photos_are_too_few(fit: FitResult, tmp_path: Path) -> None:
    fit = with_slices_and_sets(fit)
    for is_few in (False, True):
        few = SimpleNamespace(
            detects_ood=not is_few, guarantees=lambda _, is_few=is_few: not is_few
        )
        classifier = Explainer()
        classifier.calibration = few
        page = write_page(dataclasses.replace(fit, classifier=classifier), tmp_path / "report")
        card = (tmp_path / "report" / "model-card.md").read_text(encoding="utf-8")
        assert ("so each set contains all classes" in page.text) == is_few
        assert ("this takes at least 33 validation photos" in page.text) == is_few
        assert ("By design, about 3%" in page.text) != is_few
        assert ("does not detect out-of-distribution photos" in card) == is_few


def test_page_states_the_evaluation(fit: FitResult, tmp_path: Path) -> None:
    page = write_page(fit, tmp_path / "report")
    evaluation = fit.evaluation

    assert (
        f"The fine-tuned network has an accuracy of {100 * evaluation.accuracy.value:.1f}%"
        in page.text
    )
    low, high = evaluation.accuracy.low, evaluation.accuracy.high
    assert (
        f"on 12 test photos (95% confidence interval {100 * low:.1f} to {100 * high:.1f}%)"
        in page.text
    )
    assert "The fit took 8.2 s." in page.text
    assert f"Balanced accuracy {100 * evaluation.balanced_accuracy.value:.1f}%" in page.text
    assert "Validation accuracy 100.0%" in page.text
    assert "Baseline accuracy 33.3%" in page.text
    assert "Misclassified photos 3 of 12" in page.text
    for metrics in evaluation.per_class:
        recall = metrics.recall
        assert (
            f"{metrics.label} {metrics.n_photos} {100 * recall.value:.1f}% "
            f"{100 * recall.low:.1f} to {100 * recall.high:.1f}% "
            f"{100 * metrics.precision.value:.1f}% {metrics.f1.value:.3f}"
        ) in page.text
    for metrics, row in zip(evaluation.per_class, evaluation.confusion_matrix, strict=True):
        cells = [f"{n} {100 * n / metrics.n_photos:.1f}%" if n else "0" for n in row]
        assert " ".join([metrics.label, *cells, str(metrics.n_photos)]) in page.text
    for row in fit.splits.class_counts():
        assert " ".join(str(cell) for cell in row.values()) in page.text
    for epoch in fit.history[1:]:
        losses = f"{epoch.train_loss:.4f} {epoch.validation_loss:.4f}"
        assert f"{epoch.number} {losses} {100 * epoch.validation_accuracy:.1f}%" in page.text
    assert "photos 1.0 s 12.1%" in page.text
    assert "other 1.2 s" in page.text


def test_summary_comes_first(fit: FitResult, tmp_path: Path) -> None:
    page = write_page(with_slices_and_sets(fit), tmp_path / "report")
    top = page.text[: page.text.index("Training")]

    assert "forest predicted as sea : 1 of 4 test photos (25.0%)." in top
    assert "Too few test photos to judge: forest (4), sea (4), street (4)." in top
    assert "light dark : accuracy 0.0% (0.0 to 56.1%) on 3 photos, 100.0% on the rest." in top
    assert "1 of 2 slices is significantly worse than the rest." in top
    assert "coverage of 95% contain the true class for 100.0% (75.8 to 100.0%)" in top
    assert "The mean set size is 1.50." in top  # nine of one class, three of three
    # one of the nine with one class is flagged
    answers = "answers on 66.7% (39.1 to 86.2%) of the photos, with an accuracy of 100.0%"
    assert answers in top
    assert "8.3% (1.5 to 35.4%) of the test photos are flagged as out of distribution." in top
    assert "Have a person review the 33.3% of photos on which the classifier abstains." in top
    assert "Add training photos with light dark , where the accuracy is significantly worse." in top


def test_slices_are_listed_with_their_p_values(fit: FitResult, tmp_path: Path) -> None:
    page = write_page(with_slices_and_sets(fit), tmp_path / "report")

    # 3 of 12 photos are dark and they are the three mistakes: 1 / (12 over 3) = 1/220, twice
    assert "light dark significantly worse 3 0.0% 0.0 to 56.1% 100.0% 0.0091 light" in page.text
    assert "light bright 9 100.0% 70.1 to 100.0% 0.0% 1 " in page.text
    none = write_page(fit, tmp_path / "none")
    assert "No slices were evaluated." in none.text


def test_accuracy_at_the_baseline_is_reported_as_such(fit: FitResult, tmp_path: Path) -> None:
    labels = fit.splits.photos.labels[fit.test_indices]
    blind = np.full((len(labels), 3), 1 / 3)
    evaluation = evaluate(labels, blind, fit.splits.photos.class_names)
    fit = dataclasses.replace(fit, evaluation=evaluation, test_probabilities=blind)

    page = write_page(fit, tmp_path / "report")

    assert (
        "not significantly above the majority-class baseline. Check that each photo is in"
        in page.text
    )


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_calibration_limit_has_few_false_alarms(shift: float) -> None:
    """Calibrated predictions exceed the limit in about 5% of cases, overconfident ones always."""
    random, n = np.random.default_rng(0), 400
    n_alarms = 0
    for _ in range(100):
        confidence = random.uniform(0.55, 0.95, n)
        correct = random.random(n) < confidence - shift
        probabilities = np.stack([confidence, 1 - confidence], axis=1)
        evaluation = evaluate(np.where(correct, 0, 1), probabilities, ["a", "b"])
        n_alarms += evaluation.calibration_error > calibration_limit(evaluation)
    assert n_alarms == 100 if shift else n_alarms <= 12


def test_calibration_is_shown_as_figure_table_and_text(fit: FitResult, tmp_path: Path) -> None:
    page = write_page(fit, tmp_path / "report")
    evaluation = fit.evaluation

    # confidences of 60 to 71%, 65.5% on average; bins of 1/15: 60 to 66% and 67 to 71%
    assert "The mean confidence is 65.5%, the accuracy 75.0%." in page.text
    assert "60.0% to 66.7% 7 63.0% 85.7% 48.7 to 97.4%" in page.text
    assert "66.7% to 73.3% 5 69.0% 60.0% 23.1 to 88.2%" in page.text
    error = (7 * abs(6 / 7 - 0.63) + 5 * abs(0.6 - 0.69)) / 12
    assert f"Expected calibration error {100 * error:.1f}% (expected by chance:" in page.text
    assert "so the probabilities are not significantly miscalibrated." in page.text
    # ln 3
    assert f"Log loss {evaluation.log_loss:.3f} nats (uniform probabilities: 1.099)" in page.text
    # 1 − 1/3
    brier = f"Brier score {evaluation.brier_score:.3f} (uniform probabilities: 0.667)"
    assert brier in page.text
    assert f"Top-2 accuracy {100 * evaluation.top_k_accuracy[1].value:.1f}%" in page.text
    assert "Top-3" not in page.text  # there are three classes
    (label,) = (
        svg["aria-label"] or ""
        for svg in page.all("svg")
        if (svg.get("aria-label") or "").startswith("Reliability diagram")
    )
    assert "confidence 63.0%, accuracy 85.7% on 7 photos" in label


def test_coverage_limit_has_few_false_alarms() -> None:
    """Sets calibrated on 40 validation photos rarely miss their coverage on 60 test photos."""
    random = np.random.default_rng(0)
    k = math.ceil(0.95 * 41)  # the threshold is the k-th of the 40 scores
    scores = np.sort(random.random((2000, 40)), axis=1)[:, k - 1]
    covered = (random.random((2000, 60)) <= scores[:, None]).mean(axis=1)
    alarms = (covered < coverage_limit(0.95, 40, 60)).mean()
    assert 0.005 < alarms < 0.08


def test_next_steps_mention_low_coverage_and_ood_photos(fit: FitResult, tmp_path: Path) -> None:
    labels = fit.splits.photos.labels[fit.test_indices]
    wrong = np.eye(3, dtype=bool)[(labels + 1) % 3]
    evaluation = evaluate(
        labels,
        fit.test_probabilities,
        fit.splits.photos.class_names,
        prediction_sets=wrong,
        is_ood=np.arange(len(labels)) % 2 == 0,
    )

    page = write_page(dataclasses.replace(fit, evaluation=evaluation), tmp_path / "report")

    assert (
        "The coverage of the prediction sets is significantly below its target of 95%." in page.text
    )
    assert "50.0% of the test photos are flagged as out of distribution. Add" in page.text


def test_page_shows_how_to_reproduce_the_fit(fit: FitResult, tmp_path: Path) -> None:
    page = write_page(fit, tmp_path / "report")

    assert f"sl.scan({str(tmp_path / 'photos')!r}, 'report/split.csv')" in page.text
    assert "sl.split(photos, validation=0.25, test=0.5, seed=7)" in page.text
    for key, value in fit.settings.to_json().items():
        assert f"{key}={value!r}," in page.text
    for key, value in fit.environment.items():
        assert f"{key.replace('_', ' ')} {value}" in page.text


def test_names_from_the_disk_are_escaped(tmp_path: Path) -> None:
    fit = with_slices_and_sets(make_fit(tmp_path / "photos", names=HOSTILE), column=HOSTILE[0])
    rejected = tuple(
        Rejected(path=f"{name}.jpg", reason=RejectionReason.DAMAGED, detail=name)
        for name in HOSTILE
    )
    phases = tuple(Phase(name=name, seconds=1, note=name) for name in HOSTILE)
    fit = dataclasses.replace(
        fit,
        rejected=rejected,
        phases=phases,
        environment=dict(zip(HOSTILE, HOSTILE, strict=True)) | {"date": HOSTILE[0]},
        settings=dataclasses.replace(fit.settings, weights=HOSTILE[1]),
    )

    page = write_page(fit, tmp_path / "report")

    assert not page.all("script")
    assert len(page.all("style")) == 1
    for _, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on")]
    for image in page.all("img"):
        assert (image["src"] or "").startswith("data:image/jpeg;base64,")
    for name in HOSTILE[:3]:
        assert " ".join(name.split()) in page.text  # shown as text
    assert r"two\nlines \u202eright to left" in page.text
    assert not page.unclosed


def test_paths_that_are_not_utf8_are_shown_and_kept(fit: FitResult, tmp_path: Path) -> None:
    rejected = (Rejected(path="caf\udce9.jpg", reason=RejectionReason.UNREADABLE),)

    page = write_page(dataclasses.replace(fit, rejected=rejected), tmp_path / "report")

    assert r"caf\udce9.jpg" in page.text
    result = strict_json(tmp_path / "report" / "result.json")
    assert result["rejected"][0]["path"] == "caf\udce9.jpg"


def test_nothing_is_fetched_from_elsewhere(fit: FitResult, tmp_path: Path) -> None:
    index = report(fit, tmp_path / "report")
    source = index.read_text(encoding="utf-8")
    page = Page(source)

    for _, attributes in page.elements:
        for key in ("src", "href", "srcset", "action", "data", "xlink:href"):
            assert (attributes.get(key) or "#").startswith(("#", "data:"))
    assert "url(" not in source
    assert "@import" not in source
    assert "http://" not in source
    assert "https://" not in source
    policies = [m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in (policies[0]["content"] or "")


def test_page_is_accessible(fit: FitResult, tmp_path: Path) -> None:
    source = report(with_slices_and_sets(fit), tmp_path / "report").read_text(encoding="utf-8")
    page = Page(source)

    assert page.all("html") == [{"lang": "en"}]
    assert [m for m in page.all("meta") if m.get("name") == "viewport"]
    assert len(page.all("h1")) == 1
    for svg in page.all("svg"):
        assert "\\x" not in (svg.get("aria-label") or "")
        assert svg.get("aria-hidden") == "true" or (svg["role"] == "img" and svg["aria-label"])
    assert all(image["alt"] for image in page.all("img"))
    scrolling = [box for box in page.all("div") if "scroll" in (box.get("class") or "").split()]
    assert len(scrolling) >= len(page.all("table"))
    for box in scrolling:
        assert (box["role"], box["tabindex"]) == ("region", "0")
        assert box["aria-label"]
    targets = {attributes.get("id") for _, attributes in page.elements}
    assert {(link["href"] or "")[1:] for link in page.all("a")} <= targets
    for drawing in re.findall(r"<svg.*?</svg>", source, re.DOTALL):
        ElementTree.fromstring(drawing)  # noqa: S314 - our own SVG


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_meets_wcag_aa(fit: FitResult, tmp_path: Path, scheme: str) -> None:
    source = report(fit, tmp_path / "report").read_text(encoding="utf-8")
    (rules,) = re.findall(rf":root{{color-scheme:{scheme};(.*?)}}", source, re.DOTALL)
    palette = dict(rule.strip().removeprefix("--").split(":") for rule in rules.split(";"))
    (opacity,) = re.findall(r"\.correct10{background:rgb\(var\(--correct-rgb\) / (.*?)\)}", source)

    def rgb(color: str) -> tuple[float, ...]:
        if color.startswith("#"):
            return tuple(int(color[k : k + 2], 16) for k in (1, 3, 5))
        return tuple(float(part) for part in color.split())

    def luminance(color: tuple[float, ...]) -> float:
        parts = [c / 255 for c in color]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(first: tuple[float, ...], second: tuple[float, ...]) -> float:
        dark, light = sorted((luminance(first), luminance(second)))
        return (light + 0.05) / (dark + 0.05)

    for ground in ("paper", "card"):
        for ink in ("ink", "muted", "correct", "wrong"):
            assert contrast(rgb(palette[ink]), rgb(palette[ground])) >= 4.5
    for tint in ("correct-rgb", "wrong-rgb"):
        a = float(opacity)
        over = zip(rgb(palette[tint]), rgb(palette["card"]), strict=True)
        mixed = tuple(a * top + (1 - a) * below for top, below in over)
        assert contrast(rgb(palette["ink"]), mixed) >= 4.5


def test_result_is_strict_json_with_all_numbers(fit: FitResult, tmp_path: Path) -> None:
    broken = dataclasses.replace(fit.history[1], validation_loss=math.inf)
    fit = dataclasses.replace(fit, history=(fit.history[0], broken, *fit.history[2:]))

    report(fit, tmp_path / "report")

    result = strict_json(tmp_path / "report" / "result.json")
    assert result["history"][0]["train_loss"] is None
    assert result["history"][1]["validation_loss"] is None
    assert result["evaluation"] == fit.evaluation.to_json()
    assert result["splits"] == fit.splits.to_json()
    assert result["settings"] == fit.settings.to_json()


@pytest.mark.parametrize("why", ["none asked for", "none: not one epoch fits into the time"])
def test_page_without_fine_tuning(fit: FitResult, tmp_path: Path, why: str) -> None:
    phases = (Phase(name="fine-tuning", seconds=0.0, note=why),)
    fit = dataclasses.replace(fit, history=fit.history[:1], kept="linear probe", phases=phases)

    page = write_page(fit, tmp_path / "report")

    assert f"No fine-tuning: {why}." in page.text
    assert "The linear probe has a validation accuracy of 70.0%" in page.text
    assert not [svg for svg in page.all("svg") if "by epoch" in (svg.get("aria-label") or "")]


def test_history_without_finite_losses_has_no_loss_curve(fit: FitResult, tmp_path: Path) -> None:
    lost = {"train_loss": math.nan, "validation_loss": math.nan}
    history = tuple(dataclasses.replace(epoch, **lost) for epoch in fit.history)

    page = write_page(dataclasses.replace(fit, history=history), tmp_path / "report")

    labels = [svg.get("aria-label") or "" for svg in page.all("svg")]
    assert [label for label in labels if label.startswith("Validation accuracy by epoch")]
    assert not [label for label in labels if label.startswith("Loss")]


def test_mistakes_come_with_their_photos_most_confident_first(
    fit: FitResult, tmp_path: Path
) -> None:
    page = write_page(fit, tmp_path / "report")

    alts = [image["alt"] or "" for image in page.all("img")]
    assert [alt for alt in alts if "misclassified as" in alt] == [
        "Test photo of class street, misclassified as forest",
        "Test photo of class sea, misclassified as street",
        "Test photo of class forest, misclassified as sea",
    ]
    caption = "predicted forest 71.0% true street 14.5% class 2/ photo '6'.jpg"
    assert f"{caption} nearest training photo: forest like/ forest.jpg" in page.text
    heats = [image for image in page.all("img") if "Grad-CAM" in (image["alt"] or "")]
    assert heats[0]["alt"] == "Grad-CAM heat map for forest"
    content = base64.b64decode((heats[0]["src"] or "").partition(",")[2])
    with Image.open(io.BytesIO(content)) as heat:
        red, _, blue = np.asarray(heat, float)[80, 20]  # left: the heat
        assert red - blue > 80
        assert np.ptp(np.asarray(heat, float)[80, 140]) < 10  # right: gray


def test_mistakes_of_a_network_without_feature_maps_have_no_heat_map(
    scenes: Path, tmp_path: Path
) -> None:
    image = keras.Input((32, 32, 3))
    vector = keras.layers.Flatten()(keras.layers.AveragePooling2D(16)(image))
    network = keras.Model(image, vector)
    result = sl.fit(sl.split(scenes), backbone=network, preprocessing="none", epochs=0)
    page = write_page(result, tmp_path / "report")
    alts = [image["alt"] or "" for image in page.all("img")]
    assert any("misclassified as" in alt for alt in alts)
    assert not any("Grad-CAM" in alt for alt in alts)
    assert "Grad-CAM" not in page.text


def test_balanced_accuracy_decides_if_it_leads(tmp_path: Path) -> None:
    """80% of a class of 540 and of one of 60: below the majority class, far above guessing."""
    labels = np.repeat([0, 1], [540, 60])
    predicted = np.repeat([0, 1, 1, 0], [432, 108, 48, 12])
    probabilities = np.where(predicted[:, None] == [0, 1], 0.8, 0.2)
    for objective, is_low in (("accuracy", True), ("balanced_accuracy", False)):
        evaluation = evaluate(labels, probabilities, ["a", "b"], objective=objective)
        name, interval, baseline = leading_metric(evaluation)
        assert name == objective.replace("_", " ")
        assert (interval.low <= baseline) == is_low
    assert baseline == 0.5


@pytest.mark.parametrize(
    ("stopped", "words"),
    [
        ("", "the linear probe, the fine-tuned network and interpolations between them"),
        ("not finite", "the linear probe and each epoch. Fine-tuning ended early: not finite."),
    ],
)
def test_page_says_what_the_weights_were_selected_from(
    fit: FitResult, tmp_path: Path, stopped: str, words: str
) -> None:
    settings = dataclasses.replace(fit.settings, weights="imagenet", image_px=224)
    settings = dataclasses.replace(settings, recipe=Recipe(train_px=160))
    result = dataclasses.replace(fit, settings=settings, stopped=stopped)
    text = write_page(result, tmp_path / "report").text
    assert words in text
    assert "160 × 160 px; elsewhere 224 × 224 px" in text
    assert "elsewhere" not in write_page(fit, tmp_path / "same").text


def test_card_names_networks_without_folders(fit: FitResult, tmp_path: Path) -> None:
    settings = dataclasses.replace(fit.settings, backbone=("a", "b"))
    environment = fit.environment | {"backbone": "a + b"}
    result = dataclasses.replace(fit, settings=settings, environment=environment)
    write_page(result, tmp_path / "report")
    card = (tmp_path / "report" / "model-card.md").read_text(encoding="utf-8")
    assert "| backbone | a + b |" in card


def test_page_and_card_count_the_photos_in_quarantine(fit: FitResult, tmp_path: Path) -> None:
    splits = fit.splits
    quarantined = dataclasses.replace(splits, train=splits.train[2:], quarantined=splits.train[:2])
    result = dataclasses.replace(fit, splits=quarantined)
    assert "2 photos in quarantine are in none of them." in write_page(result, tmp_path / "r").text
    card = (tmp_path / "r" / "model-card.md").read_text(encoding="utf-8")
    assert "In quarantine, and in no split: 2 photos." in card.replace("\xa0", " ")
    page = write_page(fit, tmp_path / "without")
    assert "quarantine" not in page.text


@pytest.mark.parametrize(
    ("shape", "words"),
    [("crop", "as center crops"), ("pad", "between black bars"), ("squash", "stretched")],
)
def test_page_says_what_the_network_sees(
    fit: FitResult, tmp_path: Path, shape: str, words: str
) -> None:
    result = dataclasses.replace(fit, settings=dataclasses.replace(fit.settings, shape=shape))
    text = write_page(result, tmp_path / "report").text
    assert words in text
    assert ("center crops" in text) == (shape == "crop")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.unlink(), "This file no longer exists."),
        (lambda file: file.write_bytes(b"other"), "This file has changed since the scan."),
        (lambda file: (file.unlink(), file.mkdir()), "This file can no longer be read."),
    ],
    ids=["vanished", "changed", "unreadable"],
)
def test_missing_photo_is_replaced_by_a_notice(
    fit: FitResult, tmp_path: Path, change: Any, words: str
) -> None:
    photos = fit.splits.photos
    labels, predicted = photos.labels[fit.test_indices], fit.test_probabilities.argmax(axis=1)
    confidence = np.where(predicted != labels, fit.test_probabilities.max(axis=1), 0)
    change(photos.file(int(fit.test_indices[confidence.argmax()])))  # the most confident mistake

    page = write_page(fit, tmp_path / "report")

    assert words in page.text
    # of 12 in cells, 3 mistakes and 3 heat maps, all of one photo are missing
    assert len(page.all("img")) == 15


def test_cells_of_the_confusion_matrix_link_to_their_photos(fit: FitResult, tmp_path: Path) -> None:
    source = report(fit, tmp_path / "report").read_text(encoding="utf-8")
    page = Page(source)

    cells = {
        link["href"]: (link["aria-label"] or "").replace("\N{NO-BREAK SPACE}", " ")
        for link in page.all("a")
        if "aria-label" in link
    }
    assert cells == {
        "#cell-0-0": "3 75.0%: forest, predicted correctly",
        "#cell-0-1": "1 25.0%: forest, predicted as sea",
        "#cell-1-1": "3 75.0%: sea, predicted correctly",
        "#cell-1-2": "1 25.0%: sea, predicted as street",
        "#cell-2-2": "3 75.0%: street, predicted correctly",
        "#cell-2-0": "1 25.0%: street, predicted as forest",
    }

    def text_of(place: str) -> str:
        start = source.index(f'<section class="cell" id="{place}"')
        return Page(source[start : source.index("</section>", start) + 10]).text

    assert text_of("cell-2-0") == (
        "street , predicted as forest 1 of 4 test photos of class street (25.0%), and of 4 "
        "predicted as forest (25.0%). All are shown. Back to the matrix confidence 71.0% "
        "class 2/ photo '6'.jpg"
    )
    assert re.findall(r"confidence (\d+\.\d)%", text_of("cell-2-2")) == [
        "68.0",
        "69.0",
        "70.0",
    ]  # the least confident first


def test_number_of_photos_in_cells_is_limited(
    fit: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_photos_in_cells(monkeypatch, 4)
    page = write_page(fit, tmp_path / "report")

    places = [
        element.get("id") for element in page.all("section") if element.get("class") == "cell"
    ]
    assert places == ["cell-0-0", "cell-0-1", "cell-1-2", "cell-2-0"]  # errors first
    links = [link["href"] for link in page.all("a") if "aria-label" in link]
    assert links == [f"#{place}" for place in places]
    alts = [image["alt"] or "" for image in page.all("img")]
    assert len([alt for alt in alts if "predicted as" in alt]) == 4
    assert "(75.0%). The 1 least confident is shown." in page.text


def test_many_classes_are_listed_as_pairs_instead_of_a_matrix(
    fit: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_confusion_matrix(monkeypatch, n_classes=2, n_pairs=2)
    page = write_page(fit, tmp_path / "report")

    assert "3 pairs of 3 classes were confused. The 2 most frequent are listed here" in page.text
    assert "forest predicted as sea 1 4 25.0%" in page.text
    assert not [element for element in page.all("table") if "heat" in (element.get("class") or "")]
    assert {"#cell-0-1", "#cell-1-2"} <= {link["href"] for link in page.all("a")}


def test_no_mistakes(fit: FitResult, tmp_path: Path) -> None:
    names = fit.splits.photos.class_names
    truth = fit.splits.photos.labels[fit.test_indices]
    certain = np.eye(len(names), dtype=np.float32)[truth]
    perfect = evaluate(truth, certain, names)

    page = write_page(
        dataclasses.replace(fit, evaluation=perfect, test_probabilities=certain),
        tmp_path / "report",
    )

    assert "Most confident mistakes No test photo is misclassified." in page.text
    assert "No test photo is misclassified. Only more or harder photos can reveal" in page.text
    assert "Main errors No test photo is misclassified." in page.text


def test_rare_classes_are_listed_once(tmp_path: Path) -> None:
    names = ("frequent", "judged", "c", "d", "e", "f", "g", "h")
    fit = make_fit(tmp_path / "photos", names)
    truth = np.repeat(np.arange(8), [20, 16, 1, 2, 3, 4, 5, 15])  # fewer than 16 are too few
    predicted = np.where(truth == 1, 0, truth)  # recalls: 100%, 0%, 100% …
    predicted[-1] = 0  # … and 14 of 15
    table = np.eye(8, dtype=np.float32)[predicted]
    first = [np.flatnonzero(fit.splits.photos.labels == label)[0] for label in truth]
    evaluation = evaluate(truth, table, names)

    page = write_page(
        dataclasses.replace(
            fit,
            evaluation=evaluation,
            test_indices=np.array(first),
            test_probabilities=table,
            test_embeddings=table,
        ),
        tmp_path / "report",
    )

    errors = page.text.partition("Main errors")[2].partition("Uncertainty")[0]
    rare = "c (1), d (2), e (3), f (4), g (5), and 1 more class. Add photos."
    assert f"Too few test photos to judge: {rare}" in errors.replace(" (", " (")
    assert "judged : recall 0.0% (0.0 to 19.4%) on 16 test photos." in errors  # Wilson
    assert "h : recall" not in errors
    assert "Start with judged , with a recall of 0.0%" in page.text


def test_class_without_test_photos(fit: FitResult, tmp_path: Path) -> None:
    names = fit.splits.photos.class_names
    keep = fit.splits.photos.labels[fit.test_indices] != 2
    test, table = fit.test_indices[keep], fit.test_probabilities[keep]
    evaluation = evaluate(fit.splits.photos.labels[test], table, names)

    page = write_page(
        dataclasses.replace(
            fit, evaluation=evaluation, test_indices=test, test_probabilities=table
        ),
        tmp_path / "report",
    )

    assert "street 0 – – 0.0% 0.000" in page.text


def test_rejected_files_are_counted_and_rare_reasons_listed_first(
    fit: FitResult, tmp_path: Path
) -> None:
    many = [Rejected(path=f"._{k}.jpg", reason=RejectionReason.SYSTEM_FILE) for k in range(1500)]
    rare = Rejected(path="sea/half.jpg", reason=RejectionReason.TRUNCATED, detail="<cut> short")

    page = write_page(dataclasses.replace(fit, rejected=(*many, rare)), tmp_path / "report")

    assert "1,501 files were rejected. 200 of them are listed here" in page.text
    assert "The other 1,301 are in result.json" in page.text
    assert "hidden or system file 1,500 truncated image 1" in page.text
    assert "sea/ half.jpg truncated image <cut> short ._0.jpg" in page.text
    assert "._198.jpg" in page.text
    assert "._199.jpg" not in page.text
    assert len(strict_json(tmp_path / "report" / "result.json")["rejected"]) == 1501


def test_audit_says_where_the_other_rejected_files_are(fit: FitResult, tmp_path: Path) -> None:
    many = [Rejected(path=f"._{k}.jpg", reason=RejectionReason.SYSTEM_FILE) for k in range(201)]
    audit = dataclasses.replace(make_audit(fit), rejected=tuple(many))

    page = Page(report(audit, tmp_path / "audit").read_text(encoding="utf-8"))

    assert "The other 1 are in audit.json ." in page.text


def test_no_rejected_files(fit: FitResult, tmp_path: Path) -> None:
    page = write_page(dataclasses.replace(fit, rejected=()), tmp_path / "report")

    assert "No file was rejected." in page.text


def test_exact_duplicates_are_shown(fit: FitResult, tmp_path: Path) -> None:
    def text_of(like: dict[int, int], where: str) -> str:
        photos = fit.splits.photos
        hashes = tuple(photos.hashes[like.get(k, k)] for k in range(len(photos)))
        splits = dataclasses.replace(fit.splits, photos=dataclasses.replace(photos, hashes=hashes))
        return write_page(dataclasses.replace(fit, splits=splits), tmp_path / where).text

    assert "There are no exact duplicates." in text_of({}, "none")
    assert "1 group of identical files." in text_of({1: 0, 2: 0}, "one")
    both = text_of({1: 0, 9: 3}, "two")
    assert "2 groups of identical files. Conflicting labels: 1." in both
    assert "class 0/ photo '3'.jpg , class 1/ photo '1'.jpg" in both


def test_next_steps_follow_from_the_metrics(fit: FitResult, tmp_path: Path) -> None:
    page = write_page(fit, tmp_path / "report")

    assert "Start with forest , with a recall of 75.0% and 2 training photos." in page.text
    # Wilson's interval is 5 points wide with 1,151 photos
    assert "About 1,200 test photos instead of 12 would narrow it to 5." in page.text


@pytest.mark.parametrize(
    ("n_correct", "n_photos"), [(0, 50), (10, 50), (25, 50), (43, 50), (97, 100), (50, 50)]
)
def test_photos_needed_are_enough_and_not_far_too_many(
    fit: FitResult, tmp_path: Path, n_correct: int, n_photos: int
) -> None:
    labels = np.arange(n_photos) % 3
    predicted = np.where(np.arange(n_photos) < n_correct, labels, (labels + 1) % 3)
    evaluation = evaluate(labels, np.eye(3)[predicted], fit.splits.photos.class_names)
    page = write_page(dataclasses.replace(fit, evaluation=evaluation), tmp_path / "report")
    accuracy = n_correct / n_photos

    def width(n: int) -> float:
        interval = wilson(round(accuracy * n), n)
        return interval.high - interval.low

    (needed,) = re.findall(r"About ([\d,]+) test photos instead of", page.text)
    n = int(needed.replace(",", ""))
    assert width(n) <= 0.052  # rounding to whole photos moves it a little
    assert width(int(0.85 * n)) > 0.05


@pytest.mark.parametrize("inside", [False, True], ids=["folder", "folder above"])
def test_folder_that_is_a_file(fit: FitResult, tmp_path: Path, inside: bool) -> None:
    taken = tmp_path / "taken"
    taken.write_text("mine")

    with pytest.raises(
        ArgumentError,
        match=r"`folder` must be an existing or a new folder.*is a file.*Pass another",
    ):
        report(fit, taken / "report" if inside else taken)

    assert taken.read_text() == "mine"


def test_failed_write_keeps_the_old_report(
    fit: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "report"
    before = report(fit, folder).read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        report(fit, folder)

    assert (folder / "index.html").read_bytes() == before
    names = ["index.html", "model-card.md", "result.json", "split.csv"]
    assert sorted(file.name for file in folder.iterdir()) == names


# The model card


def card_of(fit: FitResult, folder: Path) -> str:
    return report(fit, folder).with_name("model-card.md").read_text(encoding="utf-8")


def test_model_card_is_complete(fit: FitResult, tmp_path: Path) -> None:
    fit = with_slices_and_sets(
        dataclasses.replace(fit, environment={"photos": "ab12cd", "keras": "3.x"})
    )
    card = card_of(fit, tmp_path / "report").replace("\N{NO-BREAK SPACE}", " ")

    assert re.findall("^#+ .*", card, re.MULTILINE) == [
        "# Model card: photos",
        "## Intended use",
        "## Data",
        "## Evaluation",
        "## Main errors",
        "## Uncertainty",
        "## Limitations",
        "## Reproduction",
    ]
    assert "The fine-tuned network has an accuracy of **75.0%** on 12 test photos" in card
    assert "The fingerprint of the photos is ab12cd;" in card
    assert "Rejected files: 1 not an image." in card
    assert "| forest | 2 | 2 | 4 |" in card  # train, validation, test
    assert "| accuracy | 75.0% (46.8 to 91.1%) |" in card  # Wilson's, 9 of 12
    assert "- forest predicted as sea: 1 of 4 test photos (25.0%)." in card
    assert "- light dark: accuracy 0.0% (0.0 to 56.1%) on 3 photos" in card
    assert "3 classes have fewer than 30 test photos" in card
    assert "```python\nimport scenelearn as sl\n" in card
    assert "fit = sl.fit(\n    splits,\n    backbone=" in card


CRAFTED = (
    "# heading | cell",
    "- item",
    "1. item",
    "+ item 12:30 (mailto:a@b.test) 2. _x_y_",
    "***bold*** _slanted_ `code` ~~gone~~",
    "[link](http://x.test) <http://y.test> www.z.test",
    "![picture](x.png)",
    "\\* &lt;b&gt; $x^2$",
    "    indented",
    "```",
    *HOSTILE,
)


def split_card(card: str) -> tuple[str, str]:
    """The YAML header and the Markdown of a card."""
    _, header, body = card.split("---\n", maxsplit=2)
    return header, body


@pytest.mark.site
def test_header_of_the_card_is_what_model_hubs_read(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="parses the header; the docs need it too")
    name = "---\nlicense: mit # \"'{}: \u202e é"
    fit = make_fit(tmp_path / name)

    card = card_of(fit, tmp_path / "report")

    header = yaml.safe_load(split_card(card)[0])
    assert (header["library_name"], header["pipeline_tag"]) == ("keras", "image-classification")
    (model,) = header["model-index"]
    (result,) = model["results"]
    assert model["name"] == result["dataset"]["name"] == r"""---\nlicense: mit # "'{}: \u202e é"""
    assert result["task"] == {"type": "image-classification"}
    assert result["metrics"] == [
        {"type": "accuracy", "value": 0.75},
        {"type": "balanced_accuracy", "value": 0.75},
    ]
    assert not re.search(r"&#?\w+;", card)


def render_with_markdown(body: str) -> str:
    markdown = pytest.importorskip("markdown", reason="renders the card; the docs need it too")
    shown: str = markdown.markdown(body, extensions=["extra"])
    return shown.replace(r"\|", "|")  # in code, it shows the backslash of an escaped bar


def render_with_markdown_it(body: str) -> str:
    """CommonMark with tables, as model hubs show it."""
    markdown_it = pytest.importorskip("markdown_it", reason="renders the card")
    shown: str = markdown_it.MarkdownIt("commonmark").enable("table").render(body)
    return shown


@pytest.mark.site
@pytest.mark.parametrize("render", [render_with_markdown, render_with_markdown_it])
def test_names_are_escaped_in_the_card(tmp_path: Path, render: Callable[[str], str]) -> None:
    fit = with_slices_and_sets(
        make_fit(tmp_path / "``` photos", names=CRAFTED), column="*light* | <b>"
    )
    fit = dataclasses.replace(
        fit,
        environment={"keras": CRAFTED[0], "photos": HOSTILE[1]},
        settings=dataclasses.replace(fit.settings, weights=HOSTILE[0]),
    )

    shown = render(split_card(card_of(fit, tmp_path / "report"))[1])

    page = Page(shown)
    tags = {tag for tag, _ in page.elements}
    assert tags == {
        "h1", "h2", "p", "strong", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "pre",
        "code",
    }  # fmt: skip
    assert len(page.all("strong")) == len(page.all("pre")) == len(page.all("h1")) == 1
    assert len(page.all("ul")) == 3
    for name in CRAFTED[:-1]:
        assert page.text.count(" ".join(name.split())) >= 3  # in the list of classes and in tables
    rows = re.findall(r"<tr>.*?</tr>", shown, re.DOTALL)
    assert {len(re.findall("<t[hd]", row)) for row in rows} == {2, 4, 5}


def test_import_loads_nothing_heavy() -> None:
    code = (
        "import sys, scenelearn.reporting; "
        "assert not {'keras', 'jax', 'jinja2', 'matplotlib'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


# The page of an audit


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An audit with nearly every kind of finding, and names with markup."""
    import scenelearn as sl

    folder = sl.sample_scenes(tmp_path_factory.mktemp("audited") / "scenes", per_class=6)
    seas = sorted((folder / "sea").iterdir())
    shutil.copy(seas[0], folder / "street" / "<img src=x onerror=alert(1)>.jpg")
    shutil.copy(seas[1], folder / "sea" / "copy 'of' \"one\".jpg")
    with Image.open(seas[2]) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "sea/mirrored.png")
    Image.new("RGB", (40, 40)).save(folder / "sea/blank.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(
        folder / "sea/tiny.png"
    )
    (folder / "sea/words.jpg").write_text("no photo")
    photos = sl.scan(folder)
    features = np.eye(6, dtype=np.float32)[photos.labels]
    features[3] = features[3][::-1]
    return sl.audit(photos, features=features)


def test_audit_page_shows_all_findings(audited: Any, tmp_path: Path) -> None:
    page_file = report(audited, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "audit.json", "index.html", "quarantine.json",
    ]  # fmt: skip
    html_text = page_file.read_text(encoding="utf-8")
    page = Page(html_text)
    kinds = [element["data-kind"] for element in page.all("li") if "data-kind" in element]
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == {
        "near_duplicates": 1,
        "blank": 1,
        "exact_duplicates": 2,
        "label_issues": 1,
        "tiny": 1,
        "conflicting_labels": 1,
    }
    boxes = [element for element in page.all("input") if element.get("name") == "quarantine"]
    selected = {json.loads(element["value"]) for element in boxes if "checked" in element}
    quarantine = json.loads((tmp_path / "quarantine.json").read_text())
    assert selected == set(quarantine) == set(audited.quarantine)
    assert len(page.all("img")) == len(boxes)
    assert all(
        element["src"].startswith("data:image/jpeg") and element["alt"]
        for element in page.all("img")
    )
    assert "words.jpg" in html_text
    assert json.loads((tmp_path / "audit.json").read_text()) == audited.to_json()
    assert len(page.all("script")) == 1
    assert "<img src=x" not in html_text
    (policy,) = (m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy["content"]
    assert "script-src 'sha256-" in policy["content"]


def test_audit_without_findings(audited: Any, tmp_path: Path) -> None:
    kinds = (
        "exact_duplicates",
        "near_duplicates",
        "conflicting_labels",
        "blank",
        "tiny",
        "label_issues",
        "rejected",
    )
    nothing = dataclasses.replace(audited, **dict.fromkeys(kinds, ()))
    assert "No findings." in report(nothing, tmp_path).read_text(encoding="utf-8")


def test_quarantine_includes_photos_that_are_not_shown(
    audited: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_findings(monkeypatch, 0)
    page = Page(report(audited, tmp_path).read_text(encoding="utf-8"))
    (save,) = (element for element in page.all("button") if element.get("id") == "save")
    assert json.loads(save["data-hidden"]) == list(audited.quarantine)


def test_report_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"`result` must come from `fit` or `audit`.*int"):
        report(3, tmp_path)  # type: ignore[arg-type]


def test_page_and_card_show_the_interpolation(fit: FitResult, tmp_path: Path) -> None:
    between = dataclasses.replace(fit, interpolation=0.5)
    page = report(between, tmp_path / "between")
    words = "fine-tuned, interpolated with the linear probe (coefficient 0.5)"
    assert words in page.read_text(encoding="utf-8")
    assert words in (page.parent / "model-card.md").read_text(encoding="utf-8")
    plain = report(fit, tmp_path / "plain")
    assert "interpolated" not in plain.read_text(encoding="utf-8")
