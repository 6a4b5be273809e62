"""Normalization: over the batch, a sample's axes, groups of channels."""

from __future__ import annotations

from dataclasses import dataclass

from scenelearn.errors import ArgumentError

from ._layer import Layer, Shape, Weight


@dataclass(frozen=True, slots=True)
class BatchNormalization(Layer):
    """Zero mean, unit variance of each channel over the batch; `keras.layers.BatchNormalization`.

    The moving mean and variance are variables that gradients do not train.

    Examples:
        >>> layer = BatchNormalization()
        >>> [weight.trainable for weight in layer.weights((8, 16, 16, 32))]
        [True, True, False, False]
    """

    axis: int = -1
    center: bool = True
    scale: bool = True

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return (inputs[0],)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        shape = (inputs[0][self.axis],)
        return (
            *((Weight("gamma", shape),) if self.scale else ()),
            *((Weight("beta", shape),) if self.center else ()),
            Weight("moving_mean", shape, trainable=False),
            Weight("moving_variance", shape, trainable=False),
        )


@dataclass(frozen=True, slots=True)
class LayerNormalization(Layer):
    """Zero mean and unit variance over axes of each sample; `keras.layers.LayerNormalization`.

    Examples:
        >>> LayerNormalization().n_parameters((8, 64, 128))
        256
    """

    axis: int | tuple[int, ...] = -1
    center: bool = True
    scale: bool = True
    rms_scaling: bool = False

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return (inputs[0],)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        axes = (self.axis,) if isinstance(self.axis, int) else tuple(self.axis)
        shape = tuple(inputs[0][axis] for axis in axes)
        if self.rms_scaling:
            return (Weight("gamma", shape),)
        return (
            *((Weight("gamma", shape),) if self.scale else ()),
            *((Weight("beta", shape),) if self.center else ()),
        )


@dataclass(frozen=True, slots=True)
class RMSNormalization(Layer):
    """Unit mean square over an axis of each sample; see `keras.layers.RMSNormalization`.

    Examples:
        >>> RMSNormalization().n_parameters((8, 64, 128))
        128
    """

    axis: int | tuple[int, ...] = -1

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return (inputs[0],)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        axes = (self.axis,) if isinstance(self.axis, int) else tuple(self.axis)
        return (Weight("scale", tuple(inputs[0][axis] for axis in axes)),)


@dataclass(frozen=True, slots=True)
class GroupNormalization(Layer):
    """Zero mean and unit variance over groups of channels; `keras.layers.GroupNormalization`.

    Raises:
        ArgumentError: The channels are not a multiple of the groups.

    Examples:
        >>> GroupNormalization(8).n_parameters((2, 16, 16, 32))
        64
    """

    groups: int = 32
    axis: int = -1
    center: bool = True
    scale: bool = True

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        channels = inputs[0][self.axis]
        if self.groups != -1 and channels % self.groups:
            raise ArgumentError(
                f"The channels must be a multiple of `groups`. Received: {channels} channels, "
                f"groups={self.groups}."
            )
        return (inputs[0],)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        shape = (inputs[0][self.axis],)
        return (
            *((Weight("gamma", shape),) if self.scale else ()),
            *((Weight("beta", shape),) if self.center else ()),
        )


@dataclass(frozen=True, slots=True)
class UnitNormalization(Layer):
    """Unit length along an axis; see `keras.layers.UnitNormalization`.

    Examples:
        >>> UnitNormalization().output_shape((2, 8))
        (2, 8)
    """

    axis: int = -1

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return (inputs[0],)
