"""Runs to compare: fits, or the result.json files that their reports hold."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scenelearn.errors import ArgumentError
from scenelearn.metrics import Comparison, Evaluation, compare, evaluate, holm, reorder

_WHERE = ("result.json", "report/result.json")  # in a report's folder, in that of `scenelearn fit`
_MOST_BYTES = 512 * 2**20  # 100,000 test photos of 100 classes take half of it
_MOST_RUNS_ALL_PAIRS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """What is compared of a fit.

    Attributes:
        name: what it is called on the page.
        evaluation: what it reaches on its test photos, from the probabilities that were kept.
        test: for the content of each test photo its true class and its probabilities.
        settings: the arguments of the fit.
        environment: what it ran on, and the memory that it took.
        kept: "solved head" or "fine-tuned".
        seconds: of the whole fit.
        phases: the time of each of its parts, in seconds.
    """

    name: str
    evaluation: Evaluation
    test: dict[str, tuple[str, npt.NDArray[np.float64]]]
    settings: dict[str, Any]
    environment: dict[str, str]
    kept: str
    seconds: float
    phases: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two runs on the test photos that they share.

    Attributes:
        a: the number of the first run.
        b: the number of the second.
        comparison: both on the same photos; None where they share none, or classes differ.
        corrected: its p-value, corrected for the number of pairs.
        is_whole: whether the photos of both were all shared.
    """

    a: int
    b: int
    comparison: Comparison | None
    corrected: float
    is_whole: bool


def runs_of(results: Mapping[str, Any] | Iterable[Any]) -> list[Run]:
    """Read what is to be compared.

    Args:
        results: at least two fits, or paths of result.json or of a folder that holds it; by name,
            or in a list.

    Raises:
        ArgumentError: if there are fewer than two, or one is neither.
    """
    if isinstance(results, Mapping):
        given = [(str(name), one) for name, one in results.items()]
    else:
        several = [results] if isinstance(results, str | bytes) else results
        given = [(_name(one, k), one) for k, one in enumerate(several, start=1)]
    if len(given) < 2:
        raise ArgumentError(
            f"`result` must hold at least two fits to compare. Received: {len(given)}. "
            "Pass another one; the page of a single fit is written by sl.report(fit, folder)."
        )
    taken: set[str] = set()
    runs = []
    for name, one in given:
        unique = name if name not in taken else f"{name} ({len(taken) + 1})"
        taken.add(unique)
        runs.append(_run(unique, one))
    return runs


def pairs_of(runs: list[Run]) -> list[Pair]:
    """Each two of the runs; of more than five, the best with each other one."""
    best = max(range(len(runs)), key=lambda k: runs[k].evaluation.accuracy.value)
    if len(runs) <= _MOST_RUNS_ALL_PAIRS:
        numbers = [(a, b) for a in range(len(runs)) for b in range(a + 1, len(runs))]
    else:
        numbers = [(best, b) for b in range(len(runs)) if b != best]
    found = [(a, b, _compared(runs[a], runs[b])) for a, b in numbers]
    corrected = iter(holm([one.p_value for _, _, one in found if one]))
    return [
        Pair(
            a=a,
            b=b,
            comparison=one,
            corrected=float(next(corrected)) if one else float("nan"),
            is_whole=one is not None and one.n_photos == len(runs[a].test) == len(runs[b].test),
        )
        for a, b, one in found
    ]


def _compared(a: Run, b: Run) -> Comparison | None:
    """Both on the photos whose content and class they share."""
    names = a.evaluation.class_names
    if set(names) != set(b.evaluation.class_names):
        return None
    shared = [one for one in a.test if one in b.test and a.test[one][0] == b.test[one][0]]
    if not shared:
        return None
    labels = [names.index(a.test[one][0]) for one in shared]
    first, second = (np.stack([run.test[one][1] for one in shared]) for run in (a, b))
    return compare(labels, first, reorder(second, b.evaluation.class_names, names), names)


def _name(one: Any, number: int) -> str:
    """The name of the folder that the run's report is in."""
    if not isinstance(one, str | os.PathLike):
        return f"run {number}"
    path = Path(one).expanduser().resolve()
    folder = path.parent if path.name == "result.json" else path
    return (folder.parent if folder.name == "report" else folder).name or f"run {number}"


def _run(name: str, one: Any) -> Run:
    if hasattr(one, "evaluation"):  # a FitResult, without loading the room of networks
        return _read(name, one.to_json(), "a fit")
    if not isinstance(one, str | os.PathLike):
        raise ArgumentError(
            "`result` must come from `fit` or `audit`, or hold fits or the paths of their "
            f"reports. Received: {type(one).__name__}. Pass e.g. [fit, 'older/report']."
        )
    path = Path(one).expanduser()
    file = next((path / where for where in _WHERE if (path / where).is_file()), path)
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise ValueError("larger than any result")
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _no_result(file, str(error) or type(error).__name__) from None
    return _read(name, value, file)


def _read(name: str, value: Any, where: object) -> Run:
    """A run from `FitResult.to_json`, everything that is used of it checked."""
    try:
        names = tuple(map(str, value["splits"]["class_names"]))
        hashes = {one["path"]: str(one["hash"]) for one in value["splits"]["test"]}
        table = np.array([one["probabilities"] for one in value["test"]], np.float64)
        labels = [names.index(one["label"]) for one in value["test"]]
        return Run(
            name=name,
            evaluation=evaluate(labels, table, names),
            test={
                hashes[one["path"]]: (str(one["label"]), row)
                for one, row in zip(value["test"], table, strict=True)
            },
            settings=dict(value["settings"]),
            environment={str(key): str(one) for key, one in value["environment"].items()},
            kept=str(value["kept"]),
            seconds=float(value["seconds"]),
            phases={str(one["name"]): float(one["seconds"]) for one in value["phases"]},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _no_result(where, f"{type(error).__name__}: {error}") from None


def _no_result(where: object, received: str) -> ArgumentError:
    return ArgumentError(
        f"{str(where)!r} must be the result.json that the report of a fit holds, or a folder with "
        f"it. Received: {received[:300]}. Write the report of that fit again."
    )
