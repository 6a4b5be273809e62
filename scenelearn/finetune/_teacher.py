"""Distillation: a teacher's probabilities for augmented views of the training photos."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn._distributed import process_index
from scenelearn._progress import Report
from scenelearn.augment import Policy, apply, sample
from scenelearn.augment import policy as resolve_policy
from scenelearn.classify import Classifier, load
from scenelearn.data import Batches, Splits
from scenelearn.errors import ArgumentError, ClassMismatchError
from scenelearn.finetune._features import (
    FEATURE_BATCH_SIZE,
    feature_folder,
    read_on_all_processes,
    write_features,
)
from scenelearn.finetune._runtime import Clock, StopRequest
from scenelearn.finetune._settings import FitSettings
from scenelearn.metrics._inputs import class_positions

N_VIEWS = 4
"""Augmented views of each photo; the epochs take turns with them."""

_PART = 16  # batches between two writes to the cache

_CLASSIFIER = "classifier:"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Teacher:
    """A classifier whose probabilities the student learns.

    Attributes:
        classifier: it has the student's classes.
        columns: where they are among its classes.
        name: its path, or "classifier:" with a digest of its layers and weights.
    """

    classifier: Classifier
    columns: list[int]
    name: str

    @property
    def title(self) -> str:
        """What it is, for a student's metadata."""
        metadata = self.classifier.metadata
        facts = [metadata.get("backbone", "unknown"), metadata.get("test accuracy")]
        return ", test accuracy ".join(fact for fact in facts if fact)


def load_teacher(teacher: Any, class_names: tuple[str, ...]) -> Teacher | None:
    """Load a teacher.

    Args:
        teacher: a classifier, the result of a fit, or the path of a bundle; None for none.
        class_names: of the student.

    Raises:
        ArgumentError: if `teacher` is something else.
        ClassMismatchError: if it has other classes.
        PathMissingError: if there is no such file.
        BundleError: if the file is no bundle.
    """
    if teacher is None:
        return None
    is_path = isinstance(teacher, str | os.PathLike)
    if is_path and os.fspath(teacher).startswith(_CLASSIFIER):
        raise ArgumentError(
            "`teacher` must be the classifier itself, as in the first fit. Received: "
            f"teacher={teacher!r}, its digest. Pass teacher=sl.load(path)."
        )
    classifier = load(teacher) if is_path else getattr(teacher, "classifier", teacher)
    if not isinstance(classifier, Classifier):
        raise ArgumentError(
            "`teacher` must be a Classifier, the result of a fit, or the path of a bundle. "
            f"Received: teacher={type(teacher).__name__}. Pass e.g. 'scenes.keras'."
        )
    columns = class_positions(class_names, classifier.class_names)
    if None in columns or len(columns) != len(classifier.class_names):
        raise ClassMismatchError(
            f"The teacher must have the classes of the photos: {', '.join(class_names)}. Received: "
            f"{', '.join(classifier.class_names)}. Fit it on the same classes."
        )
    name = os.fspath(teacher) if is_path else _CLASSIFIER + _folder(classifier).name
    return Teacher(classifier=classifier, columns=[k for k in columns if k is not None], name=name)


def _folder(classifier: Classifier) -> Path:
    """A path in the cache that depends on the layers and weights of a classifier."""
    resize = classifier.resize
    return feature_folder(classifier.model, "teacher", resize, FEATURE_BATCH_SIZE, mirrored=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SoftLabels:
    """Soft labels for augmented views of photos.

    Attributes:
        table: (N_VIEWS, n, n_classes) float32.
        row: (n_photos,) int64, the row of each photo by its index.
    """

    table: npt.NDArray[np.float32]
    row: npt.NDArray[np.int64]

    @staticmethod
    def view(epoch: int) -> int:
        """Which epoch's augmentation an epoch repeats: 1 to `N_VIEWS`."""
        return (epoch - 1) % N_VIEWS + 1

    def targets(
        self, one_hot: npt.NDArray[np.float32], indices: npt.NDArray[np.int64], epoch: int
    ) -> npt.NDArray[np.float32]:
        """What the student learns for photos in an epoch.

        Args:
            one_hot: (n, n_classes), their labels, which stay if the teacher could not read a photo.
            indices: (n,), of the photos.
            epoch: at least 0.
        """
        soft = self.table[self.view(epoch) - 1, self.row[indices]]
        return np.where(np.isnan(soft), one_hot, soft)


def augment(policy: Policy, images: Any, indices: Any, n: int, *, seed: int, epoch: int) -> Any:
    """Augment photos; always n of them, since each other number is a program to compile.

    Args:
        policy: how they are augmented.
        images: (b, height, width, 3) uint8, b from 1 to n; they are repeated.
        indices: (b,) positions of the photos.
        n: number of images in the output.
        seed: random seed.
        epoch: number of the epoch; each has its own augmentation.
    """
    parameters = sample(policy, seed, np.resize(indices, n), epoch=epoch)
    return apply(np.resize(images, (n, *images.shape[1:])), parameters)


def ask_teacher(
    teacher: Teacher,
    train: Batches,
    settings: FitSettings,
    *,
    splits: Splits,
    clock: Clock,
    stop: StopRequest,
) -> SoftLabels | None:
    """`compute_soft_labels` as a phase of a fit."""
    with clock.phase("teacher") as note:
        soft_labels = compute_soft_labels(
            teacher,
            train,
            resolve_policy(settings.augmentation),
            hashes=splits.photos.hashes,
            stop=stop,
            report=clock.report("asking the teacher"),
        )
        note(f"{N_VIEWS} augmented views of {train.n_photos:,} training photos")
    return soft_labels


def compute_soft_labels(
    teacher: Teacher,
    train: Batches,
    policy: Policy,
    *,
    hashes: Sequence[bytes],
    stop: StopRequest,
    report: Report,
) -> SoftLabels | None:
    """Compute the teacher's probabilities for each view of the training photos, or read them.

    They are cached like features, view by view. If the system cannot write them, a warning is
    logged. Several processes share the work on each batch.

    Args:
        teacher: from `load_teacher`.
        train: the training photos.
        policy: how they are augmented.
        hashes: content hashes of all photos.
        stop: whether to stop.
        report: called with (views of photos done, total).

    Returns:
        The soft labels; None if it was stopped.
    """
    model, n, total = _folder(teacher.classifier), train.n_photos, N_VIEWS * train.n_photos
    facts = [policy.to_json(), train.seed, str(train.pixels.resize), teacher.columns]
    text = f"{model.name}\n{json.dumps(facts, sort_keys=True)}"
    digest = hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
    keys = [
        hashlib.blake2b(hashes[index] + index.to_bytes(8, "little"), digest_size=16).digest()
        for index in train.indices.tolist()
    ]
    rows_of = {key: [row] for row, key in enumerate(keys)}
    table = np.full((N_VIEWS, n, len(teacher.columns)), np.nan, np.float32)
    row = np.full(len(hashes), -1, np.int64)
    row[train.indices] = np.arange(n)
    for view in range(1, N_VIEWS + 1):
        folder = model.with_name(f"teacher-{digest}-{view}")
        found, _ = read_on_all_processes(folder, rows_of, table[view - 1])
        missing = train.indices[[k for k, key in enumerate(keys) if key not in found]]
        done = n * view - len(missing)
        for start in range(0, len(missing), _PART * FEATURE_BATCH_SIZE):
            part = missing[start : start + _PART * FEATURE_BATCH_SIZE]
            batches = replace(train, indices=part, batch_size=FEATURE_BATCH_SIZE)
            for images, _, indices in batches.in_order():
                if stop.requested:
                    return None
                report(done, total)
                views = augment(
                    policy, images, indices, FEATURE_BATCH_SIZE, seed=train.seed, epoch=view
                )
                probabilities = teacher.classifier.predict_proba(
                    keras().ops.convert_to_numpy(views)[: len(indices)], verbose=False
                )
                table[view - 1, row[indices]] = probabilities[:, teacher.columns]
                done += len(indices)
            read = row[part][~np.isnan(table[view - 1, row[part], 0])]
            if process_index() == 0:  # of several processes the main one writes
                _write(folder, [keys[k] for k in read], table[view - 1, read])
    report(total, total)
    return SoftLabels(table=table, row=row)


def _write(folder: Path, keys: list[bytes], rows: npt.NDArray[np.float32]) -> None:
    try:
        if keys:
            write_features(folder, keys, rows)
    except (OSError, ArgumentError) as error:
        _log.warning("The teacher's probabilities are not cached: %s: %s", folder, error)
