"""How sides are drawn: what belongs together, one number in [0, 1) for each photo, empty sides."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from scenelearn.data._groups import joined, links
from scenelearn.data._photos import Photos
from scenelearn.data._splits import QUARANTINE, SIDES, Splits
from scenelearn.errors import ArgumentError, TooFewClassesError, TooFewPhotosError

_log = logging.getLogger(__name__)


def check(photos: Photos, seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ArgumentError(
            f"`seed` must be a whole number of at least 0. Received: seed={seed!r}. Pass e.g. 0."
        )
    if photos.n_classes < 2:
        raise TooFewClassesError(
            "At least two classes are needed to tell apart. Received: only "
            f"{', '.join(map(repr, photos.class_names))} in {str(photos.folder)!r}. "
            "Put each class's photos into a folder named after the class, side by side."
        )


def check_share(photos: Photos, name: str, share: object) -> None:
    whole = isinstance(share, int) and not isinstance(share, bool) and share >= photos.n_classes
    if not whole and not (isinstance(share, float) and 0 < share < 1):
        raise ArgumentError(
            f"`{name}` must be a share of the photos between 0 and 1, or a whole number of "
            f"photos, at least one a class. Received: {name}={share!r}. Pass e.g. {name}=0.15."
        )


def groups_of(photos: Photos, groups: npt.ArrayLike | None) -> npt.NDArray[np.int64]:
    """One number for photos that belong together: the lowest of their positions."""
    pairs = links(photos.hashes)
    if photos.groups:
        pairs += links(group or index for index, group in enumerate(photos.groups))
    if groups is not None:
        numbers = np.asarray(groups)
        if numbers.shape != (len(photos),) or numbers.dtype.kind not in "iu":
            raise ArgumentError(
                "`groups` must hold one whole number for each photo. Received: "
                f"shape {numbers.shape} of {numbers.dtype} for {len(photos):,} photos. "
                "Pass e.g. groups=sl.audit(photos).groups."
            )
        pairs += links(numbers.tolist())
    return joined(len(photos), pairs)


def lowest_hashes(photos: Photos, together: npt.NDArray[np.int64]) -> tuple[bytes, ...]:
    """For each photo the lowest hash of its group."""
    lowest: dict[int, bytes] = {}
    for number, content in zip(together.tolist(), photos.hashes, strict=True):
        lowest[number] = min(content, lowest.get(number, content))
    return tuple(lowest[number] for number in together.tolist())


def uniform(hashes: tuple[bytes, ...], seed: str) -> npt.NDArray[np.float64]:
    """One number in [0, 1) for each photo, from its content and the seed alone.

    The lowest 11 of the 64 bits are dropped: a float has room for 53.
    """
    key = hashlib.sha256(seed.encode()).digest()
    digests = b"".join(
        hashlib.blake2b(content, key=key, digest_size=8).digest() for content in hashes
    )
    return np.asarray((np.frombuffer(digests, "<u8") >> np.uint64(11)) * 2.0**-53, np.float64)


def given_sides(
    photos: Photos, quarantine: Iterable[str]
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.bool_]]:
    """Each photo's side before anything is drawn, and which photos may be drawn."""
    paths = None if isinstance(quarantine, str | bytes) else list(quarantine)
    if paths is None or not all(isinstance(path, str) for path in paths):
        raise ArgumentError(
            "`quarantine` must list paths as in `Photos.paths`. "
            f"Received: {quarantine!r:.80}. Pass e.g. sl.audit(photos).quarantine."
        )
    apart = set(paths)
    unknown = apart.difference(photos.paths)
    if unknown:
        _log.warning("%d quarantined paths are not (or no longer) photos.", len(unknown))
    given = np.array(photos.sides)
    held = np.array([path in apart for path in photos.paths], bool)
    drawn_from = np.isin(given, ["", "train"]) & ~held
    side_of = np.where(drawn_from, "train", given).astype("U10")
    side_of[held] = QUARANTINE
    return side_of, drawn_from


def upper_end(u: npt.NDArray[np.float64], lower: float, share: float) -> float:
    """The end of a side that begins at `lower`: so far on, or so many photos on."""
    if not isinstance(share, int):
        return lower + share
    after = np.sort(u[u >= lower])
    if share >= len(after):
        raise TooFewPhotosError(
            f"The split must leave photos to train on. Received: {share:,} asked of the "
            f"{len(after):,} photos left to draw. Ask for fewer."
        )
    return float(np.nextafter(after[share - 1], 1))


def fill_empty_sides(
    side_of: npt.NDArray[np.str_],
    u: npt.NDArray[np.float64],
    photos: Photos,
    drawn_from: npt.NDArray[np.bool_],
) -> None:
    """Move the photos with the nearest u to the sides where a class has none.

    Copies of one photo share their u and move together.
    """
    order = ("test", "validation", "train")  # as the sides lie along u
    for label in range(photos.n_classes):
        of_class = photos.labels == label
        drawn = of_class & drawn_from
        values = np.unique(u[drawn])
        lacking = [side for side in order if not (side_of[of_class] == side).any()]
        n_needed = len(lacking) + len(set(side_of[drawn]))
        if lacking and len(values) < n_needed:
            raise TooFewPhotosError(
                f"Class {photos.class_names[label]!r} needs at least {n_needed} different photos "
                f"to have one on each side of the split. Received: {len(values)} in "
                f"{str(photos.folder)!r}{_not_counted(photos)}. "
                "Add photos of this class or remove its folder."
            )
        for side in lacking:
            of_side = {other: np.unique(u[drawn & (side_of == other)]) for other in SIDES}
            donor = max(of_side, key=lambda other: len(of_side[other]))
            before = order.index(side) < order.index(donor)
            side_of[drawn_from & (u == of_side[donor][0 if before else -1])] = side


def _not_counted(photos: Photos) -> str:
    given = sorted({side for side in photos.sides if side not in ("", "train")})
    return f", those in its {' and '.join(given)} folders not counted" if given else ""


def splits_of(
    photos: Photos,
    side_of: npt.NDArray[np.str_],
    together: npt.NDArray[np.int64],
    asked: tuple[float, float, int],
) -> Splits:
    train, validate, testing = (np.flatnonzero(side_of == side) for side in SIDES)
    validation, test, seed = asked
    return Splits(
        photos=photos,
        train=train,
        validation=validate,
        test=testing,
        validation_share=validation,
        test_share=test,
        seed=seed,
        groups=together,
        quarantined=np.flatnonzero(side_of == QUARANTINE),
    )
