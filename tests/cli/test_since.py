"""Points in time as ``--since`` takes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from tierd.cli.since import moment


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine where the clocks are changed: by POSIX rules, which need no package of time zones."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def now() -> datetime:
    return datetime(2026, 11, 30, 13, 30, 15, tzinfo=UTC).astimezone()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("now", "2026-11-30T14:30:15+01:00"),
        ("today", "2026-11-30T00:00:00+01:00"),
        ("yesterday", "2026-11-29T00:00:00+01:00"),
        ("2026-11-30", "2026-11-30T00:00:00+01:00"),
        ("2026-11-30 14:00", "2026-11-30T14:00:00+01:00"),
        ("2026-11-30  14:00:01", "2026-11-30T14:00:01+01:00"),
        ("2026-11-30T14:00:01.5", "2026-11-30T14:00:01.500000+01:00"),
        ("2026-07-01 12:00", "2026-07-01T12:00:00+02:00"),
        ("2026-11-30T13:00Z", "2026-11-30T13:00:00+00:00"),
        ("2026-11-30 13:00 UTC", "2026-11-30T13:00:00+00:00"),
        ("2026-11-30T08:00:00-05:00", "2026-11-30T08:00:00-05:00"),
        ("14:00", "2026-11-30T14:00:00+01:00"),
        ("9:05:07", "2026-11-30T09:05:07+01:00"),
        ("@0", "1970-01-01T01:00:00+01:00"),
        ("90s", "2026-11-30T14:28:45+01:00"),
        ("-90s", "2026-11-30T14:28:45+01:00"),
        ("1h ago", "2026-11-30T13:30:15+01:00"),
        ("1 hour ago", "2026-11-30T13:30:15+01:00"),
        ("1h 30min ago", "2026-11-30T13:00:15+01:00"),
        ("1h30m", "2026-11-30T13:00:15+01:00"),
        ("2 days ago", "2026-11-28T14:30:15+01:00"),
        ("1w", "2026-11-23T14:30:15+01:00"),
    ],
)
def test_what_is_a_time(text: str, meant: str) -> None:
    assert moment(text, now()) == datetime.fromisoformat(meant)


def test_midnight_is_that_of_the_day_before_the_clocks_were_changed() -> None:
    monday = datetime(2026, 3, 29, 20, 0, tzinfo=UTC).astimezone()
    assert moment("today", monday) == datetime.fromisoformat("2026-03-29T00:00:00+01:00")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "`` is not a time; write a time such as"),
        ("soon", "`soon` is not a time"),
        ("10", "`10` is not a time"),
        ("tomorrow", "`tomorrow` is not a time"),
        ("2026-13-01", "`2026-13-01` is not a time"),
        ("0001-01-01", "`0001-01-01` is not a time"),
        ("25:00", "`25:00` is not a time"),
        ("1h or so", "`1h or so` is not a time"),
        ("1h,", "`1h,` is not a time"),
        ("ago", "`ago` is not a time"),
        ("3fortnights", "is not a duration; write a whole number and one of ms, s, min, h"),
        ("9999d", "is longer than a year"),
        ("15:00", "`15:00` is yet to come"),
        ("2027-01-01", "`2027-01-01` is yet to come"),
        ("@99999999999", "is yet to come"),
        ("soon\x1b[2J", "`soon\\x1b[2J` is not a time"),
    ],
)
def test_what_is_none(text: str, says: str) -> None:
    with pytest.raises(ValueError) as refused:
        moment(text, now())
    assert says in str(refused.value) and "\n" not in str(refused.value)
