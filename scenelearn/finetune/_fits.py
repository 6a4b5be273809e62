"""Will it fit? Asked of sizing before anything is trained."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any

from scenelearn import backbones, sizing
from scenelearn._backend import keras
from scenelearn._devices import n_devices, padded, shared
from scenelearn.errors import ArgumentError, UnknownLayerError
from scenelearn.finetune._settings import FitSettings

_log = logging.getLogger(__name__)

# Where only the textbook's count is known: measured, a process that trains took up to 2.2 times as
# much (a CNN of three convolutions, batch 50).
_TIMES_PAPER = 2.2


def fitting_batch(model: Any, batch_size: int) -> int:
    """A batch size with which training the whole model fits into the free memory.

    Args:
        model: A Keras model in the form in which it will be trained; all of it is taken to be
            trained, with AdamW.
        batch_size: Photos a training step, as asked for.

    Returns:
        The same where it fits or where the free memory is unknown; else the first half of it, half
        of that and so on that fits, at least 1, and a warning in the log.
    """
    free = available_bytes()
    if free is None:
        return batch_size
    fitting, asked_bytes = batch_size, training_bytes(model, batch_size)
    least = asked_bytes
    while least > free and fitting > 1:
        fitting //= 2
        least = training_bytes(model, fitting)
    if fitting < batch_size:
        _log.warning(
            "A batch of %d photos takes up to %s to train; %s are free. Training with batches of "
            "%d instead. A smaller image_px allows larger ones.",
            batch_size,
            sizing.megabytes(asked_bytes),
            sizing.megabytes(free),
            fitting,
        )
    return fitting


def shareable_batch(model: Any, settings: FitSettings) -> int:
    """A batch size with which training fits into the free memory, and that devices can share.

    Photos of no weight fill a batch up to what devices can share evenly. But BatchNormalization
    that normalizes by the batch would count them.

    Args:
        model: as for `fitting_batch`.
        settings: of the fit.

    Returns:
        The size that was asked for where it can be; the same in all processes.

    Raises:
        ArgumentError: if BatchNormalization does, and the devices do not divide the batch.
    """
    n, batch_size = n_devices(), settings.batch_size
    fitting = shared(fitting_batch(model, batch_size))
    by_batch = settings.moves_statistics and any(
        isinstance(layer, keras().layers.BatchNormalization) for layer in model._flatten_layers()
    )
    if by_batch and fitting < batch_size:
        fitting = max(n, fitting // n * n)
    if by_batch and fitting % n:
        raise ArgumentError(
            f"`batch_size` must be a multiple of the {n} devices where BatchNormalization "
            f"normalizes by the batch, as from random weights. Received: batch_size={fitting}. "
            f"Pass batch_size={padded(fitting)}."
        )
    return int(fitting)


def training_bytes(model: Any, batch_size: int) -> int:
    """The most that a process's memory rises by for training all of a model, with AdamW.

    Where the model's form takes a few photos at a time, there are maps of those, the whole batch,
    and gradients of the few and summed up, by each half of the batch.
    """
    at_once = backbones.photos_at_once(model, batch_size)
    try:
        found = sizing.estimate(model, batch_size=at_once, optimizer="adamw", rule="xla")
    except UnknownLayerError:
        found = sizing.estimate(model, batch_size=at_once, optimizer="adamw")
    most = found.training_resident_bytes
    if most is None:
        most = int(_TIMES_PAPER * found.training_bytes)
    if at_once == batch_size:
        return most
    photo_bytes = 4 * math.prod(model.inputs[0].shape[1:])
    gradient_bytes = 4 * sum(math.prod(one.shape) for one in model.weights)
    return int(most + (batch_size - at_once) * photo_bytes + 3 * gradient_bytes)


def available_bytes() -> int | None:
    """The memory that the system could give to this process now; None where it does not say."""
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
