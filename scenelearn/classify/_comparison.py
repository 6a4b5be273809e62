"""Comparing two classifiers on the same photos."""

from __future__ import annotations

import os

import numpy as np

from scenelearn._progress import Progress, show_progress
from scenelearn.classify._classifier import Classifier
from scenelearn.data import Photos
from scenelearn.data._scan import as_photos
from scenelearn.errors import ArgumentError
from scenelearn.metrics import Comparison
from scenelearn.metrics import compare as compare_probabilities
from scenelearn.metrics._inputs import reorder_columns


def compare(
    a: Classifier,
    b: Classifier,
    photos: Photos | str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    verbose: bool | str = "auto",
) -> Comparison:
    """Compare two classifiers on the same photos. Classes are matched by name.

    Args:
        a: the first classifier.
        b: the second; its image size may differ.
        photos: labeled photos that neither classifier was trained on: from `scan`, or the path of
            a folder or ``.zip`` file to scan.
        progress: called with (what, photos done, total); it replaces the progress bar.
        verbose: True for a progress bar, False for none, "auto" for one on a terminal and in a
            notebook.

    Returns:
        Both accuracies, their difference with its interval, and McNemar's exact test.

    Raises:
        ArgumentError: if `a` or `b` is not a classifier, `photos` is neither `Photos` nor a path,
            or `verbose` is something else.
        ClassMismatchError: if the classes of the classifiers, or of the photos, differ.
        DataError: if `photos` is a path that cannot be scanned.
        NoPhotosError: if no photo can be decoded.
    """
    for name, classifier in (("a", a), ("b", b)):
        if not isinstance(classifier, Classifier):
            raise ArgumentError(
                f"`{name}` must be a Classifier. Received: {type(classifier).__name__}. "
                "Open a saved one with sl.load(path)."
            )
    reorder_columns(np.zeros((0, len(a.class_names))), a.class_names, b.class_names)  # fail early
    with show_progress(progress, verbose) as report:
        scanned = as_photos(photos, report)
        first, second = (
            classifier.predict_labeled(scanned, measure=False, progress=report)
            for classifier in (a, b)
        )
    _, in_a, in_b = np.intersect1d(
        first.indices, second.indices, assume_unique=True, return_indices=True
    )
    return compare_probabilities(
        first.labels[in_a],
        first.outputs.probabilities[in_a],
        reorder_columns(second.outputs.probabilities[in_b], b.class_names, a.class_names),
        a.class_names,
    )
