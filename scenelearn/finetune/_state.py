"""All that fine-tuning has come to: in one place, so that all of it is saved and restored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn.classify import temperature
from scenelearn.finetune._course import WARM_UP, Course, course_of, share_done, share_of_peak
from scenelearn.finetune._head import cross_entropy
from scenelearn.finetune._result import Epoch
from scenelearn.finetune._solver import cross_entropies

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How to fine-tune.

    Attributes:
        course: the steps of each epoch, see `_course`; empty for no epoch.
        n_runs: how often it goes from the first weights through the schedule.
        timed: whether the time decides how many; then the course is planned anew after each.
        peak: the highest learning rate.
        least_warm_up: steps over which the rate rises at the least.
        step_s: seconds a step took when timed.
        judging_s: seconds for judging the validation photos.
        slow_s: seconds more that an epoch takes whose views' maps are computed and kept.
        keep_s: seconds of the budget to leave for what comes after.
        batch_size: photos a step.
    """

    course: Course
    n_runs: int
    timed: bool
    peak: float
    least_warm_up: int
    step_s: float
    judging_s: float
    slow_s: float
    keep_s: float
    batch_size: int

    @property
    def n_epochs(self) -> int:
        """How many epochs are planned."""
        return len(self.course)

    @property
    def n_steps(self) -> int:
        """How many steps are planned."""
        return sum(size for size, _ in self.course)

    def rate(self, epoch: int, step: float) -> float:
        """The learning rate after some steps of an epoch, from number 1 on."""
        steps_a_run = self.n_steps / self.course[-1][1]
        warm_up = max(WARM_UP, self.least_warm_up / steps_a_run)
        return self.peak * share_of_peak(share_done(self.course, epoch, step) % 1, warm_up)

    def ends_run(self, epoch: int) -> bool:
        """Whether a run is through after an epoch of this number."""
        return self.course[epoch - 1][1] % 1 == 0


class Judged(NamedTuple):
    """What a network reaches on the validation photos.

    Attributes:
        accuracy: as in `Epoch`.
        loss: likewise.
        calibrated_loss: likewise.
        losses: (n,) float64, the calibrated loss of each photo.
    """

    accuracy: float
    loss: float
    calibrated_loss: float
    losses: npt.NDArray[np.float64]


def judged(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int32]) -> Judged:
    """What logits are worth.

    Args:
        logits: (n, n_classes), of the validation photos.
        labels: (n,) integers in [0, n_classes).

    Returns:
        The share of right answers, and the cross-entropy before and after calibration, in nats;
        NaN where a logit is not finite.
    """
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    if not np.isfinite(logits).all():
        return Judged(accuracy, math.nan, math.nan, np.full(len(labels), math.nan))
    losses = cross_entropies(logits.astype(np.float64) / temperature(logits, labels), labels)
    return Judged(accuracy, cross_entropy(logits, labels), float(losses.mean()), losses)


@dataclass(slots=True, kw_only=True, eq=False)
class State:
    """Where fine-tuning stands. Beside it there are only the network and its optimizer.

    There is no random state: every draw is a function of (seed, epoch, index).

    Attributes:
        schedule: how to go on.
        history: epoch 0, the solved head, and each whole epoch.
        best: the number of the epoch that was best on the validation photos: of the least
            calibrated loss, which tells networks apart with fewer photos than the accuracy needs.
        best_loss: its calibrated loss there.
        best_weights: the network's weights then.
        first_weights: of what trains, before the first step; empty if nothing between them and
            the fine-tuned ones will be judged.
        usual_share: which of those to keep unless another is better by more than chance.
        share: how far it lies on the way from the solved head's network (0) to its epoch's (1).
        soup: mean of what trains at the end of each run so far; empty before that, and if there is
            one run only.
        n_in_soup: how many runs these are.
        step: steps of the running epoch that are done.
        losses: of each of them.
        epoch_s: seconds that they took.
    """

    schedule: Schedule
    history: list[Epoch]
    best_loss: float
    best_weights: list[npt.NDArray[Any]]
    first_weights: list[npt.NDArray[Any]]
    usual_share: float = 0.0
    best: int = 0
    share: float = 1.0
    soup: list[npt.NDArray[Any]] = field(default_factory=list)
    n_in_soup: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    epoch_s: float = 0.0

    @property
    def epoch(self) -> int:
        """The number of the running epoch, from 1 on."""
        return len(self.history)

    def keep(self, model: Any, loss: float, *, epoch: int, share: float = 1.0) -> None:
        """Keep the network's weights as the best, unless they are no numbers."""
        weights = model.get_weights()
        if all(np.isfinite(one).all() for one in weights):
            self.best, self.share, self.best_weights = epoch, share, weights
            self.best_loss = loss

    def close_epoch(self, epoch: Epoch, model: Any) -> None:
        """Note an epoch that is done and judged, and the network if it is the best so far."""
        if epoch.calibrated_loss < self.best_loss:  # never true of NaN
            self.keep(model, epoch.calibrated_loss, epoch=epoch.number)
        self.history.append(epoch)
        self.step, self.losses, self.epoch_s = 0, [], 0.0

    def close_run(self, model: Any) -> None:
        """Stir what a run has ended with into the soup."""
        self.n_in_soup += 1
        weights, share = arrays_of(model.trainable_variables), np.float32(1 / self.n_in_soup)
        mean = self.soup or weights
        self.soup = [a + share * (b - a) for a, b in zip(mean, weights, strict=True)]


def begun(
    schedule: Schedule,
    solved: Epoch,
    weights: list[npt.NDArray[Any]],
    *,
    model: Any = None,
    usual_share: float = 0.0,
) -> State:
    """The state before the first step.

    Args:
        schedule: how to go on.
        solved: what the solved head reaches.
        weights: the network's, with the solved head.
        model: it, ready to train, if networks between it and the fine-tuned one will be judged.
        usual_share: which of them to keep unless another is better by more than chance.
    """
    return State(
        schedule=schedule,
        history=[solved],
        best_weights=weights,
        best_loss=solved.calibrated_loss,
        first_weights=[] if model is None else arrays_of(model.trainable_variables),
        usual_share=usual_share,
    )


def pack(state: State, model: Any) -> tuple[dict[str, Any], Arrays]:
    """Everything as JSON values and arrays.

    Args:
        state: where fine-tuning stands.
        model: compiled; its optimizer has its variables.

    Returns:
        Two dictionaries for `unpack` and `restore`.
    """
    # without what `asdict` would copy
    bare = replace(state, best_weights=[], first_weights=[], soup=[])
    about = asdict(bare)
    del about["best_weights"], about["first_weights"], about["soup"]
    groups = {
        "model": model.variables,
        "optimizer": model.optimizer.variables,
        "best": state.best_weights,
        "first": state.first_weights,
        "soup": state.soup,
    }
    arrays = {
        f"{group}/{k}": _array(value) for group, of in groups.items() for k, value in enumerate(of)
    }
    return about, arrays


def unpack(about: Mapping[str, Any], arrays: Arrays) -> State:
    """The state that `pack` took apart."""
    plain = dict(about)
    schedule = plain.pop("schedule")
    course = course_of(schedule["course"], schedule["n_runs"])
    return State(
        schedule=Schedule(**schedule | {"course": course or ()}),
        history=[Epoch(**epoch) for epoch in plain.pop("history")],
        best_weights=_group(arrays, "best"),
        first_weights=_group(arrays, "first"),
        soup=_group(arrays, "soup"),
        **plain,
    )


def restore(model: Any, arrays: Arrays) -> None:
    """Give a network and its optimizer the values that `pack` took of them.

    Args:
        model: compiled, made in the same way, with the same layers set to train.
        arrays: from `pack`.
    """
    model.optimizer.build(model.trainable_variables)
    assign(model.variables, _group(arrays, "model"))
    assign(model.optimizer.variables, _group(arrays, "optimizer"))


def arrays_of(variables: Iterable[Any]) -> list[npt.NDArray[Any]]:
    """The values of variables."""
    return [_array(variable) for variable in variables]


def assign(variables: Iterable[Any], values: Iterable[Any]) -> None:
    """Give variables their values."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _group(arrays: Arrays, name: str) -> list[npt.NDArray[Any]]:
    return [value for key, value in arrays.items() if key.partition("/")[0] == name]


def _array(value: Any) -> npt.NDArray[Any]:
    return value if isinstance(value, np.ndarray) else keras().ops.convert_to_numpy(value)
