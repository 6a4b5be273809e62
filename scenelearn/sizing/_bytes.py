"""Amounts of memory: parsing and formatting."""

from __future__ import annotations

import re

from scenelearn.errors import ArgumentError

_UNITS = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)(e\d+)?\s*([a-z]*)\s*", re.IGNORECASE)


def parse_bytes(memory: int | float | str) -> int:
    """Convert an amount of memory to a number of bytes.

    Args:
        memory: a number of bytes, or text: a number with one of the units B, kB, MB, GB, TB (powers
            of 1,000) or KiB, MiB, GiB, TiB (powers of 1,024), in upper or lower case.

    Returns:
        The number of bytes, at least 1.

    Raises:
        ArgumentError: if the amount cannot be parsed, or is not positive.

    Examples:
        >>> parse_bytes("8 GiB"), parse_bytes("500MB")
        (8589934592, 500000000)
    """
    amount = 0.0
    if isinstance(memory, str):
        match = _AMOUNT.fullmatch(memory)
        if match and match[3].lower() in _UNITS:
            amount = float(match[1] + (match[2] or "")) * _UNITS[match[3].lower()]
    elif not isinstance(memory, bool) and isinstance(memory, int | float):
        amount = float(memory)
    if not 1 <= amount < 2**63:
        raise ArgumentError(
            '`memory` must be a number of bytes, or text such as "8 GiB" or "500 MB" (units: B, '
            f"kB, MB, GB, TB, KiB, MiB, GiB, TiB). Received: memory={memory!r}."
        )
    return int(amount)


def format_bytes(n_bytes: int) -> str:
    """Format a number of bytes for people, in powers of 1,000.

    Args:
        n_bytes: a number of bytes, at least 0.

    Returns:
        The amount in B, kB, MB, GB or TB, rounded to one decimal below 100.

    Examples:
        >>> format_bytes(12_613_600), format_bytes(0), format_bytes(569_213_600)
        ('12.6 MB', '0 B', '569 MB')
    """
    amount, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 99.95 else f"{amount:.1f} {unit}"
