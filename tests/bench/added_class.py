"""A class is added: seconds of a new linear probe, with the cached features and without.

    python -m tests.bench.added_class --photos FOLDER --weights FILE
        [--out docs/results/added_class.json]

A linear probe is fitted to all classes but the last, with an empty cache folder; then to all
classes, with the cache that this fit left, and with an empty one. Each in a new process; the
seconds are those of `scan`, `split` and `fit`. Three minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import scenelearn as sl
from scenelearn.finetune._device import environment
from tests.bench._common import add_network_options, add_out, bench_parser, write_json


def fit(options: Any) -> dict[str, Any]:
    """Fit a linear probe to a folder, and measure the seconds."""
    start = time.perf_counter()
    splits = sl.split(sl.scan(options.photos), seed=0)
    result = sl.fit(
        splits,
        backbone=options.backbone,
        weights=options.weights,
        image_px=options.image_px,
        epochs=0,
        verbose=False,
    )
    return {
        "seconds": time.perf_counter() - start,
        "n_photos": len(splits),
        "n_classes": splits.photos.n_classes,
        "test_accuracy": result.evaluation.accuracy.value,
        "splits": {row["path"]: row["split"] for row in splits.to_rows()},
        "environment": environment(),
    }


def main() -> None:
    """Fit three times, each in a process of its own."""
    parser = bench_parser("added_class", __doc__)
    add_network_options(parser)
    add_out(parser, "added_class")
    parser.add_argument("--worker", metavar="FILE", help="used internally")
    options = parser.parse_args()
    if options.worker:
        write_json(options.worker, fit(options))
        return
    with tempfile.TemporaryDirectory(prefix="scenelearn-added-") as temporary:
        folder, file = Path(temporary, "photos"), Path(temporary, "run.json")

        def run(name: str, cache: str) -> dict[str, Any]:
            command = [sys.executable, "-m", "tests.bench.added_class", *sys.argv[1:]]
            command += ["--photos", str(folder), "--worker", str(file)]
            variables = os.environ | {"SCENELEARN_CACHE": str(Path(temporary, cache))}
            subprocess.run(command, env=variables, check=True)
            row = {"name": name, **json.loads(file.read_text())}
            print({key: row[key] for key in ("name", "seconds", "test_accuracy")}, flush=True)
            return row

        *_, last = classes = sorted(
            path for path in Path(options.photos).iterdir() if path.is_dir()
        )
        for path in classes[:-1]:
            shutil.copytree(path, folder / path.name)
        rows = [run("before", "first")]
        shutil.copytree(last, folder / last.name)
        rows += [run("added, cached features", "first"), run("added, empty cache", "second")]
        before, after = (row["splits"] for row in rows[:2])
        moved = sum(after[path] != split for path, split in before.items())
        table = {
            "command": "python -m tests.bench.added_class",
            "environment": rows[0]["environment"],
            "network": {"backbone": options.backbone, "image_px": options.image_px},
            "photos_in_another_split": moved,
            "rows": [
                {key: row[key] for key in row if key not in ("splits", "environment")}
                for row in rows
            ],
        }
        write_json(options.out, table)


if __name__ == "__main__":
    main()
