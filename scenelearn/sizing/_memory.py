"""What each rule fills in: memory in prediction and in training, part by part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ._optimizers import Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is asked of a rule, apart from the network and its shapes.

    Attributes:
        trained: The owners whose trainable weights are trained.
        slots: What the optimizer keeps.
        map_bytes: Bytes of an element of a map.
        weight_bytes: Bytes of an element of a weight.
    """

    trained: frozenset[int]
    slots: Slots
    map_bytes: int = 4
    weight_bytes: int = 4


class Moment(NamedTuple):
    """How much memory is in use while a layer runs.

    Attributes:
        name: The layer.
        phase: "forward", "backward" or "update".
        n_bytes: All that is in use then, parameters and inputs included.
    """

    name: str
    phase: str
    n_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingBytes:
    """The memory of a training step at its highest, part by part, in bytes.

    Attributes:
        parameters: The weights, trained or not.
        gradients: The gradients of the trained weights that are there at once.
        optimizer: What the optimizer keeps: momenta, averages, scalars.
        inputs: The batch, and under the XLA rule its targets.
        activations: The maps kept from the forward pass for the backward pass.
        temporaries: What else is there at the peak: copies, gradients of maps, gaps.
    """

    parameters: int
    gradients: int
    optimizer: int
    inputs: int
    activations: int
    temporaries: int

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return (
            self.parameters
            + self.gradients
            + self.optimizer
            + self.inputs
            + self.activations
            + self.temporaries
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The answer of a rule.

    Attributes:
        prediction_bytes: A prediction, each map released after its last use.
        prediction_bytes_all_kept: A prediction that keeps every map.
        prediction_peak_at: The layer at which a prediction needs most.
        prediction_moments: A prediction, layer by layer.
        training: A training step, by parts.
        training_peak_at: The layer at which a training step needs most.
        training_moments: A training step, layer by layer.
        prediction_resident_bytes: The most that a process takes for a prediction beside its own
            start; None where the rule does not know.
        training_resident_bytes: The same for a training step.
    """

    prediction_bytes: int
    prediction_bytes_all_kept: int
    prediction_peak_at: str
    prediction_moments: tuple[Moment, ...]
    training: TrainingBytes
    training_peak_at: str
    training_moments: tuple[Moment, ...]
    prediction_resident_bytes: int | None = None
    training_resident_bytes: int | None = None
