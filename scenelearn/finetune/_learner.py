"""What is trained, and on what: the model, and batches of augmented photos with their targets."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scenelearn._backend import keras
from scenelearn._checks import image_size
from scenelearn._distributed import padded_batch_size, process_count, process_index
from scenelearn._keras_internals import forget_programs
from scenelearn._threads import map_ahead, n_threads
from scenelearn.augment import Policy, apply, apply_mix, sample, sample_mix
from scenelearn.augment import policy as resolve_policy
from scenelearn.backbones import fast_on_cpu
from scenelearn.backbones._fast import batches_at_once
from scenelearn.data import Batches, Pixels
from scenelearn.errors import DeviceError
from scenelearn.finetune._class_weights import (
    UNWEIGHTED,
    ClassWeights,
    Weights,
    build_class_weights,
)
from scenelearn.finetune._device import prediction_bytes
from scenelearn.finetune._features import Datasets
from scenelearn.finetune._model import compile_model
from scenelearn.finetune._settings import FitSettings, Recipe
from scenelearn.finetune._teacher import Teacher, add_feature_head, distillation_loss

# A teacher's prediction takes longer than the step of a small student, so each batch is learned
# twice: once more after the others of its block, which are kept in memory. In 15 minutes, each of
# 4,200 Intel photos was seen 32 times instead of 19, and MobileNetV2-0.35 with EfficientNet-Lite2
# as the teacher reached 91.8% of one split's validation photos (log loss 0.244) instead of 91.5%
# (0.248).
N_PASSES, BLOCK_STEPS = 2, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How training batches are made from photos.

    Attributes:
        policy: how each photo is augmented.
        recipe: whether photos are mixed.
        n_classes: number of classes.
        teacher: whose predictions the student learns, if there is one.
        teacher_pixels: all photos at the teacher's size.
    """

    policy: Policy
    recipe: Recipe
    n_classes: int
    teacher: Teacher | None = None
    teacher_pixels: Pixels | None = None

    @property
    def n_passes(self) -> int:
        """How often each batch is learned."""
        return 1 if self.teacher is None else N_PASSES

    def group_size(self, batch_size: int) -> int:
        """How many batches of this size a teacher predicts at once, so that it uses all cores."""
        return 1 if self.teacher is None else batches_at_once(self.teacher.network, batch_size)

    def step_batches(self, n_batches: int) -> list[int]:
        """The number of the batch that each step of an epoch with so many batches learns."""
        starts = range(0, n_batches, BLOCK_STEPS)
        blocks = [range(start, min(start + BLOCK_STEPS, n_batches)) for start in starts]
        return [k for block in blocks for _ in range(self.n_passes) for k in block]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """The model that is trained, with its data.

    Attributes:
        logits_model: from raw pixels to logits.
        model: what is trained: the same, or with a teacher's features as further outputs.
        datasets: the photos.
        augmentation: how training photos are augmented and mixed.
        class_weights: how much each class counts.
    """

    logits_model: Any
    model: Any
    datasets: Datasets
    augmentation: Augmentation
    class_weights: ClassWeights = UNWEIGHTED

    @property
    def n_steps(self) -> int:
        """Number of training steps per epoch."""
        return len(self.datasets.train) * self.augmentation.n_passes

    def batches(self, epoch: int, steps: range) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """The batches of some steps of an epoch, see `augmented_batches`."""
        return augmented_batches(
            self.datasets.train,
            self.augmentation,
            epoch=epoch,
            steps=steps,
            class_weights=self.class_weights.training,
        )


def weigh_datasets(
    datasets: Datasets, settings: FitSettings, class_names: Sequence[str]
) -> ClassWeights:
    """The weights of the classes, by the photos of a fit."""
    train, validation = datasets.train, datasets.validation
    return build_class_weights(
        settings.class_weight,
        settings.objective,
        class_names,
        train_labels=train.labels[train.indices],
        validation_labels=validation.labels[validation.indices],
    )


def build_learner(
    features: Any,
    logits_model: Any,
    datasets: Datasets,
    settings: FitSettings,
    *,
    class_weights: ClassWeights = UNWEIGHTED,
    teacher: Teacher | None = None,
    teacher_pixels: Pixels | None = None,
    train: bool = True,
) -> Learner:
    """Build a learner for the network, compiled if it will be trained.

    Args:
        features: from `backbones.build`, with the layers frozen that are not trained.
        logits_model: the same network with its head.
        datasets: the photos.
        settings: of the fit.
        class_weights: how much each class counts.
        teacher: whose predictions it learns, if there is one.
        teacher_pixels: all photos at the teacher's size.
        train: False leaves the network as it is, for one that is not trained.

    Returns:
        The learner.
    """
    model, loss, n_classes = logits_model, None, logits_model.output_shape[-1]
    if teacher is not None and teacher.n_components:
        forget_programs(fast_on_cpu(logits_model))  # only for validation: it is not compiled here
        model = add_feature_head(features, logits_model, teacher.n_components)
        loss = distillation_loss(n_classes)
    if train:
        compile_model(features, model, settings, loss)
    augmentation = Augmentation(
        policy=resolve_policy(settings.augmentation),
        recipe=settings.recipe,
        n_classes=n_classes,
        teacher=teacher,
        teacher_pixels=teacher_pixels,
    )
    return Learner(
        logits_model=logits_model,
        model=model,
        datasets=datasets,
        augmentation=augmentation,
        class_weights=class_weights,
    )


def teacher_bytes(teacher: Teacher | None, train_px: int | tuple[int, int], batch_size: int) -> int:
    """What a teacher adds to the memory of training.

    Its prediction, and images (uint8): the batches of a block for the second pass; the batches of
    two groups, one that is predicted and one that is made meanwhile, at both sizes.

    Args:
        teacher: if there is one.
        train_px: the side of the student's square images, or their (height, width).
        batch_size: photos per step.

    Returns:
        Bytes; 0 without a teacher.
    """
    if teacher is None:
        return 0
    n_group = batch_size * batches_at_once(teacher.network, batch_size)
    own_bytes = 3 * math.prod(image_size(train_px)) * (batch_size * BLOCK_STEPS + 2 * n_group)
    teacher_image_bytes = 3 * teacher.resize.height * teacher.resize.width * 2 * n_group
    return own_bytes + teacher_image_bytes + prediction_bytes(teacher.network, n_group)


def augmented_batches(
    train: Batches,
    augmentation: Augmentation,
    *,
    epoch: int,
    steps: range,
    class_weights: Weights | None = None,
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The batches of some steps of an epoch, each made in a thread during the step before it.

    A batch is a function of (seed, epoch, number). With a teacher, each batch is learned twice, see
    `Augmentation.step_batches`. If its size is not a multiple of the number of devices, it is
    padded with photos of weight 0. Of several processes, each makes only its part; if photos are
    mixed, or there is a teacher, each makes the whole batch and keeps its part.

    Args:
        train: the training photos.
        augmentation: how they are augmented and mixed, and the teacher.
        epoch: number of the epoch, at least 0.
        steps: the steps; the last one is the last of the epoch.
        class_weights: (n_classes,), how much the photos of each class count. A mixed photo counts
            as its labels do, or as the teacher's probabilities. None: all count the same.

    Returns:
        The number of each step, and its batch: images (batch, height, width, 3) and labels
        (batch, n_classes) float32 with row sums of 1, or what the teacher says, see
        `Teacher.targets`. A smaller last batch is filled by repeating its photos, so that a single
        compiled program serves all. Steps whose photos can no longer be read are skipped, and so
        are those after the last batch: a schedule may be that of more photos. If the batch is
        padded or classes have weights, sample weights (batch,) come third.

    Raises:
        DeviceError: by the iterator, if one of several processes can no longer read a photo.
    """
    order, recipe = train.order(epoch), augmentation.recipe
    teacher, teacher_pixels = augmentation.teacher, augmentation.teacher_pixels
    one_hot = np.eye(augmentation.n_classes, dtype=np.float32)
    n, n_padded = train.batch_size, padded_batch_size(train.batch_size)
    k, n_processes = process_index(), process_count()
    is_mixed, shard = recipe.mixup_alpha or recipe.cutmix_alpha, batch_sharder(n)
    is_whole = n_processes == 1 or is_mixed or teacher is not None
    n_rows = n if is_whole else n_padded // n_processes
    own_part = replace(train, batch_size=n_padded, process=(k, n_processes))

    def augment(images: Any, indices: Any) -> Any:
        """As many images as the batch has: each other number is a program to compile."""
        parameters = sample(
            augmentation.policy, train.seed, np.resize(indices, n_rows), epoch=epoch
        )
        return apply(np.resize(images, (n_rows, *images.shape[1:])), parameters)

    def make_batch(number: int) -> tuple[Any, Any, Any] | None:
        """Images, their labels, and the images of a teacher; None if no photo can be read."""
        if is_whole:
            images, labels, indices = train.take(order, number)
        else:
            filled = np.resize(order[number * n : (number + 1) * n], n)
            images, labels, indices = own_part.take(np.resize(filled, n_padded), 0)
        teacher_images = images
        if teacher_pixels is not None and teacher_pixels is not train.pixels:
            teacher_images, read = teacher_pixels.read(indices)
            kept = np.isin(indices, read)
            images, labels, indices = images[kept], labels[kept], indices[kept]
        if n_processes > 1 and len(indices) < min(n_rows, len(order) - number * n):
            raise DeviceError(
                "All processes must be able to read all photos. Received: photos that process "
                f"{k} can no longer read. Check its disk, and call fit again with resume=True."
            )
        if not len(indices):
            return None
        has_own = teacher_images is not images
        images, targets = augment(images, indices), one_hot[np.resize(labels, n_rows)]
        teacher_images = augment(teacher_images, indices) if has_own else images
        if not is_mixed:
            return images, targets, teacher_images
        mix = sample_mix(
            train.seed,
            n,
            epoch=epoch,
            step=number,
            mixup_alpha=recipe.mixup_alpha,
            cutmix_alpha=recipe.cutmix_alpha,
        )
        mixed, mixed_targets = apply_mix(images, targets, mix)
        teacher_mixed = apply_mix(teacher_images, targets, mix)[0] if has_own else mixed
        return mixed, mixed_targets, teacher_mixed

    def finish_group(group: Collection[tuple[Any, ...] | None]) -> list[tuple[Any, ...] | None]:
        """Some batches of this process, in the training thread: it runs the teacher."""
        targets = [batch[1] for batch in group if batch]
        if teacher is not None and targets:
            images = [keras().ops.convert_to_numpy(batch[2]) for batch in group if batch]
            targets = np.split(teacher.targets(np.concatenate(images), n), len(images))
        remaining = iter(targets)
        return [batch and finish(batch[0], next(remaining)) for batch in group]

    def finish(images: Any, targets: Any) -> tuple[Any, ...]:
        images, targets, *padding = shard(images, targets)
        if class_weights is None:
            return (images, targets, *padding)
        labels = keras().ops.convert_to_numpy(targets)[:, : augmentation.n_classes]
        weights = labels @ class_weights.astype(np.float32)
        return images, targets, weights * padding[0] if padding else weights

    n_batches = min(-(-steps.stop // augmentation.n_passes), len(train))
    of_epoch = augmentation.step_batches(n_batches)[: steps.stop]
    steps = range(steps.start, len(of_epoch))
    numbers = of_epoch[steps.start :]
    left, batches = Counter(numbers), dict[int, tuple[Any, ...] | None]()
    # A batch takes a tenth of the processor time of its step: one thread suffices for eight.
    group_size = augmentation.group_size(n)
    made = map_ahead(make_batch, left, workers=max(group_size, 1 + n_threads() // 8))
    unfinished = zip(left, made, strict=True)
    for step, number in zip(steps, numbers, strict=True):
        if number not in batches:
            group = dict(itertools.islice(unfinished, group_size))
            batches.update(zip(group, finish_group(group.values()), strict=True))
        left[number] -= 1
        batch = batches[number] if left[number] else batches.pop(number)
        if batch is not None:
            yield step, batch


def batch_sharder(n: int) -> Callable[[Any, Any], tuple[Any, ...]]:
    """A function that takes this process' rows of a batch, and adds sample weights if it is padded.

    Call this in the training thread: other threads do not know the distribution set in Keras.

    Args:
        n: photos per batch.

    Returns:
        A function of images and labels, of the whole batch or of this process'
        part. With one device it returns them unchanged.
    """
    n_padded, k, n_processes = padded_batch_size(n), process_index(), process_count()

    def shard(images: Any, targets: Any) -> tuple[Any, ...]:
        if n_padded == n and n_processes == 1:
            return images, targets
        rows = np.arange(n_padded)[k::n_processes]
        if len(rows) != len(targets):
            images, targets = (np.asarray(one)[rows % n] for one in (images, targets))
        if n_padded == n:
            return images, targets
        return images, targets, np.where(rows < n, n_padded / n, 0).astype(np.float32)

    return shard
