"""What the probabilities are worth: a reliability diagram, top-k, log loss and Brier score."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from scenelearn.reporting import _sentences as sentences
from scenelearn.reporting._figures import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, ticks
from scenelearn.reporting._markup import (
    count,
    figure,
    number,
    percent,
    section,
    span,
    spoken,
    table,
)

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult
    from scenelearn.metrics import Evaluation

_TOP = TOP - 20  # there is no legend above the drawing
_ACROSS, _DOWN = WIDTH - LEFT - RIGHT, HEIGHT - _TOP - BOTTOM
_RANKS = ("", "one", "two", "three", "four", "five")


def reliability(fit: FitResult) -> str:
    """Whether an answer that is so sure is right so often, in words, as figure and as table."""
    judged = fit.evaluation
    caption = (
        "Left: answers by how sure they are, and the share of each group that is right, with its "
        "95\N{NO-BREAK SPACE}% interval. On the dashed line an answer is right as often as it "
        "says; below it, it is too sure. Right: how many answers are how sure."
    )
    drawn = f'<div class="pair">{diagram(judged)}{histogram(judged)}</div>'
    rows = [
        (
            f"{percent(one.low)} to {percent(one.high)}",
            f"{one.accuracy.n:,}",
            percent(one.confidence),
            percent(one.accuracy.value),
            span(one.accuracy.low, one.accuracy.high),
        )
        for one in judged.reliability
    ]
    numbers = table(
        "Answers by confidence",
        ("how sure", "test photos", "sure on average", "right", "95 % interval"),
        rows,
        "lnnnn",
    )
    body = (
        f"<p>{sentences.calibration(judged)}</p>{_scores(judged)}{figure(drawn, caption)}"
        f"<details><summary>The numbers of the figure</summary>{numbers}</details>"
    )
    return section("reliability", "What its probabilities are worth", body)


def _scores(judged: Evaluation) -> str:
    """Top-k, log loss, Brier score and calibration error, each beside its yardstick."""
    n_classes = len(judged.class_names)
    ranks = [
        (f"True class among the first {_RANKS[k]}", sentences.measured(share))
        for k, share in enumerate(judged.top_k, start=1)
        if 1 < k < n_classes  # the first is the accuracy, and all classes hold the true one
    ]
    scores = [
        *ranks,
        (
            "Log loss",
            f"{number(judged.log_loss)} nats; the same probability for every class would reach "
            f"{number(math.log(n_classes))}",
        ),
        (
            "Brier score",
            f"{number(judged.brier)}; the same probability for every class would reach "
            f"{number(1 - 1 / n_classes)}",
        ),
        (
            "Expected calibration error",
            f"{percent(judged.calibration_error)}; by chance alone "
            f"{percent(judged.calibration_floor)}",
        ),
    ]
    return f'<dl class="rows">{"".join(f"<dt>{a}</dt><dd>{b}</dd>" for a, b in scores)}</dl>'


def diagram(judged: Evaluation) -> str:
    """Share of right answers over confidence, with intervals and the diagonal."""
    parts = [_title("Right, by how sure it is"), *_across(), *_up((0, 25, 50, 75, 100))]
    parts.append(f'<path class="ideal" d="M{_x(0):.1f} {_y(0):.1f}L{_x(1):.1f} {_y(1):.1f}"/>')
    for one in judged.reliability:
        x, share = _x(one.confidence), one.accuracy
        parts.append(
            f'<path class="whisker" d="M{x:.1f} {_y(share.low):.1f}V{_y(share.high):.1f}"/>'
            f'<circle class="a mark" cx="{x:.1f}" cy="{_y(share.value):.1f}" r="4"/>'
        )
    told = "; ".join(
        f"{percent(one.confidence)} sure, {percent(one.accuracy.value)} of "
        f"{count(one.accuracy.n, 'photo')} right"
        for one in judged.reliability
    )
    return _drawing(f"Reliability diagram. Answers by confidence: {told}.", parts)


def histogram(judged: Evaluation) -> str:
    """How many answers are how sure."""
    steps = ticks(0.0, max(one.accuracy.n for one in judged.reliability), 1.0)
    parts = [_title("Test photos, by how sure it is"), *_across()]
    for step in steps:
        y = _y(step / steps[-1])
        parts.append(_rule(y, f"{step:,.0f}"))
    for one in judged.reliability:
        top = _y(one.accuracy.n / steps[-1])
        parts.append(
            f'<rect class="dot" x="{_x(one.low) + 1:.1f}" y="{top:.1f}" '
            f'width="{_ACROSS * (one.high - one.low) - 2:.1f}" height="{_y(0) - top:.1f}"/>'
        )
    told = "; ".join(
        f"{count(one.accuracy.n, 'photo')} from {percent(one.low)} to {percent(one.high)}"
        for one in judged.reliability
    )
    return _drawing(f"Number of test photos by confidence: {told}.", parts)


def _x(share: float) -> float:
    return LEFT + _ACROSS * share


def _y(share: float) -> float:
    return _TOP + _DOWN * (1 - share)


def _title(words: str) -> str:
    return f'<text class="strong" x="14" y="25">{words}</text>'


def _across() -> list[str]:
    marks = [
        f'<text x="{_x(x / 100):.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{x}</text>'
        for x in (0, 25, 50, 75, 100)
    ]
    middle = LEFT + _ACROSS / 2
    label = "probability of the answer, in %"
    return [*marks, f'<text x="{middle}" y="{HEIGHT - 9}" text-anchor="middle">{label}</text>']


def _up(marks: tuple[int, ...]) -> list[str]:
    return [_rule(_y(mark / 100), f"{mark}\N{NO-BREAK SPACE}%") for mark in marks]


def _rule(y: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y + 4.5:.1f}" text-anchor="end">{label}</text>'
    )


def _drawing(label: str, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{spoken(label)}">'
        f"{''.join(parts)}</svg>"
    )
