"""`keras.callbacks` in fine-tuning: the usual hooks with the usual logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from scenelearn._backend import keras
from scenelearn._distributed import all_reduce_max
from scenelearn.errors import ArgumentError


class Callbacks:
    """Callbacks of Keras, called by the trainer.

    Attributes:
        has_failed: whether one has raised an error, which is passed on.
    """

    def __init__(self, callbacks: Iterable[Any] = ()) -> None:
        self._callbacks = list(callbacks)
        self._model: Any = None
        self.has_failed = False

    def __bool__(self) -> bool:
        return bool(self._callbacks)

    def begin(self, model: Any, *, n_epochs: int, n_steps: int) -> None:
        """Set the model and its parameters, and call `on_train_begin`."""
        self._model = model
        if self:
            model.stop_training = False
            for callback in self._callbacks:
                callback.set_params({"epochs": n_epochs, "steps": n_steps, "verbose": 0})
                callback.set_model(model)
            self.call("on_train_begin", logs={})

    def call(self, hook: str, *args: int, logs: Mapping[str, float]) -> None:
        """Call one hook of all callbacks, each with logs of its own."""
        try:
            for callback in self._callbacks:
                getattr(callback, hook)(*args, dict(logs))
        except BaseException:
            self.has_failed = True
            raise

    @property
    def stop_requested(self) -> bool:
        """Whether a callback has set `model.stop_training`. A collective operation."""
        return bool(self) and bool(all_reduce_max(bool(self._model.stop_training)))


def check_callbacks(callbacks: Any) -> list[Any]:
    """Check that an argument is a list of Keras callbacks.

    Raises:
        ArgumentError: if it is not.
    """
    kind = keras().callbacks.Callback if callbacks not in ((), []) else object
    if not isinstance(callbacks, list | tuple) or not all(isinstance(c, kind) for c in callbacks):
        raise ArgumentError(
            "`callbacks` must be a list of instances of keras.callbacks.Callback. Received: "
            f"callbacks={callbacks!r:.200}. Pass e.g. [keras.callbacks.CSVLogger('log.csv')]."
        )
    return list(callbacks)
