"""The commands for what comes before training: look at photos, and at costs."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import scenelearn as sl
from scenelearn._io import ensure_folder
from scenelearn._progress import ProgressBars
from scenelearn.cli._command import Answer, command
from scenelearn.errors import ArgumentError


def add(commands: Any) -> None:
    """Add `audit` and `size`."""
    audit = command(commands, "audit", _audit, "look for copies, leaks and broken photos")
    audit.add_argument("folder", help="photos, one folder a class, or a .zip of them")
    audit.add_argument("--manifest", help="a .csv or .parquet that lists the photos of the folder")
    audit.add_argument("--out", help="folder for a page with the photos, and quarantine.json")
    audit.add_argument("--backbone", help="judge labels by this network's features, too [no]")
    audit.add_argument(
        "--weights", help="of it [imagenet]; alone: judge labels by the network that they are of"
    )
    audit.add_argument("--image-px", type=int, default=160, help="[%(default)d]")

    size = command(commands, "size", _size, "say what networks cost before anything runs")
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


def _audit(options: argparse.Namespace) -> Answer:
    out = ensure_folder(options.out) if options.out else None
    with ProgressBars() as bars:
        photos = sl.scan(options.folder, options.manifest, progress=partial(bars, "scanning"))
        features = None
        if options.backbone is not None or options.weights is not None:
            weights = "imagenet" if options.weights is None else options.weights
            if options.backbone is None and weights.lower() == "none":
                raise ArgumentError(
                    "`--weights none` needs `--backbone`. Received: no backbone. Random weights "
                    "know nothing of photos: leave `--weights` out, or pass e.g. `--weights "
                    "imagenet`."
                )
            features = sl.finetune.features(
                photos,
                backbone=options.backbone,
                weights=None if weights.lower() == "none" else weights,
                image_px=options.image_px,
                progress=bars,
            )
        found = sl.audit(photos, features=features, progress=partial(bars, "looking"))
    if out is None:
        return Answer(str(found), found.to_json())
    page = sl.report(found, out)
    value = {"page": str(page), **found.to_json()}
    return Answer(f"{found}\nPage: {page}\nQuarantine: {out / 'quarantine.json'}", value)


def _size(options: argparse.Namespace) -> Answer:
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
    return Answer("\n\n".join(texts), values[0] if len(values) == 1 else values)
