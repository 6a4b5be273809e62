"""What the kinds share: a case and its verdict, damage to bytes, and odd texts."""

from __future__ import annotations

import contextlib
import io
import math
import random
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from scenelearn.data._rejections import RejectedPhotoError
from scenelearn.errors import MissingExtraError, SceneLearnError

Case = Callable[[random.Random], str]
"""Tries one thing, and names the outcome. Raises `SceneLearnError` for what must be refused, and
anything else, such as `AssertionError`, if something is wrong."""

_FORM = re.compile(r"\S.{8,}\. ?Received: .+[.)\]'\"]", re.DOTALL)
_UNITS = ("", "k", "x", "%", "e400", "GiB", " ", "\u0664")


class Verdict(NamedTuple):
    """What came of a case: an outcome to count, and what is wrong; empty if nothing."""

    outcome: str
    problem: str
    seconds: float


def try_case(kind: str, case: Case, seed: int, number: int) -> Verdict:
    """Run one case of a kind. The same seed and number repeat it."""
    start, outcome, problem = time.monotonic(), "failed", ""
    output = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(output):
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", category=DeprecationWarning)  # of other packages
            outcome = case(random.Random(f"{seed} {kind} {number}"))
    except SceneLearnError as error:
        outcome, problem = type(error).__name__, check_message(error)
    except Exception as error:  # noqa: BLE001 - this is what is looked for
        problem = f"{type(error).__name__}: {error}"[:600]
    if not problem and output.getvalue():
        problem = f"printed {output.getvalue()[:200]!r}"
    return Verdict(outcome, problem, time.monotonic() - start)


def check_message(error: SceneLearnError) -> str:
    """What is wrong with the message of an error; empty if nothing."""
    text = str(error)
    if isinstance(error, RejectedPhotoError):  # a rejection is a reason, not a message
        return "" if text.startswith(error.reason.value) else f"message {text!r:.300}"
    is_usual = _FORM.fullmatch(text) or isinstance(error, MissingExtraError)
    is_clean = all(c.isprintable() or c == "\n" for c in text) and len(text) < 4000
    return "" if is_usual and is_clean else f"{type(error).__name__} with message {text!r:.300}"


def damage(content: bytes, other: bytes, random: random.Random) -> bytes:
    """One file with one to eight defects, half of them near the start, where headers are."""
    data = bytearray(content)
    for _ in range(random.randint(1, 8)):
        end = min(len(data), 200) if random.random() < 0.5 else len(data)
        at = random.randrange(max(end, 1))
        kind, n = random.randrange(8), random.randint(1, 8)
        if kind == 0:
            data[at : at + n] = random.randbytes(n)
        elif kind == 1:
            data[at : at + n] = b"\xff" * n
        elif kind == 2:
            data[at : at + n] = bytes(n)
        elif kind == 3:
            del data[at : at + random.randint(1, 63)]
        elif kind == 4:
            data[at:at] = data[at : at + random.randint(1, 399)] * random.randint(1, 29)
        elif kind == 5:
            data = data[:at] + other[random.randrange(max(len(other), 1)) :]
        elif kind == 6:
            del data[max(at, 8) :]
        else:
            data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ 1 << n % 8])
    return bytes(data)


_ALPHABETS = (
    "abcxyz019_-", "ab ,;\t", "\"'`", "äßéÉ北京", "e\u0301\u200d\u202e\ufeff\x85\u2028",
    "\udc80\udcff\ud800", "\x01\x1b\x7f[2J", "%$&|<>*?[]{}()#!~", "../\\:", "=+-@0.9e",
)  # fmt: skip


def odd_text(random: random.Random, *, longest: int = 12, also: str = "") -> str:
    """A short text in one or two alphabets that names on a disk, cells and options have."""
    letters = "".join(random.choices(_ALPHABETS, k=random.randint(1, 2))) + "ab" + also
    return "".join(random.choices(letters, k=random.randint(0, longest)))


def odd_number(random: random.Random) -> str:
    """A number as somebody might type it: out of range, of another type, or none at all."""
    kind = random.randrange(6)
    if kind == 0:
        return str(random.choice((0, 1, -1, 2, 3, 8, 31, 32, 33, 224, 10**6, 2**31, 2**63, 10**30)))
    if kind == 1:
        return f"{random.gauss(0, 10.0 ** random.randint(-3, 6)):g}"
    if kind == 2:
        return random.choice(
            ("nan", "inf", "-inf", "1e400", "-0.0", "1_000", "０", "²", "0x10", "")
        )
    if kind == 3:
        return f"{random.randint(-9, 999)}{random.choice(_UNITS)}"
    return odd_text(random) if kind == 4 else repr(random.choice((None, True, [1], {"a": math.e})))


def peak_kib() -> int:
    """Peak resident memory of this process in KiB, on Linux.

    `resource.getrusage` would include what its parent used when it started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])


def quiet() -> None:
    """Keep log messages off the terminal."""
    import logging

    logging.getLogger("scenelearn").addHandler(logging.NullHandler())
    logging.getLogger("scenelearn").propagate = False
    sys.stderr.flush()
