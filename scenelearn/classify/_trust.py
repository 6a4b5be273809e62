"""What validation photos say about how far to trust an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.classify._conformal import prediction_sets, set_threshold
from scenelearn.classify._gallery import Gallery
from scenelearn.classify._likeness import UNLIKE, Likeness
from scenelearn.classify._sight import Sight

COVERAGE = 0.95
"""How often a prediction set holds the true class where nothing else is asked for."""
_KINDS = {
    "scores": ("<f4", 1), "center": ("<f4", 1), "whitening": ("<f4", 2), "distances": ("<f4", 1),
    "middle": ("<f4", 1), "spread": ("<f4", 1),
    "mean": ("<f4", 1), "axes": ("<f2", 2), "rows": ("<f2", 2), "labels": ("<i4", 1),
}  # fmt: skip

_OF_LIKENESS = ("center", "whitening", "middle", "spread", "distances")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trust:
    """What is kept of validation and training photos to judge new answers by.

    The validation photos also chose the temperature and the better of head and network, so they
    are not quite as strange to the classifier as new photos are. That is one number and one
    choice; sets on unseen Intel photos covered as promised within what chance explains.

    Attributes:
        scores: (n_validation,) float32, sorted, from `set_scores` on calibrated probabilities.
        likeness: what the training photos look like.
        gallery: training photos to show as the nearest.
    """

    scores: npt.NDArray[np.float32]
    likeness: Likeness
    gallery: Gallery

    def sets(self, probabilities: npt.ArrayLike, coverage: float) -> npt.NDArray[np.bool_]:
        """The conformal set of each photo, (n, n_classes); see `prediction_sets`.

        Raises:
            ArgumentError: if `coverage` is not between 0 and 1.
        """
        return prediction_sets(probabilities, set_threshold(self.scores, coverage))

    def typicality(self, seen: Sight) -> npt.NDArray[np.float64]:
        """The share of validation photos that are as unlike the training photos, (n,)."""
        return self.likeness.typicality(seen.traits, self.gallery.outside(seen.features))

    def unlike(self, seen: Sight) -> npt.NDArray[np.bool_]:
        """Which photos are unlike the training photos: typicality at most 0.03."""
        return self.typicality(seen) <= UNLIKE

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays by name, for the bundle; the gallery's paths go as text."""
        held = {
            "scores": self.scores,
            "center": self.likeness.center,
            "whitening": self.likeness.whitening,
            "middle": self.likeness.middle,
            "spread": self.likeness.spread,
            "distances": self.likeness.distances,
            "mean": self.gallery.mean,
            "axes": self.gallery.axes,
            "rows": self.gallery.rows,
            "labels": self.gallery.labels,
        }
        return {name: np.ascontiguousarray(held[name], kind) for name, (kind, _) in _KINDS.items()}


def trust_of(
    arrays: dict[str, npt.NDArray[Any]], paths: list[str], sizes: tuple[int, int, int]
) -> Trust:
    """What `Trust.arrays` took apart.

    Args:
        arrays: by name.
        paths: of the gallery's photos.
        sizes: numbers of classes, features and traits of the network.

    Returns:
        The same again.

    Raises:
        ValueError: if an array is missing, or they do not fit together or to the network.
    """
    if set(arrays) != set(_KINDS) or any(
        (arrays[name].dtype.str, arrays[name].ndim) != kind for name, kind in _KINDS.items()
    ):
        raise ValueError(f"arrays {sorted(arrays)}")
    (n_classes, n_features, n_traits), (n, n_axes) = sizes, arrays["rows"].shape
    labels = arrays["labels"]
    fit = (
        arrays["center"].shape == (n_traits,)
        and arrays["whitening"].shape == (n_traits, n_traits)
        and arrays["middle"].shape == arrays["spread"].shape == (2,)
        and arrays["mean"].shape == (n_features,)
        and arrays["axes"].shape == (n_features, n_axes)
        and len(labels) == n == len(paths)
        and all(np.isfinite(array).all() for array in arrays.values())
        and (arrays["spread"] > 0).all()
        and ((labels >= 0) & (labels < n_classes)).all()
    )
    if not fit:
        raise ValueError("arrays that do not fit together")
    return Trust(
        scores=arrays["scores"],
        likeness=Likeness(**{k: arrays[k] for k in _OF_LIKENESS}),
        gallery=Gallery(
            **{k: arrays[k] for k in ("mean", "axes", "rows", "labels")}, paths=tuple(paths)
        ),
    )
