"""The batches that are trained on: photos varied and mixed, labels as shares of the classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scenelearn._devices import padded, process
from scenelearn._threads import map_ahead
from scenelearn.augment import Policy, apply, draw, mix, pair, policy
from scenelearn.data import Batches
from scenelearn.errors import DeviceError
from scenelearn.finetune._recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How training batches are made of photos.

    Attributes:
        policy: how each photo is varied.
        recipe: whether photos are mixed.
        n_classes: how many classes there are.
    """

    policy: Policy
    recipe: Recipe
    n_classes: int

    @property
    def n_views(self) -> int:
        """How many views of a photo there are; 0 if each epoch has new ones."""
        return 1 if self.policy == policy("none") else self.recipe.views

    def view(self, epoch: int) -> int:
        """The number of the view that an epoch sees."""
        return epoch % self.n_views if self.n_views else epoch

    def seen(self, images: Any, indices: Any, n: int, *, seed: int, view: int) -> Any:
        """A view of photos, always n of them, as each other number is a program to compile.

        Args:
            images: (b, height, width, 3) uint8, b from 1 to n; they are repeated.
            indices: (b,) which photos they are.
            n: how many there will be.
            seed: of the draws.
            view: the number of the view.
        """
        draws = draw(self.policy, seed, np.resize(indices, n), epoch=view)
        return apply(np.resize(images, (n, *images.shape[1:])), draws)


def varied(
    train: Batches, variation: Variation, *, epoch: int, steps: range
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The epoch's batches of some steps, each made in a thread while the one before is trained on.

    All of a batch is a function of (seed, epoch, step). Where it is spread over devices that do not
    divide it, photos of no weight fill it up. Each of several processes makes its share only, or
    where photos are mixed all, and keeps its share.

    Args:
        train: the training photos.
        variation: how they are varied and mixed.
        epoch: which one, at least 0.
        steps: which steps of it.

    Returns:
        The number of each step, and its batch: images (batch, height, width, 3) and labels
        (batch, n_classes) float32 with row sums of 1. A partial last batch is filled up by
        repeating it: one compiled program serves all. Steps whose photos are all gone since they
        were decoded are left out. Where photos have no weight, the weights (batch,) come third.

    Raises:
        DeviceError: by the iterator, if one of several processes can no longer read a photo.
    """
    order, view, recipe = train.order(epoch), variation.view(epoch), variation.recipe
    one_hot = np.eye(variation.n_classes, dtype=np.float32)
    n, n_padded, (k, n_processes) = train.batch_size, padded(train.batch_size), process()
    mixed, spread_out = recipe.mixup or recipe.cutmix, spreading(n)
    share = replace(train, batch_size=n_padded, process=(k, n_processes))

    def vary(step: int) -> tuple[Any, ...]:
        n_rows = n
        if n_processes == 1 or mixed:
            images, labels, indices = train.at(order, step)
        else:
            n_rows = n_padded // n_processes
            filled = np.resize(order[step * n : (step + 1) * n], n)
            images, labels, indices = share.at(np.resize(filled, n_padded), 0)
        if n_processes > 1 and len(indices) < min(n_rows, len(order) - step * n):
            raise DeviceError(
                "All processes must be able to read all photos. Received: some that process "
                f"{k} can no longer read. Check its disk, and call fit again with resume=True."
            )
        if not len(indices):
            return images, labels
        images = variation.seen(images, indices, n_rows, seed=train.seed, view=view)
        targets = one_hot[np.resize(labels, n_rows)]
        if mixed:
            pairs = pair(
                train.seed, n, epoch=epoch, step=step, mixup=recipe.mixup, cutmix=recipe.cutmix
            )
            images, targets = mix(images, targets, pairs)
        return spread_out(images, targets)

    made = map_ahead(vary, steps, workers=1)
    return ((k, batch) for k, batch in zip(steps, made, strict=True) if len(batch[1]))


def spreading(n: int) -> Callable[[Any, Any], tuple[Any, ...]]:
    """What makes of a batch this process's rows of it, and what each weighs.

    Ask for it in the thread that trains: others do not know over which devices Keras spreads.

    Args:
        n: how many photos a batch has.

    Returns:
        A function from images, or maps, and labels of all of them, or of this process's share. On
        one device it gives them back.
    """
    n_padded, (k, n_processes) = padded(n), process()

    def spread_out(images: Any, targets: Any) -> tuple[Any, ...]:
        if n_padded == n and n_processes == 1:
            return images, targets
        mine = np.arange(n_padded)[k::n_processes]
        if len(mine) != len(targets):
            images, targets = (np.asarray(one)[mine % n] for one in (images, targets))
        if n_padded == n:
            return images, targets
        return images, targets, np.where(mine < n, n_padded / n, 0).astype(np.float32)

    return spread_out
