"""What the terminal that tierctl writes to can show."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TextIO

from tierd.cli.render import Style

YELLOW, RED, GREEN, BOLD = "\x1b[33m", "\x1b[31m", "\x1b[32m", "\x1b[1m"


def style_for(stream: TextIO, environment: Mapping[str, str]) -> Style:
    """What may be printed to `stream`: colour on a terminal only, unless NO_COLOR or TERM=dumb say no."""
    terminal = stream.isatty()
    return Style(
        width=max(40, min(shutil.get_terminal_size((80, 24)).columns, 120)) if terminal else 80,
        colour=terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb",
        unicode=(stream.encoding or "").lower().replace("-", "") == "utf8",
    )


def shows_utf8(environment: Mapping[str, str]) -> bool:
    """Whether the locale is one of UTF-8, as the user chose it. Where it is C, Python writes UTF-8 all the
    same, and has put that into LC_CTYPE (PEP 538)."""
    name = environment.get("LC_ALL") or environment.get("LC_CTYPE") or ""
    if not name or (name == "C.UTF-8" and not environment.get("LC_ALL")):
        name = environment.get("LANG", "")
    return name.lower().replace("-", "").split("@")[0].endswith(".utf8")
