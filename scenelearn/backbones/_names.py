"""Which network a name means: any of keras.applications, MobileNets by width."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scenelearn._backend import keras
from scenelearn.backbones._tiny import scenelearn_tiny
from scenelearn.errors import UnknownBackboneError

# "mobilenet_v2_0.35" -> ("mobilenet_v2", "0.35"); Keras calls the width `alpha`.
_WITH_WIDTH = re.compile(r"(?P<name>.*?)_(?P<width>\d+\.\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A network of keras.applications.

    Attributes:
        name: our canonical name, e.g. "mobilenet_v2_0.35"; `find` knows it.
        build: the function of keras.applications.
        width: the multiplier of the channels, or None where the network has none.
        preprocess: the `preprocess_input` that belongs to it.
    """

    name: str
    build: Callable[..., Any]
    width: float | None
    preprocess: Callable[..., Any]

    @property
    def has_widths(self) -> bool:
        """Whether it is there in several widths."""
        return "alpha" in inspect.signature(self.build).parameters


def names() -> list[str]:
    """The names of all backbones, without widths.

    MobileNets also take a width at the end, e.g. "mobilenet_v2_0.35".

    Returns:
        Sorted names, e.g. "efficientnet_b0", "mobilenet_v2", "resnet50".

    Example:
        >>> "mobilenet_v2" in names()
        True
    """
    return sorted(_canonical(function) for function in _functions())


def find(name: str) -> Architecture:
    """The network that a name means.

    Upper and lower case, underscores and hyphens do not matter: "MobileNetV2", "mobilenet_v2"
    and "mobilenet-v2" are one network.

    Args:
        name: as in keras.applications; with a width at the end for a MobileNet.

    Returns:
        The network, not built yet.

    Raises:
        UnknownBackboneError: if there is no such network, or it has no widths.

    Example:
        >>> find("MobileNetV2_0.35").width
        0.35
        >>> find("mobilenet_v2_1.0").name  # as without a width
        'mobilenet_v2'
    """
    match = _WITH_WIDTH.fullmatch(name) if isinstance(name, str) else None
    base, width = (match["name"], float(match["width"])) if match else (name, None)
    by_key = {letters_of(function.__name__): function for function in _functions()}
    function = by_key.get(letters_of(base)) if isinstance(base, str) else None
    if function is None:
        raise _unknown(name)
    canonical = _canonical(function)
    found = Architecture(
        name=canonical if width in (None, 1.0) else f"{canonical}_{width}",
        build=function,
        width=width,
        preprocess=sys.modules[function.__module__].preprocess_input,
    )
    if width is not None and (not found.has_widths or width <= 0):
        raise UnknownBackboneError(
            f"`backbone` {canonical!r} has no width {width:g}. Received: "
            f"backbone={name!r}. Leave the number out, or take a MobileNet with a width, "
            "e.g. 'mobilenet_v2_0.35'."
        )
    return found


def _functions() -> list[Callable[..., Any]]:
    applications = keras().applications
    theirs = [
        function
        for name, function in vars(applications).items()
        if name[0].isupper() and callable(function)
    ]
    return [*theirs, scenelearn_tiny]


def letters_of(name: str) -> str:
    """What of a name matters: its letters and digits."""
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    return "mobilenet" if letters == "mobilenetv1" else letters


def _canonical(function: Callable[..., Any]) -> str:
    """MobileNetV3Small -> mobilenet_v3_small, EfficientNetB0 -> efficientnet_b0."""
    name = function.__name__
    name = name.replace("Net", "net").replace("NeXt", "next").replace("NAS", "Nas")
    name = re.sub(r"(V\d)", r"_\1", name)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"_+", "_", name).lower().strip("_")


def _unknown(name: object) -> UnknownBackboneError:
    known = names()
    keys = {letters_of(candidate): candidate for candidate in known}
    near = difflib.get_close_matches(letters_of(str(name)), list(keys), n=3, cutoff=0.5)
    meant = " or ".join(repr(keys[key]) for key in near) or "'mobilenet_v2_0.35'"
    return UnknownBackboneError(
        f"`backbone` must be a network of keras.applications. Received: backbone={name!r}. "
        f"Did you mean {meant}? All of them: {', '.join(known)}; "
        "MobileNets also with a width at the end, e.g. 'mobilenet_v2_0.35'."
    )
