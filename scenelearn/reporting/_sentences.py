"""What a fit reached, where it fails and what to do next, in sentences for page and model card.

Every function takes `name`, which makes a name from the disk safe for where the sentence goes;
all other words hold nothing that is markup in HTML or Markdown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from scenelearn.classify import COVERAGE
from scenelearn.reporting import _findings as findings
from scenelearn.reporting._markup import count, duration, percent, span

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult
    from scenelearn.metrics import ClassScore, Evaluation, Interval, Slice

Name = Callable[[object], str]

_SUBJECT = {
    "fine-tuned": "The fine-tuned network",
    "solved head": "The solved head on the unchanged backbone",
}
_PROMISED = f"{100 * COVERAGE:.0f}\N{NO-BREAK SPACE}%"
_BY_DESIGN = "3\N{NO-BREAK SPACE}%"  # the typicality at which a photo is flagged
_MOST_SLICES = 2  # named as a next step; the table has all
_FLAGGED = 0.05  # more photos than this flagged are more than a few odd ones

MEMORY_FACTS = ("memory predicted", "memory measured")  # in a fit's environment
MEMORY = (
    "Predicted: by how much one step (of training, or of prediction where nothing was fine-tuned) "
    "raises the memory of the process, at the most. Measured: the most that the whole process "
    "held, Python, Keras and the photos included."
)


def reached(fit: FitResult, name: Name, strong: str = "{}") -> str:
    """The one sentence that counts; `strong` is a template that marks the figure in it."""
    accuracy = fit.evaluation.accuracy
    subject = _SUBJECT.get(fit.kept, f"The {name(fit.kept)}")
    return (
        f"{subject} recognizes {strong.format(percent(accuracy.value))} of "
        f"{count(fit.evaluation.n_photos, 'test photo')} (95\N{NO-BREAK SPACE}% interval "
        f"{span(accuracy.low, accuracy.high)}) after a fit of {duration(fit.seconds)}."
    )


def confusion(one: findings.Confusion, name: Name) -> str:
    """How often one class was taken for another."""
    return (
        f"{name(one.true)} taken for {name(one.predicted)}: {one.n:,} of its "
        f"{count(one.n_true, 'test photo')} ({percent(one.n / one.n_true)})."
    )


def weak_class(score: ClassScore, name: Name) -> str:
    """The recall of a class."""
    return (
        f"Of {name(score.name)}, {measured(score.recall)} of "
        f"{count(score.n_photos, 'test photo')} recognized."
    )


def worse(one: Slice, name: Name) -> str:
    """A group of photos that does significantly worse."""
    return (
        f"Photos with {name(one.column)} {name(one.group)}: {measured(one.accuracy)} of "
        f"{count(one.accuracy.n, 'photo')} right, of the rest {percent(one.rest.value)}."
    )


def groups(evaluation: Evaluation) -> str:
    """What the look at groups of photos came to, in all."""
    n_worse = sum(one.is_worse for one in evaluation.slices)
    if not evaluation.slices:
        return "No groups of photos were looked at."
    looked = f"Of {count(len(evaluation.slices), 'group')} of photos that were looked at"
    if not n_worse:
        return f"{looked}, none does significantly worse than the rest."
    return f"{looked}, {n_worse} {'does' if n_worse == 1 else 'do'} significantly worse."


def calibration(evaluation: Evaluation) -> str:
    """Whether the probabilities mean what they say."""
    sure, right = findings.mean_confidence(evaluation), evaluation.accuracy.value
    error = evaluation.calibration_error
    verdict = (
        "no more than chance explains."
        if error <= findings.calibration_limit(evaluation)
        else f"more than chance explains: the probabilities are too {_bias(sure, right)}."
    )
    return (
        f"Answers are on average {percent(sure)} sure, and {percent(right)} are right. Taken in "
        f"groups of about equal confidence, the two differ by {percent(error)} on average (the "
        "expected calibration error). Answers that mean exactly what they say would show "
        f"{percent(evaluation.calibration_floor)} on so many photos, so this is {verdict}"
    )


def trust(fit: FitResult) -> list[str]:
    """How far to trust single answers: sets, abstaining, photos of other things."""
    score = fit.evaluation.trust
    if score is None:
        return ["Prediction sets and abstaining were not measured."]
    answers = (
        f"It gives one single answer to {measured(score.answered)} of the photos, of which "
        f"{measured(score.accuracy_answered)} are right; on the others it abstains."
        if score.accuracy_answered.n
        else "It gives no single answer: on every test photo it abstains."
    )
    return [
        f"Its sets of classes, made to hold the true class of {_PROMISED} of photos, hold that "
        f"of {measured(score.coverage)}, with {score.mean_set_size:.2f} classes in a set.",
        answers,
        f"It flags {measured(score.unlike)} of the test photos as unlike the training photos; "
        f"by design about {_BY_DESIGN} of photos of the same kind are.",
    ]


def measured(interval: Interval) -> str:
    """A share with its interval, as ``90.3 % (86.4 to 93.2 %)``."""
    if not interval.n:
        return "none"
    return f"{percent(interval.value)} ({span(interval.low, interval.high)})"


def next_steps(fit: FitResult, name: Name) -> list[str]:
    """What to do next: one to a few sentences, each from a number, the most urgent first."""
    judged = fit.evaluation
    largest = findings.chance(judged)
    if judged.accuracy.low <= largest.n_photos / judged.n_photos:
        return [
            "This is not distinguishable from chance: check that each photo lies in its own "
            "class's folder, then give the fit more photos or more minutes.",
            *_wider_test(judged),
        ]
    steps = [*_weakness(fit, name), *_groups_to_add(judged, name)]
    if judged.calibration_error > findings.calibration_limit(judged):
        too = _bias(findings.mean_confidence(judged), judged.accuracy.value)
        n_validation = len(fit.splits.validation)
        steps.append(
            f"Its probabilities are too {too}: more validation photos than "
            f"{n_validation:,} calibrate them better; until then do not set a threshold by them."
        )
    score = judged.trust
    limit = findings.coverage_limit(COVERAGE, len(fit.splits.validation), judged.n_photos)
    if score and score.coverage.value < limit:
        steps.append(
            f"The sets hold the true class more rarely than the {_PROMISED} they were made "
            "for, and than chance explains: see that validation and test photos are of one kind."
        )
    if score and score.unlike.low > _FLAGGED:
        steps.append(
            f"Of the test photos {percent(score.unlike.value)} are flagged as unlike the training "
            "photos: add training photos of their kind."
        )
    if score and score.answered.value < 1:
        steps.append(
            f"Have a person look at the {percent(1 - score.answered.value)} of photos on which it "
            "abstains."
        )
    return steps + _wider_test(judged)


def _bias(sure: float, right: float) -> str:
    return "sure" if sure > right else "modest"


def _weakness(fit: FitResult, name: Name) -> list[str]:
    weak = findings.weak_classes(fit.evaluation)
    if not weak:
        return ["No test photo was mistaken: only harder or more test photos can show a weakness."]
    photos = fit.splits.photos
    label = photos.class_names.index(weak[0].name)
    trained = int((photos.labels[fit.splits.train] == label).sum())
    most = next(one for one in findings.confusions(fit.evaluation) if one.row == label)
    return [
        f"Begin with {name(weak[0].name)}, which has the lowest recall "
        f"({percent(weak[0].recall.value)}) and {count(trained, 'training photo')}: look for wrong "
        f"labels among those taken for {name(most.predicted)}, then add photos of it."
    ]


def _groups_to_add(judged: Evaluation, name: Name) -> list[str]:
    found = [one for one in judged.slices if one.is_worse][:_MOST_SLICES]
    if not found:
        return []
    kinds = " and ".join(f"{name(one.column)} {name(one.group)}" for one in found)
    return [f"Add training photos with {kinds}, where it does significantly worse."]


def _wider_test(judged: Evaluation) -> list[str]:
    width = judged.accuracy.high - judged.accuracy.low
    if width <= findings.WIDE:
        return []
    needed = findings.photos_needed(judged.accuracy.value)
    return [
        f"The interval is {100 * width:.1f} points wide; about {needed:,} test photos, "
        f"instead of {judged.n_photos:,}, would narrow it to {100 * findings.WIDE:.0f}."
    ]


def kept(fit: FitResult) -> str:
    """Which network was kept."""
    if not 0 < fit.share < 1:
        return fit.kept
    way = {0.25: "a quarter of the way", 0.5: "half-way", 0.75: "three quarters of the way"}
    return f"{fit.kept}, {way.get(fit.share, f'{fit.share:g} of the way')} from the solved head"
