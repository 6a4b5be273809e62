"""`report`: writes the page of a fit, a cross-validation, an audit, or several fits."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from scenelearn._io import atomic_write, ensure_folder
from scenelearn.data import Audit
from scenelearn.errors import ArgumentError

if TYPE_CHECKING:
    from scenelearn.finetune import CrossValidation, FitResult


def report(
    result: FitResult
    | CrossValidation
    | Audit
    | Sequence[Any]
    | Mapping[str, Any]
    | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    audit: Audit | None = None,
) -> Path:
    """Write a fit, a cross-validation, an audit or a comparison as a self-contained web page.

    The page includes its style, figures and thumbnails. Its content security policy forbids all
    requests. The numbers are saved next to it as JSON. Each file is written atomically and
    replaces the one of an earlier report.

    For a fit: ``index.html``, ``model-card.md`` (with the YAML header that model hubs read),
    ``result.json`` and ``split.csv``. The page shows the accuracy, main errors, uncertainty and
    next steps; training curves, the confusion matrix with its photos, per-class metrics, slices,
    calibration, the most confident mistakes and a map of the test photos by similarity; and the
    code that reproduces the fit. The network is run only for the heat maps of the mistakes.

    For a cross-validation: ``index.html`` and ``result.json``. The page shows the accuracy on all
    test photos and in each fold, the confusion matrix, per-class metrics and calibration.

    For an audit: ``index.html``, ``audit.json`` and ``quarantine.json``. The page shows all
    findings with their photos, filters them, and saves the quarantine that you select.

    For several fits: ``index.html`` and ``comparison.json``. The page compares each two fits on
    the test photos that they share, says which differences are significant, and links to the
    reports that are in `folder`: ``report("runs", "runs")`` makes a page of all runs in a folder.

    Args:
        result: the result of `fit`, `cross_validate` or `audit`; or a list or mapping of several
            fits, each a result or the path of its report; or the path of a folder with several
            reports.
        folder: the folder to write to. It is created if it does not exist.
        audit: an audit of the photos of the fit. The page then also shows near-duplicates and
            leaks between splits.

    Returns:
        The path of ``index.html``.

    Raises:
        ArgumentError: if `result` has the wrong type, contains a path without a result, or fewer
            than two fits; if `audit` is not of the same photos; or if `folder` or one of its
            parents is a file, or it is not writable.
        DiskSpaceError: if the disk is full.
        DiskError: if the system cannot write a file. The one of an earlier report is then
            unchanged.
    """
    target = ensure_folder(folder)
    if audit is not None and not _has_same_photos(audit, result):
        raise ArgumentError(
            "`audit` must be an audit of the photos of the fit. Received: an audit of other "
            "photos, or a result that is not a fit. Pass sl.audit(photos) of the photos that were "
            "split."
        )
    # Imported here, so that `import scenelearn.reporting` does not load Jinja.
    if isinstance(result, Audit):
        from scenelearn.reporting._audit_page import audit_page

        files = {
            "audit.json": _dump(result.to_json()),
            "quarantine.json": _dump(list(result.quarantine)),
            "index.html": audit_page(result),
        }
    elif isinstance(result, Sequence | Mapping | os.PathLike):
        from scenelearn.reporting._comparison_page import comparison_json, comparison_page
        from scenelearn.reporting._runs import compare_pairs, load_runs

        runs = load_runs(result)
        pairs = compare_pairs(runs)
        files = {
            "comparison.json": _dump(comparison_json(runs, pairs)),
            "index.html": comparison_page(runs, pairs, target),
        }
    elif hasattr(result, "fold_numbers"):  # a CrossValidation, without importing Keras
        from scenelearn.reporting._fit_page import cross_validation_page

        files = {
            "result.json": _dump(result.to_json()),
            "index.html": cross_validation_page(cast("CrossValidation", result)),
        }
    elif hasattr(result, "evaluation"):  # a FitResult, without importing Keras
        from scenelearn.reporting._fit_page import fit_page, model_card

        files = {
            "result.json": _dump(result.to_json()),
            "model-card.md": model_card(result),
            "index.html": fit_page(result, audit),
        }
        result.splits.save(target / "split.csv")
    else:
        raise ArgumentError(
            "`result` must come from `fit` or `audit`, or contain several fits. Received: "
            f"{type(result).__name__}. Pass e.g. sl.audit(photos)."
        )
    for file_name, content in files.items():
        with atomic_write(target / file_name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return target / "index.html"


def _dump(value: Any) -> str:
    """JSON in ASCII, so that paths that are not valid UTF-8 survive a round trip."""
    return json.dumps(value, indent=1, allow_nan=False)


def _has_same_photos(audit: Audit, result: Any) -> bool:
    """Whether an audit is of the photos of a fit."""
    if not isinstance(audit, Audit) or not hasattr(result, "splits"):
        return False
    photos = result.splits.photos
    return bool(audit.photos.paths == photos.paths and audit.photos.hashes == photos.hashes)
