"""What is taken for what: the confusion matrix, and behind each cell its photos.

A cell is a link to its photos, which the stylesheet shows while they are the link's target: it
works with mouse, keyboard and screen reader, and needs no script.
"""

from __future__ import annotations

import math
from collections.abc import Container
from typing import TYPE_CHECKING

from scenelearn.reporting import _findings as findings
from scenelearn.reporting._markup import (
    count,
    figure,
    name,
    path,
    percent,
    region,
    section,
    table,
    text,
)
from scenelearn.reporting._pictures import picture
from scenelearn.reporting._style import N_TINTS

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult
    from scenelearn.metrics import Evaluation

_MANY_CLASSES = 12  # more columns than this get upright headings and narrower cells
_MOST_CLASSES, _MOST_PAIRS = 50, 100  # with more classes, pairs are listed instead
_MOST_PHOTOS, _MOST_OF_A_CELL = 120, 8  # about 4 kB each: half a megabyte, a second or two
_THUMBNAIL_PX = 96


def confusions(fit: FitResult) -> str:
    """The confusion matrix with counts and row shares, then the photos of its cells."""
    shown = findings.shown_by_cell(findings.photos_by_cell(fit), _MOST_PHOTOS, _MOST_OF_A_CELL)
    photos = "".join(_photos(fit, cell, rows) for cell, rows in sorted(shown.items()))
    if len(fit.evaluation.class_names) > _MOST_CLASSES:
        body = _pairs(fit.evaluation, shown) + photos
        return section("confusion", "What is taken for what", body)
    caption = (
        "Each row holds the test photos of one true class: how many were given each class, and "
        "which share of the row that is. Blue is right, orange is mistaken; the stronger, the "
        "larger the share. An underlined cell shows its photos."
    )
    body = figure(_matrix(fit.evaluation, shown), caption) + photos
    return section("confusion", "What is taken for what", body)


def anchor(row: int, column: int) -> str:
    """Where the photos of a cell are."""
    return f"cell-{row}-{column}"


def _matrix(evaluation: Evaluation, shown: Container[tuple[int, int]]) -> str:
    """Rows the true classes, columns the predicted ones; each cell a count and its row's share."""
    names = evaluation.class_names
    kind = "heat many" if len(names) > _MANY_CLASSES else "heat"
    columns = "".join(f'<th scope="col">{name(column)}</th>' for column in names)
    rows = []
    for k, (row, score) in enumerate(zip(evaluation.confusion, evaluation.per_class, strict=True)):
        cells = []
        for j, n in enumerate(row):
            share = percent(n / score.n_photos) if n else ""
            inner = f"{n:,} <small>{share}</small>" if n else "0"
            if (k, j) in shown:
                outcome = "recognized" if k == j else f"taken for {text(names[j])}"
                label = f"{n:,} {share}: {text(score.name)}, {outcome}"
                inner = f'<a href="#{anchor(k, j)}" aria-label="{label}">{inner}</a>'
            cells.append(f'<td class="{_tint(n, score.n_photos, right=j == k)}">{inner}</td>')
        rows.append(
            f'<tr><th scope="row">{name(score.name)}</th>{"".join(cells)}'
            f'<td class="sum">{score.n_photos:,}</td></tr>\n'
        )
    return region(
        "Confusion matrix",
        f'<table class="{kind}"><thead><tr><th rowspan="2">true class</th>'
        f'<th colspan="{len(names)}" scope="colgroup">predicted class</th>'
        f'<th rowspan="2">photos</th></tr><tr>{columns}</tr></thead>\n'
        f"<tbody>\n{''.join(rows)}</tbody></table>",
    )


def _pairs(evaluation: Evaluation, shown: Container[tuple[int, int]]) -> str:
    """The pairs of classes that are mistaken most often: for many classes, a matrix is unwieldy."""
    found = findings.confusions(evaluation)
    rows = []
    for one in found[:_MOST_PAIRS]:
        pair = f"{name(one.true)} taken for {name(one.predicted)}"
        if (one.row, one.column) in shown:
            pair = f'<a href="#{anchor(one.row, one.column)}">{pair}</a>'
        rows.append((pair, f"{one.n:,}", f"{one.n_true:,}", percent(one.n / one.n_true)))
    intro = (
        f"<p>{count(len(found), 'pair')} of classes, of {len(evaluation.class_names):,} classes, "
        f"{'was' if len(found) == 1 else 'were'} mistaken; here the {len(rows):,} most frequent. "
        "All are in <code>result.json</code>.</p>"
    )
    columns = ("pair", "photos", "of the class", "share")
    return intro + table("Mistaken pairs of classes", columns, rows, "lnnn")


def _tint(n: int, n_photos: int, *, right: bool) -> str:
    if not n:
        return "zero"
    tint = max(1, round(N_TINTS * math.sqrt(n / n_photos)))  # keeps rare mistakes in sight
    return f"{'right' if right else 'wrong'}{tint}"


def _photos(fit: FitResult, cell: tuple[int, int], rows: list[int]) -> str:
    """The photos of one cell, with what its count is a share of."""
    judged, photos = fit.evaluation, fit.splits.photos
    true, predicted = (judged.per_class[k] for k in cell)
    n, right = judged.confusion[cell[0]][cell[1]], cell[0] == cell[1]
    which = "least sure of" if right else "surest of"
    here = "all of them" if len(rows) == n else f"the {len(rows)} that it was {which}"
    outcome = "recognized" if right else f"taken for {name(predicted.name)}"
    items = []
    for row in rows:
        index = int(fit.test_indices[row])
        said = percent(float(fit.test_probabilities[row, cell[1]]))
        alt = f"Test photo of class {true.name}, said to be {predicted.name}"
        caption = f"{said} sure{path(photos.paths[index])}"
        items.append(
            f"<li>{figure(picture(photos, index, alt, _THUMBNAIL_PX), caption)}</li>\n",
        )
    place = anchor(*cell)
    return (
        f'<section class="cell" id="{place}" aria-labelledby="{place}-title">'
        f'<h3 id="{place}-title">{name(true.name)}, {outcome}</h3>'
        f"<p>{n:,} of the {count(true.n_photos, 'test photo')} of {name(true.name)} "
        f"({percent(n / true.n_photos)}), and of the {predicted.n_predicted:,} said to be "
        f"{name(predicted.name)} ({percent(n / predicted.n_predicted)}); here {here}. "
        f'<a href="#confusion">Back to the table</a></p>'
        f'<ul class="gallery small">\n{"".join(items)}</ul></section>\n'
    )
