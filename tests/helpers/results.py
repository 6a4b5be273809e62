"""Small fits and audits for tests of reports, and a parser for pages."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from scenelearn.classify import Classifier, Explanation, Neighbor, Prediction
from scenelearn.data import Audit, Photos, Rejected, RejectionReason, Splits
from scenelearn.finetune import Epoch, FitResult, FitSettings, Phase
from scenelearn.metrics import evaluate

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</style><script>alert(2)</script>",
    "\" onmouseover=\"alert(3)' x='",
    "two\nlines \u202eright to left",
)
PER_CLASS = 8


VOID = {"meta", "link", "img", "input", "br", "wbr"}


class Page(HTMLParser):
    """The elements of a page with their attributes, its text, and its unclosed tags."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.unclosed: list[str] = []
        self.feed(source)
        self.close()
        self.text = " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.unclosed.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.unclosed.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.unclosed:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


class Explainer:
    """Stands in for a classifier: its heat maps mark the left half of each photo."""

    calibration: Any = None

    def explain(self, photo: bytes, *, label: str, n_neighbors: int) -> Explanation:
        assert photo.startswith(b"\xff\xd8")  # a JPEG file
        heat = np.zeros((32, 32), np.float32)
        heat[:, :16] = 1
        return Explanation(
            prediction=cast("Prediction", None),
            label=label,
            image=np.full((32, 32, 3), 200, np.uint8),
            heatmap=heat,
            neighbors=(Neighbor(path=f"like/{label}.jpg", label=label, similarity=0.9),)[
                :n_neighbors
            ],
        )


def make_fit(folder: Path, names: tuple[str, ...] = ("forest", "sea", "street")) -> FitResult:
    """A fit on small rendered photos; every fourth test photo is predicted as the next class."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, hashes = [], []
    for k in range(len(names) * PER_CLASS):
        path = f"class {k // PER_CLASS}/photo '{k % PER_CLASS}'.jpg"
        file = folder / path
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48), (40 * (k // PER_CLASS), 9 * k % 256, 120)).save(file)
        paths.append(path)
        hashes.append(hashlib.blake2b(file.read_bytes(), digest_size=16).digest())
    labels = np.repeat(np.arange(len(names), dtype=np.int32), PER_CLASS)
    rejected = (
        Rejected(path="notes.txt", reason=RejectionReason.NOT_AN_IMAGE, detail="<b>no</b> image"),
    )
    photos = Photos(
        folder=folder,
        paths=tuple(paths),
        labels=labels,
        class_names=names,
        hashes=tuple(hashes),
        splits=("",) * len(paths),
        rejected=rejected,
    )
    place = np.arange(len(paths), dtype=np.int64)
    test, validation = place[place % 2 == 0], place[place % 4 == 1]
    splits = Splits(
        photos=photos,
        train=place[place % 4 == 3],
        validation=validation,
        test=test,
        validation_fraction=0.25,
        test_fraction=0.5,
        seed=7,
    )
    predicted = (labels[test] + (np.arange(len(test)) % 4 == 3)) % len(names)
    confidence = np.minimum(0.6 + 0.01 * np.arange(len(test)), 0.99)
    table = np.repeat((1 - confidence)[:, None] / (len(names) - 1), len(names), axis=1)
    table[np.arange(len(test)), predicted] = confidence
    probabilities = table.astype(np.float32)
    return FitResult(
        classifier=cast("Classifier", Explainer()),  # all that a report needs
        kept="fine-tuned",
        interpolation=1.0,
        evaluation=evaluate(labels[test], probabilities, names),
        validation_evaluation=evaluate(
            labels[validation], np.eye(len(names))[labels[validation]], names
        ),
        history=tuple(
            Epoch(
                number=k,
                train_loss=math.nan if k == 0 else 0.9 / k,
                validation_loss=0.5 / (k + 1),
                calibrated_loss=0.5 / (k + 1),
                validation_accuracy=0.7 + 0.05 * k,
                learning_rate=0.001,
                seconds=1.5,
            )
            for k in range(4)
        ),
        phases=(
            Phase(name="photos", seconds=1.0, note="24 photos"),
            Phase(name="fine-tuning", seconds=6.0, note="3 epochs"),
        ),
        splits=splits,
        test_indices=test,
        test_probabilities=probabilities,
        test_embeddings=np.eye(len(names), 4)[labels[test]].astype(np.float16),
        rejected=rejected,
        settings=FitSettings(minutes=2, seed=5),
        environment={"keras": "3.x", "date": "2025-01-02", "photo_fingerprint": "ab12cd"},
        seconds=8.25,
    )


def with_slices_and_sets(fit: FitResult, column: str = "light") -> FitResult:
    """The same fit, evaluated with slices, sets and OOD flags; its three mistakes are "dark"."""
    labels = fit.splits.photos.labels[fit.test_indices]
    predicted = fit.test_probabilities.argmax(axis=1)
    names = fit.splits.photos.class_names
    sets = np.eye(len(names), dtype=bool)[predicted]
    sets[predicted != labels] = True  # all classes for its mistakes
    evaluation = evaluate(
        labels,
        fit.test_probabilities,
        names,
        columns={column: np.where(predicted == labels, "bright", "dark")},
        prediction_sets=sets,
        is_ood=np.arange(len(labels)) < 1,
    )
    return dataclasses.replace(fit, evaluation=evaluation)


def with_errors(fit: FitResult, n_wrong: int, **changes: Any) -> FitResult:
    """The same fit with exactly its first `n_wrong` test photos misclassified."""
    labels = fit.splits.photos.labels[fit.test_indices]
    names = fit.splits.photos.class_names
    predicted = np.where(np.arange(len(labels)) < n_wrong, labels + 1, labels) % len(names)
    table = np.full((len(labels), len(names)), 0.1 / (len(names) - 1), np.float32)
    table[np.arange(len(labels)), predicted] = 0.9
    return dataclasses.replace(
        fit,
        test_probabilities=table,
        evaluation=evaluate(labels, table, names),
        **changes,
    )


def make_audit(fit: FitResult, *groups: tuple[int, ...]) -> Audit:
    photos = fit.splits.photos
    numbers = np.arange(len(photos))
    for group in groups:
        numbers[list(group)] = group[0]
    return Audit(
        photos=photos, groups=numbers, exact_duplicates=(), near_duplicates=groups,
        conflicting_labels=(), leaks=(), blank=(), tiny=(), animated=(),
        label_issues=(), rejected=(),
    )  # fmt: skip
