"""`tierctl list devices`: the machine's memory in one picture, straight from the kernel. Changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

from tierd.cli import Exit
from tierd.cli.device_text import devices
from tierd.cli.render import Style
from tierd.core.picture_text import picture_document
from tierd.kernel.intents import DEFAULT_PATH
from tierd.kernel.paths import Root
from tierd.kernel.picture import take_picture
from tierd.kernel.tools import Tools


def show_this_machine(style: Style | None) -> tuple[str, Exit]:
    """As `show`, of the machine that tierctl runs on."""
    return show(Root(), Tools(), DEFAULT_PATH, style)


def show(root: Root, tools: Tools, record: Path, style: Style | None) -> tuple[str, Exit]:
    """The picture as text, as JSON without a style, and the exit status. record: tierd's record of
    conversions. Raises TierdError."""
    document = picture_document(take_picture(root, tools, record))
    text = json.dumps(document, indent=2) if style is None else devices(document, style)
    return text, Exit.FAILED if document["faults"] else Exit.OK
