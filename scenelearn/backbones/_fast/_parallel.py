"""A batch in parts, which run on all cores at the same time, in training and prediction.

XLA distributes one operation at a time over the cores, and the activations of a few photos are too
small for that: two cores did the work of 1.7. So a batch is cut into parts, and each core takes one
part after another, from the pixels to the gradients, in a program that uses one core. A final
program updates the weights with the mean of the gradients. A part has 16 photos, in microbatches of
four, whose activations stay in the core's cache. Smaller batches have two parts. (With parts of
four photos, more gradients are written and read: on two cores a training step of MobileNetV3Small
took 1.2 times the processor time.) The last part is filled up with photos whose weight is 0.

The gradients are added along a binary tree that depends on the batch size only, as soon as two
neighbors are complete. So the sums are the same bit for bit on any number of cores, and at most as
many gradients as there are cores, and one more for each level of the tree, exist at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

import numpy as np

from scenelearn._backend import keras
from scenelearn._keras_internals import update_metrics
from scenelearn._threads import run_in_background, run_in_threads
from scenelearn.backbones._fast._microbatch import loss_with_gradients, photos_are_independent

MICROBATCH = 4  # photos; the activations of more would not stay in the cache
PART = 16  # photos
_SEED_STEP = 0x9E3779B9  # between the random seeds of two parts
_ONE_CORE = {"xla_cpu_multi_thread_eigen": False}  # XLA's option for a program

# Others may compare the photos of a batch.
_MEAN_LOSSES = frozenset((
    "binarycrossentropy", "binaryfocalcrossentropy", "categoricalcrossentropy",
    "categoricalfocalcrossentropy", "categoricalhinge", "cosinesimilarity", "hinge", "huber",
    "kldivergence", "logcosh", "meanabsoluteerror", "meanabsolutepercentageerror",
    "meansquarederror", "meansquaredlogarithmicerror", "poisson",
    "sparsecategoricalcrossentropy", "squaredhinge",
))  # fmt: skip

T = TypeVar("T")


def make_parallel_function(model: Any, what: str) -> Callable[..., None]:
    """Return a `make_train_function` or `make_predict_function` that runs batches in parts.

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


class PartProgram:
    """A compiled program that runs on one core, for each part of a batch."""

    def __init__(self, function: Callable[..., Any]) -> None:
        import jax

        self.program = jax.jit(function, compiler_options=_ONE_CORE)
        self.compiled = set[Any]()  # shapes and dtypes of parts

    def run(self, *arguments: Any) -> Any:
        """Run the program once and wait for it."""
        import jax

        result = self.program(*arguments)
        jax.block_until_ready(result)  # type: ignore[no-untyped-call]
        return result

    def map(self, function: Callable[[int], None], n_parts: int, part: tuple[Any, ...]) -> None:
        """Call a function, which calls `run`, with each number of a part.

        Args:
            function: called by several threads at once.
            n_parts: number of parts.
            part: the arrays of one part.
        """
        kind = tuple((array.shape, array.dtype) for array in part)
        first = kind not in self.compiled
        if first:  # Keras keeps thread-local state while it traces
            function(0)
            self.compiled.add(kind)
        run_in_threads(function, range(int(first), n_parts))


class PredictStep:
    """A `predict_function` for Keras: (state, iterator of batches) -> (outputs, state)."""

    def __init__(self, model: Any, whole: Callable[..., Any]) -> None:
        self.model, self.whole, self.program = model, whole, PartProgram(self._predict_part)

    def __call__(self, state: Any, iterator: Iterator[Any]) -> Any:
        import jax

        data = next(iterator)
        x, _, _ = keras().utils.unpack_x_y_sample_weight(data)
        if not hasattr(x, "dtype") or len(x) < 2 * MICROBATCH or is_distributed():
            return self.whole(state, iter([data]))
        parts, n_photos = _split(x, part_size(len(x))), len(x)
        outputs: list[Any] = [None] * len(parts)

        def predict(k: int) -> None:
            outputs[k] = self.program.run(state, parts[k])

        self.program.map(predict, len(parts), (parts[0],))
        return jax.tree.map(lambda *tables: np.concatenate(tables)[:n_photos], *outputs), state

    def _predict_part(self, state: Any, x: Any) -> Any:
        outputs, _ = self.model.predict_step(state, (x,))
        return outputs


class TrainStep:
    """A `train_function` for Keras: (state, iterator of batches) -> (logs, state)."""

    def __init__(self, model: Any, whole: Callable[..., Any]) -> None:
        import jax

        self.model, self.whole, self.program = model, whole, PartProgram(self._gradients_of_part)
        self.update: Future[Callable[..., Any]] | None = None
        self.log = jax.jit(self._log)
        variables = model.non_trainable_variables
        self.seeds = [n for n, v in enumerate(variables) if v.path.endswith("seed_generator_state")]
        self.is_separable = _loss_is_mean(model) and photos_are_independent(model, True)
        self.has_penalties = bool(model.losses)  # which each part has once

    def __call__(self, state: Any, iterator: Iterator[Any]) -> Any:
        data = next(iterator)
        x, y, weights = keras().utils.unpack_x_y_sample_weight(data)
        if not self._is_supported(x, y, weights):
            return self.whole(state, iter([data]))
        trainable, _, optimizer, metrics = state
        if self.update is None:
            self.update = self._compile_update(trainable, optimizer)
        n_photos, size = len(x), part_size(len(x))
        images, targets = _split(x, size), _split(y, size)
        shares = _split(np.ones(n_photos) if weights is None else weights, size)
        outputs: list[Any] = [None] * len(images)
        others: list[Any] = [None] * len(images)
        total = TreeSum(len(images), _add)

        def compute(k: int) -> None:
            is_photo = np.arange(size) < n_photos - size * k
            part = images[k], targets[k], np.asarray(is_photo * shares[k], np.float32)
            gradients, outputs[k], others[k] = self.program.run(state, np.uint32(k), *part)
            total.insert(k, gradients)

        self.program.map(compute, len(images), (images[0], targets[0]))
        scale = np.float32(size / n_photos)
        update = self.update.result()
        loss, trainable, optimizer = update((trainable, optimizer), total.result, scale)
        predicted = np.concatenate(outputs)[:n_photos]
        logs, metrics = self.log(metrics, loss, predicted, np.asarray(y), weights)
        return logs, (trainable, others[0], optimizer, metrics)

    def _is_supported(self, x: Any, y: Any, weights: Any) -> bool:
        are_arrays = all(hasattr(a, "shape") and hasattr(a, "dtype") for a in (x, y))
        if not are_arrays or len(x) != len(y) or is_distributed():
            return False
        if weights is not None and getattr(weights, "shape", None) != (len(x),):
            return False
        return self.is_separable and not (self.has_penalties and len(x) % part_size(len(x)))

    def _gradients_of_part(self, state: Any, k: Any, x: Any, y: Any, weights: Any) -> Any:
        """Loss and gradients of a part, its outputs, and the updated non-trainable variables."""
        trainable, non_trainable, optimizer, metrics = state
        non_trainable = list(non_trainable)
        for n in self.seeds:  # dropout must differ between the parts; the first one's seeds stay
            non_trainable[n] = non_trainable[n].at[0].add(k * np.uint32(_SEED_STEP))
        compute = loss_with_gradients(self.model.compute_loss_and_updates, MICROBATCH)
        others = non_trainable, metrics, x, y, weights, optimizer
        (_, (loss, outputs, non_trainable, _)), gradients = compute(trainable, others)
        return (loss.astype(np.float32), gradients), outputs, non_trainable

    def _compile_update(self, trainable: Any, optimizer: Any) -> Future[Callable[..., Any]]:
        """Compile the final program in a thread, while a part's is traced in this one."""
        import jax

        gradients = [np.empty(value.shape, value.dtype) for value in trainable]
        update, scale = jax.jit(self._update, donate_argnums=0), np.float32(1)
        lowered = update.lower((trainable, optimizer), (scale, gradients), scale)
        return run_in_background(lowered.compile)

    def _update(self, state: Any, total: Any, scale: Any) -> Any:
        """The mean loss, and the updated variables."""
        import jax

        trainable, optimizer = state
        loss, gradients = jax.tree.map(lambda a: (a * scale).astype(a.dtype), total)
        return loss, *self.model.optimizer.stateless_apply(optimizer, gradients, trainable)

    def _log(self, metrics: Any, loss: Any, outputs: Any, y: Any, weights: Any) -> Any:
        """The logs and updated metrics, as in Keras' `train_step`."""
        return update_metrics(
            self.model, metrics, loss, x=outputs, y=y, outputs=outputs, weights=weights
        )


class TreeSum(Generic[T]):
    """The sum of n values, in an order that depends on n only.

    Neighbors are added in pairs, then neighboring sums, and so on, by whichever thread completes a
    pair.

    Attributes:
        result: the sum, once each value has been inserted.

    Example:
        >>> total = TreeSum(3, "({}+{})".format)
        >>> for k in (2, 0, 1):
        ...     total.insert(k, "abc"[k])
        >>> total.result
        '((a+b)+c)'
    """

    result: T

    def __init__(self, n: int, add: Callable[[T, T], T]) -> None:
        self._n, self._add = n, add
        self._waiting: dict[tuple[int, int], T] = {}
        self._lock = threading.Lock()

    def insert(self, k: int, value: T) -> None:
        """Insert the value of number k, in [0, n)."""
        level, n = 0, self._n
        while n > 1:
            if k ^ 1 < n:
                with self._lock:
                    neighbor = self._waiting.pop((level, k ^ 1), None)
                    if neighbor is None:
                        self._waiting[level, k] = value
                        return
                value = self._add(neighbor, value) if k % 2 else self._add(value, neighbor)
            level, k, n = level + 1, k // 2, -(-n // 2)
        self.result = value


def part_size(n_photos: int) -> int:
    """Return the number of photos in each part of a batch.

    Example:
        >>> [part_size(n) for n in (2, 8, 20, 32, 100)]
        [4, 4, 12, 16, 16]
    """
    return min(PART, MICROBATCH * -(-n_photos // (2 * MICROBATCH)))


def _add(a: Any, b: Any) -> Any:
    """The sum of two trees of arrays; NumPy has nothing to compile."""
    import jax

    return jax.tree.map(np.add, a, b)


def _split(array: Any, size: int) -> list[Any]:
    """Parts of an array, where the last one is filled up with repetitions of its last row."""
    array = np.asarray(array)
    missing = -len(array) % size
    if missing:
        array = np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
    return np.split(array, len(array) // size)


def _loss_is_mean(model: Any) -> bool:
    """Whether the loss of a batch is known to be the mean of the losses of its photos."""
    loss = model.loss
    if isinstance(loss, str):
        loss = keras().losses.get(loss)
        if not isinstance(loss, keras().losses.Loss):  # a function
            return getattr(loss, "__name__", "").replace("_", "") in _MEAN_LOSSES
    kind = type(loss)
    if getattr(loss, "is_mean_of_photos", False):  # one of our own
        return True
    if not kind.__module__.startswith("keras.") or kind.__name__.lower() not in _MEAN_LOSSES:
        return False
    ignores = loss.get_config().get("ignore_class") is not None  # divides by the others' number
    return loss.reduction == "sum_over_batch_size" and not ignores


def is_distributed() -> bool:
    """Whether Keras spreads batches over several devices."""
    return keras().distribution.distribution() is not None
