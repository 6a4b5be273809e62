"""Calibration on validation photos: temperature, conformal prediction sets, OOD p-values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_number
from scenelearn.classify._inference import Outputs
from scenelearn.classify._neighbors import NeighborIndex
from scenelearn.classify._ood import OOD_P_VALUE, OODDetector
from scenelearn.errors import ArgumentError

DEFAULT_COVERAGE = 0.95
"""How often a prediction set contains the true class, unless another coverage is asked for."""

_TOLERANCE = 1e-6  # of a temperature
_BLOCK_ROWS = 1024

# The arrays of a bundle by name: dtype and number of dimensions.
_ARRAYS = {
    "conformal_scores": ("<f4", 1),
    "ood_mean": ("<f4", 1), "ood_whitening": ("<f4", 2), "ood_medians": ("<f4", 1),
    "ood_spreads": ("<f4", 1), "ood_scores": ("<f4", 1),
    "neighbor_mean": ("<f4", 1), "neighbor_components": ("<f2", 2),
    "neighbor_embeddings": ("<f2", 2), "neighbor_labels": ("<i4", 1),
}  # fmt: skip


def fit_temperature(
    logits: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.NDArray[np.float64] | None = None
) -> float:
    """The temperature T > 0 for which softmax(logits / T) has the lowest log loss.

    Temperature scaling changes the confidence of predictions, never the predicted class. Labels are
    smoothed: 1/(n + 2) of each is spread over all classes. Otherwise a few photos that are all
    correct would call for infinite confidence. The log loss is convex in 1/T; Newton's method, with
    bisection where it leaves the bracket, finds the minimum for T from 0.05 to 20.

    Args:
        logits: (n, n_classes), of photos that were not trained on.
        labels: (n,) integers in [0, n_classes).
        weights: (n,) of the photos in the mean; None if all count the same.

    Returns:
        T, above 1 if the network is overconfident.

    Example:
        >>> round(fit_temperature([[2.0, 0]] * 400, [0] * 300 + [1] * 100), 2)
        1.83

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger (2017), On calibration of modern neural
        networks. ICML. Smoothed labels: J. Platt (1999), Probabilistic outputs for support vector
        machines. Advances in Large Margin Classifiers, MIT Press.
    """
    z, y = np.asarray(logits), np.asarray(labels)
    n, smoothing = len(y), 1 / (len(y) + 2)
    weight = np.full(n, 1 / n) if weights is None else weights / weights.sum()

    def derivatives(inverse: float) -> tuple[float, float]:
        """Those of the mean log loss by 1/T: E[z] under the softmax minus the true z; Var[z]."""
        first = second = 0.0
        for start in range(0, n, _BLOCK_ROWS):  # float64 for one block at a time
            rows = slice(start, start + _BLOCK_ROWS)
            block = z[rows].astype(np.float64)
            block -= block.max(axis=1, keepdims=True)
            true = (1 - smoothing) * block[np.arange(len(block)), y[rows]]
            true += smoothing * block.mean(axis=1)
            p = np.exp(inverse * block)
            p /= p.sum(axis=1, keepdims=True)
            mean = np.einsum("nk,nk->n", p, block)
            block -= mean[:, None]
            first += float(weight[rows] @ (mean - true))
            second += float(weight[rows] @ np.einsum("nk,nk,nk->n", p, block, block))
        return first, second

    low, high, inverse = 1 / 20, 1 / 0.05, 1.0
    while high / low > 1 + _TOLERANCE:
        slope, curvature = derivatives(inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        newton = inverse - slope / curvature if curvature > 0 else math.inf
        if abs(newton - inverse) <= _TOLERANCE * inverse:
            return 1 / inverse
        inverse = newton if low < newton < high else math.sqrt(low * high)
    return 1 / math.sqrt(low * high)


def conformal_scores(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """The nonconformity scores of labeled photos: 1 − the probability of the true class.

    Args:
        probabilities: (n, n_classes), rows that sum to 1.
        labels: (n,) integers in [0, n_classes).

    Returns:
        (n,) in [0, 1], sorted, for `conformal_threshold`.

    Example:
        >>> conformal_scores([[0.75, 0.25], [0.5, 0.5]], [0, 1]).tolist()
        [0.25, 0.5]
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels)
    return np.sort(1 - p[np.arange(len(y)), y])


def conformal_threshold(scores: npt.NDArray[np.floating], coverage: float) -> float:
    """The highest score of a class in a prediction set: a quantile of the validation scores.

    Of n sorted scores it is the ⌈(n + 1) · coverage⌉-th. The "+ 1" stands for the new photo and
    makes the guarantee hold for every n, not only for large ones.

    Args:
        scores: (n,), sorted, from `conformal_scores` for photos that were not trained on.
        coverage: how often the set is to contain the true class, between 0 and 1.

    Returns:
        The threshold. It is infinite, so that each set contains all classes, if n is too small to
        guarantee this coverage.

    Raises:
        ArgumentError: if `coverage` is not between 0 and 1.

    Example:
        >>> scores = np.arange(1, 10) / 10
        >>> conformal_threshold(scores, 0.8), conformal_threshold(scores, 0.95)
        (0.8, inf)
    """
    coverage = check_coverage(coverage)
    rank = math.ceil(round((len(scores) + 1) * coverage, 9))
    return float(scores[max(rank, 1) - 1]) if rank <= len(scores) else math.inf


def check_coverage(coverage: object) -> float:
    """Check that a coverage is between 0 and 1.

    Raises:
        ArgumentError: if it is not.
    """
    return check_number(
        "coverage",
        coverage,
        low=0,
        high=1,
        open_low=True,
        open_high=True,
        advice="With 0.95, prediction sets contain the true class 95% of the time.",
    )


def resolve_coverage(coverage: float | None, calibration: Calibration | None) -> float | None:
    """The coverage to use, in place of None the default; None without a calibration.

    Raises:
        ArgumentError: if it is not between 0 and 1, or given without a calibration.
    """
    if calibration is not None:
        return check_coverage(DEFAULT_COVERAGE if coverage is None else coverage)
    if coverage is not None:
        raise ArgumentError(
            "`coverage` needs a classifier with a calibration, as `fit` returns. "
            f"Received: coverage={coverage!r} for one without. Leave it out, or fit again."
        )
    return None


def prediction_sets(probabilities: npt.ArrayLike, threshold: float) -> npt.NDArray[np.bool_]:
    """The classes in each photo's prediction set: those with 1 − probability up to the threshold.

    If new photos come from the same distribution as the validation photos, the sets contain the
    true class at least as often as the threshold's coverage, whatever the network. This holds on
    average over all photos, not for each class, and not for photos of another kind. Of all sets
    with this guarantee, these are the smallest on average. The most probable class is always
    included, which can only raise the coverage.

    Args:
        probabilities: (n, n_classes).
        threshold: from `conformal_threshold`.

    Returns:
        (n, n_classes).

    Example:
        >>> prediction_sets([[0.9, 0.1], [0.6, 0.4], [0.45, 0.55]], 0.6).tolist()
        [[True, False], [True, True], [True, True]]

    References:
        M. Sadinle, J. Lei, L. Wasserman (2019), Least ambiguous set-valued classifiers with
        bounded error levels. J. Am. Stat. Assoc. 114, 223-234. Split conformal prediction: V. Vovk,
        A. Gammerman, G. Shafer (2005), Algorithmic learning in a random world. Springer.
    """
    p = np.asarray(probabilities)
    sets: npt.NDArray[np.bool_] = np.subtract(1, p, dtype=np.float64) <= threshold
    sets[np.arange(len(p)), p.argmax(axis=1)] = True
    return sets


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Calibration:
    """What a classifier keeps of its validation and training photos to qualify predictions.

    The validation photos also chose the temperature, and between linear probe and fine-tuned
    network, so they are not quite as new to the classifier as other photos. That is one number
    and one choice. On unseen Intel photos, prediction sets reached their coverage within chance.

    Attributes:
        conformal_scores: (n_validation,) float32, sorted, of the calibrated probabilities.
        ood_detector: flags photos unlike the training photos.
        neighbor_index: the training photos that `Classifier.explain` can show.
    """

    conformal_scores: npt.NDArray[np.float32]
    ood_detector: OODDetector
    neighbor_index: NeighborIndex

    def __repr__(self) -> str:
        return (
            f"<Calibration: {len(self.conformal_scores):,} validation photos, "
            f"{len(self.neighbor_index):,} training photos>"
        )

    @property
    def detects_ood(self) -> bool:
        """Whether there are enough validation photos, 33, for a p-value of at most 0.03."""
        return 1 / (len(self.conformal_scores) + 1) <= OOD_P_VALUE

    def guarantees(self, coverage: float) -> bool:
        """Whether there are enough validation photos for sets of this coverage: 19 for 0.95."""
        return math.isfinite(conformal_threshold(self.conformal_scores, coverage))

    def prediction_sets(
        self, probabilities: npt.ArrayLike, coverage: float
    ) -> npt.NDArray[np.bool_]:
        """The conformal prediction set of each photo.

        Args:
            probabilities: (n, n_classes), calibrated.
            coverage: how often the sets are to contain the true class, between 0 and 1.

        Returns:
            (n, n_classes) booleans.

        Raises:
            ArgumentError: if `coverage` is not between 0 and 1.
        """
        return prediction_sets(probabilities, conformal_threshold(self.conformal_scores, coverage))

    def ood_p_values(self, outputs: Outputs) -> npt.NDArray[np.float64]:
        """The fraction of validation photos at least as unlike the training photos, (n,)."""
        residuals = self.neighbor_index.residuals(outputs.features)
        return self.ood_detector.p_values(outputs.ood_features, residuals)

    def is_ood(self, outputs: Outputs) -> npt.NDArray[np.bool_]:
        """Which photos are unlike the training photos: those with a p-value of at most 0.03."""
        return self.ood_p_values(outputs) <= OOD_P_VALUE

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays by name, for the bundle. It stores the paths of the neighbor index as text."""
        index, detector = self.neighbor_index, self.ood_detector
        arrays: dict[str, npt.NDArray[Any]] = {
            "conformal_scores": self.conformal_scores,
            "ood_mean": detector.mean,
            "ood_whitening": detector.whitening,
            "ood_medians": detector.medians,
            "ood_spreads": detector.spreads,
            "ood_scores": detector.scores,
            "neighbor_mean": index.mean,
            "neighbor_components": index.components,
            "neighbor_embeddings": index.embeddings,
            "neighbor_labels": index.labels,
        }
        return {
            name: np.ascontiguousarray(arrays[name], dtype) for name, (dtype, _) in _ARRAYS.items()
        }


def calibration_from_arrays(
    arrays: dict[str, npt.NDArray[Any]], paths: list[str], sizes: tuple[int, int, int]
) -> Calibration:
    """The inverse of `Calibration.to_arrays`.

    Args:
        arrays: by name.
        paths: of the neighbor index.
        sizes: the network's numbers of classes, features and OOD features.

    Returns:
        The calibration.

    Raises:
        ValueError: if an array is missing, or does not match the others or the network.
    """
    if set(arrays) != set(_ARRAYS) or any(
        (arrays[name].dtype.str, arrays[name].ndim) != kind for name, kind in _ARRAYS.items()
    ):
        raise ValueError(f"arrays {sorted(arrays)}")
    ood = {k.removeprefix("ood_"): v for k, v in arrays.items() if k.startswith("ood_")}
    neighbors = {
        k.removeprefix("neighbor_"): v for k, v in arrays.items() if k.startswith("neighbor_")
    }
    (n_classes, n_features, n_ood), labels = sizes, neighbors["labels"]
    n, n_components = neighbors["embeddings"].shape
    matches = (
        ood["mean"].shape == (n_ood,)
        and ood["whitening"].shape == (n_ood, n_ood)
        and ood["medians"].shape == ood["spreads"].shape == (2,)
        and neighbors["mean"].shape == (n_features,)
        and neighbors["components"].shape == (n_features, n_components)
        and len(labels) == n == len(paths)
        and all(np.isfinite(array).all() for array in arrays.values())
        and (ood["spreads"] > 0).all()
        and ((labels >= 0) & (labels < n_classes)).all()
    )
    if not matches:
        raise ValueError("arrays that do not match each other or the network")
    return Calibration(
        conformal_scores=arrays["conformal_scores"],
        ood_detector=OODDetector(**ood),
        neighbor_index=NeighborIndex(**neighbors, paths=tuple(paths)),
    )
