"""Text for people: what comes from elsewhere (process names, paths, kernel files) made fit to be shown,
counts and sizes in words. Used by the bus, the journal, the terminal and the messages about policies."""

from __future__ import annotations

import re
from collections.abc import Iterable

LINE_LIMIT = 256
"""Characters of one sentence shown to an operator; a bus reply stays small and a journal line readable."""


def clean(text: str, limit: int | None = LINE_LIMIT) -> str:
    r"""`text` as one printable line of at most `limit` characters, None for as many as there are.

    Control characters, separators other than the space, and lone surrogates (a process name that is not
    UTF-8) become escapes such as ``\x1b``: they move a terminal's cursor, a lone surrogate makes GDBus send
    no reply at all, and a control character turns a journal message into an array of bytes. What is cut off
    is marked with ``...``.
    """
    taken = text if limit is None else text[: limit + 1]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in taken)
    return shown if limit is None or len(shown) <= limit else shown[: max(limit - 3, 0)] + "..."


def sentence(parts: list[str]) -> str:
    """Non-empty `parts` joined with a comma."""
    return ", ".join(part for part in parts if part)


def in_order(name: str) -> list[str | int]:
    """A key that sorts names with numbers as people do: ``dax0.9`` before ``dax0.10``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def plural(count: int, noun: str) -> str:
    """``1 page``, ``2 pages``, ``2 processes``."""
    return f"{count} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def size(count: float) -> str:
    """Bytes in binary units and at most three digits: ``412 MiB``, ``1.5 GiB``. For exact ones see
    core.units."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000:
            return f"{value:.1f} {unit}" if value < 10 and unit != "B" else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as the kernel prints them: ``0-2,5``; a dash when there is none."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found) or "-"
