"""What the metrics of a fit imply: the facts that the templates put into words."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from scenelearn.data._splits import SPLIT_NAMES
from scenelearn.metrics import ClassMetrics, Evaluation, Interval, wilson

if TYPE_CHECKING:
    import numpy.typing as npt

    from scenelearn.data import Audit, Photos, Rejected
    from scenelearn.finetune import FitResult

T = TypeVar("T")

MAX_WIDTH = 0.05  # a wider interval of the accuracy asks for more test photos


class PredictedPhoto(NamedTuple):
    """A test photo: its position, its classes, and the probabilities of both."""

    position: int
    label: int
    predicted: int
    probability: float
    true_probability: float

    @property
    def is_correct(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.predicted == self.label


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedGroup:
    """The files rejected for one reason: their number, and the ones to list."""

    reason: str
    n: int
    listed: tuple[Rejected, ...]


class Duplicates(NamedTuple):
    """Groups of duplicates, by index; those in several splits, and with several labels."""

    groups: list[list[int]]
    leaks: list[list[int]]
    conflicting: list[list[int]]


def majority_class(evaluation: Evaluation) -> ClassMetrics:
    """The largest class; always predicting it is the baseline."""
    return max(evaluation.per_class, key=lambda metrics: metrics.n_photos)


def baseline(evaluation: Evaluation) -> float:
    """The accuracy of always predicting the largest class."""
    return majority_class(evaluation).n_photos / evaluation.n_photos


def leading_metric(evaluation: Evaluation) -> tuple[str, Interval, float]:
    """What the page leads with: a name, its value, and that of a classifier that saw no photo."""
    if evaluation.objective == "balanced_accuracy":
        n_classes = sum(metrics.n_photos > 0 for metrics in evaluation.per_class)
        return "balanced accuracy", evaluation.balanced_accuracy, 1 / n_classes
    return "accuracy", evaluation.accuracy, baseline(evaluation)


def weakest_classes(evaluation: Evaluation, *, rare: bool = True) -> list[ClassMetrics]:
    """The classes with misclassified photos, the lowest recall first, those too rare last.

    Args:
        evaluation: of a classifier.
        rare: whether to list those too rare.
    """
    rare_labels = {metrics.label for metrics in evaluation.rare_classes}
    classes = [
        metrics
        for metrics in evaluation.per_class
        if metrics.recall < 1 and (rare or metrics.label not in rare_labels)
    ]
    return sorted(classes, key=lambda metrics: (metrics.label in rare_labels, metrics.recall))


def mean_confidence(evaluation: Evaluation) -> float:
    """Mean probability of the predicted class, in [0, 1]."""
    total = sum(bin_.accuracy.n * bin_.confidence for bin_ in evaluation.reliability)
    return total / evaluation.n_photos


def is_miscalibrated(evaluation: Evaluation) -> bool:
    """Whether predictions are significantly miscalibrated."""
    return evaluation.calibration_error > calibration_limit(evaluation)


def calibration_limit(evaluation: Evaluation) -> float:
    """The calibration error above which predictions are significantly miscalibrated.

    The error of perfectly calibrated predictions is approximately a sum of absolute values of
    centered normal variables. Its mean is `calibration_noise_floor` and its variance is
    (1 − 2/π) Σ n c (1 − c) / N², summed over bins with n photos and mean confidence c. The limit is
    its 95th percentile.
    """
    variance = sum(
        bin_.accuracy.n * bin_.confidence * (1 - bin_.confidence) for bin_ in evaluation.reliability
    )
    deviation = math.sqrt((1 - 2 / math.pi) * variance) / evaluation.n_photos
    return evaluation.calibration_noise_floor + 1.645 * deviation


def coverage_limit(target: float, n_validation: int, n_test: int) -> float:
    """The coverage below which prediction sets significantly miss their target.

    The coverage of sets calibrated on n validation photos varies around the target p with a
    variance of p (1 − p) / (n + 2). Measuring it on m test photos adds p (1 − p) / m. The limit is
    1.96 standard deviations below p.

    Example:
        >>> round(coverage_limit(0.95, 27, 68), 3)
        0.855

    References:
        V. Vovk (2012), Conditional validity of inductive conformal predictors. ACML.
    """
    variance = target * (1 - target) * (1 / (n_validation + 2) + 1 / n_test)
    return target - 1.96 * math.sqrt(variance)


def photos_needed(accuracy: float) -> int:
    """The number of test photos that narrows the interval to `MAX_WIDTH`.

    The smallest n whose Wilson interval around the same accuracy is narrow enough, rounded up to
    two digits.

    Example:
        >>> photos_needed(0.9)
        560
    """
    low, high = 1, 4096  # the widest case, an accuracy of one half, needs 1,533
    while low < high:
        n = (low + high) // 2
        interval = wilson(round(accuracy * n), n)
        low, high = (low, n) if interval.high - interval.low <= MAX_WIDTH else (n + 1, high)
    unit = 1 if low < 100 else 10 if low < 1000 else 100
    return unit * math.ceil(low / unit)


def predicted_photos(
    photos: Photos,
    indices: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float32],
) -> list[PredictedPhoto]:
    """All test photos, what is odd first.

    Errors come by decreasing confidence, then correct predictions by increasing confidence.

    Args:
        photos: all photos.
        indices: (n,) positions of the test photos.
        probabilities: (n, n_classes), their predicted probabilities.
    """
    y_true, y_prob = photos.labels[indices], np.asarray(probabilities)
    predicted, confidence = y_prob.argmax(axis=1), y_prob.max(axis=1)
    true_probability = y_prob[np.arange(len(y_prob)), y_true]
    order = np.argsort(np.where(predicted == y_true, confidence, -confidence), kind="stable")
    columns = (indices, y_true, predicted, confidence, true_probability)
    rows = zip(*(np.asarray(column)[order].tolist() for column in columns), strict=True)
    return [PredictedPhoto(*row) for row in rows]


def misclassifications(predicted: Iterable[PredictedPhoto]) -> list[PredictedPhoto]:
    """The misclassified ones of `predicted_photos`, the most confident first."""
    return [photo for photo in predicted if not photo.is_correct]


def photos_by_cell(
    predicted: Iterable[PredictedPhoto],
) -> dict[tuple[int, int], list[PredictedPhoto]]:
    """The test photos in each cell (true class, predicted class) of the confusion matrix."""
    cells = defaultdict(list)
    for photo in predicted:
        cells[photo.label, photo.predicted].append(photo)
    return dict(cells)


def limit_cells(
    cells: dict[tuple[int, int], list[T]], limit: int, cell_limit: int
) -> dict[tuple[int, int], list[T]]:
    """Keep at most `cell_limit` photos per cell and at most `limit` in total.

    Cells off the diagonal come first, and those with more photos before those with fewer.

    Example:
        >>> limit_cells({(0, 0): [5, 6], (0, 1): [3], (1, 0): [7, 8, 9]}, limit=4, cell_limit=2)
        {(1, 0): [7, 8], (0, 1): [3], (0, 0): [5]}
    """

    def order(cell: tuple[int, int]) -> tuple[bool, int, tuple[int, int]]:
        return (cell[0] == cell[1], -len(cells[cell]), cell)

    kept = {}
    for cell in sorted(cells, key=order):
        if limit > 0:
            kept[cell] = cells[cell][: min(cell_limit, limit)]
            limit -= len(kept[cell])
    return kept


def group_rejected(rejected: Sequence[Rejected], limit: int = 200) -> list[RejectedGroup]:
    """Group rejected files by reason, the most frequent first, and list at most `limit` of them.

    Rare reasons are listed first, so that thousands of system files do not hide one damaged photo.
    """
    by_reason: dict[str, list[Rejected]] = defaultdict(list)
    for rejection in rejected:
        by_reason[rejection.reason.value].append(rejection)
    groups = []
    left = limit
    rarest_first = sorted(by_reason.items(), key=lambda item: (len(item[1]), item[0]))
    for done, (reason, files) in enumerate(rarest_first):
        listed = files[: left // (len(rarest_first) - done)]
        left -= len(listed)
        groups.append(RejectedGroup(reason=reason, n=len(files), listed=tuple(listed)))
    return groups[::-1]


def find_duplicates(fit: FitResult, audit: Audit | None) -> Duplicates:
    """The groups of an audit; without one, identical files."""
    photos = fit.splits.photos
    keys: Iterable[Hashable] = photos.hashes if audit is None else audit.groups.tolist()
    by_key = defaultdict(list)
    for index, key in enumerate(keys):
        by_key[key].append(index)
    groups = [group for group in by_key.values() if len(group) > 1]
    split_of = {int(k): name for name in SPLIT_NAMES for k in getattr(fit.splits, name)}
    return Duplicates(
        groups=groups,
        leaks=[g for g in groups if len({split_of[k] for k in g if k in split_of}) > 1],
        conflicting=[g for g in groups if len(set(photos.labels[g].tolist())) > 1],
    )


def reproduction_code(fit: FitResult) -> str:
    """Python code that runs the fit again. Strings from the disk are written by ``repr``."""
    settings = "".join(f"    {key}={value!r},\n" for key, value in fit.settings.to_json().items())
    fractions = f"validation={fit.splits.validation_fraction}, test={fit.splits.test_fraction}"
    return (
        "import scenelearn as sl\n\n"
        f"photos = sl.scan({str(fit.splits.photos.folder)!r}, 'report/split.csv')\n"
        f"splits = sl.split(photos, {fractions}, seed={fit.splits.seed})\n"
        f"fit = sl.fit(\n    splits,\n{settings})\n"
        'sl.report(fit, "report/")\n'
    )
