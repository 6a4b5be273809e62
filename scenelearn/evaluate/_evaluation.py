"""What a classifier reaches on photos whose labels are known: NumPy on its predictions."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.errors import ArgumentError
from scenelearn.evaluate._intervals import Interval, wilson

_TINY = 1e-12  # a probability of 0 given to the true class counts as this in the log loss


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """How one class fares.

    Attributes:
        name: the class.
        n_photos: photos whose true class this is.
        n_predicted: photos that were said to be this class.
        recall: of the photos of this class, the share that was recognised.
        precision: of the photos said to be this class, the share that is.
        f1: harmonic mean of precision and recall, in [0, 1]; 0 where neither is defined.
    """

    name: str
    n_photos: int
    n_predicted: int
    recall: Interval
    precision: Interval
    f1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a classifier reaches on a set of photos.

    Attributes:
        class_names: the classes, in the order of the labels.
        n_photos: how many photos were judged.
        accuracy: share of photos whose most probable class is the true one.
        balanced_accuracy: mean of the classes' recalls (classes without photos left out).
        log_loss: mean of −ln(probability of the true class), in nats.
        calibration_error: expected calibration error over 15 equal bins of confidence, in [0, 1].
        per_class: one score a class.
        confusion: counts, ``confusion[true][predicted]``.
    """

    class_names: tuple[str, ...]
    n_photos: int
    accuracy: Interval
    balanced_accuracy: float
    log_loss: float
    calibration_error: float
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        """Accuracy with its interval, on one line."""
        return f"accuracy {self.accuracy} on {self.n_photos:,} photos"

    def frame(self) -> list[dict[str, Any]]:
        """One plain row a class, ready for a table or a data frame."""
        return [
            {
                "class": score.name,
                "photos": score.n_photos,
                "recall": score.recall.value,
                "recall_low": score.recall.low,
                "recall_high": score.recall.high,
                "precision": score.precision.value,
                "f1": score.f1,
            }
            for score in self.per_class
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain lists, numbers and strings."""
        return {
            "class_names": list(self.class_names),
            "n_photos": self.n_photos,
            "accuracy": self.accuracy.to_json(),
            "balanced_accuracy": self.balanced_accuracy,
            "log_loss": self.log_loss,
            "calibration_error": self.calibration_error,
            "per_class": [
                {
                    "name": score.name,
                    "n_photos": score.n_photos,
                    "n_predicted": score.n_predicted,
                    "recall": score.recall.to_json(),
                    "precision": score.precision.to_json(),
                    "f1": score.f1,
                }
                for score in self.per_class
            ],
            "confusion": [list(row) for row in self.confusion],
        }

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(score.name)}</td><td>{score.n_photos}</td>"
            f"<td>{score.recall}</td><td>{score.precision}</td><td>{score.f1:.3f}</td></tr>"
            for score in self.per_class
        )
        return (
            f"<p><b>Accuracy {self.accuracy}</b> on {self.n_photos:,} photos.</p>"
            "<table><thead><tr><th>class</th><th>photos</th><th>recall</th><th>precision</th>"
            f"<th>F1</th></tr></thead><tbody>{rows}</tbody></table>"
        )


def evaluate(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, class_names: Sequence[str]
) -> Evaluation:
    """Judge predicted probabilities against the true labels.

    Args:
        labels: (n,) integers in [0, n_classes), the true classes.
        probabilities: (n, n_classes), rows that sum to 1; the column order is `class_names`.
        class_names: one name a column.

    Returns:
        Accuracy with its Wilson interval, per-class scores, confusion, log loss, calibration.

    Raises:
        ArgumentError: if shapes do not fit together, no photo is given, a label is not an integer
            in [0, n_classes), or a row is not a probability distribution.

    Example:
        >>> result = evaluate([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], ["sea", "street"])
        >>> round(result.accuracy.value, 3), result.confusion
        (0.667, ((1, 0), (1, 1)))

    References:
        Calibration error: M. P. Naeini, G. F. Cooper, M. Hauskrecht (2015), Obtaining well
        calibrated probabilities using Bayesian binning. AAAI; with 15 bins as in C. Guo et al.
        (2017), On calibration of modern neural networks. ICML.
    """
    truth = _array("labels", labels, None)
    table = _array("probabilities", probabilities, np.float64)
    names = tuple(class_names)
    _check(truth, table, names)

    predicted = table.argmax(axis=1)
    n_classes = len(names)
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (truth, predicted), 1)

    per_class = tuple(_class_score(name, k, confusion) for k, name in enumerate(names))
    recalls = [score.recall.value for score in per_class if score.n_photos]
    right = predicted == truth
    return Evaluation(
        class_names=names,
        n_photos=len(truth),
        accuracy=wilson(int(right.sum()), len(truth)),
        balanced_accuracy=float(np.mean(recalls)),
        log_loss=float(-np.log(np.maximum(table[np.arange(len(truth)), truth], _TINY)).mean()),
        calibration_error=_calibration_error(table.max(axis=1), right),
        per_class=per_class,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def _array(name: str, values: npt.ArrayLike, dtype: type | None) -> npt.NDArray[Any]:
    try:
        return np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"`{name}` must be an array of numbers. Received: {type(values).__name__}, which NumPy "
            f"cannot take: {error} Pass arrays of shapes (n,) and (n, n_classes)."
        ) from None


def _check(truth: npt.NDArray[Any], table: npt.NDArray[np.float64], names: tuple[str, ...]) -> None:
    if truth.ndim != 1 or table.shape != (len(truth), len(names)):
        raise ArgumentError(
            "`probabilities` must have one row for each label and one column for each class. "
            f"Received: labels of shape {truth.shape}, probabilities of shape {table.shape}, "
            f"{len(names)} class names. Pass arrays of shapes (n,) and (n, n_classes)."
        )
    if not len(truth):
        raise ArgumentError(
            "`labels` must hold at least one photo. Received: 0. Pass photos to judge on."
        )
    integers = np.issubdtype(truth.dtype, np.integer)
    if not integers or truth.min() < 0 or truth.max() >= len(names):
        range_ = f", from {truth.min()} to {truth.max()}" if integers else ""
        raise ArgumentError(
            f"`labels` must be integers in [0, {len(names)}). Received: dtype {truth.dtype}"
            f"{range_}. Number the classes as in `class_names`."
        )
    sums = table.sum(axis=1)
    if not (np.isfinite(table).all() and table.min() >= 0 and np.allclose(sums, 1, atol=1e-3)):
        raise ArgumentError(
            "`probabilities` must be rows of numbers ≥ 0 that sum to 1. Received: row sums from "
            f"{sums.min():.4g} to {sums.max():.4g}, smallest entry {table.min():.4g}. "
            "Apply a softmax to logits first."
        )


def _class_score(name: str, k: int, confusion: npt.NDArray[np.int64]) -> ClassScore:
    hits = int(confusion[k, k])
    n_photos = int(confusion[k].sum())
    n_predicted = int(confusion[:, k].sum())
    return ClassScore(
        name=name,
        n_photos=n_photos,
        n_predicted=n_predicted,
        recall=wilson(hits, n_photos),
        precision=wilson(hits, n_predicted),
        f1=2 * hits / (n_photos + n_predicted) if n_photos + n_predicted else 0.0,
    )


def _calibration_error(
    confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], n_bins: int = 15
) -> float:
    """Σ over bins of (share of photos) × |mean confidence − share right|."""
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(confidence))
