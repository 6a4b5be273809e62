"""Every argument and option of the command line, so that each reads the same in all commands."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Output(NamedTuple):
    """The result of a command: a page of text, and one JSON value for ``--json``."""

    text: str
    value: Any


def number(text: str) -> int | float:
    """A fraction or a count."""
    return int(text) if text.isdecimal() else float(text)


def preprocessing(text: str) -> str | tuple[Any, Any]:
    """The name of a preprocessing; or mean and standard deviation, one number or three each."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return text
    half = len(numbers) // 2
    mean, std = numbers[:half], numbers[half:]
    return (mean[0], std[0]) if half == 1 and len(std) == 1 else (mean, std)


def costs(text: str) -> Any:
    """What mistakes cost, as JSON."""
    return json.loads(text)


def image_px(text: str) -> int | tuple[int, int]:
    """The side of a square, or HEIGHTxWIDTH."""
    height, separator, width = text.partition("x")
    return (int(height), int(width)) if separator else int(text)


def one_or_all(values: list[str] | None) -> str | list[str] | None:
    """The value of an option that may be given more than once: a list only if it was."""
    return values[0] if values and not values[1:] else values


ARGUMENTS: dict[str, dict[str, Any]] = {
    "bundle": {
        "metavar": "BUNDLE",
        "help": "classifier that `scenelearn fit` saved, such as scenes.keras",
    },
    "folder": {
        "metavar": "FOLDER",
        "help": "folder of photos with one subfolder per class, a ZIP file of one, or a manifest",
    },
}
"""The arguments that several commands have."""

OPTIONS: dict[str, dict[str, Any]] = {
    "--manifest": {
        "metavar": "FILE",
        "help": "CSV or Parquet file that lists the photos and their labels",
    },
    "--quarantine": {
        "metavar": "FILE",
        "help": "quarantine.json of an audit; leave out the photos that it lists",
    },
    "--no-audit": {"action": "store_true", "help": "do not look for duplicates first"},
    "--backbone": {
        "metavar": "NETWORK",
        "action": "append",
        "help": "network of keras.applications, a .keras file, hub:PRESET of KerasHub, or the "
        "folder of a preset",
    },
    "--weights": {
        "metavar": "WEIGHTS",
        "help": "pretrained weights: imagenet, scenelearn, a file, or none",
    },
    "--preprocessing": {
        "metavar": "VALUES",
        "type": preprocessing,
        "help": "pixel values that your own network expects: none, tf, caffe, torch, or mean and "
        "standard deviation, such as 0.5,0.5 (default: as the network tells)",
    },
    "--image-px": {
        "metavar": "N",
        "type": image_px,
        "help": "side of the square input image in pixels, or HEIGHTxWIDTH, such as 120x180",
    },
    "--shape": {
        "choices": ("crop", "pad", "squash"),
        "default": "crop",
        "help": "what happens to photos of other proportions than the input image",
    },
    "--input-shape": {"metavar": "SHAPE", "help": "input shape of layers, such as 200,300,3"},
    "--minutes": {"metavar": "MINUTES", "type": float, "help": "time budget in minutes"},
    "--epochs": {
        "metavar": "N", "type": int, "help": "number of fine-tuning epochs, however long they take",
    },
    "--batch-size": {"metavar": "N", "type": int, "default": 32, "help": "images per batch"},
    "--learning-rate": {
        "metavar": "RATE", "type": float, "help": "peak learning rate of fine-tuning",
    },
    "--augmentation": {
        "metavar": "POLICY",
        "default": "standard",
        "help": "augmentation policy: none, light, standard, strong or trivial",
    },
    "--optimizer": {
        "metavar": "NAME", "default": "adam", "help": "optimizer of keras.optimizers",
    },
    "--trainable": {"choices": ("all", "head"), "default": "all", "help": "layers that train"},
    "--recipe": {
        "metavar": "NAME=VALUE",
        "action": "append",
        "default": [],
        "help": "field of scenelearn.finetune.Recipe, such as soup=4; can be repeated",
    },
    "--teacher": {
        "metavar": "BUNDLE",
        "help": "more accurate classifier of the same classes, from which the network learns",
    },
    "--precision": {
        "choices": ("mixed_bfloat16", "mixed_float16"),
        "help": "train in 16 bits where the device supports it (default: float32)",
    },
    "--class-weight": {
        "choices": ("balanced",), "help": "let rare classes count as much as frequent ones",
    },
    "--objective": {
        "choices": ("accuracy", "balanced_accuracy", "log_loss"),
        "default": "accuracy",
        "help": "what the results lead with; with balanced_accuracy, each class counts the same in "
        "the choice of the weights",
    },
    "--devices": {
        "choices": ("all",), "help": "spread each batch over all devices (default: one device)",
    },
    "--memory": {
        "metavar": "SIZE", "help": 'also print the largest batch that fits, such as in "8 GiB"',
    },
    "--method": {
        "choices": ("textbook", "xla"), "default": "textbook", "help": "how memory is estimated",
    },
    "--broken": {
        "choices": ("skip", "raise"),
        "default": "skip",
        "help": "what to do with photos that cannot be decoded",
    },
    "--validation": {
        "metavar": "N",
        "type": number,
        "default": 0.15,
        "help": "fraction or number of the photos for validation",
    },
    "--test": {
        "metavar": "N",
        "type": number,
        "default": 0.15,
        "help": "fraction or number of the photos for the test",
    },
    "--plan": {"action": "store_true", "help": "print what fit would do, and stop"},
    "--resume": {"action": "store_true", "help": "resume an interrupted run"},
    "--label": {"metavar": "CLASS", "help": "class to explain (default: the predicted class)"},
    "--coverage": {
        "metavar": "FRACTION",
        "type": float,
        "help": "how often prediction sets must contain the true class (default: 0.95)",
    },
    "--costs": {
        "metavar": "JSON",
        "type": costs,
        "help": "what mistakes cost, by true and predicted class, such as "
        '\'{"sea": {"street": 5}}\'; others cost 1',
    },
    "--n-neighbors": {
        "metavar": "N", "type": int, "default": 6, "help": "similar training photos to list",
    },
    "--seconds": {
        "metavar": "SECONDS", "type": float, "default": 5, "help": "how long to measure",
    },
    "--dtype": {
        "choices": ("float32", "float16", "bfloat16", "float64"),
        "default": "float32",
        "help": "type of the weights and activations",
    },
    "--check": {
        "metavar": "PHOTOS", "help": "photos to verify the export on (default: sample scenes)",
    },
    "--quantize": {
        "metavar": "FOLDER",
        "help": "photos of the fit, to write int8 and measure its loss (.tflite only)",
    },
    "--photos": {
        "metavar": "FOLDER", "help": "the training photos, to show the most similar ones",
    },
    "--corrections": {"metavar": "FOLDER"},
    "--export": {"metavar": "FOLDER"},
    "--port": {"metavar": "N", "type": int, "help": "port of the page (default: a free one)"},
    "--no-browser": {"action": "store_true", "help": "do not open a browser"},
    "--n": {"metavar": "N", "type": int, "default": 100, "help": "how many photos to choose"},
    "--csv": {"action": "store_true", "help": "print a CSV table, one row per photo"},
    "--per-class": {"metavar": "N", "type": int, "help": "images per class"},
    "--seed": {"metavar": "N", "type": int, "default": 0, "help": "random seed"},
    "--out": {"metavar": "PATH"},
    "--json": {"action": "store_true", "help": "print one JSON value"},
    "--debug": {"action": "store_true", "help": "show the traceback of an error"},
}  # fmt: skip
"""All options, in the order in which every help lists them."""


def add_command(
    commands: Any,
    run: Callable[[argparse.Namespace], Output],
    summary: str,
    arguments: Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Mapping[str, Any]],
) -> None:
    """Add a command.

    Args:
        commands: what `add_subparsers` returned.
        run: called with the parsed options; the command has its name.
        summary: one imperative sentence.
        arguments: the positional arguments, each with what differs from `ARGUMENTS`.
        options: likewise those of `OPTIONS` that the command has; ``--json`` and ``--debug``
            come by themselves.
    """
    parser = commands.add_parser(run.__name__, help=summary, description=summary)
    parser.set_defaults(run=run)
    for name, changes in arguments.items():
        parser.add_argument(name, **ARGUMENTS.get(name, {}) | dict(changes))
    wanted = {**options, "--json": {}, "--debug": {}}
    for name, shared in OPTIONS.items():
        if name in wanted:
            settings = shared | dict(wanted[name])
            if settings.get("default") not in (None, []) and "(default" not in settings["help"]:
                settings["help"] += " (default: %(default)s)"
            parser.add_argument(name, **settings)
