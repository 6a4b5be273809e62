"""All that fine-tuning has come to: in one place, so that all of it is saved and restored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn.finetune._result import Epoch

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to fine-tune.

    Attributes:
        n_epochs: passes over the training photos; 0 for none.
        peak: the highest learning rate.
        step_s: seconds a step took when timed.
        keep_s: seconds of the budget to leave for what comes after.
        batch_size: photos a step.
    """

    n_epochs: int
    peak: float
    step_s: float
    keep_s: float
    batch_size: int


@dataclass(slots=True, kw_only=True, eq=False)
class State:
    """Where fine-tuning stands. Beside it there are only the network and its optimizer.

    There is no random state: every draw is a function of (seed, epoch, index).

    Attributes:
        plan: how to go on.
        history: epoch 0, the solved head, and each whole epoch.
        best: the number of the epoch that was best on the validation photos.
        best_weights: the network's weights after it.
        step: steps of the running epoch that are done.
        losses: of each of them.
        epoch_s: seconds that they took.
    """

    plan: Plan
    history: list[Epoch]
    best_weights: list[npt.NDArray[Any]]
    best: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    epoch_s: float = 0.0

    @property
    def epoch(self) -> int:
        """The number of the running epoch, from 1 on."""
        return len(self.history)

    def close_epoch(self, epoch: Epoch, model: Any) -> None:
        """Note an epoch that is done and judged, and the network if it is the best so far.

        One whose loss is above that of guessing (and of the solved head) has diverged: a few
        right answers more on the validation photos are luck then.
        """
        guessing = math.log(model.output_shape[-1])
        bound = max(guessing, self.history[0].validation_loss)
        if epoch.validation_loss <= bound and _better(epoch, self.history[self.best]):
            weights = model.get_weights()
            if all(np.isfinite(one).all() for one in weights):
                self.best, self.best_weights = epoch.number, weights
        self.history.append(epoch)
        self.step, self.losses, self.epoch_s = 0, [], 0.0


def pack(state: State, model: Any) -> tuple[dict[str, Any], Arrays]:
    """Everything as JSON values and arrays.

    Args:
        state: where fine-tuning stands.
        model: compiled; its optimizer has its variables.

    Returns:
        Two dictionaries for `unpack` and `restore`.
    """
    about = asdict(replace(state, best_weights=[]))  # which copies what it is given
    del about["best_weights"]
    groups = {
        "model": model.variables,
        "optimizer": model.optimizer.variables,
        "best": state.best_weights,
    }
    arrays = {
        f"{group}/{k}": _array(value) for group, of in groups.items() for k, value in enumerate(of)
    }
    return about, arrays


def unpack(about: Mapping[str, Any], arrays: Arrays) -> State:
    """The state that `pack` took apart."""
    plain = dict(about)
    return State(
        plan=Plan(**plain.pop("plan")),
        history=[Epoch(**epoch) for epoch in plain.pop("history")],
        best_weights=_group(arrays, "best"),
        **plain,
    )


def restore(model: Any, arrays: Arrays) -> None:
    """Give a network and its optimizer the values that `pack` took of them.

    Args:
        model: compiled, made in the same way, with the same layers set to train.
        arrays: from `pack`.
    """
    model.optimizer.build(model.trainable_variables)
    for group, variables in (("model", model.variables), ("optimizer", model.optimizer.variables)):
        for variable, value in zip(variables, _group(arrays, group), strict=True):
            variable.assign(value)


def _group(arrays: Arrays, name: str) -> list[npt.NDArray[Any]]:
    return [value for key, value in arrays.items() if key.partition("/")[0] == name]


def _array(value: Any) -> npt.NDArray[Any]:
    return value if isinstance(value, np.ndarray) else keras().ops.convert_to_numpy(value)


def _better(a: Epoch, b: Epoch) -> bool:
    """By validation accuracy, then by loss."""
    return (a.validation_accuracy, -a.validation_loss) > (b.validation_accuracy, -b.validation_loss)
