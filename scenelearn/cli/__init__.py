"""The command line: parse the arguments, make one public call, print its result."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from typing import NoReturn

import scenelearn as sl
from scenelearn._display import printable, printable_lines
from scenelearn.cli import _app, _classifier, _fit, _photos, _sizing
from scenelearn.cli._streams import safe_streams
from scenelearn.errors import ArgumentError, SceneLearnError

__all__ = ["main", "parser"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: as typed after ``scenelearn``; None for those of the process.

    Returns:
        The exit code: 0 for success, 1 for a failure, 2 for wrong usage, 130 or 143 if Ctrl-C or
        SIGTERM ended the command before there was a result.
    """
    with safe_streams():
        options = parser().parse_args(arguments)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # Keras prints while it downloads
                output = options.run(options)
            text = json.dumps(output.value, allow_nan=False) if options.json else output.text
        except KeyboardInterrupt as error:
            print("scenelearn: stopped", file=sys.stderr)
            return 143 if "SIGTERM" in error.args else 130
        except Exception as error:
            if options.debug:
                raise
            print(f"scenelearn: {_message(error)}", file=sys.stderr)
            return 2 if isinstance(error, ArgumentError) else 1
        return _print(text)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors cannot steer a terminal by the arguments that they quote."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = _Parser(
        prog="scenelearn",
        description="From a folder of photos to an image classifier that you can trust.",
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {sl.__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in (_photos, _fit, _classifier, _app, _sizing):
        module.add_commands(commands)
    return top


def _print(text: str) -> int:
    """Print a result; the exit code."""
    try:
        print(printable_lines(text), flush=True)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        return 0
    except (OSError, ValueError) as error:
        print(
            f"scenelearn: cannot write to the standard output: {error}. Files that the command "
            "saved are complete.",
            file=sys.stderr,
        )
        return 1
    return 0


def _message(error: Exception) -> str:
    """What to say of an error, as one paragraph."""
    if isinstance(error, SceneLearnError):
        text = f"{error} Help: {error.help_page}"
    else:
        text = f"{type(error).__name__}: {error}"
        if not isinstance(error, OSError):
            text += " This is a bug in scenelearn. Run the command again with --debug to report it."
    return printable(" ".join(text.split()))
