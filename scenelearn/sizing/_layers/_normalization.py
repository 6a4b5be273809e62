"""Normalization over the batch, over axes of each sample, and over groups of channels."""

from __future__ import annotations

from dataclasses import dataclass

from scenelearn.errors import ArgumentError
from scenelearn.sizing._layers._layer import SameShape, Shape, Weight


@dataclass(frozen=True, slots=True)
class BatchNormalization(SameShape):
    """Normalization per channel over the batch; see `keras.layers.BatchNormalization`.

    The moving mean and variance are variables that gradients do not update.

    Examples:
        >>> layer = BatchNormalization()
        >>> [weight.trainable for weight in layer.weights((8, 16, 16, 32))]
        [True, True, False, False]
    """

    axis: int = -1
    center: bool = True
    scale: bool = True

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        shape = _sizes(inputs[0], self.axis)
        return (
            *_gamma_beta(shape, scale=self.scale, center=self.center),
            Weight("moving_mean", shape, trainable=False),
            Weight("moving_variance", shape, trainable=False),
        )


@dataclass(frozen=True, slots=True)
class LayerNormalization(SameShape):
    """Normalization over axes of each sample; see `keras.layers.LayerNormalization`.

    Examples:
        >>> LayerNormalization().n_parameters((8, 64, 128))
        256
    """

    axis: int | tuple[int, ...] = -1
    center: bool = True
    scale: bool = True
    rms_scaling: bool = False

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        shape = _sizes(inputs[0], self.axis)
        if self.rms_scaling:
            return (Weight("gamma", shape),)
        return _gamma_beta(shape, scale=self.scale, center=self.center)


@dataclass(frozen=True, slots=True)
class RMSNormalization(SameShape):
    """Division by the root mean square of each sample; see `keras.layers.RMSNormalization`.

    Examples:
        >>> RMSNormalization().n_parameters((8, 64, 128))
        128
    """

    axis: int | tuple[int, ...] = -1

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        return (Weight("scale", _sizes(inputs[0], self.axis)),)


@dataclass(frozen=True, slots=True)
class GroupNormalization(SameShape):
    """Normalization over groups of channels; see `keras.layers.GroupNormalization`.

    Raises:
        ArgumentError: if the number of channels is not a multiple of the number of groups.

    Examples:
        >>> GroupNormalization(8).n_parameters((2, 16, 16, 32))
        64
    """

    groups: int = 32
    axis: int = -1
    center: bool = True
    scale: bool = True

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        (channels,) = _sizes(inputs[0], self.axis)
        if self.groups != -1 and channels % self.groups:
            raise ArgumentError(
                "The number of channels must be a multiple of `groups`. Received: "
                f"{channels} channels, groups={self.groups}."
            )
        return (inputs[0],)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        return _gamma_beta(_sizes(inputs[0], self.axis), scale=self.scale, center=self.center)


@dataclass(frozen=True, slots=True)
class UnitNormalization(SameShape):
    """Division by the L2 norm along an axis; see `keras.layers.UnitNormalization`.

    Examples:
        >>> UnitNormalization().output_shape((2, 8))
        (2, 8)
    """

    axis: int = -1


def _gamma_beta(shape: Shape, *, scale: bool, center: bool) -> tuple[Weight, ...]:
    gamma = (Weight("gamma", shape),) if scale else ()
    return (*gamma, Weight("beta", shape)) if center else gamma


def _sizes(shape: Shape, axis: int | tuple[int, ...]) -> Shape:
    axes = (axis,) if isinstance(axis, int) else axis
    if any(not -len(shape) <= at < len(shape) for at in axes):
        raise ArgumentError(
            f"`axis` must be an axis of the input. Received: axis={axis} for shape {shape}."
        )
    return tuple(shape[at] for at in axes)
