"""The result of `estimate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scenelearn._checks import check_integer
from scenelearn._json import dataclass_json
from scenelearn._pandas import to_pandas
from scenelearn.errors import ArgumentError, UnknownLayerError
from scenelearn.sizing import _format
from scenelearn.sizing._bytes import format_bytes, parse_bytes
from scenelearn.sizing._derivation import derivation
from scenelearn.sizing._values import EstimateValues

_MAX_BATCH, _MAX_HEIGHT = 2**20, 16_384


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Estimate(EstimateValues):
    """The parameters, multiply-adds and memory of a network.

    Bytes are exact under the method. The "xla" method counts what XLA reserves for arrays. A
    process needs more: its own start (Python, Keras and JAX, some hundreds of MB) and the scratch
    memory of the kernels, for which the `resident` bytes add a measured margin.

    Attributes:
        name: the network's name.
        method: "textbook" or "xla".
        batch_size: samples per batch.
        input_shapes: the shapes of the inputs, batch axes included.
        optimizer: the optimizer's name.
        layers: one entry per layer call, in order.
        n_parameters: the number of parameters, trainable or not.
        n_trainable_parameters: the number of parameters that are trained.
        n_multiply_adds: multiply-adds of one forward pass over the batch; FLOPs are twice as many.
        parameter_bytes: the bytes of all parameters.
        prediction_bytes: peak memory of a prediction for the batch, with activations released
            after their last use.
        prediction_bytes_without_reuse: the same with all activations kept.
        prediction_peak_layer: the layer at which a prediction needs the most memory.
        training: peak memory of a training step, by what it holds.
        training_peak_layer: the layer at which a training step needs the most memory.
        prediction_timeline: the memory in use in a prediction, layer by layer.
        training_timeline: the memory in use in a training step, layer by layer.
        prediction_resident_bytes: with the "xla" method, an upper bound on the growth of the
            process's resident memory in a prediction: 100 MB plus 2.6 times XLA's arrays and the
            activations inside one call of its library. All of 27 measured steps needed less, the
            median one half (docs/results/resident_memory.json). None with the "textbook" method.
        training_resident_bytes: the same for a training step.
        note: where the estimate may not hold, in words: the "xla" method under versions of Keras or
            JAX for which it was not verified. Empty if it holds.
    """

    _reestimate: Callable[..., Estimate] = field(compare=False)

    # Questions about other sizes

    def fits(
        self, memory: int | str, batch_size: int | None = None, *, training: bool = True
    ) -> bool:
        """Return whether a step fits into an amount of memory.

        Args:
            memory: bytes, or text such as "8 GiB".
            batch_size: samples per batch; by default the estimate's.
            training: True for a training step, False for a prediction.

        Returns:
            Whether the step's bytes under this method do not exceed the memory.

        Raises:
            ArgumentError: if `memory` cannot be parsed, or `batch_size` is not a positive integer.
        """
        limit = parse_bytes(memory)
        if batch_size is None:
            batch_size = self.batch_size
        return self._step_bytes(check_integer("batch_size", batch_size, low=1), training) <= limit

    def max_batch(self, memory: int | str, *, training: bool = True) -> int:
        """Find the largest batch size that fits into an amount of memory.

        Args:
            memory: bytes, or text such as "8 GiB".
            training: True for a training step, False for a prediction.

        Returns:
            The batch size, at most 2^20: it fits, and the next larger one does not. 0 if not even
            a batch of one fits.

        Raises:
            ArgumentError: if `memory` cannot be parsed.

        Examples:
            >>> from scenelearn import sizing
            >>> estimate = sizing.estimate([sizing.Dense(10)], input_shape=(100,))
            >>> estimate.max_batch(100_000)
            208
        """
        limit = parse_bytes(memory)
        return _largest_that_fits(lambda n: self._step_bytes(n, training) <= limit, _MAX_BATCH)

    def max_image_size(self, memory: int | str, *, training: bool = True) -> tuple[int, int]:
        """Find the largest image of the same aspect ratio that fits into an amount of memory.

        Args:
            memory: bytes, or text such as "8 GiB".
            training: True for a training step, False for a prediction.

        Returns:
            (height, width) in pixels, at most 16,384 high; (0, 0) if no size fits. Sizes that are
            too small for the network, such as for a "valid" window, count as fitting.

        Raises:
            ArgumentError: if `memory` cannot be parsed, or the network does not have one image
                input.
        """
        limit = parse_bytes(memory)
        if len(self.input_shapes) != 1 or len(self.input_shapes[0]) != 4:
            raise ArgumentError(
                "`max_image_size` needs a network with one image input. Received: input shapes "
                f"{self.input_shapes}."
            )
        _, height, width, channels = self.input_shapes[0]

        def width_for(high: int) -> int:
            return max(1, round(high * width / height))

        def fits(high: int) -> bool:
            shape = (high, width_for(high), channels)
            try:
                other = self._reestimate(batch_size=self.batch_size, input_shape=shape)
            except (ArgumentError, UnknownLayerError):
                return high < height  # too small for the network, not too large for the memory
            return (other.training_bytes if training else other.prediction_bytes) <= limit

        largest = _largest_that_fits(fits, _MAX_HEIGHT)
        return (largest, width_for(largest)) if largest else (0, 0)

    def _step_bytes(self, batch_size: int, training: bool) -> int:
        other = self
        if batch_size != self.batch_size:
            other = self._reestimate(batch_size=batch_size)
        return other.training_bytes if training else other.prediction_bytes

    # Display

    def compare(self, other: Estimate) -> str:
        """Format this estimate next to another one.

        Args:
            other: an estimate of any network, by any method.

        Returns:
            Aligned text: one line per total, with the ratio of `other` to this estimate.

        Raises:
            ArgumentError: if `other` is not an estimate.
        """
        if not isinstance(other, Estimate):
            raise ArgumentError(
                f"`other` must be an Estimate. Received: {type(other).__name__}. Pass the result "
                "of sizing.estimate."
            )
        return _format.comparison(self, other)

    def derivation(self) -> str:
        """Write out the calculation step by step.

        Returns:
            Markdown with LaTeX: each layer's shape, parameters and activations, then the memory of
            prediction and training, in bytes and in MB (millions of bytes).
        """
        return derivation(self)

    def plot(self, *, training: bool = True) -> _format.Figure:
        """Plot the memory in use over a step, layer by layer.

        Args:
            training: True for a training step, False for a prediction.

        Returns:
            A figure that notebooks display; `str(figure)` is its HTML.
        """
        return _format.plot(self, self.training_timeline if training else self.prediction_timeline)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per layer call.

        The receptive field's `size` and `stride` are columns of their own.
        """
        return [
            {
                **dataclass_json(layer, omit=("receptive_field",)),
                "receptive_field": None if seen is None else list(seen.size),
                "effective_stride": None if seen is None else list(seen.stride),
            }
            for layer in self.layers
            for seen in (layer.receptive_field,)
        ]

    def to_pandas(self) -> Any:
        """Return the layers as a `pandas.DataFrame`, one row per layer call.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return to_pandas(self.to_rows())

    def to_json(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return dataclass_json(self)

    def __repr__(self) -> str:
        return (
            f"<Estimate: {self.name}, batch of {self.batch_size:,}: "
            f"{self.n_parameters:,} parameters, {self.n_multiply_adds:,} multiply-adds, "
            f"{format_bytes(self.prediction_bytes)} to predict, "
            f"{format_bytes(self.training_bytes)} to train ({self.method})>"
        )

    def __str__(self) -> str:
        """One line per layer, then the totals."""
        return _format.table(self)

    def _repr_html_(self) -> str:
        return _format.html(self)


def _largest_that_fits(fits: Callable[[int], bool], limit: int) -> int:
    """Return the largest n from 1 to `limit` that fits, by doubling and bisection; 0 if none does.

    Assumes that everything below a size that fits also fits.
    """
    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= limit and fits(high):
        low, high = high, high * 2
    high = min(high, limit + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
