"""Distillation: a teacher predicts the images that the student is trained on.

The student's images are augmented, and mixed by MixUp and CutMix. The teacher sees the same ones,
made from photos of its own size, so that the student learns what larger images show. It learns the
teacher's probabilities, and with a second head, which is dropped in the end, the teacher's
features, which say more than a few classes do.

References:
    Probabilities as targets: G. Hinton, O. Vinyals, J. Dean (2015), Distilling the knowledge in a
    neural network. arXiv:1503.02531.
    Features as targets: A. Romero et al. (2015), FitNets: hints for thin deep nets. ICLR.
    The same mixed images for both: L. Beyer et al. (2022), Knowledge distillation: a good teacher
    is patient and consistent. CVPR.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._backend import keras
from scenelearn.classify import Classifier, load
from scenelearn.classify._inference import compute_outputs, inference_model
from scenelearn.classify._neighbors import NeighborIndex
from scenelearn.data._resize import Resize
from scenelearn.errors import ArgumentError, ClassMismatchError
from scenelearn.finetune._features import describe_layers
from scenelearn.metrics._inputs import class_positions

FEATURE_HEAD = "teacher_features"
"""The name of the layer that learns the teacher's features."""

_CLASSIFIER = "classifier:"
_MAX_STRETCH = 0.1  # between the proportions of both: rounded sizes differ a little
_MIN_SCALE = 0.05  # of a component, relative to the largest: smaller ones are noise


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Teacher:
    """A classifier from which the student learns.

    Attributes:
        classifier: it has the student's classes.
        columns: where they are among its classes.
        name: its path, or "classifier:" with a digest of its layers and weights.
    """

    classifier: Classifier
    columns: list[int]
    name: str

    @property
    def title(self) -> str:
        """What it is, for a student's metadata."""
        metadata = self.classifier.metadata
        facts = [metadata.get("backbone", "unknown"), metadata.get("test accuracy")]
        return ", test accuracy ".join(fact for fact in facts if fact)

    @property
    def resize(self) -> Resize:
        """How photos become images that it can predict."""
        return self.classifier.resize

    @property
    def n_components(self) -> int:
        """Number of principal components of its features; 0 if it keeps no training photos."""
        return len(self._scale)

    @cached_property
    def network(self) -> Any:
        """From raw pixels to what it predicts, optimized for the CPU."""
        return inference_model(self.classifier.model)

    def targets(self, images: Any, batch_size: int) -> npt.NDArray[np.float32]:
        """What a student learns from it for some images.

        Args:
            images: (n, height, width, 3) uint8, of its size; with several devices, the same in each
                process.
            batch_size: images per batch; `batches_at_once` of them use all cores.

        Returns:
            (n, n_classes + n_components) float32: its probabilities; and its features, as
            coordinates on the principal axes of its training photos, scaled to length 1 and then
            each divided by its standard deviation on these photos, or by a twentieth of the largest
            standard deviation if that is more.
        """
        outputs = compute_outputs(self.network, images, batch_size)
        probabilities = outputs.probabilities[:, self.columns]
        if self._index is None:
            return probabilities
        # Batch by batch: a product's last bits depend on its number of rows.
        starts = range(0, len(images), batch_size)
        batches = [outputs.features[start : start + batch_size] for start in starts]
        components = np.concatenate([self._index.embed(one) for one in batches]) / self._scale
        return np.concatenate([probabilities, components], axis=1, dtype=np.float32)

    @property
    def digest(self) -> str:
        """What its predictions depend on."""
        arrays = self.classifier.model.get_weights()
        if self._index is not None:
            arrays = [*arrays, self._index.mean, self._index.components, self._scale]
        key = hashlib.blake2b(describe_layers(self.classifier.model).encode(), digest_size=12)
        key.update(f"{self.resize} {self.columns}".encode())
        for array in arrays:
            key.update(
                f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes()
            )
        return key.hexdigest()

    @cached_property
    def _index(self) -> NeighborIndex | None:
        """The principal axes; None if there are none, or all training photos are alike."""
        calibration = self.classifier.calibration
        if calibration is None or calibration.neighbor_index.embeddings.std(axis=0).max() < 1e-3:
            return None
        return calibration.neighbor_index

    @cached_property
    def _scale(self) -> npt.NDArray[np.float32]:
        """(n_components,), what the coordinates are divided by."""
        if self._index is None:
            return np.zeros(0, np.float32)
        scale = self._index.embeddings.std(axis=0, dtype=np.float32)
        return np.asarray(np.maximum(scale, _MIN_SCALE * scale.max()), np.float32)


def load_teacher(teacher: Any, class_names: tuple[str, ...]) -> Teacher | None:
    """Load a teacher.

    Args:
        teacher: a classifier, the result of a fit, or the path of a bundle; None for none.
        class_names: of the student.

    Raises:
        ArgumentError: if `teacher` is something else.
        ClassMismatchError: if it has other classes.
        PathMissingError: if there is no such file.
        BundleError: if the file is no bundle.
    """
    if teacher is None:
        return None
    is_path = isinstance(teacher, str | os.PathLike)
    if is_path and os.fspath(teacher).startswith(_CLASSIFIER):
        raise ArgumentError(
            "`teacher` must be the classifier itself, as in the first fit. Received: "
            f"teacher={teacher!r}, its digest. Pass teacher=sl.load(path)."
        )
    classifier = load(teacher) if is_path else getattr(teacher, "classifier", teacher)
    if not isinstance(classifier, Classifier):
        raise ArgumentError(
            "`teacher` must be a Classifier, the result of a fit, or the path of a bundle. "
            f"Received: teacher={type(teacher).__name__}. Pass e.g. 'scenes.keras'."
        )
    columns = class_positions(class_names, classifier.class_names)
    if None in columns or len(columns) != len(classifier.class_names):
        raise ClassMismatchError(
            f"The teacher must have the classes of the photos: {', '.join(class_names)}. Received: "
            f"{', '.join(classifier.class_names)}. Fit it on the same classes."
        )
    loaded = Teacher(
        classifier=classifier,
        columns=[k for k in columns if k is not None],
        name=os.fspath(teacher) if is_path else "",
    )
    return loaded if is_path else replace(loaded, name=_CLASSIFIER + loaded.digest)


def check_same_view(teacher: Teacher, resize: Resize) -> None:
    """Check that teacher and student see the same part of each photo.

    Args:
        teacher: from `load_teacher`.
        resize: how photos become images to train the student on.

    Raises:
        ArgumentError: if one of them crops, pads or stretches photos in another way.
    """
    other = teacher.resize
    ratio = resize.height * other.width / (resize.width * other.height)
    if resize.shape == other.shape and abs(math.log(ratio)) <= _MAX_STRETCH:
        return
    raise ArgumentError(
        "Teacher and student must see the same part of each photo: the same `shape`, and an "
        f"`image_px` of the same proportions. Received: a teacher for {other.title}, a student for "
        f"{resize.title}. Pass the teacher's shape and proportions."
    )


def add_feature_head(features: Any, logits_model: Any, n_components: int) -> Any:
    """Add a head for a teacher's features.

    Args:
        features: the student's network from raw pixels to features.
        logits_model: the same with its head.
        n_components: from the teacher, above 0.

    Returns:
        A model that shares all layers with `logits_model`, to (n, n_classes + n_components).
    """
    k = keras()
    head = k.layers.Dense(
        n_components, kernel_initializer="zeros", dtype="float32", name=FEATURE_HEAD
    )
    outputs = [logits_model.output, head(features.output)]
    return k.Model(features.input, k.layers.Concatenate(dtype="float32")(outputs))


def distillation_loss(n_classes: int) -> Any:
    """The loss of a student with a feature head: cross-entropy, and the features' squared error.

    Args:
        n_classes: the first columns are logits and the teacher's probabilities, the others
            features.

    Returns:
        A Keras loss of targets and outputs, each (n, n_classes + n_components): the sum of the
        cross-entropy and the mean squared error of the components.
    """
    k = keras()

    class DistillationLoss(k.losses.Loss):  # type: ignore[misc, name-defined]
        """Of each photo; a batch's is their mean."""

        is_mean_of_photos = True

        def call(self, targets: Any, outputs: Any) -> Any:
            cross_entropy = k.losses.categorical_crossentropy(
                targets[:, :n_classes], outputs[:, :n_classes], from_logits=True
            )
            error = targets[:, n_classes:] - outputs[:, n_classes:]
            return cross_entropy + k.ops.mean(k.ops.square(error), axis=-1)

    return DistillationLoss()
