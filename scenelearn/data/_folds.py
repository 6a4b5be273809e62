"""Splits for cross-validation."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from scenelearn.data import _draw
from scenelearn.data._photos import Photos
from scenelearn.data._splits import Splits
from scenelearn.errors import ArgumentError, TooFewPhotosError


def folds(
    photos: Photos,
    n_folds: int = 5,
    validation: float = 0.15,
    seed: int = 0,
    *,
    groups: npt.ArrayLike | None = None,
    quarantine: Iterable[str] = (),
) -> tuple[Splits, ...]:
    """Splits for cross-validation: each photo is a test photo in exactly one of them.

    Class by class, the photos are dealt out to the folds in the order of their hashes, so every
    class is spread evenly. What belongs together (see `split`) stays together. In each split the
    validation photos are drawn from those that do not test. A side that the folders give is kept
    in all splits: with a given test folder, the folds validate in turn instead.

    Args:
        photos: from `scan`.
        n_folds: how many, at least 2.
        validation: share or number of the other photos that validate, as for `split`.
        seed: another seed, another deal; at least 0.
        groups: as for `split`.
        quarantine: as for `split`.

    Returns:
        One split a fold.

    Raises:
        ArgumentError: if an argument is out of range, or both a test and a validation side are
            given, so that there is nothing to deal out.
        TooFewClassesError: if there are fewer than two classes.
        TooFewPhotosError: if a class has too few different photos for the folds.

    Examples:
        >>> import tempfile, scenelearn as sl
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     parts = sl.data.folds(sl.scan(sl.sample_scenes(folder, per_class=6)), 3)
        >>> [len(part.test) for part in parts]
        [12, 12, 12]
    """
    _draw.check(photos, seed)
    _draw.check_share(photos, "validation", validation)
    if isinstance(n_folds, bool) or not isinstance(n_folds, int) or n_folds < 2:
        raise ArgumentError(
            f"`n_folds` must be a whole number of at least 2. Received: n_folds={n_folds!r}. "
            "Pass e.g. 5."
        )
    together = _draw.groups_of(photos, groups)
    hashes = _draw.lowest_hashes(photos, together)
    u = _draw.uniform(hashes, str(seed))
    given, drawn_from = _draw.given_sides(photos, quarantine)
    missing = [side for side in ("test", "validation") if not (given == side).any()]
    if not missing:
        raise ArgumentError(
            f"`photos` must leave a side to deal out. Received: {str(photos.folder)!r}, which "
            "gives both test and validation photos. Use `split`."
        )
    fold_of = _dealt(photos, together, u, drawn_from, n_folds)
    parts = []
    for fold in range(n_folds):
        side_of = given.copy()
        side_of[drawn_from & (fold_of == fold)] = missing[0]
        rest = drawn_from & (fold_of != fold)
        anew = _draw.uniform(hashes, f"{seed} {fold}")
        if len(missing) == 2:
            side_of[rest & (anew < _draw.upper_end(anew[rest], 0.0, validation))] = "validation"
        _draw.fill_empty_sides(side_of, anew, photos, rest)
        share = 1 / n_folds
        shares = (validation, share, seed) if missing[0] == "test" else (share, 0.0, seed)
        parts.append(_draw.splits_of(photos, side_of, together, shares))
    return tuple(parts)


def _dealt(
    photos: Photos,
    together: npt.NDArray[np.int64],
    u: npt.NDArray[np.float64],
    drawn_from: npt.NDArray[np.bool_],
    n_folds: int,
) -> npt.NDArray[np.int64]:
    """Each photo's fold: class by class in the order of u, a group all at once."""
    fold_of = np.full(len(photos), -1)
    dealt: dict[int, int] = {}
    for label in range(photos.n_classes):
        members = np.flatnonzero((photos.labels == label) & drawn_from)
        groups = list(dict.fromkeys(together[members[np.argsort(u[members])]].tolist()))
        if len(groups) < n_folds + 1:
            raise TooFewPhotosError(
                f"Class {photos.class_names[label]!r} needs at least {n_folds + 1} different "
                f"photos for {n_folds} folds. Received: {len(groups)} in {str(photos.folder)!r}. "
                "Add photos of this class, remove its folder, or ask for fewer folds."
            )
        fresh = [group for group in groups if group not in dealt]
        # Smaller classes go on where the last one stopped, or fold 0 would get all the odd ones.
        start = len(dealt)
        dealt.update({group: (start + k) % n_folds for k, group in enumerate(fresh)})
        fold_of[members] = [dealt[group] for group in together[members].tolist()]
    return fold_of
