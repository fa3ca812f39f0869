"""Text from elsewhere (process names, paths, kernel files) made fit for the bus and the journal. Pure."""

from __future__ import annotations

LINE_LIMIT = 256
"""Characters of one sentence shown to an operator; a bus reply stays small and a journal line readable."""


def clean(text: str, limit: int = LINE_LIMIT) -> str:
    r"""`text` as one printable line of at most `limit` characters.

    Control characters, separators other than the space, and lone surrogates (a process name that is not
    UTF-8) become escapes such as ``\x1b``: a lone surrogate makes GDBus send no reply at all, and a control
    character turns a journal message into an array of bytes. What is cut off is marked with ``...``.
    """
    shown = "".join(
        character if character.isprintable() else _escape(character) for character in text[: limit + 1]
    )
    return shown if len(shown) <= limit else shown[: max(limit - 3, 0)] + "..."


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def sentence(parts: list[str]) -> str:
    """Non-empty `parts` joined with a comma."""
    return ", ".join(part for part in parts if part)


def plural(count: int, noun: str, more: str = "") -> str:
    """``1 process``, ``3 processes``; `more` is the plural where it is not `noun` with an s."""
    return f"{count} {noun if count == 1 else more or noun + 's'}"


def size(count: float) -> str:
    """Bytes for people, in binary units: ``412 MiB``, ``1.5 GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.1f} {unit}" if value < 10 and unit != "B" else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
