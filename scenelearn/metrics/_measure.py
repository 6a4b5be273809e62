"""Predictions and true labels in, an evaluation out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from scenelearn.metrics._checks import Labels, Table, checked
from scenelearn.metrics._evaluation import ClassScore, Evaluation, ReliabilityBin
from scenelearn.metrics._intervals import Interval, bootstrap, f1_interval, wilson
from scenelearn.metrics._slices import slices
from scenelearn.metrics._trust import trust_score

_TINY = 1e-12  # a probability of 0 given to the true class counts as this in the log loss
_N_BINS = 15  # as in C. Guo et al. (2017)
_MOST_RANKS = 5
_HITS_MISSES = (2.0, 2.0)  # z²/2 of each, rounded: see `bootstrap`


def evaluate(
    labels: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    class_names: Sequence[str],
    *,
    columns: Mapping[str, npt.ArrayLike] | None = None,
    sets: npt.ArrayLike | None = None,
    unlike: npt.ArrayLike | None = None,
) -> Evaluation:
    """Judge predicted probabilities against the true labels.

    Every number follows from the rows as a set: their order, and the batches in which they were
    predicted, change nothing.

    Args:
        labels: (n,) integers in [0, n_classes), the true classes.
        probabilities: (n, n_classes), rows that sum to 1; the column order is `class_names`.
        class_names: one name a column.
        columns: properties of the photos, each (n,), to look for groups that do worse by; see
            `slices`.
        sets: (n, n_classes) booleans, the classes in each photo's prediction set.
        unlike: (n,) booleans, photos flagged as unlike the training photos; with `sets` only.

    Returns:
        Accuracy with its intervals, per-class scores, confusion, top-k, log loss, calibration.

    Raises:
        ArgumentError: if shapes do not fit together, no photo is given, a label is not an integer
            in [0, n_classes), a row is not a probability distribution, two classes have one name,
            a column is no property of these photos, or `sets` or `unlike` are none for them.

    Example:
        >>> result = evaluate([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], ["sea", "street"])
        >>> round(result.accuracy.value, 3), result.confusion
        (0.667, ((1, 0), (1, 1)))

    References:
        Calibration error: M. P. Naeini, G. F. Cooper, M. Hauskrecht (2015), Obtaining well
        calibrated probabilities using Bayesian binning. AAAI; with 15 bins as in C. Guo et al.
        (2017), On calibration of modern neural networks. ICML. Brier score: G. W. Brier (1950),
        Verification of forecasts expressed in terms of probability. Mon. Weather Rev. 78, 1-3.
    """
    truth, table, names = checked(labels, probabilities, class_names)
    predicted = table.argmax(axis=1)
    n_classes = len(names)
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (truth, predicted), 1)

    right = predicted == truth
    n_each = confusion.sum(axis=1)
    outcomes = np.stack([confusion.diagonal(), n_each - confusion.diagonal()], axis=1)
    given = table[np.arange(len(truth)), truth]
    reliability = _reliability(table.max(axis=1), right)
    return Evaluation(
        class_names=names,
        n_photos=len(truth),
        accuracy=wilson(int(right.sum()), len(truth)),
        accuracy_bootstrap=bootstrap(outcomes, _share_right, _HITS_MISSES),
        balanced_accuracy=bootstrap(outcomes, mean_recall, _HITS_MISSES),
        top_k=_top_k(truth, table),
        log_loss=float(-np.log(np.maximum(given, _TINY)).mean()),
        brier=float(((table**2).sum(axis=1) - 2 * given + 1).mean()),
        calibration_error=sum(
            one.accuracy.n / len(truth) * abs(one.confidence - one.accuracy.value)
            for one in reliability
        ),
        calibration_floor=_floor(table.max(axis=1)),
        reliability=reliability,
        per_class=tuple(_class_score(name, k, confusion) for k, name in enumerate(names)),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        slices=slices(right, columns) if columns else (),
        trust=None
        if sets is None
        else trust_score(
            truth, predicted, sets, np.zeros(len(truth), bool) if unlike is None else unlike
        ),
    )


def mean_recall(outcomes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Mean of right/(right + wrong) over classes with photos.

    Args:
        outcomes: (..., n_classes, 2), right and wrong answers.

    Returns:
        (...,) in [0, 1].
    """
    n = outcomes.sum(axis=-1)
    recalls = np.divide(outcomes[..., 0], n, out=np.zeros(n.shape), where=n > 0)
    mean: npt.NDArray[np.float64] = recalls.sum(axis=-1) / (n > 0).sum(axis=-1)
    return mean


def _share_right(outcomes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    share: npt.NDArray[np.float64] = outcomes[..., 0].sum(axis=-1) / outcomes.sum(axis=(-2, -1))
    return share


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
        f1=f1_interval(hits, n_photos, n_predicted),
    )


def _top_k(truth: Labels, table: Table) -> tuple[Interval, ...]:
    """Of equally probable classes the first counts as the more probable, as for the answer."""
    given = table[np.arange(len(truth)), truth][:, None]
    earlier = np.arange(table.shape[1]) < truth[:, None]
    rank = (table > given).sum(axis=1) + ((table == given) & earlier).sum(axis=1)
    ranks = range(1, min(_MOST_RANKS, table.shape[1]) + 1)
    return tuple(wilson(int((rank < k).sum()), len(truth)) for k in ranks)


def _reliability(
    confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]
) -> tuple[ReliabilityBin, ...]:
    bins = _bins(confidence)
    n, n_right = (
        np.bincount(bins, weights=weights, minlength=_N_BINS).astype(int)
        for weights in (np.ones(len(right)), right)
    )
    sure = np.bincount(bins, weights=confidence, minlength=_N_BINS)
    return tuple(
        ReliabilityBin(
            low=k / _N_BINS,
            high=(k + 1) / _N_BINS,
            confidence=float(sure[k] / n[k]),
            accuracy=wilson(int(n_right[k]), int(n[k])),
        )
        for k in np.flatnonzero(n).tolist()
    )


def _floor(confidence: npt.NDArray[np.float64]) -> float:
    """Σ over bins of E|Σ (right − confidence)| / n, where each answer is right with its confidence.

    A sum of many has about a normal distribution, whose mean size is √(2/π) deviations.
    """
    variance = np.bincount(_bins(confidence), weights=confidence * (1 - confidence))
    return float(np.sqrt(2 / np.pi * variance).sum() / len(confidence))


def _bins(confidence: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    return np.minimum((confidence * _N_BINS).astype(np.int64), _N_BINS - 1)
