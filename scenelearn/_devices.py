"""Several devices and processes: each batch is spread over them, and what is decided is shared.

One device is the rule: then nothing here does anything. Several devices are a
`keras.distribution.DataParallel`: the network is on each, and of each batch each sees its share.
Several processes, as on several hosts, are started by the user with JAX's own runtime
(`jax.distributed.initialize`). All run the same program on the same photos, and must come to the
same decisions, or they wait for each other for ever: so whatever depends on the clock, on a signal
or on a file is decided by the first process, or by all together, and shared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import forget_programs, keras
from scenelearn.errors import ArgumentError, DeviceError

_PROGRAM = "_scenelearn_spread"  # a model's attribute: its program for prediction on the devices


@contextmanager
def spread(devices: str | None) -> Iterator[None]:
    """Inside, batches are spread over devices.

    Args:
        devices: "all" for all that the backend has of its best kind; None for those of
            the distribution that Keras has been given, else for one.

    Raises:
        ArgumentError: if it is something else.
        DeviceError: if these devices cannot be used together.
    """
    if devices not in (None, "all"):
        raise ArgumentError(
            f"`devices` must be 'all' or None. Received: devices={devices!r}. For some of them, "
            "pass their names to keras.distribution.DataParallel(devices=[...]), and it to "
            "keras.distribution.set_distribution."
        )
    if (given := _distribution()) is not None:
        _check(given)
        yield
        return
    if devices is None or _n_found() == 1:
        if _n_processes() > 1:
            raise DeviceError(
                "A fit of several processes must use the devices of all. Received: "
                f"{_n_processes()} processes and devices=None. Pass devices='all'."
            )
        yield
        return
    if keras().backend.backend() != "jax":
        raise DeviceError(
            "Several devices need Keras on JAX. Received: devices='all' and "
            f"{_n_found()} devices on {keras().backend.backend()}. Set KERAS_BACKEND=jax, or pass "
            "devices=None."
        )
    everywhere = keras().distribution.DataParallel(auto_shard_dataset=False)
    _check(everywhere)
    with everywhere.scope():
        yield


def n_devices() -> int:
    """How many devices a batch is spread over: 1 unless there is a distribution."""
    found = _distribution()
    return 1 if found is None else int(found.device_mesh.devices.size)


def process() -> tuple[int, int]:
    """Which process this is, of how many that share each batch."""
    if _distribution() is None or _n_processes() == 1:
        return 0, 1
    import jax

    return int(jax.process_index()), int(jax.process_count())


def padded(n: int) -> int:
    """The next number that can be spread evenly."""
    return -(-n // n_devices()) * n_devices()


def predict(model: Any, images: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
    """All outputs of a model for one batch, on the devices that there are.

    Args:
        model: a `keras.Model`.
        images: (n, height, width, 3), the whole batch in each process; n as `padded` gives it.

    Returns:
        (n, n_outputs) float32 each, in each process.
    """
    spread_out = _distribution() is not None
    found = _spread_out(model, images) if spread_out else model.predict_on_batch(images)
    tables = found if isinstance(found, list | tuple) else [found]
    return [np.asarray(table, np.float32) for table in tables]


def at_home(model: Any) -> Any:
    """Bring a model that was spread back to one device of this process.

    Where Keras has a distribution still, as one that the user has set, it stays.

    Args:
        model: any `keras.Model`. Its layers are those of other models perhaps, which then come
            home as well.

    Returns:
        The same model.
    """
    away = any(getattr(variable, "_layout", None) is not None for variable in model.variables)
    if not away or _distribution() is not None:
        return model
    for variable in model.variables:
        value = np.asarray(variable.value)
        variable._layout = None
        variable.assign(value)
    for layer in (model, *model._flatten_layers(include_self=False)):
        vars(layer).pop(_PROGRAM, None)
        forget_programs(layer)
    return model


# What processes share


def largest(number: int) -> int:
    """The largest of the numbers that the processes have; each must ask."""
    if process()[1] == 1:
        return number
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def shared_bytes(content: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8] | None:
    """What the first process has, in each; each must ask.

    Args:
        content: (n,) bytes, or None; heeded in the first process only.
    """
    k, n = process()
    if n == 1:
        return content
    from jax.experimental import multihost_utils

    there = k == 0 and content is not None
    size = largest(-(-len(content) // 4) + 1 if there and content is not None else 0)
    if not size:
        return None
    whole = np.zeros(4 * size, np.uint8)  # four bytes for the length, then words of four
    if there and content is not None:
        whole[:4] = np.frombuffer(len(content).to_bytes(4, "little"), np.uint8)
        whole[4 : 4 + len(content)] = content
    got = np.asarray(multihost_utils.broadcast_one_to_all(whole.view(np.uint32))).view(np.uint8)
    return got[4 : 4 + int.from_bytes(got[:4].tobytes(), "little")]


def shared(value: Any) -> Any:
    """A JSON value (NaN allowed) of the first process, in each; each must ask."""
    if process()[1] == 1:
        return value
    content = shared_bytes(np.frombuffer(json.dumps(value).encode(), np.uint8))
    return json.loads(b"" if content is None else content.tobytes())


def shared_array(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """An array of the first process, in each; each must ask with one of this shape."""
    if process()[1] == 1:
        return array
    from jax.experimental import multihost_utils

    words = np.ascontiguousarray(array, np.float32).view(np.uint32)  # so that NaN passes
    return np.asarray(multihost_utils.broadcast_one_to_all(words)).view(np.float32)


@contextmanager
def first_of_all() -> Iterator[None]:
    """The first process does what is inside, then the others: so they find what it has written."""
    first = process()[0] == 0
    if not first:
        largest(0)
    yield
    if first:
        largest(0)


def see_that_same(digest: str, what: str) -> None:
    """See that all processes have the same.

    Args:
        digest: of it, at least eight hexadecimal digits.
        what: it is, for the message.

    Raises:
        DeviceError: if they differ.
    """
    mine = int(digest[:7], 16)
    if (largest(mine), -largest(-mine)) != (mine, mine):
        raise DeviceError(
            f"All processes of a fit must have the same {what}. Received: others in process "
            f"{process()[0]}. Start each with the same program, versions and files."
        )


def _spread_out(model: Any, images: npt.NDArray[Any]) -> Any:
    import jax

    found = _distribution()
    mesh = found.device_mesh.backend_mesh
    made = vars(model).get(_PROGRAM)
    if made is None or made[0] is not found:
        nothing: Any = jax.sharding.PartitionSpec
        whole = jax.sharding.NamedSharding(mesh, nothing())

        def outputs(trainable: Any, others: Any, x: Any) -> Any:
            return model.stateless_call(trainable, others, x, training=False)[0]

        made = found, jax.jit(outputs, out_shardings=whole)
        object.__setattr__(model, _PROGRAM, made)  # past Keras, which would track it
    layout = found.get_data_layout(images.shape).backend_layout
    x = jax.make_array_from_callback(images.shape, layout, lambda index: images[index])
    variables = model.trainable_variables, model.non_trainable_variables
    return made[1](*([v.value for v in group] for group in variables), x)


def _distribution() -> Any:
    """Keras' distribution; None where there is none, or for one device."""
    k = keras()
    if k.backend.backend() != "jax":
        return None
    return k.distribution.distribution()


def _n_found() -> int:
    k = keras()
    if k.backend.backend() == "torch":
        import torch

        return max(1, int(torch.cuda.device_count()))
    return max(1, len(k.distribution.list_devices()))


def _n_processes() -> int:
    if keras().backend.backend() != "jax":
        return 1
    import jax

    return int(jax.process_count())


def _check(distribution: Any) -> None:
    if not isinstance(distribution, keras().distribution.DataParallel):
        raise DeviceError(
            "A fit can be spread by keras.distribution.DataParallel only. Received: "
            f"{type(distribution).__name__}. Pass devices='all' in its place."
        )
    if _n_processes() == 1:
        return
    import jax

    mesh = distribution.device_mesh.backend_mesh.devices.flatten().tolist()
    if set(mesh) != set(jax.devices()):
        raise DeviceError(
            "A fit of several processes must use the devices of all. Received: a distribution "
            f"over {len(mesh)} of {jax.device_count()}. Pass devices='all'."
        )
