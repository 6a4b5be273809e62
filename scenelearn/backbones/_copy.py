"""Copy a user's model for images of one size, layer by layer, with its weights.

The copy is one flat functional graph: functional models nested in it, such as a backbone in a
classifier, are taken apart. So the layers of a user's network are trained, explained and made fast
like those of keras.applications. The user's own model is never changed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn._keras_internals import (
    can_read_graphs,
    functional_of,
    input_structure_of,
    nested_layers,
    own_variables,
    replay,
)
from scenelearn.backbones._pooling import NAMES
from scenelearn.errors import ArgumentError

_RESERVED = NAMES | {"backbone", "image", "logits", "preprocessing", "probabilities"}
_FLOATS = ("float32", "float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16")


def copy_network(model: Any, image: Any, precision: str) -> Any:
    """Call a copy of a model, with the same weights, on a symbolic image.

    Args:
        model: any `keras.Model` with one image as its input.
        image: symbolic, (batch, height, width, 3).
        precision: the dtype policy of the copy.

    Returns:
        The symbolic outputs, structured like those of `model`.

    Raises:
        ArgumentError: if a layer cannot be copied, or does not fit this image size.
    """
    copies: dict[int, tuple[Any, Any]] = {}
    names = set(_RESERVED)

    def call(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if is_transparent(operation):
            tensors = keras().tree.flatten((args, kwargs))
            inputs = [tensor for tensor in tensors if isinstance(tensor, keras().KerasTensor)]
            return replay(operation, inputs, call)
        if id(operation) not in copies:
            copy = _copy_operation(operation, tuple(image.shape[1:]), precision, names)
            copies[id(operation)] = operation, copy
        return copies[id(operation)][1](*args, **kwargs)

    structure = input_structure_of(model)
    images = image if structure is None else keras().tree.map_structure(lambda _: image, structure)
    with keras().saving.custom_object_scope(custom_classes(model)):
        try:
            outputs = call(model, (images,), {})
            for original, copy in copies.values():
                _copy_weights(original, copy)
        except (NotImplementedError, TypeError, ValueError, KeyError) as error:
            raise ArgumentError(
                f"`backbone` must be a network that can be copied for images of "
                f"{image.shape[1]}×{image.shape[2]} px. Received: {type(error).__name__}: "
                f"{str(error)[:500]} Pass the `image_px` that the network was made for. Layers of "
                "your own need a `get_config` that returns the arguments of their constructor."
            ) from None
    return outputs


def is_transparent(layer: Any) -> bool:
    """Return whether a layer is a functional model that is copied layer by layer.

    Models of KerasHub with layers of its own are copied as a whole: those layers cannot be created
    from their configuration, while the model can, for any image size.
    """
    if not isinstance(layer, keras().Model) or functional_of(layer) is None:
        return False
    is_builtin = type(layer).__name__ in ("Functional", "Model", "Sequential")
    if not is_builtin and not is_from_keras_hub(layer):
        return False
    own = any(is_from_keras_hub(inner) for inner in nested_layers(layer)) and not is_builtin
    return not own and can_read_graphs(layer)


def is_from_keras_hub(layer: Any) -> bool:
    """Return whether a layer's class belongs to KerasHub."""
    return type(layer).__module__.split(".")[0] == "keras_hub"


def custom_classes(model: Any) -> dict[str, type]:
    """Return the classes in a model that neither Keras nor KerasHub defines, by name."""
    return {
        type(layer).__name__: type(layer)
        for layer in nested_layers(model, include_self=True)
        if type(layer).__module__.split(".")[0] not in ("keras", "keras_hub")
    }


def _copy_operation(
    operation: Any, image_shape: tuple[int, ...], precision: str, names: set[str]
) -> Any:
    """A layer or other operation with the same configuration, and without weights yet."""
    config = dict(operation.get_config())
    config.update({key: None for key in config if key.endswith("_regularizer")})
    name = config.get("name", operation.name)
    while name in names:
        name = f"{name}_"
    names.add(name)
    config["name"] = name
    if isinstance(operation, keras().Layer) and operation.dtype_policy.name in _FLOATS:
        config["dtype"] = precision
    if is_from_keras_hub(operation) and isinstance(operation, keras().Model):
        sizes = {"image_shape", "input_shape", "position_embedding_shape"} & set(config)
        config.update(dict.fromkeys(sizes, image_shape))
    return type(operation).from_config(config)


def _copy_weights(original: Any, copy: Any) -> None:
    layers = [nested_layers(layer, include_self=True) for layer in (original, copy)]
    for old, new in zip(*layers, strict=True):
        store: dict[str, Any] = {}
        if not isinstance(old, keras().Layer):
            continue
        old.save_own_variables(store)
        # Copied, since training on JAX deletes the arrays that it replaces.
        store = {key: np.array(keras().ops.convert_to_numpy(v)) for key, v in store.items()}
        for index, variable in enumerate(own_variables(new)):
            value = store.get(str(index))
            if value is not None and tuple(value.shape) != tuple(variable.shape):
                if _is_other_layer_of_keras(new):
                    raise ValueError(
                        f"weights of shape {value.shape} where {tuple(variable.shape)} is expected."
                    )
                store[str(index)] = resize_position_embedding(value, variable.shape)
        if store:
            new.load_own_variables(store)


def _is_other_layer_of_keras(layer: Any) -> bool:
    """Whether a layer holds no position embeddings, such as a `Dense` after a `Flatten`."""
    is_keras = type(layer).__module__.startswith("keras.")
    return is_keras and not isinstance(layer, keras().layers.Embedding)


def keep_position_embeddings(model: Any) -> None:
    """Let KerasHub's DINOv2 save the position embeddings that were trained.

    It saves those of another size, from which it interpolates the ones that it uses. Here both have
    one size; but it updates the former only if the sum of the latter has become smaller.
    """
    for layer in nested_layers(model):
        trained = getattr(layer, "interpolated_position_embeddings", None)
        if trained is not None:
            # Copied: JAX refuses to train two variables that share one array.
            layer.position_embeddings.assign(np.array(keras().ops.convert_to_numpy(trained)))


def resize_position_embedding(
    values: npt.NDArray[Any], shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """Interpolate learned position embeddings between two sizes of a square grid.

    Args:
        values: (..., n, dim): a vector for each token; the last ones form a square grid of patches.
        shape: (..., m, dim), with as many tokens before the grid.

    Returns:
        The values in this shape: bicubic between patches, unchanged for other tokens.

    Raises:
        ValueError: if these are no shapes of position embeddings.

    Example:
        >>> resize_position_embedding(np.ones((1, 5, 2)), (1, 10, 2)).shape
        (1, 10, 2)
    """
    if len(values.shape) == len(shape) and len(shape) in (2, 3):
        n, m = values.shape[-2], shape[-2]
        old, new = math.isqrt(n), math.isqrt(m)
        if n - old**2 == m - new**2 and values.shape[-1] == shape[-1]:
            flat = values.reshape(n, -1).astype(np.float32)
            n_other = n - old**2
            grid = flat[n_other:].reshape(1, old, old, -1)
            resized = keras().ops.image.resize(
                grid, (new, new), interpolation="bicubic", data_format="channels_last"
            )
            patches = keras().ops.convert_to_numpy(resized).reshape(new**2, -1)
            return np.concatenate([flat[:n_other], patches]).reshape(shape)
    raise ValueError(f"weights of shape {values.shape} where {tuple(shape)} is expected.")
