"""The result of a fit: the classifier, its metrics, and what is needed to repeat it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_integer
from scenelearn._display import html_text, printable
from scenelearn._json import dataclass_json, table_json
from scenelearn._progress import Progress
from scenelearn.augment import Preview
from scenelearn.classify import Classifier
from scenelearn.classify._costs import Costs
from scenelearn.classify._inputs import PhotosLike
from scenelearn.classify._predictions import Predictions
from scenelearn.data import Rejected, Splits, to_image
from scenelearn.data._decode import decode_photo
from scenelearn.finetune._checkpoint import Checkpoint
from scenelearn.finetune._runtime import Phase
from scenelearn.finetune._settings import FitSettings
from scenelearn.metrics import Evaluation
from scenelearn.metrics._evaluation import Confusion

_PREVIEW_PX = 160


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Epoch:
    """One pass over the training photos during fine-tuning.

    Attributes:
        number: 0 for the linear probe, before any fine-tuning, then 1, 2, …
        train_loss: mean cross-entropy over the epoch's augmented training photos, in nats; NaN for
            epoch 0.
        validation_loss: mean cross-entropy on the validation photos after the epoch, in nats.
        calibrated_loss: the same after calibration, with classes weighted as the settings say. It
            decides which epoch is best, since an overconfident network can be better than its loss
            suggests.
        validation_accuracy: fraction of validation photos classified correctly, in [0, 1].
        learning_rate: the learning rate at the end of the epoch.
        seconds: duration of the epoch, including validation.
    """

    number: int
    train_loss: float
    validation_loss: float
    calibrated_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float

    def __repr__(self) -> str:
        return (
            f"<Epoch {self.number}: train loss {self.train_loss:.4f}, validation loss "
            f"{self.validation_loss:.4f}, validation accuracy {self.validation_accuracy:.1%}>"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FitResult:
    """The result of `fit`.

    Attributes:
        classifier: the trained classifier.
        kept: "linear probe" or "fine-tuned".
        interpolation: coefficient between the weights of the linear probe (0) and the fine-tuned
            weights (1), see `Recipe.interpolate_weights`.
        evaluation: metrics on the test photos, which were used for nothing else.
        validation_evaluation: metrics on the validation photos, which decided what was kept.
        history: epoch 0 (the linear probe) and each epoch of fine-tuning.
        phases: how long each phase took.
        splits: the photos and their splits.
        test_indices: (n_test,) positions of the test photos in `splits.photos`.
        test_probabilities: (n_test, n_classes) float32, their predicted probabilities.
        test_embeddings: (n_test, at most 64) float16, the principal components of their features,
            scaled to length 1.
        rejected: every file that was not used, from the scan and from decoding.
        settings: the settings of the fit, with defaults filled in.
        environment: versions, device, number of cores, date, fingerprint of the photos, predicted
            and measured memory.
        seconds: wall-clock time of the whole fit, including an interrupted process.
        stopped: why fine-tuning ended early: "SIGINT" (Ctrl-C), "SIGTERM", "not finite" (the loss
            became NaN or infinite), "callback" or "time"; empty if it did not.
    """

    classifier: Classifier
    kept: str
    interpolation: float
    evaluation: Evaluation
    validation_evaluation: Evaluation
    history: tuple[Epoch, ...]
    phases: tuple[Phase, ...]
    splits: Splits
    test_indices: npt.NDArray[np.int64]
    test_probabilities: npt.NDArray[np.float32]
    test_embeddings: npt.NDArray[np.float16]
    rejected: tuple[Rejected, ...]
    settings: FitSettings
    environment: dict[str, str]
    seconds: float
    stopped: str = ""
    _checkpoint: Checkpoint | None = None

    def predict(
        self,
        photos: PhotosLike,
        *,
        coverage: float | None = None,
        costs: Costs | None = None,
        broken: str = "raise",
        progress: Progress | None = None,
        verbose: bool | str = "auto",
    ) -> Predictions:
        """Predict the class of each photo, as `Classifier.predict`, whose errors apply.

        Args:
            photos: as for `Classifier.predict`.
            coverage: as for `Classifier.predict`.
            costs: as for `Classifier.predict`.
            broken: as for `Classifier.predict`.
            progress: as for `Classifier.predict`.
            verbose: as for `Classifier.predict`.

        Returns:
            One prediction per photo, in the order given.
        """
        return self.classifier.predict(
            photos,
            coverage=coverage,
            costs=costs,
            broken=broken,
            progress=progress,
            verbose=verbose,
        )

    def most_confused(self, min_count: int = 1) -> list[Confusion]:
        """List the pairs of classes that were confused in the test, the most frequent first.

        Args:
            min_count: leave out pairs with fewer photos, at least 1.

        Returns:
            Tuples (true_label, predicted_label, n_photos, fraction); see
            `Evaluation.most_confused`.

        Raises:
            ArgumentError: if `min_count` is not a positive integer.
        """
        return self.evaluation.most_confused(min_count)

    def plot_top_losses(self, n: int = 9) -> Preview:
        """Show the test photos with the highest loss: confident mistakes, and often label issues.

        Args:
            n: number of photos, at least 1.

        Returns:
            A grid of photos, in the shape of the settings. Each caption has the true class, the
            predicted class with its probability, and the loss, −ln(probability of the true class),
            in nats. Notebooks display it, and `save` writes it to a file.

        Raises:
            ArgumentError: if `n` is not a positive integer.
        """
        n = check_integer("n", n, low=1, advice="Pass e.g. 9.")
        photos, table = self.splits.photos, self.test_probabilities
        labels = photos.labels[self.test_indices]
        of_label = table[np.arange(len(table)), labels]
        losses = -np.log(np.maximum(of_label, np.finfo(np.float32).tiny))
        decode = partial(to_image, image_px=_PREVIEW_PX, shape=self.settings.shape)
        images, captions = [], []
        for row in np.argsort(-losses, kind="stable")[:n]:
            index, predicted = int(self.test_indices[row]), int(table[row].argmax())
            image = decode_photo(photos, index, decode)
            if isinstance(image, Rejected):
                captions.append(f"{photos.paths[index]}: can no longer be read")
                image = np.full((_PREVIEW_PX, _PREVIEW_PX, 3), 255, np.uint8)
            else:
                captions.append(
                    f"{photos.class_names[labels[row]]}, predicted {photos.class_names[predicted]} "
                    f"{table[row, predicted]:.0%}, loss {losses[row]:.2f}"
                )
            images.append(image)
        return Preview(
            images=np.stack(images)[None],
            captions=(tuple(map(printable, captions)),),
            title=f"The {len(images)} test photos with the highest loss",
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the classifier as one bundle; see `Classifier.save`, whose errors apply.

        The checkpoint of the fit is removed afterwards: see `remove_checkpoint`.

        Args:
            path: the file to write; its name ends in ``.keras``.

        Returns:
            The path.
        """
        saved = self.classifier.save(path)
        self.remove_checkpoint()
        return saved

    def remove_checkpoint(self) -> None:
        """Remove the checkpoint of the fit, unless Ctrl-C or SIGTERM has stopped it.

        As long as the checkpoint exists, ``fit(..., resume=True)`` returns the same result again,
        for example after the disk was too full to save it. Only the 20 latest ones are kept.
        """
        if self._checkpoint is not None:
            self._checkpoint.remove()

    def __repr__(self) -> str:
        early = f", stopped early: {self.stopped}" if self.stopped else ""
        return f"<FitResult: {self.kept}, test {self.evaluation.summary}{early}>"

    def __str__(self) -> str:
        """What was kept, the phases, the epochs, and the metrics on the test photos."""
        early = f"; stopped early: {self.stopped}" if self.stopped else ""
        interpolation = f" (interpolation {self.interpolation:g})" if self.interpolation else ""
        names = [phase.name for phase in self.phases]
        width = max(map(len, names), default=0)
        return "\n".join(
            [
                f"{self.kept}{interpolation} {self.settings.backbone_title}, "
                f"after {self.seconds:.0f} s{early}",
                *(
                    f"  {phase.name:<{width}}  {phase.seconds:6.1f} s  {printable(phase.note)}"
                    for phase in self.phases
                ),
                "",
                "epoch  train loss  validation loss  validation accuracy",
                *(
                    f"{epoch.number:>5}  {epoch.train_loss:>10.4f}  {epoch.validation_loss:>15.4f}"
                    f"  {epoch.validation_accuracy:>19.1%}"
                    for epoch in self.history
                ),
                "",
                f"test: {self.evaluation}",
            ]
        )

    def _repr_html_(self) -> str:
        return html_text(self)

    def to_json(self) -> dict[str, Any]:
        """Return everything except the network as plain values; NaN and infinity become None.

        The settings, the environment and the splits are what `repeat` needs to run the fit again
        and to check that the photos are the same. If there are more than two million probabilities,
        those of each test photo are the base64 encoding of float32 numbers, little-endian.
        """
        photos = self.splits.photos
        probabilities = table_json(self.test_probabilities)
        omit = ("classifier", "test_indices", "test_probabilities", "test_embeddings")
        return {
            **dataclass_json(self, omit=omit),
            "test": [
                {
                    "path": photos.paths[i],
                    "label": photos.class_names[photos.labels[i]],
                    "probabilities": row,
                }
                for i, row in zip(self.test_indices.tolist(), probabilities, strict=True)
            ],
        }
