"""The command line: parse, one public call, print."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
from collections.abc import Sequence

from scenelearn.cli import _before, _fit, _trained
from scenelearn.errors import ArgumentError, SceneLearnError

__all__ = ["main", "parser"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: as typed after ``scenelearn``; None for those of the process.

    Returns:
        The exit code: 0, 1 for a run that failed, 2 for wrong usage, 130 or 143 for one that
        Ctrl-C or SIGTERM ended before there was anything to keep.
    """
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras prints while it downloads
            answer = options.run(options)
        print(json.dumps(answer.value, allow_nan=False) if options.json else answer.text)
    except KeyboardInterrupt as error:
        print("scenelearn: stopped", file=sys.stderr)
        return 143 if "SIGTERM" in error.args else 130
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
    for room in (_fit, _trained, _before):
        room.add(commands)
    return top
