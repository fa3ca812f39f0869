"""`tierctl history`: what tierd did and why, from the journal."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tierd.cli import Exit, UsageError
from tierd.cli.arguments import add_json
from tierd.cli.render import Style, table, wrap
from tierd.cli.terminal import RED, YELLOW, style_for
from tierd.core.text import clean

if TYPE_CHECKING:
    from tierd.cli.journal_entries import Entry

DEFAULT_LINES = 50

EVENTS = (
    *("started", "stopped", "restarting", "state-changed", "degraded", "holding", "tier-appeared"),
    *("tier-vanished", "tier-resized", "memory-mode", "moved", "feature-missing", "feature-returned"),
    "promise-broken",
    *("promise-kept", "policy-adopted", "policy-odd", "policy-rejected", "start-failed", "engine-failed"),
    *("engine-stalled", "source-chosen", "bus-lost", "bus-connected", "noted", "traced", "internal-error"),
    *("conversion-begun", "conversion-draining", "conversion-step-done", "conversion-done"),
    *("conversion-planned", "conversion-refused", "conversion-failed", "conversion-noted"),
    *("conversion-restored", "conversion-held", "drained", "drain-failed", "device-appeared"),
    *("device-not-read", "cxl-device-appeared", "protected", "released", "not-protected"),
    "setting-left",
)
"""What TIERD_EVENT may be: the kinds of the daemon and of each of its one-shot programs. A test holds this
against theirs."""

_WARNING, _ERROR = 4, 3


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command, with its handler."""
    history = commands.add_parser(
        "history",
        help="what tierd did, and why, from the journal",
        description="Show what tierd wrote to the journal, oldest first: what was moved, which state it"
        " entered and why, which promises were broken. Works without the daemon.",
    )
    history.add_argument(
        "--since",
        metavar="TIME",
        help='such as "2026-11-30 14:00", 14:00, today, yesterday, "1h ago" or 90s',
    )
    history.add_argument(
        "-n",
        "--lines",
        metavar="LINES",
        default=str(DEFAULT_LINES),
        help="the newest of them, or all (default: %(default)s)",
    )
    history.add_argument(
        "--event",
        choices=EVENTS,
        metavar="NAME",
        action="append",
        default=[],
        help="events of this kind; may be repeated",
    )
    add_json(history, "times are ISO 8601, and values are text as in the journal")
    history.set_defaults(handler=_history)


def lines_of(text: str) -> int | None:
    """How many entries `text` asks for, None for all. Raises UsageError."""
    if text == "all":
        return None
    if not text.isascii() or not text.isdecimal() or not 0 < len(text) < 10 or int(text) == 0:
        raise UsageError(f"-n: `{clean(text, 60)}` is not a number of entries; write 1 or more, or all")
    return int(text)


def document(found: Sequence[Entry]) -> dict[str, Any]:
    """`tierctl history --json`."""
    return {
        "entries": [
            {
                "time": entry.time.isoformat(timespec="microseconds"),
                "event": entry.event,
                "priority": entry.priority,
                "message": entry.message,
                "fields": dict(entry.fields),
            }
            for entry in found
        ]
    }


def text(found: Sequence[Entry], style: Style, *, wrapped: bool = True) -> str:
    """`tierctl history` for people. wrapped: to the width of `style`; else an entry is one line."""
    rows, colours = [("TIME", "EVENT", "MESSAGE")], [""]
    width = max([len(entry.event) for entry in found], default=0)
    for entry in found:
        colour = RED if entry.priority <= _ERROR else YELLOW if entry.priority <= _WARNING else ""
        lines = wrap(entry.message, style, 19 + 2 + width + 2) if wrapped else [clean(entry.message, None)]
        rows.append((f"{entry.time:%Y-%m-%d %H:%M:%S}", clean(entry.event), lines[0]))
        rows += [("", "", line) for line in lines[1:]]
        colours += [colour] * len(lines)
    shown = table(rows, "lll", style)
    return "\n".join(
        style.paint(colour, line) if colour else line for line, colour in zip(shown, colours, strict=True)
    )


def _history(arguments: argparse.Namespace) -> Exit:
    most = lines_of(arguments.lines)
    from datetime import datetime

    from tierd.cli.journal_entries import newest, open_journal
    from tierd.cli.since import moment

    since = None
    if arguments.since is not None:
        try:
            since = moment(arguments.since, datetime.now().astimezone())
        except ValueError as error:
            raise UsageError(f"--since: {error}") from None
    found, older = newest(open_journal(), most=most, since=since, events=arguments.event, users=_own_users())
    if arguments.json:
        print(json.dumps(document(found), indent=2))
    elif found:
        print(text(found, style_for(sys.stdout, os.environ), wrapped=sys.stdout.isatty()))
    else:
        print("The journal has no such entry of tierd.")
    if older and since is not None:
        print(f"tierctl: the newest {most} are shown; -n all shows the older ones too", file=sys.stderr)
    return Exit.OK


def _own_users() -> tuple[int, ...]:
    """Who writes as tierd: root's one-shot programs, and the daemon's user."""
    import pwd

    try:
        return (0, pwd.getpwnam("tierd").pw_uid)
    except KeyError:
        return (0,)
