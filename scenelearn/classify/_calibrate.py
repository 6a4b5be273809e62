"""Probabilities that mean what they say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def softmax(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Logits (n, n_classes) to probabilities, rows that sum to 1.

    Example:
        >>> softmax([[0.0, np.log(3)]]).round(3).tolist()
        [[0.25, 0.75]]
    """
    z = np.asarray(logits, np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True), np.float64)


def temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The number T > 0 for which softmax(logits / T) has the lowest log loss on these labels.

    It changes no answer, only how sure the answers are. Labels count as 1 − 1/(n + 2) of the
    true class and 1/(n + 2) spread over all classes: without that, a few photos that are all
    right would call for a certainty without bound. The log loss is convex in 1/T, whose best
    value is found by bisection of its derivative, within T from 0.05 to 20.

    Args:
        logits: (n, n_classes), of photos that were not trained on.
        labels: (n,) integers in [0, n_classes).

    Returns:
        T; above 1 where the network is too sure of itself.

    Example:
        >>> round(temperature([[2.0, 0]] * 400, [0] * 300 + [1] * 100), 2)
        1.83

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger (2017), On calibration of modern neural
        networks. ICML. Softened labels: J. Platt (1999), Probabilistic outputs for support
        vector machines. Advances in Large Margin Classifiers, MIT Press.
    """
    z = np.asarray(logits, np.float64)
    y = np.asarray(labels)
    softened = 1 / (len(y) + 2)
    true = (1 - softened) * z[np.arange(len(y)), y] + softened * z.mean(axis=1)

    def slope(sharpness: float) -> float:
        """The derivative of the mean log loss by 1/T: E[z under the softmax] − z of the truth."""
        return float(((softmax(sharpness * z) * z).sum(axis=1) - true).mean())

    low, high = 1 / 20, 1 / 0.05
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return float(1 / np.sqrt(low * high))
