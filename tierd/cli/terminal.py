"""What the terminal that tierctl writes to can show."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import TextIO

from tierd.cli.render import Style


def style_for(stream: TextIO, environment: Mapping[str, str]) -> Style:
    """What may be printed to `stream`: colour on a terminal only, unless NO_COLOR or TERM=dumb say no."""
    terminal = stream.isatty()
    return Style(
        width=max(40, min(shutil.get_terminal_size((80, 24)).columns, 120)) if terminal else 80,
        colour=terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb",
        unicode=(stream.encoding or "").lower().replace("-", "") == "utf8",
    )
