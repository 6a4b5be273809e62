"""Many multinomial logistic regressions on one table at a time.

The folds of a cross-validation differ in which rows they leave out. Solved side by side, they
share every pass over the table and every product with it, which then has enough columns to run at
the processor's full speed; and they share the preconditioner, the Cholesky factor of the Hessian
that they would have if the classes were as uncertain for every photo as they are on average.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.finetune._descent import Floats, descend

Table = npt.NDArray[np.float32]

_ROWS = 1024  # of the table at a time: they and their logits stay in the processor's cache
_GRAM_ROWS = 4096
_LEAST = 1e-9  # curvature of the bias' penalty, which is none, to divide by


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Space:
    """Features in the form that they are solved in.

    Attributes:
        table: (n, m + 1) float32, the scaled features, or what is left of them in the space that
            n photos span, and a column of ones for the bias.
        gram: (m + 1, m + 1) float64, the mean of the rows' outer products.
        mean: (n_features,) float64.
        scale: (n_features,) float64, deviations; 1 where a feature does not vary.
        basis: (n_features, m) float64, orthonormal; None where m is n_features.
    """

    table: Table
    gram: Floats
    mean: Floats
    scale: Floats
    basis: Floats | None

    def inside(self, kernel: Floats, bias: Floats) -> Floats:
        """A head for the features, (n_features, k) and (k,), as one for the table, (m + 1, k)."""
        w = kernel * self.scale[:, None]
        if self.basis is not None:
            w = self.basis.T @ w
        return np.concatenate([w, [bias + self.mean @ kernel]])

    def outside(self, head: Floats) -> tuple[Floats, Floats]:
        """A head for the table as kernel and bias for the features."""
        w = head[:-1] if self.basis is None else self.basis @ head[:-1]
        kernel = w / self.scale[:, None]
        return kernel, head[-1] - self.mean @ kernel


def space_of(features: Table) -> Space:
    """Scale features to mean 0 and deviation 1, and turn fewer photos than features into a square.

    A head's penalty is least in the space that the photos span, so nothing outside of it is ever
    needed, and n photos of 1,280 features are n photos of n.

    Args:
        features: (n, n_features) float32, finite.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    blocks = _blocks(len(features), _ROWS)  # float64 for a part at a time, not for all
    squares = np.zeros(features.shape[1])
    for rows in blocks:
        squares += ((features[rows] - mean) ** 2).sum(axis=0)
    scale = np.sqrt(squares / len(features))
    scale[scale <= 1e-6 * scale.max(initial=0)] = 1  # a constant feature stays harmless
    n, n_features = features.shape
    narrow = n < n_features
    basis = None
    table = np.ones((n, (n if narrow else n_features) + 1), np.float32)
    with _threads() as pool:
        if narrow:
            basis, corner = np.linalg.qr(((features - mean) / scale).T)
            table[:, :-1] = corner.T
        else:
            for rows in blocks:
                table[rows, :-1] = (features[rows] - mean) / scale
        gram = np.zeros((table.shape[1],) * 2)
        for part in pool.map(lambda rows: table[rows].T @ table[rows], _blocks(n, _GRAM_ROWS)):
            gram += part
    return Space(table=table, gram=gram / n, mean=mean, scale=scale, basis=basis)


def solve_all(
    space: Space,
    labels: npt.NDArray[np.int32],
    weights: Table,
    strength: float,
    start: Floats,
    *,
    tolerance: float,
) -> Floats:
    """For each of p sets of weights, the head of least weighted cross-entropy plus penalty.

    Args:
        space: of the features.
        labels: (n,) in [0, k).
        weights: (n, p) float32 of the rows, at least 0, the sum of each column 1.
        strength: of the penalty on all but the bias, above 0.
        start: (m + 1, p, k), where to begin.
        tolerance: a problem is solved when a step is expected to lower it by less, in nats.

    Returns:
        (m + 1, p, k).
    """
    from scipy.linalg import cho_factor, cho_solve

    m = len(start)
    penalty = np.full((m, 1, 1), strength)
    penalty[-1] = 0
    with _threads() as pool:
        curved = _spread(space.table, start) * space.gram
        factor = cho_factor(curved + np.diag(np.maximum(penalty[:, 0, 0], _LEAST)))

        def value_and_slope(x: Floats) -> tuple[Floats, Floats]:
            loss, slope = _loss(space.table, labels, weights, x, pool)
            return loss + 0.5 * (penalty * x * x).sum(axis=(0, 2)), slope + penalty * x

        def preconditioned(g: Floats) -> Floats:
            flat = cho_solve(factor, g.reshape(m, -1), check_finite=False)
            found: Floats = flat.reshape(g.shape)
            return found

        return descend(value_and_slope, preconditioned, start, tolerance)


def held_out(
    table: Table, labels: npt.NDArray[np.int32], heads: Floats, column: npt.NDArray[np.int64]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """How the rows are classified by the heads that were solved without them.

    Args:
        table: (n, m + 1), of the space.
        labels: (n,) in [0, k).
        heads: (m + 1, p, k).
        column: (n,), which head judges a row; below 0 for none.

    Returns:
        Cross-entropies and whether the class is right, of the judged rows, in no special order.
    """
    losses, right = [], []
    for fold in np.unique(column[column >= 0]):
        rows = np.flatnonzero(column == fold)
        logits = table[rows] @ heads[:, fold].astype(np.float32)
        losses.append(cross_entropies(logits, labels[rows]))
        right.append(logits.argmax(axis=1) == labels[rows])
    return np.concatenate(losses), np.concatenate(right)


def cross_entropies(
    logits: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """(n,), −ln softmax(logits)[label] of each row, in nats."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    chosen = z[np.arange(len(labels)), labels]
    return np.asarray(np.log(np.exp(z).sum(axis=1)) - chosen)


def _loss(
    table: Table, labels: npt.NDArray[np.int32], weights: Table, x: Floats, pool: Executor
) -> tuple[Floats, Floats]:
    """Weighted cross-entropies (p,), and their slopes (m + 1, p, k)."""
    m, n_problems, _ = x.shape
    w = np.ascontiguousarray(x.reshape(m, -1), np.float32)

    def of(rows: slice) -> tuple[Floats, Table]:
        part, weight = table[rows], weights[rows]
        each = np.arange(len(part))
        logits = (part @ w).reshape(len(part), n_problems, -1)
        logits -= logits.max(axis=2, keepdims=True)
        chosen = logits[each, :, labels[rows]]
        np.exp(logits, out=logits)
        sums = logits.sum(axis=2)
        losses = (weight * (np.log(sums) - chosen)).sum(axis=0, dtype=np.float64)
        logits *= (weight / sums)[:, :, None]
        logits[each, :, labels[rows]] -= weight
        return losses, part.T @ logits.reshape(len(part), -1)

    total, slope = np.zeros(n_problems), np.zeros(w.shape)
    blocks = _blocks(len(table), _ROWS)
    for losses, slopes in pool.map(of, blocks):  # in order, however many threads there are
        total += losses
        slope += slopes
    return total, slope.reshape(x.shape)


def _spread(table: Table, x: Floats) -> float:
    """Mean variance of a class' indicator by the heads' probabilities, on some of the rows."""
    n_classes = x.shape[2]
    even: float = (1 - 1 / n_classes) / n_classes
    if not x.any():
        return even
    some = table[:: max(1, len(table) // _ROWS)]
    logits = (some @ x[:, 0].astype(np.float32)).astype(np.float64)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    spread: float = (p * (1 - p)).mean()
    return max(spread, 0.01 * even)


@contextmanager
def _threads() -> Iterator[Executor]:
    """Threads of ours, each for rows of its own, and the linear algebra library without any.

    The library's own wait for each other in every product: where other programs run as well, or
    a container has fewer processors than it sees, that took ten times as long.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        yield pool


def _blocks(n: int, size: int) -> list[slice]:
    return [slice(start, min(n, start + size)) for start in range(0, n, size)]
