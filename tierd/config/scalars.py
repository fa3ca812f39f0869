"""Unquoted words in a policy: the readings everybody agrees on, and errors for YAML 1.1's traps."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """A word that is a boolean in YAML 1.1 and text in 1.2, such as ``off``; no value of any key."""

    text: str


_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,19})")
_FRACTION = re.compile(r"-?(?:0|[1-9][0-9]{0,15})\.[0-9]{1,16}")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}

_BOOLEANS = {"y", "yes", "on", "n", "no", "off", "true", "false"}
_NULLS = {"null"}
# A float of YAML 1.1 that is spelled in one of its rarer ways: .5, 5., +5, 1e3.
_ODD_NUMBER = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)(?:[eE][-+]?[0-9]+)?")
_OCTAL = re.compile(r"[-+]?0[0-9_]+|[-+]?0o[0-7_]+")
_BINARY = re.compile(r"[-+]?0b[01_]+")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_NOT_A_NUMBER = re.compile(r"[-+]?\.(?:inf|nan)", re.IGNORECASE)
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?")


def plain(text: str) -> str | int | float | bool | Word | None:
    """The value of the unquoted scalar `text`.

    Decimal integers of up to 20 digits, decimal fractions, true, false, null and text are read, and a Word
    for whoever knows what can stand there; everything else that a YAML 1.1 reader would turn into another
    value than is written raises ValueError, saying what to write. Resolution rules: https://yaml.org/type/
    (bool, int, float, timestamp, merge, value).
    """
    if text in _WORDS:
        return _WORDS[text]
    if text.lower() in _BOOLEANS:
        return Word(text)
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FRACTION.fullmatch(text):
        return float(text)
    reason = _trap(text)
    if reason:
        raise ValueError(reason)
    return text


def _trap(text: str) -> str:
    """Why `text` must not be read as it stands; empty when it is plain text."""
    quoted = f'write "{text}" in quotes if the text is meant'
    if text.lower() in _NULLS:
        return f"`{text}` is no value at all in YAML; remove the line, or {quoted}"
    if _OCTAL.fullmatch(text):
        return f"`{text}` is an octal number in YAML; write it without the leading zero, or {quoted}"
    if _BINARY.fullmatch(text):
        return f"`{text}` is a binary number in YAML; write it in decimal, or {quoted}"
    if _BASE_60.fullmatch(text):
        return f"`{text}` is a number to base 60 in YAML; write a duration such as 30s or 12min, or {quoted}"
    if _NOT_A_NUMBER.fullmatch(text):
        return f"`{text}` is infinite or not a number; write a finite value with its unit, or {quoted}"
    if _DATE.fullmatch(text):
        return f"`{text}` is a date in YAML; {quoted}"
    if text == "=":
        return f"`=` stands for a default value in YAML 1.1; {quoted}"
    if _ODD_NUMBER.fullmatch(text):
        if text.isdigit():
            return f"`{text[:24]}...` is too large a number; at most 20 digits are read"
        return f"`{text}` is read as a number by some and as text by others; write plain digits, or {quoted}"
    return ""
