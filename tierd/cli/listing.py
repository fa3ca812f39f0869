"""`tierctl list`: what the machine has, and who has what of it. Nothing is changed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from tierd.cli import Exit, render
from tierd.cli.arguments import add_json
from tierd.cli.terminal import style_for

DEFAULT_ROWS = 20
MOST_ROWS = 200
"""As many as the daemon gives at a time."""


# The subparsers object is generic over a private class of argparse.
def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``list`` and what it lists; each sets `handler`, which takes the arguments and returns an exit
    status."""
    group = subparsers.add_parser(
        "list",
        help="what the machine has: devices, tiers; and who has it: service classes, processes",
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
    tiers = commands.add_parser(
        "tiers",
        help="memory tiers, fastest first: nodes, use, latency",
        description="Show the memory tiers, fastest first, as tierd sees them.",
    )
    add_json(tiers)
    tiers.set_defaults(handler=_tiers)
    classes = commands.add_parser(
        "classes",
        help="service classes: who has how much DRAM, and whether promises are kept",
        description="Show the service classes of the policy in force, in the order in which their promises"
        " are served. Asks tierd.",
        epilog="Exit status: 0 all promises are kept, 1 one is broken, 3 tierd is not running",
    )
    add_json(classes)
    classes.set_defaults(handler=_classes)
    processes = commands.add_parser(
        "processes",
        help="the largest processes: class, and memory in each kind of tier",
        description="Show the largest processes, with their class and where their memory is. As root, or"
        " where polkit permits org.tierd1.read-processes, everybody's, else your own.",
    )
    processes.add_argument(
        "--class", dest="service_class", metavar="NAME", help="those of this service class alone"
    )
    processes.add_argument(
        "--limit",
        type=_limit,
        default=DEFAULT_ROWS,
        metavar="N",
        help=f"at most so many, 1 to {MOST_ROWS} (default: %(default)s)",
    )
    add_json(processes)
    processes.set_defaults(handler=_processes)


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_ROWS:
        raise argparse.ArgumentTypeError(f"not a number from 1 to {MOST_ROWS}: {text!r}")
    return int(text)


def _devices(arguments: argparse.Namespace) -> Exit:
    # reads the machine itself, which takes more imports than asking tierd
    from tierd.cli.devices import show_this_machine

    text, status = show_this_machine(None if arguments.json else style_for(sys.stdout, os.environ))
    print(text)
    return status


def _tiers(arguments: argparse.Namespace) -> Exit:
    from tierd.cli.client import Client

    found = render.plain(Client().status())["tiers"]
    if arguments.json:
        _show_json("tiers", found)
    else:
        print("\n".join(render.tiers(found, style_for(sys.stdout, os.environ))))
    return Exit.OK


def _classes(arguments: argparse.Namespace) -> Exit:
    from tierd.cli.client import Client

    found = render.plain(Client().status())["classes"]
    if arguments.json:
        _show_json("classes", found)
    else:
        print(render.classes(found, style_for(sys.stdout, os.environ)))
    return Exit.FAILED if any(one["broken"] for one in found) else Exit.OK


def _processes(arguments: argparse.Namespace) -> Exit:
    from tierd.cli.client import Client

    found = render.plain(Client().processes(arguments.limit, arguments.service_class))
    if arguments.json:
        _show_json("processes", found)
    else:
        more = len(found) == arguments.limit < MOST_ROWS
        everybody = os.geteuid() == 0 or any(row["uid"] != os.getuid() for row in found)
        print(render.processes(found, style_for(sys.stdout, os.environ), more=more, everybody=everybody))
    return Exit.OK


def _show_json(name: str, found: Any) -> None:
    print(json.dumps({name: found}, indent=2))
