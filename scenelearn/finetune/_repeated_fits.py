"""Fit more than once: `cross_validate` tests on each fold, `repeat` runs a fit from its JSON."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from scenelearn._display import html_text, printable
from scenelearn._json import dataclass_json
from scenelearn._progress import Progress, show_progress
from scenelearn.data import Photos, Splits, scan
from scenelearn.data import folds as make_folds
from scenelearn.data._scan import as_photos
from scenelearn.data._splits import SPLIT_NAMES
from scenelearn.errors import ArgumentError, ManifestError
from scenelearn.finetune._device import environment, fingerprint
from scenelearn.finetune._fit import fit
from scenelearn.finetune._result import FitResult
from scenelearn.finetune._settings import FitSettings
from scenelearn.metrics import Evaluation, evaluate

_log = logging.getLogger(__name__)


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
            fits.append(replace(fitted, classifier=cast("Any", None)))
            del fitted  # frees the network before the next fold
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


def repeat(
    result: Mapping[str, Any],
    folder: str | os.PathLike[str],
    *,
    manifest: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    backbone: Any = None,
    teacher: Any = None,
    progress: Progress | None = None,
    verbose: bool | str = "auto",
) -> FitResult:
    """Run a fit again on the same photos with the same splits and settings.

    With the same versions on a CPU of the same kind, weights and history are identical. Any
    differences in the environment are logged as a warning. The number of epochs is that of the
    first fit, however fast this machine is.

    Args:
        result: from `FitResult.to_json`, or `json.load` of the result.json of a report.
        folder: the photos, a folder or archive. It may contain other files as well.
        manifest: the manifest with which the photos were scanned, if any.
        weights: path of the weights file; None for the path of the first fit.
        backbone: the network, if the first fit was given a `keras.Model`, or if its file or folder
            has moved; None for that of the first fit.
        teacher: the teacher, if the first fit was given a classifier or a result, or if its file
            has moved; None for that of the first fit.
        progress: called with (what, done, total) during the work.
        verbose: "auto" shows progress bars on a terminal and in a notebook; True and False show
            them always and never.

    Returns:
        As `fit`.

    Raises:
        PathMissingError: if there is no such folder, or no weights file at its path.
        ManifestError: if a photo is missing, or has another content or class than in the first fit.

    Other errors are those of `scan` and `fit`.
    """
    photos = scan(folder, manifest, progress=progress, verbose=verbose)
    splits = _restore_splits(result["splits"], photos)
    before, now = result["environment"], environment()
    if fingerprint(splits.photos) != before["photos"]:
        raise ManifestError(
            f"{str(folder)!r} must contain the photos in their original classes. Received: the "
            f"fingerprint {fingerprint(splits.photos)}, not {before['photos']}. Move the photos "
            "back to their folders, or pass the `manifest` that they were scanned with."
        )
    differences = [
        f"{name} {before.get(name)} (now {value})"
        for name, value in now.items()
        if name != "date" and before.get(name, value) != value
    ]
    if differences:
        _log.warning("The first fit ran with %s.", ", ".join(differences))
    changes = {"weights": weights, "backbone": backbone, "teacher": teacher}
    settings = result["settings"] | {k: v for k, v in changes.items() if v is not None}
    return fit(splits, **settings, progress=progress, verbose=verbose)


def _restore_splits(saved: Mapping[str, Any], photos: Photos) -> Splits:
    """The splits of a JSON, for photos that were scanned again."""
    hashes = {photo["path"]: photo["hash"] for name in SPLIT_NAMES for photo in saved[name]}
    listed = {*hashes, *saved["quarantine"]}
    kept = [k for k, path in enumerate(photos.paths) if path in listed]
    index_of = {photos.paths[k]: index for index, k in enumerate(kept)}
    found = {photos.paths[k]: photos.hashes[k].hex() for k in kept}
    changed = [path for path in hashes if found.get(path) != hashes[path]]
    changed += [path for path in saved["quarantine"] if path not in found]
    if changed:
        what = "another content" if changed[0] in found else "no such photo"
        more = f", and {len(changed) - 1:,} more" if changed[1:] else ""
        raise ManifestError(
            f"{str(photos.folder)!r} must contain the photos of the first fit. Received: {what} at "
            f"{printable(changed[0])!r}{more}. Restore them from a backup."
        )
    class_names = tuple(saved["class_names"])
    labels = [photos.class_names[photos.labels[k]] for k in kept]
    number = {name: k for k, name in enumerate(class_names)}
    restored = replace(
        photos,
        paths=tuple(photos.paths[k] for k in kept),
        labels=np.array([number.get(name, 0) for name in labels], np.int32),
        class_names=class_names,
        hashes=tuple(photos.hashes[k] for k in kept),
        splits=tuple(photos.splits[k] for k in kept),
        groups=(),
    )
    indices = {
        name: np.array(sorted(index_of[photo["path"]] for photo in saved[name]), np.int64)
        for name in SPLIT_NAMES
    }
    group_of = {p["path"]: p["group"] for name in SPLIT_NAMES for p in saved[name] if "group" in p}
    groups = [group_of.get(path, -1) for path in restored.paths] if group_of else []
    return Splits(
        photos=restored,
        validation_fraction=saved["validation_fraction"],
        test_fraction=saved["test_fraction"],
        seed=saved["seed"],
        quarantined=np.array([index_of[path] for path in saved["quarantine"]], np.int64),
        groups=np.array(groups, np.int64),
        **indices,
    )
