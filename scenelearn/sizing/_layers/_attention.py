"""Attention layers, and dense layers written as einsum equations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scenelearn._checks import check_choice, check_integer
from scenelearn.errors import ArgumentError
from scenelearn.sizing._layers._checks import check_positive, check_rank
from scenelearn.sizing._layers._layer import Layer, Shape, Weight


@dataclass(frozen=True, slots=True)
class MultiHeadAttention(Layer):
    """Multi-head attention with projections; see `keras.layers.MultiHeadAttention`.

    The inputs are query, value and, optionally, key, of shape (batch, time, features) or with more
    position axes, such as (batch, height, width, features).

    Attributes:
        num_heads: the number of heads.
        key_dim: the size of queries and keys per head.
        value_dim: the size of values per head; None for `key_dim`.
        use_bias: whether the projections have biases.
        output_dim: the last axis or axes of the output, Keras' `output_shape`; None for the
            features of the query.
        attention_axes: the axes to attend over; None for all axes between batch and features.
        use_gate: whether the heads' outputs are multiplied by a projection of the query.
        return_attention_scores: whether the scores are a second output, (batch, heads, query
            positions, key positions). In Keras, an argument of the call.

    Raises:
        ArgumentError: if a size is not a positive integer, an attention axis is the batch or
            feature axis, or the input shapes do not match.

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
    output_dim: int | tuple[int, ...] | None = None
    attention_axes: int | tuple[int, ...] | None = None
    use_gate: bool = False
    return_attention_scores: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "num_heads", "key_dim")
        if self.value_dim is not None:
            check_positive(self, "value_dim")
        for size in _as_tuple(self.output_dim) or ():
            check_integer("output_dim", size, low=1)

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        query, _, key = _query_value_key(self, inputs)
        axes = self._axes(query, key)
        out = (*query[:-1], *self._output_features(query))
        if not self.return_attention_scores:
            return (out,)
        rest = tuple(query[at] for at in range(len(query) - 1) if at not in axes)
        positions, sources = (tuple(shape[at] for at in axes) for shape in (query, key))
        return out, (*rest, self.num_heads, *positions, *sources)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        query, value, key = _query_value_key(self, inputs)
        depth, value_depth = self.key_dim, self.value_dim or self.key_dim
        parts = [("query", query[-1], depth), ("key", key[-1], depth)]
        if self.use_gate:
            parts.append(("gate", query[-1], value_depth))
        parts.append(("value", value[-1], value_depth))
        return (
            *_projections(parts, (self.num_heads,) * len(parts), self.use_bias),
            *_output_projection(
                self.num_heads, value_depth, self._output_features(query), self.use_bias
            ),
        )

    def n_multiply_adds(self, *inputs: Shape) -> int:
        query, value, key = _query_value_key(self, inputs)
        heads, depth = self.num_heads, self.key_dim
        value_depth = self.value_dim or depth
        positions = math.prod(query[:-1])
        sources = math.prod(key[at] for at in self._axes(query, key))
        projections = heads * (
            math.prod(query) * (depth + (value_depth if self.use_gate else 0))
            + math.prod(key) * depth
            + math.prod(value) * value_depth
            + positions * value_depth * math.prod(self._output_features(query))
        )
        return projections + positions * sources * heads * (depth + value_depth)

    def _output_features(self, query: Shape) -> Shape:
        return _as_tuple(self.output_dim) or query[-1:]

    def _axes(self, query: Shape, key: Shape) -> tuple[int, ...]:
        """The axes to attend over, as non-negative numbers."""
        n = len(query)
        given = _as_tuple(self.attention_axes)
        axes = tuple(range(1, n - 1)) if given is None else tuple(at % n for at in given)
        if any(at in {0, n - 1} for at in axes) or any(not -n <= at < n for at in given or ()):
            raise ArgumentError(
                "`attention_axes` must lie between the batch and the feature axis. Received: "
                f"attention_axes={self.attention_axes!r} for a query with {n} axes."
            )
        unequal = [at for at in range(n - 1) if at not in axes and query[at] != key[at]]
        if unequal:
            raise ArgumentError(
                "MultiHeadAttention needs a query and a key of equal size along axes that are not "
                f"attended over. Axis {unequal[0]} differs. Received: query {query}, key {key}."
            )
        return axes


@dataclass(frozen=True, slots=True)
class GroupQueryAttention(Layer):
    """Grouped-query attention; see `keras.layers.GroupQueryAttention`.

    The inputs are query, value and, optionally, key, of shape (batch, time, features).

    Attributes:
        head_dim: the size of queries, keys and values per head.
        num_query_heads: the number of query heads.
        num_key_value_heads: the number of key and value heads; must divide `num_query_heads`.
        use_bias: whether the projections have biases.
        use_gate: whether the heads' outputs are multiplied by a projection of the query.
        return_attention_scores: whether the scores are a second output, (batch, query heads,
            query time, key time). In Keras, an argument of the call.

    Raises:
        ArgumentError: if a size is not a positive integer, the numbers of heads do not divide, or
            the input shapes do not match.

    Examples:
        >>> GroupQueryAttention(32, 4, 2).n_parameters((8, 64, 128), (8, 64, 128))
        49536

    References:
        Ainslie et al., "GQA: training generalized multi-query transformer models from multi-head
        checkpoints", EMNLP 2023.
    """

    head_dim: int
    num_query_heads: int
    num_key_value_heads: int
    use_bias: bool = True
    use_gate: bool = False
    return_attention_scores: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "head_dim", "num_query_heads", "num_key_value_heads")
        if self.num_query_heads % self.num_key_value_heads:
            raise ArgumentError(
                "`num_query_heads` must be a multiple of `num_key_value_heads`. Received: "
                f"num_query_heads={self.num_query_heads}, "
                f"num_key_value_heads={self.num_key_value_heads}."
            )

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        query, value, key = _query_value_key(self, inputs)
        check_rank("GroupQueryAttention", query, 3)
        if query[-1] != value[-1]:
            raise ArgumentError(
                "GroupQueryAttention needs a query and a value with equally many features. "
                f"Received: query {query} and value {value}."
            )
        scores = (query[0], self.num_query_heads, query[1], key[1])
        return (query, scores) if self.return_attention_scores else (query,)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        query, value, key = _query_value_key(self, inputs)
        depth, many, few = self.head_dim, self.num_query_heads, self.num_key_value_heads
        parts = [("query", query[-1], depth), ("key", key[-1], depth)]
        heads = [many, few]
        if self.use_gate:
            parts.append(("gate", query[-1], depth))
            heads.append(many)
        parts.append(("value", value[-1], depth))
        return (
            *_projections(parts, (*heads, few), self.use_bias),
            *_output_projection(many, depth, query[-1:], self.use_bias),
        )

    def n_multiply_adds(self, *inputs: Shape) -> int:
        query, value, key = _query_value_key(self, inputs)
        depth, many, few = self.head_dim, self.num_query_heads, self.num_key_value_heads
        wide = math.prod(query) * depth * many * (3 if self.use_gate else 2)
        narrow = (math.prod(key) + math.prod(value)) * depth * few
        return wide + narrow + 2 * math.prod(query[:-1]) * key[1] * many * depth


@dataclass(frozen=True, slots=True)
class Attention(Layer):
    """Softmax(query key^T) value, without projections; see `keras.layers.Attention`.

    The inputs are query, value and, optionally, key, of shape (batch, time, features).

    Attributes:
        use_scale: whether a learned factor multiplies the scores.
        score_mode: "dot" for the product of query and key, "concat" for a sum of tanh(query + key),
            which is elementwise and counts no multiply-adds.
        return_attention_scores: whether the scores are a second output, (batch, query time, key
            time). In Keras, an argument of the call.

    Raises:
        ArgumentError: if the score mode is unknown, or the input shapes do not match.

    Examples:
        >>> Attention().output_shape((8, 10, 16), (8, 20, 16))
        (8, 10, 16)

    References:
        Luong, Pham and Manning, "Effective approaches to attention-based neural machine
        translation", EMNLP 2015.
    """

    use_scale: bool = False
    score_mode: str = "dot"
    return_attention_scores: bool = False

    def __post_init__(self) -> None:
        check_choice("score_mode", self.score_mode, ("dot", "concat"))

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return _output_shapes(self, inputs, self.return_attention_scores)

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

    The inputs are query, value and, optionally, key, of shape (batch, time, features). The scores
    are elementwise; only the weighted sum of the values counts multiply-adds.

    Attributes:
        use_scale: whether a learned vector weights the features in the scores.
        return_attention_scores: whether the scores are a second output, (batch, query time, key
            time). In Keras, an argument of the call.

    Raises:
        ArgumentError: if the input shapes do not match.

    Examples:
        >>> AdditiveAttention().n_parameters((8, 10, 16), (8, 20, 16))
        16

    References:
        Bahdanau, Cho and Bengio, "Neural machine translation by jointly learning to align and
        translate", ICLR 2015.
    """

    use_scale: bool = True
    return_attention_scores: bool = False

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return _output_shapes(self, inputs, self.return_attention_scores)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        return (Weight("scale", (inputs[0][-1],)),) if self.use_scale else ()

    def n_multiply_adds(self, *inputs: Shape) -> int:
        return math.prod(inputs[0][:-1]) * inputs[1][-2] * inputs[1][-1]


@dataclass(frozen=True, slots=True)
class EinsumDense(Layer):
    """A dense layer written as an einsum equation; see `keras.layers.EinsumDense`.

    Attributes:
        equation: the equation in Keras' notation, such as "abc,cd->abd".
        kernel_shape: the kernel's shape, which Keras infers.
        bias_shape: the bias's shape; None without a bias.

    Raises:
        ArgumentError: if the input does not have the axes of the equation.

    Examples:
        >>> EinsumDense("ab,bc->ac", (16, 4), (4,)).n_multiply_adds((8, 16))
        512
    """

    equation: str
    kernel_shape: tuple[int, ...]
    bias_shape: tuple[int, ...] | None
    activation: str | None = None

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        sizes = self._sizes(inputs[0])
        return (tuple(sizes[letter] for letter in self._letters(inputs[0])[2]),)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:  # noqa: ARG002
        bias = () if self.bias_shape is None else (Weight("bias", self.bias_shape),)
        return (Weight("kernel", self.kernel_shape), *bias)

    def n_multiply_adds(self, *inputs: Shape) -> int:
        return math.prod(self._sizes(inputs[0]).values())

    def _sizes(self, shape: Shape) -> dict[str, int]:
        left, right, _ = self._letters(shape)
        return dict(zip(left, shape, strict=True)) | dict(
            zip(right, self.kernel_shape, strict=True)
        )

    def _letters(self, shape: Shape) -> tuple[str, str, str]:
        """The axes of input, kernel and output, with "..." written out as digits."""
        both, _, out = self.equation.replace(" ", "").partition("->")
        left, _, right = both.partition(",")
        dots = "".join(str(at) for at in range(len(shape) - len(left.replace("...", ""))))
        left = left.replace("...", dots)
        if len(left) != len(shape):
            raise ArgumentError(
                f"EinsumDense needs an input with the axes of {self.equation!r}. "
                f"Received: shape={shape}."
            )
        return left, right, out.replace("...", dots)


def _as_tuple(value: int | Sequence[int] | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    return (value,) if isinstance(value, int) else tuple(value)


def _query_value_key(layer: Layer, inputs: tuple[Shape, ...]) -> tuple[Shape, Shape, Shape]:
    """The shapes of query, value and key (by default the value); masks may follow at no cost."""
    kind = type(layer).__name__
    if len(inputs) < 2:
        raise ArgumentError(
            f"{kind} needs a query, a value and, optionally, a key. Received: {len(inputs)} input."
        )
    query, value, key = (*inputs, inputs[1])[:3]
    if not len(query) == len(value) == len(key) or len(query) < 3:
        raise ArgumentError(
            f"{kind} needs inputs with equally many axes, at least (batch, time, features). "
            f"Received: query {query}, value {value}, key {key}."
        )
    if value[:-1] != key[:-1] or query[0] != value[0]:
        raise ArgumentError(
            f"{kind} needs equal batch sizes, and a value and a key of equal length. "
            f"Received: query {query}, value {value}, key {key}."
        )
    return query, value, key


def _output_shapes(layer: Layer, inputs: tuple[Shape, ...], with_scores: bool) -> tuple[Shape, ...]:
    """The output shapes of attention without projections."""
    query, value, key = _query_value_key(layer, inputs)
    if query[-1] != key[-1] or query[:-2] != key[:-2]:
        raise ArgumentError(
            f"{type(layer).__name__} needs a query and a key that differ in length only. "
            f"Received: query {query} and key {key}."
        )
    out = (*query[:-1], value[-1])
    return (out, (*query[:-1], key[-2])) if with_scores else (out,)


def _projections(
    parts: Sequence[tuple[str, int, int]], heads: Sequence[int], use_bias: bool
) -> tuple[Weight, ...]:
    """A kernel and a bias for each (name, features, head size), with that many heads."""
    weights = []
    for (name, features, size), n in zip(parts, heads, strict=True):
        weights.append(Weight(f"{name}_kernel", (features, n, size)))
        if use_bias:
            weights.append(Weight(f"{name}_bias", (n, size)))
    return tuple(weights)


def _output_projection(heads: int, size: int, out: Shape, use_bias: bool) -> tuple[Weight, ...]:
    kernel = Weight("attention_output_kernel", (heads, size, *out))
    return (kernel, Weight("attention_output_bias", out)) if use_bias else (kernel,)
