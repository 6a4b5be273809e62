"""Reports: the page of a fit is a walk through its parts, in reading order."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scenelearn.data import Audit, made_folder, written_whole
from scenelearn.errors import ArgumentError
from scenelearn.reporting import _background as background
from scenelearn.reporting import _results as results
from scenelearn.reporting._answer import answer
from scenelearn.reporting._audit import audit_page
from scenelearn.reporting._card import model_card
from scenelearn.reporting._confusion import confusions
from scenelearn.reporting._markup import count, name, percent, text
from scenelearn.reporting._reliability import reliability
from scenelearn.reporting._shell import document

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult

_PARTS = (
    ("training", "Training", results.training),
    ("confusion", "Confusions", confusions),
    ("classes", "Classes", results.classes),
    ("groups", "Groups", results.groups),
    ("reliability", "Probabilities", reliability),
    ("mistakes", "Mistakes", background.mistakes),
    ("refused", "Refused files", background.refused_and_copies),
    ("time", "Time and photos", background.time_and_photos),
    ("repeat", "Repeat", background.repeat),
)


def report(result: FitResult | Audit, folder: str | os.PathLike[str]) -> Path:
    """Write a fit or an audit as one web page that needs no other file, and its numbers as JSON.

    The page holds its style, figures and small copies of photos, and forbids the browser every
    request. That of a fit (``index.html``, ``model-card.md``, ``result.json``, ``split.csv``) says
    what it reached, where it fails, how far to trust it and what to do next, shows the photos
    behind each cell of the confusions, and how to repeat it from the split that is saved; the
    card, in Markdown, goes with the classifier. Only for where it looked in its most confident
    mistakes is the network run again. That of an audit (``index.html``, ``audit.json``,
    ``quarantine.json``) shows each finding with its photos, filters them, and saves the
    quarantine that you tick. Each file is written whole or not at all, in place of an earlier
    report in the same folder.

    Args:
        result: from `scenelearn.fit` or `scenelearn.audit`.
        folder: where the files go; it is made if it does not exist.

    Returns:
        The path of ``index.html``.

    Raises:
        ArgumentError: if `result` is something else, or `folder` or one above it is a file.
        OSError: if the folder cannot be written to, or the disk is full.
    """
    target = made_folder(folder)
    if isinstance(result, Audit):
        files = {
            "audit.json": _json(result.to_json()),
            "quarantine.json": _json(list(result.quarantine)),
            "index.html": audit_page(result),
        }
    elif hasattr(result, "evaluation"):  # a FitResult, without loading the room of networks
        files = {
            "result.json": _json(result.to_json()),
            "model-card.md": model_card(result),
            "index.html": _page(result),
        }
        result.splits.save(target / "split.csv")
    else:
        raise ArgumentError(
            f"`result` must come from `fit` or `audit`. Received: {type(result).__name__}. "
            "Pass e.g. sl.audit(photos)."
        )
    for name_, content in files.items():
        with written_whole(target / name_) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return target / "index.html"


def _json(value: Any) -> str:
    """A path may hold bytes that are not UTF-8; escaped as ASCII they survive the way and back."""
    return json.dumps(value, indent=1, allow_nan=False)


def _page(fit: FitResult) -> str:
    photos = fit.splits.photos
    accuracy = percent(fit.evaluation.accuracy.value)
    links = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title, _ in _PARTS)
    date = fit.environment.get("date", "")
    body = (
        "<main>\n<header>\n"
        f'<p class="eyebrow">scenelearn report{f" · {text(date)}" if date else ""}</p>\n'
        f"<h1>{name(photos.folder.name)}: {count(len(photos.class_names), 'class', 'classes')}, "
        f"{count(len(photos), 'photo')}</h1>\n{answer(fit)}\n"
        f'<nav aria-label="Parts of the report"><ul>{links}</ul></nav>\n</header>\n'
        + "".join(part(fit) for _, _, part in _PARTS)
        + "</main>\n<footer><p>All numbers of this page, and the probabilities of every test "
        "photo, are in <code>result.json</code>; <code>model-card.md</code> goes with the "
        "classifier.</p></footer>\n"
    )
    return document(f"{text(photos.folder.name)}: accuracy {accuracy} · scenelearn", body)
