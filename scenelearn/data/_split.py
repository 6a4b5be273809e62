"""`split` and `folds`: stratified, and stable when photos are added or removed.

The split of a photo depends only on the seed and the hash of the photo's content. Adding, removing,
renaming or moving photos does not change the split of any other photo, and identical files are
always in the same split. (An exact fraction per class cannot have this property: whether photo 15
of 100 is a test photo would depend on the other 99.) The only exception is a class so small that
one of its splits would be empty.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_array, check_integer, check_number
from scenelearn.data._groups import connected_components, pairs_with_equal_keys
from scenelearn.data._manifest import SPLIT_OF_NAME
from scenelearn.data._photos import Photos
from scenelearn.data._scan import as_photos
from scenelearn.data._splits import QUARANTINE, SPLIT_NAMES, Splits
from scenelearn.errors import ArgumentError, TooFewClassesError, TooFewPhotosError

_ORDER = ("test", "validation", "train")  # of the splits along u, see `split`

_log = logging.getLogger(__name__)


def split(
    photos: Photos | str | os.PathLike[str],
    *,
    validation: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
    quarantine: Iterable[str] = (),
) -> Splits:
    """Divide photos into train, validation and test.

    Let u = hash(seed, content) / 2⁶⁴, uniform in [0, 1). A photo with u < `test` goes to test, one
    with u < `test` + `validation` to validation, all others to train. The hash is the 8-byte
    BLAKE2b digest of the photo's entry in `Photos.hashes`, read as a little-endian integer; its key
    is the SHA-256 digest of the seed in decimal digits.

    Splits that the folders or the manifest assign (a ``test`` folder, for example) are kept; only
    the missing ones are drawn, from the training photos. If a class then has no photo in some
    split, the photo with the nearest u moves there from the split where the class has the most.
    A group moves as a whole, unless another class would then have none in the split that it leaves.

    Each class gets the requested fraction up to chance: n·p ± √(n·p·(1−p)) of its n photos.

    Identical files, photos of one group in the manifest, and photos with the same number in
    `groups` are assigned together, by the lowest of their hashes: a photo that joins a group later
    may move it to another split. Assigned splits take precedence.

    Args:
        photos: from `scan`; or a folder, ZIP file or manifest, which is then scanned.
        validation: fraction of the photos for validation, in [0, 1); or an integer, the number of
            photos. A number takes the photos with the lowest u (plus the rest of the last group),
            so it is exact, but adding or removing a photo moves one other. 0 gives train and test
            only, for `folds`-like experiments of your own; `fit` needs validation photos.
        test: fraction, in (0, 1), or number of the photos for testing. Some must be left to train.
        seed: at least 0; another seed gives another split.
        groups: (n,) int, one number per photo; photos with equal numbers stay together. Pass
            `Audit.groups` for near-duplicates, or one number per place or day.
        quarantine: paths, as in `Photos.paths`, to exclude from all splits, such as
            `Audit.quarantine`. Paths that are not among the photos are logged.

    Returns:
        The splits.

    Raises:
        ArgumentError: if `photos` is of another type, a fraction or the seed is out of range,
            `groups` does not contain one integer per photo, or `quarantine` is not a list of paths.
        TooFewClassesError: if there are fewer than two classes.
        TooFewPhotosError: if a class has too few different photos to have one in each split, or
            groups that it shares with other classes prevent it.
        DataError: if `photos` is empty, or a path that cannot be scanned; see `scan`.

    Example:
        >>> import tempfile, scenelearn as sl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     splits = sl.split(sl.scan(sl.sample_scenes(folder, per_class=4)), seed=0)
        >>> len(splits), len(splits.train) + len(splits.validation) + len(splits.test)
        (24, 24)
    """
    photos = as_photos(photos)
    seed = _check_classes_and_seed(photos, seed)
    validation = _check_fraction(photos, "validation", validation, low=0)
    test = _check_fraction(photos, "test", test)
    if not isinstance(validation, int) and not isinstance(test, int) and validation + test >= 1:
        raise ArgumentError(
            "`validation` and `test` must leave photos to train on. "
            f"Received: validation={validation}, test={test}. Lower one of them."
        )
    group_of = _group_photos(photos, groups)
    u = _uniform(_lowest_hashes(photos, group_of), str(seed))
    split_of, available = _assigned_splits(photos, quarantine)
    lower = 0.0
    for name, fraction in (("test", test), ("validation", validation)):
        if fraction and not (split_of == name).any():
            upper = _upper_bound(u[available], lower, fraction)
            split_of[available & (u >= lower) & (u < upper)] = name
            lower = upper
    required = [name for name in _ORDER if name != "validation" or validation]
    _fill_empty_splits(split_of, u, photos, available, required)
    return _to_splits(photos, split_of, group_of, (validation, test, seed))


def folds(
    photos: Photos | str | os.PathLike[str],
    n_folds: int = 5,
    *,
    validation: float = 0.15,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
    quarantine: Iterable[str] = (),
) -> tuple[Splits, ...]:
    """Splits for cross-validation: each photo is a test photo in exactly one of them.

    Folds are stratified: the photos of each class, in the order of their hashes, are assigned to
    the folds in turn. Photos that belong together (see `split`) stay together. In each fold the
    validation photos are drawn from those that are not test photos. Splits that the folders assign
    are kept in all folds: with an assigned test split, the folds take turns as the validation split
    instead.

    Args:
        photos: as for `split`.
        n_folds: the number of folds, at least 2.
        validation: fraction, in (0, 1), or number of the remaining photos for validation.
        seed: at least 0; another seed gives other folds.
        groups: as for `split`.
        quarantine: as for `split`.

    Returns:
        One `Splits` per fold.

    Raises:
        ArgumentError: if an argument is out of range or of another type, or both a test and a
            validation split are assigned, so that nothing is left to assign.
        TooFewClassesError: if there are fewer than two classes.
        TooFewPhotosError: if a class has too few different photos for the folds, or groups that it
            shares with other classes prevent them.
        DataError: if `photos` is empty, or a path that cannot be scanned; see `scan`.

    Example:
        >>> import tempfile, scenelearn as sl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     parts = sl.folds(sl.scan(sl.sample_scenes(folder, per_class=6)), 3)
        >>> [len(part.test) for part in parts]
        [12, 12, 12]
    """
    photos = as_photos(photos)
    seed = _check_classes_and_seed(photos, seed)
    validation = _check_fraction(photos, "validation", validation)
    n_folds = check_integer("n_folds", n_folds, low=2, advice="Pass e.g. 5.")
    group_of = _group_photos(photos, groups)
    hashes = _lowest_hashes(photos, group_of)
    assigned, available = _assigned_splits(photos, quarantine)
    missing = [name for name in ("test", "validation") if not (assigned == name).any()]
    if not missing:
        raise ArgumentError(
            f"`photos` must leave the test or validation split to the folds. Received: "
            f"{str(photos.folder)!r}, which assigns both. Use `split`."
        )
    fold_of = _assign_folds(photos, group_of, _uniform(hashes, str(seed)), available, n_folds)
    parts = []
    for fold in range(n_folds):
        split_of = assigned.copy()
        split_of[available & (fold_of == fold)] = missing[0]
        rest = available & (fold_of != fold)
        u = _uniform(hashes, f"{seed} {fold}")
        if len(missing) == 2:
            split_of[rest & (u < _upper_bound(u[rest], 0.0, validation))] = "validation"
        _fill_empty_splits(split_of, u, photos, rest, _ORDER)
        fraction = 1 / n_folds
        test_in_turn = missing[0] == "test"
        requested = (validation, fraction, seed) if test_in_turn else (fraction, 0.0, seed)
        parts.append(_to_splits(photos, split_of, group_of, requested))
    return tuple(parts)


def _check_classes_and_seed(photos: Photos, seed: object) -> int:
    """Check that there are two classes, and return the seed as an int."""
    if photos.n_classes < 2:
        raise TooFewClassesError(
            "A classifier needs at least two classes. Received: only "
            f"{', '.join(map(repr, photos.class_names))} in {str(photos.folder)!r}"
            f"{_name_split_folders(photos)}. Put the photos of each class into a folder named "
            "after the class."
        )
    return check_integer("seed", seed, low=0, advice="Pass e.g. 0.")


def _check_fraction(photos: Photos, name: str, value: object, *, low: int = 1) -> float:
    """A fraction as float, or a number of photos as int; 0 only if `low` is 0."""
    with suppress(ArgumentError):
        return check_integer(name, value, low=photos.n_classes)
    with suppress(ArgumentError):
        return check_number(name, value, low=0, high=1, open_low=low > 0, open_high=True)
    raise ArgumentError(
        f"`{name}` must be a fraction between 0 and 1, or an integer number of photos, at least "
        f"one per class. Received: {name}={value!r}. Pass e.g. {name}=0.15."
    )


def _group_photos(photos: Photos, groups: npt.ArrayLike | None) -> npt.NDArray[np.int64]:
    """The group of each photo: the lowest position among the photos that belong together."""
    pairs = pairs_with_equal_keys(photos.hashes)
    if photos.groups:
        pairs += pairs_with_equal_keys(group or k for k, group in enumerate(photos.groups))
    if groups is not None:
        numbers = check_array("groups", groups, advice="Pass e.g. sl.audit(photos).groups.")
        if numbers.shape != (len(photos),) or numbers.dtype.kind not in "iu":
            raise ArgumentError(
                "`groups` must contain one integer per photo. Received: "
                f"shape {numbers.shape} of {numbers.dtype} for {len(photos):,} photos. "
                "Pass e.g. groups=sl.audit(photos).groups."
            )
        pairs += pairs_with_equal_keys(numbers.tolist())
    return connected_components(len(photos), pairs)


def _lowest_hashes(photos: Photos, group_of: npt.NDArray[np.int64]) -> tuple[bytes, ...]:
    """For each photo the lowest hash in its group."""
    lowest: dict[int, bytes] = {}
    for group, content in zip(group_of.tolist(), photos.hashes, strict=True):
        lowest[group] = min(content, lowest.get(group, content))
    return tuple(lowest[group] for group in group_of.tolist())


def _uniform(hashes: tuple[bytes, ...], seed: str) -> npt.NDArray[np.float64]:
    """One number in [0, 1) per photo, from its content and the seed alone.

    The lowest 11 of the 64 bits are dropped, since a float64 has 53.
    """
    key = hashlib.sha256(seed.encode()).digest()
    digests = b"".join(
        hashlib.blake2b(content, key=key, digest_size=8).digest() for content in hashes
    )
    return np.asarray((np.frombuffer(digests, "<u8") >> np.uint64(11)) * 2.0**-53, np.float64)


def _assigned_splits(
    photos: Photos, quarantine: Iterable[str]
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.bool_]]:
    """Each photo's split before anything is drawn, and whether it may be drawn."""
    is_list = isinstance(quarantine, Iterable) and not isinstance(quarantine, str | bytes)
    paths = list(quarantine) if is_list else None
    if paths is None or not all(isinstance(path, str) for path in paths):
        raise ArgumentError(
            "`quarantine` must list paths as in `Photos.paths`. "
            f"Received: {quarantine!r:.80}. Pass e.g. sl.audit(photos).quarantine."
        )
    excluded = set(paths)
    unknown = excluded.difference(photos.paths)
    if unknown:
        _log.warning("%d quarantined paths are not among the photos.", len(unknown))
    assigned = np.array(photos.splits)
    is_excluded = np.array([path in excluded for path in photos.paths], bool)
    available = np.isin(assigned, ["", "train"]) & ~is_excluded
    split_of = np.where(available, "train", assigned).astype("U10")
    split_of[is_excluded] = QUARANTINE
    return split_of, available


def _upper_bound(u: npt.NDArray[np.float64], lower: float, fraction: float) -> float:
    """The upper bound of a split that begins at `lower`, for a fraction or a number of photos."""
    if not isinstance(fraction, int):
        if lower + fraction >= 1:
            raise TooFewPhotosError(
                "The split must leave photos to train on. Received: test photos that are "
                f"{lower:.0%} of all, and {fraction:.0%} requested for validation. Lower one."
            )
        return lower + fraction
    candidates = np.sort(u[u >= lower])
    if fraction >= len(candidates):
        raise TooFewPhotosError(
            f"The split must leave photos to train on. Received: {fraction:,} requested of the "
            f"{len(candidates):,} photos that are available. Pass a smaller number."
        )
    return float(np.nextafter(candidates[fraction - 1], 1))


def _fill_empty_splits(
    split_of: npt.NDArray[np.str_],
    u: npt.NDArray[np.float64],
    photos: Photos,
    available: npt.NDArray[np.bool_],
    required: Iterable[str],
) -> None:
    """Move the photos with the nearest u to the required splits in which a class has none.

    Photos of one group have the same u and move together, also those of other classes. So a group
    stays if it is all that some class has in its split.
    """
    for label, of_class in enumerate(_positions_by_class(photos)):
        drawn = of_class[available[of_class]]
        values = np.unique(u[drawn])
        lacking = [name for name in required if not (split_of[of_class] == name).any()]
        n_needed = len(lacking) + len(set(split_of[drawn]))
        if lacking and len(values) < n_needed:
            n_quarantined = int((split_of[of_class] == QUARANTINE).sum())
            raise _too_few_photos_error(photos, label, n_needed, len(values), n_quarantined)
        for name in lacking:
            candidates = {
                other: np.unique(u[drawn[split_of[drawn] == other]]) for other in SPLIT_NAMES
            }
            for donor in sorted(SPLIT_NAMES, key=lambda other: -len(candidates[other])):
                direction = 1 if _ORDER.index(name) < _ORDER.index(donor) else -1
                groups = (available & (u == k) for k in candidates[donor][::direction])
                group = next((g for g in groups if _may_leave(g, donor, split_of, photos)), None)
                if group is not None:
                    split_of[group] = name
                    break
            else:
                raise _shared_groups_error(photos, label, name)


def _positions_by_class(photos: Photos) -> list[npt.NDArray[np.int64]]:
    """For each class the positions of its photos, ascending."""
    counts = np.bincount(photos.labels, minlength=photos.n_classes)
    return np.split(np.argsort(photos.labels, kind="stable"), np.cumsum(counts)[:-1])


def _may_leave(
    group: npt.NDArray[np.bool_], donor: str, split_of: npt.NDArray[np.str_], photos: Photos
) -> bool:
    """Whether each class in a group has other photos in the split that it would leave."""
    staying = set(photos.labels[(split_of == donor) & ~group].tolist())
    return staying.issuperset(photos.labels[group].tolist())


def _shared_groups_error(photos: Photos, label: int, name: str) -> TooFewPhotosError:
    return TooFewPhotosError(
        f"Class {photos.class_names[label]!r} must have {name} photos. Received: groups that it "
        "shares with other classes, each of which is all that some class has in its split. Pass "
        "another seed, add photos of other groups, or merge fewer photos into groups."
    )


def _too_few_photos_error(
    photos: Photos, label: int, n_needed: int, n_different: int, n_quarantined: int
) -> TooFewPhotosError:
    excluded = [f"its {name} photos" for name in ("test", "validation") if name in photos.splits]
    advice = "Add photos of this class or remove its folder."
    if n_quarantined:
        excluded.append(f"its {n_quarantined:,} photos in quarantine")
        advice += " To keep photos that are in quarantine, pass a shorter list of them."
    return TooFewPhotosError(
        f"Class {photos.class_names[label]!r} needs at least {n_needed} different photos to have "
        f"one in each split. Received: {n_different} in {str(photos.folder)!r}"
        f"{', not counting ' if excluded else ''}{' and '.join(excluded)}"
        f"{_name_split_folders(photos)}. {advice}"
    )


def _name_split_folders(photos: Photos) -> str:
    """Which folders `scan` took for splits; empty if none."""
    pairs = zip(photos.paths, photos.splits, strict=True)
    folders = {part for path, name in pairs if name for part in path.split("/")[:-1]}
    names = sorted(part for part in folders if part.lower() in SPLIT_OF_NAME)
    return f", where these folders are splits: {', '.join(map(repr, names))}" if names else ""


def _to_splits(
    photos: Photos,
    split_of: npt.NDArray[np.str_],
    group_of: npt.NDArray[np.int64],
    requested: tuple[float, float, int],
) -> Splits:
    train, validation, test = (np.flatnonzero(split_of == name) for name in SPLIT_NAMES)
    validation_fraction, test_fraction, seed = requested
    return Splits(
        photos=photos,
        train=train,
        validation=validation,
        test=test,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        seed=seed,
        groups=group_of,
        quarantined=np.flatnonzero(split_of == QUARANTINE),
    )


def _assign_folds(
    photos: Photos,
    group_of: npt.NDArray[np.int64],
    u: npt.NDArray[np.float64],
    available: npt.NDArray[np.bool_],
    n_folds: int,
) -> npt.NDArray[np.int64]:
    """Each photo's fold, class by class in the order of u; a group stays in one fold."""
    fold_of = np.full(len(photos), -1)
    fold_of_group: dict[int, int] = {}
    for label, of_class in enumerate(_positions_by_class(photos)):
        members = of_class[available[of_class]]
        groups = list(dict.fromkeys(group_of[members[np.argsort(u[members])]].tolist()))
        if len(groups) < n_folds + 1:
            raise TooFewPhotosError(
                f"Class {photos.class_names[label]!r} needs at least {n_folds + 1} different "
                f"photos for {n_folds} folds. Received: {len(groups)} in {str(photos.folder)!r}. "
                "Add photos of this class, remove its folder, or request fewer folds."
            )
        new = [group for group in groups if group not in fold_of_group]
        # Continue where the class before stopped, or fold 0 would get all the remainders.
        start = len(fold_of_group)
        fold_of_group.update({group: (start + k) % n_folds for k, group in enumerate(new)})
        fold_of[members] = [fold_of_group[group] for group in group_of[members].tolist()]
    return fold_of
