"""Sizes, rates, durations and shares as operators write them: a number with a unit, never a bare one.

Every parser raises ValueError with a message that begins with what is wrong and says what to write instead;
it is fit to stand after ``FILE:LINE:COLUMN: PATH: ``. Called by config/ for the policy, and by cli/ for
arguments.
"""

from __future__ import annotations

import re
from fractions import Fraction

from tierd.core.text import clean

SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
"""Bytes in each unit of size (IEC 80000-13): memory is mapped and onlined in powers of two."""

DURATION_UNITS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000}
"""Milliseconds in each unit of time."""

MAXIMUM_SIZE = (1 << 63) - 1
"""Bytes. The largest size the kernel's own signed counters can hold."""

MAXIMUM_DURATION = 366 * 24 * DURATION_UNITS["h"]
"""Milliseconds. A year: whatever is longer is a slip."""

LIKELY_BYTES = 1 << 20
"""A bare number from here on is taken for bytes: as MiB it would be a TiB or more."""

_NUMBER = re.compile(r"(?P<number>[0-9]{1,19}(?:\.[0-9]{1,9})?)(?P<space>\s*)(?P<unit>.*)", re.DOTALL)
_BARE = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?")

# What people write instead of the unit they mean; compared in lower case.
_SIZE_WORDS = {
    **dict.fromkeys(("b", "byte", "bytes"), "B"),
    **dict.fromkeys(("k", "kb", "ki", "kib"), "KiB"),
    **dict.fromkeys(("m", "mb", "mi", "mib"), "MiB"),
    **dict.fromkeys(("g", "gb", "gi", "gib"), "GiB"),
    **dict.fromkeys(("t", "tb", "ti", "tib"), "TiB"),
}
_DURATION_WORDS = {
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
}


def parse_size(text: str) -> int:
    """Bytes meant by `text`: an integer followed at once by B, KiB, MiB, GiB or TiB, for example ``512MiB``.

    Raises ValueError when the unit is missing or another one, the number is not whole, or the size is above
    MAXIMUM_SIZE.
    """
    amount = _scaled(text, SIZE_UNITS, _SIZE_WORDS, "a size", "512MiB")
    if amount > MAXIMUM_SIZE:
        raise ValueError(f"{_shown(text)} is larger than any memory; the limit is {MAXIMUM_SIZE} bytes")
    return amount


def parse_rate(text: str) -> int:
    """Bytes a second meant by `text`: a size and ``/s``, for example ``512MiB/s``. Raises ValueError."""
    size, slash, second = text.partition("/")
    if not slash and _BARE.fullmatch(text):
        raise ValueError(
            f"{_shown(text)} is a bare number; write a rate with its unit, for example {text}MiB/s"
        )
    try:
        amount = parse_size(size)
    except ValueError:
        suggestion = _suggestion(size.strip(), SIZE_UNITS, _SIZE_WORDS)
        wanted = f"write {suggestion}/s" if suggestion else "write a size and /s, for example 512MiB/s"
        raise ValueError(f"{_shown(text)} is not a rate; {wanted}") from None
    if second != "s":
        raise ValueError(f"{_shown(text)} is not a rate; write {size}/s")
    return amount


def parse_duration(text: str) -> float:
    """Seconds meant by `text`: an integer followed at once by ms, s, min or h, for example ``30s``.

    Raises ValueError when the unit is missing or another one, the number is not whole, or it is over a year.
    """
    milliseconds = _scaled(text, DURATION_UNITS, _DURATION_WORDS, "a duration", "30s")
    if milliseconds > MAXIMUM_DURATION:
        raise ValueError(f"{_shown(text)} is longer than a year")
    return milliseconds / 1000


def parse_share(text: str) -> float:
    """Per cent (0..100) meant by `text`, for example ``40%`` or ``12.5%``. Raises ValueError."""
    if _BARE.fullmatch(text):
        raise ValueError(f"{_shown(text)} is a bare number; {_share_for(float(text))}")
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,2})?)%", text)
    if match is None:
        raise ValueError(f"{_shown(text)} is not a share; write per cent from 0% to 100%, for example 40%")
    share = float(match[1])
    if share > 100:
        raise ValueError(f"{_shown(text)} is more than 100%")
    return share


def format_size(size: int) -> str:
    """`size` bytes (0 or more) as parse_size reads it, exactly, in the largest unit that divides it."""
    return _divided(size, SIZE_UNITS)


def format_rate(rate: int) -> str:
    """`rate` bytes a second as parse_rate reads it, exactly."""
    return f"{format_size(rate)}/s"


def format_duration(seconds: float) -> str:
    """`seconds` (0 or more) as parse_duration reads it, to the millisecond, in the largest fitting unit."""
    milliseconds = round(seconds * 1000)
    return "0s" if milliseconds == 0 else _divided(milliseconds, DURATION_UNITS)


def format_share(share: float) -> str:
    """`share` per cent (0..100) as parse_share reads it, to a hundredth of a per cent."""
    return f"{share:.2f}".rstrip("0").rstrip(".") + "%"


def _divided(amount: int, units: dict[str, int]) -> str:
    """`amount` in the largest of `units` that divides it; the unit of 1 for 0."""
    if amount < 0:
        raise ValueError(f"{amount} is negative")
    fitting = [unit for unit, scale in units.items() if amount and amount % scale == 0]
    unit = fitting[-1] if fitting else next(iter(units))
    return f"{amount // units[unit]}{unit}"


def _scaled(text: str, units: dict[str, int], words: dict[str, str], what: str, example: str) -> int:
    """`text` in the smallest of `units`. Raises ValueError, with a suggestion where one can be guessed."""
    match = _NUMBER.fullmatch(text)
    if match and not match["space"] and match["unit"] in units and "." not in match["number"]:
        return int(match["number"]) * units[match["unit"]]
    if _BARE.fullmatch(text):
        number = text.lstrip("+-")
        if units is DURATION_UNITS:
            example = f"{number}s"
        elif number.isdecimal() and int(number) >= LIKELY_BYTES:
            example = format_size(int(number))
        else:
            example = f"{number}MiB" if text != "0" else "0B"
        raise ValueError(
            f"{_shown(text)} is a bare number; write {what} with its unit, for example {example}"
        )
    suggestion = _suggestion(text, units, words)
    if suggestion:
        raise ValueError(f"{_shown(text)} is not {what}; write {suggestion}")
    known = ", ".join(units)
    raise ValueError(
        f"{_shown(text)} is not {what}; write a whole number and one of {known}, for example {example}"
    )


def _suggestion(text: str, units: dict[str, int], words: dict[str, str]) -> str:
    """What was probably meant by `text`, as the parsers accept it; empty when nothing fits."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return ""
    unit = match["unit"].strip()
    unit = unit if unit in units else words.get(unit.lower(), "")
    if not unit:
        return ""
    amount = Fraction(match["number"]) * units[unit]
    if "." not in match["number"]:
        return f"{match['number']}{unit}"
    return _divided(int(amount), units) if amount.denominator == 1 else ""


def _share_for(number: float) -> str:
    """How to write the share that was probably meant by a number without a sign."""
    if 0.0001 <= number < 1:  # to a hundredth of a per cent
        of_one = format_share(number * 100)
        return f"write a share with its sign: as a share of one it is {of_one}"
    if number == 1:
        return "write a share with its sign: 100% if it is a share of one, else 1%"
    example = format_share(number) if 0 <= number <= 100 else "40%"
    return f"write a share with its sign, for example {example}"


def _shown(text: str) -> str:
    """`text` in backquotes, safe for a terminal and short."""
    return f"`{clean(text, 60)}`"
