"""Is a photo of the kind that the classifier was trained on?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scenelearn.errors import ArgumentError

_SHRINK = 0.1  # 0.01 to 0.3 made no difference on the Intel photos
UNLIKE = 0.03  # on average; with 900 photos, chance makes it more than 5 % once in 200 times


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Likeness:
    """The cloud of the training photos' traits, and how far from it validation photos lie.

    Attributes:
        centre: (n_traits,) float32, the training photos' mean.
        whitening: (n_traits, n_traits) float32: |(t − centre) whitening| is the distance of the
            traits t.
        distances: (n_validation,) float32, sorted: those of the validation photos.
    """

    centre: npt.NDArray[np.float32]
    whitening: npt.NDArray[np.float32]
    distances: npt.NDArray[np.float32]

    def distance(self, traits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Mahalanobis' distance of photos (n, n_traits) from the training photos, (n,)."""
        shift = (np.asarray(traits, np.float64) - self.centre) @ self.whitening.astype(np.float64)
        distance: npt.NDArray[np.float64] = np.sqrt((shift**2).sum(axis=1))
        return distance

    def typicality(self, traits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """The share of validation photos that lie as far out or farther, (n,) in (0, 1].

        With the photo itself counted among them it is a conformal p-value: at most a share s of
        photos like the training photos has one of at most s.
        """
        n_nearer = np.searchsorted(self.distances, self.distance(traits), side="left")
        share: npt.NDArray[np.float64] = (len(self.distances) - n_nearer + 1) / (
            len(self.distances) + 1
        )
        return share


def likeness(training: npt.NDArray[np.float32], validation: npt.NDArray[np.float32]) -> Likeness:
    """Learn what photos of this kind look like.

    The distance is Mahalanobis': in deviations of the training photos, in directions in which
    they vary little as in those in which they vary much. Their correlations are shrunk a tenth of
    the way to none, so that it is defined for few photos, too.

    Args:
        training: (n, n_traits), traits of training photos.
        validation: (m, n_traits), of photos that were not trained on.

    Returns:
        What `Prediction.is_unlike` is decided by.

    Raises:
        ArgumentError: if one has no rows, or the two have different numbers of traits.

    Example:
        >>> random = np.random.default_rng(0)
        >>> known = likeness(random.normal(size=(500, 4)), random.normal(size=(99, 4)))
        >>> known.typicality(np.array([[0.0, 0, 0, 0], [9.0, 0, 0, 0]])).tolist()
        [1.0, 0.01]

    References:
        K. Lee, K. Lee, H. Lee, J. Shin (2018), A simple unified framework for detecting
        out-of-distribution samples and adversarial attacks. NeurIPS. The p-value: S. Bates et al.
        (2023), Testing for outliers with conformal p-values. Ann. Stat. 51, 149-178.
    """
    t, v = np.asarray(training, np.float64), np.asarray(validation, np.float64)
    if t.ndim != 2 or v.ndim != 2 or not len(t) or not len(v) or t.shape[1] != v.shape[1]:
        raise ArgumentError(
            "`training` and `validation` must be (n, n_traits) and (m, n_traits), with at least "
            f"one row. Received: shapes {t.shape} and {v.shape}. Pass traits of one network."
        )
    centre, scale = t.mean(axis=0), t.std(axis=0)
    scale = np.where(scale > 1e-6 * scale.max(), scale, max(float(scale.max()), 1.0))
    z = (t - centre) / scale
    correlation = (1 - _SHRINK) * (z.T @ z) / len(z) + _SHRINK * np.eye(z.shape[1])
    # correlation = L Lᵀ, so that |L⁻¹ z| is the distance
    whitening = np.linalg.inv(np.linalg.cholesky(correlation)).T / scale[:, None]
    known = Likeness(
        centre=centre.astype(np.float32),
        whitening=whitening.astype(np.float32),
        distances=np.zeros(0, np.float32),
    )
    distances = np.sort(known.distance(v.astype(np.float32))).astype(np.float32)
    return Likeness(centre=known.centre, whitening=known.whitening, distances=distances)
