"""The linear probe: multinomial logistic regression on the features of the frozen backbone.

The L2 penalty is chosen by cross-validation on the training photos. The validation photos would not
do better. Mean cross-entropy on independent Intel photos (MobileNetV2-0.35 at 160 px), for linear
probes fitted on 25, 100 and 500 photos per class, with the penalty chosen by cross-validation:
0.441, 0.356, 0.306; by a validation split of the usual size: 0.444, 0.358, 0.310; by the sum of
both: 0.438, 0.356, 0.306; with the best penalty there is: 0.437, 0.354, 0.305.

All folds of a cross-validation are solved together, by L-BFGS: they differ only in the rows that
they leave out, and share every pass over the features. Each matrix product then has enough columns
to run at full speed. They also share the preconditioner: the Cholesky factor of the Hessian for the
average uncertainty of the class probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_number
from scenelearn._threads import n_threads
from scenelearn.errors import WeightsFileError
from scenelearn.finetune._class_weights import photo_weights

Floats = npt.NDArray[np.float64]
Table = npt.NDArray[np.float32]

_BLOCK_ROWS = 1024  # these rows and their logits stay in the processor's cache
_GRAM_BLOCK_ROWS = 4096
_MIN_CURVATURE = 1e-9  # in place of the bias' penalty, which is 0, to divide by

# L-BFGS
_HISTORY = 12  # pairs of steps and gradient changes
_MAX_STEPS = 300
_ARMIJO = 1e-4  # fraction of the expected decrease that a step must achieve
_ROUNDING = 3e-7  # relative accuracy of a loss of float32 logits
_MIN_STEP_SIZE = 1e-4  # a problem ends when a step must be shorter than that

_TOLERANCE = 1e-8  # nats that a further step would gain

# Cross-validation: from strong to weak penalties, then two more next to the best of them.
_L2_PATH = tuple(10.0 ** (1 - k / 2) for k in range(11))
_N_FOLDS = 5
_N_HELD_OUT = 2000  # photos, each held out once, that are enough to compare penalties
_DEFAULT_L2 = 0.1  # where nothing can be held out
_CV_TOLERANCE = 3e-5  # nats; neighbors on the path differ by hundreds of that


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
    progress: Callable[[int, int], None] | None = None,
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
    fold = assign_folds(labels, np.arange(len(labels)) if groups is None else groups)
    row_weights = photo_weights(class_weight, labels)
    if not (fold >= 0).any():
        probe = _fit_in_space(space, labels, n_classes, _DEFAULT_L2, weights=row_weights)
        return CrossValidationResult(probe=probe, losses=(), held_out_accuracy=math.nan)
    folds = np.unique(fold[fold >= 0])
    sample_weights = np.stack([fold != k for k in folds], axis=1)
    held_out_weights = None
    if row_weights is not None:
        sample_weights = sample_weights * row_weights[:, None]
        held_out_weights = np.concatenate([row_weights[fold == k] for k in folds])
    sample_weights = (sample_weights / sample_weights.sum(axis=0)).astype(np.float32)
    weights = np.zeros((space.table.shape[1], sample_weights.shape[1], n_classes))
    results: dict[float, tuple[float, float, Floats]] = {}

    def evaluate(l2: float, start: Floats) -> float:
        x = solve_all(space, labels, sample_weights, l2, start, tolerance=_CV_TOLERANCE)
        losses, correct = score_held_out(space.table, labels, x, fold)
        loss = float(np.average(losses, weights=held_out_weights))
        results[l2] = loss, float(correct.mean()), x
        if progress:
            progress(len(results), len(_L2_PATH) + 2)
        return results[l2][0]

    lowest = math.inf
    for l2 in _L2_PATH:
        loss = evaluate(l2, weights)
        weights = results[l2][2]
        if loss > lowest:
            break
        lowest = loss
    best = min(results, key=lambda l2: results[l2][0])
    for l2 in (best * 10**0.25, best / 10**0.25):
        evaluate(l2, results[best][2])
    best = min(results, key=lambda l2: results[l2][0])
    if progress:
        progress(len(_L2_PATH) + 2, len(_L2_PATH) + 2)
    return CrossValidationResult(
        probe=_fit_in_space(
            space, labels, n_classes, best, results[best][2].mean(axis=1), weights=row_weights
        ),
        losses=tuple((l2, results[l2][0]) for l2 in sorted(results, reverse=True)),
        held_out_accuracy=results[best][1],
    )


def assign_folds(
    labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Distribute groups over folds, so that no class is missing where a fold is left out.

    Args:
        labels: (n,) integers.
        groups: (n,), equal for rows that stay together.

    Returns:
        (n,), the fold of each row, in [0, 5); −1 for rows that are never held out.

    Example:
        >>> labels, groups = np.array([0, 0, 0, 0, 1], np.int32), np.array([7, 7, 8, 9, 4])
        >>> assign_folds(labels, groups).tolist()
        [1, 1, 2, 0, -1]
    """
    random = np.random.default_rng(0)
    _, group_of = np.unique(groups, return_inverse=True)
    fold_of = np.full(group_of.max(initial=-1) + 1, -2)
    n_assigned = 0
    for label in np.unique(labels):
        of_class = np.unique(group_of[labels == label])
        unassigned = random.permutation(of_class[fold_of[of_class] == -2])
        fold_of[unassigned] = (n_assigned + np.arange(len(unassigned))) % _N_FOLDS
        n_assigned += len(unassigned)
        if len(np.unique(fold_of[of_class])) == 1:
            fold_of[of_class] = -1
    n_held_out = (fold_of >= 0).sum()
    n_folds = math.ceil(_N_HELD_OUT * _N_FOLDS / max(n_held_out, 1))
    fold_of[fold_of >= n_folds] = -1
    _, compact = np.unique(np.append(fold_of[group_of], -1), return_inverse=True)
    return compact[:-1].astype(np.int64) - 1  # number the folds without gaps


def cross_entropy(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> float:
    """Mean of −ln softmax(logits)[label], in nats."""
    return float(cross_entropies(logits, labels).mean())


# The solver


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureSpace:
    """Standardized features, projected onto the space that the photos span.

    Attributes:
        table: (n, m + 1) float32, the standardized features, or their coordinates in the space
            that n photos span, and a column of ones for the bias.
        gram: (m + 1, m + 1) float64, the mean of the rows' outer products.
        mean: (n_features,) float64.
        scale: (n_features,) float64, standard deviations; 1 for constant features.
        basis: (n_features, m) float64, orthonormal; None if m is n_features.
    """

    table: Table
    gram: Floats
    mean: Floats
    scale: Floats
    basis: Floats | None

    def project(self, kernel: Floats, bias: Floats) -> Floats:
        """Convert kernel (n_features, k) and bias (k,) to weights for the table, (m + 1, k)."""
        w = kernel * self.scale[:, None]
        if self.basis is not None:
            w = self.basis.T @ w
        return np.concatenate([w, [bias + self.mean @ kernel]])

    def unproject(self, weights: Floats) -> tuple[Floats, Floats]:
        """Convert weights for the table, (m + 1, k), to kernel and bias for the features."""
        w = weights[:-1] if self.basis is None else self.basis @ weights[:-1]
        kernel = w / self.scale[:, None]
        return kernel, weights[-1] - self.mean @ kernel


def build_space(features: Table) -> FeatureSpace:
    """Standardize features, and project them if there are fewer photos than features.

    The penalized optimum lies in the space that the photos span, so nothing outside of it is
    needed: n photos of 1,280 features become n photos of n coordinates.

    Args:
        features: (n, n_features) float32, finite.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    blocks = _blocks(len(features), _BLOCK_ROWS)  # float64 for one block at a time
    squares = np.zeros(features.shape[1])
    for rows in blocks:
        squares += ((features[rows] - mean) ** 2).sum(axis=0)
    scale = np.sqrt(squares / len(features))
    scale[scale <= 1e-6 * scale.max(initial=0)] = 1  # constant features
    n, n_features = features.shape
    narrow = n < n_features
    basis = None
    table = np.ones((n, (n if narrow else n_features) + 1), np.float32)
    with _thread_pool() as pool:
        if narrow:
            basis, triangle = np.linalg.qr(((features - mean) / scale).T)
            table[:, :-1] = triangle.T
        else:
            for rows in blocks:
                table[rows, :-1] = (features[rows] - mean) / scale
        gram = np.zeros((table.shape[1],) * 2)
        blocks = _blocks(n, _GRAM_BLOCK_ROWS)
        for part in pool.map(lambda rows: table[rows].T @ table[rows], blocks):
            gram += part
    return FeatureSpace(table=table, gram=gram / n, mean=mean, scale=scale, basis=basis)


def solve_all(
    space: FeatureSpace,
    labels: npt.NDArray[np.int32],
    sample_weights: Table,
    l2: float,
    start: Floats,
    *,
    tolerance: float,
) -> Floats:
    """For each of p sets of sample weights, minimize weighted cross-entropy plus penalty.

    Args:
        space: the features.
        labels: (n,) in [0, k).
        sample_weights: (n, p) float32, at least 0; each column sums to 1.
        l2: coefficient of the penalty on all weights except the bias, above 0.
        start: (m + 1, p, k), initial weights.
        tolerance: a problem is solved when the next step is expected to decrease it by less, in
            nats.

    Returns:
        (m + 1, p, k).
    """
    from scipy.linalg import cho_factor, cho_solve

    m = len(start)
    penalty = np.full((m, 1, 1), l2)
    penalty[-1] = 0
    with _thread_pool() as pool:
        hessian = _mean_variance(space.table, start) * space.gram
        factor = cho_factor(hessian + np.diag(np.maximum(penalty[:, 0, 0], _MIN_CURVATURE)))

        def value_and_gradient(x: Floats) -> tuple[Floats, Floats]:
            loss, gradient = _loss_and_gradient(space.table, labels, sample_weights, x, pool)
            return loss + 0.5 * (penalty * x * x).sum(axis=(0, 2)), gradient + penalty * x

        def precondition(gradient: Floats) -> Floats:
            flat = cho_solve(factor, gradient.reshape(m, -1), check_finite=False)
            preconditioned: Floats = flat.reshape(gradient.shape)
            return preconditioned

        return lbfgs(value_and_gradient, precondition, start, tolerance)


def score_held_out(
    table: Table, labels: npt.NDArray[np.int32], weights: Floats, fold: npt.NDArray[np.int64]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Classify each row with the weights that were fitted without it.

    Args:
        table: (n, m + 1), of the space.
        labels: (n,) in [0, k).
        weights: (m + 1, p, k), fitted without fold 0, 1, …
        fold: (n,), the fold of each row; below 0 for rows that are in none.

    Returns:
        Cross-entropies and whether the class is correct, for the rows in a fold, fold by fold.
    """
    losses, correct = [], []
    for k in np.unique(fold[fold >= 0]):
        rows = np.flatnonzero(fold == k)
        logits = table[rows] @ weights[:, k].astype(np.float32)
        losses.append(cross_entropies(logits, labels[rows]))
        correct.append(logits.argmax(axis=1) == labels[rows])
    return np.concatenate(losses), np.concatenate(correct)


def cross_entropies(
    logits: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """(n,), −ln softmax(logits)[label] of each row, in nats."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    of_label = z[np.arange(len(labels)), labels]
    return np.asarray(np.log(np.exp(z).sum(axis=1)) - of_label)


def lbfgs(
    value_and_gradient: Callable[[Floats], tuple[Floats, Floats]],
    precondition: Callable[[Floats], Floats],
    start: Floats,
    tolerance: float,
) -> Floats:
    """Minimize p smooth convex functions together, each with its own step sizes.

    Args:
        value_and_gradient: from (m, p, k) points to (p,) values and (m, p, k) gradients.
        precondition: multiplies a gradient by an approximate inverse Hessian, (m, p, k) both.
        start: (m, p, k), initial points.
        tolerance: a problem is solved when the next step is expected to decrease it by less.

    Returns:
        (m, p, k).

    Example:
        >>> from functools import partial
        >>> goal = np.array([[[1.0], [2.0]]])
        >>> def parabolas(x):
        ...     return ((x - goal) ** 2).sum(axis=(0, 2)), 2 * (x - goal)
        >>> lbfgs(parabolas, partial(np.multiply, 0.5), np.zeros((1, 2, 1)), 1e-9).ravel()
        array([1., 2.])

    References:
        J. Nocedal, S. J. Wright (2006), Numerical optimization, 2nd edition, algorithms 7.4, 7.5.
    """
    x, size = start.copy(), np.ones(start.shape[1])
    value, gradient = value_and_gradient(x)
    history: list[tuple[Floats, Floats, Floats]] = []
    direction = -precondition(gradient)
    expected = _dot(gradient, direction)
    active = expected < -2 * tolerance
    for _ in range(_MAX_STEPS):
        if not active.any():
            break
        candidate = x + np.where(active, size, 0)[:, None] * direction
        new_value, new_gradient = value_and_gradient(candidate)
        bound = value + _ARMIJO * size * expected + _ROUNDING * np.abs(value)
        accepted = active & (new_value <= bound)
        # Where the step was too long, halve it, while the other problems continue.
        size = np.where(active & ~accepted, size / 2, 1.0)
        active &= accepted | (size > _MIN_STEP_SIZE)
        if not accepted.any():
            continue
        step = np.where(accepted[:, None], candidate - x, 0)
        change = np.where(accepted[:, None], new_gradient - gradient, 0)
        curvature = _dot(step, change)
        valid = curvature > 1e-12 * np.sqrt(_dot(step, step) * _dot(change, change))
        inverse = valid / np.where(valid, curvature, 1)
        history = [*history[1 - _HISTORY :], (step, change, inverse)]
        x += step
        gradient = gradient + change
        value = np.where(accepted, new_value, value)
        descent = _descent_direction(history, gradient, precondition)
        direction = np.where(accepted[:, None], descent, direction)
        expected = _dot(gradient, direction)
        active &= expected < -2 * tolerance
    return x


def _descent_direction(
    history: list[tuple[Floats, Floats, Floats]],
    gradient: Floats,
    precondition: Callable[[Floats], Floats],
) -> Floats:
    """Minus the approximate inverse Hessian times the gradient (two-loop recursion)."""
    q = gradient.copy()
    alphas = []
    for step, change, inverse in reversed(history):
        alphas.append(inverse * _dot(step, q))
        q -= alphas[-1][:, None] * change
    q = precondition(q)
    for (step, change, inverse), alpha in zip(history, reversed(alphas), strict=True):
        q += (alpha - inverse * _dot(change, q))[:, None] * step
    direction: Floats = -q
    return direction


def _dot(a: Floats, b: Floats) -> Floats:
    """The inner product for each problem."""
    products: Floats = np.einsum("mpk,mpk->p", a, b)
    return products


def _loss_and_gradient(
    table: Table, labels: npt.NDArray[np.int32], sample_weights: Table, x: Floats, pool: Executor
) -> tuple[Floats, Floats]:
    """Weighted cross-entropies (p,) and their gradients (m + 1, p, k)."""
    m, n_problems, _ = x.shape
    w = np.ascontiguousarray(x.reshape(m, -1), np.float32)

    def of_block(rows: slice) -> tuple[Floats, Table]:
        part, weight = table[rows], sample_weights[rows]
        each = np.arange(len(part))
        logits = (part @ w).reshape(len(part), n_problems, -1)
        logits -= logits.max(axis=2, keepdims=True)
        of_label = logits[each, :, labels[rows]]
        np.exp(logits, out=logits)
        sums = logits.sum(axis=2)
        losses = (weight * (np.log(sums) - of_label)).sum(axis=0, dtype=np.float64)
        logits *= (weight / sums)[:, :, None]
        logits[each, :, labels[rows]] -= weight
        return losses, part.T @ logits.reshape(len(part), -1)

    loss, gradient = np.zeros(n_problems), np.zeros(w.shape)
    blocks = _blocks(len(table), _BLOCK_ROWS)
    for losses, gradients in pool.map(of_block, blocks):  # in order, for any number of threads
        loss += losses
        gradient += gradients
    return loss, gradient.reshape(x.shape)


def _mean_variance(table: Table, x: Floats) -> float:
    """Mean variance of a class indicator under the predicted probabilities, on some of the rows."""
    n_classes = x.shape[2]
    uniform: float = (1 - 1 / n_classes) / n_classes
    if not x.any():
        return uniform
    sample = table[:: max(1, len(table) // _BLOCK_ROWS)]
    logits = (sample @ x[:, 0].astype(np.float32)).astype(np.float64)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    variance: float = (p * (1 - p)).mean()
    return max(variance, 0.01 * uniform)


@contextmanager
def _thread_pool() -> Iterator[Executor]:
    """A thread pool for blocks of rows, with the threads of the BLAS library switched off.

    BLAS threads wait for each other in every product. Where other programs run as well, or a
    container has fewer processors than it sees, that took ten times as long.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_threads()) as pool:
        yield pool


def _blocks(n: int, size: int) -> list[slice]:
    return [slice(start, min(n, start + size)) for start in range(0, n, size)]
