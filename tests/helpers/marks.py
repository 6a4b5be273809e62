"""Cases of a parametrized test that the default run leaves out."""

from __future__ import annotations

from typing import Any

import pytest


def slow(*values: Any) -> list[Any]:
    """Cases marked "slow"."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def nightly(*values: Any) -> list[Any]:
    """Cases marked "nightly"."""
    return [pytest.param(value, marks=pytest.mark.nightly) for value in values]
