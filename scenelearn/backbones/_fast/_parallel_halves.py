"""Two halves of a batch, run at the same time in two threads, in training and prediction.

XLA distributes one operation at a time over the cores, and the activations of a few photos are too
small for that: two cores did the work of 1.7. So a batch is cut in two, and each half is one run of
one program, in training from the photos to the gradients; a final program averages the gradients
and updates the weights. On two cores, a training step of MobileNetV2-0.35 was 1.15 times faster and
prediction 1.2 times. With four parts, more gradients are written and read, and MobileNetV2 was 1.3
times slower. Where the batch is cut does not depend on the machine, so the sums are the same bit
for bit on any number of cores.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from scenelearn._backend import keras
from scenelearn._keras_internals import update_metrics
from scenelearn.backbones._fast._microbatch import (
    choose_size,
    loss_is_mean,
    photos_are_independent,
)

_SECOND_SEED = 0x9E3779B9  # added to the random seeds of the second half


def make_function_in_halves(model: Any, what: str) -> Callable[..., None]:
    """Return a `make_train_function` or `make_predict_function` that runs halves of batches.

    Args:
        model: a model for which `supports_microbatches` is true.
        what: "train" or "predict".

    Returns:
        A function with the parameters of Keras' own.
    """
    make_whole, name = getattr(model, f"make_{what}_function"), f"{what}_function"
    kind = {"train": TrainStep, "predict": PredictStep}[what]

    def make(force: bool = False) -> None:
        if getattr(model, name) is not None and not force:
            return
        make_whole(force)
        if model.jit_compile and not model.run_eagerly and model.steps_per_execution == 1:
            setattr(model, name, kind(model, getattr(model, name)))

    return make


def can_halve(n_photos: int) -> bool:
    """Return whether a batch can be cut into halves of whole microbatches."""
    size = choose_size(n_photos)
    return size is not None and n_photos % (2 * size) == 0


class HalvesProgram:
    """One compiled program, run for both halves of a batch."""

    def __init__(self, function: Callable[..., Any]) -> None:
        import jax

        self.program = jax.jit(function)
        self.compiled = set[Any]()  # shapes and dtypes of halves

    def __call__(self, state: Any, *arrays: Any) -> tuple[Any, Any]:
        """Call the function with (state, 0, first halves…) and (state, 1, second halves…)."""
        first, second = zip(*(np.split(np.asarray(array), 2) for array in arrays), strict=True)
        kind = tuple((array.shape, array.dtype) for array in first)
        if kind in self.compiled:
            second_result = _thread().submit(self.run, state, 1, *second)
            return self.run(state, 0, *first), second_result.result()
        # Keras keeps thread-local state while it traces, so the first time is sequential.
        results = self.run(state, 0, *first), self.run(state, 1, *second)
        self.compiled.add(kind)
        return results

    def run(self, *arguments: Any) -> Any:
        """Run the program once and wait for it."""
        import jax

        result = self.program(*arguments)
        jax.block_until_ready(result)  # type: ignore[no-untyped-call]
        return result


class PredictStep:
    """A `predict_function` for Keras: (state, iterator of batches) -> (outputs, state)."""

    def __init__(self, model: Any, whole: Callable[..., Any]) -> None:
        self.model, self.whole, self.program = model, whole, HalvesProgram(self._predict_half)

    def __call__(self, state: Any, iterator: Iterator[Any]) -> Any:
        import jax

        data = next(iterator)
        x, _, _ = keras().utils.unpack_x_y_sample_weight(data)
        if not hasattr(x, "dtype") or not can_halve(len(x)):
            return self.whole(state, iter([data]))
        first, second = self.program(state, x)
        return jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second), state

    def _predict_half(self, state: Any, _half: Any, x: Any) -> Any:
        outputs, _ = self.model.predict_step(state, (x,))
        return outputs


class TrainStep:
    """A `train_function` for Keras: (state, iterator of batches) -> (logs, state)."""

    def __init__(self, model: Any, whole: Callable[..., Any]) -> None:
        import jax

        self.model, self.whole, self.program = model, whole, HalvesProgram(self._gradients_of_half)
        self.update = jax.jit(self._update, donate_argnums=0)
        variables = model.non_trainable_variables
        self.seeds = [n for n, v in enumerate(variables) if v.path.endswith("seed_generator_state")]

    def __call__(self, state: Any, iterator: Iterator[Any]) -> Any:
        data = next(iterator)
        x, y, weights = keras().utils.unpack_x_y_sample_weight(data)
        if not self._can_halve(x, y, weights):
            return self.whole(state, iter([data]))
        halves = self.program(state, x, y)
        trainable, _, optimizer, metrics = state
        return self.update((trainable, optimizer, metrics), halves, (np.asarray(x), np.asarray(y)))

    def _can_halve(self, x: Any, y: Any, weights: Any) -> bool:
        are_arrays = all(hasattr(a, "shape") and hasattr(a, "dtype") for a in (x, y))
        if weights is not None or not are_arrays or len(x) != len(y) or not can_halve(len(x)):
            return False
        return loss_is_mean(self.model) and photos_are_independent(self.model, True)

    def _gradients_of_half(self, state: Any, half: Any, x: Any, y: Any) -> Any:
        """Gradients, loss and outputs of a half, and the updated non-trainable variables."""
        import jax

        trainable, non_trainable, optimizer, metrics = state
        non_trainable = list(non_trainable)
        for n in self.seeds:  # dropout must differ between the halves; the first half's seeds stay
            offset = half.astype("uint32") * np.uint32(_SECOND_SEED)
            non_trainable[n] = non_trainable[n].at[0].add(offset)
        compute = jax.value_and_grad(self.model.compute_loss_and_updates, has_aux=True)
        (_, (loss, outputs, non_trainable, _)), gradients = compute(
            trainable, non_trainable, metrics, x, y, None, training=True,
            optimizer_variables=optimizer,
        )  # fmt: skip
        return gradients, loss, outputs, non_trainable

    def _update(self, state: Any, halves: Any, batch: Any) -> Any:
        """The rest of Keras' `train_step`, with the means of both halves."""
        import jax
        import jax.numpy as jnp

        trainable, optimizer, metrics = state
        (*first, first_outputs, non_trainable), (*second, second_outputs, _) = halves
        gradients, loss = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
        outputs = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first_outputs, second_outputs)
        trainable, optimizer = self.model.optimizer.stateless_apply(optimizer, gradients, trainable)
        x, y = batch
        logs, metrics = update_metrics(self.model, metrics, loss, x=x, y=y, outputs=outputs)
        return logs, (trainable, non_trainable, optimizer, metrics)


@functools.cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="scenelearn-step")
