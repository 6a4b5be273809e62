"""Out-of-distribution detection: is a photo of the kind that the classifier was trained on?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from scenelearn.errors import ArgumentError

_SHRINKAGE = 0.1  # 0.01 to 0.3 made no difference on the Intel photos
OOD_P_VALUE = 0.03
"""The p-value at and below which a photo is flagged: on average 3% of photos like the training
photos. With 900 validation photos, chance raises that above 5% once in 200 times."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class OODDetector:
    """The distribution of the training photos, and how far the validation photos are from it.

    Attributes:
        mean: (n_ood_features,) float32, of the training photos.
        whitening: (n_ood_features, n_ood_features) float32: |(f − mean) whitening| is the
            Mahalanobis distance of the OOD features f.
        medians: (2,) float32, of the validation photos' squared distance and residual.
        spreads: (2,) float32, from the medians to the 90th percentiles.
        scores: (n_validation,) float32, sorted, of the validation photos.
    """

    mean: npt.NDArray[np.float32]
    whitening: npt.NDArray[np.float32]
    medians: npt.NDArray[np.float32]
    spreads: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]

    def __repr__(self) -> str:
        return f"<OODDetector: {len(self.mean):,} features, {len(self.scores):,} validation photos>"

    def score(
        self, ood_features: npt.NDArray[np.float32], residuals: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """How far photos are from the training photos, by OOD features and by features.

        Args:
            ood_features: (n, n_ood_features).
            residuals: (n,), from `NeighborIndex.residuals`.

        Returns:
            (n,): the sum of (squared distance, residual), each minus its median and divided by its
            spread.
        """
        shift = (np.asarray(ood_features, np.float64) - self.mean) @ self.whitening.astype(
            np.float64
        )
        parts = np.stack([(shift**2).sum(axis=1), np.asarray(residuals, np.float64)], axis=1)
        return np.asarray(((parts - self.medians) / self.spreads).sum(axis=1), np.float32)

    def p_values(
        self, ood_features: npt.NDArray[np.float32], residuals: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """The fraction of validation photos that score at least as high, (n,) in (0, 1].

        The photo itself is counted among them, which makes this a conformal p-value: of photos
        like the training photos, at most a fraction p has a p-value of at most p.
        """
        n_lower = np.searchsorted(self.scores, self.score(ood_features, residuals), side="left")
        values: npt.NDArray[np.float64] = (len(self.scores) - n_lower + 1) / (len(self.scores) + 1)
        return values


def fit_ood_detector(
    training: npt.NDArray[np.float32],
    validation: npt.NDArray[np.float32],
    residuals: npt.NDArray[np.float32],
) -> OODDetector:
    """Fit a detector of photos unlike the training photos.

    It adds two scores, which together detect more than either alone. The first is the Mahalanobis
    distance of the OOD features from the training photos: it weighs directions in which the
    training photos vary little as much as those in which they vary a lot. The correlations are
    shrunk by a tenth, so that it is defined for few photos, too. The second is the fraction of the
    features outside the principal subspace of the training photos.

    Args:
        training: (n, n_ood_features), of training photos.
        validation: (m, n_ood_features), of photos that were not trained on.
        residuals: (m,), of the validation photos, from `NeighborIndex.residuals`.

    Returns:
        The detector that decides `Prediction.is_ood`.

    Raises:
        ArgumentError: if an array is empty, or the shapes do not match.

    Example:
        >>> random = np.random.default_rng(0)
        >>> detector = fit_ood_detector(
        ...     random.normal(size=(500, 4)), random.normal(size=(99, 4)), random.random(99)
        ... )
        >>> detector.p_values(np.array([[0.0, 0, 0, 0], [9.0, 0, 0, 0]]), np.zeros(2)).tolist()
        [1.0, 0.01]

    References:
        K. Lee, K. Lee, H. Lee, J. Shin (2018), A simple unified framework for detecting
        out-of-distribution samples and adversarial attacks. NeurIPS. The residual: H. Wang, Z. Li,
        L. Feng, W. Zhang (2022), ViM: out-of-distribution with virtual-logit matching. CVPR. The
        p-value: S. Bates et al. (2023), Testing for outliers with conformal p-values. Ann. Stat.
        51, 149-178.
    """
    t, v = np.asarray(training, np.float64), np.asarray(validation, np.float64)
    matches = (
        t.ndim == v.ndim == 2
        and t.shape[1:] == v.shape[1:]
        and np.shape(residuals) == v.shape[:1]
        and len(t)
        and len(v)
    )
    if not matches:
        raise ArgumentError(
            "`training`, `validation` and `residuals` must have the shapes (n, n_ood_features), "
            "(m, n_ood_features) and (m,), with n and m at least 1. Received: shapes "
            f"{t.shape}, {v.shape} and {np.shape(residuals)}. Pass the features of one network."
        )
    mean, scale = t.mean(axis=0), t.std(axis=0)
    scale = np.where(scale > 1e-6 * scale.max(), scale, max(float(scale.max()), 1.0))
    z = (t - mean) / scale
    correlation = (1 - _SHRINKAGE) * (z.T @ z) / len(z) + _SHRINKAGE * np.eye(z.shape[1])
    # correlation = L Lᵀ, so that |L⁻¹ z| is the distance
    whitening = np.linalg.inv(np.linalg.cholesky(correlation)).T / scale[:, None]
    squared = (((v - mean) @ whitening) ** 2).sum(axis=1)
    parts = np.stack([squared, np.asarray(residuals, np.float64)], axis=1)
    medians, high = np.quantile(parts, (0.5, 0.9), axis=0)
    detector = OODDetector(
        mean=mean.astype(np.float32),
        whitening=whitening.astype(np.float32),
        medians=medians.astype(np.float32),
        spreads=np.maximum(high - medians, [1e-3 * t.shape[1], 1e-3]).astype(np.float32),
        scores=np.zeros(0, np.float32),
    )
    return replace(detector, scores=np.sort(detector.score(v.astype(np.float32), residuals)))
