"""The commands for a classifier that was trained: ask it, judge it, compare it."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import scenelearn as sl
from scenelearn._progress import ProgressBars
from scenelearn.cli._command import Answer, command
from scenelearn.errors import ArgumentError


def add(commands: Any) -> None:
    """Add `predict`, `explain`, `evaluate`, `compare`, `export` and `report`."""
    predict = command(commands, "predict", _predict, "say what photos show")
    predict.add_argument("bundle", help="a classifier that fit saved, e.g. scenes.keras")
    predict.add_argument("photos", nargs="+", help="photos, folders of photos, or patterns")
    predict.add_argument("--csv", action="store_true", help="print a table, for spreadsheets")
    predict.add_argument("--coverage", type=float, help="how often sets hold the truth [0.95]")

    explain = command(commands, "explain", _explain, "show what the answer for a photo rests on")
    explain.add_argument("bundle", help="a classifier that fit saved, e.g. scenes.keras")
    explain.add_argument("photo", help="the photo")
    explain.add_argument("--label", help="the class to explain [the one that is answered]")
    explain.add_argument("--out", default="explanation.png", help="the picture [%(default)s]")

    evaluate = command(commands, "evaluate", _evaluate, "judge a classifier on labeled photos")
    evaluate.add_argument("bundle", help="a classifier that fit saved, e.g. scenes.keras")
    evaluate.add_argument("folder", help="photos, one folder a class")
    evaluate.add_argument("--manifest", help="a table of the photos; groups by its columns, too")
    evaluate.add_argument("--coverage", type=float, help="how often sets hold the truth [0.95]")

    compare = command(commands, "compare", _compare, "say which of two classifiers is better")
    compare.add_argument("first", help="a classifier that fit saved")
    compare.add_argument("second", help="another one, with the same classes")
    compare.add_argument("folder", help="photos that neither was trained on, one folder a class")

    export = command(commands, "export", _export, "write a classifier for another runtime")
    export.add_argument("bundle", help="a classifier that fit saved, e.g. scenes.keras")
    export.add_argument("--to", required=True, help="FILE.onnx, FILE.tflite, or a new folder")
    export.add_argument("--check", help="photos to check it on [sample scenes]")

    report = command(commands, "report", _report, "compare fits by their reports, on one page")
    report.add_argument("runs", nargs="+", help="folders that fit wrote, or their result.json")
    report.add_argument("--out", default="comparison", help="folder of the page [%(default)s]")


def _predict(options: argparse.Namespace) -> Answer:
    if options.json and options.csv:
        raise ArgumentError("`--json` and `--csv` exclude each other. Received: both. Pass one.")
    classifier = sl.load(options.bundle)
    with ProgressBars() as bars:
        predictions = classifier.predict(
            options.photos,
            coverage=options.coverage,
            skip_broken=True,
            progress=partial(bars, "predicting"),
        )
    if not predictions:
        raise sl.errors.NoPhotosError("None of the photos could be read. Each is named above.")
    lines = sl.classify.csv_lines(predictions) if options.csv else map(str, predictions)
    return Answer("\n".join(lines), [one.to_json() for one in predictions])


def _explain(options: argparse.Namespace) -> Answer:
    explanation = sl.load(options.bundle).explain(options.photo, label=options.label)
    picture = explanation.save(options.out)
    value = {"picture": str(picture), **explanation.to_json()}
    return Answer(f"{explanation}\nPicture: {picture}", value)


def _evaluate(options: argparse.Namespace) -> Answer:
    classifier = sl.load(options.bundle)
    with ProgressBars() as bars:
        photos = sl.scan(options.folder, options.manifest, progress=partial(bars, "scanning"))
        columns = sl.classify.manifest_columns(options.manifest, photos) if options.manifest else {}
        evaluation = classifier.evaluate(
            photos, coverage=options.coverage, columns=columns, progress=bars
        )
    return Answer(f"{photos}\n{evaluation.table()}", evaluation.to_json())


def _compare(options: argparse.Namespace) -> Answer:
    first, second = sl.load(options.first), sl.load(options.second)
    with ProgressBars() as bars:
        photos = sl.scan(options.folder, progress=partial(bars, "scanning"))
        comparison = sl.classify.compare(first, second, photos, progress=bars)
    return Answer(f"{photos}\n{comparison}", comparison.to_json())


def _export(options: argparse.Namespace) -> Answer:
    exported = sl.load(options.bundle).export(options.to, check=options.check)
    return Answer(str(exported), exported.to_json())


def _report(options: argparse.Namespace) -> Answer:
    page = sl.report(options.runs, options.out)
    return Answer(f"Page: {page}", {"page": str(page)})
