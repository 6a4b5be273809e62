"""Executed pages as notebooks to download."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext


def downloadable(page: Path) -> str:
    """The notebook of a page, without outputs and without links that work only on the site."""
    notebook = jupytext.read(page)
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i}"
        cell["metadata"] = {}
        if cell["cell_type"] == "markdown":
            text = re.sub(r"\[([^\]\[]+)\]\[scenelearn[\w.]*\]", r"\1", cell["source"])
            cell["source"] = re.sub(r"\[([^\]\[]+)\]\((?!https?:)[^)]*\)", r"\1", text)
    first = notebook.cells[0]
    first["source"] += "\n\nRun this notebook in a copy of scenelearn's repository."
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    text: str = jupytext.writes(notebook, fmt="ipynb")
    return text
