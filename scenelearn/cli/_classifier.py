"""The commands on a saved classifier: predict, explain, evaluate and so on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import scenelearn as sl
from scenelearn._progress import ProgressBars
from scenelearn.cli._options import Output, add_command
from scenelearn.errors import ArgumentError


def add_commands(commands: Any) -> None:
    """Add `predict`, `explain`, `evaluate`, `compare`, `rank`, `export` and `benchmark`."""
    add_command(
        commands,
        predict,
        "Predict the classes of photos.",
        {
            "bundle": {},
            "photos": {
                "nargs": "+",
                "metavar": "PHOTO",
                "help": "photo, folder of photos, or pattern such as 'new/**/*.jpg'",
            },
        },
        {"--coverage": {}, "--costs": {}, "--broken": {}, "--csv": {}},
    )
    add_command(
        commands,
        explain,
        "Show which parts of a photo a prediction relies on, and similar training photos.",
        {"bundle": {}, "photo": {"metavar": "PHOTO", "help": "photo to explain"}},
        {
            "--label": {},
            "--n-neighbors": {},
            "--out": {"default": "explanation.png", "help": "picture to write"},
        },
    )
    add_command(
        commands,
        evaluate,
        "Evaluate a classifier on labeled photos.",
        {"bundle": {}, "folder": {}},
        {
            "--manifest": {
                "help": "CSV or Parquet file that lists the photos and their labels (default: "
                "FOLDER if it is a CSV file); its other columns become slices"
            },
            "--coverage": {},
        },
    )
    add_command(
        commands,
        compare,
        "Compare two classifiers on the same photos.",
        {
            "first": {"metavar": "BUNDLE_A", "help": "classifier that `scenelearn fit` saved"},
            "second": {"metavar": "BUNDLE_B", "help": "another one with the same classes"},
            "folder": {
                "help": "photos that neither was trained on, in one subfolder per class, or a "
                "ZIP file of them"
            },
        },
        {"--manifest": {}},
    )
    add_command(
        commands,
        rank,
        "Choose the photos to label next, and write them as a manifest to fill in.",
        {"bundle": {}, "folder": {"help": "folder of photos without labels"}},
        {
            "--n": {},
            "--manifest": {"help": "manifest with some labels, such as the one of the last round"},
            "--out": {"default": "to_label.csv", "help": "manifest to write"},
        },
    )
    add_command(
        commands,
        export,
        "Export a classifier to ONNX, LiteRT or SavedModel, and verify it.",
        {"bundle": {}},
        {
            "--check": {},
            "--quantize": {},
            "--manifest": {
                "help": "split.csv of the fit, for --quantize (default: that of its report)",
            },
            "--out": {
                "required": True,
                "help": "file that ends in .onnx or .tflite, or a folder for a SavedModel",
            },
        },
    )
    add_command(
        commands,
        benchmark,
        "Measure how many photos per second this machine predicts.",
        {
            "bundle": {},
            "photos": {
                "nargs": "*",
                "metavar": "PHOTO",
                "help": "photo, folder of photos, or pattern (default: sample scenes)",
            },
        },
        {"--seconds": {}},
    )


def predict(options: argparse.Namespace) -> Output:
    """Predict photos; one that cannot be read is named and left out."""
    if options.json and options.csv:
        raise ArgumentError(
            "`--json` and `--csv` cannot be combined. Received: both. Pass one of them."
        )
    classifier = sl.load(options.bundle)
    with ProgressBars() as bars:
        stream = classifier.stream(
            options.photos,
            coverage=options.coverage,
            costs=options.costs,
            broken=options.broken,
            progress=bars,
        )
        # Of each prediction only what is printed: it holds a probability for every class.
        if options.json:
            results: list[Any] = [prediction.to_json() for prediction in stream]
        elif options.csv:
            results = [sl.classify.Predictions([prediction]).to_csv() for prediction in stream]
            results[1:] = [one.partition("\n")[2] for one in results[1:]]  # without the header
        else:
            results = [str(prediction) for prediction in stream]
    if not results:
        raise sl.errors.NoPhotosError("None of the photos could be read. Each is named above.")
    return Output("", results) if options.json else Output("\n".join(results), None)


def explain(options: argparse.Namespace) -> Output:
    """Explain a prediction; write its picture."""
    explanation = sl.load(options.bundle).explain(
        options.photo, label=options.label, n_neighbors=options.n_neighbors
    )
    picture = explanation.save(options.out)
    return Output(
        f"{explanation}\nPicture: {picture}", {"picture": str(picture), **explanation.to_json()}
    )


def evaluate(options: argparse.Namespace) -> Output:
    """Evaluate a classifier, on slices too if a manifest has columns for them."""
    classifier = sl.load(options.bundle)
    with ProgressBars() as bars:
        photos = sl.scan(options.folder, options.manifest, progress=bars)
        manifest = options.manifest
        folder = Path(options.folder)
        if manifest is None and folder.suffix.lower() == ".csv" and folder.is_file():
            manifest = folder
        columns = sl.classify.manifest_columns(manifest, photos) if manifest else {}
        evaluation = classifier.evaluate(
            photos, coverage=options.coverage, columns=columns, progress=bars
        )
    return Output(f"{photos.summary}\n{evaluation}", evaluation.to_json())


def compare(options: argparse.Namespace) -> Output:
    """Compare two classifiers."""
    first, second = sl.load(options.first), sl.load(options.second)
    with ProgressBars() as bars:
        photos = sl.scan(options.folder, options.manifest, progress=bars)
        comparison = sl.compare(first, second, photos, progress=bars)
    return Output(f"{photos.summary}\n{comparison}", comparison.to_json())


def rank(options: argparse.Namespace) -> Output:
    """Rank unlabeled photos; write the manifest to fill in."""
    from scenelearn.classify._ranking import check_no_labels

    check_no_labels(options.out)  # before the work
    classifier = sl.load(options.bundle)
    with ProgressBars() as bars:
        folder = options.folder
        unlabeled = sl.scan(folder, options.manifest, progress=bars) if options.manifest else folder
        ranking = sl.rank(unlabeled, classifier, options.n, progress=bars)
    manifest = ranking.save(options.out)
    return Output(
        f"{ranking}\nManifest: {manifest}", {"manifest": str(manifest), **ranking.to_json()}
    )


def export(options: argparse.Namespace) -> Output:
    """Export a classifier; in int8 if its photos are given."""
    if options.manifest and not options.quantize:
        raise ArgumentError(
            "`--manifest` must list the photos of `--quantize`. Received: no `--quantize`. Pass "
            "the folder of the photos."
        )
    classifier, splits = sl.load(options.bundle), None
    if options.quantize:
        manifest, found = options.manifest, Path(options.bundle).parent / "report" / "split.csv"
        is_table = Path(options.quantize).suffix.lower() in (".csv", ".parquet")
        if manifest is None and not is_table and found.is_file():
            manifest = found
        with ProgressBars() as bars:
            photos = sl.scan(options.quantize, manifest, progress=bars)
        if "validation" not in photos.splits:
            raise ArgumentError(
                "`--quantize` needs the split of the fit, whose validation photos show the loss. "
                f"Received: photos that are not split, and no {str(found)!r}. Pass the split.csv "
                "of the report as `--manifest`."
            )
        splits = sl.split(photos)
    result = classifier.export(options.out, check=options.check, quantize=splits)
    return Output(str(result), result.to_json())


def benchmark(options: argparse.Namespace) -> Output:
    """Measure the throughput of a classifier."""
    result = sl.load(options.bundle).benchmark(options.photos or None, seconds=options.seconds)
    return Output(str(result), result.to_json())
