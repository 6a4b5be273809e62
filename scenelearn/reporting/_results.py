"""What the fit reached, part by part: the training, the classes, the groups."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scenelearn.reporting import _figures as figures
from scenelearn.reporting import _sentences as sentences
from scenelearn.reporting._markup import (
    NONE,
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

_MOST_GROUPS = 40  # on the page; all are in result.json


def training(fit: FitResult) -> str:
    """Validation accuracy and losses by epoch; without fine-tuning, a sentence instead."""
    history = fit.history
    if len(history) < 2:
        why = "".join(f": {text(p.note)}" for p in fit.phases if p.name == "fine-tuning" and p.note)
        reached = "".join(
            f" The solved head reached {percent(epoch.validation_accuracy)} of the validation "
            f"photos, with a loss of {number(epoch.validation_loss)}."
            for epoch in history
        )
        return section("training", "Training", f"<p>No fine-tuning ran{why}.{reached}</p>")
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
        f"<p>Of the solved head, the fine-tuned network and those between, what was kept: "
        f"<strong>{text(sentences.kept(fit))}</strong>.</p>"
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
        "<p>Recall: of the photos of this class, the share that was recognized. Precision: of the "
        "photos said to be this class, the share that is. The bars run from 0 to "
        "100\N{NO-BREAK SPACE}%.</p>"
    )
    return section("classes", "Class by class", intro + table("Classes", columns, rows, "lnnnnn"))


def groups(fit: FitResult) -> str:
    """One row a group of photos that was looked at, the worst first."""
    judged = fit.evaluation
    title, told = "Groups of photos", sentences.groups(judged)
    if not judged.slices:
        return section("groups", title, f"<p>{told}</p>")
    rows = [
        (
            f"{name(one.column)} {name(one.group)}"
            + ('<span class="rare">significantly worse</span>' if one.is_worse else ""),
            f"{one.accuracy.n:,}",
            percent(one.accuracy.value) + figures.interval_bar(one.accuracy),
            span(one.accuracy.low, one.accuracy.high),
            percent(one.rest.value),
            f"{one.corrected:.2g}",
        )
        for one in judged.slices[:_MOST_GROUPS]
    ]
    rest = len(judged.slices) - len(rows)
    more = f" The other {rest:,} are in <code>result.json</code>." if rest else ""
    intro = (
        f"<p>{told} The p-value is the chance that so low an accuracy comes by chance alone "
        "(Fisher's exact test), corrected for the number of groups looked at (Holm); below 0.05 "
        f"it counts as worse.{more}</p>"
    )
    columns = ("group", "test photos", "right", "95 % interval", "the rest", "p-value")
    return section("groups", title, intro + table("Every group", columns, rows, "lnnnnn"))
