"""How strong the head's penalty should be: asked of the training photos, by cross-validation.

The validation photos would not know better. On the Intel photos (MobileNetV2-0.35 at 160 px), for
heads from 25, 100 and 500 photos a class, mean cross-entropy on photos that had no part in it, with
the strength chosen by cross-validation: 0.441, 0.356, 0.306; by a validation side of the usual
share: 0.444, 0.358, 0.310; by the sum of both: 0.438, 0.356, 0.306; with the best strength there
is: 0.437, 0.354, 0.305.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scenelearn.errors import WeightsFileError
from scenelearn.finetune._descent import Floats
from scenelearn.finetune._head import Head, head_in
from scenelearn.finetune._solver import held_out, solve_all, space_of

# From strong to weak; the valley is looked at more finely once it is found.
_PATH = tuple(10.0 ** (1 - k / 2) for k in range(11))
_FOLDS = 5
_HELD_OUT = 2000  # photos, held out once, that say enough about a strength
_USUAL = 0.1  # where nothing can be held out
_TOLERANCE = 3e-5  # nats; neighbors on the path differ by hundreds of that


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """A head, and what its strength was chosen by.

    Attributes:
        head: solved on all photos.
        tried: (strength, mean cross-entropy of held-out photos in nats), from strong to weak;
            empty where no photo could be held out.
        held_out_accuracy: share of held-out photos that are classified correctly with the chosen
            strength; NaN where none could be held out.
    """

    head: Head
    tried: tuple[tuple[float, float], ...]
    held_out_accuracy: float


def choose(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    n_classes: int,
    *,
    groups: npt.NDArray[np.int64] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Choice:
    """Choose the strength of the penalty by stratified five-fold cross-validation, and solve.

    Class by class, the groups are dealt out to five folds. For weaker and weaker penalties a head
    is solved without each fold and judged on it, until the mean cross-entropy rises; then also at
    the strengths half-way to the neighbors of the best one. Other photos, such as those that
    validate, have no part in the choice, so that they can judge it.

    A class of one group is never held out, and one of two to four is in as many folds. Folds
    share the scaling of the features, and only as many are solved as hold 2,000 groups out
    together.

    Args:
        features: (n, n_features) float32.
        labels: (n,) integers in [0, n_classes).
        n_classes: how many classes.
        groups: (n,), equal for rows that must be held out together: a photo and its mirrored
            copy, near copies. None for each row by itself.
        progress: called with (penalties tried, penalties in all at most).

    Returns:
        The head of the strength with the lowest cross-entropy on held-out photos.

    Raises:
        WeightsFileError: if features are not finite, as from a damaged weights file.

    Example:
        >>> x = np.array([[-1.0], [1.0]] * 10, np.float32)
        >>> choose(x, np.array([0, 1] * 10, np.int32), 2).held_out_accuracy
        1.0
    """
    if not np.isfinite(features).all():
        raise WeightsFileError(
            "The backbone's features must be finite numbers. Received: NaN or infinity. The "
            "weights file is damaged or of another network: get it again."
        )
    space = space_of(features)
    fold_of = deal(labels, np.arange(len(labels)) if groups is None else groups)
    if not (fold_of >= 0).any():
        head = head_in(space, labels, n_classes, _USUAL)
        return Choice(head=head, tried=(), held_out_accuracy=math.nan)
    weights = np.stack([fold_of != fold for fold in np.unique(fold_of[fold_of >= 0])], axis=1)
    weights = (weights / weights.sum(axis=0)).astype(np.float32)
    heads = np.zeros((space.table.shape[1], weights.shape[1], n_classes))
    found: dict[float, tuple[float, float, Floats]] = {}

    def attempt(strength: float, start: Floats) -> float:
        x = solve_all(space, labels, weights, strength, start, tolerance=_TOLERANCE)
        losses, right = held_out(space.table, labels, x, fold_of)
        found[strength] = float(losses.mean()), float(right.mean()), x
        if progress:
            progress(len(found), len(_PATH) + 2)
        return found[strength][0]

    least = math.inf
    for strength in _PATH:
        loss = attempt(strength, heads)
        heads = found[strength][2]
        if loss > least:
            break
        least = loss
    best = min(found, key=lambda one: found[one][0])
    for strength in (best * 10**0.25, best / 10**0.25):
        attempt(strength, found[best][2])
    best = min(found, key=lambda one: found[one][0])
    if progress:
        progress(len(_PATH) + 2, len(_PATH) + 2)
    return Choice(
        head=head_in(space, labels, n_classes, best, found[best][2].mean(axis=1)),
        tried=tuple((one, found[one][0]) for one in sorted(found, reverse=True)),
        held_out_accuracy=found[best][1],
    )


def deal(labels: npt.NDArray[np.int32], groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Deal groups out to folds, so that no class is missing where a fold is left out.

    Args:
        labels: (n,) integers.
        groups: (n,), equal for rows that stay together.

    Returns:
        (n,), the fold of each row, in [0, 5); −1 for those that are never held out.

    Example:
        >>> deal(np.array([0, 0, 0, 0, 1], np.int32), np.array([7, 7, 8, 9, 4])).tolist()
        [1, 1, 2, 0, -1]
    """
    random = np.random.default_rng(0)
    _, group_of = np.unique(groups, return_inverse=True)
    fold_of = np.full(group_of.max(initial=-1) + 1, -2)
    n_dealt = 0
    for label in np.unique(labels):
        mine = np.unique(group_of[labels == label])
        fresh = random.permutation(mine[fold_of[mine] == -2])
        fold_of[fresh] = (n_dealt + np.arange(len(fresh))) % _FOLDS
        n_dealt += len(fresh)
        if len(np.unique(fold_of[mine])) == 1:
            fold_of[mine] = -1
    held = fold_of >= 0
    n_solved = math.ceil(_HELD_OUT * _FOLDS / max(held.sum(), 1))
    fold_of[fold_of >= n_solved] = -1
    _, found = np.unique(np.append(fold_of[group_of], -1), return_inverse=True)
    return found[:-1].astype(np.int64) - 1  # without gaps between the folds
