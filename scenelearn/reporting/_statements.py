"""Sentences about a fit, for its page and its model card.

Each function takes `name`, which makes a name from the disk safe for HTML or Markdown. All other
words are free of markup.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from scenelearn.classify._calibration import DEFAULT_COVERAGE
from scenelearn.reporting import _analysis as analysis
from scenelearn.reporting._html import count, duration, percent, percent_range

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult
    from scenelearn.metrics import ClassMetrics, Confusion, Evaluation, Interval, Slice

Name = Callable[[object], str]

_SUBJECT = {
    "fine-tuned": "The fine-tuned network",
    "linear probe": "The linear probe on the frozen backbone",
}
_TARGET_COVERAGE = f"{100 * DEFAULT_COVERAGE:.0f}%"
_OOD_LEVEL = "3%"  # the OOD p-value at which a photo is flagged
_MAX_SLICES = 2  # in the next steps; the table has all
_MAX_OOD_RATE = 0.05

MEMORY_KEYS = ("memory predicted", "memory measured")  # in a fit's environment
MEMORY_NOTE = (
    "Predicted: the peak memory that one training step (one prediction step if nothing was "
    "fine-tuned) adds to the process. Measured: the peak memory of the whole process, including "
    "Python, Keras and the photos."
)


def headline(fit: FitResult, name: Name, strong: str = "{}") -> str:
    """Accuracy and duration of the fit; `strong` is a template that marks the accuracy."""
    accuracy = fit.evaluation.accuracy
    subject = _SUBJECT.get(fit.kept, f"The {name(fit.kept)}")
    return (
        f"{subject} has an accuracy of {strong.format(percent(accuracy.value))} on "
        f"{count(fit.evaluation.n_photos, 'test photo')} (95% confidence "
        f"interval {percent_range(accuracy.low, accuracy.high)}). The fit took "
        f"{duration(fit.seconds)}."
    )


def confusion(confusion: Confusion, n_photos: int, name: Name) -> str:
    """How often one class was predicted as another; `n_photos` is the support of the first."""
    return (
        f"{name(confusion.label)} predicted as {name(confusion.predicted)}: "
        f"{confusion.n_photos:,} of {count(n_photos, 'test photo')} "
        f"({percent(confusion.fraction)})."
    )


def class_recall(metrics: ClassMetrics, name: Name) -> str:
    """The recall of a class."""
    return (
        f"{name(metrics.label)}: recall {with_interval(metrics.recall)} on "
        f"{count(metrics.n_photos, 'test photo')}."
    )


def slice_accuracy(slice_: Slice, name: Name) -> str:
    """The accuracy on a slice and on the rest."""
    return (
        f"{name(slice_.column)} {name(slice_.group)}: accuracy {with_interval(slice_.accuracy)} on "
        f"{count(slice_.accuracy.n, 'photo')}, {percent(slice_.rest_accuracy.value)} on the rest."
    )


def slices_summary(evaluation: Evaluation) -> str:
    """How many slices are significantly worse."""
    n_worse = sum(slice_.is_worse for slice_ in evaluation.slices)
    if not evaluation.slices:
        return "No slices were evaluated."
    n_slices = count(len(evaluation.slices), "slice")
    if not n_worse:
        return f"None of {n_slices} is significantly worse than the rest."
    return (
        f"{n_worse} of {n_slices} {'is' if n_worse == 1 else 'are'} significantly worse than "
        "the rest."
    )


def confidence(evaluation: Evaluation) -> str:
    """Mean confidence next to accuracy."""
    return (
        f"The mean confidence is {percent(analysis.mean_confidence(evaluation))}, the accuracy "
        f"{percent(evaluation.accuracy.value)}."
    )


def calibration(evaluation: Evaluation) -> str:
    """Whether the probabilities are calibrated."""
    error = evaluation.calibration_error
    verdict = (
        "so the probabilities are not significantly miscalibrated."
        if error <= analysis.calibration_limit(evaluation)
        else f"so the probabilities are significantly {_bias(evaluation)}."
    )
    return (
        f"{confidence(evaluation)} The expected calibration error is {percent(error)}. Perfectly "
        "calibrated predictions would have an error of "
        f"{percent(evaluation.calibration_noise_floor)} on this many photos by chance, {verdict}"
    )


def uncertainty(fit: FitResult) -> list[str]:
    """Prediction sets, abstaining and out-of-distribution photos."""
    selective = fit.evaluation.selective
    if selective is None:
        return ["Prediction sets and abstaining were not evaluated."]
    answers = (
        f"The classifier answers on {with_interval(selective.answer_rate)} of the photos, with an "
        f"accuracy of {with_interval(selective.selective_accuracy)}. On the others it abstains."
        if selective.selective_accuracy.n
        else "The classifier abstains on every test photo."
    )
    return [
        f"Prediction sets for a coverage of {_TARGET_COVERAGE} contain the true class for "
        f"{with_interval(selective.coverage)} of the photos. The mean set size is "
        f"{selective.mean_set_size:.2f}.",
        answers,
        f"{with_interval(selective.ood_rate)} of the test photos are flagged as out of "
        f"distribution. By design, about {_OOD_LEVEL} of in-distribution photos are.",
    ]


def with_interval(interval: Interval) -> str:
    """A fraction with its interval, as ``90.3% (86.4 to 93.2%)``."""
    if not interval.n:
        return "none"
    return f"{percent(interval.value)} ({percent_range(interval.low, interval.high)})"


def next_steps(fit: FitResult, name: Name) -> list[str]:
    """What to do next, each step derived from a metric, the most urgent first."""
    evaluation = fit.evaluation
    baseline = analysis.majority_class(evaluation).n_photos / evaluation.n_photos
    if evaluation.accuracy.low <= baseline:
        return [
            "The accuracy is not significantly above the majority-class baseline. Check that each "
            "photo is in the folder of its class, then fit with more photos or more minutes.",
            *_more_test_photos(evaluation),
        ]
    steps = [*_weakest_class(fit, name), *_worse_slices(evaluation, name)]
    n_validation = len(fit.splits.validation)
    if evaluation.calibration_error > analysis.calibration_limit(evaluation):
        steps.append(
            f"The probabilities are {_bias(evaluation)}. More than {n_validation:,} validation "
            "photos would calibrate them better. Until then, do not rely on probability thresholds."
        )
    selective = evaluation.selective
    limit = analysis.coverage_limit(DEFAULT_COVERAGE, n_validation, evaluation.n_photos)
    if selective and selective.coverage < limit:
        steps.append(
            "The coverage of the prediction sets is significantly below its target of "
            f"{_TARGET_COVERAGE}. Check that validation and test photos come from the same "
            "distribution."
        )
    if selective and selective.ood_rate.low > _MAX_OOD_RATE:
        steps.append(
            f"{percent(selective.ood_rate.value)} of the test photos are flagged as out of "
            "distribution. Add similar training photos."
        )
    if selective and selective.answer_rate < 1:
        steps.append(
            f"Have a person review the {percent(1 - selective.answer_rate.value)} of photos on "
            "which the classifier abstains."
        )
    return steps + _more_test_photos(evaluation)


def kept(fit: FitResult) -> str:
    """Which network was kept."""
    if not 0 < fit.interpolation < 1:
        return fit.kept
    return f"{fit.kept}, interpolated with the linear probe (coefficient {fit.interpolation:g})"


def _bias(evaluation: Evaluation) -> str:
    over = analysis.mean_confidence(evaluation) > evaluation.accuracy.value
    return "overconfident" if over else "underconfident"


def _weakest_class(fit: FitResult, name: Name) -> list[str]:
    weakest = analysis.weakest_classes(fit.evaluation)
    if not weakest:
        return ["No test photo is misclassified. Only more or harder photos can reveal weaknesses."]
    photos, metrics = fit.splits.photos, weakest[0]
    label = photos.class_names.index(metrics.label)
    n_train = int((photos.labels[fit.splits.train] == label).sum())
    confusions = fit.evaluation.most_confused()
    predicted = next(c.predicted for c in confusions if c.label == metrics.label)
    return [
        f"Start with {name(metrics.label)}, which has the lowest recall "
        f"({percent(metrics.recall.value)}) and {count(n_train, 'training photo')}. Look for label "
        f"issues among the photos predicted as {name(predicted)}, then add photos of this class."
    ]


def _worse_slices(evaluation: Evaluation, name: Name) -> list[str]:
    worse = [slice_ for slice_ in evaluation.slices if slice_.is_worse][:_MAX_SLICES]
    if not worse:
        return []
    slices = " and ".join(f"{name(slice_.column)} {name(slice_.group)}" for slice_ in worse)
    return [f"Add training photos with {slices}, where the accuracy is significantly worse."]


def _more_test_photos(evaluation: Evaluation) -> list[str]:
    width = evaluation.accuracy.high - evaluation.accuracy.low
    if width <= analysis.MAX_WIDTH:
        return []
    needed = analysis.photos_needed(evaluation.accuracy.value)
    return [
        f"The confidence interval is {100 * width:.1f} points wide. About {needed:,} test photos "
        f"instead of {evaluation.n_photos:,} would narrow it to {100 * analysis.MAX_WIDTH:.0f}."
    ]
