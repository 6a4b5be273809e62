"""Planted label errors: how many of the first suggestions are right, next to cleanlab's.

    python -m tests.bench.label_errors --photos FOLDER --weights FILE [--seeds 0 1 2]
        [--out docs/results/label_errors.json]

Photos are split into training photos and unseen ones (30%, without any duplicate of the former).
2, 5 and 10% of the training labels are replaced by another class, drawn uniformly. Suggestions are

- scenelearn: the label issues that `sl.audit(photos, features=features)` lists;
- cleanlab, default: `find_label_issues`, ranked by self-confidence; its default of every other
  option;
- cleanlab, best of its rankings: of `find_label_issues` with each filter and ranking, and
  `get_label_quality_scores` with each method, the one with the highest mean precision over all
  runs. It is chosen in hindsight, so it can be no worse than what its users get.

All are given the same out-of-fold probabilities: those of `sl.audit`, linear probes on the features
in five folds of all training photos. The labels of the photos have errors of their own, which count
as wrong suggestions.

Accuracy is that of a linear probe on the unseen photos: with the errors; after a person has looked
at the first 100 suggestions of each method, or at all of scenelearn, and restored the labels that
were replaced; and with no planted error. Five minutes, once the features are cached.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import numpy.typing as npt

import scenelearn as sl
from scenelearn.data._label_issues import find_label_issues as find_our_issues
from scenelearn.data._label_issues import predict_out_of_fold
from scenelearn.finetune._device import environment
from tests.bench._common import start_on_features, write_json

RATES = (0.02, 0.05, 0.1)
FIRST = 100
FILTERS = ("prune_by_noise_rate", "prune_by_class", "both", "confident_learning")
SCORES = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")
OURS, DEFAULT = "scenelearn", "cleanlab prune_by_noise_rate self_confidence"

Indices = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int32]
Table = npt.NDArray[np.float32]


def plant(labels: Labels, n_classes: int, rate: float, seed: int) -> tuple[Labels, Indices]:
    """Labels of which a fraction is wrong, and where."""
    rng = np.random.default_rng([seed, round(1000 * rate)])
    wrong = rng.choice(len(labels), round(rate * len(labels)), replace=False)
    planted = labels.copy()
    planted[wrong] = (labels[wrong] + rng.integers(1, n_classes, len(wrong))) % n_classes
    return planted, wrong


def cleanlab_suggestions(labels: Labels, probabilities: Any) -> dict[str, Indices]:
    """The suggestions of each filter and ranking of cleanlab, and of its rankings alone."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    found = {
        f"cleanlab {chosen} {score}": find_label_issues(
            labels, probabilities, filter_by=chosen, return_indices_ranked_by=score, n_jobs=1
        )
        for chosen, score in itertools.product(FILTERS, SCORES)
    }
    for score in SCORES:
        quality = get_label_quality_scores(labels, probabilities, method=score)
        found[f"cleanlab {score}"] = np.argsort(quality, kind="stable")
    return found


def accuracy(train: tuple[Table, Labels, Indices], test: tuple[Table, Labels], n: int) -> float:
    """Accuracy on unseen photos of a linear probe with the best L2 penalty."""
    features, labels, groups = train
    probe = sl.finetune.cross_validate_l2(features, labels, n, groups=groups).probe
    return float((probe.logits(test[0]).argmax(axis=1) == test[1]).mean())


def run(
    train: tuple[Table, Labels, Indices], test: tuple[Table, Labels], rate: float, seed: int
) -> dict[str, Any]:
    """Plant errors, suggest, and mend."""
    x, labels, groups = train
    n_classes = int(labels.max()) + 1
    planted, wrong = plant(labels, n_classes, rate, seed)
    start = time.perf_counter()
    ours = np.array([issue.position for issue in find_our_issues(x, planted, groups)])
    seconds = time.perf_counter() - start
    probabilities = predict_out_of_fold(x, planted, groups)
    found = {OURS: ours, **cleanlab_suggestions(planted, probabilities)}

    def accuracy_after(looked_at: Indices) -> float:
        fixed = planted.copy()
        fixed[looked_at] = labels[looked_at]
        return accuracy((x, fixed, groups), test, n_classes)

    return {
        "rate": rate,
        "seed": seed,
        "n_train": len(labels),
        "n_test": len(test[1]),
        "n_planted": len(wrong),
        "seconds": seconds,
        "precision_first_100": {
            name: float(np.isin(positions[:FIRST], wrong).mean())
            for name, positions in found.items()
        },
        "n_suggestions": {name: len(found[name]) for name in (OURS, DEFAULT)},
        "precision": {name: float(np.isin(found[name], wrong).mean()) for name in (OURS, DEFAULT)},
        "recall": {name: float(np.isin(wrong, found[name]).mean()) for name in (OURS, DEFAULT)},
        "accuracy": {
            "planted": accuracy_after(ours[:0]),
            f"first {FIRST}, {OURS}": accuracy_after(ours[:FIRST]),
            f"first {FIRST}, cleanlab": accuracy_after(found[DEFAULT][:FIRST]),
            f"all, {OURS}": accuracy_after(ours),
            "no planted errors": accuracy_after(wrong),
        },
    }


def summarize(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean over seeds for each rate; of cleanlab its default, and what is best over all."""

    def precision(name: str, chosen: list[dict[str, Any]]) -> float:
        return float(np.mean([run["precision_first_100"][name] for run in chosen]))

    best = max(
        (name for name in runs[0]["precision_first_100"] if name != OURS),
        key=lambda name: precision(name, runs),
    )
    rows = []
    for rate in sorted({run["rate"] for run in runs}):
        chosen = [run for run in runs if run["rate"] == rate]
        row: dict[str, Any] = {"rate": rate, "seeds": len(chosen)}
        for title, name in (("scenelearn", OURS), ("cleanlab", DEFAULT)):
            row[title] = {
                "precision_first_100": precision(name, chosen),
                **{
                    key: float(np.mean([run[key][name] for run in chosen]))
                    for key in ("n_suggestions", "precision", "recall")
                },
            }
        row["cleanlab, best ranking"] = {
            "name": best, "precision_first_100": precision(best, chosen)
        }  # fmt: skip
        row["accuracy"] = {
            step: float(np.mean([run["accuracy"][step] for run in chosen]))
            for step in chosen[0]["accuracy"]
        }
        rows.append(row)
    return rows


def main() -> None:
    """Run each seed and rate, and write the results so far."""
    options, photos, features = start_on_features("label_errors", __doc__)
    all_groups = sl.audit(photos).groups
    runs = []
    for seed in options.seeds:
        splits = sl.split(photos, validation=0, test=0.3, seed=seed, groups=all_groups)
        train = (features[splits.train], photos.labels[splits.train], all_groups[splits.train])
        test = (features[splits.test], photos.labels[splits.test])
        for rate in RATES:
            runs.append(run(train, test, rate, seed))
            print(summarize(runs[-1:]), flush=True)
            write_json(
                options.out,
                {
                    "command": "python -m tests.bench.label_errors",
                    "environment": environment(),
                    "photos": {"n": len(photos), "classes": list(photos.class_names)},
                    "network": {"backbone": options.backbone, "image_px": options.image_px},
                    "summary": summarize(runs),
                    "runs": runs,
                },
            )


if __name__ == "__main__":
    main()
