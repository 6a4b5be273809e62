"""What the numbers of a fit say: the facts that the page puts into words. No HTML here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scenelearn.evaluate import ClassScore, Evaluation, wilson

if TYPE_CHECKING:
    from scenelearn.data import Refused
    from scenelearn.finetune import FitResult

WIDE = 0.05  # an interval broader than five points asks for more test photos


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """How often one class is taken for one other: `n` photos, a `share` of the true class."""

    true: str
    predicted: str
    n: int
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One test photo that was given the wrong class, and the two probabilities."""

    index: int
    true: str
    predicted: str
    probability: float
    true_probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedGroup:
    """The files refused for one reason: all of them counted, some of them listed."""

    reason: str
    n: int
    listed: tuple[Refused, ...]


def chance(evaluation: Evaluation) -> ClassScore:
    """The largest class of the photos judged: always answering it would be right so often."""
    return max(evaluation.per_class, key=lambda score: score.n_photos)


def weakest(evaluation: Evaluation) -> ClassScore | None:
    """The class with the lowest recall; None where every photo is recognised."""
    judged = [score for score in evaluation.per_class if score.n_photos]
    lowest = min(judged, key=lambda score: score.recall.value)
    return lowest if lowest.recall.value < 1 else None


def main_confusion(evaluation: Evaluation) -> Confusion | None:
    """The pair of classes mistaken most often; None where there is no mistake."""
    counts = np.array(evaluation.confusion)
    np.fill_diagonal(counts, 0)
    true, predicted = np.unravel_index(int(counts.argmax()), counts.shape)
    n = int(counts[true, predicted])
    if not n:
        return None
    return Confusion(
        true=evaluation.class_names[true],
        predicted=evaluation.class_names[predicted],
        n=n,
        share=n / evaluation.per_class[true].n_photos,
    )


def photos_needed(share: float) -> int:
    """So many test photos, rounded up to two digits, make the interval as narrow as `WIDE`.

    The smallest n whose Wilson interval around the same proportion is no wider.

    Example:
        >>> photos_needed(0.9)
        560
    """
    low, high = 1, 4096  # the widest case, a share of one half, needs 1,533
    while low < high:
        n = (low + high) // 2
        interval = wilson(round(share * n), n)
        low, high = (low, n) if interval.high - interval.low <= WIDE else (n + 1, high)
    unit = 1 if low < 100 else 10 if low < 1000 else 100
    return unit * math.ceil(low / unit)


def mistakes(fit: FitResult) -> list[Mistake]:
    """Every mistaken test photo, the most confident mistake first."""
    photos = fit.splits.photos
    table = np.asarray(fit.test_probabilities)
    truth = photos.labels[fit.test_indices]
    predicted = table.argmax(axis=1)
    wrong = np.flatnonzero(predicted != truth)
    order = wrong[np.argsort(-table[wrong, predicted[wrong]], kind="stable")]
    return [
        Mistake(
            index=int(fit.test_indices[row]),
            true=photos.class_names[truth[row]],
            predicted=photos.class_names[predicted[row]],
            probability=float(table[row, predicted[row]]),
            true_probability=float(table[row, truth[row]]),
        )
        for row in order
    ]


def refused_groups(refused: Sequence[Refused], limit: int) -> list[RefusedGroup]:
    """The refused files by reason, the most frequent first, with at most `limit` of them listed.

    The rare reasons are listed first: ten thousand system files do not hide the one damaged photo.
    """
    by_reason: dict[str, list[Refused]] = defaultdict(list)
    for refusal in refused:
        by_reason[refusal.reason.value].append(refusal)
    groups = []
    left = limit
    rarest_first = sorted(by_reason.items(), key=lambda item: (len(item[1]), item[0]))
    for done, (reason, files) in enumerate(rarest_first):
        listed = files[: left // (len(rarest_first) - done)]
        left -= len(listed)
        groups.append(RefusedGroup(reason=reason, n=len(files), listed=tuple(listed)))
    return groups[::-1]
