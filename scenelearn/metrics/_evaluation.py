"""Evaluation of predicted probabilities against true labels."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_array, check_choice, check_integer
from scenelearn._display import printable
from scenelearn._json import dataclass_json
from scenelearn._pandas import to_pandas
from scenelearn.errors import ArgumentError
from scenelearn.metrics._inputs import Labels, Probabilities, check_predictions
from scenelearn.metrics._intervals import Interval, bootstrap, f1_interval, wilson
from scenelearn.metrics._selective import SelectiveMetrics, selective_metrics
from scenelearn.metrics._slices import Slice, find_slices

_EPSILON = 1e-12  # probabilities below this are clipped in the log loss
_N_BINS = 15  # as in C. Guo et al. (2017)
_MAX_K = 5
OBJECTIVES = ("accuracy", "balanced_accuracy", "log_loss")
_MIN_JUDGED = 16  # photos of a class: with fewer, even a recall of 100% is uncertain by 20 points
_PSEUDOCOUNTS = (2.0, 2.0)  # of correct and wrong predictions: z²/2 each, rounded; see `bootstrap`


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMetrics:
    """Metrics of one class.

    Attributes:
        label: the class name.
        n_photos: photos of this class (its support).
        n_predicted: photos predicted as this class.
        recall: fraction of the photos of this class that were predicted as it.
        precision: fraction of the photos predicted as this class that belong to it.
        f1: harmonic mean of precision and recall; 0 if neither is defined.
    """

    label: str
    n_photos: int
    n_predicted: int
    recall: Interval
    precision: Interval
    f1: Interval

    def __repr__(self) -> str:
        return (
            f"<ClassMetrics {self.label!r}: recall {self.recall.value:.3f}, precision "
            f"{self.precision.value:.3f}, F1 {self.f1.value:.3f}, {self.n_photos:,} photos>"
        )

    def to_json(self) -> dict[str, Any]:
        """The six fields as plain values."""
        return dataclass_json(self)


class Confusion(NamedTuple):
    """Two classes that were confused.

    Attributes:
        true_label: the true class.
        predicted_label: the predicted class.
        n_photos: photos of class `true_label` that were predicted as `predicted_label`.
        fraction: their fraction of all photos of class `true_label`.
    """

    true_label: str
    predicted_label: str
    n_photos: int
    fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """One bin of a reliability diagram: photos with similar confidence.

    Attributes:
        low: lower edge of the bin, in [0, 1].
        high: upper edge of the bin.
        confidence: mean probability of the predicted class.
        accuracy: fraction of correct predictions; its `n` is the number of photos in the bin.
    """

    low: float
    high: float
    confidence: float
    accuracy: Interval

    def __repr__(self) -> str:
        return (
            f"<ReliabilityBin: confidence {self.confidence:.3f}, accuracy "
            f"{self.accuracy.value:.3f}, {self.accuracy.n:,} photos>"
        )

    def to_json(self) -> dict[str, Any]:
        """The four fields as plain values."""
        return dataclass_json(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Metrics of a classifier on a set of photos.

    Attributes:
        class_names: the classes, in the order of the labels.
        n_photos: number of photos.
        accuracy: fraction of photos whose most probable class is the true one, with Wilson's
            interval.
        accuracy_bootstrap: accuracy with a stratified bootstrap interval, which keeps the number
            of photos per class fixed.
        balanced_accuracy: mean recall over the classes with photos, with a stratified bootstrap
            interval.
        top_k_accuracy: fraction of photos whose true class is among the k most probable, for k
            from 1 to 5 or to the number of classes.
        log_loss: mean of −ln(probability of the true class), in nats.
        brier_score: mean of Σ over classes (probability − [is the true class])², in [0, 2].
        calibration_error: expected calibration error (ECE) over the bins of `reliability`, in
            [0, 1].
        calibration_noise_floor: expected ECE of perfectly calibrated predictions with the same
            confidences: the part of the ECE that is due to chance.
        reliability: 15 confidence bins of equal width, for a reliability diagram; empty bins are
            left out.
        per_class: metrics of each class.
        confusion_matrix: counts, ``confusion_matrix[true][predicted]``.
        slices: slices of photos, the worst first; empty if no columns were given.
        selective: metrics of prediction sets and abstaining; None without prediction sets.
        objective: the metric that results lead with: "accuracy", "balanced_accuracy" or "log_loss".
    """

    class_names: tuple[str, ...]
    n_photos: int
    accuracy: Interval
    accuracy_bootstrap: Interval
    balanced_accuracy: Interval
    top_k_accuracy: tuple[Interval, ...]
    log_loss: float
    brier_score: float
    calibration_error: float
    calibration_noise_floor: float
    reliability: tuple[ReliabilityBin, ...]
    per_class: tuple[ClassMetrics, ...]
    confusion_matrix: tuple[tuple[int, ...], ...]
    slices: tuple[Slice, ...] = ()
    selective: SelectiveMetrics | None = None
    objective: str = "accuracy"

    @property
    def summary(self) -> str:
        """The metric of the objective, with its interval if it has one, on one line."""
        value = getattr(self, self.objective)
        value = value if isinstance(value, Interval) else f"{value + 0:.3f}"  # no minus zero
        return f"{self.objective.replace('_', ' ')} {value} on {self.n_photos:,} photos"

    @property
    def rare_classes(self) -> tuple[ClassMetrics, ...]:
        """The classes that are too rare to judge: those with fewer than 16 photos.

        With 15 photos, the 95% interval of a recall of 100% still begins below 80%.
        """
        return tuple(metrics for metrics in self.per_class if metrics.n_photos < _MIN_JUDGED)

    def __repr__(self) -> str:
        return f"<Evaluation: {self.summary}, {len(self.class_names)} classes>"

    def __str__(self) -> str:
        """Overall metrics, per-class metrics and the significantly worse slices."""
        labels = [printable(metrics.label) for metrics in self.per_class]
        width = max(5, *map(len, labels))
        top_2 = f"; top-2 {self.top_k_accuracy[1]}" if len(self.top_k_accuracy) > 2 else ""
        lines = [
            self.summary + top_2,
            *([] if self.objective == "accuracy" else [f"accuracy {self.accuracy}"]),
            *(
                []
                if self.objective == "balanced_accuracy"
                else [f"balanced accuracy {self.balanced_accuracy}"]
            ),
            f"calibration error {self.calibration_error:.3f} (expected by chance: "
            f"{self.calibration_noise_floor:.3f}), log loss {self.log_loss:.3f}, Brier score "
            f"{self.brier_score:.3f}",
            *([str(self.selective)] if self.selective else []),
            "",
            f"{'class':<{width}}  photos  {'recall':<22}  {'precision':<22}  F1",
            *(
                f"{label:<{width}}  {metrics.n_photos:>6}  {metrics.recall!s:<22}  "
                f"{metrics.precision!s:<22}  {metrics.f1}"
                for label, metrics in zip(labels, self.per_class, strict=True)
            ),
        ]
        if self.rare_classes:
            rare = ", ".join(f"{printable(m.label)} ({m.n_photos})" for m in self.rare_classes)
            lines += ["", f"Too few photos to judge: {rare}"]
        worse = [str(slice_) for slice_ in self.slices if slice_.is_worse]
        if worse:
            lines += ["", "Significantly worse slices:", *map(printable, worse)]
        elif self.slices:
            lines += ["", f"None of {len(self.slices)} slices is significantly worse."]
        return "\n".join(lines)

    def most_confused(self, min_count: int = 1) -> list[Confusion]:
        """List the pairs of classes that were confused, the most frequent first.

        Args:
            min_count: leave out pairs with fewer photos, at least 1.

        Returns:
            Tuples (true_label, predicted_label, n_photos, fraction).

        Raises:
            ArgumentError: if `min_count` is not a positive integer.

        Example:
            >>> result = evaluate([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], ["sea", "sky"])
            >>> result.most_confused()
            [Confusion(true_label='sky', predicted_label='sea', n_photos=1, fraction=0.5)]
        """
        check_integer("min_count", min_count, low=1, advice="The default is 1.")
        confusions = [
            Confusion(metrics.label, predicted, n, n / metrics.n_photos)
            for metrics, row in zip(self.per_class, self.confusion_matrix, strict=True)
            for predicted, n in zip(self.class_names, row, strict=True)
            if n >= min_count and predicted != metrics.label
        ]
        return sorted(confusions, key=lambda confusion: -confusion.n_photos)

    def normalized_confusion_matrix(self) -> tuple[tuple[float, ...], ...]:
        """The confusion matrix normalized over the true classes.

        Returns:
            Rows that sum to 1, or to 0 for classes without photos.
        """
        return tuple(
            tuple(count / max(1, metrics.n_photos) for count in row)
            for row, metrics in zip(self.confusion_matrix, self.per_class, strict=True)
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """Per-class metrics as plain rows.

        Returns:
            One dictionary per class: ``label``, ``n_photos``, ``n_predicted``, and for each of
            recall, precision and F1 the value with its ``_low`` and ``_high`` end.
        """
        rows = []
        for metrics in self.per_class:
            row: dict[str, Any] = {
                "label": metrics.label,
                "n_photos": metrics.n_photos,
                "n_predicted": metrics.n_predicted,
            }
            for name in ("recall", "precision", "f1"):
                interval: Interval = getattr(metrics, name)
                row |= {
                    name: interval.value,
                    f"{name}_low": interval.low,
                    f"{name}_high": interval.high,
                }
            rows.append(row)
        return rows

    def to_pandas(self) -> Any:
        """Per-class metrics as a ``pandas.DataFrame`` with the columns of `to_rows`.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return to_pandas(self.to_rows())

    def to_json(self) -> dict[str, Any]:
        """All fields as plain values."""
        return dataclass_json(self)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(metrics.label)}</td><td>{metrics.n_photos}</td>"
            f"<td>{metrics.recall}</td><td>{metrics.precision}</td><td>{metrics.f1}</td></tr>"
            for metrics in self.per_class
        )
        worse = "".join(
            f"<li>{html.escape(str(slice_))}</li>" for slice_ in self.slices if slice_.is_worse
        )
        return (
            f"<p><b>{self.summary[0].upper()}{self.summary[1:]}</b></p>"
            "<table><thead><tr><th>class</th><th>photos</th><th>recall</th><th>precision</th>"
            f"<th>F1</th></tr></thead><tbody>{rows}</tbody></table>"
            + (f"<p>Significantly worse slices:</p><ul>{worse}</ul>" if worse else "")
        )


def evaluate(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    class_names: Sequence[str],
    *,
    columns: Mapping[str, npt.ArrayLike] | None = None,
    prediction_sets: npt.ArrayLike | None = None,
    is_ood: npt.ArrayLike | None = None,
    objective: str = "accuracy",
) -> Evaluation:
    """Evaluate predicted probabilities against true labels.

    The result does not depend on the order of the photos or on the batches in which they were
    predicted.

    Args:
        labels: (n,) integers in [0, n_classes), the true classes.
        probabilities: (n, n_classes), rows that sum to 1, columns in the order of `class_names`.
        class_names: one unique name per column.
        columns: properties of the photos, each (n,), to find slices by; see `find_slices`.
        prediction_sets: (n, n_classes) booleans, the classes in each photo's prediction set.
        is_ood: (n,) booleans, photos flagged as out of distribution. Used only together with
            `prediction_sets`.
        objective: the metric that the result leads with: "accuracy", "balanced_accuracy" or
            "log_loss".

    Returns:
        Accuracy with its intervals, per-class metrics, confusion matrix, top-k accuracy, log loss,
        Brier score and calibration; slices and selective metrics where they were asked for.

    Raises:
        ArgumentError: if shapes do not match, there are no photos, a label is not an integer in
            [0, n_classes), a row is not a probability distribution, a class name is repeated, or
            a column, `prediction_sets` or `is_ood` does not fit the photos, or `objective` is
            something else.

    Example:
        >>> result = evaluate([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], ["sea", "street"])
        >>> result
        <Evaluation: accuracy 66.7% (20.8 to 93.9) on 3 photos, 2 classes>
        >>> result.confusion_matrix
        ((1, 0), (1, 1))

    References:
        Calibration error: M. P. Naeini, G. F. Cooper, M. Hauskrecht (2015), Obtaining well
        calibrated probabilities using Bayesian binning. AAAI; with 15 bins as in C. Guo et al.
        (2017), On calibration of modern neural networks. ICML. Brier score: G. W. Brier (1950),
        Verification of forecasts expressed in terms of probability. Mon. Weather Rev. 78, 1-3.
    """
    check_choice("objective", objective, OBJECTIVES, advice="The default is 'accuracy'.")
    y_true, y_prob, names = check_predictions(labels, probabilities, class_names)
    if prediction_sets is not None:
        prediction_sets = check_array("prediction_sets", prediction_sets)
        if prediction_sets.shape != y_prob.shape:
            raise ArgumentError(
                f"`prediction_sets` must have the shape of `probabilities`, {y_prob.shape}. "
                f"Received: shape {prediction_sets.shape}. Pass a boolean per photo and class."
            )
    predicted, confidence = y_prob.argmax(axis=1), np.minimum(y_prob.max(axis=1), 1)
    n_classes = len(names)
    matrix = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(matrix, (y_true, predicted), 1)

    correct = predicted == y_true
    n_per_class = matrix.sum(axis=1)
    outcomes = np.stack([matrix.diagonal(), n_per_class - matrix.diagonal()], axis=1)
    true_prob = y_prob[np.arange(len(y_true)), y_true]
    reliability = _reliability(confidence, correct)
    return Evaluation(
        class_names=names,
        n_photos=len(y_true),
        accuracy=wilson(int(correct.sum()), len(y_true)),
        accuracy_bootstrap=bootstrap(outcomes, _accuracy, _PSEUDOCOUNTS),
        balanced_accuracy=bootstrap(outcomes, mean_recall, _PSEUDOCOUNTS),
        top_k_accuracy=_top_k_accuracy(y_true, y_prob),
        log_loss=float(-np.log(np.maximum(true_prob, _EPSILON)).mean()),
        brier_score=float((np.einsum("ij,ij->i", y_prob, y_prob) - 2 * true_prob + 1).mean()),
        calibration_error=sum(
            bin_.accuracy.n / len(y_true) * abs(bin_.confidence - bin_.accuracy.value)
            for bin_ in reliability
        ),
        calibration_noise_floor=_calibration_noise_floor(confidence),
        reliability=reliability,
        per_class=tuple(_class_metrics(name, k, matrix) for k, name in enumerate(names)),
        confusion_matrix=tuple(tuple(row) for row in matrix.tolist()),
        slices=() if columns is None else find_slices(correct, columns),
        selective=None
        if prediction_sets is None
        else selective_metrics(
            y_true,
            predicted,
            prediction_sets,
            np.zeros(len(y_true), bool) if is_ood is None else is_ood,
        ),
        objective=objective,
    )


def mean_recall(outcomes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Mean of correct / (correct + wrong) over the classes with photos.

    Args:
        outcomes: (..., n_classes, 2), correct and wrong predictions.

    Returns:
        (...,) in [0, 1].
    """
    n = outcomes.sum(axis=-1)
    recalls = np.divide(outcomes[..., 0], n, out=np.zeros(n.shape), where=n > 0)
    mean: npt.NDArray[np.float64] = recalls.sum(axis=-1) / (n > 0).sum(axis=-1)
    return mean


def _accuracy(outcomes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    accuracy: npt.NDArray[np.float64] = outcomes[..., 0].sum(axis=-1) / outcomes.sum(axis=(-2, -1))
    return accuracy


def _class_metrics(label: str, k: int, confusion_matrix: npt.NDArray[np.int64]) -> ClassMetrics:
    n_correct = int(confusion_matrix[k, k])
    n_photos = int(confusion_matrix[k].sum())
    n_predicted = int(confusion_matrix[:, k].sum())
    return ClassMetrics(
        label=label,
        n_photos=n_photos,
        n_predicted=n_predicted,
        recall=wilson(n_correct, n_photos),
        precision=wilson(n_correct, n_predicted),
        f1=f1_interval(n_correct, n_photos, n_predicted),
    )


def _top_k_accuracy(y_true: Labels, y_prob: Probabilities) -> tuple[Interval, ...]:
    """Top-k accuracy; of equally probable classes, the first ranks higher, as in ``argmax``."""
    true_prob = y_prob[np.arange(len(y_true)), y_true][:, None]
    earlier = np.arange(y_prob.shape[1]) < y_true[:, None]
    rank = (y_prob > true_prob).sum(axis=1) + ((y_prob == true_prob) & earlier).sum(axis=1)
    ks = range(1, min(_MAX_K, y_prob.shape[1]) + 1)
    return tuple(wilson(int((rank < k).sum()), len(y_true)) for k in ks)


def _reliability(
    confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]
) -> tuple[ReliabilityBin, ...]:
    bins = _bins(confidence)
    n, n_correct = (
        np.bincount(bins, weights=weights, minlength=_N_BINS).astype(int)
        for weights in (np.ones(len(correct)), correct)
    )
    total = np.bincount(bins, weights=confidence, minlength=_N_BINS)
    return tuple(
        ReliabilityBin(
            low=k / _N_BINS,
            high=(k + 1) / _N_BINS,
            confidence=float(total[k] / n[k]),
            accuracy=wilson(int(n_correct[k]), int(n[k])),
        )
        for k in np.flatnonzero(n).tolist()
    )


def _calibration_noise_floor(confidence: npt.NDArray[np.float64]) -> float:
    """Expected ECE if each prediction is correct with the probability of its confidence.

    The sum over bins of E|Σ (correct − confidence)| / n. Each inner sum is approximately normal,
    and the mean absolute value of a centered normal variable is √(2/π) standard deviations.
    """
    variance = np.bincount(_bins(confidence), weights=confidence * (1 - confidence))
    return float(np.sqrt(2 / np.pi * variance).sum() / len(confidence))


def _bins(confidence: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.minimum((confidence * _N_BINS).astype(np.int64), _N_BINS - 1)
