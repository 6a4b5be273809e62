"""How names are shown."""

from __future__ import annotations

import pytest

from scenelearn._display import printable


@pytest.mark.parametrize("name", ["9.41.00\u202fAM.png", "高い\u3000山", "a\u00a0b", "Ürümqi"])
def test_letters_and_spaces_of_all_languages_are_shown_as_they_are(name: str) -> None:
    assert printable(name) == name


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[2J", r"a\x1b[2J"),
        ("a\u2028b", r"a\u2028b"),
        ("a\u202eb", r"a\u202eb"),
        ("a\tb", r"a\tb"),
    ],
)
def test_controls_and_line_breaks_are_escaped(name: str, shown: str) -> None:
    assert printable(name) == shown
