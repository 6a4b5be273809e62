"""The linear probe: multinomial logistic regression on the features of the frozen backbone.

The L2 penalty is chosen by cross-validation on the training photos. The validation photos would not
do better. Mean cross-entropy on independent Intel photos (MobileNetV2-0.35 at 160 px), for linear
probes fitted on 25, 100 and 500 photos per class, with the penalty chosen by cross-validation:
0.441, 0.356, 0.306; by a validation split of the usual size: 0.444, 0.358, 0.310; by the sum of
both: 0.438, 0.356, 0.306; with the best penalty there is: 0.437, 0.354, 0.305.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_number
from scenelearn._logistic_regression import (
    N_HELD_OUT,
    FeatureSpace,
    Floats,
    assign_folds,
    build_space,
    search_l2,
    solve_all,
)
from scenelearn._progress import Report
from scenelearn.errors import WeightsFileError
from scenelearn.finetune._class_weights import photo_weights

_TOLERANCE = 1e-8  # nats that a further step would gain
_DEFAULT_L2 = 0.1  # where nothing can be held out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearProbe:
    """A linear layer from features to logits.

    Attributes:
        kernel: (n_features, n_classes) float32.
        bias: (n_classes,) float32.
        l2: coefficient of the penalty that it was fitted with.
    """

    kernel: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    l2: float

    def logits(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Map features (n, n_features) to logits (n, n_classes)."""
        return features @ self.kernel + self.bias

    def __repr__(self) -> str:
        n_features, n_classes = self.kernel.shape
        return f"<LinearProbe: {n_features:,} features, {n_classes} classes, l2={self.l2:.2g}>"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CrossValidationResult:
    """The linear probe with the best L2 penalty, and the scores that decided it.

    Attributes:
        probe: fitted on all photos.
        losses: (l2, mean cross-entropy of held-out photos in nats) for each penalty, from strong
            to weak; empty if no photo could be held out.
        held_out_accuracy: fraction of held-out photos that are classified correctly with the best
            penalty; NaN if none could be held out.
    """

    probe: LinearProbe
    losses: tuple[tuple[float, float], ...]
    held_out_accuracy: float

    def __repr__(self) -> str:
        return (
            f"<CrossValidationResult: l2={self.probe.l2:.2g} of {len(self.losses)}, held-out "
            f"accuracy {self.held_out_accuracy:.1%}>"
        )


def fit_linear_probe(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    n_classes: int,
    l2: float,
    *,
    class_weight: Floats | None = None,
    start: LinearProbe | None = None,
) -> LinearProbe:
    """Fit the linear layer with the smallest mean cross-entropy plus L2 penalty.

    With z the features standardized to mean 0 and standard deviation 1, it minimizes
    mean(−ln softmax(z W + b)[label]) + l2/2 · ΣW², which is convex, and returns the solution for
    the original features. The method is L-BFGS, preconditioned by the Cholesky factor of
    v · zᵀz/n + l2 · 1, where v is the variance of a class probability. If there are fewer photos
    than features, the features are first projected onto the space that the photos span.

    Args:
        features: (n, n_features) float32.
        labels: (n,) integers in [0, n_classes).
        n_classes: number of classes.
        l2: coefficient of the penalty, above 0.
        class_weight: (n_classes,), how much the photos of each class count in the mean, scaled to
            a mean of 1 over the photos. None: all count the same.
        start: a linear probe for the same features to start from; only saves time.

    Returns:
        The linear probe. Its objective is within 1e-5 nats of the minimum.

    Raises:
        ArgumentError: if `l2` is not above 0.

    Example:
        >>> x, y = np.array([[-1.0], [1.0]], np.float32), np.array([0, 1], np.int32)
        >>> fit_linear_probe(x, y, 2, l2=0.1).logits(x).argmax(axis=1).tolist()
        [0, 1]

    References:
        D. C. Liu, J. Nocedal (1989), On the limited memory BFGS method for large scale
        optimization. Mathematical Programming 45, 503-528.
    """
    check_number("l2", l2, low=0, open_low=True, advice="A typical value is 0.1.")
    space = build_space(features)
    initial = None
    if start is not None:
        initial = space.project(start.kernel.astype(np.float64), start.bias.astype(np.float64))
    weights = photo_weights(class_weight, labels)
    return _fit_in_space(space, labels, n_classes, l2, initial, weights=weights)


def _fit_in_space(
    space: FeatureSpace,
    labels: npt.NDArray[np.int32],
    n_classes: int,
    l2: float,
    start: Floats | None = None,
    *,
    weights: Floats | None = None,
) -> LinearProbe:
    """As `fit_linear_probe`, for features that are already standardized."""
    n, m = space.table.shape
    initial = np.zeros((m, n_classes)) if start is None else start
    sample_weights = np.full((n, 1), 1 / n, np.float32)
    if weights is not None:
        sample_weights = (weights[:, None] / n).astype(np.float32)
    solution = solve_all(space, labels, sample_weights, l2, initial[:, None], tolerance=_TOLERANCE)
    kernel, bias = space.unproject(solution[:, 0])
    return LinearProbe(kernel=kernel.astype(np.float32), bias=bias.astype(np.float32), l2=l2)


def cross_validate_l2(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    n_classes: int,
    *,
    groups: npt.NDArray[np.int64] | None = None,
    class_weight: Floats | None = None,
    progress: Report | None = None,
) -> CrossValidationResult:
    """Choose the L2 penalty by stratified five-fold cross-validation, then fit on all photos.

    The groups of each class are distributed over five folds. For weaker and weaker penalties, a
    linear probe is fitted without each fold and evaluated on it, until the mean cross-entropy
    rises; then also for the penalties halfway to the neighbors of the best one. Other photos, such
    as the validation photos, play no part in the choice, so they can be used to judge it.

    A class with a single group is never held out; one with two to four is in as many folds. All
    folds share the standardization of the features. Only as many folds are used as hold out 2,000
    groups together.

    Args:
        features: (n, n_features) float32.
        labels: (n,) integers in [0, n_classes).
        n_classes: number of classes.
        groups: (n,), equal for rows that must be held out together, such as near-duplicates, or a
            photo and its mirror image. None: each row is a group.
        class_weight: as for `fit_linear_probe`; also in the mean cross-entropy of held-out photos.
        progress: called with (penalties done, maximum number of penalties).

    Returns:
        The linear probe for the penalty with the lowest cross-entropy on held-out photos.

    Raises:
        WeightsFileError: if features are not finite, as from a damaged weights file.

    Example:
        >>> x = np.array([[-1.0], [1.0]] * 10, np.float32)
        >>> cross_validate_l2(x, np.array([0, 1] * 10, np.int32), 2).held_out_accuracy
        1.0
    """
    if not np.isfinite(features).all():
        raise WeightsFileError(
            "The backbone's features must be finite. Received: NaN or infinity. The weights file "
            "is damaged or belongs to another network. Download it again."
        )
    space = build_space(features)
    if groups is None:
        groups = np.arange(len(labels))
    fold = assign_folds(labels, groups, n_held_out=N_HELD_OUT)
    weights = photo_weights(class_weight, labels)
    if not (fold >= 0).any():
        probe = _fit_in_space(space, labels, n_classes, _DEFAULT_L2, weights=weights)
        return CrossValidationResult(probe=probe, losses=(), held_out_accuracy=math.nan)
    search = search_l2(space, labels, n_classes, fold, row_weights=weights, progress=progress)
    start = search.weights.mean(axis=1)
    return CrossValidationResult(
        probe=_fit_in_space(space, labels, n_classes, search.l2, start, weights=weights),
        losses=search.losses,
        held_out_accuracy=search.accuracy,
    )
