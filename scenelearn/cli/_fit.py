"""The commands that train a classifier, and that compare training runs."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import scenelearn as sl
from scenelearn._display import printable
from scenelearn._io import atomic_write_folder, cache_folder, ensure_folder, require_free_space
from scenelearn._progress import ProgressBars
from scenelearn.cli import _photos
from scenelearn.cli._options import Output, add_command, one_or_all
from scenelearn.errors import ArgumentError

if TYPE_CHECKING:
    from scenelearn.data import Audit
    from scenelearn.finetune import FitResult

# Sample scenes are no photos, and nothing is downloaded for them: their network comes with the
# package.
_SAMPLES_FIT: dict[str, Any] = {"weights": "scenelearn", "image_px": 64, "minutes": 2.0}
_REPORT_BYTES = 32 * 2**20  # with its pictures, and the arrays of the calibration
_MINUTES = 4.5  # minus what scan and audit took: the whole command, with its report, takes five


def add_commands(commands: Any) -> None:
    """Add `fit` and `report`."""
    add_command(
        commands,
        fit,
        "Fine-tune a classifier on a folder of photos, with one subfolder per class.",
        {
            "folder": {
                "nargs": "?",
                "help": "folder of photos with one subfolder per class, or a ZIP file of one "
                "(default: sample scenes, rendered for you)",
            }
        },
        {
            "--manifest": {},
            "--quarantine": {},
            "--no-audit": {},
            "--backbone": {
                "help": "network of keras.applications, auto, a .keras file, hub:PRESET of "
                "KerasHub, or the folder of a preset (default: the one of --weights); given more "
                "than once, a linear probe is fitted on the features of all"
            },
            "--weights": {
                "help": "pretrained weights: imagenet, scenelearn, a file, or none "
                "(default: imagenet; for sample scenes scenelearn)"
            },
            "--preprocessing": {},
            "--image-px": {
                "help": "side of the square input image in pixels, or HEIGHTxWIDTH (default: that "
                "of the .keras file or preset, 224 if it takes any size, 160 for networks of "
                "keras.applications; for sample scenes 64)"
            },
            "--shape": {},
            "--minutes": {
                "help": "time budget in minutes (default: 4.5; for sample scenes 2)",
            },
            "--epochs": {
                "help": "number of fine-tuning epochs, however long they take "
                "(default: as many as fit the time budget)"
            },
            "--batch-size": {},
            "--learning-rate": {
                "help": "peak learning rate of fine-tuning "
                "(default: 0.001; 0.0007 with a teacher; 0.003 for random weights and "
                "scenelearn_tiny)"
            },
            "--augmentation": {},
            "--recipe": {},
            "--teacher": {},
            "--precision": {},
            "--class-weight": {},
            "--objective": {},
            "--devices": {},
            "--validation": {},
            "--test": {},
            "--broken": {},
            "--plan": {},
            "--resume": {},
            "--seed": {"help": "random seed of the split and of training"},
            "--out": {"default": "scenelearn-fit", "help": "folder to write"},
        },
    )
    add_command(
        commands,
        report,
        "Write a page that compares training runs.",
        {
            "runs": {
                "nargs": "+",
                "metavar": "RUN",
                "help": "folder that `scenelearn fit` wrote, or that contains several of them",
            }
        },
        {"--out": {"default": "comparison", "help": "folder to write"}},
    )


def fit(options: argparse.Namespace) -> Output:
    """Scan, audit, split, fit, save and report."""
    start = time.perf_counter()
    out = Path(options.out) if options.plan else ensure_folder(options.out)
    bundle = out / "scenes.keras"
    settings = {
        "shape": options.shape,
        "batch_size": options.batch_size,
        "augmentation": options.augmentation,
        "recipe": dict(_recipe_field(text) for text in options.recipe),
        "seed": options.seed,
        "precision": options.precision,
        "class_weight": options.class_weight,
        "objective": options.objective,
        "devices": options.devices,
    }
    names = (
        "weights", "preprocessing", "image_px", "minutes", "epochs", "learning_rate", "teacher",
    )  # fmt: skip
    settings |= {name: value for name in names if (value := getattr(options, name)) is not None}
    settings |= {"backbone": backbone} if (backbone := one_or_all(options.backbone)) else {}
    with ProgressBars() as bars:
        if options.folder is None:
            for name in ("manifest", "quarantine"):
                if getattr(options, name):
                    raise ArgumentError(
                        f"`--{name}` must list photos of FOLDER. Received: no FOLDER. Pass the "
                        "folder of the photos, or a manifest in its place."
                    )
            defaults = _SAMPLES_FIT
            if backbone is not None and _is_own(backbone):
                defaults = {"minutes": _SAMPLES_FIT["minutes"]}
            settings, folder = defaults | settings, _sample_folder(bars)
        else:
            settings, folder = {"minutes": _MINUTES} | settings, options.folder
        if options.weights is not None and options.weights.lower() == "none":
            settings["weights"] = None
        listed = _read_quarantine(options.quarantine) if options.quarantine else None
        photos = sl.scan(folder, options.manifest, progress=bars)
        if not options.plan:  # before anything is trained for it
            ensure_folder(bundle.with_name("report"))
            require_free_space(bundle.parent, _output_bytes(settings), advice="pass another --out")
        audit = None if options.no_audit else sl.audit(photos, progress=bars)
        found = audit.quarantine if audit else ()
        splits = sl.split(
            photos,
            validation=options.validation,
            test=options.test,
            seed=options.seed,
            groups=audit.groups if audit else None,
            quarantine=found if listed is None else listed,
        )
        bars.say(f"{folder}: {photos.summary}; {splits.summary}")
        if audit:
            bars.say(_audit_line(audit, folder, len(splits.quarantined)))
        if options.folder is not None and options.minutes is None:
            settings["minutes"] = max(1.0, _MINUTES - (time.perf_counter() - start) / 60)
        if options.plan:
            plan = sl.plan(splits, **settings, progress=bars)
            return Output(str(plan), plan.to_json())
        result = sl.fit(
            splits, broken=options.broken, resume=options.resume, **settings, progress=bars
        )
        result.classifier.save(bundle)
        page = sl.report(result, bundle.with_name("report"), audit=audit)
        result.remove_checkpoint()  # now that everything is safe
    value = {"bundle": str(bundle), "report": str(page), **result.to_json()}
    return Output(_summary(result, bundle, page), value)


def report(options: argparse.Namespace) -> Output:
    """Compare training runs on one page."""
    page = sl.report(options.runs, options.out)
    return Output(f"Report: {page}", {"page": str(page)})


def _recipe_field(text: str) -> tuple[str, Any]:
    """The name and value of NAME=VALUE: a JSON value, True or False, or a word."""
    name, sign, value = text.partition("=")
    if not sign:
        raise ArgumentError(
            f"`--recipe` must have the form NAME=VALUE. Received: {text!r}. Pass e.g. soup=4."
        )
    try:
        return name, json.loads(value.lower())
    except ValueError:
        return name, value


def _read_quarantine(file: str) -> list[str]:
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


def _audit_line(audit: Audit, folder: str | Path, n_quarantined: int) -> str:
    """What an audit found, where it matters for a split."""
    n_duplicates = len(audit.photos) - len(set(audit.groups.tolist()))
    if not n_duplicates and not audit.quarantine:
        return "no duplicates found"
    return (
        f"{n_duplicates:,} duplicates, which stay in one split; {n_quarantined:,} photos in "
        f"quarantine, which are not used: `scenelearn audit {folder} --out audit` shows them; to "
        f"keep some, decide with `scenelearn clean {folder}`, or pass --quarantine with a shorter "
        "list"
    )


def _output_bytes(settings: dict[str, Any]) -> int:
    """About how much a fit will write: its bundle twice, while it is written, and its report."""
    from scenelearn.backbones._build import count_parameters  # here, since they take long to import
    from scenelearn.finetune._candidates import CANDIDATES
    from scenelearn.finetune._settings import AUTO

    name = settings.get("backbone")
    if isinstance(name, list):
        return sum(_output_bytes(settings | {"backbone": each}) for each in name)
    if name is not None and _is_own(name):
        path = Path(name)
        files = [path, *(path.rglob("*") if path.is_dir() else ())]
        n_bytes = sum(file.stat().st_size for file in files if file.is_file())
        return 2 * int(n_bytes) + _REPORT_BYTES
    name = name or sl.backbones.default_for(settings.get("weights"))
    name = CANDIDATES[-1].name if name == AUTO else name
    return 8 * count_parameters(name, settings.get("image_px", 160)) + _REPORT_BYTES


def _is_own(backbone: str | list[str]) -> bool:
    """Whether a backbone is a network of the user's own, or several networks."""
    from scenelearn.backbones._network import is_own  # here, since it takes long to import

    return bool(is_own(backbone))


def _sample_folder(bars: ProgressBars) -> Path:
    """The sample scenes in the cache, rendered at the first call."""
    n, seed = _photos.SAMPLES_PER_CLASS, _photos.SAMPLES_SEED
    folder: Path = cache_folder() / f"sample-scenes-{sl.__version__}-{n}-{seed}"
    if not folder.exists():
        with atomic_write_folder(folder) as temporary:
            sl.sample_scenes(temporary, n, seed, progress=bars)
    return folder


def _summary(fit: FitResult, bundle: Path, page: Path) -> str:
    tested = [score for score in fit.evaluation.per_class if score.n_photos]
    weakest = min(tested, key=lambda score: score.recall.value)
    return "\n".join(
        [
            f"Photos    {fit.splits.photos.summary}",
            f"Accuracy  {fit.evaluation.accuracy} on {fit.evaluation.n_photos:,} test photos, "
            "95% interval",
            f"Weakest   {printable(weakest.label)}: recall {weakest.recall}",
            f"Network   {fit.settings.backbone_title}, {fit.kept}, {fit.settings.resize.title}",
            f"Time      {_duration(fit.seconds)}",
            f"Bundle    {bundle}",
            f"Report    {page}",
            f"Next      scenelearn predict {bundle} PHOTO …",
        ]
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
