"""The evidence for a prediction: where the network looked, and similar training photos."""

from __future__ import annotations

import base64
import html
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from scenelearn._checks import check_path
from scenelearn._display import printable
from scenelearn._io import atomic_write
from scenelearn.classify._neighbors import Neighbor
from scenelearn.classify._predictions import Prediction
from scenelearn.errors import ArgumentError

_ORANGE = np.array([255.0, 96.0, 0.0])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Explanation:
    """The evidence for the prediction of one photo.

    Attributes:
        prediction: the prediction.
        label: the class that is explained.
        image: (height, width, 3) uint8, the network's input.
        heatmap: (height, width) float32 in [0, 1], Grad-CAM: the evidence for `label` at each
            position; all 0 if there is none.
        neighbors: the most similar training photos, most similar first; empty if the classifier has
            no calibration.
    """

    prediction: Prediction
    label: str
    image: npt.NDArray[np.uint8]
    heatmap: npt.NDArray[np.float32]
    neighbors: tuple[Neighbor, ...]

    def __repr__(self) -> str:
        label = printable(self.label)
        return f"<Explanation of {label!r}: {self.prediction}, {len(self.neighbors)} neighbors>"

    def __str__(self) -> str:
        lines = [
            f"  {neighbor.similarity:+.2f}  {printable(neighbor.label)}: {printable(neighbor.path)}"
            for neighbor in self.neighbors
        ]
        title = ["Most similar training photos:"] if lines else []
        return "\n".join([str(self.prediction), *title, *lines])

    def to_json(self) -> dict[str, Any]:
        """The prediction, the heatmap as rows of numbers, and the neighbors."""
        return {
            "prediction": self.prediction.to_json(),
            "label": self.label,
            "heatmap": [[round(float(value), 4) for value in row] for row in self.heatmap],
            "neighbors": [neighbor.to_json() for neighbor in self.neighbors],
        }

    def picture(self) -> Image.Image:
        """The photo, and next to it in gray with the heatmap in orange."""
        gray = self.image.mean(axis=2, keepdims=True) * 0.8
        opacity = 0.7 * self.heatmap[..., None].astype(np.float64)
        overlay = (1 - opacity) * gray + opacity * _ORANGE
        return Image.fromarray(np.hstack([self.image, overlay.astype(np.uint8)]))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save `picture` as a PNG file, completely or not at all.

        Args:
            path: ends in ``.png``; an existing file is replaced.

        Returns:
            The path.

        Raises:
            ArgumentError: if `path` does not end in ``.png``, or cannot be written.
        """
        target = check_path("path", path, advice="Pass e.g. 'explanation.png'.")
        if target.suffix.lower() != ".png":
            raise ArgumentError(
                f"`path` must end in '.png'. Received: {str(target)!r}. "
                "Pass e.g. 'explanation.png'."
            )
        with atomic_write(target) as temporary:
            self.picture().save(temporary, "PNG")
        return target

    def _repr_html_(self) -> str:
        content = io.BytesIO()
        self.picture().save(content, "PNG")
        uri = "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")
        rows = "".join(
            f"<tr><td>{neighbor.similarity:+.2f}</td><td>{html.escape(printable(neighbor.label))}</td>"
            f"<td>{html.escape(printable(neighbor.path))}</td></tr>"
            for neighbor in self.neighbors
        )
        table = (
            "<table><thead><tr><th>similarity</th><th>class</th><th>training photo</th></tr>"
            f"</thead><tbody>{rows}</tbody></table>"
        )
        alt = f"The photo, and the evidence for {printable(self.label)} in orange"
        return (
            f"<figure><img src='{uri}' alt='{html.escape(alt, quote=True)}'><figcaption>"
            f"{html.escape(str(self.prediction))}</figcaption></figure>{table if rows else ''}"
        )
