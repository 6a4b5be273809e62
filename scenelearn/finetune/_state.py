"""The complete state of fine-tuning, in one place, so that all of it is saved and restored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn.classify._calibration import fit_temperature
from scenelearn.finetune._checkpoint import Arrays
from scenelearn.finetune._linear_probe import cross_entropy
from scenelearn.finetune._result import Epoch
from scenelearn.finetune._schedule import TrainingPlan, parse_schedule
from scenelearn.finetune._solver import cross_entropies


class ValidationScores(NamedTuple):
    """How good a network is on the validation photos.

    Attributes:
        accuracy: as in `Epoch`.
        loss: as in `Epoch`.
        calibrated_loss: as in `Epoch`.
        losses: (n,) float64, the calibrated loss of each photo.
    """

    accuracy: float
    loss: float
    calibrated_loss: float
    losses: npt.NDArray[np.float64]


def score_logits(
    logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]
) -> ValidationScores:
    """Compute accuracy and losses from logits.

    Args:
        logits: (n, n_classes), of the validation photos.
        labels: (n,) integers in [0, n_classes).

    Returns:
        The accuracy, and the cross-entropy before and after calibration, in nats; NaN if a logit is
        not finite.
    """
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    if not np.isfinite(logits).all():
        return ValidationScores(accuracy, math.nan, math.nan, np.full(len(labels), math.nan))
    calibrated = logits.astype(np.float64) / fit_temperature(logits, labels)
    losses = cross_entropies(calibrated, labels)
    return ValidationScores(accuracy, cross_entropy(logits, labels), float(losses.mean()), losses)


@dataclass(slots=True, kw_only=True, eq=False)
class TrainingState:
    """The progress of fine-tuning. The only other state is that of the network and its optimizer.

    There is no random state: every random number is a function of (seed, epoch, index).

    Attributes:
        plan: how to continue.
        history: epoch 0, the linear probe, and each complete epoch.
        best: number of the epoch with the lowest calibrated validation loss, which distinguishes
            networks with fewer photos than the accuracy needs.
        best_loss: its calibrated loss.
        best_weights: the network's weights after it.
        initial_weights: the trainable weights before the first step; empty if no weights are
            interpolated in the end.
        default_interpolation: the coefficient to keep unless another is significantly better.
        interpolation: the coefficient of the best weights: 0 is the linear probe, 1 its epoch.
        soup: mean of the trainable weights at the end of each run so far; empty before that, and
            if there is only one run.
        n_in_soup: number of these runs.
        step: number of steps done in the current epoch.
        losses: the loss of each of them.
        epoch_s: seconds that they took.
    """

    plan: TrainingPlan
    history: list[Epoch]
    best_loss: float
    best_weights: list[npt.NDArray[Any]]
    initial_weights: list[npt.NDArray[Any]]
    default_interpolation: float = 0.0
    best: int = 0
    interpolation: float = 1.0
    soup: list[npt.NDArray[Any]] = field(default_factory=list)
    n_in_soup: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    epoch_s: float = 0.0

    @property
    def epoch(self) -> int:
        """Number of the current epoch, counted from 1."""
        return len(self.history)

    def keep(self, model: Any, loss: float, *, epoch: int, interpolation: float = 1.0) -> None:
        """Keep the network's weights as the best, unless they are not finite."""
        weights = model.get_weights()
        if all(np.isfinite(one).all() for one in weights):
            self.best, self.interpolation, self.best_weights = epoch, interpolation, weights
            self.best_loss = loss

    def end_epoch(self, epoch: Epoch, model: Any) -> None:
        """Record a complete epoch, and keep its weights if it is the best."""
        if epoch.calibrated_loss < self.best_loss:  # never true for NaN
            self.keep(model, epoch.calibrated_loss, epoch=epoch.number)
        self.history.append(epoch)
        self.step, self.losses, self.epoch_s = 0, [], 0.0

    def end_run(self, model: Any) -> None:
        """Add the weights at the end of a run to the soup."""
        self.n_in_soup += 1
        weights, weight = to_arrays(model.trainable_variables), np.float32(1 / self.n_in_soup)
        mean = self.soup or weights
        self.soup = [a + weight * (b - a) for a, b in zip(mean, weights, strict=True)]


def pack(state: TrainingState, model: Any) -> tuple[dict[str, Any], Arrays]:
    """The complete state as JSON values and arrays, for a checkpoint.

    Args:
        state: the progress of fine-tuning.
        model: compiled; its optimizer is built.

    Returns:
        Two dictionaries for `unpack` and `restore_variables`.
    """
    # `asdict` would copy these.
    light = replace(state, best_weights=[], initial_weights=[], soup=[])
    metadata = asdict(light)
    del metadata["best_weights"], metadata["initial_weights"], metadata["soup"]
    groups = {
        "model": model.variables,
        "optimizer": model.optimizer.variables,
        "best": state.best_weights,
        "initial": state.initial_weights,
        "soup": state.soup,
    }
    arrays = {
        f"{group}/{k}": _to_array(value)
        for group, values in groups.items()
        for k, value in enumerate(values)
    }
    return metadata, arrays


def unpack(metadata: Mapping[str, Any], arrays: Arrays) -> TrainingState:
    """The state from what `pack` returned."""
    values = dict(metadata)
    plan = values.pop("plan")
    schedule = parse_schedule(plan["schedule"], plan["n_runs"])
    return TrainingState(
        plan=TrainingPlan(**plan | {"schedule": schedule or ()}),
        history=[Epoch(**epoch) for epoch in values.pop("history")],
        best_weights=_group(arrays, "best"),
        initial_weights=_group(arrays, "initial"),
        soup=_group(arrays, "soup"),
        **values,
    )


def restore_variables(model: Any, arrays: Arrays) -> None:
    """Assign the packed values to the variables of a network and its optimizer.

    Args:
        model: compiled, built in the same way, with the same layers trainable.
        arrays: from `pack`.
    """
    model.optimizer.build(model.trainable_variables)
    assign_values(model.variables, _group(arrays, "model"))
    assign_values(model.optimizer.variables, _group(arrays, "optimizer"))


def to_arrays(variables: Iterable[Any]) -> list[npt.NDArray[Any]]:
    """The values of variables."""
    return [_to_array(variable) for variable in variables]


def assign_values(variables: Iterable[Any], values: Iterable[Any]) -> None:
    """Assign values to variables."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _group(arrays: Arrays, name: str) -> list[npt.NDArray[Any]]:
    return [value for key, value in arrays.items() if key.partition("/")[0] == name]


def _to_array(value: Any) -> npt.NDArray[Any]:
    return value if isinstance(value, np.ndarray) else keras().ops.convert_to_numpy(value)
