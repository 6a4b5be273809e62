"""Which photos train, which validate and which test: stratified, and stable as photos are added.

Each photo's side follows from the hash of its content and the seed alone. So adding, removing,
renaming or moving photos does not change the side of another, and two identical files are drawn
to the same side. (A rule that hit the asked share to the photo could not promise this: whether
the 15th photo of 100 is a test photo would depend on the others.) The one exception is a class so
small that the draw leaves one of its sides empty.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy.typing as npt

from scenelearn.data import _draw
from scenelearn.data._photos import Photos
from scenelearn.data._splits import Splits
from scenelearn.errors import ArgumentError


def split(
    photos: Photos,
    validation: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    *,
    groups: npt.ArrayLike | None = None,
    quarantine: Iterable[str] = (),
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

    Identical files, photos of one group of the manifest, and those of one number in `groups` are
    drawn together, by the lowest of their hashes. Sides that the folders give stay as they are.

    Args:
        photos: from `scan`.
        validation: share of the photos that validate, in (0, 1); or, as a whole number, how many
            do. A number of photos takes those with the lowest u (and what belongs to the last of
            them), so that it holds, but a photo added or removed moves one other.
        test: share or number of the photos that test, likewise; both must leave photos to train.
        seed: another seed, another draw; at least 0.
        groups: (n,) int, a number for each photo. `Audit.groups` keeps near copies together; a
            number a place or a day keeps those together.
        quarantine: paths, as in `Photos.paths`, of photos that are put on no side, such as
            `Audit.quarantine`. A path that is not among the photos (any more) is logged.

    Returns:
        The photos with their sides.

    Raises:
        ArgumentError: if a share or the seed is out of range, `groups` does not hold one whole
            number for each photo, or `quarantine` is not a list of paths.
        TooFewClassesError: if there are fewer than two classes.
        TooFewPhotosError: if a class has too few different photos to have one on each side.

    Example:
        >>> import tempfile, scenelearn as sl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     splits = sl.split(sl.scan(sl.sample_scenes(folder, per_class=4)), seed=0)
        >>> len(splits.train) + len(splits.validation) + len(splits.test)
        24
    """
    _draw.check(photos, seed)
    _draw.check_share(photos, "validation", validation)
    _draw.check_share(photos, "test", test)
    if not isinstance(validation, int) and not isinstance(test, int) and validation + test >= 1:
        raise ArgumentError(
            "`validation` and `test` together must leave photos to train on. "
            f"Received: validation={validation}, test={test}. Lower one of them."
        )
    together = _draw.groups_of(photos, groups)
    u = _draw.uniform(_draw.lowest_hashes(photos, together), str(seed))
    side_of, drawn_from = _draw.given_sides(photos, quarantine)
    asked = {
        side: share
        for side, share in (("test", test), ("validation", validation))
        if not (side_of == side).any()
    }
    lower = 0.0
    for side, share in asked.items():
        upper = _draw.upper_end(u[drawn_from], lower, share)
        side_of[drawn_from & (u >= lower) & (u < upper)] = side
        lower = upper
    _draw.fill_empty_sides(side_of, u, photos, drawn_from)
    return _draw.splits_of(photos, side_of, together, (validation, test, seed))
