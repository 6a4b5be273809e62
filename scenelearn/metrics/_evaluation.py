"""What a classifier reaches, as frozen results."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from scenelearn.metrics._intervals import Interval
from scenelearn.metrics._slices import Slice
from scenelearn.metrics._trust import TrustScore


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """How one class fares.

    Attributes:
        name: the class.
        n_photos: photos whose true class this is.
        n_predicted: photos that were said to be this class.
        recall: of the photos of this class, the share that was recognized.
        precision: of the photos said to be this class, the share that is.
        f1: harmonic mean of precision and recall; 0 where neither is defined.
    """

    name: str
    n_photos: int
    n_predicted: int
    recall: Interval
    precision: Interval
    f1: Interval

    def to_json(self) -> dict[str, Any]:
        """The six fields as plain values."""
        return {
            "name": self.name,
            "n_photos": self.n_photos,
            "n_predicted": self.n_predicted,
            "recall": self.recall.to_json(),
            "precision": self.precision.to_json(),
            "f1": self.f1.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """The photos of about one confidence: how often is an answer that sure right?

    Attributes:
        low: lower end of the bin, in [0, 1].
        high: its upper end.
        confidence: mean probability of the class that was named.
        accuracy: share of right answers; its `n` is the number of photos in the bin.
    """

    low: float
    high: float
    confidence: float
    accuracy: Interval

    def to_json(self) -> dict[str, Any]:
        """The four fields as plain values."""
        return {
            "low": self.low,
            "high": self.high,
            "confidence": self.confidence,
            "accuracy": self.accuracy.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a classifier reaches on a set of photos.

    Attributes:
        class_names: the classes, in the order of the labels.
        n_photos: how many photos were judged.
        accuracy: share of photos whose most probable class is the true one; Wilson's interval.
        accuracy_bootstrap: the same with the interval of a bootstrap that keeps the sizes of the
            classes: how the accuracy varies among sets of photos with as many of each class.
        balanced_accuracy: mean of the classes' recalls (classes without photos left out), with
            the interval of that bootstrap.
        top_k: share of photos whose true class is among the k most probable, for k from 1 to 5
            or to the number of classes.
        log_loss: mean of −ln(probability of the true class), in nats.
        brier: mean of Σ over classes (probability − [is the true class])², in [0, 2].
        calibration_error: expected calibration error over the bins of `reliability`, in [0, 1].
        calibration_floor: what the calibration error would be, on average, of answers of the
            same confidences that mean exactly what they say: so much comes by chance alone.
        reliability: 15 equal bins of confidence, for a diagram; those without photos left out.
        per_class: one score a class.
        confusion: counts, ``confusion[true][predicted]``.
        slices: groups of photos that were looked at, the worst first; empty if none were.
        trust: how prediction sets and abstaining fare; None where there are no sets.
    """

    class_names: tuple[str, ...]
    n_photos: int
    accuracy: Interval
    accuracy_bootstrap: Interval
    balanced_accuracy: Interval
    top_k: tuple[Interval, ...]
    log_loss: float
    brier: float
    calibration_error: float
    calibration_floor: float
    reliability: tuple[ReliabilityBin, ...]
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    slices: tuple[Slice, ...] = ()
    trust: TrustScore | None = None

    def __str__(self) -> str:
        """Accuracy with its interval, on one line."""
        return f"accuracy {self.accuracy} on {self.n_photos:,} photos"

    def confusion_rates(self) -> tuple[tuple[float, ...], ...]:
        """The confusion as shares of each true class: rows sum to 1, or to 0 without photos."""
        return tuple(
            tuple(count / max(1, score.n_photos) for count in row)
            for row, score in zip(self.confusion, self.per_class, strict=True)
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """One plain row a class, ready for a table or a data frame."""
        rows = []
        for score in self.per_class:
            row: dict[str, Any] = {"class": score.name, "photos": score.n_photos}
            for what in ("recall", "precision", "f1"):
                interval: Interval = getattr(score, what)
                row |= {
                    what: interval.value,
                    f"{what}_low": interval.low,
                    f"{what}_high": interval.high,
                }
            rows.append(row)
        return rows

    def table(self) -> str:
        """Everything that matters as lines of text: in all, class by class, where it is worse."""
        width = max(5, *(len(score.name) for score in self.per_class))
        top = f"{self.top_k[1]} among its first two" if len(self.top_k) > 2 else ""
        lines = [
            f"{self}" + (f"; {top}" if top else ""),
            f"mean recall of the classes {self.balanced_accuracy}",
            f"calibration error {self.calibration_error:.3f} (perfect answers would show "
            f"{self.calibration_floor:.3f} by chance), log loss {self.log_loss:.3f}, Brier score "
            f"{self.brier:.3f}",
            *([str(self.trust)] if self.trust else []),
            "",
            f"{'class':<{width}}  photos  {'recall':<22}  {'precision':<22}  F1",
            *(
                f"{score.name:<{width}}  {score.n_photos:>6}  {score.recall!s:<22}  "
                f"{score.precision!s:<22}  {score.f1}"
                for score in self.per_class
            ),
        ]
        worse = [str(one) for one in self.slices if one.is_worse]
        if worse:
            lines += ["", "It does worse on", *worse]
        elif self.slices:
            lines += ["", f"None of {len(self.slices)} groups of photos does significantly worse."]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain lists, numbers and strings."""
        return {
            "class_names": list(self.class_names),
            "n_photos": self.n_photos,
            "accuracy": self.accuracy.to_json(),
            "accuracy_bootstrap": self.accuracy_bootstrap.to_json(),
            "balanced_accuracy": self.balanced_accuracy.to_json(),
            "top_k": [interval.to_json() for interval in self.top_k],
            "log_loss": self.log_loss,
            "brier": self.brier,
            "calibration_error": self.calibration_error,
            "calibration_floor": self.calibration_floor,
            "reliability": [one.to_json() for one in self.reliability],
            "per_class": [score.to_json() for score in self.per_class],
            "confusion": [list(row) for row in self.confusion],
            "slices": [one.to_json() for one in self.slices],
            "trust": self.trust.to_json() if self.trust else None,
        }

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(score.name)}</td><td>{score.n_photos}</td>"
            f"<td>{score.recall}</td><td>{score.precision}</td><td>{score.f1}</td></tr>"
            for score in self.per_class
        )
        worse = "".join(f"<li>{html.escape(str(one))}</li>" for one in self.slices if one.is_worse)
        return (
            f"<p><b>Accuracy {self.accuracy}</b> on {self.n_photos:,} photos.</p>"
            "<table><thead><tr><th>class</th><th>photos</th><th>recall</th><th>precision</th>"
            f"<th>F1</th></tr></thead><tbody>{rows}</tbody></table>"
            + (f"<p>It does worse on:</p><ul>{worse}</ul>" if worse else "")
        )
