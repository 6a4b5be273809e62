"""The batches that are trained on: photos varied and mixed, labels as shares of the classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from scenelearn.augment import Policy, apply, draw, mix, pair
from scenelearn.data import Batches, made_ahead
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


def varied(
    train: Batches, variation: Variation, *, epoch: int, steps: range
) -> Iterator[tuple[int, tuple[Any, Any]]]:
    """The epoch's batches of some steps, each made in a thread while the one before is trained on.

    All of a batch is a function of (seed, epoch, step).

    Args:
        train: the training photos.
        variation: how they are varied and mixed.
        epoch: which one, at least 0.
        steps: which steps of it.

    Returns:
        The number of each step, and its batch: images (batch, height, width, 3) and labels
        (batch, n_classes) float32 with row sums of 1. A partial last batch is filled up by
        repeating it: one compiled program serves all. Steps whose photos are all gone since they
        were decoded are left out.
    """
    order, recipe = train.order(epoch), variation.recipe
    one_hot = np.eye(variation.n_classes, dtype=np.float32)

    def vary(step: int) -> tuple[Any, Any]:
        images, labels, indices = train.at(order, step)
        if not len(indices):
            return images, labels
        n = train.batch_size
        images = np.resize(images, (n, *images.shape[1:]))
        draws = draw(variation.policy, train.seed, np.resize(indices, n), epoch=epoch)
        images, targets = apply(images, draws), one_hot[np.resize(labels, n)]
        if recipe.mixup or recipe.cutmix:
            pairs = pair(
                train.seed, n, epoch=epoch, step=step, mixup=recipe.mixup, cutmix=recipe.cutmix
            )
            images, targets = mix(images, targets, pairs)
        return images, targets

    made = made_ahead(vary, steps, workers=1)
    return ((k, batch) for k, batch in zip(steps, made, strict=True) if len(batch[1]))
