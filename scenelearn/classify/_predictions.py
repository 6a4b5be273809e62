"""What a classifier says about one photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.data import printable


class Probabilities(dict[str, float]):
    """Class name to probability; as an array, the probabilities in the order of the classes.

    Example:
        >>> p = Probabilities(sea=0.75, street=0.25)
        >>> p["sea"], np.asarray(p).tolist()
        (0.75, [0.75, 0.25])
    """

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(list(self.values()), dtype=dtype or np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a classifier says about one photo.

    Attributes:
        source: the photo's path, or "bytes" or "array" with its number.
        label: name of the most probable class.
        probability: of that class, in [0, 1].
        probabilities: of every class by name; they sum to 1.
    """

    source: str
    label: str
    probability: float
    probabilities: Probabilities

    def __str__(self) -> str:
        return f"{printable(self.source)}: {self.label} ({self.probability:.1%})"

    def to_json(self) -> dict[str, Any]:
        """The four fields as plain values."""
        return {
            "source": self.source,
            "label": self.label,
            "probability": self.probability,
            "probabilities": dict(self.probabilities),
        }


def name_them(
    sources: list[str], table: npt.NDArray[np.float32], class_names: tuple[str, ...]
) -> list[Prediction]:
    """Turn rows of probabilities into predictions.

    Args:
        sources: n descriptions.
        table: (n, n_classes) float32.
        class_names: the columns' names.

    Returns:
        One prediction a row.
    """
    return [
        Prediction(
            source=source,
            label=class_names[int(row.argmax())],
            probability=float(row.max()),
            probabilities=Probabilities(zip(class_names, map(float, row), strict=True)),
        )
        for source, row in zip(sources, table, strict=True)
    ]
