"""The confusion matrix, and the photos in each of its cells.

Each cell links to its photos. The stylesheet shows them while they are the target of the link, so
this works with mouse, keyboard and screen reader, and without a script.
"""

from __future__ import annotations

import math
from collections.abc import Container
from typing import TYPE_CHECKING

from scenelearn.reporting import _analysis as analysis
from scenelearn.reporting._html import (
    count,
    escape,
    figure,
    name,
    path,
    percent,
    region,
    section,
    table,
)
from scenelearn.reporting._style import N_TINTS
from scenelearn.reporting._thumbnails import thumbnail

if TYPE_CHECKING:
    from scenelearn.finetune import FitResult
    from scenelearn.metrics import Evaluation

_MANY_CLASSES = 12  # more columns than this get vertical headings and narrower cells
_MAX_CLASSES, _MAX_PAIRS = 50, 100  # with more classes, a table of pairs replaces the matrix
_MAX_PHOTOS, _MAX_PHOTOS_PER_CELL = 120, 8  # about 4 kB each: half a megabyte in total
_THUMBNAIL_PX = 96


def confusion_matrix(fit: FitResult) -> str:
    """The matrix with counts and row-wise percentages, then the photos of its cells."""
    cells = analysis.limit_cells(analysis.photos_by_cell(fit), _MAX_PHOTOS, _MAX_PHOTOS_PER_CELL)
    photos = "".join(_cell_photos(fit, cell, rows) for cell, rows in sorted(cells.items()))
    if len(fit.evaluation.class_names) > _MAX_CLASSES:
        body = _pairs(fit.evaluation, cells) + photos
    else:
        caption = (
            "Rows are true classes, columns predicted classes. Each cell shows the number of test "
            "photos and the percentage of its row. Blue cells are correct predictions, orange ones "
            "errors; a stronger color means a higher percentage. Underlined cells link to their "
            "photos."
        )
        body = figure(_matrix(fit.evaluation, cells), caption) + photos
    return section("confusion-matrix", "Confusion matrix", body)


def anchor(row: int, column: int) -> str:
    """The anchor of the photos of a cell."""
    return f"cell-{row}-{column}"


def _matrix(evaluation: Evaluation, cells: Container[tuple[int, int]]) -> str:
    """Rows are true classes, columns predicted ones; each cell has a count and a percentage."""
    names = evaluation.class_names
    kind = "heat many" if len(names) > _MANY_CLASSES else "heat"
    columns = "".join(f'<th scope="col">{name(column)}</th>' for column in names)
    rows = []
    for i, (counts, metrics) in enumerate(
        zip(evaluation.confusion_matrix, evaluation.per_class, strict=True)
    ):
        row = []
        for j, n in enumerate(counts):
            fraction = percent(n / metrics.n_photos) if n else ""
            inner = f"{n:,} <small>{fraction}</small>" if n else "0"
            if (i, j) in cells:
                outcome = "predicted correctly" if i == j else f"predicted as {escape(names[j])}"
                label = f"{n:,} {fraction}: {escape(metrics.label)}, {outcome}"
                inner = f'<a href="#{anchor(i, j)}" aria-label="{label}">{inner}</a>'
            row.append(f'<td class="{_tint(n, metrics.n_photos, correct=i == j)}">{inner}</td>')
        rows.append(
            f'<tr><th scope="row">{name(metrics.label)}</th>{"".join(row)}'
            f'<td class="sum">{metrics.n_photos:,}</td></tr>\n'
        )
    return region(
        "Confusion matrix",
        f'<table class="{kind}"><thead><tr><th rowspan="2">true class</th>'
        f'<th colspan="{len(names)}" scope="colgroup">predicted class</th>'
        f'<th rowspan="2">photos</th></tr><tr>{columns}</tr></thead>\n'
        f"<tbody>\n{''.join(rows)}</tbody></table>",
    )


def _pairs(evaluation: Evaluation, cells: Container[tuple[int, int]]) -> str:
    """The most confused pairs of classes, for too many classes to show a matrix."""
    confusions = evaluation.most_confused()
    position = {name_: k for k, name_ in enumerate(evaluation.class_names)}
    rows = []
    for confusion in confusions[:_MAX_PAIRS]:
        cell = position[confusion.label], position[confusion.predicted]
        pair = f"{name(confusion.label)} predicted as {name(confusion.predicted)}"
        if cell in cells:
            pair = f'<a href="#{anchor(*cell)}">{pair}</a>'
        n_photos = evaluation.per_class[cell[0]].n_photos
        rows.append((pair, f"{confusion.n_photos:,}", f"{n_photos:,}", percent(confusion.fraction)))
    intro = (
        f"<p>{count(len(confusions), 'pair')} of {len(evaluation.class_names):,} classes "
        f"{'was' if len(confusions) == 1 else 'were'} confused. The {len(rows):,} most frequent "
        "are listed here; all are in <code>result.json</code>.</p>"
    )
    columns = ("pair", "photos", "photos of the class", "percentage")
    return intro + table("Most confused pairs of classes", columns, rows, "lnnn")


def _tint(n: int, n_photos: int, *, correct: bool) -> str:
    if not n:
        return "zero"
    tint = max(1, round(N_TINTS * math.sqrt(n / n_photos)))  # the root keeps rare errors visible
    return f"{'correct' if correct else 'wrong'}{tint}"


def _cell_photos(fit: FitResult, cell: tuple[int, int], rows: list[int]) -> str:
    """The photos of one cell, with its count as a fraction of row and column."""
    evaluation, photos = fit.evaluation, fit.splits.photos
    true, predicted = (evaluation.per_class[k] for k in cell)
    n, correct = evaluation.confusion_matrix[cell[0]][cell[1]], cell[0] == cell[1]
    if len(rows) == n:
        shown = "All are shown."
    else:
        be = "is" if len(rows) == 1 else "are"
        shown = f"The {len(rows)} {'least' if correct else 'most'} confident {be} shown."
    outcome = "predicted correctly" if correct else f"predicted as {name(predicted.label)}"
    items = []
    for row in rows:
        index = int(fit.test_indices[row])
        probability = percent(float(fit.test_probabilities[row, cell[1]]))
        alt = f"Test photo of class {true.label}, predicted as {predicted.label}"
        caption = f"confidence {probability}{path(photos.paths[index])}"
        items.append(
            f"<li>{figure(thumbnail(photos, index, alt, _THUMBNAIL_PX), caption)}</li>\n",
        )
    place = anchor(*cell)
    return (
        f'<section class="cell" id="{place}" aria-labelledby="{place}-title">'
        f'<h3 id="{place}-title">{name(true.label)}, {outcome}</h3>'
        f"<p>{n:,} of {count(true.n_photos, 'test photo')} of class {name(true.label)} "
        f"({percent(n / true.n_photos)}), and of {predicted.n_predicted:,} predicted as "
        f"{name(predicted.label)} ({percent(n / predicted.n_predicted)}). {shown} "
        f'<a href="#confusion-matrix">Back to the matrix</a></p>'
        f'<ul class="gallery small">\n{"".join(items)}</ul></section>\n'
    )
