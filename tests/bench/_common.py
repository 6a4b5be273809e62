"""What several benches share: options, files of results, and subsets of a split."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import scenelearn as sl
from scenelearn._io import atomic_write
from scenelearn.data import Photos, Splits

_Z95 = 1.959963984540054
RESULTS = Path("docs", "results")


def bench_parser(name: str, document: str | None) -> argparse.ArgumentParser:
    """A parser whose help has the first line of the bench's docstring."""
    summary = (document or "").partition("\n")[0]
    return argparse.ArgumentParser(prog=f"python -m tests.bench.{name}", description=summary)


def add_network_options(
    parser: argparse.ArgumentParser, *, px: int = 160, several: bool = False
) -> None:
    """Add --photos, --backbone (a list if `several`), --weights and --image-px."""
    parser.add_argument(
        "--photos", metavar="FOLDER", required=True, help="photos, one subfolder per class"
    )
    parser.add_argument(
        "--backbone", metavar="NETWORK", nargs="+" if several else None,
        help="network (default: the one of --weights)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", metavar="WEIGHTS", default="imagenet",
        help="a weights file, or imagenet, scenelearn (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--image-px", metavar="N", type=int, default=px,
        help="height and width of the input image in pixels (default: %(default)s)",
    )  # fmt: skip


def add_out(parser: argparse.ArgumentParser, name: str) -> None:
    """Add --out, whose default is a file in docs/results."""
    default = str(RESULTS / f"{name}.json")
    parser.add_argument(
        "--out", metavar="FILE", default=default, help="JSON file to write (default: %(default)s)"
    )


def start_on_features(name: str, document: str | None) -> tuple[argparse.Namespace, Photos, Any]:
    """Parse the options of a bench on the features of a frozen backbone: networks, seeds, --out.

    Returns:
        The options, the photos, and their features (n, n_features) float32.
    """
    parser = bench_parser(name, document)
    add_network_options(parser)
    parser.add_argument("--seeds", metavar="N", type=int, nargs="+", default=[0, 1, 2])
    add_out(parser, name)
    options = parser.parse_args()
    photos = sl.scan(options.photos)
    features = sl.finetune.extract_features(
        photos, backbone=options.backbone, weights=options.weights, image_px=options.image_px
    )
    return options, photos, features


def write_json(path: str | Path, value: Any) -> None:
    """Write results; an interruption leaves the older file."""
    with atomic_write(Path(path)) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def new_runs(
    out: str | Path,
    table: dict[str, Any],
    cases: Iterable[Mapping[str, Any]],
    *,
    show: Sequence[str],
    counts: Callable[[dict[str, Any]], bool] = lambda _: True,
) -> Iterator[dict[str, Any]]:
    """The cases of which a file of results has no run yet, each to be completed by its results.

    When the next one is asked for, the run is printed and the file is written. A file whose runs
    have other "settings" ends the bench: its runs would be taken for those asked for.

    Args:
        out: the file.
        table: what it says besides "runs".
        cases: what identifies each run.
        show: the keys to print.
        counts: which runs of the file count.
    """
    file = json.loads(Path(out).read_text()) if Path(out).exists() else {"runs": []}
    runs, before = file["runs"], file.get("settings")
    if runs and before != table.get("settings"):
        raise SystemExit(
            f"{out} has runs with {before}, not {table.get('settings')}. Pass another --out."
        )
    done = [run for run in runs if counts(run)]
    for case in cases:
        if any(all(run[key] == case[key] for key in case) for run in done):
            continue
        run = dict(case)
        yield run
        runs.append(run)
        print({key: run[key] for key in show}, flush=True)
        write_json(out, table | {"runs": runs})


def settings_of(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The network of `add_network_options`, and further options, by name."""
    file = Path(options.weights).name
    settings = {"backbone": options.backbone, "weights": file, "image_px": options.image_px}
    return settings | {name: getattr(options, name) for name in names}


def commit() -> str:
    """The commit of this repository; empty outside one."""
    words = ["git", "rev-parse", "--short", "HEAD"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    return result.stdout.strip()


def require_complete(fit: Any) -> None:
    """End the bench if a signal stopped the fit.

    `fit` then returns the best classifier so far, which is right for a user and wrong in a table
    of results.
    """
    if fit.stopped.startswith("SIG"):
        raise SystemExit(f"The fit was stopped ({fit.stopped}): its result is not written.")


def take_per_class(splits: Splits, per_class: int, seed: int) -> Splits:
    """The same split with this many training photos per class; smaller subsets are nested."""
    shuffled = np.random.default_rng([seed, 0]).permutation(splits.train)
    labels = splits.photos.labels[shuffled]
    chosen = [shuffled[labels == label][:per_class] for label in np.unique(labels)]
    fewest = min(map(len, chosen))
    if fewest < per_class:
        raise SystemExit(f"A class has only {fewest} training photos, not {per_class}.")
    return dataclasses.replace(splits, train=np.sort(np.concatenate(chosen)))


def take_few(splits: Splits, counts: int | Sequence[int], seed: int) -> Splits:
    """A split with this many photos per class, or of each class; one sixth of them validate."""
    others = np.concatenate([splits.train, splits.validation])
    shuffled = np.random.default_rng([seed, np.max(counts)]).permutation(others)
    labels = splits.photos.labels[shuffled]
    train, validation = [], []
    for label, n in enumerate(np.broadcast_to(counts, splits.photos.n_classes).tolist()):
        chosen = shuffled[labels == label][:n]
        if len(chosen) < n:
            raise SystemExit(f"A class has only {len(chosen)} photos to train on, not {n}.")
        n_validation = max(1, round(n / 6))
        validation.append(chosen[:n_validation])
        train.append(chosen[n_validation:])
    return dataclasses.replace(
        splits,
        train=np.sort(np.concatenate(train)),
        validation=np.sort(np.concatenate(validation)),
    )


def gain(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, float]:
    """The gain in accuracy of the first of each pair of runs, on the same test photos.

    The mean of (first is correct) - (second is correct), with its 95% interval from the spread
    of these differences over photos, all seeds pooled.
    """
    correct = [[np.array(list(run["test_correct"])) == "1" for run in pair] for pair in pairs]
    difference = np.concatenate([a.astype(float) - b for a, b in correct])
    mean = float(difference.mean())
    half = _Z95 * float(difference.std()) / math.sqrt(len(difference))
    return {"test_gain": mean, "low": mean - half, "high": mean + half, "n": len(difference)}


def correct_digits(fit: Any) -> str:
    """For each test photo of a fit "1" if its prediction is correct, otherwise "0"."""
    labels = fit.splits.photos.labels[fit.test_indices]
    correct = fit.test_probabilities.argmax(axis=1) == labels
    return "".join("01"[int(value)] for value in correct)
