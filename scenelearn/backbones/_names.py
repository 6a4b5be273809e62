"""Names of backbones: all models of keras.applications, MobileNets also by width."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scenelearn._backend import keras
from scenelearn._checks import check_path
from scenelearn._network_names import normalize_name, split_width
from scenelearn.backbones._bundled import BUNDLED, BUNDLED_BACKBONE, scenelearn_tiny
from scenelearn.errors import ArgumentError, UnknownBackboneError

DEFAULT_BACKBONE = "mobilenet_v3_small"
"""The backbone for ImageNet weights if none is named. Chosen by validation accuracy."""

_DECIMAL = re.compile(r"(?<![\d.])\d\.\d+(?!\.?\d)")  # not part of a version such as "1.0.2"
_WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4)  # for which Keras has weights
# "mobilenet_2_5_224_tf_no_top.h5": Keras' file name for a MobileNet of width 0.25.
_WIDTH_OF_V1 = re.compile(r"mobilenet_(?P<tenths>\d)_(?P<hundredths>\d)_\d+_tf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network of keras.applications, not built yet.

    Attributes:
        name: the canonical name, e.g. "mobilenet_v2_0.35".
        build: the function of keras.applications.
        width: the width multiplier of the channels; None if the name has none.
        preprocess: the `preprocess_input` of the network.
    """

    name: str
    build: Callable[..., Any]
    width: float | None
    preprocess: Callable[..., Any]

    @property
    def has_widths(self) -> bool:
        """Whether the network exists in several widths."""
        return "alpha" in inspect.signature(self.build).parameters


def names() -> list[str]:
    """List the names of all backbones, without widths.

    MobileNets also accept a width at the end of the name, e.g. "mobilenet_v2_0.35".

    Returns:
        Sorted names, e.g. "efficientnet_b0", "mobilenet_v2", "resnet50".

    Example:
        >>> "mobilenet_v2" in names()
        True
    """
    return sorted(_canonical_name(function) for function in _functions())


def find_architecture(name: str) -> Architecture:
    """Look up a backbone by name.

    Case, underscores and hyphens are ignored: "MobileNetV2", "mobilenet_v2" and "mobilenet-v2" are
    the same network.

    Args:
        name: as in keras.applications; MobileNets optionally with a width at the end.

    Returns:
        The network, not built yet.

    Raises:
        UnknownBackboneError: if there is no such network, or it does not exist in this width.

    Example:
        >>> find_architecture("MobileNetV2_0.35").width
        0.35
        >>> find_architecture("mobilenet_v2_1.0").name  # the same as without a width
        'mobilenet_v2'
    """
    base, width = split_width(name) if isinstance(name, str) else ("", None)
    by_name = {normalize_name(function.__name__): function for function in _functions()}
    function = by_name.get(normalize_name(base))
    if function is None:
        raise _unknown_backbone(name)
    canonical = _canonical_name(function)
    architecture = Architecture(
        name=canonical if width in (None, 1.0) else f"{canonical}_{width}",
        build=function,
        width=width,
        preprocess=sys.modules[function.__module__].preprocess_input,
    )
    if width is not None and (not architecture.has_widths or width <= 0):
        raise UnknownBackboneError(
            f"`backbone` {canonical!r} does not exist in width {width:g}. Received: "
            f"backbone={name!r}. Leave out the number, or use a MobileNet with a width, "
            "e.g. 'mobilenet_v2_0.35'."
        )
    return architecture


def default_for(weights: str | os.PathLike[str] | None) -> str:
    """Return the default backbone for given weights.

    Args:
        weights: as for `build`. Of a path, only the file name matters.

    Returns:
        The name of a backbone. For a weights file: the network and width that the file name
        contains, as Keras names its files. For "scenelearn": the backbone whose weights come with
        the package. Otherwise: "mobilenet_v3_small".

    Raises:
        ArgumentError: if the file exists and its name does not contain a network.

    Example:
        >>> default_for("imagenet")
        'mobilenet_v3_small'
        >>> default_for("mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_160_no_top.h5")
        'mobilenet_v2_0.35'
    """
    if weights == BUNDLED:
        return BUNDLED_BACKBONE
    if not isinstance(weights, str | os.PathLike) or weights == "imagenet":
        return DEFAULT_BACKBONE
    path = check_path("weights", weights, advice="Pass the path of a weights file.")
    backbone = _infer_backbone(path.name.lower())
    if backbone is None and path.is_file():
        raise ArgumentError(
            "`backbone` must be given if the name of the weights file does not contain it. "
            f"Received: weights={str(weights)!r}. Pass e.g. backbone={DEFAULT_BACKBONE!r}; "
            "`scenelearn.backbones.names()` lists all backbones."
        )
    return backbone or DEFAULT_BACKBONE


def _infer_backbone(file_name: str) -> str | None:
    """The network and width in the name of a weights file; None if not found or ambiguous."""
    by_name = {normalize_name(name): name for name in names()}
    matches = [key for key in by_name if _contains_name(file_name, key)]
    if not matches:
        return None
    name = by_name[max(matches, key=len)]
    if not find_architecture(name).has_widths:
        return name
    if match := _WIDTH_OF_V1.search(file_name):
        tenths, hundredths = match["tenths"], match["hundredths"]
        width = 1.0 if tenths == "1" else float(f"0.{tenths}{hundredths}")
    else:
        numbers = {float(number) for number in _DECIMAL.findall(file_name)} or {1.0}
        if len(numbers) > 1 or not numbers <= set(_WIDTHS):  # ambiguous, or an accuracy
            return None
        (width,) = numbers
    return find_architecture(f"{name}_{width}").name


def _contains_name(file_name: str, name: str) -> bool:
    """Whether a file name contains a network's name, not as part of a longer word or number.

    Other versions do not count either: "seresnet50" does not contain "resnet50", and
    "mobilenet_v3" does not contain "mobilenet".
    """
    word = "[^a-z0-9]*".join(name)
    return re.search(rf"(?<![a-z]){word}(?!\d|[^a-z0-9]*v[2-9])", file_name) is not None


def _functions() -> list[Callable[..., Any]]:
    applications = [
        function
        for name, function in vars(keras().applications).items()
        if name[0].isupper() and callable(function)
    ]
    return [*applications, scenelearn_tiny]


def _canonical_name(function: Callable[..., Any]) -> str:
    """MobileNetV3Small -> mobilenet_v3_small, EfficientNetB0 -> efficientnet_b0."""
    name = function.__name__
    name = name.replace("Net", "net").replace("NeXt", "next").replace("NAS", "Nas")
    name = re.sub(r"(V\d)", r"_\1", name)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"_+", "_", name).lower().strip("_")


def check_no_preprocessing(backbone: str, preprocessing: object) -> None:
    """Check that `preprocessing` is None for a network of keras.applications.

    Raises:
        ArgumentError: if it is not.
    """
    if preprocessing is not None:
        raise ArgumentError(
            f"`preprocessing` must be None for {backbone!r}, whose preprocessing is known. "
            f"Received: preprocessing={preprocessing!r}. Leave it out."
        )


def _unknown_backbone(name: object) -> UnknownBackboneError:
    known = names()
    by_name = {normalize_name(candidate): candidate for candidate in known}
    close = difflib.get_close_matches(normalize_name(str(name)), list(by_name), n=3, cutoff=0.5)
    suggestion = " or ".join(repr(by_name[key]) for key in close) or "'mobilenet_v2_0.35'"
    return UnknownBackboneError(
        f"`backbone` must be a network of keras.applications. Received: backbone={name!r}. "
        f"Did you mean {suggestion}? The backbones are {', '.join(known)}; "
        "MobileNets also with a width at the end, e.g. 'mobilenet_v2_0.35'. For a network of your "
        "own, pass a keras.Model, a path that ends in '.keras', or 'hub:' with a KerasHub preset."
    )
