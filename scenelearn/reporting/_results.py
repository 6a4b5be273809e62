"""Training curves, per-class metrics and slices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scenelearn.reporting import _figures as figures
from scenelearn.reporting import _statements as statements
from scenelearn.reporting._html import (
    NONE,
    duration,
    escape,
    figure,
    name,
    number,
    percent,
    percent_range,
    section,
    table,
)

if TYPE_CHECKING:
    from scenelearn.finetune import Epoch, FitResult

_MAX_SLICES = 40  # on the page; all are in result.json


def training(fit: FitResult) -> str:
    """Validation accuracy and losses by epoch; a sentence if nothing was fine-tuned."""
    history = fit.history
    if len(history) < 2:
        reason = "".join(
            f": {escape(phase.note)}"
            for phase in fit.phases
            if phase.name == "fine-tuning" and phase.note
        )
        linear_probe = "".join(
            f" The linear probe has a validation accuracy of {percent(epoch.validation_accuracy)} "
            f"and a validation loss of {number(epoch.validation_loss)}."
            for epoch in history
        )
        body = f"<p>No fine-tuning{reason}.{linear_probe}</p>"
        return section("training", "Training", body)
    accuracy = [
        figures.Line(
            name="validation", style="a", values=[epoch.validation_accuracy for epoch in history]
        )
    ]
    losses = [
        figures.Line(
            name="validation", style="a", values=[epoch.validation_loss for epoch in history]
        ),
        figures.Line(name="training", style="b", values=[epoch.train_loss for epoch in history]),
    ]
    plots = []
    if _any_finite(accuracy):
        plots.append(
            figures.curves(
                "Validation accuracy",
                accuracy,
                lambda v: f"{100 * v:.3g}%",
                from_zero=False,
                step=0.005,
            )
        )
    if _any_finite(losses):
        plots.append(
            figures.curves("Loss, in nats", losses, lambda v: f"{v:.3g}", from_zero=True, step=0.01)
        )
    caption = (
        "Epoch 0 is the linear probe, before fine-tuning. The training loss is averaged over an "
        "epoch of augmented photos while the weights still change, so it may exceed the validation "
        "loss."
    )
    numbers = table(
        "Epochs",
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
        f"<p>Selected on validation photos: <strong>{escape(statements.kept(fit))}</strong>. The "
        "candidates are the linear probe, the fine-tuned network and interpolations between "
        "them.</p>"
        + figure(f'<div class="pair">{"".join(plots)}</div>', caption)
        + f"<details><summary>Data of the figure</summary>{numbers}</details>"
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


def per_class_metrics(fit: FitResult) -> str:
    """One row per class: photos, recall with its interval, precision, F1."""
    rows = [
        (
            name(metrics.label),
            f"{metrics.n_photos:,}",
            percent(metrics.recall.value) + figures.interval_bar(metrics.recall),
            percent_range(metrics.recall.low, metrics.recall.high) if metrics.n_photos else NONE,
            percent(metrics.precision.value),
            number(metrics.f1.value),
        )
        for metrics in fit.evaluation.per_class
    ]
    columns = ("class", "test photos", "recall", "95% interval", "precision", "F1")
    intro = (
        "<p>Recall: the fraction of a class's photos that are predicted correctly. Precision: the "
        "fraction of photos predicted as a class that belong to it. Bars run from 0 to "
        "100%.</p>"
    )
    body = intro + table("Per-class metrics", columns, rows, "lnnnnn")
    return section("per-class-metrics", "Per-class metrics", body)


def slices(fit: FitResult) -> str:
    """One row per slice, the worst first."""
    evaluation = fit.evaluation
    summary = statements.slices_summary(evaluation)
    if not evaluation.slices:
        return section("slices", "Slices", f"<p>{summary}</p>")
    rows = [
        (
            f"{name(slice_.column)} {name(slice_.group)}"
            + ('<span class="rare">significantly worse</span>' if slice_.is_worse else ""),
            f"{slice_.accuracy.n:,}",
            percent(slice_.accuracy.value) + figures.interval_bar(slice_.accuracy),
            percent_range(slice_.accuracy.low, slice_.accuracy.high),
            percent(slice_.rest_accuracy.value),
            f"{slice_.adjusted_p_value:.2g}",
        )
        for slice_ in evaluation.slices[:_MAX_SLICES]
    ]
    rest = len(evaluation.slices) - len(rows)
    more = f" The other {rest:,} are in <code>result.json</code>." if rest else ""
    intro = (
        f"<p>{summary} The p-value is the probability of an accuracy this low by chance (Fisher's "
        "exact test), adjusted for the number of slices (Holm). Below 0.05, a slice counts as "
        f"significantly worse.{more}</p>"
    )
    columns = ("slice", "test photos", "accuracy", "95% interval", "rest", "p-value")
    return section("slices", "Slices", intro + table("Slices", columns, rows, "lnnnnn"))
