"""Attention: scores of queries against keys, and sums of values by them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scenelearn.errors import ArgumentError

from ._checks import one_of, positive, rank
from ._layer import Layer, Shape, Weight


@dataclass(frozen=True, slots=True)
class MultiHeadAttention(Layer):
    """Attention in several heads, with projections; see `keras.layers.MultiHeadAttention`.

    Its inputs are query, value and, if it is not the value, key: (batch, time, features), or with
    more axes of places, as (batch, height, width, features).

    Attributes:
        num_heads: The heads.
        key_dim: The size of a query and of a key in each head.
        value_dim: The size of a value in each head; None for `key_dim`.
        use_bias: Whether the projections have biases.
        output_dim: What Keras calls output_shape: the last axis or axes of the output; None for
            the query's features.
        attention_axes: The axes over which places attend; None for all between batch and features.
        use_gate: Whether the heads' results are multiplied by a projection of the query.
        return_attention_scores: Whether the scores are a second output: (batch, heads, query
            places, key places). Keras has this in the call.

    Raises:
        ArgumentError: A size is not a positive integer, an axis is not one of places, or the
            inputs do not fit together.

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
        positive("num_heads", self.num_heads)
        positive("key_dim", self.key_dim)
        if self.value_dim is not None:
            positive("value_dim", self.value_dim)
        for size in _listed(self.output_dim) or ():
            positive("output_dim", size)

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        query, _, key = _three(self, inputs)
        axes = self._axes(query, key)
        out = (*query[:-1], *self._out(query))
        if not self.return_attention_scores:
            return (out,)
        rest = tuple(query[at] for at in range(len(query) - 1) if at not in axes)
        places, sources = (tuple(shape[at] for at in axes) for shape in (query, key))
        return out, (*rest, self.num_heads, *places, *sources)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        query, value, key = _three(self, inputs)
        depth, value_depth = self.key_dim, self.value_dim or self.key_dim
        parts = [("query", query[-1], depth), ("key", key[-1], depth)]
        if self.use_gate:
            parts.append(("gate", query[-1], value_depth))
        parts.append(("value", value[-1], value_depth))
        return (
            *_projections(parts, (self.num_heads,) * len(parts), self.use_bias),
            *_to_output(self.num_heads, value_depth, self._out(query), self.use_bias),
        )

    def n_multiply_adds(self, *inputs: Shape) -> int:
        query, value, key = _three(self, inputs)
        heads, depth = self.num_heads, self.key_dim
        value_depth = self.value_dim or depth
        places = math.prod(query[:-1])
        sources = math.prod(key[at] for at in self._axes(query, key))
        projections = heads * (
            math.prod(query) * (depth + (value_depth if self.use_gate else 0))
            + math.prod(key) * depth
            + math.prod(value) * value_depth
            + places * value_depth * math.prod(self._out(query))
        )
        return projections + places * sources * heads * (depth + value_depth)

    def _out(self, query: Shape) -> Shape:
        return _listed(self.output_dim) or query[-1:]

    def _axes(self, query: Shape, key: Shape) -> tuple[int, ...]:
        """The axes over which places attend, each counted from the front."""
        n = len(query)
        given = _listed(self.attention_axes)
        axes = tuple(range(1, n - 1)) if given is None else tuple(at % n for at in given)
        if any(at in {0, n - 1} for at in axes) or any(not -n <= at < n for at in given or ()):
            raise ArgumentError(
                "`attention_axes` must lie between the batch and the features. Received: "
                f"attention_axes={self.attention_axes!r} for a query of {n} axes."
            )
        apart = [at for at in range(n - 1) if at not in axes and query[at] != key[at]]
        if apart:
            raise ArgumentError(
                f"MultiHeadAttention needs a query and a key of one size on axis {apart[0]}, over "
                f"which nothing attends. Received: query {query} and key {key}."
            )
        return axes


@dataclass(frozen=True, slots=True)
class GroupQueryAttention(Layer):
    """Heads of queries that share heads of keys and values; see `keras.layers.GroupQueryAttention`.

    Its inputs are query, value and, if it is not the value, key: (batch, time, features).

    Attributes:
        head_dim: The size of a query, key and value in each head.
        num_query_heads: The heads of queries.
        num_key_value_heads: The heads of keys and values; divides the heads of queries.
        use_bias: Whether the projections have biases.
        use_gate: Whether the heads' results are multiplied by a projection of the query.
        return_attention_scores: Whether the scores are a second output: (batch, query heads,
            query time, key time). Keras has this in the call.

    Raises:
        ArgumentError: A size is not a positive integer, the heads do not divide, or the inputs do
            not fit together.

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
        positive("head_dim", self.head_dim)
        positive("num_query_heads", self.num_query_heads)
        positive("num_key_value_heads", self.num_key_value_heads)
        if self.num_query_heads % self.num_key_value_heads:
            raise ArgumentError(
                "`num_query_heads` must be a multiple of `num_key_value_heads`. Received: "
                f"num_query_heads={self.num_query_heads}, "
                f"num_key_value_heads={self.num_key_value_heads}."
            )

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        query, value, key = _three(self, inputs)
        rank("GroupQueryAttention", query, 3)
        if query[-1] != value[-1]:
            raise ArgumentError(
                "GroupQueryAttention needs a query and a value of as many features. Received: "
                f"query {query} and value {value}."
            )
        scores = (query[0], self.num_query_heads, query[1], key[1])
        return (query, scores) if self.return_attention_scores else (query,)

    def weights(self, *inputs: Shape) -> tuple[Weight, ...]:
        query, value, key = _three(self, inputs)
        depth, many, few = self.head_dim, self.num_query_heads, self.num_key_value_heads
        parts = [("query", query[-1], depth), ("key", key[-1], depth)]
        heads = [many, few]
        if self.use_gate:
            parts.append(("gate", query[-1], depth))
            heads.append(many)
        parts.append(("value", value[-1], depth))
        return (
            *_projections(parts, (*heads, few), self.use_bias),
            *_to_output(many, depth, query[-1:], self.use_bias),
        )

    def n_multiply_adds(self, *inputs: Shape) -> int:
        query, value, key = _three(self, inputs)
        depth, many, few = self.head_dim, self.num_query_heads, self.num_key_value_heads
        wide = math.prod(query) * depth * many * (3 if self.use_gate else 2)
        narrow = (math.prod(key) + math.prod(value)) * depth * few
        return wide + narrow + 2 * math.prod(query[:-1]) * key[1] * many * depth


@dataclass(frozen=True, slots=True)
class Attention(Layer):
    """Softmax(query key^T) value, with no projection; see `keras.layers.Attention`.

    Its inputs are query, value and, if it is not the value, key: (batch, time, features).

    Attributes:
        use_scale: Whether one learned number multiplies the scores.
        score_mode: "dot" for a product of query and key, "concat" for a sum of tanh(query + key),
            which is elementwise and counts no multiply-adds.
        return_attention_scores: Whether the scores are a second output: (batch, query time, key
            time). Keras has this in the call.

    Raises:
        ArgumentError: The way of scoring is unknown, or the inputs do not fit together.

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
        one_of("score_mode", self.score_mode, ("dot", "concat"))

    def output_shapes(self, *inputs: Shape) -> tuple[Shape, ...]:
        return _plain(self, inputs, self.return_attention_scores)

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

    Its inputs are query, value and, if it is not the value, key: (batch, time, features). The
    scores are elementwise work: only the weighted sum of the values counts multiply-adds.

    Attributes:
        use_scale: Whether a learned vector weighs the features of the scores.
        return_attention_scores: Whether the scores are a second output: (batch, query time, key
            time). Keras has this in the call.

    Raises:
        ArgumentError: The inputs do not fit together.

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
        return _plain(self, inputs, self.return_attention_scores)

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

    Raises:
        ArgumentError: The input's axes are not those of the equation.

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
        """The equation's three parts, "..." written out as digits: input, kernel, output."""
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


def _listed(value: int | Sequence[int] | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    return (value,) if isinstance(value, int) else tuple(value)


def _three(layer: Layer, inputs: tuple[Shape, ...]) -> tuple[Shape, Shape, Shape]:
    """Query, value and key, the value where none is given; masks may follow and cost nothing."""
    kind = type(layer).__name__
    if len(inputs) < 2:
        raise ArgumentError(
            f"{kind} needs a query, a value and, if it is not the value, a key. "
            f"Received: {len(inputs)} inputs."
        )
    query, value, key = (*inputs, inputs[1])[:3]
    if not len(query) == len(value) == len(key) or len(query) < 3:
        raise ArgumentError(
            f"{kind} needs inputs of at least three axes, all of as many: (batch, time, features). "
            f"Received: query {query}, value {value}, key {key}."
        )
    if value[:-1] != key[:-1] or query[0] != value[0]:
        raise ArgumentError(
            f"{kind} needs one batch size, and a value and a key of as many places. "
            f"Received: query {query}, value {value}, key {key}."
        )
    return query, value, key


def _plain(layer: Layer, inputs: tuple[Shape, ...], with_scores: bool) -> tuple[Shape, ...]:
    """The outputs of attention without projections."""
    query, value, key = _three(layer, inputs)
    if query[-1] != key[-1] or query[:-2] != key[:-2]:
        raise ArgumentError(
            f"{type(layer).__name__} needs a query and a key that differ in time alone. "
            f"Received: query {query} and key {key}."
        )
    out = (*query[:-1], value[-1])
    return (out, (*query[:-1], key[-2])) if with_scores else (out,)


def _projections(
    parts: Sequence[tuple[str, int, int]], heads: Sequence[int], use_bias: bool
) -> tuple[Weight, ...]:
    """A kernel and a bias for each (name, features, size of a head), with that many heads."""
    found = []
    for (name, wide, size), n in zip(parts, heads, strict=True):
        found.append(Weight(f"{name}_kernel", (wide, n, size)))
        if use_bias:
            found.append(Weight(f"{name}_bias", (n, size)))
    return tuple(found)


def _to_output(heads: int, size: int, out: Shape, use_bias: bool) -> tuple[Weight, ...]:
    kernel = Weight("attention_output_kernel", (heads, size, *out))
    return (kernel, Weight("attention_output_bias", out)) if use_bias else (kernel,)
