"""Predictions as a CSV file that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from scenelearn._display import printable
from scenelearn.classify._predictions import Prediction

_FORMULA = ("=", "+", "-", "@")


def cell(value: str) -> str:
    r"""A name as a cell: spreadsheets show it, and do not compute it.

    Line breaks and other characters that do not print are written as Python writes them. A cell
    that a spreadsheet would take for a formula gets an apostrophe in front, which makes it text.

    Example:
        >>> cell("=1+1"), cell("a\nb"), cell("sea.jpg")
        ("'=1+1", 'a\\nb', 'sea.jpg')

    References:
        OWASP, CSV injection. https://owasp.org/www-community/attacks/CSV_Injection
    """
    shown = printable(value)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def csv_lines(predictions: Iterable[Prediction]) -> Iterable[str]:
    """Predictions as lines of CSV, each without its line end, the header first.

    Columns: source, label, probability, classes (joined by ``|``), typicality, is_unlike,
    abstains, and the probability of each class under its name.

    Args:
        predictions: of one classifier.

    Yields:
        One line after the other, as predictions come; nothing where none come.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="")
    fixed = (
        "source", "label", "probability", "classes", "typicality", "is_unlike", "abstains",
    )  # fmt: skip

    def line(cells: Iterable[object]) -> str:
        text.seek(0)
        text.truncate()
        writer.writerow(cells)
        return text.getvalue()

    for n, one in enumerate(predictions):
        if n == 0:
            yield line([*fixed, *map(cell, one.probabilities)])
        typicality = "" if one.typicality is None else f"{one.typicality:.4f}"
        yield line(
            [
                cell(one.source),
                cell(one.label),
                f"{one.probability:.6f}",
                cell("|".join(one.classes)),
                typicality,
                str(one.is_unlike).lower(),
                str(one.abstains).lower(),
                *(f"{p:.6f}" for p in one.probabilities.values()),
            ]
        )
