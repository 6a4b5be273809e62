"""The machine: versions and device, memory, and the precisions that it supports."""

from __future__ import annotations

import datetime
import hashlib
import logging
import math
import os
import platform
import re
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from scenelearn import sizing
from scenelearn._backend import keras
from scenelearn._cgroups import free_memory_bytes
from scenelearn._distributed import broadcast, n_devices, padded_batch_size
from scenelearn._io import name_bytes
from scenelearn._keras_internals import can_read_graphs, forget_programs, nested_layers
from scenelearn._threads import n_threads
from scenelearn.backbones._fast import MICROBATCH, part_size, runs_in_parts
from scenelearn.data import Photos
from scenelearn.errors import ArgumentError, UnknownLayerError

# CPU instructions for 16-bit products, as named in /proc/cpuinfo.
_INSTRUCTIONS = {
    "mixed_bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},  # the last is Arm's
    "mixed_float16": {"avx512_fp16", "amx_fp16"},
}
PRECISIONS = tuple(_INSTRUCTIONS)
_CPU_INFO = Path("/proc/cpuinfo")
# Vector instructions, from the widest: times depend on them.
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE", "asimd": "NEON"}

# If only the textbook estimate is known: a training process took up to 2.2 times as much, as
# measured (a CNN with three convolutions, batch size 50).
_TEXTBOOK_FACTOR = 2.2

_log = logging.getLogger(__name__)


# Environment


def environment() -> dict[str, str]:
    """Versions, backend, device, processor, cores and date of this run."""
    backend = keras().backend.backend()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        **versions(),
        "device": _device_name(backend) + (f" × {n_devices()}" if n_devices() > 1 else ""),
        "cores": str(n_threads()),
        "cpu": _cpu_name(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Versions of the packages that affect the result, and the backend's name."""
    backend = keras().backend.backend()
    packages = ["scenelearn", "keras", backend, "numpy", "pillow"]
    return {**{package: _version(package) for package in packages}, "backend": backend}


def fingerprint(photos: Photos) -> str:
    """A short hash of the photos' contents and classes, independent of file names and order."""
    names = photos.class_names
    pairs = zip(photos.hashes, photos.labels, strict=True)
    lines = sorted(content.hex() + names[label] for content, label in pairs)
    return hashlib.blake2b(name_bytes("\n".join(lines)), digest_size=8).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # the distribution may have another name, as tensorflow-cpu does
        return str(getattr(sys.modules.get(package), "__version__", "not installed as a package"))


def _device_name(backend: str) -> str:
    if backend == "jax":
        import jax

        return str(jax.devices()[0].device_kind)
    if backend == "torch":
        import torch

        kind = _torch_device()
        return torch.cuda.get_device_name() if kind == "cuda" else kind
    devices = keras().distribution.list_devices()
    return devices[0] if devices else "cpu"


# Memory


def choose_batch_size(
    model: Any,
    batch_size: int,
    *,
    updates_batchnorm: bool,
    other_bytes: Callable[[int], int] | None = None,
) -> int:
    """The largest batch size for which training fits into free memory, and that devices can share.

    A batch that the devices do not divide is padded with photos of weight 0. BatchNormalization
    that normalizes by the batch would count them.

    Args:
        model: as for `reduce_batch_size`.
        batch_size: photos per step, as requested.
        updates_batchnorm: whether BatchNormalization normalizes by the batch.
        other_bytes: as for `reduce_batch_size`.

    Returns:
        The requested size where possible; the same in all processes.

    Raises:
        ArgumentError: if BatchNormalization does, and the number of devices does not divide the
            batch size.
    """
    n = n_devices()
    reduced = broadcast(reduce_batch_size(model, batch_size, other_bytes))
    by_batch = updates_batchnorm and any(
        isinstance(layer, keras().layers.BatchNormalization)
        for layer in nested_layers(model, include_self=True)
    )
    if by_batch and reduced < batch_size:
        reduced = max(n, reduced // n * n)
    if by_batch and reduced % n:
        raise ArgumentError(
            f"`batch_size` must be a multiple of the {n} devices if BatchNormalization normalizes "
            f"by the batch, as with random weights. Received: batch_size={reduced}. "
            f"Pass batch_size={padded_batch_size(reduced)}."
        )
    return int(reduced)


def reduce_batch_size(
    model: Any, batch_size: int, other_bytes: Callable[[int], int] | None = None
) -> int:
    """Halve a batch size until training the whole model fits into free memory.

    Args:
        model: a Keras model in the form in which it will be trained, with AdamW.
        batch_size: photos per step, as requested.
        other_bytes: called with a batch size, for what a teacher needs; None for nothing.

    Returns:
        The same size if it fits or if the free memory is unknown. Otherwise the first of its half,
        its quarter and so on that fits, at least 1, and a warning is logged.
    """
    free = available_bytes()
    if free is None:
        return batch_size

    def needed_bytes(size: int) -> int:
        return training_bytes(model, size) + (other_bytes(size) if other_bytes else 0)

    reduced, requested_bytes = batch_size, needed_bytes(batch_size)
    needed = requested_bytes
    while needed > free and reduced > 1:
        reduced //= 2
        needed = needed_bytes(reduced)
    if reduced < batch_size:
        _log.warning(
            "Training with a batch size of %d takes up to %s, but only %s are free. Reducing the "
            "batch size to %d. A smaller image_px allows larger batches.",
            batch_size,
            sizing.format_bytes(requested_bytes),
            sizing.format_bytes(free),
            reduced,
        )
    return reduced


def training_bytes(model: Any, batch_size: int) -> int:
    """The peak increase of the process' memory while a model is trained with AdamW.

    A model that processes a batch in parts holds the activations of the parts that run at once, at
    most one per thread, the whole batch of images, and the gradients of these parts and of the sums
    on their way. 0 if unknown.
    Only the layers that are trainable now are counted as trained.
    """
    in_parts = runs_in_parts(model)
    n_running = min(n_threads(), -(-batch_size // part_size(batch_size)))  # parts at once
    n = min(batch_size, MICROBATCH * n_running) if in_parts else batch_size
    if not can_read_graphs(model):
        return 0
    try:
        estimate = sizing.estimate(model, batch_size=n, optimizer="adamw", method="xla")
    except UnknownLayerError:
        try:
            estimate = sizing.estimate(model, batch_size=n, optimizer="adamw")
        except UnknownLayerError:  # its layers can be traced on JAX only
            return 0
    peak = estimate.training_resident_bytes
    if peak is None:
        peak = int(_TEXTBOOK_FACTOR * estimate.training_bytes)
    if not in_parts:
        return peak
    photo_bytes = 4 * math.prod(model.inputs[0].shape[1:])
    gradient_bytes = 4 * sum(math.prod(weight.shape) for weight in model.trainable_weights)
    n_gradients = n_running + math.log2(batch_size)
    return int(peak + (batch_size - n) * photo_bytes + n_gradients * gradient_bytes)


def prediction_bytes(model: Any, batch_size: int) -> int:
    """The peak increase of the process' memory while a model predicts a batch; 0 if unknown.

    A model that processes a batch in parts holds the activations of one part per thread.
    """
    n = min(batch_size, n_threads() * part_size(batch_size)) if runs_in_parts(model) else batch_size
    try:
        estimate = sizing.estimate(model, batch_size=n, optimizer="sgd", method="xla")
    except UnknownLayerError:
        return 0
    return estimate.prediction_resident_bytes or 0


def available_bytes() -> int | None:
    """The memory that the system could give to this process now; None if unknown.

    It is unknown where the network is not in the memory of this process, as on a GPU.
    """
    if not _on_cpu(keras().backend.backend()):
        return None
    free = _system_bytes()
    return None if free is None else int(min(free, free_memory_bytes()))


def _system_bytes() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def memory_summary(model: Any, batch_size: int, trained_bytes: int | None) -> dict[str, str]:
    """The memory that a fit was predicted to take, and what its process took, as text.

    The prediction is the peak increase of the process' memory during a step. The measurement is the
    peak of the whole process, including Python, Keras and the photos. Unknown values are omitted.

    Args:
        model: the network.
        batch_size: photos per step.
        trained_bytes: from `training_bytes`; None if the network was only used to predict.
    """
    summary = {}
    increase = prediction_bytes(model, batch_size) if trained_bytes is None else trained_bytes
    if increase:
        summary["memory predicted"] = sizing.format_bytes(increase)
    peak = peak_bytes()
    if peak is not None:
        summary["memory measured"] = sizing.format_bytes(peak)
    return summary


def peak_bytes() -> int | None:
    """The peak memory of this process so far; None if the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# Precision


def supported_precision(precision: str | None) -> str | None:
    """The requested precision if the device supports it; otherwise None, with a warning.

    All accelerators are assumed to support it. A CPU supports it if it has instructions for it and
    the backend uses them, as TensorFlow and Torch do through oneDNN. XLA's programs for CPUs, and
    CPUs without these instructions, convert to float32 and back: slower, and not more accurate.
    """
    if precision is None or (reason := _unsupported_reason(precision)) is None:
        return precision
    _log.warning("Ignoring precision=%r: %s. This fit uses float32.", precision, reason)
    return None


def with_loss_scaling(optimizer: Any, precision: str | None) -> Any:
    """The optimizer, wrapped with dynamic loss scaling if gradients are float16.

    Gradients below 6e-8 would underflow to 0. Keras multiplies the loss by a scale, which it
    reduces whenever a gradient is infinite, and skips that step. bfloat16 has the range of float32
    and needs no loss scaling.

    References:
        P. Micikevicius et al. (2018), Mixed precision training. ICLR.
    """
    if precision != "mixed_float16":
        return optimizer
    return keras().optimizers.LossScaleOptimizer(optimizer)


def convert_to_float32(model: Any) -> Any:
    """Switch a model to float32 computation, as it is after saving and loading.

    Args:
        model: any `keras.Model`; its weights are float32 already and stay as they are.

    Returns:
        The same model, its layers changed; its compiled programs are discarded.
    """
    for layer in nested_layers(model, include_self=True):
        layer.dtype_policy = "float32"
        forget_programs(layer)
    return model


def _unsupported_reason(precision: str) -> str | None:
    """Why this device does not support a precision; None if it does."""
    backend = keras().backend.backend()
    if not _on_cpu(backend):
        return None
    if backend == "jax":
        return "JAX has no 16-bit matrix products on CPUs; TensorFlow and Torch do"
    instructions = _INSTRUCTIONS[precision]
    if instructions & _cpu_instructions():
        return None
    return f"this CPU has none of these instructions: {', '.join(sorted(instructions))}"


def _cpu_instructions() -> set[str]:
    """The instruction set extensions of the first CPU; unknown on systems other than Linux."""
    return set(_cpu_fact("flags|Features").split())


def _cpu_name() -> str:
    """Model and vector instructions of the first CPU, as far as the system tells."""
    instructions = _cpu_instructions()
    vectors = next((name for flag, name in _VECTORS.items() if flag in instructions), "")
    model = _cpu_fact("model name") or platform.processor() or platform.machine()
    return ", ".join(filter(None, (model, vectors)))


def _cpu_fact(names: str) -> str:
    """The value of one of these lines of /proc/cpuinfo for the first CPU; "" if there is none."""
    try:
        text = _CPU_INFO.read_text()
    except OSError:
        return ""
    line = re.search(rf"^(?:{names})[ \t]*:(.*)$", text, re.MULTILINE)
    return line[1].strip() if line else ""


def _on_cpu(backend: str) -> bool:
    if backend == "torch":
        return _torch_device() == "cpu"
    if backend == "jax":
        import jax

        return bool(jax.default_backend() == "cpu")
    return all(name.startswith("cpu") for name in keras().distribution.list_devices())


def _torch_device() -> str:
    """The kind of device that Keras computes on with Torch: "cpu", "cuda", "mps" and so on."""
    return str(keras().ops.convert_to_tensor(0.0).device.type)
