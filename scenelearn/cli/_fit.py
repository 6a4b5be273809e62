"""The command that trains, on photos or on sample scenes; and the one that draws these."""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import scenelearn as sl
from scenelearn._io import cache_folder, ensure_folder
from scenelearn._progress import ProgressBars
from scenelearn.cli._command import Answer, command
from scenelearn.errors import ArgumentError

if TYPE_CHECKING:
    from scenelearn.data import Audit
    from scenelearn.finetune import FitResult

_SAMPLE_PER_CLASS, _SAMPLE_SEED = 120, 0
# Sample scenes are no photos, and nothing is downloaded for them: the network and its weights come
# with the package.
_SAMPLE_FIT: dict[str, Any] = {
    "weights": "scenelearn",
    "image_px": 64,
    "minutes": 2.0,
}
_MINUTES = 4.5  # less what scan and audit took: the whole command, with report, takes five


def add(commands: Any) -> None:
    """Add `fit` and `sample`."""
    fit = command(commands, "fit", _fit, "train on a folder of photos, one folder a class")
    fit.epilog = "In brackets: the default; after a semicolon, the one without a folder."
    fit.add_argument("folder", nargs="?", help="or a .zip; without it, sample scenes are drawn")
    fit.add_argument("--out", default="scenelearn-fit", help="folder of the results [%(default)s]")
    fit.add_argument("--backbone", help="of keras.applications [what the weights are of]")
    fit.add_argument(
        "--weights", help="imagenet, scenelearn, a file, or none [imagenet; scenelearn]"
    )
    fit.add_argument("--image-px", type=int, help="size the network sees, in pixels [160; 64]")
    fit.add_argument("--minutes", type=float, help="time to use [4.5; 2]")
    fit.add_argument("--epochs", type=int, help="exactly so many [as many as fit the time]")
    fit.add_argument(
        "--recipe", action="append", default=[], metavar="NAME=VALUE",
        help="a finer point of fine-tuning, such as soup=4; may be given several times",
    )  # fmt: skip
    fit.add_argument("--seed", type=int, default=0, help="of split and training [%(default)d]")
    fit.add_argument("--manifest", help="a .csv or .parquet that lists the photos of the folder")
    fit.add_argument("--quarantine", help="the quarantine.json of an audit: photos to go without")
    fit.add_argument(
        "--broken", choices=("skip", "raise"), default="skip", help="broken photos [%(default)s]"
    )
    fit.add_argument("--plan", action="store_true", help="say what it would do, and stop")
    fit.add_argument("--resume", action="store_true", help="go on with a run that was cut off")
    fit.add_argument("--no-audit", action="store_true", help="do not look for copies first")

    sample = command(commands, "sample", _sample, "draw sample scenes as JPEG files")
    sample.add_argument("folder", help="where to draw them, one folder a class")
    sample.add_argument("--per-class", type=int, default=_SAMPLE_PER_CLASS, help="[%(default)d]")
    sample.add_argument("--seed", type=int, default=_SAMPLE_SEED, help="[%(default)d]")


def _fit(options: argparse.Namespace) -> Answer:
    start = time.monotonic()
    out = ensure_folder(options.out)  # before anything is trained for it
    recipe = dict(_setting(words) for words in options.recipe)
    names = ("backbone", "weights", "image_px", "minutes")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    with ProgressBars() as bars:
        if options.folder is None:
            settings, folder = _SAMPLE_FIT | given, _sample_folder(bars)
        else:
            settings, folder = {"minutes": _MINUTES} | given, Path(options.folder)
        if str(settings.get("weights")).lower() == "none":
            settings["weights"] = None
        photos = sl.scan(folder, options.manifest, progress=partial(bars, "scanning"))
        apart = _paths(options.quarantine) if options.quarantine else ()
        found = None if options.no_audit else sl.audit(photos, progress=partial(bars, "looking"))
        splits = sl.split(
            photos, seed=options.seed, groups=found.groups if found else None, quarantine=apart
        )
        bars.say(f"{folder}: {photos}; {splits}")
        if found:
            bars.say(_found(found, folder))
        if options.folder is not None and options.minutes is None:
            settings["minutes"] = max(1.0, _MINUTES - (time.monotonic() - start) / 60)
        settings |= {"epochs": options.epochs, "seed": options.seed, "progress": bars}
        settings["recipe"] = recipe
        if options.plan:
            plan = sl.finetune.plan(splits, **settings)
            return Answer(str(plan), plan.to_json())
        fit = sl.fit(
            splits,
            broken=options.broken,
            resume=options.resume,
            **settings,
        )
        bundle = fit.save(out / "scenes.keras")
        page = sl.report(fit, out / "report", audit=found)
    value = {"bundle": str(bundle), "report": str(page), **fit.to_json()}
    return Answer(_summary(fit, bundle, page), value)


def _setting(words: str) -> tuple[str, Any]:
    """A name and its value: true or false, a number, or a word."""
    name, sign, value = words.partition("=")
    if not sign:
        raise ArgumentError(
            f"`--recipe` must have the form NAME=VALUE. Received: {words!r}. Pass e.g. soup=4."
        )
    try:
        return name, json.loads(value.lower())
    except ValueError:
        return name, value


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


def _sample_folder(bars: ProgressBars) -> Path:
    """The sample scenes in the cache; drawn apart and then renamed, so what is there is whole."""
    name = f"sample-scenes-{sl.__version__}-{_SAMPLE_PER_CLASS}-{_SAMPLE_SEED}"
    folder: Path = cache_folder() / name
    if not folder.exists():
        drawn = folder.with_name(f".{name}-{os.getpid()}")
        progress = partial(bars, "drawing sample scenes")
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
            f"Weakest   {weakest.name}: {weakest.recall} recognized",
            f"Network   {fit.settings.backbone}, {fit.kept}, {fit.settings.image_px} px",
            f"Time      {_minutes(fit.seconds)}",
            f"Bundle    {bundle}",
            f"Report    {page}",
            f"Next      scenelearn predict {bundle} PHOTO …",
        ]
    )


def _sample(options: argparse.Namespace) -> Answer:
    with ProgressBars() as bars:
        progress = partial(bars, "drawing")
        folder = sl.sample_scenes(
            options.folder, options.per_class, options.seed, progress=progress
        )
    value = {"folder": str(folder), "per_class": options.per_class}
    return Answer(f"{options.per_class} scenes a class in {folder}", value)


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
