"""Training and prediction on several devices and in several processes.

With one device, the usual case, nothing here does anything. Several devices form a
`keras.distribution.DataParallel`: the model is replicated on each device, and each batch is split
among them. The user starts several processes, for example on several hosts, with JAX's own runtime
(`jax.distributed.initialize`). All processes run the same program on the same photos and must make
the same decisions; otherwise they wait for each other forever. Therefore whatever depends on the
clock, a signal or a file is decided by the main process, or by all together, and then broadcast.
Scanning, auditing and decoding are divided: each process reads a share of the files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras, start
from scenelearn._checks import check_choice
from scenelearn._keras_internals import (
    clear_device_layout,
    forget_programs,
    has_device_layout,
    nested_layers,
)
from scenelearn.errors import DeviceError

_PROGRAM = "_scenelearn_distributed"  # a model's attribute: its compiled prediction program
_GATHERED_ROWS = 4096  # of each process at a time


@contextmanager
def data_parallel(devices: str | None) -> Iterator[None]:
    """Split batches among devices inside this context.

    Args:
        devices: "all" for all devices of the backend's best kind; None for the devices of the
            distribution that is set in Keras, or for one device if none is set.

    Raises:
        ArgumentError: if `devices` is not a supported value.
        BackendError: if Keras cannot start.
        ForkError: if this process was forked after Keras had started.
        DeviceError: if these devices cannot be used together.
    """
    check_choice(
        "devices",
        devices,
        ("all", None),
        advice="To use only some devices, pass a "
        "keras.distribution.DataParallel(devices=[...]) to keras.distribution.set_distribution.",
    )
    start()
    if (current := _distribution()) is not None:
        _check_distribution(current)
        yield
        return
    if devices is None or _n_available_devices() == 1:
        if _n_processes() > 1:
            raise DeviceError(
                "A fit with several processes must use the devices of all of them. Received: "
                f"{_n_processes()} processes and devices=None. Pass devices='all'."
            )
        yield
        return
    if keras().backend.backend() != "jax":
        raise DeviceError(
            "Training on several devices requires Keras on JAX. Received: devices='all' and "
            f"{_n_available_devices()} devices on {keras().backend.backend()}. "
            "Set KERAS_BACKEND=jax, or pass devices=None."
        )
    distribution = keras().distribution.DataParallel(auto_shard_dataset=False)
    _check_distribution(distribution)
    with distribution.scope():
        yield


def n_devices() -> int:
    """Return the number of devices that share a batch: 1 without a distribution."""
    distribution = _distribution()
    return 1 if distribution is None else int(distribution.device_mesh.devices.size)


def process_index() -> int:
    """Return the index of this process among those that share a batch; 0 is the main process."""
    if process_count() == 1:
        return 0
    import jax

    return int(jax.process_index())


def process_count() -> int:
    """Return the number of processes that share a batch: 1 without a distribution.

    It loads no backend, and works in a process that was forked after Keras had started.
    """
    jax = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        return 1
    return 1 if _distribution() is None else _n_processes()


def padded_batch_size(n: int) -> int:
    """Round a batch size up to a multiple of the number of devices."""
    return -(-n // n_devices()) * n_devices()


def predict_on_devices(model: Any, images: npt.NDArray[Any]) -> list[npt.NDArray[np.float32]]:
    """Compute all outputs of a model for one batch on the devices in use.

    Args:
        model: a `keras.Model`.
        images: (n, height, width, 3), the whole batch in each process; n must be a multiple of the
            number of devices, see `padded_batch_size`.

    Returns:
        One (n, n_outputs) float32 array per output, the same in each process.
    """
    if _distribution() is None:
        outputs = model.predict_on_batch(images)
    else:
        outputs = _predict_distributed(model, images)
    arrays = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [np.asarray(array, np.float32) for array in arrays]


def gather_to_one_device(model: Any) -> Any:
    """Move the variables of a replicated model to one device of this process.

    Does nothing while Keras has a distribution, such as one that the user has set.

    Args:
        model: any `keras.Model`. Models that share its layers are moved along with it.

    Returns:
        The same model.
    """
    if _distribution() is not None or not any(map(has_device_layout, model.variables)):
        return model
    for variable in model.variables:
        value = np.asarray(variable.value)
        clear_device_layout(variable)
        variable.assign(value)
    for layer in nested_layers(model, include_self=True):
        vars(layer).pop(_PROGRAM, None)
        forget_programs(layer)
    return model


# Collective operations: each process must call them.


def all_reduce_max(number: int) -> int:
    """Return the maximum of the processes' numbers."""
    if process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(number))))


def broadcast(value: Any) -> Any:
    """Return the main process's value to each process.

    Args:
        value: anything that JSON can represent, NaN included.
    """
    if process_count() == 1:
        return value
    content = broadcast_bytes(np.frombuffer(json.dumps(value).encode(), np.uint8))
    return json.loads(b"" if content is None else content.tobytes())


def broadcast_bytes(content: npt.NDArray[np.uint8] | None) -> npt.NDArray[np.uint8] | None:
    """Return the main process's bytes to each process.

    Args:
        content: (n,) bytes, or None. Ignored outside the main process.
    """
    if process_count() == 1:
        return content
    from jax.experimental import multihost_utils

    own = content if process_index() == 0 else None
    n_words = all_reduce_max(0 if own is None else -(-len(own) // 4) + 1)
    if not n_words:
        return None
    message = np.zeros(4 * n_words, np.uint8)  # a word for the length, then the content
    if own is not None:
        message[:4] = np.frombuffer(len(own).to_bytes(4, "little"), np.uint8)
        message[4 : 4 + len(own)] = own
    words = multihost_utils.broadcast_one_to_all(message.view(np.uint32))
    received = np.asarray(words).view(np.uint8)
    return received[4 : 4 + int.from_bytes(received[:4].tobytes(), "little")]


def broadcast_array(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the main process's array to each process; all must pass the same shape."""
    if process_count() == 1:
        return array
    from jax.experimental import multihost_utils

    words = np.ascontiguousarray(array, np.float32).view(np.uint32)  # integers preserve NaN
    return np.asarray(multihost_utils.broadcast_one_to_all(words)).view(np.float32)


def broadcast_rows(table: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> None:
    """Fill in some rows of a table with those of the main process, a few thousand at a time.

    Args:
        table: (n, …), changed in place; of the same shape in each process.
        rows: positions in the table, the same in each process.
    """
    if process_count() == 1:
        return
    for begin in range(0, len(rows), _GATHERED_ROWS):
        part = rows[begin : begin + _GATHERED_ROWS]
        table[part] = broadcast_array(table[part])


def assert_same_on_all_processes(digest: str, what: str) -> None:
    """Check that all processes have the same data.

    Args:
        digest: a hash of the data, at least seven hexadecimal digits.
        what: what the data is, for the error message.

    Raises:
        DeviceError: if the processes' data differ.
    """
    number = int(digest[:7], 16)
    if (all_reduce_max(number), -all_reduce_max(-number)) != (number, number):
        raise DeviceError(
            f"All processes of a fit must have the same {what}. Received: different {what} in "
            f"process {process_index()}. Start each process with the same program, versions and "
            "files."
        )


def share(n: int) -> slice:
    """Return which of n things, such as files to read, this process works on."""
    starts, k = _share_starts(n), process_index()
    return slice(starts[k], starts[k + 1])


def gather(values: list[Any]) -> list[Any]:
    """Join the lists of all processes, in the order of the processes.

    Args:
        values: anything that JSON can represent.
    """
    if process_count() == 1:
        return values
    content = np.frombuffer(json.dumps(values).encode(), np.uint8)
    parts = _all_gather(content)
    return [value for part in parts for value in json.loads(part.tobytes())]


def concatenate_rows(table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Concatenate the tables of all processes, in the order of the processes.

    Args:
        table: (n, …), with another n in each process.
    """
    if process_count() == 1:
        return table
    parts = _all_gather(np.ascontiguousarray(table).reshape(-1).view(np.uint8))
    rows = [part.view(table.dtype).reshape(-1, *table.shape[1:]) for part in parts]
    return np.concatenate(rows)


def gather_rows(table: npt.NDArray[np.uint8]) -> None:
    """Fill in the rows of all processes, each of which has filled in its `share` of them.

    Args:
        table: (n, …), changed in place.
    """
    n, n_processes = len(table), process_count()
    if n_processes == 1:
        return
    starts, own = _share_starts(n), share(n)
    for begin in range(0, -(-n // n_processes), _GATHERED_ROWS):
        rows = table[own.start + begin : min(own.start + begin + _GATHERED_ROWS, own.stop)]
        parts = _all_gather(np.ascontiguousarray(rows).reshape(-1))
        for first, part in zip(starts, parts, strict=False):
            received = part.reshape(-1, *table.shape[1:])
            table[first + begin : first + begin + len(received)] = received


def _share_starts(n: int) -> list[int]:
    """Where the share of each process begins among n things; n at the end."""
    n_processes = process_count()
    return [n * k // n_processes for k in range(n_processes + 1)]


def _all_gather(content: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """Return the bytes of each process, of any length."""
    from jax.experimental import multihost_utils

    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(content)))).reshape(-1)
    padded = np.zeros(max(int(lengths.max()), 1), np.uint8)
    padded[: len(content)] = content
    parts = np.asarray(multihost_utils.process_allgather(padded))
    return [part[:length] for part, length in zip(parts, lengths.tolist(), strict=True)]


def _predict_distributed(model: Any, images: npt.NDArray[Any]) -> Any:
    import jax

    distribution = _distribution()
    cached = vars(model).get(_PROGRAM)
    if cached is None or cached[0] is not distribution:
        spec: Any = jax.sharding.PartitionSpec
        replicated = jax.sharding.NamedSharding(distribution.device_mesh.backend_mesh, spec())

        def call(trainable: Any, non_trainable: Any, x: Any) -> Any:
            return model.stateless_call(trainable, non_trainable, x, training=False)[0]

        cached = distribution, jax.jit(call, out_shardings=replicated)
        object.__setattr__(model, _PROGRAM, cached)  # bypass Keras' attribute tracking
    layout = distribution.get_data_layout(images.shape).backend_layout
    x = jax.make_array_from_callback(images.shape, layout, lambda index: images[index])
    variables = model.trainable_variables, model.non_trainable_variables
    return cached[1](*([v.value for v in group] for group in variables), x)


def _distribution() -> Any:
    """The distribution that is set in Keras; None if there is none."""
    k = keras()
    return k.distribution.distribution() if k.backend.backend() == "jax" else None


def _n_available_devices() -> int:
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


def _check_distribution(distribution: Any) -> None:
    if not isinstance(distribution, keras().distribution.DataParallel):
        raise DeviceError(
            "A fit supports keras.distribution.DataParallel only. Received: "
            f"{type(distribution).__name__}. Pass devices='all' instead."
        )
    if _n_processes() == 1:
        return
    import jax

    mesh = distribution.device_mesh.backend_mesh.devices.flatten().tolist()
    if set(mesh) != set(jax.devices()):
        raise DeviceError(
            "A fit with several processes must use the devices of all of them. Received: a "
            f"distribution over {len(mesh)} of {jax.device_count()} devices. Pass devices='all'."
        )
