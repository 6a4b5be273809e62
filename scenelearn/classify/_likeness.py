"""Is a photo of the kind that the classifier was trained on?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from scenelearn.errors import ArgumentError

_SHRINK = 0.1  # 0.01 to 0.3 made no difference on the Intel photos
UNLIKE = 0.03  # on average; with 900 photos, chance makes it more than 5 % once in 200 times


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Likeness:
    """The cloud of the training photos, and how far from it validation photos lie.

    Attributes:
        center: (n_traits,) float32, the training photos' mean.
        whitening: (n_traits, n_traits) float32: |(t − center) whitening| is Mahalanobis' distance
            of the traits t.
        middle: (2,) float32, of the validation photos: the median of the squared distance, and
            of the share of the features outside what training photos span.
        spread: (2,) float32: from there to where nine tenths of them lie.
        distances: (n_validation,) float32, sorted: `distance` of the validation photos.
    """

    center: npt.NDArray[np.float32]
    whitening: npt.NDArray[np.float32]
    middle: npt.NDArray[np.float32]
    spread: npt.NDArray[np.float32]
    distances: npt.NDArray[np.float32]

    def distance(
        self, traits: npt.NDArray[np.float32], outside: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """How far photos are from the training photos: by traits and by features, added.

        Args:
            traits: (n, n_traits).
            outside: (n,), from `Gallery.outside`.

        Returns:
            (n,): the sum of (squared distance, `outside`), each less its middle and divided by
            its spread.
        """
        shift = (np.asarray(traits, np.float64) - self.center) @ self.whitening.astype(np.float64)
        parts = np.stack([(shift**2).sum(axis=1), np.asarray(outside, np.float64)], axis=1)
        return np.asarray(((parts - self.middle) / self.spread).sum(axis=1), np.float32)

    def typicality(
        self, traits: npt.NDArray[np.float32], outside: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """The share of validation photos that lie as far out or farther, (n,) in (0, 1].

        With the photo itself counted among them it is a conformal p-value: at most a share s of
        photos like the training photos has one of at most s.
        """
        n_nearer = np.searchsorted(self.distances, self.distance(traits, outside), side="left")
        share: npt.NDArray[np.float64] = (len(self.distances) - n_nearer + 1) / (
            len(self.distances) + 1
        )
        return share


def likeness(
    training: npt.NDArray[np.float32],
    validation: npt.NDArray[np.float32],
    outside: npt.NDArray[np.float32],
) -> Likeness:
    """Learn what photos of this kind look like.

    Two things tell a photo of another kind. Its traits are far from those of the training photos,
    by Mahalanobis' distance: in deviations of the training photos, in directions in which they
    vary little as in those in which they vary much; their correlations are shrunk a tenth of the
    way to none, so that it is defined for few photos, too. And of its features a larger share is
    outside the directions that the training photos span. On photos of other things the two
    together found more than either.

    Args:
        training: (n, n_traits), traits of training photos.
        validation: (m, n_traits), of photos that were not trained on.
        outside: (m,), of these, from `Gallery.outside`.

    Returns:
        What `Prediction.is_unlike` is decided by.

    Raises:
        ArgumentError: if one has no rows, or they do not fit together.

    Example:
        >>> random = np.random.default_rng(0)
        >>> known = likeness(
        ...     random.normal(size=(500, 4)), random.normal(size=(99, 4)), random.random(99)
        ... )
        >>> known.typicality(np.array([[0.0, 0, 0, 0], [9.0, 0, 0, 0]]), np.zeros(2)).tolist()
        [1.0, 0.01]

    References:
        K. Lee, K. Lee, H. Lee, J. Shin (2018), A simple unified framework for detecting
        out-of-distribution samples and adversarial attacks. NeurIPS. The share outside: H. Wang,
        Z. Li, L. Feng, W. Zhang (2022), ViM: out-of-distribution with virtual-logit matching.
        CVPR. The p-value: S. Bates et al. (2023), Testing for outliers with conformal p-values.
        Ann. Stat. 51, 149-178.
    """
    t, v = np.asarray(training, np.float64), np.asarray(validation, np.float64)
    fit = t.ndim == v.ndim == 2 and t.shape[1:] == v.shape[1:] and np.shape(outside) == v.shape[:1]
    if not fit or not len(t) or not len(v):
        raise ArgumentError(
            "`training`, `validation` and `outside` must be (n, n_traits), (m, n_traits) and (m,), "
            f"with at least one row. Received: shapes {t.shape}, {v.shape} and "
            f"{np.shape(outside)}. Pass traits of one network."
        )
    center, scale = t.mean(axis=0), t.std(axis=0)
    scale = np.where(scale > 1e-6 * scale.max(), scale, max(float(scale.max()), 1.0))
    z = (t - center) / scale
    correlation = (1 - _SHRINK) * (z.T @ z) / len(z) + _SHRINK * np.eye(z.shape[1])
    # correlation = L Lᵀ, so that |L⁻¹ z| is the distance
    whitening = np.linalg.inv(np.linalg.cholesky(correlation)).T / scale[:, None]
    squared = (((v - center) @ whitening) ** 2).sum(axis=1)
    parts = np.stack([squared, np.asarray(outside, np.float64)], axis=1)
    middle, most = np.quantile(parts, (0.5, 0.9), axis=0)
    known = Likeness(
        center=center.astype(np.float32),
        whitening=whitening.astype(np.float32),
        middle=middle.astype(np.float32),
        spread=np.maximum(most - middle, [1e-3 * t.shape[1], 1e-3]).astype(np.float32),
        distances=np.zeros(0, np.float32),
    )
    return replace(known, distances=np.sort(known.distance(v.astype(np.float32), outside)))
