"""The numbers of an estimate, apart from what can be asked of it and how it is displayed."""

from __future__ import annotations

from dataclasses import dataclass

from scenelearn.sizing._layers import Shape
from scenelearn.sizing._memory import MemoryPoint, TrainingMemory
from scenelearn.sizing._receptive import ReceptiveField


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerEstimate:
    """The cost of one layer call.

    Attributes:
        name: the layer's name; "outer/inner" in a nested model.
        layer_type: the layer's Keras class.
        input_shapes: the shapes of the inputs, batch axes included.
        output_shape: the shape of the first output, batch axis included.
        n_parameters: the number of parameters; 0 where a shared layer is called again.
        n_trainable_parameters: the number of parameters that are trained.
        n_multiply_adds: multiply-adds over the whole batch.
        activation_bytes: the bytes of all outputs.
        receptive_field: the receptive field of an output element in the network's input, with
            effective stride and start; None where it depends on the whole input.
    """

    name: str
    layer_type: str
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    n_parameters: int
    n_trainable_parameters: int
    n_multiply_adds: int
    activation_bytes: int
    receptive_field: ReceptiveField | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class EstimateValues:
    """The fields of `Estimate`, which documents them."""

    name: str
    method: str
    batch_size: int
    input_shapes: tuple[Shape, ...]
    optimizer: str
    layers: tuple[LayerEstimate, ...]
    n_parameters: int
    n_trainable_parameters: int
    n_multiply_adds: int
    parameter_bytes: int
    prediction_bytes: int
    prediction_bytes_without_reuse: int
    prediction_peak_layer: str
    training: TrainingMemory
    training_peak_layer: str
    prediction_timeline: tuple[MemoryPoint, ...]
    training_timeline: tuple[MemoryPoint, ...]
    prediction_resident_bytes: int | None = None
    training_resident_bytes: int | None = None
    note: str = ""

    @property
    def training_bytes(self) -> int:
        """Peak memory of a training step, the sum of the parts in `training`."""
        return self.training.total
