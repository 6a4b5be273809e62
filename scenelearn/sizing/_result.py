"""What a network costs: its rows, its totals, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scenelearn.errors import ArgumentError

from . import _show
from ._answers import largest_that_fits, scaled
from ._bytes import megabytes, parse_bytes
from ._layers import Shape
from ._memory import Moment, TrainingBytes
from ._receptive import ReceptiveField


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One call of a layer.

    Attributes:
        name: The layer's name; "outer/inner" in a nested model.
        kind: Its Keras class.
        input_shapes: What it reads, batch axes included.
        output_shape: What it makes, the first output where there are several.
        n_parameters: Its variables' numbers; 0 where a shared layer is called again.
        n_trainable: Those that this training would move.
        n_multiply_adds: Multiplications that are added up, over the whole batch.
        activation_bytes: The bytes of its outputs.
        receptive_field: How far an element of its output sees in the network's input, with the
            effective stride and the start; None where it sees no window of it.
    """

    name: str
    kind: str
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    n_parameters: int
    n_trainable: int
    n_multiply_adds: int
    activation_bytes: int
    receptive_field: ReceptiveField | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a network costs, before anything runs.

    Bytes are exact under the rule. The XLA rule says what XLA reserves for arrays. A process takes
    more: its own start (Python, Keras and JAX, some hundreds of MB) and what the kernels take while
    they run, for which the `resident` bytes leave a measured margin.

    Attributes:
        name: The network's name.
        rule: "textbook" or "xla".
        batch_size: Samples in a batch.
        input_shapes: The inputs' shapes, batch axes included.
        optimizer: The optimizer's name.
        rows: One for each call of a layer, in order.
        n_parameters: All variables' numbers, trainable or not.
        n_trainable: Those that this training would move.
        n_multiply_adds: Multiply-adds of one forward pass over the batch; a FLOP count is twice
            that.
        parameter_bytes: The bytes of all variables.
        prediction_bytes: A prediction for the batch, each map released after its last use.
        prediction_bytes_all_kept: The same with every map kept.
        prediction_peak_at: The layer at which a prediction needs most.
        training: A training step at its highest, part by part.
        training_peak_at: The layer at which a training step needs most.
        prediction_resident_bytes: Under the XLA rule, the most that a process's memory rises by for
            a prediction: 100 MB and 2.6 times XLA's arrays and the maps inside one call of its
            library. Of 27 measured steps all took less, in the median half of it
            (docs/results/resident.json). None under the textbook rule.
        training_resident_bytes: The same for a training step.
    """

    name: str
    rule: str
    batch_size: int
    input_shapes: tuple[Shape, ...]
    optimizer: str
    rows: tuple[Row, ...]
    n_parameters: int
    n_trainable: int
    n_multiply_adds: int
    parameter_bytes: int
    prediction_bytes: int
    prediction_bytes_all_kept: int
    prediction_peak_at: str
    training: TrainingBytes
    training_peak_at: str
    prediction_moments: tuple[Moment, ...] = field(repr=False)
    training_moments: tuple[Moment, ...] = field(repr=False)
    _again: Callable[..., Estimate] = field(repr=False, compare=False)
    prediction_resident_bytes: int | None = None
    training_resident_bytes: int | None = None

    @property
    def training_bytes(self) -> int:
        """A training step at its highest: the sum of `training`'s parts."""
        return self.training.total

    def __str__(self) -> str:
        """Two lines: size, and memory."""
        return (
            f"{self.name}: {self.n_parameters:,} parameters ({self.n_trainable:,} trained), "
            f"{self.n_multiply_adds:,} multiply-adds for a batch of {self.batch_size}\n"
            f"{megabytes(self.prediction_bytes)} to predict, {megabytes(self.training_bytes)} to "
            f"train with {self.optimizer} (rule: {self.rule})"
        )

    # What it answers

    def fits(
        self, memory: int | str, batch_size: int | None = None, *, training: bool = True
    ) -> bool:
        """Whether a step of this batch size fits into an amount of memory.

        Args:
            memory: Bytes, or text such as "8 GiB".
            batch_size: Another batch size than the estimate's.
            training: A training step; False for a prediction.

        Returns:
            Whether its bytes under this rule are no more than that.

        Raises:
            ArgumentError: `memory` is no amount, or the batch size not a positive integer.
        """
        return self._needs(batch_size or self.batch_size, training) <= parse_bytes(memory)

    def max_batch(self, memory: int | str, *, training: bool = True) -> int:
        """The largest batch that fits into an amount of memory.

        Args:
            memory: Bytes, or text such as "8 GiB".
            training: A training step; False for a prediction.

        Returns:
            A batch size, at most 2^20: that batch fits and the next larger one does not. 0 where
            not even a batch of one fits.

        Raises:
            ArgumentError: `memory` is no amount.

        Examples:
            >>> from scenelearn import sizing
            >>> estimate = sizing.estimate([sizing.Dense(10)], input_shape=(100,))
            >>> estimate.max_batch(100_000)
            208
        """
        limit = parse_bytes(memory)
        return largest_that_fits(lambda n: self._needs(n, training) <= limit, 2**20)

    def largest_image(self, memory: int | str, *, training: bool = True) -> tuple[int, int]:
        """The largest image that fits into an amount of memory, of the estimate's proportions.

        Args:
            memory: Bytes, or text such as "8 GiB".
            training: A training step; False for a prediction.

        Returns:
            (height, width) in pixels, up to 16,384 high; (0, 0) where none fits. Heights at which
            the network does not work (a window larger than its input, a Flatten before a Dense
            layer) do not count.

        Raises:
            ArgumentError: `memory` is no amount, or the network does not read one batch of images.
        """
        limit = parse_bytes(memory)
        if len(self.input_shapes) != 1 or len(self.input_shapes[0]) != 4:
            raise ArgumentError(
                "`largest_image` needs a network that reads one batch of images. Received: inputs "
                f"of shapes {self.input_shapes}."
            )
        _, height, width, channels = self.input_shapes[0]

        def fits(high: int) -> bool:
            shape = (high, scaled(high, height, width), channels)
            try:
                other = self._again(batch_size=self.batch_size, input_shape=shape)
            except ArgumentError:
                return high < height  # too small for the network, not too large for the memory
            needs = other.training_bytes if training else other.prediction_bytes
            return needs <= limit

        found = largest_that_fits(fits, 16_384)
        return (found, scaled(found, height, width)) if found else (0, 0)

    def _needs(self, batch_size: int, training: bool) -> int:
        other = self
        if batch_size != self.batch_size:
            other = self._again(batch_size=batch_size, input_shape=None)
        return other.training_bytes if training else other.prediction_bytes

    # How it is shown

    def derivation(self) -> str:
        """The calculation, step by step, as Markdown with LaTeX; every number is computed.

        Returns:
            The text: each layer's shape, parameters and map; then prediction and training by the
            textbook rule, in bytes and in MB (millions of bytes).
        """
        from ._derivation import derivation

        return derivation(self)

    def table(self) -> str:
        """One line for each layer and the totals, as aligned text."""
        return _show.table(self)

    def plot(self, *, training: bool = True) -> _show.Figure:
        """Memory over the course of a step, layer by layer.

        Args:
            training: A training step; False for a prediction.

        Returns:
            A figure: it shows itself in a notebook; `str(figure)` is its HTML.
        """
        return _show.plot(self, self.training_moments if training else self.prediction_moments)

    def compare(self, other: Estimate) -> str:
        """This estimate beside another, as aligned text.

        Args:
            other: Another estimate, of any network and rule.

        Returns:
            A line for each total, with the ratio of the other to this one.
        """
        return _show.beside(self, other)

    def to_json(self) -> dict[str, Any]:
        """All of it as dictionaries, lists, numbers and text."""
        return _show.as_json(self)

    def _repr_html_(self) -> str:
        return _show.html(self)
