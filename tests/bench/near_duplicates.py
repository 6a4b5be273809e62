"""How many planted near-duplicates the audit finds, and how many photos it groups wrongly.

    python -m tests.bench.near_duplicates --photos FOLDER --out docs/results/near_duplicates.json

Splits the photos into two halves and plants changed copies in each. The thresholds were chosen on
the first half. Each audit also runs without the steps that compare colors and judge series, which
tells what these cost and gain. The photos of a fixed camera and the drawings contain no duplicates.
"""

from __future__ import annotations

import collections
import math
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import scenelearn as sl
from scenelearn.data import Audit, _near_duplicates
from scenelearn.finetune._device import environment
from tests.bench._common import add_out, bench_parser, write_json
from tests.helpers.similar_photos import (
    MORE_CHANGES,
    drawn_digit,
    plain_shape,
    plant,
    put_drawings,
    put_parts,
)

_PLANTED = 640


@contextmanager
def without_colors() -> Iterator[None]:
    """Audits that compare only edges and texture, with the thresholds that suit this."""
    off = {"_MAX_DIFFERENCE": math.inf, "_MAX_GAIN": math.inf, "_LARGE_SERIES": math.inf}
    off |= {"_SERIES": math.inf, "_ALIKE": 0.85, "_SAME": 0.85, "_NEAR": 0.7}
    with mock.patch.multiple(_near_duplicates, **off):
        yield


def pairs_of(audit: Audit) -> set[tuple[str, str]]:
    """All pairs of photos in the same group."""
    paths = audit.photos.paths
    groups = [sorted(paths[k] for k in group) for group in audit.near_duplicates]
    return {(a, b) for group in groups for k, a in enumerate(group) for b in group[k + 1 :]}


def measure_half(photos: list[Path], root: Path) -> list[dict[str, Any]]:
    """Recall and precision among the photos of one half and their copies."""
    for number, path in enumerate(photos):
        link = root / path.parent.name / f"{number}{path.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    planted = plant(sorted(root.rglob("*.*")), root, _PLANTED, MORE_CHANGES)
    scanned = sl.scan(root)
    rows = []
    for step in ("without colors", "with colors"):
        start = time.process_time()
        with without_colors() if step == "without colors" else mock.MagicMock():
            audit = sl.audit(scanned)
        seconds = time.process_time() - start
        group = dict(zip(scanned.paths, audit.groups.tolist(), strict=True))
        counts: collections.Counter[str] = collections.Counter()
        for new, (old, change) in planted.items():
            counts[change] += group[new] == group[old]
        same = {frozenset((new, old)) for new, (old, _) in planted.items()}
        others = sorted(pair for pair in pairs_of(audit) if frozenset(pair) not in same)
        found, each = counts.total(), collections.Counter(change for _, change in planted.values())
        rows.append(
            {
                "audit": step,
                "photos": len(scanned),
                "planted": len(planted),
                "recall": found / len(planted),
                "precision": found / (found + len(others)),
                "other_pairs": len(others),
                "recall_by_change": {name: counts[name] / each[name] for name in MORE_CHANGES},
                "cpu_seconds": round(seconds, 1),
            }
        )
        print(rows[-1], others[:9], flush=True)
    return rows


def measure_series(name: str, folder: Path) -> dict[str, Any]:
    """How many photos of a series are grouped or quarantined."""
    row: dict[str, Any] = {"series": name}
    for step in ("without colors", "with colors"):
        with without_colors() if step == "without colors" else mock.MagicMock():
            audit = sl.audit(folder)
        row["photos"] = len(audit.photos)
        row[step] = {
            "grouped": sum(map(len, audit.near_duplicates)),
            "quarantined": len(audit.quarantine),
        }
    print(row, flush=True)
    return row


def main() -> None:
    """Measure both halves and all series."""
    parser = bench_parser("near_duplicates", __doc__)
    parser.add_argument("--photos", metavar="FOLDER", type=Path, required=True)
    add_out(parser, "near_duplicates")
    options = parser.parse_args()
    photos = sorted(path.resolve() for path in options.photos.rglob("*.*"))
    random.Random(0).shuffle(photos)
    halves = {}
    for k, name in enumerate(("thresholds chosen on", "judged on")):
        with tempfile.TemporaryDirectory() as root:
            halves[name] = measure_half(photos[k::2], Path(root, "photos"))
    with tempfile.TemporaryDirectory() as root:
        series = [
            measure_series("inspected part", put_parts(Path(root, "part"), 60)),
            measure_series("inspected part, 640 px", put_parts(Path(root, "large"), 60, px=640)),
            measure_series("inspected part, noisy", put_parts(Path(root, "noisy"), 60, noise=8)),
            measure_series("plain shapes", put_drawings(Path(root, "s"), plain_shape, 80, 4)),
            measure_series("drawn digits", put_drawings(Path(root, "d"), drawn_digit, 200, 10)),
        ]
    write_json(
        options.out,
        {
            "command": "python -m tests.bench.near_duplicates --photos FOLDER",
            "environment": environment() | {"numpy": np.__version__},
            "halves": halves,
            "series": series,
        },
    )


if __name__ == "__main__":
    main()
