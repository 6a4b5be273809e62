"""`cross_validate`: fit and test on each fold in turn, and pool the test photos."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from scenelearn._display import html_text
from scenelearn._json import dataclass_json
from scenelearn._progress import Progress, show_progress
from scenelearn.data import Photos
from scenelearn.data import folds as make_folds
from scenelearn.data._scan import as_photos
from scenelearn.errors import ArgumentError
from scenelearn.finetune._fit import fit
from scenelearn.finetune._result import FitResult
from scenelearn.finetune._settings import FitSettings
from scenelearn.metrics import Evaluation, evaluate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CrossValidation:
    """The result of `cross_validate`.

    Attributes:
        evaluation: metrics on all test photos together. Each was predicted once, by the fit of its
            fold, which had not seen it. The intervals take the predictions for independent.
        folds: the metrics of each fold on its own test photos.
        kept: "linear probe" or "fine-tuned", for each fold.
        photos: all photos.
        test_indices: (n_test,) positions of the test photos in `photos`, ascending.
        test_probabilities: (n_test, n_classes) float32, their predicted probabilities: out of
            fold, as needed to find label issues.
        fold_numbers: (n_test,) the fold of each test photo, from 0.
        settings: of the fit of the first fold, with defaults filled in.
        seconds: wall-clock time of all fits.
    """

    evaluation: Evaluation
    folds: tuple[Evaluation, ...]
    kept: tuple[str, ...]
    photos: Photos
    test_indices: npt.NDArray[np.int64]
    test_probabilities: npt.NDArray[np.float32]
    fold_numbers: npt.NDArray[np.int64]
    settings: FitSettings
    seconds: float

    def __repr__(self) -> str:
        return f"<CrossValidation: {len(self.folds)} folds, {self.evaluation.summary}>"

    def __str__(self) -> str:
        """The pooled metrics, and the accuracy of each fold."""
        lines = [
            f"fold {k + 1}: {fold.summary}, {kept}"
            for k, (fold, kept) in enumerate(zip(self.folds, self.kept, strict=True))
        ]
        return "\n".join([f"all folds: {self.evaluation}", "", *lines])

    def _repr_html_(self) -> str:
        return html_text(self)

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain row per test photo: path, label, fold, and the probability of each class."""
        names = self.photos.class_names
        columns = (self.test_indices.tolist(), self.fold_numbers.tolist(), self.test_probabilities)
        return [
            {
                "path": self.photos.paths[index],
                "label": names[self.photos.labels[index]],
                "fold": fold,
                "probabilities": dict(zip(names, map(float, row), strict=True)),
            }
            for index, fold, row in zip(*columns, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """The metrics, the settings, and the rows of `to_rows`, as plain values."""
        omit = ("photos", "test_indices", "test_probabilities", "fold_numbers")
        return {**dataclass_json(self, omit=omit), "test": self.to_rows()}


def cross_validate(
    photos: Photos | str | os.PathLike[str],
    folds: int = 5,
    *,
    validation: float = 0.15,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
    quarantine: Iterable[str] = (),
    progress: Progress | None = None,
    verbose: bool | str = "auto",
    **fit_options: Any,
) -> CrossValidation:
    """Test on every photo: fit once per fold, each time on the other photos.

    With few photos, the accuracy on one test split is uncertain: 95% of 40 photos has an interval
    of 15 points. Cross-validation tests on all photos, for as many fits as there are folds. Photos
    are decoded and frozen features computed only once.

    Args:
        photos: from `scan`, or a path to scan.
        folds: number of folds, at least 2.
        validation: fraction or number of the remaining photos for validation, as for `folds`.
        seed: seed of the folds and of the fits.
        groups: as for `split`: photos with the same number are in the same fold.
        quarantine: as for `split`.
        progress: called with (what, done, total) during the work.
        verbose: as for `fit`.
        **fit_options: the other arguments of `fit`, for each fold: `minutes` is the time budget
            of one fit. With ``resume=True``, folds that an interrupted call has finished are not
            fitted again.

    Returns:
        The metrics on all test photos and on each fold, and the predicted probabilities.

    Raises:
        ArgumentError: if an argument is out of range, `fit` has no such argument, or a test split
            is given.
        TooFewClassesError: if there are fewer than two classes.
        TooFewPhotosError: if a class has too few different photos for the folds.
        DataError: if `photos` is empty, or a path that cannot be scanned; see `scan`.
        KeyboardInterrupt: at Ctrl-C or SIGTERM. Checkpoints are kept for ``resume=True``.
        SceneLearnError: further errors as from `fit`.

    Example:
        >>> import tempfile, scenelearn as sl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     photos = sl.scan(sl.sample_scenes(folder, per_class=10))
        ...     options = {"weights": "scenelearn", "image_px": 32, "epochs": 0}
        ...     result = sl.cross_validate(photos, folds=2, **options)
        >>> result.evaluation.n_photos, [fold.n_photos for fold in result.folds]
        (60, [30, 30])
    """
    unknown = sorted(set(fit_options) - (set(inspect.signature(fit).parameters) - {"splits"}))
    if unknown:
        raise ArgumentError(
            f"`fit_options` must be arguments of `fit`. Received: {', '.join(unknown)}. "
            "Pass e.g. minutes=1."
        )
    with show_progress(progress, verbose) as report:
        photos = as_photos(photos, report)
        parts = make_folds(
            photos, folds, validation=validation, seed=seed, groups=groups, quarantine=quarantine
        )
        if np.isin(parts[0].test, parts[1].test).any():
            raise ArgumentError(
                "`photos` must have no test split, so that each photo is tested once. Received: "
                f"{len(parts[0].test):,} photos whose folder or manifest says 'test'. Use `fit`, "
                "or select the others: photos[[s != 'test' for s in photos.splits]]."
            )
        fits: list[FitResult] = []
        for k, splits in enumerate(parts):
            report_fold = partial(_report_fold, report, f"fold {k + 1} of {len(parts)}: ")
            fitted = fit(splits, seed=seed, progress=report_fold, **fit_options)
            fits.append(replace(fitted, classifier=cast("Any", None)))  # frees the network
            if fits[-1].stopped.startswith("SIG"):
                raise KeyboardInterrupt(fits[-1].stopped)
    result = _pool(photos, fits)
    for each in fits:
        each.remove_checkpoint()
    return result


def _report_fold(report: Progress, fold: str, what: str, done: int, total: int) -> None:
    report(fold + what, done, total)


def _pool(photos: Photos, fits: list[FitResult]) -> CrossValidation:
    indices = np.concatenate([each.test_indices for each in fits])
    order = np.argsort(indices, kind="stable")
    probabilities = np.concatenate([each.test_probabilities for each in fits])[order]
    numbers = np.repeat(np.arange(len(fits)), [len(each.test_indices) for each in fits])
    return CrossValidation(
        evaluation=evaluate(
            photos.labels[indices[order]],
            probabilities,
            photos.class_names,
            objective=fits[0].settings.objective,
        ),
        folds=tuple(each.evaluation for each in fits),
        kept=tuple(each.kept for each in fits),
        photos=photos,
        test_indices=indices[order],
        test_probabilities=probabilities,
        fold_numbers=numbers[order],
        settings=fits[0].settings,
        seconds=sum(each.seconds for each in fits),
    )
