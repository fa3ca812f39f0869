"""Memory pressure (PSI)."""

from __future__ import annotations

import re

from tierd.errors import MalformedError
from tierd.kernel.files import read_text
from tierd.kernel.paths import Root

_SOME = re.compile(r"^some avg10=(\d+\.\d+) ", re.MULTILINE)


def read_memory_pressure(root: Root) -> float:
    """Per cent of the last 10 seconds in which some task waited for memory. Raises GoneError,
    MalformedError."""
    text = read_text(root.memory_pressure)
    match = _SOME.search(text)
    if not match:
        raise MalformedError(f"{root.memory_pressure}: no 'some avg10' in {text[:40]!r}")
    return float(match[1])
