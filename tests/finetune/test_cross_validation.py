"""Cross-validation: pooled metrics, and one report."""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scenelearn as sl
from scenelearn.errors import ArgumentError, TooFewPhotosError
from scenelearn.finetune import CrossValidation, _repeated_fits

OPTIONS: dict[str, Any] = {
    "backbone": "scenelearn_tiny", "weights": "scenelearn", "image_px": 32, "epochs": 0,
    "batch_size": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def result(scenes: Path) -> CrossValidation:
    return sl.cross_validate(sl.scan(scenes), folds=2, seed=1, **OPTIONS)


@pytest.mark.slow
def test_each_photo_is_tested_once_by_a_network_that_has_not_seen_it(
    result: CrossValidation,
) -> None:
    parts = sl.folds(result.photos, 2, seed=1)
    assert result.test_indices.tolist() == list(range(72))
    for k, part in enumerate(parts):
        np.testing.assert_array_equal(np.flatnonzero(result.fold_numbers == k), part.test)
        alone = sl.fit(part, seed=1, **OPTIONS)
        np.testing.assert_allclose(
            result.test_probabilities[part.test], alone.test_probabilities, atol=1e-5
        )
        assert result.folds[k].accuracy == alone.evaluation.accuracy
        assert result.kept[k] == "linear probe"


def test_metrics_are_those_of_all_test_photos(result: CrossValidation) -> None:
    labels = result.photos.labels
    correct = result.test_probabilities.argmax(axis=1) == labels
    assert result.evaluation.n_photos == 72
    assert result.evaluation.accuracy.value == pytest.approx(correct.mean())
    loss = -np.log(result.test_probabilities[np.arange(72), labels]).mean()
    assert result.evaluation.log_loss == pytest.approx(loss, rel=1e-5)


def test_result_is_text_rows_and_json(result: CrossValidation) -> None:
    assert "2 folds" in repr(result)
    assert "fold 2: accuracy" in str(result)
    row = json.loads(json.dumps(result.to_json()))["test"][3]
    assert row["path"] == result.photos.paths[3]
    assert row["fold"] == result.fold_numbers[3]
    assert list(row["probabilities"]) == list(result.photos.class_names)


def test_report_shows_folds_and_pooled_metrics(result: CrossValidation, tmp_path: Path) -> None:
    page = sl.report(result, tmp_path).read_text(encoding="utf-8")
    assert re.search(r"72\Wtest photos", page)
    assert "fold 2" in page
    assert 'id="confusion-matrix"' in page
    assert len(json.loads((tmp_path / "result.json").read_text())["test"]) == 72


def test_network_of_a_fold_is_freed_before_the_next(
    scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[weakref.ref[Any]] = []
    fit = sl.fit

    @functools.wraps(fit)
    def fit_and_count(*arguments: Any, **options: Any) -> Any:
        gc.collect()
        assert not any(ref() for ref in alive)
        result = fit(*arguments, **options)
        alive.append(weakref.ref(result.classifier.model))
        return result

    monkeypatch.setattr(_repeated_fits, "fit", fit_and_count)
    sl.cross_validate(sl.scan(scenes), folds=2, **OPTIONS)
    assert len(alive) == 2


def test_options_that_fit_does_not_have(result: CrossValidation) -> None:
    with pytest.raises(ArgumentError, match=r"arguments of `fit`\. Received: minute, splits"):
        sl.cross_validate(result.photos, minute=1, splits=None)
    with pytest.raises(ArgumentError, match="`n_folds` must be an integer of at least 2"):
        sl.cross_validate(result.photos, folds=1)
    with pytest.raises(TooFewPhotosError):
        sl.cross_validate(result.photos, folds=60)


def test_photos_with_a_test_split(result: CrossValidation, tmp_path: Path) -> None:
    photos = sl.scan(result.photos.folder, sl.split(result.photos).save(tmp_path / "split.csv"))
    tested = tuple(split if split == "test" else "" for split in photos.splits)
    photos = dataclasses.replace(photos, splits=tested)
    with pytest.raises(ArgumentError, match="must have no test split"):
        sl.cross_validate(photos, **OPTIONS)


@pytest.mark.nightly
def test_interruption_keeps_the_folds_that_are_done(scenes: Path) -> None:
    def interrupt(what: str, *_: int) -> None:
        if what.startswith("fold 2"):
            raise KeyboardInterrupt

    photos, options = sl.scan(scenes), OPTIONS | {"epochs": 1}
    with pytest.raises(KeyboardInterrupt):
        sl.cross_validate(photos, folds=2, seed=1, progress=interrupt, **options)
    work: list[str] = []
    resumed = sl.cross_validate(
        photos, folds=2, seed=1, resume=True, progress=lambda what, *_: work.append(what), **options
    )
    whole = sl.cross_validate(photos, folds=2, seed=1, **options)
    np.testing.assert_array_equal(resumed.test_probabilities, whole.test_probabilities)
    assert "fold 1 of 2: fitting the linear probe" not in work
    assert "fold 2 of 2: fitting the linear probe" in work
