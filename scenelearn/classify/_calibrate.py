"""Probabilities that mean what they say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The number T > 0 for which softmax(logits / T) has the lowest log loss on these labels.

    It changes no answer, only how sure the answers are. The log loss is convex in 1/T, whose
    best value is found by bisection of the derivative, within T from 0.05 to 20.

    Args:
        logits: (n, n_classes), of photos that were not trained on.
        labels: (n,) integers in [0, n_classes).

    Returns:
        T; above 1 where the network is too sure of itself.

    Example:
        >>> 1.7 < temperature([[2.0, 0], [2.0, 0], [2.0, 0], [2.0, 0]], [0, 0, 0, 1]) < 1.9
        True

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger (2017), On calibration of modern neural
        networks. ICML.
    """
    z = np.asarray(logits, np.float64)
    y = np.asarray(labels)
    true = z[np.arange(len(y)), y]

    def slope(sharpness: float) -> float:
        """The derivative of the mean log loss by 1/T: E[z under the softmax] − z of the truth."""
        p = np.exp(sharpness * (z - z.max(axis=1, keepdims=True)))
        p /= p.sum(axis=1, keepdims=True)
        return float(((p * z).sum(axis=1) - true).mean())

    low, high = 1 / 20, 1 / 0.05
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return float(1 / np.sqrt(low * high))
