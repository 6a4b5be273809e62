"""What the fit reached, part by part: the answer, the training, the confusions, the classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scenelearn.reporting import _figures as figures
from scenelearn.reporting import _findings as findings
from scenelearn.reporting._markup import (
    NONE,
    count,
    duration,
    figure,
    name,
    number,
    percent,
    section,
    span,
    table,
    text,
)

if TYPE_CHECKING:
    from scenelearn.finetune import Epoch, FitResult

_SUBJECT = {
    "fine-tuned": "The fine-tuned network",
    "solved head": "The solved head on the unchanged backbone",
}


def answer(fit: FitResult) -> str:
    """What was reached, in one sentence, on one scale and as facts; then what to do next."""
    judged = fit.evaluation
    accuracy = judged.accuracy
    largest = findings.chance(judged)
    chance = largest.n_photos / judged.n_photos
    subject = _SUBJECT.get(fit.kept, f"The {text(fit.kept)}")
    lead = (
        f'<p class="lead">{subject} recognises <strong>{percent(accuracy.value)}</strong> of '
        f"{count(judged.n_photos, 'test photo')} (95\N{NO-BREAK SPACE}% interval "
        f"{span(accuracy.low, accuracy.high)}) after a fit of {duration(fit.seconds)}.</p>"
    )
    scale = figure(
        figures.ruler(accuracy, chance),
        "The band is the 95\N{NO-BREAK SPACE}% interval of the accuracy. The chance level is "
        f"what always answering {name(largest.name)}, the test photos' largest class, would reach.",
    )
    weakest, confusion = findings.weakest(judged), findings.main_confusion(judged)
    n_wrong = judged.n_photos - sum(row[k] for k, row in enumerate(judged.confusion))
    facts = (
        (
            "Weakest class",
            f"{name(weakest.name)}, recall {percent(weakest.recall.value)}" if weakest else NONE,
        ),
        (
            "Most frequent confusion",
            f"{name(confusion.true)} taken for {name(confusion.predicted)}, "
            f"{count(confusion.n, 'time')}"
            if confusion
            else NONE,
        ),
        ("Mistaken photos", f"{n_wrong:,} of {judged.n_photos:,}"),
        ("Validation accuracy", percent(fit.validation.accuracy.value)),
        ("Chance level", percent(chance)),
        ("Mean recall of the classes", percent(judged.balanced_accuracy.value)),
        ("Calibration error", percent(judged.calibration_error)),
        ("Log loss", number(judged.log_loss)),
    )
    tiles = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in facts)
    advice = f"<p>{_next_step(fit, chance)}</p>"
    return (
        f'{lead}{scale}<dl class="facts">{tiles}</dl>'
        f'<div class="next"><h2>What to do next</h2>{advice}</div>'
    )


def _next_step(fit: FitResult, chance: float) -> str:
    """One or two sentences that follow from the numbers, as HTML."""
    judged = fit.evaluation
    weakest, confusion = findings.weakest(judged), findings.main_confusion(judged)
    if judged.accuracy.low <= chance:
        first = (
            "This is not distinguishable from chance: check that each photo lies in its own "
            "class's folder, then give the fit more photos or more minutes."
        )
    elif weakest is None or confusion is None:
        first = "No test photo was mistaken: only harder or more test photos can show a weakness."
    else:
        label = fit.splits.photos.class_names.index(weakest.name)
        trained = int((fit.splits.photos.labels[fit.splits.train] == label).sum())
        first = (
            f"Begin with {name(weakest.name)}, which has the lowest recall "
            f"({percent(weakest.recall.value)}) and {count(trained, 'training photo')}: look below "
            "for wrong labels among its mistakes, then add photos of it."
        )
    width = judged.accuracy.high - judged.accuracy.low
    if width <= findings.WIDE:
        return first
    needed = findings.photos_needed(judged.accuracy.value)
    return (
        f"{first} The interval is {100 * width:.1f} points wide; about {needed:,} test photos, "
        f"instead of {judged.n_photos:,}, would narrow it to {100 * findings.WIDE:.0f}."
    )


def training(fit: FitResult) -> str:
    """Validation accuracy and losses by epoch; without fine-tuning, a sentence instead."""
    history = fit.history
    if len(history) < 2:
        why = (
            "none was asked for (<code>epochs=0</code>)"
            if fit.settings.epochs == 0
            else f"the budget of {duration(60 * fit.settings.minutes)} left no time for an epoch"
        )
        reached = "".join(
            f" The solved head reached {percent(epoch.validation_accuracy)} of the validation "
            f"photos, with a loss of {number(epoch.validation_loss)}."
            for epoch in history
        )
        return section("training", "Training", f"<p>No fine-tuning ran: {why}.{reached}</p>")
    accuracy = [
        figures.Line(
            name="validation", look="a", values=[epoch.validation_accuracy for epoch in history]
        )
    ]
    losses = [
        figures.Line(
            name="validation", look="a", values=[epoch.validation_loss for epoch in history]
        ),
        figures.Line(name="training", look="b", values=[epoch.train_loss for epoch in history]),
    ]
    drawn = []
    if _any_finite(accuracy):
        drawn.append(
            figures.curves(
                "Validation accuracy",
                accuracy,
                lambda v: f"{100 * v:.3g}\N{NO-BREAK SPACE}%",
                from_zero=False,
                step=0.005,
            )
        )
    if _any_finite(losses):
        drawn.append(
            figures.curves("Loss, in nats", losses, lambda v: f"{v:.3g}", from_zero=True, step=0.01)
        )
    caption = (
        "Epoch 0 is the solved head before any fine-tuning. The training loss is measured on "
        "augmented photos while the network still changes, so it may lie above the validation loss."
    )
    numbers = table(
        "Every epoch",
        (
            "epoch",
            "training loss",
            "validation loss",
            "validation accuracy",
            "learning rate",
            "time",
        ),
        [_epoch_row(epoch) for epoch in history],
        "lnnnnn",
    )
    body = (
        f"<p>Of the solved head and the fine-tuned network, validation chose: "
        f"<strong>{text(fit.kept)}</strong>.</p>"
        + figure(f'<div class="pair">{"".join(drawn)}</div>', caption)
        + f"<details><summary>The numbers of every epoch</summary>{numbers}</details>"
    )
    return section("training", "Training", body)


def _any_finite(lines: list[figures.Line]) -> bool:
    return any(math.isfinite(value) for line in lines for value in line.values)


def _epoch_row(epoch: Epoch) -> tuple[str, ...]:
    return (
        str(epoch.number),
        number(epoch.train_loss, 4),
        number(epoch.validation_loss, 4),
        percent(epoch.validation_accuracy),
        f"{epoch.learning_rate:.3g}" if epoch.number else NONE,
        duration(epoch.seconds),
    )


def confusions(fit: FitResult) -> str:
    """The confusion matrix with counts and row shares."""
    caption = (
        "Each row holds the test photos of one true class: how many were given each class, and "
        "which share of the row that is. Blue is right, orange is mistaken; the stronger, the "
        "larger the share."
    )
    body = figure(figures.confusion_table(fit.evaluation), caption)
    return section("confusion", "What is taken for what", body)


def classes(fit: FitResult) -> str:
    """One row a class: photos, recall with its interval, precision, F1."""
    rows = [
        (
            name(score.name),
            f"{score.n_photos:,}",
            percent(score.recall.value) + figures.interval_bar(score.recall),
            span(score.recall.low, score.recall.high) if score.n_photos else NONE,
            percent(score.precision.value),
            number(score.f1.value),
        )
        for score in fit.evaluation.per_class
    ]
    columns = ("class", "test photos", "recall", "95 % interval", "precision", "F1")
    intro = (
        "<p>Recall: of the photos of this class, the share that was recognised. Precision: of the "
        "photos said to be this class, the share that is. The bars run from 0 to "
        "100\N{NO-BREAK SPACE}%.</p>"
    )
    return section("classes", "Class by class", intro + table("Classes", columns, rows, "lnnnnn"))
