"""Nearest training photos: the evidence behind a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._json import dataclass_json

MAX_NEIGHBOR_PHOTOS = 2000
"""The most training photos whose paths and features a classifier keeps: half a MiB."""
_MAX_COMPONENTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbor:
    """A training photo that is similar to another photo, as the network sees them.

    Attributes:
        path: relative to the training folder.
        label: the name of its class.
        similarity: the cosine similarity of the two photos' centered features, in [-1, 1].
    """

    path: str
    label: str
    similarity: float

    def to_json(self) -> dict[str, Any]:
        """All fields as plain values."""
        return dataclass_json(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NeighborIndex:
    """The features of training photos, compressed by PCA.

    Attributes:
        mean: (n_features,) float32, of the training photos.
        components: (n_features, n_components) float16, the principal axes.
        embeddings: (n, n_components) float16, the photos' coordinates on them, scaled to length 1.
        labels: (n,) int32, their classes.
        paths: n paths, relative to the training folder.
    """

    mean: npt.NDArray[np.float32]
    components: npt.NDArray[np.float16]
    embeddings: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int32]
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return f"<NeighborIndex: {len(self):,} photos, {self.components.shape[1]} components>"

    def residuals(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The fraction of photos' features outside the principal subspace.

        Args:
            features: (n, n_features).

        Returns:
            (n,) in [0, 1]: 1 − |componentsᵀ (f − mean)|² / |f − mean|².
        """
        shift = np.asarray(features, np.float32) - self.mean
        inside = ((shift @ self.components.astype(np.float32)) ** 2).sum(axis=1)
        total = np.maximum((shift**2).sum(axis=1), 1e-12)
        return np.asarray(np.clip(1 - inside / total, 0, 1), np.float32)

    def embed(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The coordinates of photos on the principal axes, scaled to length 1.

        Args:
            features: (n, n_features).

        Returns:
            (n, n_components).
        """
        return _embed(features, self.mean, self.components)

    def query(
        self, features: npt.NDArray[np.float32], class_names: tuple[str, ...], n_neighbors: int
    ) -> tuple[Neighbor, ...]:
        """Find the most similar training photos.

        Args:
            features: (n_features,) of one photo.
            class_names: the names of the labels.
            n_neighbors: how many to return.

        Returns:
            The neighbors, most similar first.
        """
        embedding = _embed(features[None], self.mean, self.components)[0]
        similarity = self.embeddings.astype(np.float32) @ embedding
        order = np.argsort(-similarity, kind="stable")[:n_neighbors]
        return tuple(
            Neighbor(
                path=self.paths[k],
                label=class_names[self.labels[k]],
                similarity=float(np.clip(similarity[k], -1, 1)),
            )
            for k in order
        )


def build_neighbor_index(
    features: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], paths: tuple[str, ...]
) -> NeighborIndex:
    """Index training photos by their principal components.

    Args:
        features: (n, n_features), the input of the head.
        labels: (n,), their classes.
        paths: n paths.

    Returns:
        At most 64 numbers of 2 bytes per photo.
    """
    x = np.asarray(features, np.float64)
    mean = x.mean(axis=0)
    _, directions = np.linalg.eigh((x - mean).T @ (x - mean))
    mean = mean.astype(np.float32)
    components = directions[:, ::-1][:, :_MAX_COMPONENTS].astype(np.float16)
    embeddings = _embed(features, mean, components).astype(np.float16)
    return NeighborIndex(
        mean=mean,
        components=components,
        embeddings=embeddings,
        labels=labels.astype(np.int32),
        paths=paths,
    )


def _embed(
    features: npt.NDArray[np.float32],
    mean: npt.NDArray[np.float32],
    components: npt.NDArray[np.float16],
) -> npt.NDArray[np.float32]:
    coordinates = (features - mean) @ components.astype(np.float32)
    length = np.linalg.norm(coordinates, axis=1, keepdims=True)
    return np.asarray(coordinates / np.maximum(length, 1e-12), np.float32)
