"""Arguments that several commands of tierctl take, in the same words."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import NoReturn

from tierd.cli.terminal import folded
from tierd.core.units import parse_duration


class Parser(argparse.ArgumentParser):
    """One whose errors fit the terminal."""

    def error(self, message: str) -> NoReturn:
        """As argparse's."""
        self.print_usage(sys.stderr)
        self.exit(2, folded(f"{self.prog}: error: {message}\n", sys.stderr))


def add_json(parser: argparse.ArgumentParser, unit: str = "sizes are bytes") -> None:
    """``--json``. unit: what the numbers mean."""
    parser.add_argument("--json", action="store_true", help=f"print one JSON object; {unit}")


def add_draft(parser: argparse.ArgumentParser, name: str) -> None:
    """The policy to look at, as `name`, an option or a positional argument that may be left out. A Path, or
    None for the policy in force."""
    action = parser.add_argument(
        name,
        type=Path,
        metavar="FILE",
        help="that file alone: a draft, whose owner and mode do not matter (default: the policy in force)",
    )
    if not action.option_strings:
        action.nargs, action.required = "?", False


def duration(text: str) -> int:
    """Whole seconds, not fewer than was written. For argparse."""
    try:
        return math.ceil(parse_duration(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def process_number(text: str) -> int:
    """For argparse."""
    if not text.isdecimal() or not 0 < int(text) < 1 << 22:
        raise argparse.ArgumentTypeError(f"not the number of a process: {text!r}")
    return int(text)
