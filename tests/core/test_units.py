"""Sizes, rates, durations and shares: exact both ways, and a suggestion for every slip."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierd.core import units


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0B", 0),
        ("1B", 1),
        ("3KiB", 3072),
        ("512MiB", 512 << 20),
        ("2GiB", 2 << 30),
        ("1TiB", 1 << 40),
        ("007B", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0.0), ("250ms", 0.25), ("30s", 30.0), ("2min", 120.0), ("1h", 3600.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "share"), [("0%", 0.0), ("40%", 40.0), ("12.5%", 12.5), ("100%", 100.0)])
def test_shares(text: str, share: float) -> None:
    assert units.parse_share(text) == share


def test_rates() -> None:
    assert units.parse_rate("512MiB/s") == 512 << 20


SLIPS = {
    units.parse_size: {
        "512": "for example 512MiB",
        "0": "for example 0B",
        "512MB": "write 512MiB",
        "4k": "write 4KiB",
        "1 GiB": "write 1GiB",
        "1.5gb": "write 1536MiB",
        "2 bytes": "write 2B",
        "1.3B": "write a whole number",
        "1e3B": "write a whole number",
        "": "write a whole number",
        "GiB": "write a whole number",
        "-1B": "write a whole number",
        "9223372036854775808B": "larger than any memory",
        "٣B": "write a whole",
        "1B\n": "write 1B",
    },
    units.parse_rate: {
        "512": "for example 512MiB/s",
        "512MiB": "write 512MiB/s",
        "1MB/s": "write 1MiB/s",
        "1MiB/min": "write 1MiB/s",
        "fast": "for example 512MiB/s",
        "1MiB/": "write 1MiB/s",
        "1MiB/s/s": "write 1MiB/s",
    },
    units.parse_duration: {
        "5": "for example 5s",
        "5sec": "write 5s",
        "5m": "write 5min",
        "1.5s": "write 1500ms",
        "0.1ms": "write a whole",
        "1d": "write a whole number and one of ms, s, min, h",
        "8785h": "longer than a year",
        "": "write a whole",
    },
    units.parse_share: {
        "40": "for example 40%",
        "0.4": "as a share of one it is 40%",
        "101%": "more than 100%",
        "100.01%": "more than",
        "-1%": "from 0% to 100%",
        "%": "from 0% to 100%",
        "40 %": "from 0% to 100%",
        "1.234%": "from 0%",
    },
}


@pytest.mark.parametrize(
    ("parse", "text", "part"),
    [(parse, text, part) for parse, slips in SLIPS.items() for text, part in slips.items()],
)
def test_slips_are_answered(parse: Callable[[str], object], text: str, part: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(text)
    message = str(caught.value)
    assert part in message
    assert message.isprintable()


@given(st.integers(min_value=0, max_value=units.MAXIMUM_SIZE))
def test_sizes_round_trip(size: int) -> None:
    assert units.parse_size(units.format_size(size)) == size
    assert units.parse_rate(units.format_rate(size)) == size


@given(st.integers(min_value=1, max_value=1023), st.sampled_from(sorted(units.SIZE_UNITS)))
def test_sizes_are_written_in_the_largest_unit(number: int, unit: str) -> None:
    assert units.format_size(number * units.SIZE_UNITS[unit]) == f"{number}{unit}"


@given(st.integers(min_value=0, max_value=units.MAXIMUM_DURATION))
def test_durations_round_trip(milliseconds: int) -> None:
    assert units.parse_duration(units.format_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.integers(min_value=0, max_value=10_000))
def test_shares_round_trip(hundredths: int) -> None:
    assert units.parse_share(units.format_share(hundredths / 100)) == hundredths / 100


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (60, "1min"), (90, "90s"), (3600, "1h"), (5400, "90min")],
)
def test_durations_are_written_in_the_largest_unit(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text


def test_what_is_negative_has_no_form() -> None:
    with pytest.raises(ValueError, match="negative"):
        units.format_size(-1)
    with pytest.raises(ValueError, match="negative"):
        units.format_duration(-1.0)


@given(st.text(max_size=30))
def test_any_text_is_a_value_or_a_ValueError(text: str) -> None:
    for parse in (units.parse_size, units.parse_rate, units.parse_duration, units.parse_share):
        try:
            value = parse(text)
        except ValueError as error:
            assert str(error).isprintable()
        else:
            assert value >= 0
