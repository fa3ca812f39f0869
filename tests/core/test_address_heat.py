"""The heat of a process by address: nothing is counted twice, and nothing gets lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierd.core import address_heat
from tierd.core.address_heat import (
    SAMPLE_PAGES,
    KnownRates,
    edges_of,
    few_of,
    heat_bins,
    known_rates,
    placed_bins,
    sample_pages,
)

FIRST = 0x7F0000000
Mappings = list[tuple[int, int]]


@st.composite
def mappings(draw: st.DrawFn) -> Mappings:
    """Mappings in order, some with nothing between them, some with terabytes."""
    found, at = [], draw(st.integers(0, 1 << 20))
    for _ in range(draw(st.integers(1, 40))):
        at += draw(st.sampled_from((0, 0, 1, 700, 1 << 20, 1 << 30)))
        size = draw(st.sampled_from((1, 33, 512, 70_000, 1 << 24)))
        found.append((at, at + size))
        at += size
    return found


@settings(max_examples=200, deadline=None)
@given(mappings(), st.integers(1, 256))
def test_the_parts_are_few_in_order_and_have_all_that_is_mapped(areas: Mappings, bins: int) -> None:
    start, end = edges_of(areas, bins)
    assert 1 <= len(start) == len(end) <= bins
    assert (start < end).all() and (end[:-1] <= start[1:]).all()
    assert start[0] == areas[0][0] and end[-1] == areas[-1][1]
    for first, last in areas:
        inside = np.minimum(end, last) - np.maximum(start, first)
        assert np.maximum(inside, 0).sum() == last - first
    # what is left out is between two mappings
    holes = set(zip(end[:-1].tolist(), start[1:].tolist(), strict=True))
    assert all(
        a == b or (a, b) in {(x[1], y[0]) for x, y in zip(areas, areas[1:], strict=False)} for a, b in holes
    )


def test_parts_are_alike_in_size_and_large_gaps_are_left_out() -> None:
    start, end = edges_of([(100, 10_100), (10_200, 20_200), (1 << 40, (1 << 40) + 20_000)], 40)
    size = end - start
    assert len(start) == 39 and size.min() > 0.9 * size.max()
    assert (end[19], start[20]) == (20_200, 1 << 40)
    assert [part.tolist() for part in edges_of([(5, 6)], 256)] == [[5], [6]]
    assert [part.tolist() for part in edges_of([], 256)] == [[], []]


def test_of_too_many_gaps_the_largest_are_left_out() -> None:
    """A thousand stacks of threads, each with a guard, and the heap far away."""
    areas = [(1000, 2000), *((n * 300 + (1 << 35), n * 300 + (1 << 35) + 256) for n in range(1000))]
    start, end = edges_of(areas, 64)
    assert len(start) <= 64 and (2000, 1 << 35) in set(zip(end.tolist(), start[1:].tolist(), strict=False))


@settings(max_examples=200, deadline=None)
@given(
    mappings(),
    st.integers(1, 256),
    st.sampled_from((1, 512)),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.floats(0, 1000), st.booleans()), max_size=80),
)
def test_each_known_page_counts_once_where_it_is(
    areas: Mappings, bins: int, span: int, seen: list[tuple[int, float, bool]]
) -> None:
    start, end = edges_of(areas, bins)
    # some of them where nothing is mapped any more
    seen = list({page: (page, rate, away) for page, rate, away in seen}.values())
    page = np.array([areas[0][0] // span + page for page, _, _ in seen], dtype=np.uint64) * np.uint64(span)
    rate = np.array([rate for _, rate, _ in seen])
    away = np.array([away for _, _, away in seen], dtype=np.bool_)
    found = heat_bins(start, end, known_rates(page, rate, away, span=span))
    single = (page[:, None] + np.arange(span, dtype=np.uint64)).ravel().astype(np.int64)
    rates, marked = rate.repeat(span), away.repeat(span)
    for one in found:
        there = (single >= one.start) & (single < one.end)
        assert (one.known, one.remembered) == (there.sum(), marked[there].sum())
        assert (one.rate is None) == (not there.any())
        if one.rate is not None:
            assert one.rate == pytest.approx(rates[there].mean(), abs=1e-6)


def test_where_too_many_are_known_each_stands_for_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_heat, "MOST_RATED", 100)
    bits = np.uint64(45)
    pages = (np.random.default_rng(1).permutation(1000) + FIRST).astype(np.uint64)
    keys = np.concatenate([(np.uint64(slot) << bits) | pages for slot in (1, 2, 3)])
    few, weight = few_of(keys, 2, bits)
    assert len(few) <= 100 and len(few) * weight == 1000 and (keys[few] >> bits == 2).all()
    assert few_of(keys[900:1100], 2, bits)[1] == 1.0 and few_of(keys, 4, bits)[1] == 1.0
    known = known_rates(pages[few - 1000], np.full(len(few), 2.0), weight=weight)
    (one,) = heat_bins(np.array([FIRST]), np.array([FIRST + 1000]), known)
    assert one.known == 1000 and one.rate == pytest.approx(2.0)
    (half,) = heat_bins(np.array([FIRST]), np.array([FIRST + 500]), known)
    assert 300 < half.known <= 500, "never more than there are"


@settings(max_examples=100, deadline=None)
@given(mappings(), st.integers(1, 256), st.integers(0, 1 << 62))
def test_a_sample_lies_within_its_parts_and_is_bounded(areas: Mappings, bins: int, seed: int) -> None:
    start, end = edges_of(areas, bins)
    page, part = sample_pages(start, end, seed)
    at = page.astype(np.int64)
    assert ((at >= start[part]) & (at < end[part])).all()
    assert (np.diff(at) > 0).all(), "no page is asked about twice"
    assert (np.bincount(part, minlength=len(start)) == np.minimum(end - start, SAMPLE_PAGES)).all()


@pytest.mark.parametrize("true", [0.0, 0.25, 0.5, 1.0])
def test_the_share_in_dram_is_found_also_where_pages_are_interleaved(true: float) -> None:
    start = FIRST + np.arange(16) * (1 << 16)  # any even stride would meet the same node each time
    end = start + (1 << 16)
    page, part = sample_pages(start, end, 7)
    node = np.where(page % 8 < true * 8, 0, 2).astype(np.int32)
    nothing = KnownRates(*(np.empty(0, dtype=kind) for kind in (np.int64, np.float64, np.bool_)))
    for one in placed_bins(heat_bins(start, end, nothing), part, node, [0, 1]):
        assert one.pages == one.end - one.start and one.rate is None and one.known == 0
        assert one.dram is not None and abs(one.dram / one.pages - true) < 4 * 0.0625


def test_pages_that_are_not_there_count_as_such() -> None:
    start, end = np.array([0, 100]), np.array([100, 110])
    page, part = sample_pages(start, end, 1)
    node = np.where(page < 50, np.int32(-2), np.int32(1)).astype(np.int32)
    nothing = KnownRates(*(np.empty(0, dtype=kind) for kind in (np.int64, np.float64, np.bool_)))
    first, second = placed_bins(heat_bins(start, end, nothing), part, node, [0])
    assert first.pages == pytest.approx(50, abs=4) and first.dram == 0
    assert (second.pages, second.dram) == (10, 0)
