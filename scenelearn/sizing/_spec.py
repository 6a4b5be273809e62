"""Networks named in text: a backbone, a saved model, or a line of layers."""

from __future__ import annotations

import ast
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scenelearn import _backend
from scenelearn.errors import ArgumentError, BundleError, PathMissingError, UnknownLayerError

from . import _layers
from ._compare import application
from ._layers import Layer
from ._unfilled import without_values

_MOST_CONFIG_BYTES = 20 * 2**20


def network_of(text: str, image_px: int | None = None) -> Any:
    """The network that a text names, without any of its weights.

    Args:
        text: A name of `keras.applications`; the path of a `.keras` file; or layers as one would
            write them in Python, separated by commas: "Conv2D(32, 3), Flatten(), Dense(10)".
        image_px: Height and width of a named backbone's images; None for its default.

    Returns:
        What `estimate` takes: a Keras model or a list of layer descriptions.

    Raises:
        ArgumentError: The layers are not written as calls with plain values.
        BundleError: The file is not a whole `.keras` file.
        PathMissingError: The file does not exist.
        UnknownBackboneError: No such backbone.
        UnknownLayerError: No such layer.

    Examples:
        >>> [layer.units for layer in network_of("Dense(32), Dense(10)")]
        [32, 10]
    """
    if "(" in text:
        return layers_of(text)
    if text.endswith(".keras"):
        return _saved(Path(text))
    return application(text, image_px)


def layers_of(text: str) -> list[Layer]:
    """The layer descriptions that a text writes down.

    Args:
        text: Calls separated by commas, with plain values as arguments.

    Returns:
        One description for each call.

    Raises:
        ArgumentError: It is not written so, or an argument is out of range.
        UnknownLayerError: No description has that name.
    """
    try:
        tree = ast.parse(f"[{text}]", mode="eval").body
        assert isinstance(tree, ast.List)
        return [_layer(node) for node in tree.elts]
    except (SyntaxError, TypeError) as error:
        raise ArgumentError(
            f"The layers could not be read: {error}. Write them as in Python, separated by "
            "commas: \"Conv2D(32, 3, padding='same'), Flatten(), Dense(10)\"."
        ) from error


def _layer(node: ast.expr) -> Layer:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ArgumentError(
            f"Each layer must be a call such as Dense(10). Received: {ast.unparse(node)}."
        )
    kind: Callable[..., Layer] | None = getattr(_layers, node.func.id, None)
    if node.func.id not in _layers.__all__ or not isinstance(kind, type) or kind is Layer:
        raise UnknownLayerError(
            f"No layer is called {node.func.id!r}. The names are those of keras.layers."
        )
    found: Layer = kind(
        *(_value(one) for one in node.args),
        **{str(one.arg): _value(one.value) for one in node.keywords},
    )
    return found


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):  # the layer inside a Bidirectional or TimeDistributed
        return _layer(node)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise ArgumentError(
            f"Arguments must be numbers, text, tuples or layers. Received: {ast.unparse(node)}."
        ) from error


def _saved(path: Path) -> Any:
    if not path.is_file():
        raise PathMissingError(f"There is no file {str(path)!r}.")
    keras = _backend.keras()
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > _MOST_CONFIG_BYTES:
                raise BundleError(f"The description in {str(path)!r} has a size no model has.")
            config = json.loads(archive.read("config.json"))
        with without_values(keras):
            return keras.saving.deserialize_keras_object(config, safe_mode=True)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{str(path)!r} must be a whole .keras file whose layers Keras knows: {error}"
        ) from error
