"""Try random input of every kind: each case ends with a correct result or an error of scenelearn.

    python -m tests.bench.fuzz [--cases 1000000] [--kinds images ...] [--seed 0] [--workers N]
        [--out FILE.json]
    python -m tests.bench.fuzz --kinds manifests --seed 0 --number 4711

Kinds: damaged images; manifests as CSV and Parquet; ZIP archives; bundles; arguments of the command
line; and environments, each in a process of its own. An untyped error, a message without what was
received, a warning, anything printed by the library, a traceback, another exit code than 0, 1 and
2, a crash, more than ten seconds for a damaged image, manifest or archive, and more than a gibibyte
for the damaged images are failures.

`--number` repeats one case. `--out` keeps what a file says of other kinds and seeds.
Exits with 1 if a case failed.
"""

from __future__ import annotations

import collections
import json
import os
import platform
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench._common import bench_parser, commit, write_json
from tests.bench.fuzz._kinds import KINDS, MAX_S, SHARES
from tests.bench.fuzz._processes import Part, run_cases

_MIN_CHUNK = 20  # cases for a process
_MAX_MIB = 1024  # of a process that decodes damaged images


def main(arguments: list[str] | None = None) -> int:
    """Try the cases; 1 if any failed."""
    parser = bench_parser("fuzz", __doc__)
    parser.add_argument(
        "--cases", type=int, default=1_000_000, help="in total (default: a million)"
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--number", type=int, help="repeat this case of one kind")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="number of processes")
    parser.add_argument("--out", metavar="FILE", help="JSON file to write")
    options = parser.parse_args(arguments)
    if options.number is not None:
        kind = options.kinds[0]
        numbers = range(options.number, options.number + 1)
        part = run_cases(KINDS[kind], MAX_S[kind], options.seed, numbers)
        print("\n".join(part.failures) or f"{part.kind}: {next(iter(part.outcomes))}")
        return 1 if part.failures else 0
    words = sys.argv[1:] if arguments is None else arguments
    command = " ".join(["python -m tests.bench.fuzz", *(Path(word).name for word in words)])
    names = ("scenelearn", "keras", "jax", "numpy", "pillow", "pyarrow")
    environment = {"python": platform.python_version(), "system": platform.system()}
    environment |= {name: version(name) for name in names} | {"commit": commit()}
    run = {"command": command, "seed": options.seed, "environment": environment}
    runs: list[dict[str, Any]] = []
    if options.out and Path(options.out).is_file():
        runs = json.loads(Path(options.out).read_text())["runs"]
    shares = sum(map(SHARES.__getitem__, options.kinds))
    for kind in options.kinds:
        n = max(1, round(options.cases * SHARES[kind] / shares))
        found = _collect(kind, list(_parts(kind, n, options.seed, options.workers))) | run
        same = (kind, options.seed)
        runs = [each for each in runs if (each["kind"], each["seed"]) != same] + [found]
        if options.out:
            write_json(options.out, _summarize(runs))
    print(json.dumps(_summarize(runs)))
    return 1 if any(each["failures"] for each in runs) else 0


def _parts(kind: str, n: int, seed: int, n_workers: int) -> Iterator[Part]:
    """Try the cases of a kind, divided among processes."""
    size = max(-(-n // (4 * n_workers)), min(n, _MIN_CHUNK))
    with ThreadPoolExecutor(n_workers) as pool:  # each job starts a process
        jobs = [
            pool.submit(run_cases, KINDS[kind], MAX_S[kind], seed, range(k, min(k + size, n)))
            for k in range(0, n, size)
        ]
        for job in as_completed(jobs):
            part = job.result()
            for failure in part.failures[:20]:
                print(failure, file=sys.stderr, flush=True)
            yield part


def _collect(kind: str, parts: list[Part]) -> dict[str, Any]:
    """What came of the cases of one kind."""
    outcomes = sum((part.outcomes for part in parts), collections.Counter[str]())
    failures = [failure for part in parts for failure in part.failures]
    peak_mib = max(part.peak_kib for part in parts) // 1024
    if kind == "images" and peak_mib > _MAX_MIB:
        failures.append(f"images: a peak of {peak_mib} MiB")
    return {
        "kind": kind,
        "cases": outcomes.total(),
        "failures": len(failures),
        "messages": failures[:20],
        "outcomes": dict(outcomes.most_common()),
        "slowest_s": round(max(part.slowest_s for part in parts), 3),
        "seconds": round(sum(part.seconds for part in parts), 1),
        "peak_mib": peak_mib,
    }


def _summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """All runs, in the order of their kinds, and their sums."""
    total = {key: sum(run[key] for run in runs) for key in ("cases", "failures")}
    order = {kind: k for k, kind in enumerate(KINDS)}
    return total | {"runs": sorted(runs, key=lambda run: (order[run["kind"]], run["seed"]))}


if __name__ == "__main__":
    sys.exit(main())
