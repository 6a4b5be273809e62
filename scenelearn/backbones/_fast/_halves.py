"""A batch whose two halves run at the same time, in training and in prediction.

XLA spreads one operation at a time over the cores, and the maps of a few photos are too small for
that: two cores did the work of 1.7. So a batch is cut in two, each half a run of one program, in
training from the photos to the gradients, and a last program sums these up and makes the step. A
training step of MobileNetV2-0.35 became 1.15 times faster on two cores, prediction 1.2 times; with
four parts more gradients are written and read, and MobileNetV2 was 1.3 times slower. Where the
batch is cut does not depend on the machine, so the sums are the same to the bit on any number of
cores.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from scenelearn._backend import keras
from scenelearn.backbones._fast._chunks import each_alone, size_of
from scenelearn.backbones._fast._step import is_mean

_OTHER_SEED = 0x9E3779B9  # added to the seeds of the second half


def by_halves(model: Any, what: str) -> Callable[..., None]:
    """The model's `make_train_function` or `make_predict_function`, with which Keras compiles.

    Args:
        model: one that `_chunks.can_be_chunked` lets through.
        what: "train" or "predict".

    Returns:
        A function with its parameters.
    """
    before, name = getattr(model, f"make_{what}_function"), f"{what}_function"
    kind = {"train": _Step, "predict": _Prediction}[what]

    def make(force: bool = False) -> None:
        if getattr(model, name) is not None and not force:
            return
        before(force)
        if model.jit_compile and not model.run_eagerly and model.steps_per_execution == 1:
            setattr(model, name, kind(model, getattr(model, name)))

    return make


def can_be_halved(n_photos: int) -> bool:
    """Whether a batch is cut into halves of whole chunks."""
    size = size_of(n_photos)
    return size is not None and n_photos % (2 * size) == 0


class _Pair:
    """One program for both halves."""

    def __init__(self, function: Callable[..., Any]) -> None:
        import jax

        self.program = jax.jit(function)
        self.compiled = set[Any]()  # shapes and types of halves

    def __call__(self, state: Any, *arrays: Any) -> tuple[Any, Any]:
        """What the function gives for (state, 0, first halves…) and (state, 1, second halves…)."""
        first, second = zip(*(np.split(np.asarray(one), 2) for one in arrays), strict=True)
        kind = tuple((one.shape, one.dtype) for one in first)
        if kind in self.compiled:
            other = _thread().submit(self.run, state, 1, *second)
            return self.run(state, 0, *first), other.result()
        # Keras traces with what it keeps for each thread: not beside one another
        found = self.run(state, 0, *first), self.run(state, 1, *second)
        self.compiled.add(kind)
        return found

    def run(self, *arguments: Any) -> Any:
        import jax

        found = self.program(*arguments)
        jax.block_until_ready(found)  # type: ignore[no-untyped-call]
        return found


class _Prediction:
    """What Keras calls to predict: (state, iterator of batches) -> (outputs, state)."""

    def __init__(self, model: Any, whole: Callable[..., Any]) -> None:
        self.model, self.whole, self.pair = model, whole, _Pair(self._of_half)

    def __call__(self, state: Any, iterator: Iterator[Any]) -> Any:
        import jax

        data = next(iterator)
        x, _, _ = keras().utils.unpack_x_y_sample_weight(data)
        if not hasattr(x, "dtype") or not can_be_halved(len(x)):
            return self.whole(state, iter([data]))
        first, second = self.pair(state, x)
        return jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second), state

    def _of_half(self, state: Any, _number: Any, x: Any) -> Any:
        outputs, _ = self.model.predict_step(state, (x,))
        return outputs


class _Step:
    """What Keras calls for a step: (state, iterator of batches) -> (logs, state)."""

    def __init__(self, model: Any, whole: Callable[..., Any]) -> None:
        import jax

        self.model, self.whole, self.pair = model, whole, _Pair(self._of_half)
        self.together = jax.jit(self._together, donate_argnums=0)
        variables = model.non_trainable_variables
        self.seeds = [n for n, v in enumerate(variables) if v.path.endswith("seed_generator_state")]

    def __call__(self, state: Any, iterator: Iterator[Any]) -> Any:
        data = next(iterator)
        x, y, weights = keras().utils.unpack_x_y_sample_weight(data)
        if not self._halves(x, y, weights):
            return self.whole(state, iter([data]))
        found = self.pair(state, x, y)
        trainable, _, optimizer, metrics = state
        return self.together((trainable, optimizer, metrics), found, (np.asarray(x), np.asarray(y)))

    def _halves(self, x: Any, y: Any, weights: Any) -> bool:
        arrays = all(hasattr(one, "shape") and hasattr(one, "dtype") for one in (x, y))
        if weights is not None or not arrays or len(x) != len(y) or not can_be_halved(len(x)):
            return False
        return is_mean(self.model) and each_alone(self.model, True)

    def _of_half(self, state: Any, number: Any, x: Any, y: Any) -> Any:
        """Gradients by half of the batch, its loss and outputs, and variables that moved on."""
        import jax

        trainable, others, optimizer, metrics = state
        others = list(others)
        for n in self.seeds:  # what is dropped out differs; those of the first half go on
            others[n] = others[n].at[0].add(number.astype("uint32") * np.uint32(_OTHER_SEED))
        compute = jax.value_and_grad(self.model.compute_loss_and_updates, has_aux=True)
        (_, (loss, outputs, others, _)), gradients = compute(
            trainable, others, metrics, x, y, None, training=True, optimizer_variables=optimizer
        )
        return gradients, loss, outputs, others

    def _together(self, state: Any, found: Any, batch: Any) -> Any:
        """The rest of Keras' `train_step`, with the means of the halves."""
        import jax
        import jax.numpy as jnp

        trainable, optimizer, metrics = state
        (*first, outputs, others), (*second, more, _) = found
        gradients, loss = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
        outputs = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), outputs, more)
        trainable, optimizer = self.model.optimizer.stateless_apply(optimizer, gradients, trainable)
        logs, metrics = self.model._update_metrics_variables(metrics, loss, *batch, outputs, None)
        return logs, (trainable, others, optimizer, metrics)


@functools.cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="scenelearn-step")
