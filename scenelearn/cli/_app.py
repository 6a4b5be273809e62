"""The commands that serve a page: try a classifier."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import scenelearn as sl
from scenelearn._progress import ProgressBars
from scenelearn.cli._options import Output, add_command


def add_commands(commands: Any) -> None:
    """Add `app`."""
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


def app(options: argparse.Namespace) -> Output:
    """Serve a page to try a classifier, or export it."""
    if options.export is not None:
        folder = sl.app.export(options.bundle, options.export)
        return Output(f"App: {folder}", {"folder": str(folder)})
    corrections = options.corrections or Path(options.bundle).with_name("corrections")
    server = sl.app.serve(
        sl.load(options.bundle),
        photos=options.photos,
        corrections=corrections,
        port=options.port,
        open_browser=not options.no_browser,
    )
    return _wait(server, f"Corrections are saved in {corrections}")


def _wait(server: sl.app.Server, text: str) -> Output:
    """Serve until Ctrl-C."""
    with ProgressBars() as bars:
        bars.say(f"{server.url} (Ctrl-C ends it)")
        server.wait()
    return Output(text, {"url": server.url})
