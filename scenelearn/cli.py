"""The command line: parse, one public call, print."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import scenelearn as sl
from scenelearn.errors import ArgumentError, SceneLearnError

if TYPE_CHECKING:
    from tqdm import tqdm

    from scenelearn.data import Audit
    from scenelearn.finetune import FitResult

_SAMPLE_PER_CLASS, _SAMPLE_SEED = 120, 0
# Sample scenes are no photos, and nothing is downloaded for them: a small network learns them
# from random weights.
_SAMPLE_FIT: dict[str, Any] = {
    "backbone": "scenelearn_tiny",
    "weights": None,
    "image_px": 64,
    "minutes": 2.0,
}
_MINUTES = 4.5  # so that the whole command, with scan and report, takes five


class _Answer(NamedTuple):
    """What a command has to say: to people, and to machines as one JSON value."""

    text: str
    value: Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: as typed after ``scenelearn``; None for those of the process.

    Returns:
        The exit code: 0, 1 for a run that failed, 2 for wrong usage.
    """
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras prints while it downloads
            answer = options.run(options)
        print(json.dumps(answer.value, allow_nan=False) if options.json else answer.text)
    except KeyboardInterrupt:
        print("scenelearn: stopped", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stdout = None  # or Python would complain at the end that it cannot flush it
        return 0
    except Exception as error:
        if options.debug:
            raise
        known = isinstance(error, SceneLearnError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        expected = known or isinstance(error, OSError)
        hint = "" if expected else " This should not happen: run it again with --debug."
        hint = f" Help: {error.help_page}" if isinstance(error, SceneLearnError) else hint
        print(f"scenelearn: {' '.join((text + hint).split())}", file=sys.stderr)
        return 2 if isinstance(error, ArgumentError) else 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(
        prog="scenelearn", description="From a folder of photos to a classifier that you can trust."
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    fit = _command(commands, "fit", _fit, "train on a folder of photos, one folder a class")
    fit.epilog = "In brackets: the default; after a semicolon, the one without a folder."
    fit.add_argument("folder", nargs="?", help="or a .zip; without it, sample scenes are drawn")
    fit.add_argument("--out", default="scenelearn-fit", help="folder of the results [%(default)s]")
    fit.add_argument(
        "--backbone", help="of keras.applications [mobilenet_v2_0.35; scenelearn_tiny]"
    )
    fit.add_argument("--weights", help="imagenet, a weights file, or none [imagenet; none]")
    fit.add_argument("--image-px", type=int, help="size the network sees, in pixels [160; 64]")
    fit.add_argument("--minutes", type=float, help="time to use [4.5; 2]")
    fit.add_argument("--epochs", type=int, help="exactly so many [as many as fit the time]")
    fit.add_argument("--seed", type=int, default=0, help="of split and training [%(default)d]")
    fit.add_argument("--manifest", help="a .csv or .parquet that lists the photos of the folder")
    fit.add_argument("--quarantine", help="the quarantine.json of an audit: photos to go without")
    fit.add_argument(
        "--broken", choices=("skip", "raise"), default="skip", help="broken photos [%(default)s]"
    )
    fit.add_argument("--no-audit", action="store_true", help="do not look for copies first")

    predict = _command(commands, "predict", _predict, "say what photos show")
    predict.add_argument("bundle", help="a classifier that fit saved, e.g. scenes.keras")
    predict.add_argument("photos", nargs="+", help="photos, folders of photos, or patterns")
    predict.add_argument("--csv", action="store_true", help="print a table, for spreadsheets")
    predict.add_argument("--coverage", type=float, help="how often sets hold the truth [0.95]")

    explain = _command(commands, "explain", _explain, "show what the answer for a photo rests on")
    explain.add_argument("bundle", help="a classifier that fit saved, e.g. scenes.keras")
    explain.add_argument("photo", help="the photo")
    explain.add_argument("--label", help="the class to explain [the one that is answered]")
    explain.add_argument("--out", default="explanation.png", help="the picture [%(default)s]")

    evaluate = _command(commands, "evaluate", _evaluate, "judge a classifier on labelled photos")
    evaluate.add_argument("bundle", help="a classifier that fit saved, e.g. scenes.keras")
    evaluate.add_argument("folder", help="photos, one folder a class")
    evaluate.add_argument("--manifest", help="a table of the photos; groups by its columns, too")
    evaluate.add_argument("--coverage", type=float, help="how often sets hold the truth [0.95]")

    compare = _command(commands, "compare", _compare, "say which of two classifiers is better")
    compare.add_argument("first", help="a classifier that fit saved")
    compare.add_argument("second", help="another one, with the same classes")
    compare.add_argument("folder", help="photos that neither was trained on, one folder a class")

    audit = _command(commands, "audit", _audit, "look for copies, leaks and broken photos")
    audit.add_argument("folder", help="photos, one folder a class, or a .zip of them")
    audit.add_argument("--manifest", help="a .csv or .parquet that lists the photos of the folder")
    audit.add_argument("--out", help="folder for a page with the photos, and quarantine.json")
    audit.add_argument("--backbone", help="judge labels by this network's features, too [no]")
    audit.add_argument("--weights", default="imagenet", help="of the backbone [%(default)s]")
    audit.add_argument("--image-px", type=int, default=160, help="[%(default)d]")

    size = _command(commands, "size", _size, "say what networks cost before anything runs")
    size.add_argument(
        "networks", nargs="+", help="backbones, .keras files, or layers: 'Conv2D(8, 3), Dense(10)'"
    )
    size.add_argument("--image", type=int, help="height and width, in pixels [the network's own]")
    size.add_argument("--input", help="input shape of a line of layers, e.g. 200,300,3")
    size.add_argument("--batch", type=int, default=32, help="samples in a batch [%(default)d]")
    size.add_argument("--optimizer", default="adam", help="a name of keras.optimizers [adam]")
    size.add_argument("--train", choices=("all", "head"), default="all", help="[%(default)s]")
    size.add_argument("--memory", help='an amount such as "8GiB": the largest batch that fits')
    size.add_argument("--rule", choices=("textbook", "xla"), default="textbook", help="[textbook]")

    sample = _command(commands, "sample", _sample, "draw sample scenes as JPEG files")
    sample.add_argument("folder", help="where to draw them, one folder a class")
    sample.add_argument("--per-class", type=int, default=_SAMPLE_PER_CLASS, help="[%(default)d]")
    sample.add_argument("--seed", type=int, default=_SAMPLE_SEED, help="[%(default)d]")
    return top


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], _Answer], text: str
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(run=run)
    command.add_argument("--json", action="store_true", help="print one JSON value, for machines")
    command.add_argument("--debug", action="store_true", help="show where an error comes from")
    return command


def _fit(options: argparse.Namespace) -> _Answer:
    out = sl.data.made_folder(options.out)  # before anything is trained for it
    names = ("backbone", "weights", "image_px", "minutes")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    with _Bars() as bars:
        if options.folder is None:
            settings, folder = _SAMPLE_FIT | given, _sample_folder(bars)
        else:
            settings, folder = {"minutes": _MINUTES} | given, Path(options.folder)
        if str(settings.get("weights")).lower() == "none":
            settings["weights"] = None
        photos = sl.scan(folder, options.manifest, progress=bars.of("scanning"))
        apart = _paths(options.quarantine) if options.quarantine else ()
        found = None if options.no_audit else sl.audit(photos, progress=bars.of("looking"))
        splits = sl.split(
            photos, seed=options.seed, groups=found.groups if found else None, quarantine=apart
        )
        bars.say(f"{folder}: {photos}; {splits}")
        if found:
            bars.say(_found(found, folder))
        fit = sl.fit(
            splits,
            epochs=options.epochs,
            seed=options.seed,
            broken=options.broken,
            progress=bars.show,
            **settings,
        )
        bundle, page = fit.save(out / "scenes.keras"), sl.report(fit, out / "report")
    value = {"bundle": str(bundle), "report": str(page), **fit.to_json()}
    return _Answer(_summary(fit, bundle, page), value)


def _paths(file: str) -> list[str]:
    """The paths that a quarantine.json lists."""
    try:
        paths = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError(
            f"`--quarantine` must name a JSON list of paths. Received: {file!r}: {error}. "
            "`scenelearn audit FOLDER --out DIR` writes one."
        ) from None
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ArgumentError(
            f"`--quarantine` must name a JSON list of paths. Received: {file!r}, which holds "
            "something else. `scenelearn audit FOLDER --out DIR` writes one."
        )
    return paths


def _found(audit: Audit, folder: Path) -> str:
    """One line on what an audit found, where it matters for a split."""
    n_together = len(audit.photos) - len(set(audit.groups.tolist()))
    doubtful = len(audit.quarantine)
    if not n_together and not doubtful:
        return "no photo is there twice"
    return (
        f"{n_together:,} photos are copies of others and stay on their side; {doubtful:,} should "
        f"not be used: see `scenelearn audit {folder} --out audit`"
    )


def _sample_folder(bars: _Bars) -> Path:
    """The sample scenes in the cache; drawn apart and then renamed, so what is there is whole."""
    name = f"sample-scenes-{sl.__version__}-{_SAMPLE_PER_CLASS}-{_SAMPLE_SEED}"
    folder: Path = sl.data.cache_folder() / name
    if not folder.exists():
        drawn = folder.with_name(f".{name}-{os.getpid()}")
        progress = bars.of("drawing sample scenes")
        sl.sample_scenes(drawn, _SAMPLE_PER_CLASS, _SAMPLE_SEED, progress=progress)
        drawn.rename(folder)
    return folder


def _summary(fit: FitResult, bundle: Path, page: Path) -> str:
    seen = [score for score in fit.evaluation.per_class if score.n_photos]
    weakest = min(seen, key=lambda score: score.recall.value)
    return "\n".join(
        [
            f"Photos    {fit.splits.photos}",
            f"Accuracy  {fit.evaluation.accuracy} on {fit.evaluation.n_photos:,} test photos, "
            "95 % interval",
            f"Weakest   {weakest.name}: {weakest.recall} recognised",
            f"Network   {fit.settings.backbone}, {fit.kept}, {fit.settings.image_px} px",
            f"Time      {_minutes(fit.seconds)}",
            f"Bundle    {bundle}",
            f"Report    {page}",
            f"Next      scenelearn predict {bundle} PHOTO …",
        ]
    )


def _predict(options: argparse.Namespace) -> _Answer:
    if options.json and options.csv:
        raise ArgumentError("`--json` and `--csv` exclude each other. Received: both. Pass one.")
    classifier = sl.load(options.bundle)
    with _Bars() as bars:
        predictions = classifier.predict(
            options.photos,
            coverage=options.coverage,
            skip_broken=True,
            progress=bars.of("predicting"),
        )
    if not predictions:
        raise sl.errors.NoPhotosError("None of the photos could be read. Each is named above.")
    lines = sl.classify.csv_lines(predictions) if options.csv else map(str, predictions)
    return _Answer("\n".join(lines), [one.to_json() for one in predictions])


def _explain(options: argparse.Namespace) -> _Answer:
    explanation = sl.load(options.bundle).explain(options.photo, label=options.label)
    picture = explanation.save(options.out)
    value = {"picture": str(picture), **explanation.to_json()}
    return _Answer(f"{explanation}\nPicture: {picture}", value)


def _evaluate(options: argparse.Namespace) -> _Answer:
    classifier = sl.load(options.bundle)
    with _Bars() as bars:
        photos = sl.scan(options.folder, options.manifest, progress=bars.of("scanning"))
        columns = sl.classify.manifest_columns(options.manifest, photos) if options.manifest else {}
        evaluation = classifier.evaluate(
            photos, coverage=options.coverage, columns=columns, progress=bars.show
        )
    return _Answer(f"{photos}\n{evaluation.table()}", evaluation.to_json())


def _compare(options: argparse.Namespace) -> _Answer:
    first, second = sl.load(options.first), sl.load(options.second)
    with _Bars() as bars:
        photos = sl.scan(options.folder, progress=bars.of("scanning"))
        comparison = sl.classify.compare(first, second, photos, progress=bars.show)
    return _Answer(f"{photos}\n{comparison}", comparison.to_json())


def _audit(options: argparse.Namespace) -> _Answer:
    out = sl.data.made_folder(options.out) if options.out else None
    with _Bars() as bars:
        photos = sl.scan(options.folder, options.manifest, progress=bars.of("scanning"))
        features = None
        if options.backbone:
            features = sl.finetune.features(
                photos,
                backbone=options.backbone,
                weights=None if options.weights.lower() == "none" else options.weights,
                image_px=options.image_px,
                progress=bars.show,
            )
        found = sl.audit(photos, features=features, progress=bars.of("looking"))
    if out is None:
        return _Answer(str(found), found.to_json())
    page = sl.report(found, out)
    value = {"page": str(page), **found.to_json()}
    return _Answer(f"{found}\nPage: {page}\nQuarantine: {out / 'quarantine.json'}", value)


def _size(options: argparse.Namespace) -> _Answer:
    shape = None
    if options.input is not None:
        shape = tuple(int(one) if one.strip().isdigit() else 0 for one in options.input.split(","))
    elif options.image is not None:
        shape = (options.image, options.image, 3)
    settings = {
        "batch_size": options.batch,
        "optimizer": options.optimizer,
        "trainable": "head" if options.train == "head" else True,
        "rule": options.rule,
    }
    found = []
    for text in options.networks:
        network = sl.sizing.network_of(text, options.image)
        found.append(sl.sizing.estimate(network, input_shape=shape, **settings))
    texts, values = [], []
    for estimate in found:
        value = estimate.to_json()
        lines = [estimate.table() if len(found) == 1 else str(estimate)]
        if options.memory is not None:
            value["max_batch"] = estimate.max_batch(options.memory)
            lines.append(f"Largest training batch in {options.memory}: {value['max_batch']:,}")
        texts.append("\n".join(lines))
        values.append(value)
    return _Answer("\n\n".join(texts), values[0] if len(values) == 1 else values)


def _sample(options: argparse.Namespace) -> _Answer:
    with _Bars() as bars:
        progress = bars.of("drawing")
        folder = sl.sample_scenes(
            options.folder, options.per_class, options.seed, progress=progress
        )
    value = {"folder": str(folder), "per_class": options.per_class}
    return _Answer(f"{options.per_class} scenes a class in {folder}", value)


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class _Bars:
    """A progress bar for each kind of work, with its total and the time left, on stderr."""

    def __init__(self) -> None:
        self._what = ""
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> _Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def of(self, what: str) -> Callable[[int, int], None]:
        """A function (done, total) that shows one kind of work."""
        return lambda done, total: self.show(what, done, total)

    def say(self, text: str) -> None:
        """Print a line below the bars."""
        self._close()
        print(text, file=sys.stderr, flush=True)

    def show(self, what: str, done: int, total: int) -> None:
        """Move the bar of this work to `done`; a new kind of work gets a new bar."""
        if self._bar is None or what != self._what:
            from tqdm import tqdm

            self._close()
            often = 0.2 if sys.stderr.isatty() else 10  # a log needs few lines
            self._what = what
            self._bar = tqdm(total=total, desc=what, unit="", dynamic_ncols=True, mininterval=often)
        self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
