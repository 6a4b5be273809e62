"""The head, solved: multinomial logistic regression on the frozen backbone's features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scenelearn.errors import ArgumentError, WeightsFileError

# From strong to weak. 0.1 was best or next to it on four splits of the Intel photos.
STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Head:
    """A linear layer from features to logits.

    Attributes:
        kernel: (n_features, n_classes) float32.
        bias: (n_classes,) float32.
        strength: of the penalty that it was solved with.
    """

    kernel: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    strength: float

    def logits(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(n, n_features) to (n, n_classes)."""
        return features @ self.kernel + self.bias


def solve(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    n_classes: int,
    strength: float,
    *,
    start: Head | None = None,
) -> Head:
    """The head of least mean cross-entropy plus penalty.

    With z the features scaled to mean 0 and deviation 1, it minimises
    mean(−ln softmax(z W + b)[label]) + strength/2 · ΣW², which is convex, by L-BFGS, and gives
    the solution back for unscaled features.

    Args:
        features: (n, n_features) float32.
        labels: (n,) integers in [0, n_classes).
        n_classes: how many classes.
        strength: of the penalty, above 0.
        start: a head for the same features to start from; it saves time, not more.

    Returns:
        The head.

    Raises:
        ArgumentError: if `strength` is not above 0.

    Example:
        >>> x = np.array([[-1.0], [1.0]], np.float32)
        >>> solve(x, np.array([0, 1], np.int32), 2, 0.1).logits(x).argmax(axis=1).tolist()
        [0, 1]

    References:
        D. C. Liu, J. Nocedal (1989), On the limited memory BFGS method for large scale
        optimization. Mathematical Programming 45, 503-528.
    """
    if not strength > 0:
        raise ArgumentError(
            f"`strength` must be above 0. Received: strength={strength!r}. 0.1 is usual."
        )
    from scipy.optimize import minimize

    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    scale[scale <= 1e-6 * scale.max()] = 1  # a constant feature stays harmless
    z = ((features - mean) / scale).astype(np.float32)
    n, n_features = z.shape
    rows = np.arange(n)

    def objective(flat: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        w, b = flat[:-n_classes].reshape(n_features, n_classes), flat[-n_classes:]
        logits = (z @ w.astype(np.float32)).astype(np.float64) + b
        logits -= logits.max(axis=1, keepdims=True)
        p = np.exp(logits)
        total = p.sum(axis=1, keepdims=True)
        loss = float((np.log(total[:, 0]) - logits[rows, labels]).mean())
        p /= total
        p[rows, labels] -= 1
        p /= n
        slope = (z.T @ p.astype(np.float32)).astype(np.float64) + strength * w
        penalty = 0.5 * strength * float((w * w).sum())
        return loss + penalty, np.concatenate([slope.ravel(), p.sum(axis=0)])

    first = np.zeros((n_features + 1) * n_classes)
    if start is not None:
        w = start.kernel * scale[:, None]
        first = np.concatenate([w.ravel(), start.bias + mean @ start.kernel])
    found = minimize(
        objective, first, jac=True, method="L-BFGS-B", options={"maxiter": 300, "ftol": 1e-7}
    )
    w = found.x[:-n_classes].reshape(n_features, n_classes) / scale[:, None]
    bias = found.x[-n_classes:] - mean @ w
    return Head(kernel=w.astype(np.float32), bias=bias.astype(np.float32), strength=strength)


def choose(
    train: tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]],
    validation: tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]],
    n_classes: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Head:
    """Solve for weaker and weaker penalties, and keep the one of least validation loss.

    Args:
        train: features (n, n_features) and labels (n,).
        validation: likewise, of other photos.
        n_classes: how many classes.
        progress: called with (penalties tried, penalties in all).

    Returns:
        The head with the lowest mean cross-entropy on the validation photos.

    Raises:
        WeightsFileError: if features are not finite, as from a damaged weights file.
    """
    if not (np.isfinite(train[0]).all() and np.isfinite(validation[0]).all()):
        raise WeightsFileError(
            "The backbone's features must be finite numbers. Received: NaN or infinity. The "
            "weights file is damaged or of another network: get it again."
        )
    tried: list[tuple[float, Head]] = []
    for strength in STRENGTHS:
        if progress:
            progress(len(tried), len(STRENGTHS))
        head = solve(*train, n_classes, strength, start=tried[-1][1] if tried else None)
        tried.append((cross_entropy(head.logits(validation[0]), validation[1]), head))
        # The loss has one valley along the penalty: twice upwards, and the lowest is behind.
        losses = [loss for loss, _ in tried]
        if len(losses) - 1 - int(np.argmin(losses)) == 2:
            break
    if progress:
        progress(len(STRENGTHS), len(STRENGTHS))
    return min(tried, key=lambda pair: pair[0])[1]


def cross_entropy(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> float:
    """Mean of −ln softmax(logits)[label], in nats."""
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    chosen = z[np.arange(len(labels)), labels]
    return float((np.log(np.exp(z).sum(axis=1)) - chosen).mean())
