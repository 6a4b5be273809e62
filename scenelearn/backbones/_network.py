"""A network of the user's own as the backbone: a Keras model, a file, or a KerasHub preset."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scenelearn._backend import keras, start
from scenelearn._checks import check_image_px, check_path, image_size
from scenelearn._keras_internals import (
    functional_of,
    input_shape_of,
    nested_layers,
    nodes_of,
)
from scenelearn.backbones._copy import is_from_keras_hub
from scenelearn.backbones._materialize import find_non_finite, materialize
from scenelearn.backbones._names import find_architecture
from scenelearn.backbones._pooling import not_square_error
from scenelearn.backbones._preprocess import PREPROCESSING
from scenelearn.errors import (
    ArgumentError,
    MissingExtraError,
    PathMissingError,
    WeightsFileError,
    WeightsUnavailableError,
)

OWN = "own"
"""The value of `weights` for the weights that a network of the user's own brings along."""

DEFAULT_PX = 160
"""The size of images for networks of keras.applications, and for several networks."""

HUB, MODEL = "hub:", "model:"
_MAX_CONFIG = 16 * 2**20  # bytes; the largest of keras.applications has 1 MiB
_MODES = ("none", "tf", "caffe", "torch")
_DEFAULT_OWN_PX = 224  # for networks that take any size; the most for those of KerasHub
_EXAMPLES = "'mobilenet_v2', a keras.Model, 'mine.keras', 'hub:dinov2_small' or a preset folder"

Preprocessing = str | Sequence[Any] | None

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Network:
    """A network that keras.applications does not have.

    Attributes:
        name: how to load it again: a path, "hub:" with the name of a preset, or "model:" with the
            name of a `keras.Model`, which cannot be loaded again.
        model: a `keras.Model` with its weights. It is copied, never changed.
        preprocess: from pixels in 0 to 255 to what the model expects, for `preprocessing_layers`.
    """

    name: str
    model: Any
    preprocess: Callable[..., Any]

    @property
    def title(self) -> str:
        """A short name, without folders."""
        return self.name if self.name.startswith((HUB, MODEL)) else Path(self.name).name

    @property
    def fixed_px(self) -> int | tuple[int, int] | None:
        """The size of the images that the model was built for; None for any size."""
        size = (_input_shape(self.model) or (None, None, None))[1:3]
        return None if None in size else check_image_px(size)

    @property
    def takes_any_size(self) -> bool:
        """Whether it is known to take images of any size; of a subclassed model it is not."""
        return self.fixed_px is None and functional_of(self.model) is not None

    @property
    def default_px(self) -> int | tuple[int, int]:
        """The size of images to use if none is chosen."""
        px = self.fixed_px
        if px is None or not is_from_keras_hub(self.model):
            return px or _DEFAULT_OWN_PX
        patch = _patch_px(self.model)
        return min(max(image_size(px)), _DEFAULT_OWN_PX) // patch * patch

    def check_size(self, image_px: int | tuple[int, int]) -> None:
        """Check that patches fill a square image.

        Raises:
            ArgumentError: if they do not.
        """
        patch = _patch_px(self.model)
        height, width = image_size(image_px)
        if patch > 1 and height != width:
            raise not_square_error((height, width))
        side = next((side for side in (height, width) if side % patch), None)
        if side is not None:
            low = max(1, side // patch) * patch
            raise ArgumentError(
                f"`image_px` must be a multiple of {patch}, the size of the network's patches. "
                f"Received: image_px={image_px}. Pass e.g. image_px={low} or {low + patch}."
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NetworkList:
    """Several networks whose features are used side by side.

    Attributes:
        parts: a network of the user's own, or the name of one of keras.applications, each.
    """

    parts: tuple[Network | str, ...]

    @property
    def name(self) -> tuple[str, ...]:
        """How to load each of them again."""
        return tuple(part if isinstance(part, str) else part.name for part in self.parts)

    @property
    def title(self) -> str:
        """Their short names."""
        titles = [part if isinstance(part, str) else part.title for part in self.parts]
        return " + ".join(titles)

    @property
    def default_px(self) -> int | tuple[int, int]:
        """The size of images to use if none is chosen: of the first network that has one."""
        own = [part for part in self.parts if isinstance(part, Network) and part.fixed_px]
        return own[0].default_px if own else DEFAULT_PX

    def check_size(self, image_px: int | tuple[int, int]) -> None:
        """Check that patches fill the image.

        Raises:
            ArgumentError: if they do not.
        """
        for part in self.parts:
            if isinstance(part, Network):
                part.check_size(image_px)


def is_own(backbone: object) -> bool:
    """Return whether a backbone is a network of the user's own, or several networks.

    Otherwise it is one of keras.applications.
    """
    if not isinstance(backbone, str | os.PathLike):
        return backbone is not None
    text = os.fspath(backbone)
    if not isinstance(text, str) or not isinstance(backbone, str):
        return True
    is_path = text.endswith(".keras") or any(sep in text for sep in (os.sep, "/"))
    return is_path or text.startswith((HUB, MODEL))


def load_if_own(backbone: Any, preprocessing: Preprocessing = None) -> Network | NetworkList | None:
    """As `load_network`; None if the backbone is a network of keras.applications."""
    return load_network(backbone, preprocessing) if is_own(backbone) else None


def load_network(backbone: Any, preprocessing: Preprocessing = None) -> Network | NetworkList:
    """Load a network of the user's own, or each of several.

    Args:
        backbone: a `keras.Model`; the path of a ``.keras`` file; a backbone or task of KerasHub; a
            preset of KerasHub, as "hub:" with its name, or as the path of its folder; or a list of
            these and of names of keras.applications.
        preprocessing: what the network expects; None if its preset or its first layers tell.

    Raises:
        ArgumentError: if the network cannot be a backbone, its preprocessing is not known, or a
            list is too short or comes with a preprocessing.
        UnknownBackboneError: if a name in a list is not in keras.applications.
        PathMissingError: if there is no such file or folder.
        WeightsFileError: if the file is damaged, or has layers that Keras does not know.
        WeightsUnavailableError: if a preset cannot be loaded.
        MissingExtraError: if it needs KerasHub, which is not installed.
        BackendError: if Keras cannot start.
    """
    if isinstance(backbone, list | tuple):
        return _load_list(backbone, preprocessing)
    start()
    preprocess = None if preprocessing is None else _preprocess_function(preprocessing)
    converter = None
    if isinstance(backbone, str | os.PathLike):
        name = os.fspath(backbone)
        if name.startswith(MODEL):
            raise ArgumentError(
                "`backbone` must be the keras.Model itself, as in the first fit. Received: "
                f"backbone={name!r}, its name. Pass backbone=model."
            )
        if name.startswith(HUB):
            model, converter = _load_preset(name.removeprefix(HUB))
        else:
            path = check_path("backbone", name, advice="Pass e.g. 'mine.keras'.")
            name = str(path)
            if path.is_dir():
                model, converter = _load_preset(str(path))
            else:
                model = _load_file(path)
    else:
        model = backbone
        if not isinstance(model, keras().Model):
            raise ArgumentError(
                f"`backbone` must be {_EXAMPLES}. Received: backbone={type(backbone).__name__}. "
                "Build a keras.Model."
            )
        name = f"{MODEL}{model.name}"
        converter = getattr(getattr(model, "preprocessor", None), "image_converter", None)
    model = _vision_part(model)
    _check_model(model)
    if preprocess is None:
        preprocess = _infer_preprocessing(model, converter)
    return Network(name=name, model=model, preprocess=preprocess)


def _load_list(backbones: Sequence[Any], preprocessing: Preprocessing) -> NetworkList:
    if len(backbones) < 2:
        raise ArgumentError(
            f"A list as `backbone` must have at least two networks. Received: {len(backbones)}. "
            "Pass a single network without a list."
        )
    if preprocessing is not None:
        raise ArgumentError(
            "`preprocessing` must be left out for several networks, each of which must tell its "
            f"own. Received: preprocessing={preprocessing!r}. For one that does not, pass "
            "sl.backbones.build(network, preprocessing=…) in its place."
        )
    parts: list[Network | str] = []
    for backbone in backbones:
        if isinstance(backbone, list | tuple):
            raise ArgumentError(
                f"A list as `backbone` must have {_EXAMPLES}. Received: another list in it. Pass "
                "one list of all networks."
            )
        if not is_own(backbone):
            parts.append(find_architecture(backbone).name)
            continue
        network = load_network(backbone)
        assert isinstance(network, Network)
        parts.append(network)
    return NetworkList(parts=tuple(parts))


# Loading


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise PathMissingError(
            f"`backbone` must be {_EXAMPLES}. Received: backbone={str(path)!r}, where there is no "
            "file or folder. Check the path."
        )
    load = keras().saving.load_model
    try:
        if _mentions_keras_hub(path):
            import_keras_hub()
        try:
            return materialize(lambda: load(path, compile=False), seed=None)
        except (AttributeError, RuntimeError, ValueError):  # layers that compute with weights
            return load(path, compile=False)
    except (MemoryError, MissingExtraError):
        raise
    except Exception as error:  # noqa: BLE001 - Keras, h5py and zipfile raise many kinds
        raise WeightsFileError(
            "`backbone` must be a .keras file that `model.save` wrote, with layers that Keras can "
            f"load. Received: {str(path)!r}: {type(error).__name__}: {str(error)[:400]} For layers "
            "of your own, load it yourself, and pass the model: "
            "backbone=keras.saving.load_model(path, custom_objects=…)."
        ) from None


def _mentions_keras_hub(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo("config.json").file_size > _MAX_CONFIG:
            raise ValueError(f"a config of more than {_MAX_CONFIG // 2**20} MiB")
        return b'"keras_hub' in archive.read("config.json")


def import_keras_hub() -> Any:
    """Import KerasHub, which takes long.

    Raises:
        MissingExtraError: if it is not installed.
    """
    if importlib.util.find_spec("keras_hub") is None:
        raise MissingExtraError(
            "This network needs KerasHub. Received: no keras_hub. Install it: "
            '`pip install "scenelearn[hub]"`.'
        )
    return importlib.import_module("keras_hub")


def _load_preset(preset: str) -> tuple[Any, Any]:
    """The backbone of a preset, and its image converter, if there is one."""
    hub = import_keras_hub()
    try:
        model = hub.models.Backbone.from_preset(preset)
    except Exception as error:  # noqa: BLE001 - KerasHub and its downloads raise many kinds
        raise WeightsUnavailableError(
            "`backbone` must be a preset of KerasHub that can be loaded. Received: "
            f"{preset!r}: {type(error).__name__}: {str(error)[:400]} Check its name; or download "
            "it on a machine with internet access, and pass the path of its folder."
        ) from None
    try:
        return model, hub.layers.ImageConverter.from_preset(preset)
    except Exception:  # noqa: BLE001 - KerasHub raises many kinds if a preset has none
        return model, None


# Checks


def _vision_part(model: Any) -> Any:
    """The part of a KerasHub model that takes the image: without a head, and without text."""
    if not is_from_keras_hub(model):
        return model
    for name in ("backbone", "vision_encoder"):
        model = getattr(model, name, None) or model
    return model


def _check_model(model: Any) -> None:
    inputs = getattr(model, "inputs", None) or []
    layers = nested_layers(model, include_self=True)
    problem = ""
    shape = _input_shape(model)
    if len(inputs) > 1:
        names = ", ".join(tensor.name for tensor in inputs)
        problem = f"a network with {len(inputs)} inputs: {names}"
    elif any(getattr(layer, "data_format", None) == "channels_first" for layer in layers):
        problem = "a network with data_format='channels_first'"
    elif shape is not None and (len(shape) != 4 or shape[3] not in (3, None)):
        problem = f"a network with the input shape {tuple(shape)}"
    if problem:
        raise ArgumentError(
            "`backbone` must take one image, (batch, height, width, 3), with channels last. "
            f"Received: {problem}. Pass the part of it that takes the image."
        )
    if not getattr(model, "built", True) or not model.weights:
        _log.warning("The backbone %r was never called: its weights are random.", model.name)
    damaged = find_non_finite(model)
    if damaged is not None:
        raise ArgumentError(
            "`backbone` must have finite weights. Received: NaN or infinity in "
            f"{damaged!r}. Load the weights again, from before training diverged."
        )


def _input_shape(model: Any) -> tuple[Any, ...] | None:
    inputs = getattr(model, "inputs", None)
    return tuple(inputs[0].shape) if inputs else input_shape_of(model)


def _patch_px(model: Any) -> int:
    patch = getattr(model, "patch_size", 1) if is_from_keras_hub(model) else 1
    return int(patch[0] if isinstance(patch, list | tuple) else patch)


# Preprocessing


def check_preprocessing(preprocessing: Preprocessing) -> Preprocessing:
    """Return a valid `preprocessing` as JSON values.

    Raises:
        ArgumentError: if it is invalid.
    """
    if preprocessing is None:
        return None
    _preprocess_function(preprocessing)
    if isinstance(preprocessing, str):
        return preprocessing
    return [np.asarray(values, float).tolist() for values in preprocessing]


def _preprocess_function(preprocessing: Any) -> Callable[..., Any]:
    """The function from pixels in 0 to 255 to what the network expects.

    Raises:
        ArgumentError: if `preprocessing` is invalid.
    """
    if isinstance(preprocessing, str) and preprocessing in _MODES:
        if preprocessing == "none":
            return lambda x, **_: x
        mode = keras().applications.imagenet_utils.preprocess_input
        return lambda x, **options: mode(x, mode=preprocessing, **options)
    try:
        mean, std = (np.asarray(values, float) for values in preprocessing)
        are_colors = mean.shape in ((), (3,)) and std.shape in ((), (3,))
        if isinstance(preprocessing, str) or not are_colors:
            raise ValueError
        if (mean < 0).any() or (mean > 1).any() or (std <= 0).any() or (std > 1).any():
            raise ValueError
    except (TypeError, ValueError):
        raise ArgumentError(
            "`preprocessing` must be 'none' (0 to 255 as they are), 'tf' (-1 to 1), 'caffe' (blue, "
            "green, red minus their means), 'torch' (0 to 1, minus mean, divided by standard "
            "deviation), or (mean, std) of values between 0 and 1, a number or three each. "
            f"Received: preprocessing={preprocessing!r}. Pass e.g. 'torch', or "
            "((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))."
        ) from None
    return lambda x, **_: (x / 255 - mean) / std


def _infer_preprocessing(model: Any, converter: Any) -> Callable[..., Any]:
    if converter is not None:
        scale = np.asarray(1.0 if converter.scale is None else converter.scale, float)
        offset = np.asarray(0.0 if converter.offset is None else converter.offset, float)
        return lambda x, **_: x * scale + offset
    first = _first_layer(model)
    is_known = False
    if isinstance(first, keras().layers.Rescaling):  # not of values from 0 to 1
        largest, shift = (float(np.max(np.abs(v))) for v in (first.scale, first.offset))
        is_known = first.name == PREPROCESSING or largest <= 0.1 or shift > 2
    if isinstance(first, keras().layers.Normalization) and first.variance is not None:
        # Of values from 0 to 255; smaller ones are scaled somewhere before.
        moments = (keras().ops.convert_to_numpy(m) for m in (first.mean, first.variance))
        is_known = max(float(np.max(values)) for values in moments) > 1
    if is_known:
        return lambda x, **_: x
    raise ArgumentError(
        "`preprocessing` must be given for this backbone: which values it was trained with cannot "
        "be told, since it does not begin with a Rescaling or a Normalization of values from 0 to "
        "255, and has no image converter of KerasHub. Received: preprocessing=None. Pass "
        "'none' for 0 to 255, 'tf' for -1 to 1, 'torch' for ImageNet's mean and deviation, "
        "'caffe', or (mean, std)."
    )


def _first_layer(model: Any) -> Any:
    """The layer that a functional model calls first, also inside of nested models."""
    while functional_of(model) is not None:
        calls = [node for node in nodes_of(functional_of(model)) if not node.is_input]
        if not calls:
            return None
        model = calls[0].operation
    return model
