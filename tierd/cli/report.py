"""`tierctl report`: a page, or a picture, of what tierd has done lately."""

from __future__ import annotations

import argparse
import math
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any, Final

from tierd.cli import Exit, UsageError, render
from tierd.cli.output import replace
from tierd.cli.since import moment
from tierd.core.text import clean, size
from tierd.core.units import format_duration
from tierd.errors import TierdError

DEFAULT_SINCE: Final = "1h"
LONGEST: Final = 24 * 3600
"""Seconds: more than tierd remembers."""
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
        " remembers two hours, since it was started. It takes matplotlib (python3-matplotlib).",
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
    report.set_defaults(handler=_report)


def _report(arguments: argparse.Namespace) -> Exit:
    from tierd.cli.client import Client

    path: Path = arguments.output
    if path.suffix not in ENDINGS:
        raise UsageError(f"--output: `{clean(str(path))}` ends neither in .html nor in .png")
    now = datetime.now().astimezone()
    try:
        seconds = (now - moment(arguments.since, now)).total_seconds()
    except ValueError as error:
        raise UsageError(f"--since: {error}") from None
    client = Client()
    facts = render.plain(client.status())
    past = render.plain(client.history(min(math.ceil(seconds), LONGEST)))
    title = f"tierd on {clean(socket.gethostname())}, {now:%Y-%m-%d %H:%M %Z}"
    words = _words(past)
    try:
        from tierd.cli import report_picture
    except ImportError:
        raise TierdError(
            "a report takes matplotlib, which is not installed", hint="apt install python3-matplotlib"
        ) from None
    if path.suffix == ".png":
        replace(path, report_picture.png(past, facts["classes"], f"{title}\n{words}"))
    else:
        picture = report_picture.svg(past, facts["classes"])
        replace(path, page(title, words, picture, facts, render.plain(client.plan())).encode())
    print(f"{clean(str(path))}: {words}", file=sys.stderr)
    return Exit.OK


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
