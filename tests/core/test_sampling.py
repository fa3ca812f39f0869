"""Look hard when the picture is wrong, rest when it is right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tierd.core.sampling import FULL_SIZE, TRICKLE_SIZE, WRONG, ScanGovernor

DRAM_PAGES = st.integers(1 << 12, 1 << 32)
SLOW_PAGES = st.integers(1 << 12, 1 << 32)
ROUNDS = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 1 << 20)), max_size=40)


def until_rest(governor: ScanGovernor, dram_pages: int, slow_pages: int) -> int:
    """Quiet rounds, each of which unmaps a tenth of what is on slow nodes."""
    rounds = 0
    while not governor.resting:
        governor.update(0, dram_pages, slow_pages // 10, slow_pages)
        rounds += 1
        assert rounds < 100, "never comes to rest"
    return rounds


def test_it_begins_at_full_rate() -> None:
    assert ScanGovernor().size == FULL_SIZE and not ScanGovernor().resting


@given(ROUNDS, DRAM_PAGES, SLOW_PAGES)
def test_the_size_stays_between_trickle_and_full(
    rounds: list[tuple[int, int]], dram_pages: int, slow_pages: int
) -> None:
    governor = ScanGovernor()
    for found, unmapped in rounds:
        assert TRICKLE_SIZE <= governor.update(found, dram_pages, unmapped, slow_pages) <= FULL_SIZE


@given(ROUNDS, DRAM_PAGES, SLOW_PAGES)
def test_full_rate_at_once_when_the_picture_is_wrong(
    rounds: list[tuple[int, int]], dram_pages: int, slow_pages: int
) -> None:
    governor = ScanGovernor()
    for _, unmapped in rounds:
        governor.update(0, dram_pages, unmapped, slow_pages)
    assert governor.update(int(WRONG * dram_pages) + 1, dram_pages, slow_pages, slow_pages) == FULL_SIZE
    assert not governor.resting


@given(DRAM_PAGES, SLOW_PAGES)
def test_a_trickle_once_everything_was_looked_at(dram_pages: int, slow_pages: int) -> None:
    governor = ScanGovernor()
    assert until_rest(governor, dram_pages, slow_pages) >= 10, "not before it has seen all of it"
    assert governor.update(0, dram_pages, 0, slow_pages) == TRICKLE_SIZE, "and never nothing"


@given(DRAM_PAGES, SLOW_PAGES)
def test_rounds_in_which_the_kernel_did_not_come_by_prove_nothing(dram_pages: int, slow_pages: int) -> None:
    governor = ScanGovernor()
    for _ in range(50):
        assert governor.update(0, dram_pages, 0, slow_pages) == FULL_SIZE


@given(DRAM_PAGES, SLOW_PAGES)
def test_after_it_was_wrong_everything_is_looked_at_again(dram_pages: int, slow_pages: int) -> None:
    governor = ScanGovernor()
    until_rest(governor, dram_pages, slow_pages)
    governor.update(dram_pages, dram_pages, 0, slow_pages)
    assert until_rest(governor, dram_pages, slow_pages) >= 10
