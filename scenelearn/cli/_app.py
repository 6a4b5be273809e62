"""The commands that serve a page: try a classifier, and clean photos."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import scenelearn as sl
from scenelearn._progress import ProgressBars
from scenelearn.cli._options import Output, add_command, one_or_all
from scenelearn.cli._photos import check_no_network_options, extract_features
from scenelearn.errors import ArgumentError


def add_commands(commands: Any) -> None:
    """Add `app` and `clean`."""
    add_command(
        commands,
        app,
        "Serve a page to try a classifier: drop, paste or take photos.",
        {"bundle": {}},
        {
            "--photos": {},
            "--corrections": {
                "help": "folder to save photos in whose class you correct "
                "(default: corrections, next to the bundle)",
            },
            "--export": {
                "help": "write a folder that runs on a host for Gradio apps, and stop",
            },
            "--port": {},
            "--no-browser": {},
        },
    )
    add_command(
        commands,
        clean,
        "Decide about the findings of an audit, photo by photo, in the browser.",
        {"folder": {}},
        {
            "--manifest": {},
            "--backbone": {"help": "network that finds label issues (default: as of --weights)"},
            "--weights": {
                "default": "imagenet",
                "help": "its pretrained weights; none finds no label issues",
            },
            "--preprocessing": {},
            "--image-px": {},
            "--shape": {},
            "--port": {},
            "--no-browser": {},
        },
    )


def app(options: argparse.Namespace) -> Output:
    """Serve a page to try a classifier, or export it."""
    if options.export is not None:
        for name in ("photos", "corrections", "port"):
            if getattr(options, name) is not None:
                raise ArgumentError(
                    f"`--{name}` must be left out with `--export`, which serves nothing. Received: "
                    "both. Leave one out."
                )
        folder = sl.app.export(options.bundle, options.export)
        return Output(f"App: {folder}", {"folder": str(folder)})
    corrections = options.corrections or Path(options.bundle).parent / "corrections"
    server = sl.app.serve(
        sl.load(options.bundle),
        photos=options.photos,
        corrections=corrections,
        port=options.port,
        open_browser=not options.no_browser,
    )
    return _wait(server, f"Corrections are saved in {corrections}")


def clean(options: argparse.Namespace) -> Output:
    """Audit a folder, and serve a page to decide about the findings."""
    with ProgressBars() as bars:
        photos = sl.scan(options.folder, options.manifest, progress=bars)
        features = None
        if options.weights.lower() != "none":
            features = extract_features(photos, options, bars)
        elif options.backbone is None:
            check_no_network_options(options, "other `--weights` than none")
        else:
            raise ArgumentError(
                "`--backbone` needs other `--weights` than none, with which no label issues are "
                f"found. Received: --backbone {one_or_all(options.backbone)}. Leave one out."
            )
        audit = sl.audit(photos, features=features, progress=bars)
    server = sl.app.clean(audit, port=options.port, open_browser=not options.no_browser)
    return _wait(server, "Decisions are saved. Next: scenelearn fit, which honors them")


def _wait(server: sl.app.Server, text: str) -> Output:
    """Serve until Ctrl-C."""
    with ProgressBars() as bars:
        bars.say(f"{server.url} (Ctrl-C ends it)")
        server.wait()
    return Output(text, {"url": server.url})
