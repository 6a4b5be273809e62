"""Build a backbone with its preprocessing and its weights."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from scenelearn._backend import default_settings, keras, start
from scenelearn._checks import check_image_px, check_path, image_size
from scenelearn._keras_internals import (
    deferred_initialization,
    nested_layers,
    replace_download,
    report_downloads,
)
from scenelearn._progress import Progress, show_progress
from scenelearn.backbones._bundled import (
    BUNDLED,
    BUNDLED_BACKBONE,
    WEIGHTS_FILE,
    bundled_results,
    scenelearn_tiny,
)
from scenelearn.backbones._copy import copy_network
from scenelearn.backbones._fast import FROZEN_BATCHNORM
from scenelearn.backbones._materialize import materialize
from scenelearn.backbones._names import Architecture, check_no_preprocessing, find_architecture
from scenelearn.backbones._network import (
    DEFAULT_PX,
    Network,
    NetworkList,
    Preprocessing,
    is_own,
    load_network,
)
from scenelearn.backbones._pooling import NETWORKS, pool
from scenelearn.backbones._preprocess import preprocessing_layers
from scenelearn.errors import (
    ArgumentError,
    PathMissingError,
    WeightsFileError,
    WeightsUnavailableError,
)


@default_settings()
def build(
    backbone: Any,
    *,
    weights: str | os.PathLike[str] | None = "imagenet",
    preprocessing: Preprocessing = None,
    image_px: int | tuple[int, int] | None = None,
    seed: int = 0,
    train_batchnorm: bool = False,
    precision: str | None = None,
    progress: Progress | None = None,
    verbose: bool | str = "auto",
) -> Any:
    """Build a model from raw pixels to features: preprocessing, backbone, global average pooling.

    Args:
        backbone: a name, see `names`; or a network of your own: a `keras.Model`, the path of a
            ``.keras`` file, or a model or preset of KerasHub ("hub:" and its name, or its folder).
            Or a list of networks, whose features are concatenated; those of keras.applications have
            their pretrained weights.
        weights: "imagenet", which Keras downloads once and verifies; "scenelearn", the bundled
            weights of "scenelearn_tiny"; the path of a weights file without the top layers, as
            Keras offers them for download; or None for random weights. A network of your own brings
            its weights along; None says that they are random.
        preprocessing: for a network of your own: "none", "tf", "caffe", "torch" or (mean, std), see
            `fit`. None if its preset or its first layer tells.
        image_px: the side of square images, or (height, width), in pixels. None for the size that a
            network of your own was made for (at most 224 with KerasHub), 224 if it takes any size,
            or 160 for networks of keras.applications. Transformers need squares.
        seed: random seed of random weights.
        train_batchnorm: whether BatchNormalization uses batch statistics in training with
            pretrained weights too, as it does with random weights.
        precision: Keras' dtype policy for the network, such as "mixed_bfloat16"; None for float32,
            whatever the current policy of Keras. Preprocessing is always float32.
        progress: called with (what, done, total) during a download, in place of a progress bar.
        verbose: True for a progress bar, False for none, "auto" for one on a terminal or in a
            notebook.

    Returns:
        A functional `keras.Model` from (batch, height, width, 3) values in 0 to 255, uint8 or
        float, to (batch, n_features) in the compute dtype of `precision`. The
        network is its layer "backbone". With pretrained weights, BatchNormalization keeps its
        pretrained statistics in training, unless `train_batchnorm`.

    Raises:
        UnknownBackboneError: if there is no such backbone.
        ArgumentError: if the network cannot be built for this image size, the package has no
            weights for it, a network of your own cannot be a backbone, or its preprocessing is not
            known.
        PathMissingError: if a path does not exist, or the bundled weights are missing.
        WeightsFileError: if the weights in the file do not match the network, or the file of a
            network cannot be loaded.
        WeightsUnavailableError: if the download failed.
        MissingExtraError: if the network needs KerasHub, which is not installed.
        BackendError: if Keras cannot start.
        ForkError: if this process was forked after Keras had started.

    Example:
        >>> build("scenelearn_tiny", weights="scenelearn", image_px=64).output_shape
        (None, 768)
    """
    start()
    image_px = None if image_px is None else check_image_px(image_px)
    if is_own(backbone):
        network = backbone
        if not isinstance(network, Network | NetworkList):
            network = load_network(backbone, preprocessing)
        image_px = network.default_px if image_px is None else image_px
        network.check_size(image_px)
        if isinstance(network, NetworkList):
            network = _concatenate(network, image_px, progress, verbose)
        preprocess, is_random = network.preprocess, weights is None
        build_network = partial(_copy_network, network, image_px, precision or "float32")
    else:
        architecture = find_architecture(backbone)
        check_no_preprocessing(architecture.name, preprocessing)
        image_px = image_px or DEFAULT_PX
        source = _check_weights(weights, architecture)
        preprocess, is_random = architecture.preprocess, source is None
        build_network = partial(_build_network, architecture, source, image_px)

    def make() -> Any:
        k = keras()
        image = k.Input((*image_size(image_px), 3), name="image")
        x = image
        for layer in preprocessing_layers(preprocess):
            x = layer(x)
        with _dtype_policy(precision or "float32"):
            network = build_network()
        return k.Model(image, network(x), name="features")

    with (
        show_progress(progress, verbose) as report,
        report_downloads(partial(report, "downloading weights")),
    ):
        model = materialize(make, seed)
    return model if is_random or train_batchnorm else freeze_batchnorm(model)


def _concatenate(
    networks: NetworkList,
    image_px: int | tuple[int, int],
    progress: Progress | None,
    verbose: bool | str,
) -> Network:
    """One network, from raw pixels to the features of several, side by side."""
    k = keras()
    image = k.Input((*image_size(image_px), 3))
    features: list[Any] = []
    for part in networks.parts:
        weights = BUNDLED if part == BUNDLED_BACKBONE else "imagenet"
        model = build(part, weights=weights, image_px=image_px, progress=progress, verbose=verbose)
        model.name = f"network_{len(features)}"
        features.append(model(image))
    joined = k.layers.Concatenate(name=NETWORKS)(features)
    return Network(name=networks.title, model=k.Model(image, joined), preprocess=lambda x, **_: x)


def _copy_network(network: Network, image_px: int | tuple[int, int], precision: str) -> Any:
    """Copy a network of the user's own, up to its features."""
    image = keras().Input((*image_size(image_px), 3))
    outputs = copy_network(network.model, image, precision)
    return keras().Model(image, pool(image, outputs), name="backbone")


@default_settings()
def count_parameters(name: str, image_px: int | tuple[int, int]) -> int:
    """Count the parameters of a backbone without giving them values.

    Args:
        name: a backbone, see `names`.
        image_px: the side of square images, or (height, width), in pixels.

    Raises:
        UnknownBackboneError: if there is no such backbone.
        ArgumentError: if the network cannot be built for this image size.
    """
    with deferred_initialization():
        return int(_build_network(find_architecture(name), None, image_px).count_params())


def freeze_batchnorm(model: Any) -> Any:
    """Make the model's BatchNormalization use its moving statistics in training too.

    Its scale and offset remain trainable. Calling `network(x, training=False)`, as Keras' guide to
    transfer learning advises, has no such effect: in Keras 3.15, a functional model overrides
    it with its own `training` argument.

    Args:
        model: any `keras.Model`; nested models are included.

    Returns:
        The same model. The change is not stored in saved files.
    """
    for layer in nested_layers(model):
        if isinstance(layer, keras().layers.BatchNormalization):
            object.__setattr__(layer, FROZEN_BATCHNORM, True)
            layer.call = _without_training(layer.call)
    return model


def _without_training(call: Callable[..., Any]) -> Callable[..., Any]:
    def call_for_inference(
        inputs: Any,
        training: Any = None,  # noqa: ARG001 - Keras passes it
        mask: Any = None,
    ) -> Any:
        return call(inputs, training=False, mask=mask)

    return call_for_inference


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Create layers with this dtype policy inside."""
    config = keras().config
    before = config.dtype_policy()
    config.set_dtype_policy(name)
    try:
        yield
    finally:
        config.set_dtype_policy(before)


def _check_weights(
    weights: str | os.PathLike[str] | None, architecture: Architecture
) -> str | None:
    """The source of the weights: "imagenet", a path, or None."""
    if weights is None or weights == "imagenet":
        return None if weights is None else "imagenet"
    if weights == BUNDLED:
        return _find_bundled_weights(architecture)
    expected = "'imagenet', 'scenelearn', the path of a weights file, or None."
    path = check_path("weights", weights, advice=f"Pass {expected}")
    if not path.is_file():
        raise PathMissingError(
            f"`weights` must be {expected} Received: weights={str(weights)!r}, where there is no "
            "file. Check the path."
        )
    return str(path)


def _find_bundled_weights(architecture: Architecture) -> str:
    if architecture.build is not scenelearn_tiny:
        raise ArgumentError(
            "`weights` can be 'scenelearn' for the backbone 'scenelearn_tiny' only. Received: "
            f"weights='scenelearn' for {architecture.name!r}. Pass weights='imagenet', a weights "
            "file, or None; or backbone='scenelearn_tiny'."
        )
    if not WEIGHTS_FILE.is_file():
        raise PathMissingError(
            "The weights of 'scenelearn_tiny' must be in the package. Received: no file at "
            f"{str(WEIGHTS_FILE)!r}. Reinstall scenelearn; in a checkout, run `nox -s pretrain`."
        )
    return str(WEIGHTS_FILE)


def _build_network(
    architecture: Architecture, source: str | None, image_px: int | tuple[int, int]
) -> Any:
    """Build the network without preprocessing, and load its weights unless they are random.

    A version 1 EfficientNet has one more layer when Keras is asked for "imagenet" than when it is
    given the same weights as a file, and needs that layer. So Keras is asked for "imagenet", and
    the file replaces the download.
    """
    file = None if source == "imagenet" else source
    file_as_download = file is not None and architecture.build.__module__.endswith(".efficientnet")
    download = "imagenet" if source == "imagenet" or file_as_download else None
    width = {} if architecture.width is None else {"alpha": architecture.width}
    try:
        with warnings.catch_warnings(), ExitStack() as stack:
            # Keras warns that it uses the weights for 224 px at other sizes, as intended.
            warnings.filterwarnings("ignore", message=".*is undefined or non-square.*")
            if file is not None and file_as_download:
                stack.enter_context(replace_download(file))
            network = architecture.build(
                include_top=False,
                weights=download,
                input_shape=(*image_size(image_px), 3),
                pooling="avg",
                **width,
            )
            # Rename it afterwards: from the name that they are passed, some functions of Keras
            # infer what to build (EfficientNetV2) or which weights to load (ConvNeXt).
            network.name = "backbone"
    except ValueError as error:
        if file is not None and file_as_download:
            raise _weights_mismatch(architecture, file, error) from None
        if download is not None and "corrupted" in str(error):
            raise _download_failed(architecture, error) from None
        raise ArgumentError(
            f"Keras cannot build {architecture.name!r} with weights={source!r} at "
            f"image_px={image_px}: {error} Choose another `image_px`, width or weights."
        ) from None
    except Exception as error:  # Keras raises a bare Exception if a download fails
        if download is None:
            raise
        if file is not None:
            raise _weights_mismatch(architecture, file, error) from None
        raise _download_failed(architecture, error) from None
    if file is not None and not file_as_download:
        try:
            with warnings.catch_warnings(action="ignore"):
                network.load_weights(file)
        except Exception as error:  # noqa: BLE001 - h5py and Keras raise many kinds
            raise _weights_mismatch(architecture, file, error) from None
    return network


def _weights_mismatch(architecture: Architecture, file: str, error: Exception) -> WeightsFileError:
    return WeightsFileError(
        f"The weights file {file!r} does not match {architecture.name!r} without its top "
        f"layers. Received: {type(error).__name__}: {error} Pass a file of this network and width "
        "without the top layers, as Keras offers for download; `backbone` names the network."
    )


def _download_failed(architecture: Architecture, error: Exception) -> WeightsUnavailableError:
    return WeightsUnavailableError(
        f"The ImageNet weights of {architecture.name!r} could not be downloaded. Received: "
        f"{error} Download the weights file without top layers ('…_notop.h5') on a machine with "
        f"internet access and pass its path: weights='path/to/file.h5' (on the command line "
        f"--weights path/to/file.h5). {_offline_alternative()}"
    )


def _offline_alternative() -> str:
    """What to use without a download, and how accurate it is."""
    results = bundled_results()
    is_measured = {"imagenet", "pretrained"} <= set(results.get("test_percent", ()))
    if not WEIGHTS_FILE.is_file() or not is_measured:
        return "Or train from random weights, with much lower accuracy: weights=None."
    return (
        "Or use the bundled backbone: weights='scenelearn' (on the command line "
        "--weights scenelearn), preferably without `backbone` and with "
        f"image_px={results['image_px']['pretrained']}. Expect lower accuracy: with linear probes "
        f"on photos of six kinds of scenes, {results['test_percent']['pretrained']:g}% instead of "
        f"{results['test_percent']['imagenet']:g}% with the default backbone."
    )
