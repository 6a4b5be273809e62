"""What a classifier says about one photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._display import printable
from scenelearn.classify._likeness import UNLIKE
from scenelearn.classify._sight import Sight
from scenelearn.classify._trust import Trust


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
        probability: of that class, in [0, 1], calibrated: of answers with 0.8, about 80 % are
            right.
        probabilities: of every class by name; they sum to 1.
        classes: the classes that it may be, the most probable first: of photos like those of the
            validation, a share of at least `coverage` has its true class here.
        coverage: what was asked for; None, and `classes` only `label`, where a classifier has
            nothing to say about it.
        typicality: the share of validation photos that lie as far from the training photos or
            farther, in (0, 1]; None where that is not known.
        is_unlike: whether the photo is unlike the training photos: its typicality is at most
            0.03. Then no class may be right.
        abstains: whether no single answer can be stood up for: `classes` holds several, or the
            photo is unlike.
    """

    source: str
    label: str
    probability: float
    probabilities: Probabilities
    classes: tuple[str, ...]
    coverage: float | None = None
    typicality: float | None = None
    is_unlike: bool = False
    abstains: bool = False

    def __str__(self) -> str:
        text = f"{printable(self.source)}: {printable(self.label)} ({self.probability:.1%})"
        if self.is_unlike:
            return f"{text}, but it is unlike the training photos"
        if len(self.classes) > 1:
            return f"{text}, or {', '.join(map(printable, self.classes[1:]))}"
        return text

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {
            "source": self.source,
            "label": self.label,
            "probability": self.probability,
            "probabilities": dict(self.probabilities),
            "classes": list(self.classes),
            "coverage": self.coverage,
            "typicality": self.typicality,
            "is_unlike": self.is_unlike,
            "abstains": self.abstains,
        }


def name_them(
    sources: list[str],
    seen: Sight,
    class_names: tuple[str, ...],
    trust: Trust | None,
    coverage: float | None,
) -> list[Prediction]:
    """Turn what the network makes of photos into predictions.

    Args:
        sources: n descriptions.
        seen: of n photos.
        class_names: the columns' names.
        trust: what the sets and the typicality come from, if it is known.
        coverage: of the sets; None where `trust` is.

    Returns:
        One prediction a photo.

    Raises:
        ArgumentError: if `coverage` is not between 0 and 1.
    """
    table = seen.probabilities
    sets = np.eye(len(class_names), dtype=bool)[table.argmax(axis=1)]
    typical: list[float | None] = [None] * len(sources)
    if trust is not None and coverage is not None:
        sets = trust.sets(table, coverage)
        typical = trust.typicality(seen).tolist()
    found = []
    for source, row, members, typicality in zip(sources, table, sets, typical, strict=True):
        order = np.argsort(-row, kind="stable")
        unlike = typicality is not None and typicality <= UNLIKE
        classes = tuple(class_names[k] for k in order if members[k])
        found.append(
            Prediction(
                source=source,
                label=class_names[order[0]],
                probability=float(row[order[0]]),
                probabilities=Probabilities(zip(class_names, map(float, row), strict=True)),
                classes=classes,
                coverage=None if trust is None else coverage,
                typicality=typicality,
                is_unlike=unlike,
                abstains=unlike or len(classes) != 1,
            )
        )
    return found
