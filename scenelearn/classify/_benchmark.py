"""How many photos per second a classifier predicts on this machine."""

from __future__ import annotations

import io
import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scenelearn._checks import check_number
from scenelearn._display import html_text
from scenelearn._json import dataclass_json
from scenelearn._threads import n_threads
from scenelearn.classify._inputs import Source, load_source, resolve_photos
from scenelearn.errors import NoPhotosError
from scenelearn.samples._scenes import render_scenes

_MIN_RUNS = 6  # the fewest whose smallest and largest enclose the median in 95% of cases
_PER_CLASS = 2  # sample scenes per class, if no photos are given


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Benchmark:
    """How many photos per second a classifier decodes and predicts on this machine.

    Attributes:
        photos_per_second: the median over all batches, in one process.
        low: the lower end of the median's 95% confidence interval.
        high: its upper end.
        ms_per_request: the median time for a single photo, in milliseconds.
        batch_size: photos per batch.
        n_batches: how many batches were timed.
        n_cores: how many cores the process may use.
    """

    photos_per_second: float
    low: float
    high: float
    ms_per_request: float
    batch_size: int
    n_batches: int
    n_cores: int

    def __str__(self) -> str:
        cores = f"{self.n_cores} core{'s' if self.n_cores != 1 else ''}"
        return (
            f"{self.photos_per_second:,.0f} photos per second ({self.low:,.0f} to {self.high:,.0f})"
            f" in batches of {self.batch_size}, {self.ms_per_request:,.1f} ms for a single photo, "
            f"on {cores}"
        )

    def __repr__(self) -> str:
        return f"<Benchmark: {self}>"

    def _repr_html_(self) -> str:
        return html_text(self)

    def to_json(self) -> dict[str, Any]:
        """All fields as plain values."""
        return dataclass_json(self)


def measure_throughput(
    predict: Callable[[list[Any]], object], photos: Any, *, batch_size: int, seconds: float
) -> Benchmark:
    """Time batches and single photos in turn; see `Classifier.benchmark`.

    Args:
        predict: called with a list of photos.
        photos: as in `Classifier.predict`, or None for sample scenes.
        batch_size: photos per batch.
        seconds: how long to measure.

    Raises:
        ArgumentError: if `photos` has the wrong type, or `seconds` is not above 0.
        PathMissingError: if a path does not exist.
        PhotoError: if a photo cannot be read.
        NoPhotosError: if there is no photo.
    """
    check_number("seconds", seconds, low=0, open_low=True, advice="The default is 5.")
    few = render_scenes(_PER_CLASS) if photos is None else _read(photos, batch_size)
    batch = list(itertools.islice(itertools.cycle(few), batch_size))
    predict(batch)  # compiles the network, for batches and for single photos
    predict(batch[:1])
    rates: list[float] = []
    requests: list[float] = []
    end = time.perf_counter() + seconds
    while len(rates) < _MIN_RUNS or time.perf_counter() < end:
        rates.append(batch_size / _time(predict, batch))
        requests.append(_time(predict, batch[len(rates) % batch_size :][:1]))
    low, high = median_interval(rates)
    return Benchmark(
        photos_per_second=statistics.median(rates),
        low=low,
        high=high,
        ms_per_request=1000 * statistics.median(requests),
        batch_size=batch_size,
        n_batches=len(rates),
        n_cores=n_threads(),
    )


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% confidence interval of the median, for any distribution.

    Of n values, the number below the true median is binomial with p = 1/2. So the k-th smallest and
    the k-th largest enclose it with the probability that this number is from k to n − k.

    Args:
        values: independent measurements, at least 1. Below 6, the interval has a lower confidence.

    Returns:
        Two of the values.

    Example:
        >>> median_interval(range(1, 11))
        (2, 9)
    """
    ordered, n = sorted(values), len(values)
    n_ways = itertools.accumulate(math.comb(n, below) for below in range(n + 1))
    k = max(next(below for below, ways in enumerate(n_ways) if 40 * ways >= 2**n), 1)
    return ordered[k - 1], ordered[-k]


def _time(predict: Callable[[list[Any]], object], photos: list[Any]) -> float:
    start = time.perf_counter()
    predict(photos)
    return time.perf_counter() - start


def _read(photos: Any, n: int) -> list[Any]:
    few = [_load(source) for source in itertools.islice(resolve_photos(photos), n)]
    if not few:
        raise NoPhotosError(
            f"`photos` must contain at least one photo. Received: photos={photos!r:.200}. "
            "Leave it out to use sample scenes."
        )
    return few


def _load(source: Source) -> Any:
    """A photo as `predict` takes it; the content of a file keeps its name, for errors."""
    content = load_source(source)
    if not isinstance(content, bytes):
        return content
    file = io.BytesIO(content)
    file.name = source[0]
    return file
