"""What an answer rests on: where the network looked, and which training photos are near."""

from __future__ import annotations

import base64
import html
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from scenelearn._backend import keras
from scenelearn._display import printable
from scenelearn._io import atomic_write
from scenelearn.classify._gallery import Neighbor
from scenelearn.classify._gradient import input_gradient
from scenelearn.classify._predictions import Prediction
from scenelearn.classify._sight import map_layers
from scenelearn.classify._views import entrance, is_mirrored
from scenelearn.errors import ArgumentError

_GLOW = np.array([255.0, 96.0, 0.0])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """Why a photo got its answer.

    Attributes:
        prediction: the answer.
        label: the class that is explained.
        image: (px, px, 3) uint8, what the network saw.
        heat: (px, px) float32 in [0, 1], Grad-CAM: how much each place spoke for `label`; all 0
            where none did.
        nearest: the most similar training photos, the most similar first; empty where the
            classifier knows none.
    """

    prediction: Prediction
    label: str
    image: npt.NDArray[np.uint8]
    heat: npt.NDArray[np.float32]
    nearest: tuple[Neighbor, ...]

    def __str__(self) -> str:
        near = "".join(
            f"\n  {one.similarity:+.2f}  {printable(one.label)}: {printable(one.path)}"
            for one in self.nearest
        )
        return f"{self.prediction}" + (f"\nMost similar training photos:{near}" if near else "")

    def to_json(self) -> dict[str, Any]:
        """The answer, the heat as rows of numbers, and the nearest photos."""
        return {
            "prediction": self.prediction.to_json(),
            "label": self.label,
            "heat": [[round(float(value), 4) for value in row] for row in self.heat],
            "nearest": [
                {"path": one.path, "label": one.label, "similarity": one.similarity}
                for one in self.nearest
            ],
        }

    def picture(self) -> Image.Image:
        """The photo beside itself in gray with the heat in orange, (2 px wide, px high)."""
        gray = self.image.mean(axis=2, keepdims=True) * 0.8
        share = 0.7 * self.heat[..., None].astype(np.float64)
        glowing = (1 - share) * gray + share * _GLOW
        return Image.fromarray(np.hstack([self.image, glowing.astype(np.uint8)]))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save `picture` as a PNG file, whole or not at all.

        Args:
            path: ends in ``.png``; an existing file is replaced.

        Returns:
            The path.

        Raises:
            ArgumentError: if `path` does not end in ``.png``, or cannot be a file.
        """
        target = Path(path).expanduser()
        if target.suffix.lower() != ".png":
            raise ArgumentError(
                f"`path` must end in '.png'. Received: {str(target)!r}. Pass e.g. 'why.png'."
            )
        with atomic_write(target) as temporary:
            self.picture().save(temporary, "PNG")
        return target

    def _repr_html_(self) -> str:
        content = io.BytesIO()
        self.picture().save(content, "PNG")
        uri = "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")
        rows = "".join(
            f"<tr><td>{one.similarity:+.2f}</td><td>{html.escape(one.label)}</td>"
            f"<td>{html.escape(printable(one.path))}</td></tr>"
            for one in self.nearest
        )
        table = (
            "<table><thead><tr><th>similarity</th><th>class</th><th>training photo</th></tr>"
            f"</thead><tbody>{rows}</tbody></table>"
        )
        alt = f"The photo, and in orange what speaks for {self.label}"
        return (
            f"<figure><img src='{uri}' alt='{html.escape(alt, quote=True)}'><figcaption>"
            f"{html.escape(str(self.prediction))}</figcaption></figure>{table if rows else ''}"
        )


class Cam(NamedTuple):
    """A network in two parts, parted at the backbone's last map.

    Attributes:
        to_maps: from images to maps (batch, h, w, channels).
        to_logits: from maps to logits.
        is_mirrored: whether the answer is the mean of an image's and its mirror image's.
    """

    to_maps: Any
    to_logits: Any
    is_mirrored: bool


def cam_models(model: Any) -> Cam:
    """The parts of a classifier's network: preprocessing, "backbone", "logits", "probabilities"."""
    k = keras()
    x, backbone = entrance(model)
    maps = map_layers(backbone)[-1].output
    to_maps = k.Model(model.input, k.Model(backbone.input, maps)(x))
    given = k.Input(maps.shape[1:])
    logits = model.get_layer("logits")(k.Model(maps, backbone.output)(given))
    return Cam(to_maps, k.Model(given, logits), is_mirrored(model))


def grad_cam(cam: Cam, image: npt.NDArray[np.uint8], label: int) -> npt.NDArray[np.float32]:
    """Where the network found what speaks for a class.

    Each channel of the last map is weighted by the mean, over all places, of the derivative of
    the class's logit by it; their sum, where it is above 0, is the heat, enlarged to the image.
    Where the mirror image is looked at as well, it is the sum of both heats.

    Args:
        cam: from `cam_models`.
        image: (px, px, 3) uint8.
        label: the class's number.

    Returns:
        (px, px) float32 in [0, 1]; all 0 where nothing speaks for the class.

    References:
        R. R. Selvaraju et al. (2017), Grad-CAM: visual explanations from deep networks via
        gradient-based localization. ICCV.
    """
    views = np.stack([image, image[:, ::-1]]) if cam.is_mirrored else image[None]
    maps = np.asarray(cam.to_maps.predict_on_batch(views), np.float32)
    one_hot = np.zeros((len(views), cam.to_logits.output.shape[1]), np.float32)
    one_hot[:, label] = 1
    weights = input_gradient(cam.to_logits, maps, one_hot).mean(axis=(1, 2), keepdims=True)
    heats = np.maximum((maps * weights).sum(axis=3), 0)
    heat = heats[0] + heats[1, :, ::-1] if cam.is_mirrored else heats[0]
    if heat.max() > 0:
        heat = heat / heat.max()
    side = image.shape[:2][::-1]
    enlarged = Image.fromarray(heat.astype(np.float32)).resize(side, Image.Resampling.BILINEAR)
    return np.clip(np.asarray(enlarged, np.float32), 0, 1)
