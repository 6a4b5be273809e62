"""The pages of a fit and of a cross-validation, and the model card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from scenelearn.errors import ArgumentError, BackendError
from scenelearn.reporting import _analysis as analysis
from scenelearn.reporting._charts import Axes, curves, ticks
from scenelearn.reporting._feature_map import feature_map
from scenelearn.reporting._render import code_fence, render
from scenelearn.reporting._thumbnails import Thumbnail, encode, thumbnail

if TYPE_CHECKING:
    from scenelearn.classify import Explanation
    from scenelearn.data import Audit, Photos
    from scenelearn.finetune import CrossValidation, FitResult, FitSettings
    from scenelearn.metrics import Evaluation

MEMORY_KEYS = ("memory predicted", "memory measured")  # in a fit's environment

_MAX_CLASSES, _MAX_PAIRS = 50, 100  # with more classes, a table of pairs replaces the matrix
_MAX_PHOTOS, _MAX_PHOTOS_PER_CELL = 120, 8  # about 4 kB each: half a megabyte in total
_MAX_MISTAKES = 12
_CELL_PX, _MISTAKE_PX = 96, 160


class Mistake(NamedTuple):
    """A misclassified photo with the evidence for the wrong class."""

    photo: analysis.PredictedPhoto
    image: Thumbnail
    heat_map: Thumbnail | None
    neighbors: tuple[Any, ...]


def fit_page(fit: FitResult, audit: Audit | None) -> str:
    """The page as HTML. The network is run only for the heat maps of the mistakes."""
    photos, evaluation, history = fit.splits.photos, fit.evaluation, fit.history
    predicted = analysis.predicted_photos(photos, fit.test_indices, fit.test_probabilities)
    wrong = analysis.misclassifications(predicted)
    accuracies = [epoch.validation_accuracy for epoch in history]
    losses = {
        "validation": [epoch.validation_loss for epoch in history],
        "training": [epoch.train_loss for epoch in history],
    }
    charts = (
        curves(
            "Validation accuracy",
            {"validation": accuracies},
            lambda value: f"{100 * value:.3g}%",
            min_step=0.005,
        ),
        curves("Loss, in nats", losses, "{:.3g}".format, from_zero=True, min_step=0.01),
    )
    return render(
        "fit.html",
        fit=fit,
        audit=audit,
        n_wrong=len(wrong),
        mistakes=[_mistake(fit, photo) for photo in wrong[:_MAX_MISTAKES]],
        feature_map=feature_map(fit),
        training_charts=[chart for chart in charts if chart],
        **metrics_variables(photos, evaluation, predicted, fit.settings),
        rejected=analysis.group_rejected(fit.rejected),
        duplicates=analysis.find_duplicates(fit, audit),
        memory_keys=MEMORY_KEYS,
        json_file="result.json",
    )


def metrics_variables(
    photos: Photos,
    evaluation: Evaluation,
    predicted: Sequence[analysis.PredictedPhoto],
    settings: FitSettings,
) -> dict[str, Any]:
    """What the templates of the confusion matrix and the metrics need."""
    cells = analysis.limit_cells(
        analysis.photos_by_cell(predicted), _MAX_PHOTOS, _MAX_PHOTOS_PER_CELL
    )
    counts = ticks(0.0, max(bin_.accuracy.n for bin_ in evaluation.reliability), 1.0)
    resize = settings.resize.scaled(_CELL_PX)
    return {
        "cells": {
            cell: [(photo, thumbnail(photos, photo.position, resize)) for photo in shown]
            for cell, shown in cells.items()
        },
        "max_matrix": _MAX_CLASSES,
        "max_pairs": _MAX_PAIRS,
        "reliability_axes": Axes(),
        "histogram_axes": Axes(y_max=counts[-1]),
        "histogram_ticks": [(n, f"{n:,.0f}") for n in counts],
    }


def cross_validation_page(result: CrossValidation) -> str:
    """The page of a cross-validation as HTML."""
    photos, evaluation = result.photos, result.evaluation
    predicted = analysis.predicted_photos(photos, result.test_indices, result.test_probabilities)
    return render(
        "cross_validation.html",
        result=result,
        n_wrong=len(analysis.misclassifications(predicted)),
        json_file="result.json",
        **metrics_variables(photos, evaluation, predicted, result.settings),
    )


def model_card(fit: FitResult) -> str:
    """The model card as Markdown, with the YAML header that model hubs read."""
    code = analysis.reproduction_code(fit)
    rejected = analysis.group_rejected(fit.rejected, 0)
    return render("model-card.md", fit=fit, rejected=rejected, code=code, fence=code_fence(code, 3))


def _mistake(fit: FitResult, photo: analysis.PredictedPhoto) -> Mistake:
    photos = fit.splits.photos
    resize = fit.settings.resize.scaled(_MISTAKE_PX)
    image = thumbnail(photos, photo.position, resize)
    if image.notice:
        return Mistake(photo, image, None, ())
    try:
        explanation: Explanation = fit.classifier.explain(
            photos.read(photo.position), label=photos.class_names[photo.predicted], n_neighbors=1
        )
    except (ArgumentError, BackendError):  # no feature maps, or no gradients
        return Mistake(photo, image, None, ())
    height, width = explanation.heatmap.shape
    overlay = explanation.picture().crop((width, 0, 2 * width, height))
    overlay = overlay.resize((resize.width, resize.height))
    return Mistake(photo, image, encode(overlay), explanation.neighbors)
