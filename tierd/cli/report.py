"""`tierctl report`: a page, or a picture, of what tierd has done lately."""

from __future__ import annotations

import argparse
import math
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tierd.cli import Exit, UsageError, render
from tierd.cli.arguments import duration, process_number
from tierd.cli.output import replace
from tierd.cli.since import moment
from tierd.core.text import clean, size
from tierd.core.units import format_duration
from tierd.errors import TierdError

if TYPE_CHECKING:
    from tierd.cli.client import Client
    from tierd.cli.heat_looks import HeatGrid

DEFAULT_SINCE: Final = "1h"
LONGEST: Final = 24 * 3600
"""Seconds: more than tierd remembers."""
DEFAULT_LOOK: Final = 60
"""Seconds."""
ENDINGS: Final = (".html", ".png")
STYLE: Final = render.Style(width=100, unicode=True)
PAGE: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
pre {{ background: #f5f5f5; padding: 1rem; overflow-x: auto; }}
svg {{ width: 100%; height: auto; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{words}</p>
{picture}
{sections}</body>
</html>
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command, with its handler."""
    report = commands.add_parser(
        "report",
        help="a page or a picture of what tierd has done lately",
        description="Write a page to look at: how full the tiers are, what was moved, how much of the placed"
        " memory is in DRAM, over time, and the service classes, with tierd's status and its plan. tierd"
        " remembers two hours, since it was started. With --pid it looks at a process for a while, and adds"
        " how often that uses its memory, by address. It takes matplotlib (python3-matplotlib).",
    )
    report.add_argument(
        "--output", type=Path, metavar="FILE", required=True, help="to write; ends in .html or .png"
    )
    report.add_argument(
        "--since",
        default=DEFAULT_SINCE,
        metavar="TIME",
        help='where to begin, such as "14:00" or 20min (default: %(default)s)',
    )
    report.add_argument(
        "--pid",
        type=process_number,
        metavar="PID",
        help="look at this process as well, and draw how often it uses its memory, by address",
    )
    report.add_argument(
        "--for",
        dest="seconds",
        type=duration,
        metavar="DURATION",
        help=f"how long to look at it, such as 90s or 10min; a day at most (default: {DEFAULT_LOOK}s)",
    )
    report.set_defaults(handler=_report)


def _report(arguments: argparse.Namespace) -> Exit:
    from tierd.cli.client import Client

    path: Path = arguments.output
    if path.suffix not in ENDINGS:
        raise UsageError(f"--output: `{clean(str(path))}` ends neither in .html nor in .png")
    if arguments.pid is None and arguments.seconds is not None:
        raise UsageError("--for: it says how long to look at a process; name one with --pid")
    looking = DEFAULT_LOOK if arguments.seconds is None else arguments.seconds
    if not 1 <= looking <= LONGEST:
        raise UsageError("--for: write a duration of 1s to 24h")
    now = datetime.now().astimezone()
    try:
        since = moment(arguments.since, now)
    except ValueError as error:
        raise UsageError(f"--since: {error}") from None
    client = Client()
    try:
        from tierd.cli import report_picture
    except ImportError:
        raise TierdError(
            "a report takes matplotlib, which is not installed", hint="apt install python3-matplotlib"
        ) from None
    heat = None
    if arguments.pid is not None:
        if not os.access(path.parent, os.W_OK):  # before a minute is spent
            raise TierdError(f"{clean(str(path.parent))}: no directory to write to")
        heat = _look(client, arguments.pid, looking)
        now = datetime.now().astimezone()
    facts = render.plain(client.status())
    past = render.plain(client.history(min(math.ceil((now - since).total_seconds()), LONGEST)))
    title = f"tierd on {clean(socket.gethostname())}, {now:%Y-%m-%d %H:%M %Z}"
    words = _words(past)
    if path.suffix == ".png":
        replace(path, report_picture.png(past, facts["classes"], f"{title}\n{words}", heat))
    else:
        picture = report_picture.svg(past, facts["classes"], heat)
        replace(path, page(title, words, picture, facts, render.plain(client.plan())).encode())
    print(f"{clean(str(path))}: {words}", file=sys.stderr)
    return Exit.OK


def _look(client: Client, pid: int, seconds: int) -> tuple[str, HeatGrid]:
    """What a process is called, and what is seen of it. Says on stderr how far it is. Raises ClientError."""
    from tierd.cli.heat_looks import grid, watch

    name = f"process {pid} ({clean(client.explain(pid)['Command'])})"
    terminal = sys.stderr.isatty()
    said = f"looking at {name} for {format_duration(seconds)}"

    def tell(over: float) -> None:
        if terminal:
            print(f"\r{said}, {over:.0f}s are over ", end="", file=sys.stderr, flush=True)
        elif not over:
            print(said, file=sys.stderr, flush=True)

    try:
        looks, ended = watch(client, pid, seconds, tell)
    finally:
        if terminal:
            print(file=sys.stderr)
    if ended:
        print(f"it ended early, and what was seen is drawn: {clean(ended)}", file=sys.stderr)
    return name, grid(looks)


def page(
    title: str,
    words: str,
    picture: str,
    facts: Mapping[str, Any],
    plan: Sequence[Mapping[str, Any]],
) -> str:
    """The whole page, which needs no other file. picture: SVG. facts, plan: as `render.plain` makes them."""
    sections = [("Status", render.status(facts, STYLE)), ("Plan", render.plan(plan, STYLE))]
    if facts["classes"]:
        sections.insert(1, ("Service classes", render.classes(facts["classes"], STYLE)))
    below = "".join(f"<h2>{name}</h2>\n<pre>{escape(text)}</pre>\n" for name, text in sections)
    return PAGE.format(title=escape(title), words=escape(words), picture=picture, sections=below)


def _words(past: Sequence[Mapping[str, Any]]) -> str:
    """What the steps come to, in a sentence."""
    if not past:
        return "tierd has only just been started, and remembers nothing yet"
    seconds = past[-1]["time"] - past[0]["time"]
    up, down = (sum(row[f"{way}_bytes"] for row in past) for way in ("promoted", "demoted"))
    return f"{size(up)} promoted and {size(down)} demoted in {format_duration(round(seconds))}"
