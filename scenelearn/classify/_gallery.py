"""Training photos to compare with: the nearest ones say what an answer rests on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MOST_PHOTOS = 2000
"""Of so many training photos a classifier keeps paths and features: half a MiB."""
_MOST_AXES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbor:
    """A training photo that looks alike to the network.

    Attributes:
        path: of the photo, relative to the folder that was trained on.
        label: its class.
        similarity: cosine of the two photos' features, centered, in [-1, 1].
    """

    path: str
    label: str
    similarity: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gallery:
    """Training photos by their features, in few numbers.

    Attributes:
        mean: (n_features,) float32, of the training photos.
        axes: (n_features, n_axes) float16, the directions in which they vary most.
        rows: (n, n_axes) float16, their positions along these, each of length 1.
        labels: (n,) int32, their classes.
        paths: n paths, relative to the folder that was trained on.
    """

    mean: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float16]
    rows: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int32]
    paths: tuple[str, ...]

    def outside(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Of photos' features, the share that is in no direction of `axes`.

        Args:
            features: (n, n_features).

        Returns:
            (n,) in [0, 1]: 1 − |axesᵀ (f − mean)|² / |f − mean|².
        """
        shift = np.asarray(features, np.float32) - self.mean
        inside = ((shift @ self.axes.astype(np.float32)) ** 2).sum(axis=1)
        whole = np.maximum((shift**2).sum(axis=1), 1e-12)
        return np.asarray(np.clip(1 - inside / whole, 0, 1), np.float32)

    def nearest(
        self, features: npt.NDArray[np.float32], class_names: tuple[str, ...], n: int
    ) -> tuple[Neighbor, ...]:
        """The `n` most similar training photos, the most similar first.

        Args:
            features: (n_features,) of one photo.
            class_names: names of the labels.
            n: how many.
        """
        similarity = self.rows.astype(np.float32) @ _rows(features[None], self.mean, self.axes)[0]
        first = np.argsort(-similarity, kind="stable")[:n]
        return tuple(
            Neighbor(
                path=self.paths[k],
                label=class_names[self.labels[k]],
                similarity=float(np.clip(similarity[k], -1, 1)),
            )
            for k in first
        )


def gallery(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], paths: tuple[str, ...]
) -> Gallery:
    """Keep training photos by their principal components.

    Args:
        features: (n, n_features), what the head saw.
        labels: (n,) their classes.
        paths: n paths.

    Returns:
        At most 64 numbers of 2 bytes a photo.
    """
    x = np.asarray(features, np.float64)
    mean = x.mean(axis=0)
    _, directions = np.linalg.eigh((x - mean).T @ (x - mean))
    mean = mean.astype(np.float32)
    axes = directions[:, ::-1][:, :_MOST_AXES].astype(np.float16)
    rows = _rows(features, mean, axes).astype(np.float16)
    return Gallery(mean=mean, axes=axes, rows=rows, labels=labels.astype(np.int32), paths=paths)


def _rows(
    features: npt.NDArray[np.float32], mean: npt.NDArray[np.float32], axes: npt.NDArray[np.float16]
) -> npt.NDArray[np.float32]:
    rows = (features - mean) @ axes.astype(np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, 1e-12), np.float32)
