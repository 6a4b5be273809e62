"""Private names that tests replace, where a public call has no way to ask for it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest


def save_at_each_step(patch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint after each training step, however long that takes."""
    patch.setattr("scenelearn.finetune._checkpoint.INTERVAL_S", 0.0)
    patch.setattr("scenelearn.finetune._checkpoint.MAX_TIME_FRACTION", math.inf)


def set_control_groups(
    patch: pytest.MonkeyPatch, folder: Path, lines: str, files: dict[str, str]
) -> None:
    """Let this process be in control groups with these files below a folder."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    (folder / "groups").write_text(lines + "\n")
    patch.setattr("scenelearn._cgroups._ROOT", folder)
    patch.setattr("scenelearn._cgroups._OF_PROCESS", folder / "groups")


def limit_epochs(patch: pytest.MonkeyPatch, n: int) -> None:
    """Let a fit that its time limits have at most n epochs."""
    for name in ("_MAX_EPOCHS_PRETRAINED", "_MAX_EPOCHS_RANDOM"):
        patch.setattr(f"scenelearn.finetune._settings.{name}", n)


def set_default_coefficient(patch: pytest.MonkeyPatch, coefficient: float) -> None:
    """Interpolate by this coefficient, unless another is significantly better."""
    patch.setattr("scenelearn.finetune._trainer.default_coefficient", lambda _: coefficient)


def resample_by_pillow(patch: pytest.MonkeyPatch) -> None:
    """As if there were no wheel of cykooz-resizer."""
    patch.setattr("scenelearn.data._convert.fast", None)


def limit_config_objects(patch: pytest.MonkeyPatch, n: int) -> None:
    """Accept bundles whose config has at most n objects."""
    patch.setattr("scenelearn.classify._bundle_checks._MAX_OBJECTS", n)


def fail_to_write_bundles(patch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let writing a bundle raise an error."""

    def fail(*_: object, **__: object) -> None:
        raise error

    patch.setattr("scenelearn.classify._bundle.write", fail)


def require_no_packages_for_export(patch: pytest.MonkeyPatch) -> None:
    """Start exports although their packages may be missing."""
    patch.setattr("scenelearn.classify._export._REQUIREMENTS", {"onnx": ()})


def show_photos_in_cells(patch: pytest.MonkeyPatch, n: int) -> None:
    """Show at most n photos in the cells of a report's confusion matrix."""
    patch.setattr("scenelearn.reporting._fit_page._MAX_PHOTOS", n)


def show_confusion_matrix(patch: pytest.MonkeyPatch, n_classes: int, n_pairs: int) -> None:
    """List n pairs in place of the matrix of more classes."""
    patch.setattr("scenelearn.reporting._fit_page._MAX_CLASSES", n_classes)
    patch.setattr("scenelearn.reporting._fit_page._MAX_PAIRS", n_pairs)


def place_photos(patch: pytest.MonkeyPatch, points: npt.NDArray[np.float64]) -> None:
    """Place the photos of a report's feature map at these points, and then on its grid."""
    patch.setattr("scenelearn.reporting._feature_map.tsne", lambda _: points)


def show_findings(patch: pytest.MonkeyPatch, n: int) -> None:
    """Show at most n findings of each kind on an audit's page."""
    patch.setattr("scenelearn.reporting._audit_page._MAX_FINDINGS", n)


def move_bundled_weights(
    patch: pytest.MonkeyPatch, weights: Path, results: Path | None = None
) -> None:
    """Look for the bundled weights, and what they reach, in these files."""
    patch.setattr("scenelearn.backbones._build.WEIGHTS_FILE", weights)
    if results is not None:
        patch.setattr("scenelearn.backbones._bundled._RESULTS_FILE", results)
