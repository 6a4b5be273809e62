"""Docstrings for the site: "Example:" is a section of code, as "Examples:" is."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Without this, mkdocstrings takes the prompts of an "Example:" for quotations."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the heading, before the docstring is parsed."""
        if obj.docstring:
            renamed = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M)
            obj.docstring.value = renamed
