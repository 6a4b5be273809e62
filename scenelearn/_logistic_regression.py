"""Multinomial logistic regression with an L2 penalty, fitted and cross-validated on features.

The linear probe is one such fit; label issues follow from the predictions for held-out photos.

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

from scenelearn._progress import Report
from scenelearn._threads import n_threads

Floats = npt.NDArray[np.float64]
Table = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
Folds = npt.NDArray[np.int64]

N_HELD_OUT = 2000
"""Photos, each held out once, that are enough to compare penalties."""

_BLOCK_ROWS = 1024  # these rows and their logits stay in the processor's cache
_GRAM_BLOCK_ROWS = 4096
_MIN_CURVATURE = 1e-9  # in place of the bias' penalty, which is 0, to divide by

# L-BFGS
_HISTORY = 12  # pairs of steps and gradient changes
_MAX_STEPS = 300
_ARMIJO = 1e-4  # fraction of the expected decrease that a step must achieve
_ROUNDING = 3e-7  # relative accuracy of a loss of float32 logits
_MIN_STEP_SIZE = 1e-4  # a problem ends when a step must be shorter than that

# Cross-validation: from strong to weak penalties, then two more next to the best of them.
_L2_PATH = tuple(10.0 ** (1 - k / 2) for k in range(11))
_N_FOLDS = 5
_CV_TOLERANCE = 3e-5  # nats; neighbors on the path differ by hundreds of that


# Cross-validation


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class L2Search:
    """The L2 penalty with the lowest cross-entropy on held-out rows.

    Attributes:
        l2: the best penalty.
        losses: (l2, mean cross-entropy of held-out rows in nats), from strong to weak penalties.
        accuracy: fraction of held-out rows that are classified correctly with the best penalty.
        weights: (m + 1, n_folds, n_classes), fitted without each fold, with the best penalty.
    """

    l2: float
    losses: tuple[tuple[float, float], ...]
    accuracy: float
    weights: Floats


def search_l2(
    space: FeatureSpace,
    labels: Labels,
    n_classes: int,
    fold: Folds,
    *,
    row_weights: Floats | None = None,
    progress: Report | None = None,
) -> L2Search:
    """Fit without each fold, for weaker and weaker penalties, until the held-out loss rises.

    Then also for the penalties halfway to the neighbors of the best one.

    Args:
        space: the features.
        labels: (n,) in [0, n_classes).
        n_classes: number of classes.
        fold: (n,), from `assign_folds`; some row must be in a fold.
        row_weights: (n,), how much each row counts in the means; None: all count the same.
        progress: called with (penalties done, maximum number of penalties).
    """
    start = np.zeros((space.table.shape[1], fold.max() + 1, n_classes))
    held_out = np.argsort(fold, kind="stable")[(fold < 0).sum() :]  # fold by fold
    held_out_weights = None if row_weights is None else row_weights[held_out]
    results: dict[float, tuple[float, float]] = {}  # loss and accuracy
    best_l2, best = math.nan, start  # its weights: those of 10,000 classes take a gigabyte

    def evaluate(l2: float, start: Floats) -> Floats:
        nonlocal best_l2, best
        x = solve_folds(space, labels, fold, l2, start, row_weights=row_weights)
        logits = held_out_logits(space.table, x, fold)[held_out]
        losses = cross_entropies(logits, labels[held_out])
        loss = float(np.average(losses, weights=held_out_weights))
        if not results or loss < results[best_l2][0]:
            best_l2, best = l2, x
        results[l2] = loss, float((logits.argmax(axis=1) == labels[held_out]).mean())
        if progress:
            progress(len(results), len(_L2_PATH) + 2)
        return x

    for l2 in _L2_PATH:
        start = evaluate(l2, start)
        if results[l2][0] > results[best_l2][0]:
            break
    center, near = best_l2, best
    for l2 in (center * 10**0.25, center / 10**0.25):
        evaluate(l2, near)
    if progress:
        progress(len(_L2_PATH) + 2, len(_L2_PATH) + 2)
    return L2Search(
        l2=best_l2,
        losses=tuple((l2, results[l2][0]) for l2 in sorted(results, reverse=True)),
        accuracy=results[best_l2][1],
        weights=best,
    )


def solve_folds(
    space: FeatureSpace,
    labels: Labels,
    fold: Folds,
    l2: float,
    start: Floats,
    *,
    row_weights: Floats | None = None,
) -> Floats:
    """Fit without each fold, to the accuracy of a cross-validation.

    Args:
        space: the features.
        labels: (n,) in [0, n_classes).
        fold: (n,), from `assign_folds`.
        l2: coefficient of the penalty, above 0.
        start: (m + 1, n_folds, n_classes), initial weights.
        row_weights: (n,), how much each row counts in the mean; None: all count the same.

    Returns:
        (m + 1, n_folds, n_classes).
    """
    sample_weights = np.stack([fold != k for k in range(start.shape[1])], axis=1)
    if row_weights is not None:
        sample_weights = sample_weights * row_weights[:, None]
    sample_weights = (sample_weights / sample_weights.sum(axis=0)).astype(np.float32)
    return solve_all(space, labels, sample_weights, l2, start, tolerance=_CV_TOLERANCE)


def held_out_logits(table: Table, weights: Floats, fold: Folds) -> Table:
    """The logits of each row, with the weights that were fitted without it.

    Args:
        table: (n, m + 1), of the space.
        weights: (m + 1, n_folds, n_classes), fitted without fold 0, 1, …
        fold: (n,), the fold of each row; below 0 for rows that are in none.

    Returns:
        (n, n_classes) float32; NaN for rows that are in no fold.
    """
    logits = np.full((len(table), weights.shape[2]), np.nan, np.float32)
    for k in range(weights.shape[1]):
        rows = np.flatnonzero(fold == k)
        logits[rows] = table[rows] @ weights[:, k].astype(np.float32)
    return logits


def assign_folds(
    labels: Labels, groups: npt.NDArray[np.int64], *, n_held_out: float = math.inf
) -> Folds:
    """Distribute groups over five folds, so that no class is missing where a fold is left out.

    Args:
        labels: (n,) integers.
        groups: (n,), equal for rows that stay together.
        n_held_out: use only as many folds as hold out this number of groups together.

    Returns:
        (n,), the fold of each row, from 0 without gaps; −1 for rows that are never held out: those
        of a class with a single group, and those of unused folds.

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
    fold_of[fold_of >= n_held_out * _N_FOLDS / max((fold_of >= 0).sum(), 1)] = -1
    _, compact = np.unique(np.append(fold_of[group_of], -1), return_inverse=True)
    return compact[:-1].astype(np.int64) - 1  # number the folds without gaps


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Turn logits (n, n_classes) into probabilities, rows that sum to 1.

    Example:
        >>> softmax([[0.0, np.log(3)]]).round(3).tolist()
        [[0.25, 0.75]]
    """
    z = np.asarray(logits, np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True), np.float64)


def cross_entropy(logits: npt.NDArray[np.float32], labels: Labels) -> float:
    """Mean of −ln softmax(logits)[label], in nats."""
    return float(cross_entropies(logits, labels).mean())


def cross_entropies(
    logits: npt.NDArray[np.floating[Any]], labels: Labels
) -> npt.NDArray[np.float64]:
    """(n,), −ln softmax(logits)[label] of each row, in nats."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    of_label = z[np.arange(len(labels)), labels]
    return np.asarray(np.log(np.exp(z).sum(axis=1)) - of_label)


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
    labels: Labels,
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
    table: Table, labels: Labels, sample_weights: Table, x: Floats, pool: Executor
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
    p = softmax(sample @ x[:, 0].astype(np.float32))
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
