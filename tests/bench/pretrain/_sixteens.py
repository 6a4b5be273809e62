"""A step in which each sixteen images have statistics of their own, so that cores don't wait.

BatchNormalization in training takes the mean and variance of a batch, which ties all its images
together: `backbone._fast` leaves such a step alone. With statistics of each sixteen it can be run a
few images at a time, in two halves beside each other, as fine-tuning is. An image took 0.58 ms
instead of 0.91 on two cores. Such "ghost batches" are said to generalize better, too: E. Hoffer,
I. Hubara, D. Soudry (2017), Train longer, generalize better, arXiv:1705.08741, section 4.
"""

from __future__ import annotations

from typing import Any

from scenelearn.backbones._fast._halves import _Step, can_be_halved
from scenelearn.backbones._fast._step import _differentiated

_N = 16


def train_by_sixteens(model: Any) -> None:
    """Change how a compiled model makes a step of `train_on_batch`.

    Args:
        model: made fast, compiled with a loss that is the mean over the images, on JAX. Its batches
            must be of a multiple of 32 images.
    """
    whole = model.compute_loss_and_updates

    def compute(
        trainable: Any, non_trainable: Any, metrics: Any, x: Any, y: Any, _weight: Any,
        *, training: bool, optimizer_variables: Any,
    ) -> Any:  # fmt: skip
        others = non_trainable, metrics, x, y, optimizer_variables
        return _differentiated(whole, _N)(trainable, others)

    model.compute_loss_and_updates = compute
    model.make_train_function()
    model.train_function = _Halves(model, model.train_function)


class _Halves(_Step):
    def _halves(self, x: Any, y: Any, weights: Any) -> bool:  # noqa: ARG002
        return can_be_halved(len(x))
