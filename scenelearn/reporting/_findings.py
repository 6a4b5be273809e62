"""What the numbers of a fit say: the facts that the page puts into words. No HTML here."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scenelearn.metrics import ClassScore, Evaluation, wilson

if TYPE_CHECKING:
    from scenelearn.data import Photos, Refused
    from scenelearn.finetune import FitResult

WIDE = 0.05  # an interval broader than five points asks for more test photos


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """How often one class is taken for one other.

    Attributes:
        row: place of the true class.
        column: place of the class it was taken for.
        true: name of the true class.
        predicted: name of the other.
        n: photos.
        n_true: photos of the true class.
        n_predicted: photos that were said to be of the other class.
    """

    row: int
    column: int
    true: str
    predicted: str
    n: int
    n_true: int
    n_predicted: int


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


def weak_classes(evaluation: Evaluation) -> list[ClassScore]:
    """The classes of which photos were mistaken, the lowest recall first."""
    missed = [score for score in evaluation.per_class if score.n_photos and score.recall.value < 1]
    return sorted(missed, key=lambda score: score.recall.value)


def confusions(evaluation: Evaluation) -> list[Confusion]:
    """Every pair of classes that was mistaken, the most frequent first."""
    names, scores = evaluation.class_names, evaluation.per_class
    found = [
        Confusion(
            row=row,
            column=column,
            true=names[row],
            predicted=names[column],
            n=n,
            n_true=scores[row].n_photos,
            n_predicted=scores[column].n_predicted,
        )
        for row, counts in enumerate(evaluation.confusion)
        for column, n in enumerate(counts)
        if n and row != column
    ]
    return sorted(found, key=lambda one: -one.n)


def mean_confidence(evaluation: Evaluation) -> float:
    """How sure the answers are on average, in [0, 1]."""
    sure = sum(one.accuracy.n * one.confidence for one in evaluation.reliability)
    return sure / evaluation.n_photos


def calibration_limit(evaluation: Evaluation) -> float:
    """A calibration error above this is more than chance explains.

    Answers that are right exactly as often as they say have an error of about a sum of absolute
    normal deviates, of mean `calibration_floor` and variance (1 − 2/π) Σ n c (1 − c) / N² over
    the bins of n photos with mean confidence c; 95 % of the time it is below this.
    """
    variance = sum(
        one.accuracy.n * one.confidence * (1 - one.confidence) for one in evaluation.reliability
    )
    deviation = math.sqrt((1 - 2 / math.pi) * variance) / evaluation.n_photos
    return evaluation.calibration_floor + 1.645 * deviation


def coverage_limit(promised: float, n_validation: int, n_test: int) -> float:
    """Prediction sets that cover less than this cover less than chance explains.

    Sets made with n validation photos cover a share of new photos that varies about what was
    promised, p, with a variance of p (1 − p) / (n + 2); measuring it on m test photos adds
    p (1 − p) / m. Two deviations below p is the limit.

    Example:
        >>> round(coverage_limit(0.95, 27, 68), 3)
        0.855

    References:
        V. Vovk (2012), Conditional validity of inductive conformal predictors. ACML.
    """
    variance = promised * (1 - promised) * (1 / (n_validation + 2) + 1 / n_test)
    return promised - 1.96 * math.sqrt(variance)


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


def photos_by_cell(fit: FitResult) -> dict[tuple[int, int], list[int]]:
    """The test photos of each cell (true class, predicted class), as rows of the result.

    Mistakes come the surest first, right answers the least sure first: what is odd comes first.
    """
    table = np.asarray(fit.test_probabilities)
    truth = fit.splits.photos.labels[fit.test_indices]
    predicted = table.argmax(axis=1)
    sure = table.max(axis=1)
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in np.argsort(np.where(predicted == truth, sure, -sure), kind="stable").tolist():
        cells[int(truth[row]), int(predicted[row])].append(row)
    return dict(cells)


def shown_by_cell(
    cells: dict[tuple[int, int], list[int]], most: int, each: int
) -> dict[tuple[int, int], list[int]]:
    """At most `each` photos of a cell and at most `most` in all.

    Mistaken cells go before right ones, those with more photos first.

    Example:
        >>> shown_by_cell({(0, 0): [5, 6], (0, 1): [3], (1, 0): [7, 8, 9]}, most=4, each=2)
        {(1, 0): [7, 8], (0, 1): [3], (0, 0): [5]}
    """

    def order(cell: tuple[int, int]) -> tuple[bool, int, tuple[int, int]]:
        return (cell[0] == cell[1], -len(cells[cell]), cell)

    shown = {}
    for cell in sorted(cells, key=order):
        if most > 0:
            shown[cell] = cells[cell][: min(each, most)]
            most -= len(shown[cell])
    return shown


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


def copies(photos: Photos) -> list[list[int]]:
    """Groups of photos whose files are the same byte for byte, those under two classes first."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, content in enumerate(photos.hashes):
        groups[content].append(index)
    found = [group for group in groups.values() if len(group) > 1]
    return sorted(found, key=lambda group: len(set(photos.labels[group].tolist())) < 2)


def recipe(fit: FitResult) -> str:
    """The lines of Python that run a fit again; whatever came from the disk went through repr."""
    settings = "".join(f"    {key}={value!r},\n" for key, value in fit.settings.to_json().items())
    shares = f"validation={fit.splits.validation_share}, test={fit.splits.test_share}"
    return (
        "import scenelearn as sl\n\n"
        f"photos = sl.scan({str(fit.splits.photos.folder)!r}, 'report/split.csv')\n"
        f"splits = sl.split(photos, {shares}, seed={fit.splits.seed})\n"
        f"fit = sl.fit(\n    splits,\n{settings})\n"
        'sl.report(fit, "report/")\n'
    )
