"""`tierctl list devices`: the machine's memory in one picture, straight from the kernel; and `tierctl list
classes`, as tierd tells it. Neither changes anything."""

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
        help="what the machine has: persistent memory, nodes, tiers; and the service classes",
        description="Show what the machine has, what tierd could do with it, and who has what. Nothing is"
        " changed.",
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
    classes = commands.add_parser(
        "classes",
        help="service classes: who has how much DRAM, and whether promises are kept",
        description="Show the service classes of the policy in force, in the order in which their promises"
        " are served. Asks tierd.",
        epilog="Exit status: 0 all promises are kept, 1 one is broken, 3 tierd is not running",
    )
    add_json(classes)
    classes.set_defaults(handler=_classes)


def _devices(arguments: argparse.Namespace) -> Exit:
    text, status = show(
        Root(), Tools(), DEFAULT_PATH, None if arguments.json else style_for(sys.stdout, os.environ)
    )
    print(text)
    return status


def _classes(arguments: argparse.Namespace) -> Exit:
    from tierd.cli import render
    from tierd.cli.client import Client

    found = render.plain(Client().status())["classes"]
    if arguments.json:
        print(json.dumps({"classes": found}, indent=2))
    else:
        print(render.classes(found, style_for(sys.stdout, os.environ)))
    return Exit.FAILED if any(one["broken"] for one in found) else Exit.OK


def show(root: Root, tools: Tools, record: Path, style: Style | None) -> tuple[str, Exit]:
    """The picture as text, as JSON without a style, and the exit status. record: tierd's record of
    conversions. Raises TierdError."""
    document = picture_document(take_picture(root, tools, record))
    text = json.dumps(document, indent=2) if style is None else devices(document, style)
    return text, Exit.FAILED if document["faults"] else Exit.OK
