"""The commands that tell the running daemon to do something: pause, resume, reload."""

from __future__ import annotations

import argparse

from tierd.cli import Exit
from tierd.cli.arguments import duration
from tierd.core.units import format_duration

DEFAULT_PAUSE = "10min"


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands, with their handlers."""
    pause = commands.add_parser(
        "pause",
        help="move nothing for a while",
        description="Have tierd move nothing for a while; it goes on to see who uses what. Memory stays"
        " where it is. A pause ends by itself, by `tierctl resume`, or when tierd is started again.",
    )
    pause.add_argument(
        "duration",
        type=duration,
        nargs="?",
        default=DEFAULT_PAUSE,
        metavar="DURATION",
        help="such as 90s, 10min or 2h; a day at most (default: %(default)s)",
    )
    pause.set_defaults(handler=_pause)

    resume = commands.add_parser(
        "resume", help="end a pause", description="End a pause before its time. Does nothing without one."
    )
    resume.set_defaults(handler=_resume)

    reload = commands.add_parser(
        "reload",
        help="put a changed policy in force",
        description="Have tierd read its policy again, and print every problem in it. A policy that is bad"
        " is refused, and the older one stays in force. `systemctl reload tierd` also carries out the"
        " requests for memory that have been started.",
    )
    reload.set_defaults(handler=_reload)


def _pause(arguments: argparse.Namespace) -> Exit:
    from tierd.cli.client import Client

    Client().pause(arguments.duration)
    print(f"nothing is moved for {format_duration(arguments.duration)}; tierctl resume ends it")
    return Exit.OK


def _resume(_arguments: argparse.Namespace) -> Exit:
    from tierd.cli.client import Client

    Client().resume()
    return Exit.OK


def _reload(_arguments: argparse.Namespace) -> Exit:
    from tierd.cli.client import Client

    Client().reload()
    return Exit.OK
