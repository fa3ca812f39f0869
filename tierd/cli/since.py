"""Points in time as operators write them for ``--since``: what journalctl(1) takes of the past. Pure: the
clock is an argument."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from tierd.core.text import clean
from tierd.core.units import parse_duration

WANTED = 'write a time such as "2026-11-30 14:00", today, yesterday, "1h ago" or 90s'

_DAYS = {"today": 0, "yesterday": 1}
_PART = re.compile(r"([0-9]{1,6})\s*([A-Za-z]+)\s*")
_HOURS = {"d": 24, "day": 24, "days": 24, "w": 168, "week": 168, "weeks": 168}
_UNITS = {
    **dict.fromkeys(("msec", "milliseconds"), "ms"),
    **dict.fromkeys(("sec", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "minute", "minutes"), "min"),
    **dict.fromkeys(("hr", "hour", "hours"), "h"),
}
"""journalctl's words for units of which tierd's durations have another."""


def moment(text: str, now: datetime) -> datetime:
    """The time that `text` means, in the time zone of this machine or the one that `text` names.

    now: with a time zone. Raises ValueError, fit to stand behind the name of the option, for what is no time
    and for one that is yet to come.
    """
    words = " ".join(text.split())
    found = _day(words, now) or _calendar(words, now) or now - _span(words)
    if found > now:
        raise ValueError(f"`{clean(text, 60)}` is yet to come; {WANTED}")
    return found


def _day(words: str, now: datetime) -> datetime | None:
    if words == "now":
        return now
    if words not in _DAYS:
        return None
    return _local(now.replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0), days=_DAYS[words])


def _calendar(words: str, now: datetime) -> datetime | None:
    """A date and a time, either of which may be missing, or ``@`` and the seconds since 1970."""
    if re.fullmatch(r"@[0-9]{1,11}", words):
        return datetime.fromtimestamp(int(words[1:]), now.tzinfo)
    if re.fullmatch(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", words):
        words = f"{now:%Y-%m-%d} {words.zfill(5 if words.count(':') == 1 else 8)}"
    if not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", words):
        return None
    try:
        found = datetime.fromisoformat(re.sub(r"\s*UTC$", "Z", words))
        return found if found.tzinfo else _local(found)
    except (ValueError, OverflowError):  # the latter for the first year and the last
        return None


def _local(naive: datetime, *, days: int = 0) -> datetime:
    # Days are taken off before there is a time zone: midnight stays midnight when the clocks were changed.
    return (naive - timedelta(days=days)).astimezone()


def _span(words: str) -> timedelta:
    """``1h``, ``-1h``, ``1h ago``, ``1h 30min ago``, ``2 days ago``. Raises ValueError."""
    text = words.removesuffix(" ago").removeprefix("-")
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text):
        raise ValueError(f"`{clean(words, 60)}` is not a time; {WANTED}")
    seconds = 0.0
    for number, unit in parts:
        if unit in _HOURS:
            number, unit = str(int(number) * _HOURS[unit]), "h"
        seconds += parse_duration(f"{number}{_UNITS.get(unit, unit)}")
    return timedelta(seconds=seconds)
