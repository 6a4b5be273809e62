"""Attention: scores of queries against keys, and sums of values by them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ._checks import positive
from ._layer import Layer, Shape, Weight


@dataclass(frozen=True, slots=True)
class MultiHeadAttention(Layer):
    """Attention in several heads, with projections; see `keras.layers.MultiHeadAttention`.

    Its inputs are query, value and, if it is not the value, key: (batch, time, features).

    Raises:
        ArgumentError: A size is not a positive integer.

    Examples:
        >>> MultiHeadAttention(4, 32).n_parameters((8, 64, 128), (8, 64, 128))
        66048

    References:
        Vaswani et al., "Attention is all you need", NeurIPS 2017.
    """

    num_heads: int
    key_dim: int
    value_dim: int | None = None
    use_bias: bool = True
    output_dim: int | None = None

    def __post_init__(self) -> None:
        positive("num_heads", self.num_heads)
        positive("key_dim", self.key_dim)

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return ((*inputs[0][:-1], self.output_dim or inputs[0][-1]),)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        query, value = inputs[:2]
        key = inputs[2] if len(inputs) > 2 else value
        heads, depth = self.num_heads, self.key_dim
        value_depth = self.value_dim or depth
        out = self.output_dim or query[-1]
        found = []
        for name, wide, size in (
            ("query", query[-1], depth),
            ("key", key[-1], depth),
            ("value", value[-1], value_depth),
        ):
            found.append(Weight(f"{name}_kernel", (wide, heads, size)))
            if self.use_bias:
                found.append(Weight(f"{name}_bias", (heads, size)))
        found.append(Weight("attention_output_kernel", (heads, value_depth, out)))
        if self.use_bias:
            found.append(Weight("attention_output_bias", (out,)))
        return tuple(found)

    def n_multiply_adds(self, *inputs: Shape) -> int:
        query, value = inputs[:2]
        key = inputs[2] if len(inputs) > 2 else value
        heads, depth = self.num_heads, self.key_dim
        value_depth = self.value_dim or depth
        places, sources = math.prod(query[:-1]), value[-2]
        projections = heads * (
            math.prod(query) * depth
            + math.prod(key) * depth
            + math.prod(value) * value_depth
            + places * value_depth * (self.output_dim or query[-1])
        )
        return projections + places * sources * heads * (depth + value_depth)


@dataclass(frozen=True, slots=True)
class Attention(Layer):
    """Softmax(query key^T) value, with no projection; see `keras.layers.Attention`.

    Examples:
        >>> Attention().output_shape((8, 10, 16), (8, 20, 16))
        (8, 10, 16)
    """

    use_scale: bool = False
    score_mode: str = "dot"

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return ((*inputs[0][:-1], inputs[1][-1]),)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:  # noqa: ARG002
        return (
            *((Weight("scale", ()),) if self.use_scale else ()),
            *((Weight("concat_score_weight", ()),) if self.score_mode == "concat" else ()),
        )

    def n_multiply_adds(self, *inputs: Shape) -> int:
        query, value = inputs[:2]
        scores = math.prod(query[:-1]) * value[-2]
        return scores * (value[-1] + (query[-1] if self.score_mode == "dot" else 0))


@dataclass(frozen=True, slots=True)
class AdditiveAttention(Layer):
    """Attention with tanh(query + key) scores; see `keras.layers.AdditiveAttention`.

    Examples:
        >>> AdditiveAttention().n_parameters((8, 10, 16), (8, 20, 16))
        16

    References:
        Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and
        translate", ICLR 2015.
    """

    use_scale: bool = True

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return ((*inputs[0][:-1], inputs[1][-1]),)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        return (Weight("scale", (inputs[0][-1],)),) if self.use_scale else ()

    def n_multiply_adds(self, *inputs: Shape) -> int:
        return math.prod(inputs[0][:-1]) * inputs[1][-2] * inputs[1][-1]


@dataclass(frozen=True, slots=True)
class EinsumDense(Layer):
    """A product written as an einsum equation; see `keras.layers.EinsumDense`.

    Attributes:
        equation: As Keras takes it, "abc,cd->abd".
        kernel_shape: The kernel's shape, as Keras works it out.
        bias_shape: The bias's shape; None without a bias.
        out_shape: The output's shape without the batch axis.

    Examples:
        >>> EinsumDense("ab,bc->ac", (16, 4), (4,), (4,)).n_multiply_adds((8, 16))
        512
    """

    equation: str
    kernel_shape: tuple[int, ...]
    bias_shape: tuple[int, ...] | None
    out_shape: tuple[Any, ...]
    activation: str | None = None

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        sizes = self._sizes(inputs[0])
        out = self.equation.split("->")[1]
        return (tuple(sizes[letter] for letter in out),)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:  # noqa: ARG002
        bias = () if self.bias_shape is None else (Weight("bias", self.bias_shape),)
        return (Weight("kernel", self.kernel_shape), *bias)

    def n_multiply_adds(self, *inputs: Shape) -> int:
        return math.prod(self._sizes(inputs[0]).values())

    def _sizes(self, shape: Shape) -> dict[str, int]:
        left, right = self.equation.split("->")[0].split(",")
        return dict(zip(left, shape, strict=True)) | dict(
            zip(right, self.kernel_shape, strict=True)
        )
