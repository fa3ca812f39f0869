"""Look hard when the picture is wrong, rest when it is right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tierd.core.sampling import FULL_SIZE, TRICKLE_SIZE, WRONG, ScanGovernor

DRAM_PAGES = st.integers(1 << 12, 1 << 32)


def until_rest(governor: ScanGovernor, dram_pages: int) -> int:
    rounds = 0
    while not governor.resting:
        governor.update(0, dram_pages)
        rounds += 1
        assert rounds < 100, "never comes to rest"
    return rounds


def test_it_begins_at_full_rate() -> None:
    assert ScanGovernor().size == FULL_SIZE and not ScanGovernor().resting


@given(st.lists(st.integers(0, 1 << 20), max_size=40), DRAM_PAGES)
def test_the_size_stays_between_trickle_and_full(found: list[int], dram_pages: int) -> None:
    governor = ScanGovernor()
    for pages in found:
        assert TRICKLE_SIZE <= governor.update(pages, dram_pages) <= FULL_SIZE


@given(st.integers(0, 40), DRAM_PAGES)
def test_full_rate_at_once_when_the_picture_is_wrong(quiet_rounds: int, dram_pages: int) -> None:
    governor = ScanGovernor()
    for _ in range(quiet_rounds):
        governor.update(0, dram_pages)
    assert governor.update(int(WRONG * dram_pages) + 1, dram_pages) == FULL_SIZE
    assert not governor.resting


@given(DRAM_PAGES)
def test_a_trickle_once_it_is_right(dram_pages: int) -> None:
    governor = ScanGovernor()
    rounds = until_rest(governor, dram_pages)
    assert 2 <= rounds <= 30, "neither at one quiet round nor after minutes"
    assert governor.update(0, dram_pages) == TRICKLE_SIZE, "and never nothing: a change must be noticed"


@given(DRAM_PAGES)
def test_it_slows_down_step_by_step(dram_pages: int) -> None:
    governor, sizes = ScanGovernor(), [FULL_SIZE]
    while not governor.resting:
        sizes.append(governor.update(0, dram_pages))
    assert sizes == sorted(sizes, reverse=True)
