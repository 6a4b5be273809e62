"""A classifier on photos whose classes are known; two of them on the same photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from scenelearn.classify._looks import looks, short_sides
from scenelearn.classify._sight import Sight, readable, sights, together
from scenelearn.classify._trust import Trust
from scenelearn.data import Batches, Photos, decode
from scenelearn.errors import ClassMismatchError
from scenelearn.metrics import Comparison, reorder
from scenelearn.metrics import compare as compare_tables

if TYPE_CHECKING:
    from scenelearn.classify._classifier import Classifier


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labeled:
    """What a network makes of n photos whose classes are known.

    Attributes:
        seen: n rows.
        labels: (n,) int64, true classes, in the classifier's order.
        indices: (n,) int64, which of the photos these are; those that cannot be decoded are
            missing.
        looks: "brightness", "contrast", "sharpness" and "short side" (in pixels), each (n,).
        unlike: (n,) booleans, photos that are flagged; None where that was not asked.
    """

    seen: Sight
    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    looks: dict[str, npt.NDArray[np.float64]]
    unlike: npt.NDArray[np.bool_] | None = None


def see_photos(
    network: Any,
    batches: Batches,
    progress: Callable[[int, int], None] | None = None,
    *,
    trust: Trust | None = None,
) -> Labeled:
    """Run a network over photos, and look at the photos as they pass.

    Args:
        network: from `sight_model`.
        batches: the photos with their classes.
        progress: called with (photos done, photos in all).
        trust: to flag photos by; their features and traits are then not kept, which for 200,000
            photos of 1,280 features is 1 GB.

    Returns:
        One row a photo that can still be read, in the order of `batches`; of the looks all but
        the "short side".

    Raises:
        NoPhotosError: if none can be read any more.
    """
    passed: list[npt.NDArray[np.int64]] = []
    looked: list[dict[str, npt.NDArray[np.float64]]] = []

    def images() -> Iterator[npt.NDArray[np.uint8]]:
        for part in readable(batches, passed):
            looked.append(looks(part))
            yield part

    parts: list[Sight] = []
    unlike: list[npt.NDArray[np.bool_]] = []
    total = batches.n_photos
    for part in sights(network, images(), batches.batch_size, total=total, progress=progress):
        if trust is None:
            parts.append(part)
        else:
            unlike.append(trust.unlike(part))
            bare = {"features": part.features[:, :0], "traits": part.traits[:, :0]}
            parts.append(replace(part, **bare))
    indices = np.concatenate(passed)
    return Labeled(
        seen=together(parts),
        labels=batches.labels[indices].astype(np.int64),
        indices=indices,
        looks={name: np.concatenate([part[name] for part in looked]) for name in looked[0]},
        unlike=np.concatenate(unlike) if unlike else None,
    )


def see_labeled(
    network: Any,
    class_names: tuple[str, ...],
    photos: Photos,
    *,
    trust: Trust | None,
    batch_size: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> Labeled:
    """As `see_photos`, for all photos of a scan, classes matched by name; see `Classifier`."""
    unknown = sorted(set(photos.class_names) - set(class_names))
    if unknown:
        raise ClassMismatchError(
            f"The classes of {str(photos.folder)!r} must be among those of the classifier: "
            f"{', '.join(class_names)}. Received also: {', '.join(unknown)}. "
            "Rename the folders, or leave these out."
        )
    place = np.array([class_names.index(name) for name in photos.class_names])
    decoding, judging = (
        partial(progress, what) if progress else None for what in ("decoding photos", "judging")
    )
    batches = Batches(
        pixels=decode(photos, network.input.shape[1], progress=decoding),
        labels=place[photos.labels].astype(np.int32),
        indices=np.arange(len(photos)),
        batch_size=batch_size,
    )
    found = see_photos(network, batches, judging, trust=trust)
    sides = {"short side": short_sides(photos, found.indices)}
    return replace(found, looks=found.looks | sides)


def compare(
    a: Classifier,
    b: Classifier,
    photos: Photos,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Compare two classifiers on the same photos; their classes are matched by name.

    Args:
        a: the first.
        b: the second; it may see photos at another size.
        photos: from `scan`, with their classes; none of them trained on by either.
        progress: called with (what, photos done, photos in all).

    Returns:
        Both accuracies, their difference with its interval, and McNemar's exact test.

    Raises:
        ClassMismatchError: if the two, or the photos, have different classes.
        NoPhotosError: if no photo can be decoded.
    """
    reorder(np.zeros((0, len(b.class_names))), b.class_names, a.class_names)  # before any work
    first, second = (one.see_labeled(photos, progress=progress) for one in (a, b))
    _, mine, other = np.intersect1d(
        first.indices, second.indices, assume_unique=True, return_indices=True
    )
    return compare_tables(
        first.labels[mine],
        first.seen.probabilities[mine],
        reorder(second.seen.probabilities[other], b.class_names, a.class_names),
        a.class_names,
    )
