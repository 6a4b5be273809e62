"""Reports: the page of a fit is a walk through its parts, in reading order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenelearn._io import atomic_write, ensure_folder
from scenelearn.data import Audit
from scenelearn.errors import ArgumentError
from scenelearn.reporting import _background as background
from scenelearn.reporting import _results as results
from scenelearn.reporting._answer import answer
from scenelearn.reporting._audit import audit_page
from scenelearn.reporting._card import model_card
from scenelearn.reporting._confusion import confusions
from scenelearn.reporting._markup import count, name, percent, text
from scenelearn.reporting._reliability import reliability
from scenelearn.reporting._runs import pairs_of, runs_of
from scenelearn.reporting._shell import document
from scenelearn.reporting._versus import versus_json, versus_page

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult


def _parts(audit: Audit | None) -> tuple[tuple[str, str, Callable[[FitResult], str]], ...]:
    """Anchor, title and maker of each part of a fit's page, in reading order."""
    return (
        ("training", "Training", results.training),
        ("confusion", "Confusions", confusions),
        ("classes", "Classes", results.classes),
        ("groups", "Groups", results.groups),
        ("reliability", "Probabilities", reliability),
        ("mistakes", "Mistakes", background.mistakes),
        ("refused", "Refused files", partial(background.refused_and_copies, audit=audit)),
        ("time", "Cost", background.time_and_photos),
        ("repeat", "Repeat", background.repeat),
    )


def report(
    result: FitResult | Audit | Sequence[Any] | Mapping[str, Any],
    folder: str | os.PathLike[str],
    *,
    audit: Audit | None = None,
) -> Path:
    """Write a fit, an audit or several fits as one web page, and its numbers as JSON.

    The page needs no other file: it holds its style, figures and small copies of photos, and
    forbids the browser every request.

    That of a fit (``index.html``, ``model-card.md``, ``result.json``, ``split.csv``) says what it
    reached, where it fails, how far to trust it and what to do next, shows the photos behind each
    cell of the confusions, and how to repeat it from the split that is saved; the card, in
    Markdown, goes with the classifier. Only for where it looked in its most confident mistakes is
    the network run again.

    That of an audit (``index.html``, ``audit.json``, ``quarantine.json``) shows each finding with
    its photos, filters them, and saves the quarantine that you tick.

    That of several fits (``index.html``, ``comparison.json``) says which differences between them
    are more than chance: on the test photos that two of them share, photo by photo.

    Each file is written whole or not at all, in place of an earlier report in the same folder.

    Args:
        result: from `scenelearn.fit` or `scenelearn.audit`; or several fits, as a list or by
            name, each as it is or as the path of the report that was written of it.
        folder: where the files go; it is made if it does not exist.
        audit: of the photos of a fit: its page then also names the photos that show the same
            picture, and those of them that lie on two sides of the split.

    Returns:
        The path of ``index.html``.

    Raises:
        ArgumentError: if `result` is something else, or holds a path where no result is, or fewer
            than two; if `audit` is of other photos; or if `folder` or one above it is a file.
        OSError: if the folder cannot be written to, or the disk is full.
    """
    target = ensure_folder(folder)
    if audit is not None and not _is_of(audit, result):
        raise ArgumentError(
            "`audit` must be of the photos of the fit. Received: an audit of other photos, or no "
            "fit. Pass sl.audit(photos) of the photos that were split."
        )
    if isinstance(result, Audit):
        files = {
            "audit.json": _json(result.to_json()),
            "quarantine.json": _json(list(result.quarantine)),
            "index.html": audit_page(result),
        }
    elif isinstance(result, Sequence | Mapping):
        runs = runs_of(result)
        pairs = pairs_of(runs)
        files = {
            "comparison.json": _json(versus_json(runs, pairs)),
            "index.html": versus_page(runs, pairs),
        }
    elif hasattr(result, "evaluation"):  # a FitResult, without loading the room of networks
        files = {
            "result.json": _json(result.to_json()),
            "model-card.md": model_card(result),
            "index.html": _page(result, audit),
        }
        result.splits.save(target / "split.csv")
    else:
        raise ArgumentError(
            "`result` must come from `fit` or `audit`, or be several fits. Received: "
            f"{type(result).__name__}. Pass e.g. sl.audit(photos)."
        )
    for name_, content in files.items():
        with atomic_write(target / name_) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return target / "index.html"


def _json(value: Any) -> str:
    """A path may hold bytes that are not UTF-8; escaped as ASCII they survive the way and back."""
    return json.dumps(value, indent=1, allow_nan=False)


def _is_of(audit: Audit, result: Any) -> bool:
    """Whether an audit looked at the very photos of a fit."""
    if not isinstance(audit, Audit) or not hasattr(result, "evaluation"):
        return False
    photos = result.splits.photos
    return bool(audit.photos.paths == photos.paths and audit.photos.hashes == photos.hashes)


def _page(fit: FitResult, audit: Audit | None) -> str:
    photos = fit.splits.photos
    parts = _parts(audit)
    accuracy = percent(fit.evaluation.accuracy.value)
    links = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title, _ in parts)
    date = fit.environment.get("date", "")
    body = (
        "<main>\n<header>\n"
        f'<p class="eyebrow">scenelearn report{f" · {text(date)}" if date else ""}</p>\n'
        f"<h1>{name(photos.folder.name)}: {count(len(photos.class_names), 'class', 'classes')}, "
        f"{count(len(photos), 'photo')}</h1>\n{answer(fit)}\n"
        f'<nav aria-label="Parts of the report"><ul>{links}</ul></nav>\n</header>\n'
        + "".join(part(fit) for _, _, part in parts)
        + "</main>\n<footer><p>All numbers of this page, and the probabilities of every test "
        "photo, are in <code>result.json</code>; <code>model-card.md</code> goes with the "
        "classifier.</p></footer>\n"
    )
    return document(f"{text(photos.folder.name)}: accuracy {accuracy} · scenelearn", body)
