"""Planted label errors: how many of the first suggestions are right, next to cleanlab's.

    python -m tests.bench.label_errors --photos FOLDER --weights FILE [--seeds 0 1 2]
        [--out docs/results/label_errors.json]

Photos are split into training photos and unseen ones (30%, without any duplicate of the former).
2, 5 and 10% of the training labels are replaced by another class, drawn uniformly. Suggestions of
label issues are ranked by

- scenelearn: what `sl.audit(photos, features=features).label_issues` are;
- cleanlab: `find_label_issues`, ranked by self-confidence, and `get_label_quality_scores`;
- the margin: as scenelearn ranks, but from the probabilities that cleanlab is given.

cleanlab and the margin are given the same out-of-fold probabilities: of a linear probe on the same
features, five folds, with the L2 penalty that cross-validation chooses. The labels of the photos
have errors of their own, which count as wrong suggestions.

Accuracy is that of a linear probe on the unseen photos: with the errors; after a person has looked
at the first 100 suggestions of scenelearn, or at all, and restored the labels that were replaced;
and with no planted error. Two minutes, once the features are cached.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from scipy.special import softmax

import scenelearn as sl
from scenelearn.data._label_issues import find_label_issues as find_our_issues
from scenelearn.finetune._device import environment
from scenelearn.finetune._linear_probe import assign_folds
from tests.bench._common import start_on_features, write_json

RATES = (0.02, 0.05, 0.1)
FIRST = 100

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


def out_of_fold(features: Table, labels: Labels, groups: Indices, n_classes: int) -> Table:
    """Each photo's probabilities by a linear probe that was fitted without its fold."""
    chosen = sl.finetune.cross_validate_l2(features, labels, n_classes, groups=groups)
    folds = assign_folds(labels, groups)
    table = np.zeros((len(labels), n_classes), np.float32)
    for fold in range(5):
        inside = folds == fold
        probe = sl.finetune.fit_linear_probe(
            features[~inside], labels[~inside], n_classes, chosen.probe.l2
        )
        table[inside] = predict(probe, features[inside])
    never = folds < 0
    if never.any():
        table[never] = predict(chosen.probe, features[never])
    return table


def predict(probe: Any, features: Table) -> Table:
    """Probabilities of a linear probe."""
    return np.asarray(softmax(features @ probe.kernel + probe.bias, axis=1), np.float32)


def accuracy(train: tuple[Table, Labels, Indices], test: tuple[Table, Labels], n: int) -> float:
    """Accuracy on unseen photos of a linear probe with the best L2 penalty."""
    features, labels, groups = train
    probe = sl.finetune.cross_validate_l2(features, labels, n, groups=groups).probe
    return float((predict(probe, test[0]).argmax(axis=1) == test[1]).mean())


def main() -> None:
    """Plant, suggest, mend and measure."""
    options, photos, features = start_on_features("label_errors", __doc__)
    all_groups, n_classes = sl.audit(photos).groups, photos.n_classes
    runs = []
    for seed in options.seeds:
        splits = sl.split(photos, validation=0, test=0.3, seed=seed, groups=all_groups)
        train, labels = splits.train, photos.labels[splits.train]
        x, groups = features[train], all_groups[train]
        test = (features[splits.test], photos.labels[splits.test])
        clean = accuracy((x, labels, groups), test, n_classes)
        for rate in RATES:
            planted, wrong = plant(labels, n_classes, rate, seed)
            table = out_of_fold(x, planted, groups, n_classes)
            ours = np.array([i.position for i in find_our_issues(x, planted, groups)])
            others = table.copy()
            others[np.arange(len(table)), planted] = -1
            margin = others.max(axis=1) - table[np.arange(len(table)), planted]
            issues = find_label_issues(
                planted, table, return_indices_ranked_by="self_confidence", n_jobs=1
            )
            rankings = {
                "scenelearn": ours,
                "margin": np.argsort(-margin, kind="stable"),
                "cleanlab find_label_issues": issues,
                "cleanlab quality scores": np.argsort(
                    get_label_quality_scores(planted, table), kind="stable"
                ),
            }
            mended = {}
            for name, n in (("first 100", FIRST), ("all", len(ours))):
                seen = ours[:n]
                fixed = planted.copy()
                fixed[seen] = labels[seen]
                mended[name] = accuracy((x, fixed, groups), test, n_classes)
            run = {
                "rate": rate,
                "seed": seed,
                "n_train": len(train),
                "n_test": len(splits.test),
                "n_planted": len(wrong),
                "precision_first_100": {
                    name: float(np.isin(found[:FIRST], wrong).mean())
                    for name, found in rankings.items()
                },
                "n_suggestions": {"scenelearn": len(ours), "cleanlab": len(issues)},
                "recall": {
                    "scenelearn": float(np.isin(wrong, ours).mean()),
                    "cleanlab": float(np.isin(wrong, issues).mean()),
                },
                "accuracy": {
                    "planted": accuracy((x, planted, groups), test, n_classes),
                    "after first 100": mended["first 100"],
                    "after all suggestions": mended["all"],
                    "no planted errors": clean,
                },
            }
            print(run, flush=True)
            runs.append(run)
            write_json(
                options.out,
                {
                    "command": "python -m tests.bench.label_errors",
                    "environment": environment(),
                    "photos": {"n": len(photos), "classes": list(photos.class_names)},
                    "network": {"backbone": options.backbone, "image_px": options.image_px},
                    "runs": runs,
                },
            )


if __name__ == "__main__":
    main()
