"""Networks compared by their training memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scenelearn._checks import check_image_px, image_size
from scenelearn._pandas import to_pandas
from scenelearn.errors import ArgumentError
from scenelearn.sizing import _format
from scenelearn.sizing._bytes import format_bytes, parse_bytes
from scenelearn.sizing._estimate import estimate
from scenelearn.sizing._result import Estimate


@dataclass(frozen=True, slots=True, repr=False)
class NetworkComparison:
    """Networks by training memory, the cheapest first.

    Attributes:
        estimates: the estimate of each network, sorted by training bytes.
        memory_bytes: the amount of memory that `max_batches` refer to; None without one.
        max_batches: the largest training batch of each network in that memory; empty without one.
    """

    estimates: tuple[Estimate, ...]
    memory_bytes: int | None = None
    max_batches: tuple[int, ...] = ()

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one dictionary per network."""
        batches = self.max_batches or (None,) * len(self.estimates)
        return [
            {
                "name": network.name,
                "batch_size": network.batch_size,
                "n_parameters": network.n_parameters,
                "n_multiply_adds": network.n_multiply_adds,
                "prediction_bytes": network.prediction_bytes,
                "training_bytes": network.training_bytes,
                "max_batch": batch,
            }
            for network, batch in zip(self.estimates, batches, strict=True)
        ]

    def to_json(self) -> list[dict[str, Any]]:
        """Return one dictionary per network."""
        return self.to_rows()

    def to_pandas(self) -> Any:
        """Return a `pandas.DataFrame` with one row per network.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return to_pandas(self.to_rows())

    def __repr__(self) -> str:
        names = ", ".join(network.name for network in self.estimates)
        return f"<NetworkComparison: {len(self.estimates)} networks: {names}>"

    def __str__(self) -> str:
        """One line per network."""
        return _format.aligned(self._lines(), 1)

    def _repr_html_(self) -> str:
        return _format.html_table(self._lines())

    def _lines(self) -> list[tuple[str, ...]]:
        heading = ["network", "parameters", "multiply-adds", "prediction", "training step"]
        if self.memory_bytes is not None:
            heading.append(f"largest batch in {format_bytes(self.memory_bytes)}")
        lines = [tuple(heading)]
        for k, network in enumerate(self.estimates):
            line = (
                network.name,
                f"{network.n_parameters:,}",
                f"{network.n_multiply_adds:,}",
                format_bytes(network.prediction_bytes),
                format_bytes(network.training_bytes),
            )
            lines.append((*line, f"{self.max_batches[k]:,}") if self.max_batches else line)
        return lines


def compare(
    networks: Sequence[Any],
    *,
    memory: int | str | None = None,
    image_px: int | tuple[int, int] = 224,
    batch_size: int = 32,
    optimizer: Any = "adam",
    trainable: bool | str | None = None,
    method: str = "textbook",
) -> NetworkComparison:
    """Rank networks by the memory of a training step.

    Args:
        networks: what `estimate` takes: names of `keras.applications` ("mobilenet_v2", and
            MobileNets with a width, "mobilenet_v2_0.35"), Keras models, paths of `.keras` files or
            lists of layer descriptions.
        memory: bytes, or text such as "8 GiB", to also find the largest training batch of each
            network.
        image_px: the side of square images, or (height, width), in pixels.
        batch_size: samples per batch.
        optimizer: as for `estimate`.
        trainable: as for `estimate`.
        method: "textbook" or "xla".

    Returns:
        The networks, the cheapest to train first. No weights are created or downloaded.

    Raises:
        ArgumentError: if the list is empty, or an argument is out of range.
        BundleError: if a file is not a complete `.keras` file.
        PathMissingError: if a file does not exist.
        UnknownBackboneError: if a name is not in `keras.applications`.
        UnknownLayerError: if a network has a layer that cannot be sized.
    """
    if not isinstance(networks, Sequence) or isinstance(networks, str) or not networks:
        raise ArgumentError(
            "`networks` must be a list with at least one network: a name, a Keras model or a list "
            f"of layers. Received: networks={networks!r}."
        )
    limit = None if memory is None else parse_bytes(memory)
    size = image_size(check_image_px(image_px))
    estimates = [
        estimate(
            network,
            input_shape=(*size, 3),
            batch_size=batch_size,
            optimizer=optimizer,
            trainable=trainable,
            method=method,
        )
        for network in networks
    ]
    estimates.sort(key=lambda network: network.training_bytes)
    batches = () if limit is None else tuple(network.max_batch(limit) for network in estimates)
    return NetworkComparison(tuple(estimates), limit, batches)
