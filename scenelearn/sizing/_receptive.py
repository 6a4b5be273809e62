"""How far each value of a network sees: receptive field, effective stride and start, by axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ._arithmetic import same_pads
from ._graph import Call, Graph
from ._layers import Embedding, Shape

if TYPE_CHECKING:
    from fractions import Fraction

_NOT_LOCAL = ("Attention", "LSTM", "GRU", "SimpleRNN", "Bidirectional", "Resizing", "Permute")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceptiveField:
    """What one element of a map depends on, in elements of the input, one number for each axis.

    Attributes:
        size: How many elements in a row it sees, padding included.
        stride: How far apart the fields of neighboring elements are (effective stride); less
            than 1 after upsampling.
        start: The middle of the first element's field; 0 is the middle of the input's first
            element, and less than 0 lies in the padding.
    """

    size: tuple[int, ...]
    stride: tuple[float, ...]
    start: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis: the first element sees from `low` to `high`, the next lies `stride` further."""

    low: Fraction
    high: Fraction
    stride: Fraction


_Seen: TypeAlias = tuple[_Axis, ...] | None


def receptive_fields(graph: Graph, shapes: tuple[Shape, ...]) -> tuple[ReceptiveField | None, ...]:
    """The receptive field of each call's first output.

    With k taps d apart and stride s, a window widens the field by d (k - 1) times the stride so
    far, which it then multiplies by s. Where branches meet, the field is what any of them sees.
    What comes by way of the whole map (global pooling, as in squeeze-and-excitation) is left out
    where a branch with a field of its own meets it.

    Args:
        graph: The network.
        shapes: The shape of each of its values, batch axes included.

    Returns:
        One for each call; None where an element sees no window of one input: after flattening,
        global pooling, attention and recurrence.

    References:
        Araujo, Norris and Sim, "Computing receptive fields of convolutional neural networks",
        Distill, 2019, equations 2 to 6.
    """
    from fractions import Fraction

    seen: dict[int, _Seen] = {}
    one = _Axis(Fraction(0), Fraction(0), Fraction(1))
    for value in graph.inputs:
        axes = len(shapes[value]) - 2
        seen[value] = (one,) * axes if axes > 0 else None
    found = []
    for call in graph.calls:
        (out, *_), reads = call.outputs, graph.reads(call, shapes)
        if isinstance(call.layer, Embedding):
            fields: _Seen = (one,) * (len(shapes[out]) - 2)
        else:
            fields = _after(call, seen, reads, shapes[out])
        seen.update(dict.fromkeys(call.outputs, fields))
        found.append(_described(fields) if fields else None)
    return tuple(found)


def _described(fields: tuple[_Axis, ...]) -> ReceptiveField:
    return ReceptiveField(
        size=tuple(int(axis.high - axis.low) + 1 for axis in fields),
        stride=tuple(_number(axis.stride) for axis in fields),
        start=tuple(float((axis.low + axis.high) / 2) for axis in fields),
    )


def _number(value: Fraction) -> float:
    return int(value) if value.denominator == 1 else float(value)


def _after(call: Call, seen: dict[int, _Seen], reads: Sequence[Shape], out: Shape) -> _Seen:
    layer: Any = call.layer
    kind = type(layer).__name__
    fields = _met([seen[value] for value in call.inputs])
    if fields is None or kind.endswith(_NOT_LOCAL):
        return None
    space, made = reads[0][1:-1], out[1:-1]
    if kind.endswith("Transpose"):
        return tuple(
            _spread(axis, n, m, (taps, stride), layer.padding)
            for axis, n, m, taps, stride in zip(
                fields, space, made, layer.kernel_size, layer.strides, strict=True
            )
        )
    window = getattr(layer, "kernel_size", getattr(layer, "pool_size", None))
    if window is not None:
        dilation = getattr(layer, "dilation_rate", (1,) * len(window))
        return tuple(
            _through(axis, n, m, (d * (taps - 1), stride), layer.padding)
            for axis, n, m, taps, stride, d in zip(
                fields, space, made, window, layer.strides, dilation, strict=True
            )
        )
    if kind.startswith(("ZeroPadding", "Cropping")):
        sides = layer.padding if kind.startswith("Zero") else layer.cropping
        sign = -1 if kind.startswith("Zero") else 1
        return tuple(
            _moved(axis, sign * low * axis.stride)
            for axis, (low, _) in zip(fields, sides, strict=True)
        )
    if kind.startswith("UpSampling"):
        return tuple(
            _Axis(axis.low, axis.high, axis.stride / factor)
            for axis, factor in zip(fields, layer.size, strict=True)
        )
    local = len(out) == len(fields) + 2 and made == max((one[1:-1] for one in reads), default=made)
    return fields if local else None


def _met(fields: Sequence[_Seen]) -> _Seen:
    """What any of several branches sees; None if their elements lie at different distances."""
    local = [one for one in fields if one is not None]
    if not local or any(len(one) != len(local[0]) for one in local):
        return None
    met = []
    for axes in zip(*local, strict=True):
        if len({axis.stride for axis in axes}) > 1:
            return None
        low, high = min(axis.low for axis in axes), max(axis.high for axis in axes)
        met.append(_Axis(low, high, axes[0].stride))
    return tuple(met)


def _moved(axis: _Axis, by: Fraction) -> _Axis:
    return _Axis(axis.low + by, axis.high + by, axis.stride)


def _through(axis: _Axis, n: int, out: int, reach: tuple[int, int], padding: str) -> _Axis:
    """After a window that reaches so many elements further, at every so many places."""
    further, stride = reach
    before = 0
    if padding == "same":
        before, _ = same_pads(n, out, further + 1, stride)
    elif padding == "causal":
        before = further
    low = axis.low - before * axis.stride
    return _Axis(low, axis.high + (further - before) * axis.stride, axis.stride * stride)


def _spread(axis: _Axis, n: int, out: int, window: tuple[int, int], padding: str) -> _Axis:
    """After a transposed convolution: ⌈k / s⌉ elements of its input reach one of its output."""
    taps, stride = window
    before = max((n - 1) * stride + taps - out, 0) // 2 if padding == "same" else 0
    last = before // stride  # the last element that reaches the first of the output
    further = -(-taps // stride) - 1
    return _Axis(
        axis.low + (last - further) * axis.stride,
        axis.high + last * axis.stride,
        axis.stride / stride,
    )
