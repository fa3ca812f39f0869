"""Text for people: harmless, and read at a glance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierd.core.text import clean, in_order, plural, ranges, sentence, size


@given(st.text(alphabet=st.characters()), st.integers(4, 300) | st.none())
def test_clean_text_is_one_printable_line(text: str, limit: int | None) -> None:
    shown = clean(text, limit)
    assert shown.isprintable() and "\n" not in shown
    shown.encode("utf-8")
    assert limit is None or len(shown) <= limit
    if text.isprintable() and (limit is None or len(text) <= limit):
        assert shown == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("two\nlines", r"two\nlines"),
        ("nul\0", r"nul\x00"),
        ("lone\udcff", r"lone\udcff"),
        ("right\u202eleft", r"right\u202eleft"),
        ("sep\u2028arator", r"sep\u2028arator"),
        ("\U000e0001", r"\U000e0001"),
        ("ümlaut 漢字", "ümlaut 漢字"),
    ],
)
def test_clean_escapes(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_what_is_cut_is_marked() -> None:
    assert clean("a" * 11, 10) == "a" * 7 + "..."
    assert clean("a" * 10, 10) == "a" * 10
    assert len(clean("a" * 1000)) == 256 and len(clean("a" * 1000, None)) == 1000


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (4096, "4.0 KiB"),
        (412 << 20, "412 MiB"),
        (1023 << 20, "1.0 GiB"),
        (1 << 30, "1.0 GiB"),
        (16 << 30, "16 GiB"),
        (3 << 40, "3.0 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_counts_and_sentences() -> None:
    assert plural(1, "page") == "1 page" and plural(0, "page") == "0 pages"
    assert plural(2, "process") == "2 processes" and plural(1, "process") == "1 process"
    assert sentence(["a", "", "b"]) == "a, b"


def test_names_with_numbers_are_in_the_order_of_the_numbers() -> None:
    names = ["dax1.0", "dax0.10", "dax0.9", "node", "dax"]
    assert sorted(names, key=in_order) == ["dax", "dax0.9", "dax0.10", "dax1.0", "node"]


@pytest.mark.parametrize(
    ("numbers", "text"), [((), "-"), ((0,), "0"), ((3, 0, 1, 2, 7), "0-3,7"), ((1, 3), "1,3")]
)
def test_ranges(numbers: tuple[int, ...], text: str) -> None:
    assert ranges(numbers) == text
