"""`tierctl top`: what tierd is doing, again and again."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tierd.cli import Exit
from tierd.cli.render import plain
from tierd.cli.terminal import style_for

if TYPE_CHECKING:
    from tierd.cli.client import Client
    from tierd.cli.render import Style
    from tierd.cli.top_frame import Sight

SHORTEST, LONGEST = 0.1, 3600.0
"""Seconds from one look at the daemon to the next."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command, with its handler."""
    top = commands.add_parser(
        "top",
        help="what tierd is doing, as a live view",
        description="Show the state of tierd, its tiers, classes and last plan, again and again. Keys: q"
        " quits, space pauses, + and - change the interval. Where there is no terminal it prints.",
    )
    top.add_argument(
        "--interval",
        type=_seconds,
        default=1.0,
        metavar="SECONDS",
        help=f"from one look to the next, {SHORTEST:g} to {LONGEST:g} (default: 1)",
    )
    top.add_argument("--batch", action="store_true", help="print one picture below the other")
    top.add_argument(
        "-n", "--count", type=_count, metavar="COUNT", help="print so many, and end (implies --batch)"
    )
    top.set_defaults(handler=_top)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not SHORTEST <= found <= LONGEST:
        raise argparse.ArgumentTypeError(f"not {SHORTEST:g} to {LONGEST:g} seconds: {text!r}")
    return found


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < len(text) < 10 or int(text) == 0:
        raise argparse.ArgumentTypeError(f"not a number of pictures: {text!r}")
    return int(text)


class Asker:
    """Looks at the daemon over a connection that it makes anew when it fails.

    connect: by default to the system bus; raises ClientError, as the methods of what it makes do.
    """

    def __init__(self, connect: Callable[[], Client] | None = None) -> None:
        self._connect = connect
        self._client: Client | None = None
        self.status = Exit.OK
        """What the last look would exit with."""

    def __call__(self) -> Sight:
        from tierd.cli.client import Client, ClientError
        from tierd.cli.top_frame import Sight

        try:
            if self._client is None:
                self._client = (self._connect or Client)()
            facts, steps = plain(self._client.status()), plain(self._client.plan())
        except ClientError as error:
            if error.status is Exit.USAGE:
                raise
            self._client, self.status = None, error.status
            down = error.status is Exit.NOT_RUNNING
            problem = "" if str(error) == "tierd is not running" else str(error)
            return Sight(state="not running" if down else "no answer", problem=problem, hint=error.hint)
        self.status = Exit.OK
        return Sight(facts, steps, time.monotonic(), time.strftime("%H:%M:%S"))


def _top(arguments: argparse.Namespace) -> int:
    style = style_for(sys.stdout, os.environ)
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if arguments.batch or arguments.count or not terminal:
        return batch(Asker(), style, arguments.interval, arguments.count)
    from tierd.cli.live_terminal import LiveTerminal
    from tierd.cli.top_loop import run

    with LiveTerminal(sys.stdin.fileno(), sys.stdout.fileno()) as screen:
        ended = run(Asker(), screen, style, arguments.interval)
    if ended is None:
        return Exit.OK
    # by the signal itself, for whoever waits for this process to know
    signal.signal(ended, signal.SIG_DFL)
    os.kill(os.getpid(), ended)
    return 128 + ended


def batch(look: Asker, style: Style, interval: float, count: int | None) -> Exit:
    """Print `count` pictures, None for as long as it lasts. Returns what the last look would exit with."""
    from tierd.cli.top_frame import Sight, Size, frame
    from tierd.cli.top_loop import follow

    now, before, done = Sight(), None, 0
    while True:
        began = time.monotonic()
        now, before = follow(now, look()), now if now.facts and not now.state else None
        if done:
            print()
        print(*frame(now, before, Size(style.width, None), style), sep="\n", flush=True)
        done += 1
        if done == count:
            return look.status
        time.sleep(max(began + interval - time.monotonic(), 0.0))
