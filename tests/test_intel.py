"""`scenelearn fit` on real photos with pretrained weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import scenelearn as sl
from tests.helpers import ood_images

pytestmark = pytest.mark.intel

V2_035 = "mobilenet_v2_0.35_224_notop.h5"
V3_SMALL = "mobilenet_v3_small_1.0_224_deq8_notop.h5"


def fit_command(folder: Path, *arguments: object) -> tuple[dict[str, Any], Path]:
    """`scenelearn fit` from a cold start: its JSON and its output folder."""
    ended = subprocess.run(
        [
            sys.executable, "-m", "scenelearn", "fit", *map(str, arguments), "--json",
            "--out", str(folder / "out"),
        ],
        env=os.environ | {"SCENELEARN_CACHE": str(folder / "cache")},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(ended.stdout), folder / "out"


@pytest.fixture(scope="module")
def run(
    intel: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """One minute with the default backbone."""
    folder = tmp_path_factory.mktemp("intel")
    return fit_command(folder, intel, "--weights", weights / V3_SMALL, "--minutes", 1)


@pytest.mark.nightly
def test_cold_start_to_bundle_and_report_keeps_the_time_budget(
    intel: Path, weights: Path, tmp_path: Path
) -> None:
    start = time.monotonic()
    value, out = fit_command(tmp_path, intel, "--weights", weights / V2_035)
    assert time.monotonic() - start <= 330  # 300 on two cores that are otherwise idle
    assert value["evaluation"]["accuracy"]["value"] >= 0.895
    assert (out / "report" / "index.html").is_file()


def test_accuracy_on_its_own_test_split(run: Any) -> None:
    value, out = run
    assert (out / "report" / "index.html").is_file()
    accuracy = value["evaluation"]["accuracy"]
    assert accuracy["value"] >= 0.895
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert accuracy["n"] >= 800


def test_test_photos_are_not_in_other_splits(run: Any) -> None:
    value, _ = run
    hashes = {
        name: {photo["hash"] for photo in value["splits"][name]}
        for name in ("train", "validation", "test")
    }
    assert not hashes["test"] & (hashes["train"] | hashes["validation"])


def test_bundle_gives_the_reported_probabilities(run: Any, intel: Path) -> None:
    value, out = run
    chosen = value["test"][:: len(value["test"]) // 20]
    classifier = sl.load(out / "scenes.keras")
    for photo in chosen:
        path = intel / photo["path"]
        with Image.open(path) as image:
            array = np.asarray(image.convert("RGB"))
        for prediction in classifier.predict([path, path.read_bytes(), array]):
            np.testing.assert_allclose(prediction.probabilities, photo["probabilities"], atol=1e-5)


def test_scan_accounts_for_every_photo(intel: Path) -> None:
    photos = sl.scan(intel)
    assert len(photos) + len(photos.rejected) == sum(1 for p in intel.rglob("*") if p.is_file())
    assert set(photos.counts().values()) == {1000}
    assert photos.class_names == ("buildings", "forest", "glacier", "mountain", "sea", "street")


@pytest.mark.nightly
def test_folded_batchnorm_can_be_fine_tuned(intel: Path, weights: Path) -> None:
    """With one learning rate for all kernels, accuracy fell from 86% to 16%."""
    fit = sl.fit(
        sl.split(sl.scan(intel), seed=5),
        backbone="mobilenet_v3_small",
        weights=weights / "mobilenet_v3_small_1.0_224_deq8_notop.h5",
        image_px=96,
        epochs=5,
        seed=5,
        recipe={"interpolate_weights": False},
    )
    assert fit.history[-1].validation_accuracy > fit.history[0].validation_accuracy + 0.01


@pytest.fixture(scope="module")
def probe_fit(intel: Path, weights: Path) -> sl.finetune.FitResult:
    """A linear probe, tested on many photos for narrow confidence intervals."""
    splits = sl.split(sl.scan(intel), validation=0.2, test=0.4, seed=0)
    return sl.fit(splits, weights=weights / V2_035, epochs=0)


def test_probabilities_are_calibrated(probe_fit: sl.finetune.FitResult) -> None:
    assert probe_fit.evaluation.n_photos > 2000
    assert probe_fit.evaluation.calibration_error <= 0.02


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95, 0.99])
def test_prediction_sets_have_the_requested_coverage(
    probe_fit: sl.finetune.FitResult, coverage: float
) -> None:
    calibration = probe_fit.classifier.calibration
    assert calibration is not None
    labels = probe_fit.splits.photos.labels[probe_fit.test_indices]
    sets = calibration.prediction_sets(probe_fit.test_probabilities, coverage)
    n_validation, n_test = len(calibration.conformal_scores), len(labels)
    error = (coverage * (1 - coverage) * (1 / n_validation + 1 / n_test)) ** 0.5
    assert sets[np.arange(n_test), labels].mean() >= coverage - 2.5 * error


def test_out_of_distribution_images_are_flagged(probe_fit: sl.finetune.FitResult) -> None:
    assert probe_fit.evaluation.selective is not None
    assert probe_fit.evaluation.selective.ood_rate.value <= 0.05
    for kind in ood_images.KINDS:
        predictions = probe_fit.classifier.predict(ood_images.render(kind, 50))
        assert np.mean([prediction.is_ood for prediction in predictions]) >= 0.9, kind


def test_bundle_stays_small(probe_fit: sl.finetune.FitResult, tmp_path: Path) -> None:
    path = probe_fit.save(tmp_path / "scenes.keras")
    probe_fit.classifier.model.save(tmp_path / "plain.keras")
    assert path.stat().st_size - (tmp_path / "plain.keras").stat().st_size < 1.5 * 2**20
