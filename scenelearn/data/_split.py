"""Which photos train, which validate and which test: stratified, and stable as photos are added.

Each photo's side follows from the hash of its content and the seed alone. So adding, removing,
renaming or moving photos does not change the side of another, and two identical files are drawn
to the same side. (A rule that hit the asked share to the photo could not promise this: whether
the 15th photo of 100 is a test photo would depend on the others.) The one exception is a class so
small that the draw leaves one of its sides empty.
"""

from __future__ import annotations

import hashlib
import html
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.data._photos import Photos
from scenelearn.errors import ArgumentError, TooFewClassesError, TooFewPhotosError

SIDES = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Splits:
    """The photos and their sides.

    Attributes:
        photos: all usable photos.
        train: (n_train,) int64, positions in `photos`, ascending.
        validation: (n_validation,) int64, likewise.
        test: (n_test,) int64, likewise.
        validation_share: the share that was asked for, in (0, 1).
        test_share: likewise.
        seed: the seed of the draw.
    """

    photos: Photos
    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]
    validation_share: float
    test_share: float
    seed: int

    def __str__(self) -> str:
        return (
            f"{len(self.train):,} photos to train, {len(self.validation):,} to validate, "
            f"{len(self.test):,} to test"
        )

    def frame(self) -> list[dict[str, Any]]:
        """One plain row a class: how many photos it has on each side."""
        return [
            {
                "class": name,
                **{
                    side: int((self.photos.labels[getattr(self, side)] == k).sum())
                    for side in SIDES
                },
            }
            for k, name in enumerate(self.photos.class_names)
        ]

    def to_json(self) -> dict[str, Any]:
        """Shares, seed and, for each side, the photos' paths with their content hashes."""
        paths, hashes = self.photos.paths, self.photos.hashes
        return {
            "validation_share": self.validation_share,
            "test_share": self.test_share,
            "seed": self.seed,
            "class_names": list(self.photos.class_names),
            **{
                side: [{"path": paths[i], "hash": hashes[i].hex()} for i in getattr(self, side)]
                for side in SIDES
            },
        }

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("class", *SIDES))
        body = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row.values())
            + "</tr>"
            for row in self.frame()
        )
        return (
            f"<p>{html.escape(str(self))}</p><table><thead><tr>{head}</tr></thead>"
            f"<tbody>{body}</tbody></table>"
        )


def split(
    photos: Photos,
    validation: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    *,
    groups: npt.ArrayLike | None = None,
) -> Splits:
    """Give each photo its side: train, validation or test.

    u = hash(seed, content) / 2⁶⁴ is uniform in [0, 1): a photo tests where u < `test`, validates
    where u < `test` + `validation`, and trains otherwise. The hash is the 8-byte BLAKE2b,
    read as a little-endian number, of the photo's entry in `Photos.hashes`; its key is the SHA-256
    of the seed in decimal digits.

    Sides that the folders give (a ``test`` folder, say) are kept, and only the sides that are
    missing are drawn, from the training photos. A class that this leaves without a photo on some
    side gets there the photo with the nearest u of the side where it has most.

    Each class has the asked share up to chance: of n photos, n·p ± √(n·p·(1−p)).

    Args:
        photos: from `scan`.
        validation: share of the photos that validate, in (0, 1).
        test: share of the photos that test, in (0, 1); the two together below 1.
        seed: another seed, another draw; at least 0.
        groups: (n,) int, a number for each photo: photos of one number are drawn to one side, by
            the lowest of their hashes. `Audit.groups` keeps near copies together; a number a
            place or a day keeps those together. Sides that the folders give stay as they are.

    Returns:
        The photos with their sides.

    Raises:
        ArgumentError: if a share or the seed is out of range, or `groups` does not hold one whole
            number for each photo.
        TooFewClassesError: if there are fewer than two classes.
        TooFewPhotosError: if a class has too few different photos to have one on each side.

    Example:
        >>> import tempfile, scenelearn as sl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     splits = sl.split(sl.scan(sl.sample_scenes(folder, per_class=4)), seed=0)
        >>> len(splits.train) + len(splits.validation) + len(splits.test)
        24
    """
    _check(photos, validation, test, seed)
    hashes = photos.hashes if groups is None else _of_groups(photos, groups)
    u = _uniform(hashes, seed)
    given = np.array(photos.sides)
    drawn_from = np.isin(given, ["", "train"])
    shares = {
        side: share
        for side, share in (("test", test), ("validation", validation))
        if not (given == side).any()
    }
    side_of = np.where(drawn_from, "train", given).astype("U10")
    lower = 0.0
    for side, share in shares.items():
        side_of[drawn_from & (u >= lower) & (u < lower + share)] = side
        lower += share
    for label in range(photos.n_classes):
        _fill_empty_sides(side_of, u, photos, label, drawn_from)
    train, validate, testing = (np.flatnonzero(side_of == side) for side in SIDES)
    return Splits(
        photos=photos,
        train=train,
        validation=validate,
        test=testing,
        validation_share=validation,
        test_share=test,
        seed=seed,
    )


def _check(photos: Photos, validation: float, test: float, seed: int) -> None:
    for name, share in (("validation", validation), ("test", test)):
        if not (isinstance(share, int | float) and 0 < share < 1):
            raise ArgumentError(
                f"`{name}` must be a share of the photos between 0 and 1. "
                f"Received: {name}={share!r}. Pass e.g. {name}=0.15."
            )
    if validation + test >= 1:
        raise ArgumentError(
            "`validation` and `test` together must leave photos to train on. "
            f"Received: validation={validation}, test={test}. Lower one of them."
        )
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


def _of_groups(photos: Photos, groups: npt.ArrayLike) -> tuple[bytes, ...]:
    """For each photo the lowest hash of its group."""
    numbers = np.asarray(groups)
    if numbers.shape != (len(photos),) or numbers.dtype.kind not in "iu":
        raise ArgumentError(
            "`groups` must hold one whole number for each photo. Received: "
            f"shape {numbers.shape} of {numbers.dtype} for {len(photos):,} photos. "
            "Pass e.g. groups=sl.audit(photos).groups."
        )
    lowest: dict[int, bytes] = {}
    for number, content in zip(numbers.tolist(), photos.hashes, strict=True):
        lowest[number] = min(content, lowest.get(number, content))
    return tuple(lowest[number] for number in numbers.tolist())


def _uniform(hashes: tuple[bytes, ...], seed: int) -> npt.NDArray[np.float64]:
    """One number in [0, 1) for each photo, from its content and the seed alone.

    The lowest 11 of the 64 bits are dropped: a float has room for 53.
    """
    key = hashlib.sha256(str(seed).encode()).digest()
    digests = b"".join(
        hashlib.blake2b(content, key=key, digest_size=8).digest() for content in hashes
    )
    return np.asarray((np.frombuffer(digests, "<u8") >> np.uint64(11)) * 2.0**-53, np.float64)


def _fill_empty_sides(
    side_of: npt.NDArray[np.str_],
    u: npt.NDArray[np.float64],
    photos: Photos,
    label: int,
    drawn_from: npt.NDArray[np.bool_],
) -> None:
    """Move the photos with the nearest u to the sides where class `label` has none.

    Copies of one photo share their u and move together.
    """
    of_class = photos.labels == label
    order = ("test", "validation", "train")  # as the sides lie along u
    values = np.unique(u[of_class & drawn_from])
    lacking = [side for side in order if not (side_of[of_class] == side).any()]
    n_needed = len(lacking) + len(set(side_of[of_class & drawn_from]))
    if lacking and len(values) < n_needed:
        raise TooFewPhotosError(
            f"Class {photos.class_names[label]!r} needs at least {n_needed} different photos to "
            f"have one on each side of the split. Received: {len(values)} in "
            f"{str(photos.folder)!r}{_not_counted(photos)}. "
            "Add photos of this class or remove its folder."
        )
    for side in lacking:
        counts = {
            other: len(np.unique(u[of_class & drawn_from & (side_of == other)])) for other in SIDES
        }
        donor = max(counts, key=counts.__getitem__)
        candidates = np.unique(u[of_class & drawn_from & (side_of == donor)])
        nearest = candidates[0] if order.index(side) < order.index(donor) else candidates[-1]
        side_of[drawn_from & (u == nearest)] = side


def _not_counted(photos: Photos) -> str:
    given = sorted({side for side in photos.sides if side not in ("", "train")})
    return f", those in its {' and '.join(given)} folders not counted" if given else ""
