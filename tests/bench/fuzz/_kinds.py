"""All kinds of input, and a range of cases of one of them."""

from __future__ import annotations

import collections
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.bench.fuzz._archives import archives
from tests.bench.fuzz._arguments import arguments
from tests.bench.fuzz._bundles import bundles
from tests.bench.fuzz._cases import peak_kib, quiet, try_case
from tests.bench.fuzz._environments import environments
from tests.bench.fuzz._images import images
from tests.bench.fuzz._manifests import manifests

KINDS = {
    kind.__name__: kind for kind in (images, manifests, archives, bundles, arguments, environments)
}
SHARES = {  # of a million cases
    "images": 250_000, "manifests": 641_800, "archives": 100_000, "bundles": 4_000,
    "arguments": 4_000, "environments": 200,
}  # fmt: skip


class Part(NamedTuple):
    """The verdicts on a range of cases."""

    kind: str
    outcomes: collections.Counter[str]
    failures: list[str]
    slowest_s: float
    seconds: float
    peak_kib: int


def run_cases(kind: str, seed: int, numbers: range) -> Part:
    """Try a range of cases of a kind, in this process."""
    quiet()
    outcomes, failures, slowest = collections.Counter[str](), list[str](), 0.0
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="scenelearn-fuzz-", dir=_fast_folder()) as folder:
        case = KINDS[kind](Path(folder))
        for number in numbers:
            verdict = try_case(kind, case, seed, number)
            outcomes[verdict.outcome] += 1
            slowest = max(slowest, verdict.seconds)
            if verdict.problem:
                failures.append(f"{kind}, case {number}: {verdict.problem}")
    return Part(kind, outcomes, failures, slowest, time.monotonic() - start, peak_kib())


def _fast_folder() -> str | None:
    """A folder in memory, where there is one: each case writes a file."""
    return next((name for name in ("/dev/shm",) if os.access(name, os.W_OK)), None)
