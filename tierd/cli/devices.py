"""`tierctl list devices`: the machine's memory in one picture, straight from the kernel. Changes nothing."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from tierd.cli import Exit
from tierd.cli.arguments import add_json
from tierd.cli.device_text import devices
from tierd.cli.render import Style
from tierd.cli.terminal import style_for
from tierd.core.picture_text import picture_document
from tierd.kernel.intents import DEFAULT_PATH
from tierd.kernel.paths import Root
from tierd.kernel.picture import take_picture
from tierd.kernel.tools import Tools


# The subparsers object is generic over a private class of argparse.
def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``list`` and what it lists; each sets `handler`, which takes the arguments and returns an exit
    status."""
    group = subparsers.add_parser(
        "list",
        help="what the machine has: persistent memory, dax devices, memory blocks, nodes, tiers",
        description="Show what the machine has, and what tierd could do with it. Nothing is changed.",
    )
    commands = group.add_subparsers(dest="list_command", metavar="COMMAND", required=True)
    listing = commands.add_parser(
        "devices",
        help="DIMMs, regions, namespaces, dax devices, memory blocks, nodes and tiers",
        description="Show every device that memory is made of, who uses it, what tierd could do with it and"
        " why not. Shows more as root, and needs ndctl for persistent memory.",
        epilog="Exit status: 0 shown, as far as the reader may see it, 1 something failed",
    )
    add_json(listing)
    listing.set_defaults(handler=_devices)


def _devices(arguments: argparse.Namespace) -> Exit:
    text, status = show(
        Root(), Tools(), DEFAULT_PATH, None if arguments.json else style_for(sys.stdout, os.environ)
    )
    print(text)
    return status


def show(root: Root, tools: Tools, record: Path, style: Style | None) -> tuple[str, Exit]:
    """The picture as text, as JSON without a style, and the exit status. record: tierd's record of
    conversions. Raises TierdError."""
    document = picture_document(take_picture(root, tools, record))
    text = json.dumps(document, indent=2) if style is None else devices(document, style)
    return text, Exit.FAILED if document["faults"] else Exit.OK
