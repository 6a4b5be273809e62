"""A backbone with its preprocessing and its weights, built without wasting time.

Keras draws random values for every weight before the stored ones replace them, and on JAX each
shape of weight costs one compilation: 11 s for a MobileNetV2. Here a model is built with its
variables left empty, and each gets its value once.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn.backbones._fast import KEEPS_STATISTICS
from scenelearn.backbones._names import Architecture, find
from scenelearn.backbones._preprocess import layers
from scenelearn.backbones._tiny import FILE, STORED, reached, scenelearn_tiny
from scenelearn.errors import (
    ArgumentError,
    PathMissingError,
    WeightsFileError,
    WeightsUnavailableError,
)


def build(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    image_px: int = 160,
    seed: int = 0,
    batch_statistics: bool = False,
    precision: str | None = None,
) -> Any:
    """A model from raw pixels to features: preprocessing, backbone, global average.

    Args:
        name: of keras.applications, see `names`.
        weights: "imagenet" (Keras downloads the weights once and checks them); "scenelearn", those
            that are in the package, for "scenelearn_tiny"; the path of a weights file without the
            top layers, as Keras offers them for download; or None for random weights.
        image_px: width and height of the images, in pixels.
        seed: of random weights.
        batch_statistics: whether stored weights normalize by the batch while training, as random
            ones do.
        precision: Keras' dtype policy for the network, such as "mixed_bfloat16"; None for the
            one that Keras has, usually float32. Preprocessing has that in any case.

    Returns:
        A functional `keras.Model`, (batch, image_px, image_px, 3) values in 0-255, uint8 or
        float, to (batch, n_features) in the precision's compute dtype, usually float32. The network
        is its layer "backbone". With stored weights, BatchNormalization keeps its stored statistics
        even while training, unless `batch_statistics`.

    Raises:
        UnknownBackboneError: if keras.applications has no such network.
        ArgumentError: if the network cannot be built at this image size, or the package has no
            weights for it.
        PathMissingError: if `weights` is a path where no file is, or the package lacks its own.
        WeightsFileError: if the file's weights do not fit the network.
        WeightsUnavailableError: if the download failed.
    """
    architecture = find(name)
    source = _check_weights(weights, architecture)

    def make() -> Any:
        k = keras()
        image = k.Input((image_px, image_px, 3), name="image")
        x = image
        for layer in layers(architecture.preprocess):
            x = layer(x)
        with _policy(precision):
            network = _network(architecture, source, image_px)
        return k.Model(image, network(x), name="features")

    model = filled(make, seed)
    return model if source is None or batch_statistics else keep_statistics(model)


def keep_statistics(model: Any) -> Any:
    """Let the model's BatchNormalization use its stored statistics in training too.

    Its scale and offset still train. (`network(x, training=False)`, which Keras' guide to
    transfer learning advises, does not do it: in Keras 3.15, a functional model
    passes its own `training` on to its layers, over what they were called with.)

    Args:
        model: any `keras.Model`; nested models are gone through too.

    Returns:
        The same model. Nothing of this is in a saved file.
    """
    for layer in model._flatten_layers(include_self=False):
        if isinstance(layer, keras().layers.BatchNormalization):
            object.__setattr__(layer, KEEPS_STATISTICS, True)
            layer.call = _without_training(layer.call)
    return model


def _without_training(call: Callable[..., Any]) -> Callable[..., Any]:
    def by_stored(
        inputs: Any,
        training: Any = None,  # noqa: ARG001 - passed by Keras, and not to be listened to
        mask: Any = None,
    ) -> Any:
        return call(inputs, training=False, mask=mask)

    return by_stored


def filled(make: Callable[[], Any], seed: int = 0) -> Any:
    """Build a model with empty variables, then give each its value.

    A variable gets what the building loaded into it, else a random or constant value by its
    initializer, drawn with NumPy where it is one of the usual kinds.

    Args:
        make: builds and returns a `keras.Model`; it may load weights.
        seed: of the random values.

    Returns:
        The model, ready for use.
    """
    k = keras()
    from keras.src.backend.common import global_state  # Keras' list of what is still empty

    before = list(global_state.get_global_attribute("uninitialized_variables") or [])
    scope = k.StatelessScope(initialize_variables=False)
    try:
        with scope:
            model = make()
            values = {id(v): scope.get_current_value(v) for v in model.variables}
    finally:
        global_state.set_global_attribute("uninitialized_variables", before)
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        value = values[id(variable)]
        if value is None:
            value = _initial(variable, rng)
        if value is None:
            variable._deferred_initialize()
        else:
            variable._initialize(k.ops.convert_to_tensor(value, dtype=variable.dtype))
    return model


@contextmanager
def _policy(name: str | None) -> Iterator[None]:
    """Inside, layers are made with this dtype policy."""
    config = keras().config
    before = config.dtype_policy()
    if name is not None:
        config.set_dtype_policy(name)
    try:
        yield
    finally:
        config.set_dtype_policy(before)


def _check_weights(
    weights: str | os.PathLike[str] | None, architecture: Architecture
) -> str | None:
    if weights is None or weights == "imagenet":
        return None if weights is None else "imagenet"
    if not isinstance(weights, str | os.PathLike):
        raise ArgumentError(
            "`weights` must be 'imagenet', 'scenelearn', the path of a weights file, or None. "
            f"Received: weights={weights!r}."
        )
    if weights == STORED:
        return _in_package(architecture)
    path = Path(weights).expanduser()
    if not path.is_file():
        raise PathMissingError(
            "`weights` must be 'imagenet', 'scenelearn', the path of a weights file, or None. "
            f"Received: weights={str(weights)!r}, where there is no file. Check the path."
        )
    return str(path)


def _in_package(architecture: Architecture) -> str:
    """The path of the weights that come with the package."""
    if architecture.build is not scenelearn_tiny:
        raise ArgumentError(
            "`weights` can be 'scenelearn' for the backbone 'scenelearn_tiny' only. Received: "
            f"weights='scenelearn' for {architecture.name!r}. Pass weights='imagenet', a weights "
            "file, or None; or backbone='scenelearn_tiny'."
        )
    if not FILE.is_file():
        raise PathMissingError(
            "The weights of 'scenelearn_tiny' must lie in the package. Received: no file at "
            f"{str(FILE)!r}. Install scenelearn anew; in a checkout, `nox -s pretrain` makes them."
        )
    return str(FILE)


def _network(architecture: Architecture, source: str | None, image_px: int) -> Any:
    """The bare network, its weights loaded unless they are to be random.

    An EfficientNet (of the first version) has a layer more when Keras is asked for "imagenet"
    than when it is given the same weights as a file, and needs it. So it is asked for
    "imagenet", and the file takes the place of the download.
    """
    file = None if source == "imagenet" else source
    file_as_download = file is not None and architecture.build.__module__.endswith(".efficientnet")
    download = "imagenet" if source == "imagenet" or file_as_download else None
    width = {} if architecture.width is None else {"alpha": architecture.width}
    try:
        with warnings.catch_warnings(), ExitStack() as stack:
            # Keras warns that it takes the 224 px weights at other sizes, which is what we want.
            warnings.filterwarnings("ignore", message=".*is undefined or non-square.*")
            if file is not None and file_as_download:
                stack.enter_context(_in_place_of_download(file))
            network = architecture.build(
                include_top=False,
                weights=download,
                input_shape=(image_px, image_px, 3),
                pooling="avg",
                **width,
            )
            # Only now: by the name that they are given, some of Keras's functions look up what to
            # build (EfficientNetV2) or which weights (ConvNeXt).
            network.name = "backbone"
    except ValueError as error:
        if file is not None and file_as_download:
            raise _unfitting(architecture, file, error) from None
        if download is not None and "corrupted" in str(error):
            raise _unavailable(architecture, error) from None
        raise ArgumentError(
            f"Keras cannot build {architecture.name!r} with weights={source!r} at "
            f"image_px={image_px}: {error} Choose another `image_px`, width or weights."
        ) from None
    except Exception as error:  # Keras raises a bare Exception when a download fails
        if download is None:
            raise
        if file is not None:
            raise _unfitting(architecture, file, error) from None
        raise _unavailable(architecture, error) from None
    if file is not None and not file_as_download:
        _load(network, architecture, file)
    return network


@contextmanager
def _in_place_of_download(path: str) -> Iterator[None]:
    """While inside, Keras finds `path` where it would download a file."""
    from keras.src.utils import file_utils

    download = file_utils.get_file
    file_utils.get_file = lambda *_, **__: path
    try:
        yield
    finally:
        file_utils.get_file = download


def _load(network: Any, architecture: Architecture, source: str) -> None:
    try:
        network.load_weights(source)
    except Exception as error:  # noqa: BLE001 - h5py and Keras raise many kinds here
        raise _unfitting(architecture, source, error) from None


def _unfitting(architecture: Architecture, source: str, error: Exception) -> WeightsFileError:
    return WeightsFileError(
        f"The weights file {source!r} does not fit {architecture.name!r} without its top "
        f"layers. Received: {type(error).__name__}: {error} Pass the file of this network "
        "and width without top layers, as Keras offers those of its networks for download; "
        "`backbone` names the network."
    )


def _unavailable(architecture: Architecture, error: Exception) -> WeightsUnavailableError:
    return WeightsUnavailableError(
        f"The ImageNet weights of {architecture.name!r} could not be downloaded. Received: "
        f"{error} Download the weights file without top layers ('…_notop.h5') on a machine with "
        f"internet and pass its path: weights='path/to/file.h5' (on the command line "
        f"--weights path/to/file.h5). {_instead()}"
    )


def _instead() -> str:
    """What to take where nothing can be downloaded, and what it costs."""
    known = reached()
    if not FILE.is_file() or not {"imagenet", "pretrained"} <= set(known.get("test_percent", ())):
        return "Or train from random weights, with much lower accuracy: weights=None."
    return (
        "Or take the network that comes with scenelearn: weights='scenelearn' (on the command line "
        "--weights scenelearn), best without `backbone` and with "
        f"image_px={known['image_px']['pretrained']}. Expect a lower accuracy: on photos of six "
        f"kinds of scenes {known['test_percent']['pretrained']:g} % in place of "
        f"{known['test_percent']['imagenet']:g} % by the default network, by solved heads alone."
    )


def _initial(variable: Any, rng: np.random.Generator) -> npt.NDArray[Any] | None:
    """The initializer's value by NumPy, or None where we do not know the kind."""
    initializer, shape = variable._initializer, tuple(variable.shape)
    if variable.path.endswith("seed_generator_state"):  # of Dropout layers
        return rng.integers(0, 2**31, shape).astype(np.uint32)
    kind = type(initializer).__name__
    if kind == "Zeros":
        return np.zeros(shape, np.float32)
    if kind == "Ones":
        return np.ones(shape, np.float32)
    if not isinstance(initializer, keras().initializers.VarianceScaling):
        return None
    fan_in, fan_out = _fans(shape)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    variance = initializer.scale / max(1.0, fan[initializer.mode])
    if initializer.distribution == "uniform":
        limit = np.sqrt(3 * variance)
        return rng.uniform(-limit, limit, shape).astype(np.float32)
    values = rng.standard_normal(shape)
    if initializer.distribution == "truncated_normal":
        while (far := np.abs(values) > 2).any():
            values[far] = rng.standard_normal(int(far.sum()))
        values /= 0.87962566103423978  # the deviation of a normal cut off at ±2
    return np.asarray(values * np.sqrt(variance), np.float32)


def _fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """Inputs and outputs of one unit, as Keras counts them."""
    if len(shape) < 2:
        n = float(shape[0]) if shape else 1.0
        return n, n
    field = float(np.prod(shape[:-2]))
    return shape[-2] * field, shape[-1] * field
