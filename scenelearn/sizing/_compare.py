"""Networks ranked by what they cost."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scenelearn import _backend
from scenelearn.errors import ArgumentError, UnknownBackboneError

from . import _show
from ._bytes import megabytes, parse_bytes
from ._estimate import estimate
from ._result import Estimate
from ._unfilled import without_values

# "mobilenet_v2_0.35": a MobileNet of that width, which Keras calls `alpha`.
_WITH_WIDTH = re.compile(r"(?P<name>.*?)[_-](?P<width>\d+\.\d+)")


@dataclass(frozen=True, slots=True)
class Ranking:
    """Networks, the cheapest to train first.

    Attributes:
        estimates: What each costs, by training bytes.
        memory_bytes: The memory that was asked about; None if none was.
        max_batches: The largest training batch of each in that memory; empty without one.
    """

    estimates: tuple[Estimate, ...]
    memory_bytes: int | None
    max_batches: tuple[int, ...]

    def table(self) -> str:
        """One line for each network, as aligned text."""
        return _show.aligned(self._lines(), 1)

    def to_json(self) -> list[dict[str, Any]]:
        """A dictionary for each network."""
        batches = self.max_batches or (None,) * len(self.estimates)
        return [
            {
                "name": one.name,
                "batch_size": one.batch_size,
                "n_parameters": one.n_parameters,
                "n_multiply_adds": one.n_multiply_adds,
                "prediction_bytes": one.prediction_bytes,
                "training_bytes": one.training_bytes,
                "max_batch": batch,
            }
            for one, batch in zip(self.estimates, batches, strict=True)
        ]

    def __str__(self) -> str:
        """The table."""
        return self.table()

    def _repr_html_(self) -> str:
        return _show.plain_table(self._lines())

    def _lines(self) -> list[tuple[str, ...]]:
        head: tuple[str, ...] = (
            "network",
            "parameters",
            "multiply-adds",
            "to predict",
            "to train",
        )
        if self.memory_bytes is not None:
            head = (*head, f"largest batch in {megabytes(self.memory_bytes)}")
        lines: list[tuple[str, ...]] = [head]
        for place, one in enumerate(self.estimates):
            line = (
                one.name,
                f"{one.n_parameters:,}",
                f"{one.n_multiply_adds:,}",
                megabytes(one.prediction_bytes),
                megabytes(one.training_bytes),
            )
            lines.append((*line, f"{self.max_batches[place]:,}") if self.max_batches else line)
        return lines


def compare(
    networks: Sequence[Any],
    *,
    memory: int | str | None = None,
    image_px: int = 224,
    batch_size: int = 32,
    optimizer: Any = "adam",
    trainable: Any = None,
    rule: str = "textbook",
) -> Ranking:
    """Rank networks by the memory that training them takes.

    Args:
        networks: Names of `keras.applications` in any case ("mobilenet_v2", a MobileNet also with
            a width, "mobilenet_v2_0.35"), Keras models, or lists of layer descriptions.
        memory: Bytes or text such as "8 GiB": also find the largest training batch of each.
        image_px: Height and width of the images, in pixels.
        batch_size: Samples in a batch.
        optimizer: As for `estimate`.
        trainable: As for `estimate`.
        rule: "textbook" or "xla".

    Returns:
        The networks, the cheapest to train first. None of a name's weights is made or downloaded.

    Raises:
        ArgumentError: There is no network, or an argument is out of range.
        UnknownBackboneError: A name is not one of `keras.applications`.
        UnknownLayerError: A network cannot be sized.
    """
    if not networks or isinstance(networks, str):
        raise ArgumentError(
            "`networks` must be a list with at least one name, model or list of layers. "
            f"Received: networks={networks!r}."
        )
    limit = None if memory is None else parse_bytes(memory)
    found = []
    for network in networks:
        shape: tuple[int, ...] | None = (image_px, image_px, 3)
        model = network
        if isinstance(network, str):
            model, shape = application(network, image_px), None
        found.append(
            estimate(
                model,
                input_shape=shape,
                batch_size=batch_size,
                optimizer=optimizer,
                trainable=trainable,
                rule=rule,
            )
        )
    found.sort(key=lambda one: one.training_bytes)
    batches = () if limit is None else tuple(one.max_batch(limit) for one in found)
    return Ranking(tuple(found), limit, batches)


def application(name: str, image_px: int | None = None) -> Any:
    """A model of `keras.applications` with its top of 1,000 classes, and without any weight.

    Args:
        name: Its name in any case, with or without underscores: "mobilenet_v2", "ResNet50"; a
            MobileNet also with its width at the end, "mobilenet_v2_0.35".
        image_px: Height and width of its images; None for its own default.

    Returns:
        A Keras model to look at: its variables have shapes and no values.

    Raises:
        UnknownBackboneError: No model of that name, or not of that width.
        ArgumentError: The model does not work at that size.
    """
    keras = _backend.keras()
    kinds = {
        key.lower(): value
        for key, value in vars(keras.applications).items()
        if callable(value) and key[0].isupper()
    }
    kinds["mobilenetv1"] = kinds["mobilenet"]
    match = _WITH_WIDTH.fullmatch(name)
    wanted = (match["name"] if match else name).lower().replace("_", "").replace("-", "")
    if wanted not in kinds:
        raise UnknownBackboneError(
            f"No network of keras.applications is called {name!r}. There are: "
            f"{', '.join(sorted({value.__name__ for value in kinds.values()}))}."
        )
    width = {"alpha": float(match["width"])} if match else {}
    if match and ("alpha" not in inspect.signature(kinds[wanted]).parameters or not width["alpha"]):
        raise UnknownBackboneError(
            f"{kinds[wanted].__name__} has no width {match['width']}. Received: {name!r}. Leave "
            "the number out, or take a MobileNet with a width, e.g. 'mobilenet_v2_0.35'."
        )
    shape = None if image_px is None else (image_px, image_px, 3)
    try:
        with without_values(keras):
            return kinds[wanted](weights=None, input_shape=shape, **width)
    except ValueError as error:
        raise ArgumentError(f"{name} cannot read images of {image_px} px: {error}") from error
