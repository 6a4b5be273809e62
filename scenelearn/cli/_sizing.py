"""The command that estimates what networks cost."""

from __future__ import annotations

import argparse
from typing import Any

import scenelearn as sl
from scenelearn._checks import image_size
from scenelearn.cli._options import Output, add_command
from scenelearn.errors import ArgumentError


def add_commands(commands: Any) -> None:
    """Add `size`."""
    add_command(
        commands,
        size,
        "Estimate parameters, multiply-adds and memory of networks, without running them.",
        {
            "networks": {
                "nargs": "+",
                "metavar": "NETWORK",
                "help": "backbone, .keras file, or layers such as 'Conv2D(8, 3), Dense(10)'",
            }
        },
        {
            "--image-px": {
                "help": "side of the square input image in pixels, or HEIGHTxWIDTH (default: the "
                "network's own)"
            },
            "--input-shape": {},
            "--batch-size": {},
            "--optimizer": {},
            "--trainable": {},
            "--dtype": {},
            "--memory": {},
            "--method": {},
        },
    )


def size(options: argparse.Namespace) -> Output:
    """Estimate each network."""
    shape = None
    if options.input_shape is not None and options.image_px is not None:
        raise ArgumentError(
            "`--image-px` must be left out with `--input-shape`, which has the size, too. "
            f"Received: {options.image_px} and {options.input_shape}. Leave one out."
        )
    if options.input_shape is not None:
        sizes = options.input_shape.split(",")
        shape = tuple(int(text) if text.strip().isdecimal() else 0 for text in sizes)
    elif options.image_px is not None:
        shape = (*image_size(options.image_px), 3)
    estimates = [
        sl.estimate(
            network,
            input_shape=shape,
            batch_size=options.batch_size,
            optimizer=options.optimizer,
            trainable="head" if options.trainable == "head" else True,
            dtype=options.dtype,
            method=options.method,
        )
        for network in options.networks
    ]
    memory = options.memory
    batches = () if memory is None else tuple(item.max_batch(memory) for item in estimates)
    values = [estimate.to_json() for estimate in estimates]
    for value, batch in zip(values, batches, strict=False):
        value["max_batch"] = batch
    if len(estimates) > 1:
        limit = None if memory is None else sl.sizing.parse_bytes(memory)
        return Output(str(sl.sizing.NetworkComparison(tuple(estimates), limit, batches)), values)
    text = str(estimates[0])
    if batches:
        text += f"\n\nLargest training batch in {memory}: {batches[0]:,}"
    return Output(text, values[0])
