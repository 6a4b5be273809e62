"""Calibration: reliability diagram, top-k accuracy, log loss and Brier score."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scenelearn.reporting import _statements as statements
from scenelearn.reporting._figures import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, ticks
from scenelearn.reporting._html import (
    aria,
    count,
    figure,
    number,
    percent,
    percent_range,
    section,
    table,
)

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult
    from scenelearn.metrics import Evaluation

_TOP = TOP - 20  # these plots have no legend
_PLOT_WIDTH, _PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - _TOP - BOTTOM


def calibration(fit: FitResult) -> str:
    """Whether the probabilities are calibrated, in words, as figures and as a table."""
    evaluation = fit.evaluation
    caption = (
        "Left: reliability diagram, the accuracy of predictions with similar confidence, with its "
        "95% confidence interval. On the dashed line, confidence equals "
        "accuracy; below it, predictions are overconfident. Right: the number of test photos by "
        "confidence."
    )
    plots = f'<div class="pair">{_diagram(evaluation)}{_histogram(evaluation)}</div>'
    rows = [
        (
            f"{percent(bin_.low)} to {percent(bin_.high)}",
            f"{bin_.accuracy.n:,}",
            percent(bin_.confidence),
            percent(bin_.accuracy.value),
            percent_range(bin_.accuracy.low, bin_.accuracy.high),
        )
        for bin_ in evaluation.reliability
    ]
    numbers = table(
        "Accuracy by confidence",
        ("confidence", "test photos", "mean confidence", "accuracy", "95% interval"),
        rows,
        "lnnnn",
    )
    body = (
        f"<p>{statements.calibration(evaluation)}</p>{_scores(evaluation)}{figure(plots, caption)}"
        f"<details><summary>Data of the figure</summary>{numbers}</details>"
    )
    return section("calibration", "Calibration", body)


def _scores(evaluation: Evaluation) -> str:
    """Top-k accuracy, log loss, Brier score and calibration error, each with its reference."""
    n_classes = len(evaluation.class_names)
    top_k = [
        (f"Top-{k} accuracy", statements.with_interval(accuracy))
        for k, accuracy in enumerate(evaluation.top_k_accuracy, start=1)
        if 1 < k < n_classes  # top-1 is the accuracy, and for all classes it is 1
    ]
    scores = [
        *top_k,
        (
            "Log loss",
            f"{number(evaluation.log_loss)} nats (uniform probabilities: "
            f"{number(math.log(n_classes))})",
        ),
        (
            "Brier score",
            f"{number(evaluation.brier_score)} (uniform probabilities: "
            f"{number(1 - 1 / n_classes)})",
        ),
        (
            "Expected calibration error",
            f"{percent(evaluation.calibration_error)} (expected by chance: "
            f"{percent(evaluation.calibration_noise_floor)})",
        ),
    ]
    return f'<dl class="rows">{"".join(f"<dt>{a}</dt><dd>{b}</dd>" for a, b in scores)}</dl>'


def _diagram(evaluation: Evaluation) -> str:
    """Reliability diagram: accuracy over confidence, with intervals and the diagonal."""
    parts = [_title("Accuracy by confidence"), *_x_axis(), *_y_axis((0, 25, 50, 75, 100))]
    parts.append(f'<path class="ideal" d="M{_x(0):.1f} {_y(0):.1f}L{_x(1):.1f} {_y(1):.1f}"/>')
    for bin_ in evaluation.reliability:
        x, accuracy = _x(bin_.confidence), bin_.accuracy
        parts.append(
            f'<path class="whisker" d="M{x:.1f} {_y(accuracy.low):.1f}V{_y(accuracy.high):.1f}"/>'
            f'<circle class="a mark" cx="{x:.1f}" cy="{_y(accuracy.value):.1f}" r="4"/>'
        )
    description = "; ".join(
        f"confidence {percent(bin_.confidence)}, accuracy {percent(bin_.accuracy.value)} on "
        f"{count(bin_.accuracy.n, 'photo')}"
        for bin_ in evaluation.reliability
    )
    return _svg(f"Reliability diagram: {description}.", parts)


def _histogram(evaluation: Evaluation) -> str:
    """Number of test photos by confidence."""
    marks = ticks(0.0, max(bin_.accuracy.n for bin_ in evaluation.reliability), 1.0)
    parts = [_title("Test photos by confidence"), *_x_axis()]
    parts += [_grid_line(_y(mark / marks[-1]), f"{mark:,.0f}") for mark in marks]
    for bin_ in evaluation.reliability:
        top = _y(bin_.accuracy.n / marks[-1])
        parts.append(
            f'<rect class="dot" x="{_x(bin_.low) + 1:.1f}" y="{top:.1f}" '
            f'width="{_PLOT_WIDTH * (bin_.high - bin_.low) - 2:.1f}" height="{_y(0) - top:.1f}"/>'
        )
    description = "; ".join(
        f"{count(bin_.accuracy.n, 'photo')} from {percent(bin_.low)} to {percent(bin_.high)}"
        for bin_ in evaluation.reliability
    )
    return _svg(f"Test photos by confidence: {description}.", parts)


def _x(fraction: float) -> float:
    return LEFT + _PLOT_WIDTH * fraction


def _y(fraction: float) -> float:
    return _TOP + _PLOT_HEIGHT * (1 - fraction)


def _title(words: str) -> str:
    return f'<text class="strong" x="14" y="25">{words}</text>'


def _x_axis() -> list[str]:
    marks = [
        f'<text x="{_x(x / 100):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{x}</text>'
        for x in (0, 25, 50, 75, 100)
    ]
    middle = LEFT + _PLOT_WIDTH / 2
    label = "confidence, in %"
    return [*marks, f'<text x="{middle}" y="{HEIGHT - 9}" text-anchor="middle">{label}</text>']


def _y_axis(marks: tuple[int, ...]) -> list[str]:
    return [_grid_line(_y(mark / 100), f"{mark}%") for mark in marks]


def _grid_line(y: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y + 4.5:.1f}" text-anchor="end">{label}</text>'
    )


def _svg(label: str, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{aria(label)}">'
        f"{''.join(parts)}</svg>"
    )
