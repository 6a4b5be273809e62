"""The page: a walk through the parts, in reading order, into one file that needs no other."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from scenelearn.data import made_folder, written_whole
from scenelearn.reporting import _background as background
from scenelearn.reporting import _results as results
from scenelearn.reporting._markup import count, name, percent, text
from scenelearn.reporting._style import STYLE

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult

_PARTS = (
    ("training", "Training", results.training),
    ("confusion", "Confusions", results.confusions),
    ("classes", "Classes", results.classes),
    ("mistakes", "Mistakes", background.mistakes),
    ("refused", "Refused files", background.refused),
    ("time", "Time and photos", background.time_and_photos),
    ("repeat", "Repeat", background.repeat),
)


def report(fit: FitResult, folder: str | os.PathLike[str]) -> Path:
    """Write what a fit reached as one web page that needs no other file, and its numbers as JSON.

    The page holds its style, figures and small copies of the photos mistaken most confidently; it
    runs no script and forbids the browser every request. Each file is written whole or not at
    all, in place of an earlier report in the same folder.

    Args:
        fit: from `scenelearn.fit`.
        folder: where ``index.html`` and ``result.json`` go; it is made if it does not exist.

    Returns:
        The path of ``index.html``.

    Raises:
        ArgumentError: if `folder`, or a folder above it, exists as a file.
        OSError: if the folder cannot be written to, or the disk is full.
    """
    target = made_folder(folder)
    # A path may hold bytes that are not UTF-8; escaped as ASCII they survive the way and back.
    result = json.dumps(fit.to_json(), indent=1, allow_nan=False)
    page = _page(fit)
    with written_whole(target / "result.json") as temporary:
        temporary.write_text(result, encoding="ascii")
    with written_whole(target / "index.html") as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target / "index.html"


def _page(fit: FitResult) -> str:
    photos = fit.splits.photos
    accuracy = percent(fit.evaluation.accuracy.value)
    # The policy names the only style that may apply, and lets nothing be fetched or run.
    style_hash = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; style-src 'sha256-{style_hash}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    links = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title, _ in _PARTS)
    date = fit.environment.get("date", "")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{text(photos.folder.name)}: accuracy {accuracy} · scenelearn</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<header>\n"
        f'<p class="eyebrow">scenelearn report{f" · {text(date)}" if date else ""}</p>\n'
        f"<h1>{name(photos.folder.name)}: {count(len(photos.class_names), 'class', 'classes')}, "
        f"{count(len(photos), 'photo')}</h1>\n{results.answer(fit)}\n"
        f'<nav aria-label="Parts of the report"><ul>{links}</ul></nav>\n</header>\n'
        + "".join(part(fit) for _, _, part in _PARTS)
        + "</main>\n<footer><p>All numbers of this page, and the probabilities of every test "
        "photo, are in <code>result.json</code>.</p></footer>\n</body>\n</html>\n"
    )
