"""Networks from text: names of keras.applications, saved models, and lists of layers."""

from __future__ import annotations

import ast
import inspect
import json
import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scenelearn import _backend
from scenelearn._backend import default_settings
from scenelearn._checks import check_path
from scenelearn._io import disk_error, is_disk_error
from scenelearn._keras_internals import deferred_initialization
from scenelearn._network_names import normalize_name, split_width
from scenelearn.errors import (
    ArgumentError,
    BundleError,
    PathMissingError,
    SceneLearnError,
    UnknownBackboneError,
    UnknownLayerError,
)
from scenelearn.sizing import _layers
from scenelearn.sizing._layers import Layer

_MAX_CONFIG_BYTES = 20 * 2**20
_MAX_DETAIL = 500  # characters of another library's error that a message repeats

_log = logging.getLogger(__name__)


def load_network(source: str | os.PathLike[str], input_shape: tuple[Any, ...] | None = None) -> Any:
    """Load the network that a text or path refers to, without its weights.

    Args:
        source: a name of `keras.applications`; the path of a `.keras` file; or layers as written
            in Python, separated by commas: "Conv2D(32, 3), Flatten(), Dense(10)".
        input_shape: (height, width, channels) of a named network; None for its default.

    Returns:
        A Keras model or a list of layer descriptions.

    Raises:
        ArgumentError: if the layers cannot be parsed, or the network does not accept the input
            shape.
        BundleError: if the file is not a complete `.keras` file.
        DiskError: if the system cannot read the file.
        PathMissingError: if the file does not exist.
        UnknownBackboneError: if the name is not in `keras.applications`.
        UnknownLayerError: if a layer's name is unknown.

    Examples:
        >>> [layer.units for layer in load_network("Dense(32), Dense(10)")]
        [32, 10]
    """
    text = os.fspath(source)
    if text.endswith(".keras"):
        return _load_saved(check_path("network", text, advice="Pass the path of a .keras file."))
    if "(" in text:
        return parse_layers(text)
    return build_application(text, input_shape)


def build_application(name: str, input_shape: tuple[Any, ...] | None = None) -> Any:
    """Build a model of `keras.applications` with its 1,000-class head, without weights.

    Args:
        name: the model's name in upper or lower case, with or without underscores: "mobilenet_v2",
            "ResNet50"; MobileNets also with a width, "mobilenet_v2_0.35".
        input_shape: (height, width, channels) of its images; None for its default.

    Returns:
        A Keras model whose variables have shapes but no values.

    Raises:
        UnknownBackboneError: if there is no model of that name, or not of that width.
        ArgumentError: if the model does not accept the input shape.
    """
    keras = _backend.keras()
    builders = {
        normalize_name(key): value
        for key, value in vars(keras.applications).items()
        if callable(value) and key[0].isupper()
    }
    base, alpha = split_width(name)
    key = normalize_name(base)
    if key not in builders:
        raise UnknownBackboneError(
            f"`network` must be one of keras.applications. Received: {name!r}. Pass one of "
            f"{', '.join(sorted({value.__name__ for value in builders.values()}))}; the path of a "
            ".keras file; or layers such as 'Conv2D(32, 3), Dense(10)'."
        )
    build = builders[key]
    width = {} if alpha is None else {"alpha": alpha}
    if alpha is not None and ("alpha" not in inspect.signature(build).parameters or not alpha):
        raise UnknownBackboneError(
            f"{build.__name__} has no width {alpha:g}. Received: {name!r}. Leave the number "
            "out, or use a MobileNet with a width, such as 'mobilenet_v2_0.35'."
        )
    try:
        with default_settings(), deferred_initialization():
            return build(weights=None, input_shape=input_shape, **width)
    except Exception as error:  # Keras raises many types for impossible shapes
        raise ArgumentError(
            f"`input_shape` must be (height, width, channels) that {build.__name__} accepts. "
            f"Received: input_shape={input_shape}. Keras says: {str(error)[:_MAX_DETAIL]}."
        ) from error


def parse_layers(text: str) -> list[Layer]:
    """Parse layer descriptions from text.

    Args:
        text: layer calls separated by commas, with literals as arguments.

    Returns:
        One description per call.

    Raises:
        ArgumentError: if the text cannot be parsed, or an argument is out of range.
        UnknownLayerError: if a layer's name is unknown.
    """
    try:
        tree = ast.parse(f"[{text}]", mode="eval").body
        assert isinstance(tree, ast.List)
        return [_parse_layer(node) for node in tree.elts]
    except SceneLearnError:
        raise
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError) as error:
        raise ArgumentError(
            f"`network` must be layers as in Python, separated by commas. Received: {text!r:.200}: "
            f"{type(error).__name__}: {error}. Write e.g. \"Conv2D(32, 3, padding='same'), "
            'Flatten(), Dense(10)".'
        ) from error


def _parse_layer(node: ast.expr) -> Layer:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ArgumentError(
            f"Each layer must be a call such as Dense(10). Received: {ast.unparse(node):.200}. "
            "Separate them by commas."
        )
    name = node.func.id
    kind: Callable[..., Layer] | None = getattr(_layers, name, None)
    if kind is Layer or not (isinstance(kind, type) and issubclass(kind, Layer)):
        raise UnknownLayerError(
            f"A layer must have a name of keras.layers that sizing supports. Received: {name!r}. "
            "Check its spelling, or pass a Keras model."
        )
    layer: Layer = kind(
        *(_parse_value(argument) for argument in node.args),
        **{str(argument.arg): _parse_value(argument.value) for argument in node.keywords},
    )
    return layer


def _parse_value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):  # the layer inside a Bidirectional or TimeDistributed
        return _parse_layer(node)
    try:
        return ast.literal_eval(node)
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError) as error:
        raise ArgumentError(
            "Arguments must be numbers, strings, tuples or layers. Received: "
            f"{ast.unparse(node):.200}. Write them as in Python."
        ) from error


def _without_compile_configs(config: Any) -> Any:
    """Remove how a model and those inside it were compiled, and return it for the model itself.

    Keras would build the optimizers, which need values.
    """
    compiled = config.pop("compile_config", None) if isinstance(config, dict) else None
    for value in config.values() if isinstance(config, dict) else config:
        if isinstance(value, dict | list):
            _without_compile_configs(value)
    return compiled


def _load_saved(path: Path) -> Any:
    if not path.is_file():
        raise PathMissingError(
            f"`network` must be an existing .keras file. Received: {str(path)!r}, which does not "
            "exist. Check the path."
        )
    keras = _backend.keras()
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > _MAX_CONFIG_BYTES:
                raise ValueError(f"a config.json of more than {_MAX_CONFIG_BYTES:,} bytes")
            config = json.loads(archive.read("config.json"))
        compiled = _without_compile_configs(config)
        with default_settings(), deferred_initialization():
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
    except (ImportError, MemoryError):  # the environment's fault
        raise
    except Exception as error:
        if is_disk_error(error):
            raise disk_error(path, error) from None
        raise BundleError(
            f"{str(path)!r} must be a complete .keras file with layers that Keras knows. Received: "
            f"{type(error).__name__}: {str(error)[:_MAX_DETAIL]}. Save it again."
        ) from error
    if isinstance(compiled, dict) and compiled.get("optimizer") is not None:
        try:
            model.optimizer = keras.optimizers.get(compiled["optimizer"])
        except Exception as error:  # noqa: BLE001 - of any optimizer, also one of the user's own
            _log.warning("The optimizer of %s is not known to Keras: %s", path, error)
    return model
