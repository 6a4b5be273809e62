"""A result that was cut short is no measurement."""

from __future__ import annotations

from typing import Any


def whole(fit: Any) -> None:
    """End the bench if a signal ended the fit.

    `fit` returns what was best so far when somebody stops it, which is right for a person and wrong
    in a table of results.
    """
    if fit.stopped.startswith("SIG"):
        raise SystemExit(f"The fit was stopped ({fit.stopped}): its result is not written.")
