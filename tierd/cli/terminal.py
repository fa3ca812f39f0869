"""What the terminal that tierctl writes to can show."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Mapping
from typing import Final, TextIO

from tierd.cli.render import Style

COMMAND_INDENT: Final = 7
"""Spaces before a command in a plan, which stays on one line, to be copied."""
_LEAD: Final = re.compile(r" *(?:- |[0-9]+\. |(?<= )\S+(?: \S+)* {2,})?")
"""What stands before the text of a line: spaces, and with them a dash, a number or the name of a field."""
YELLOW, RED, GREEN, BOLD = "\x1b[33m", "\x1b[31m", "\x1b[32m", "\x1b[1m"


def style_for(stream: TextIO, environment: Mapping[str, str]) -> Style:
    """What may be printed to `stream`: colour on a terminal only, unless NO_COLOR or TERM=dumb say no, and
    more than ASCII where the locale has it."""
    terminal = stream.isatty()
    return Style(
        width=max(40, min(shutil.get_terminal_size((80, 24)).columns, 120)) if terminal else 80,
        colour=terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb",
        unicode=(stream.encoding or "").lower().replace("-", "") == "utf8" and shows_utf8(environment),
    )


def folded(text: str, stream: TextIO) -> str:
    """`text` as it is printed to `stream`: on a terminal that is narrower, lines of prose go on below where
    their text began. Words are not broken, nor commands, nor what goes to a pipe."""
    if not stream.isatty():
        return text
    width = max(40, shutil.get_terminal_size((80, 24)).columns)
    return "\n".join(_folded(line, width) for line in text.split("\n"))


def _folded(line: str, width: int) -> str:
    if len(line) <= width or line.startswith(" " * COMMAND_INDENT):
        return line
    lead = _LEAD.match(line)
    first = lead[0] if lead and len(lead[0]) <= width // 2 else ""
    return textwrap.fill(
        line[len(first) :],
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def shows_utf8(environment: Mapping[str, str]) -> bool:
    """Whether the locale is one of UTF-8, as the user chose it. Where it is C, Python writes UTF-8 all the
    same, and has put that into LC_CTYPE (PEP 538)."""
    name = environment.get("LC_ALL") or environment.get("LC_CTYPE") or ""
    if not name or (name == "C.UTF-8" and not environment.get("LC_ALL")):
        name = environment.get("LANG", "")
    return name.lower().replace("-", "").split("@")[0].endswith(".utf8")
