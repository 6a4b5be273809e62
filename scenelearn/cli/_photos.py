"""The commands on photos alone: audit a folder, and render sample scenes."""

from __future__ import annotations

import argparse
from typing import Any

import scenelearn as sl
from scenelearn._io import ensure_folder
from scenelearn._progress import ProgressBars
from scenelearn.cli._options import Output, add_command, one_or_all
from scenelearn.errors import ArgumentError

SAMPLES_PER_CLASS, SAMPLES_SEED = 120, 0
"""The sample scenes that `fit` trains on if it gets no folder."""


def add_commands(commands: Any) -> None:
    """Add `audit` and `sample`."""
    add_command(
        commands,
        audit,
        "Find duplicates, leaks, wrong labels and broken photos in a folder.",
        {"folder": {}},
        {
            "--manifest": {},
            "--backbone": {
                "help": "also find wrong labels, from the features of this network "
                "(default: the one of --weights); may be given more than once"
            },
            "--weights": {"help": "its pretrained weights (default: imagenet)"},
            "--preprocessing": {},
            "--image-px": {},
            "--shape": {},
            "--out": {"help": "folder for a report page and quarantine.json"},
        },
    )
    add_command(
        commands,
        sample,
        "Render sample scenes as JPEG files.",
        {"folder": {"help": "folder to write, with one subfolder per class"}},
        {"--per-class": {"default": SAMPLES_PER_CLASS}, "--seed": {"default": SAMPLES_SEED}},
    )


def audit(options: argparse.Namespace) -> Output:
    """Audit a folder; write a page if one is wanted."""
    out = ensure_folder(options.out) if options.out else None
    with ProgressBars() as bars:
        photos = sl.scan(options.folder, options.manifest, progress=bars)
        features = extract_features(photos, options, bars)
        result = sl.audit(photos, features=features, progress=bars)
    if out is None:
        return Output(str(result), result.to_json())
    page = sl.report(result, out)
    return Output(
        f"{result}\nReport: {page}\nQuarantine: {out / 'quarantine.json'}",
        {"page": str(page), **result.to_json()},
    )


def check_no_network_options(options: argparse.Namespace, needed: str) -> None:
    """Check that no option of a network is given where there is no network.

    Raises:
        ArgumentError: if there is one.
    """
    for name, default in (("preprocessing", None), ("image_px", None), ("shape", "crop")):
        if getattr(options, name) != default:
            raise ArgumentError(
                f"`--{name.replace('_', '-')}` needs {needed}. Received: no network, whose images "
                "it is for. Leave it out, or name a network."
            )


def extract_features(photos: Any, options: argparse.Namespace, bars: ProgressBars) -> Any:
    """Features of the photos, if a network is named; otherwise None."""
    if options.backbone is None and options.weights is None:
        check_no_network_options(options, "`--backbone` or `--weights`")
        return None
    weights = "imagenet" if options.weights is None else options.weights
    random = weights.lower() == "none"
    if options.backbone is None and random:
        raise ArgumentError(
            "`--weights none` needs `--backbone`. Received: no backbone. Features of random "
            "weights say little about labels: leave `--weights` out, or pass e.g. `--weights "
            "imagenet`."
        )
    return sl.finetune.extract_features(
        photos,
        backbone=one_or_all(options.backbone),
        weights=None if random else weights,
        preprocessing=options.preprocessing,
        image_px=options.image_px,
        shape=options.shape,
        progress=bars,
    )


def sample(options: argparse.Namespace) -> Output:
    """Render sample scenes."""
    with ProgressBars() as bars:
        folder = sl.sample_scenes(
            options.folder,
            options.per_class,
            options.seed,
            progress=bars,
        )
    return Output(
        f"{options.per_class} scenes per class in {folder}",
        {"folder": str(folder), "per_class": options.per_class},
    )
