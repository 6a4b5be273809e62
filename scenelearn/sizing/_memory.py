"""Memory use of prediction and training, as each estimation method returns it."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

from scenelearn._json import dataclass_json
from scenelearn.sizing._optimizers import OptimizerSlots


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """What an estimation method needs besides the network and its shapes.

    Attributes:
        trained_layers: the ids of the layers whose trainable weights are trained.
        slots: the optimizer's variables.
        activation_itemsize: bytes per element of activations.
        weight_itemsize: bytes per element of weights.
    """

    trained_layers: frozenset[int]
    slots: OptimizerSlots
    activation_itemsize: int = 4
    weight_itemsize: int = 4


@dataclass(frozen=True, slots=True)
class MemoryPoint:
    """The memory in use while a layer runs.

    Attributes:
        layer: the layer's name.
        phase: "forward", "backward" or "update".
        n_bytes: all memory in use, including parameters and inputs.
    """

    layer: str
    phase: str
    n_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMemory:
    """Peak memory of a training step in bytes, by what it holds.

    Attributes:
        parameters: all weights, trained or not.
        gradients: the gradients of the trained weights that exist at the same time.
        optimizer_slots: the optimizer's variables: momentum, moving averages, scalars.
        inputs: the batch; with the "xla" method, also its targets.
        activations: the activations kept from the forward pass for the backward pass.
        temporaries: everything else at the peak: copies, gradients of activations, fragmentation.
    """

    parameters: int
    gradients: int
    optimizer_slots: int
    inputs: int
    activations: int
    temporaries: int

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(astuple(self))

    def to_json(self) -> dict[str, Any]:
        """Return the parts and their total."""
        return {**dataclass_json(self), "total": self.total}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """The result of an estimation method; `Estimate` documents the fields."""

    prediction_bytes: int
    prediction_bytes_without_reuse: int
    prediction_peak_layer: str
    prediction_timeline: tuple[MemoryPoint, ...]
    training: TrainingMemory
    training_peak_layer: str
    training_timeline: tuple[MemoryPoint, ...]
    prediction_resident_bytes: int | None = None
    training_resident_bytes: int | None = None
    note: str = ""
