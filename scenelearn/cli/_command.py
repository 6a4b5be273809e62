"""What a command is made of: its options, the function that runs it, and its answer."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What a command has to say: to people, and to machines as one JSON value."""

    text: str
    value: Any


def command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], Answer], text: str
) -> argparse.ArgumentParser:
    """A command with the options that all have, its name and its line of help."""
    one: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    one.set_defaults(run=run)
    one.add_argument("--json", action="store_true", help="print one JSON value, for machines")
    one.add_argument("--debug", action="store_true", help="show where an error comes from")
    return one
