"""Receptive field, effective stride and start of each value of a network, per axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from scenelearn.sizing._arithmetic import same_pads
from scenelearn.sizing._graph import Call, Graph
from scenelearn.sizing._layers import Embedding, Shape

if TYPE_CHECKING:
    from fractions import Fraction

# Or they may not be, as far as is known.
_NOT_LOCAL = (
    "Attention", "LSTM", "GRU", "SimpleRNN", "Bidirectional", "Resizing", "Permute", "Traced",
    "TimeDistributed", "EinsumDense",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceptiveField:
    """The receptive field of an element of a feature map, in input elements, per axis.

    Attributes:
        size: the extent of the receptive field, padding included.
        stride: the distance between the fields of neighboring elements (effective stride); less
            than 1 after upsampling.
        start: the center of the first element's field. 0 is the center of the input's first
            element; negative values lie in the padding.
    """

    size: tuple[int, ...]
    stride: tuple[float, ...]
    start: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis: the first element's field is from `low` to `high`, the next is `stride` further."""

    low: Fraction
    high: Fraction
    stride: Fraction


_Fields: TypeAlias = tuple[_Axis, ...] | None


def receptive_fields(graph: Graph, shapes: tuple[Shape, ...]) -> tuple[ReceptiveField | None, ...]:
    """Compute the receptive field of each call's first output.

    A window with k taps, dilation d and stride s widens the field by d (k - 1) times the effective
    stride, which it then multiplies by s. Where branches merge, the field is the union of theirs.
    Branches that depend on the whole input (global pooling, as in squeeze-and-excitation) are
    ignored where they merge with a branch that has a receptive field.

    Args:
        graph: the network.
        shapes: the shape of each of its values, batch axes included.

    Returns:
        One field per call; None where an element depends on the whole input: after flattening,
        global pooling, attention and recurrent layers.

    References:
        Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks",
        Distill, 2019, equations 2 to 6.
    """
    from fractions import Fraction

    fields_of: dict[int, _Fields] = {}
    element = _Axis(Fraction(0), Fraction(0), Fraction(1))
    for value in graph.inputs:
        axes = len(shapes[value]) - 2
        fields_of[value] = (element,) * axes if axes > 0 else None
    result = []
    for call in graph.calls:
        (out, *_), inputs = call.outputs, graph.call_input_shapes(call, shapes)
        if isinstance(call.layer, Embedding):
            fields: _Fields = (element,) * (len(shapes[out]) - 2)
        else:
            fields = _propagate(call, fields_of, inputs, shapes[out])
        fields_of.update(dict.fromkeys(call.outputs, fields))
        result.append(_to_receptive_field(fields) if fields else None)
    return tuple(result)


def _to_receptive_field(fields: tuple[_Axis, ...]) -> ReceptiveField:
    return ReceptiveField(
        size=tuple(int(axis.high - axis.low) + 1 for axis in fields),
        stride=tuple(_number(axis.stride) for axis in fields),
        start=tuple(float((axis.low + axis.high) / 2) for axis in fields),
    )


def _number(value: Fraction) -> float:
    return int(value) if value.denominator == 1 else float(value)


def _propagate(
    call: Call, fields_of: dict[int, _Fields], inputs: Sequence[Shape], out: Shape
) -> _Fields:
    layer: Any = call.layer
    kind = type(layer).__name__
    fields = _union([fields_of[value] for value in call.inputs])
    is_reshaped = kind == "Operation" and layer.shape is not None
    if fields is None or is_reshaped or kind.endswith(_NOT_LOCAL):
        return None
    space, made = inputs[0][1:-1], out[1:-1]
    if kind.endswith("Transpose"):
        return tuple(
            _after_transposed(axis, n, m, (taps, stride), layer.padding)
            for axis, n, m, taps, stride in zip(
                fields, space, made, layer.kernel_size, layer.strides, strict=True
            )
        )
    window = getattr(layer, "kernel_size", getattr(layer, "pool_size", None))
    if window is not None:
        dilation = getattr(layer, "dilation_rate", (1,) * len(window))
        return tuple(
            _after_window(axis, n, m, (d * (taps - 1), stride), layer.padding)
            for axis, n, m, taps, stride, d in zip(
                fields, space, made, window, layer.strides, dilation, strict=True
            )
        )
    if kind.startswith(("ZeroPadding", "Cropping")):
        pads = layer.padding if kind.startswith("Zero") else layer.cropping
        sign = -1 if kind.startswith("Zero") else 1
        return tuple(
            _shifted(axis, sign * low * axis.stride)
            for axis, (low, _) in zip(fields, pads, strict=True)
        )
    if kind.startswith("UpSampling"):
        return tuple(
            _Axis(axis.low, axis.high, axis.stride / factor)
            for axis, factor in zip(fields, layer.size, strict=True)
        )
    local = len(out) == len(fields) + 2 and made == max(
        (shape[1:-1] for shape in inputs), default=made
    )
    return fields if local else None


def _union(fields: Sequence[_Fields]) -> _Fields:
    """The union of the fields of several branches; None if their strides differ."""
    local = [field for field in fields if field is not None]
    if not local or any(len(field) != len(local[0]) for field in local):
        return None
    union = []
    for axes in zip(*local, strict=True):
        if len({axis.stride for axis in axes}) > 1:
            return None
        low, high = min(axis.low for axis in axes), max(axis.high for axis in axes)
        union.append(_Axis(low, high, axes[0].stride))
    return tuple(union)


def _shifted(axis: _Axis, by: Fraction) -> _Axis:
    return _Axis(axis.low + by, axis.high + by, axis.stride)


def _after_window(axis: _Axis, n: int, out: int, window: tuple[int, int], padding: str) -> _Axis:
    """The field after a window of (extent - 1, stride)."""
    further, stride = window
    before = 0
    if padding == "same":
        before, _ = same_pads(n, out, further + 1, stride)
    elif padding == "causal":
        before = further
    low = axis.low - before * axis.stride
    return _Axis(low, axis.high + (further - before) * axis.stride, axis.stride * stride)


def _after_transposed(
    axis: _Axis, n: int, out: int, window: tuple[int, int], padding: str
) -> _Axis:
    """The field after a transposed convolution: an output depends on ⌈k / s⌉ input elements."""
    taps, stride = window
    before = max((n - 1) * stride + taps - out, 0) // 2 if padding == "same" else 0
    last = before // stride  # the last element that reaches the first of the output
    further = -(-taps // stride) - 1
    return _Axis(
        axis.low + (last - further) * axis.stride,
        axis.high + last * axis.stride,
        axis.stride / stride,
    )
