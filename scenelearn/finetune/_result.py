"""What a fit leaves behind: the classifier, what it reaches, and how to get there again."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.classify import Classifier
from scenelearn.data import Refused, Splits
from scenelearn.finetune._settings import FitSettings
from scenelearn.metrics import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One pass over the training photos while fine-tuning.

    Attributes:
        number: 0 for the solved head before any fine-tuning, then 1, 2, …
        train_loss: mean cross-entropy over the epoch's augmented training photos, in nats;
            NaN for epoch 0.
        validation_loss: mean cross-entropy on the validation photos after the epoch, in nats.
        calibrated_loss: the same after calibration, by which the best is told: a network that is
            too sure of itself can be better than it looks.
        validation_accuracy: share of right answers on the validation photos, in [0, 1].
        learning_rate: the rate at the end of the epoch.
        seconds: how long the epoch took, validation included.
    """

    number: int
    train_loss: float
    validation_loss: float
    calibrated_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One stretch of a fit.

    Attributes:
        name: "network", "photos", "features", "head", "fine-tuning" or "test"; "before" for all
            that a process did which `fit(resume=True)` has gone on from.
        seconds: wall-clock time.
        note: one line of what was done, for people.
    """

    name: str
    seconds: float
    note: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitResult:
    """The outcome of `fit`.

    Attributes:
        classifier: the solved head's network, a fine-tuned one, or one between the two.
        kept: "solved head" or "fine-tuned".
        share: how far what is kept lies on the way from the solved head's network (0) to the
            fine-tuned one (1), see `Recipe.interpolate`.
        evaluation: what it reaches on the test photos, which nothing else has seen.
        validation: what it reaches on the validation photos, which chose it.
        history: epoch 0 (the solved head) and each epoch of fine-tuning.
        phases: where the time went.
        splits: the photos and their sides.
        test_indices: (n_test,) positions in `splits.photos` of the photos judged.
        test_probabilities: (n_test, n_classes) float32, their predicted probabilities.
        refused: every file that was not used, from the scan and from decoding.
        settings: the arguments of the fit, defaults filled in.
        environment: versions, device, number of cores, date, photo fingerprint, memory predicted
            and measured.
        seconds: wall-clock time of the whole fit, that of an interrupted process included.
        stopped: why fine-tuning ended before it was through: "SIGINT" (Ctrl-C), "SIGTERM", "not
            finite" (a loss of NaN or infinity) or "time"; empty if it was not stopped.
    """

    classifier: Classifier
    kept: str
    share: float
    evaluation: Evaluation
    validation: Evaluation
    history: tuple[Epoch, ...]
    phases: tuple[Phase, ...]
    splits: Splits
    test_indices: npt.NDArray[np.int64]
    test_probabilities: npt.NDArray[np.float32]
    refused: tuple[Refused, ...]
    settings: FitSettings
    environment: dict[str, str]
    seconds: float
    stopped: str = ""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the classifier as one bundle; see `Classifier.save`, whose errors apply."""
        return self.classifier.save(path)

    def __str__(self) -> str:
        early = f", stopped early: {self.stopped}" if self.stopped else ""
        after = f"of its own test split, after {self.seconds:.0f} s"
        return f"{self.kept}: {self.evaluation} {after}{early}"

    def to_json(self) -> dict[str, Any]:
        """Everything but the network itself, as plain values; losses that are not finite as None.

        With `settings`, `environment` and the photos' paths and sides it is enough to repeat the
        run and to tell whether the photos are still the same.
        """
        photos = self.splits.photos
        return {
            "kept": self.kept,
            "share": self.share,
            "evaluation": self.evaluation.to_json(),
            "validation": self.validation.to_json(),
            "history": [
                {
                    "number": epoch.number,
                    "train_loss": _finite(epoch.train_loss),
                    "validation_loss": _finite(epoch.validation_loss),
                    "calibrated_loss": _finite(epoch.calibrated_loss),
                    "validation_accuracy": epoch.validation_accuracy,
                    "learning_rate": epoch.learning_rate,
                    "seconds": epoch.seconds,
                }
                for epoch in self.history
            ],
            "phases": [
                {"name": phase.name, "seconds": phase.seconds, "note": phase.note}
                for phase in self.phases
            ],
            "splits": self.splits.to_json(),
            "test": [
                {
                    "path": photos.paths[i],
                    "label": photos.class_names[photos.labels[i]],
                    "probabilities": [float(p) for p in row],
                }
                for i, row in zip(self.test_indices, self.test_probabilities, strict=True)
            ],
            "refused": [refusal.to_json() for refusal in self.refused],
            "settings": self.settings.to_json(),
            "environment": dict(self.environment),
            "seconds": self.seconds,
            "stopped": self.stopped,
        }

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self))}</p>{self.evaluation._repr_html_()}"


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
