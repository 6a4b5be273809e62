"""Runs to compare: fits, or the result.json files in their reports."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn._checks import check_path
from scenelearn._json import table_from_json
from scenelearn.errors import ArgumentError
from scenelearn.metrics import Comparison, Evaluation, compare, evaluate
from scenelearn.metrics._inputs import reorder_columns
from scenelearn.metrics._significance import holm

_RESULT_FILES = ("result.json", "report/result.json")  # in a report, in a `scenelearn fit` folder
_MAX_BYTES = 512 * 2**20  # 20,000 test photos with 1,000 classes take a quarter of it
_MAX_RUNS_ALL_PAIRS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """What a comparison needs of a fit.

    Attributes:
        name: its name on the page.
        evaluation: its metrics, recomputed from the saved test probabilities.
        predictions: content hash of each test photo to its true class and its probabilities.
        settings: the arguments of the fit.
        environment: versions, hardware and memory.
        kept: "linear probe" or "fine-tuned".
        seconds: duration of the fit.
        phases: duration of each phase, in seconds.
        page: the page of its report, if it was loaded from one.
    """

    name: str
    evaluation: Evaluation
    predictions: dict[str, tuple[str, npt.NDArray[np.float64]]]
    settings: dict[str, Any]
    environment: dict[str, str]
    kept: str
    seconds: float
    phases: dict[str, float]
    page: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two runs, compared on the test photos that they share.

    Attributes:
        a: index of the first run.
        b: index of the second run.
        comparison: the comparison; None if they share no test photos or their classes differ.
        adjusted_p_value: its p-value, adjusted for the number of pairs.
        same_photos: whether both have the same test photos.
    """

    a: int
    b: int
    comparison: Comparison | None
    adjusted_p_value: float
    same_photos: bool

    @property
    def is_significant(self) -> bool:
        """Whether the two accuracies differ significantly, at a level of 5%."""
        return self.adjusted_p_value < 0.05


def load_runs(results: Mapping[str, Any] | Iterable[Any] | os.PathLike[str]) -> list[Run]:
    """Load the runs to compare.

    Args:
        results: at least two fits, or paths of result.json files or of folders that contain one;
            as a mapping from names, as a list, or a single path. Without names, a folder without
            a result.json stands for all reports in it.

    Raises:
        ArgumentError: if there are fewer than two, or one is something else.
    """
    if isinstance(results, Mapping):
        named = [(str(name), result) for name, result in results.items()]
    else:
        several = [results] if isinstance(results, str | bytes | os.PathLike) else results
        named = [(_default_name(result, k), result) for k, result in enumerate(several, start=1)]
        named = [each for name, result in named for each in _runs_in(name, result)]
    if len(named) < 2:
        raise ArgumentError(
            f"`result` must contain at least two fits to compare. Received: {len(named)}. "
            "Pass another one, or call sl.report(fit, folder) for the report of a single fit."
        )
    used: set[str] = set()
    runs = []
    for name, result in named:
        unique = name if name not in used else f"{name} ({len(used) + 1})"
        used.add(unique)
        runs.append(_load_run(unique, result))
    return runs


def compare_pairs(runs: list[Run]) -> list[Pair]:
    """Compare all pairs of runs; with more than five runs, only the best with each other one."""
    best = max(range(len(runs)), key=lambda k: runs[k].evaluation.accuracy.value)
    if len(runs) <= _MAX_RUNS_ALL_PAIRS:
        pairs = [(a, b) for a in range(len(runs)) for b in range(a + 1, len(runs))]
    else:
        pairs = [(best, b) for b in range(len(runs)) if b != best]
    comparisons = [(a, b, _compare(runs[a], runs[b])) for a, b in pairs]
    p_values = [c.p_value for _, _, c in comparisons if c]
    n_others = len(runs) * (len(runs) - 1) // 2 - len(pairs)  # the best was chosen among all pairs
    adjusted = iter(holm([*p_values, *[1.0] * n_others])[: len(p_values)])
    return [
        Pair(
            a=a,
            b=b,
            comparison=c,
            adjusted_p_value=float(next(adjusted)) if c else float("nan"),
            same_photos=c is not None
            and c.n_photos == len(runs[a].predictions) == len(runs[b].predictions),
        )
        for a, b, c in comparisons
    ]


def _compare(a: Run, b: Run) -> Comparison | None:
    """Compare two runs on the photos with the same content and class."""
    names = a.evaluation.class_names
    if set(names) != set(b.evaluation.class_names):
        return None
    first, second = a.predictions, b.predictions
    shared = [hash_ for hash_ in first if hash_ in second and first[hash_][0] == second[hash_][0]]
    if not shared:
        return None
    labels = [names.index(first[hash_][0]) for hash_ in shared]
    prob_a, prob_b = (np.stack([each[hash_][1] for hash_ in shared]) for each in (first, second))
    return compare(labels, prob_a, reorder_columns(prob_b, b.evaluation.class_names, names), names)


def _default_name(result: Any, number: int) -> str:
    """The name of the folder with the report, or a number."""
    if not isinstance(result, str | os.PathLike):
        return f"run {number}"
    path = check_path("result", result).resolve()
    folder = path.parent if path.name == "result.json" else path
    return (folder.parent if folder.name == "report" else folder).name or f"run {number}"


def _runs_in(name: str, result: Any) -> list[tuple[str, Any]]:
    """The result itself; or, for a folder without one, the reports in it by their names."""
    if not isinstance(result, str | os.PathLike) or not (path := Path(result)).is_dir():
        return [(name, result)]
    if any((path / file).is_file() for file in _RESULT_FILES):
        return [(name, result)]
    files = [f for f in sorted(path.rglob("result.json")) if _is_run(f)]
    return [(_default_name(file, 1), file) for file in files] or [(name, result)]


def _is_run(file: Path) -> bool:
    """Whether a file is the result of a fit, or a damaged one in a report, which is an error."""
    try:
        if file.stat().st_size <= _MAX_BYTES:
            value = json.loads(file.read_text(encoding="utf-8"))
            return isinstance(value, dict) and "splits" in value
    except (OSError, ValueError, RecursionError):
        pass
    return file.with_name("split.csv").is_file()


def _load_run(name: str, result: Any) -> Run:
    if hasattr(result, "evaluation"):  # a FitResult, without importing Keras
        return _parse(name, result.to_json(), "a fit")
    if not isinstance(result, str | os.PathLike):
        raise ArgumentError(
            "`result` must come from `fit` or `audit`, or contain fits or the paths of their "
            f"reports. Received: {type(result).__name__}. Pass e.g. [fit, 'older/report']."
        )
    path = check_path("result", result)
    file = next((path / name_ for name_ in _RESULT_FILES if (path / name_).is_file()), path)
    try:
        if file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES // 2**20} MiB")
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _invalid_result(file, str(error) or type(error).__name__) from None
    return _parse(name, value, file, file.with_name("index.html"))


def _parse(name: str, value: Any, source: object, page: Path | None = None) -> Run:
    """A run from the output of `FitResult.to_json`, with everything that is used checked."""
    try:
        names = tuple(map(str, value["splits"]["class_names"]))
        hashes = {photo["path"]: str(photo["hash"]) for photo in value["splits"]["test"]}
        probabilities = table_from_json([row["probabilities"] for row in value["test"]])
        position = {name: k for k, name in enumerate(names)}
        labels = [position[row["label"]] for row in value["test"]]
        return Run(
            name=name,
            evaluation=evaluate(labels, probabilities, names),
            predictions={
                hashes[row["path"]]: (str(row["label"]), row_probabilities)
                for row, row_probabilities in zip(value["test"], probabilities, strict=True)
            },
            settings=dict(value["settings"]),
            environment={str(key): str(fact) for key, fact in value["environment"].items()},
            kept=str(value["kept"]),
            seconds=float(value["seconds"]),
            phases={str(phase["name"]): float(phase["seconds"]) for phase in value["phases"]},
            page=page if page and page.is_file() else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _invalid_result(source, f"{type(error).__name__}: {error}") from None


def _invalid_result(source: object, received: str) -> ArgumentError:
    return ArgumentError(
        f"{str(source)!r} must be the result.json of a report, or a folder that contains one. "
        f"Received: {received[:300]}. Write the report of that fit again."
    )
