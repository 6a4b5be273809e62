"""Ghost batch normalization: a training step with batch statistics per 16 images.

BatchNormalization in training uses the mean and variance of the whole batch, so `backbones._fast`
cannot split such a step. With statistics per 16 images, it runs in microbatches and in two parallel
halves, as fine-tuning does: 0.58 ms per image instead of 0.91 on two cores. Ghost batches also
improve generalization: E. Hoffer, I. Hubara, D. Soudry (2017), Train longer, generalize better,
arXiv:1705.08741, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scenelearn.backbones._fast._parallel import TrainStep

_N = 16


def use_ghost_batches(model: Any) -> None:
    """Change `train_on_batch` of a compiled model to ghost batches.

    Args:
        model: in its fast form on JAX, compiled with a loss that is a mean over images. The batch
            size must be a multiple of 32.
    """
    full_step = model.compute_loss_and_updates

    def compute(
        trainable: Any, non_trainable: Any, metrics: Any, x: Any, y: Any, _weight: Any,
        *, training: bool, optimizer_variables: Any,
    ) -> Any:  # fmt: skip
        others = non_trainable, metrics, x, y, optimizer_variables
        return _loss_with_gradients(full_step, _N)(trainable, others)

    model.compute_loss_and_updates = compute
    model.make_train_function()
    model.train_function = _Halves(model, model.train_function)


class _Halves(TrainStep):
    def part_size(self, n_photos: int) -> int:
        return n_photos // 2

    def _is_supported(self, x: Any, y: Any, weights: Any) -> bool:  # noqa: ARG002
        return True


def _loss_with_gradients(compute_batch: Callable[..., Any], size: int) -> Any:
    """Return (trainable, others) -> (loss, aux), which computes its gradients along with the loss.

    Args:
        compute_batch: Keras' `compute_loss_and_updates`.
        size: photos per microbatch.
    """
    import jax

    def loss_of(trainable: Any, state: Any, optimizer: Any, photos: Any) -> Any:
        return compute_batch(
            trainable, *state, *photos, None, training=True, optimizer_variables=optimizer
        )

    def sum_microbatches(trainable: Any, others: Any, compute_one: Any) -> Any:
        """The mean of what `compute_one` returns besides aux, and aux of the whole batch."""
        non_trainable, metrics, x, y, optimizer = others
        microbatches = [array.reshape(-1, size, *array.shape[1:]) for array in (x, y)]

        def add(carry: Any, photos: Any) -> Any:
            total, state = carry
            result, (unscaled, outputs, *state) = compute_one(trainable, state, optimizer, photos)
            return (jax.tree.map(jax.numpy.add, total, (result, unscaled)), state), outputs

        state = [non_trainable, metrics]
        first = tuple(array[0] for array in microbatches)
        result, (unscaled, *_) = jax.eval_shape(compute_one, trainable, state, optimizer, first)
        zero = jax.tree.map(lambda a: jax.numpy.zeros(a.shape, a.dtype), (result, unscaled))
        (total, state), outputs = jax.lax.scan(add, (zero, state), tuple(microbatches))
        result, unscaled = jax.tree.map(lambda a: a / len(microbatches[0]), total)
        outputs = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), outputs)
        return result, (unscaled, outputs, *state)

    @jax.custom_vjp
    def compute(trainable: Any, others: Any) -> Any:
        return sum_microbatches(trainable, others, loss_of)

    def forward(trainable: Any, others: Any) -> Any:
        def loss_and_gradients(*arguments: Any) -> Any:
            (loss, aux), gradients = jax.value_and_grad(loss_of, has_aux=True)(*arguments)
            return (loss, gradients), aux

        (loss, gradients), aux = sum_microbatches(trainable, others, loss_and_gradients)
        return (loss, aux), gradients

    def backward(gradients: Any, cotangents: Any) -> Any:
        return jax.tree.map(lambda g: g * cotangents[0], gradients), None

    compute.defvjp(forward, backward)
    return compute
