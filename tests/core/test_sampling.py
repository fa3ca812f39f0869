"""Look hard when the picture is wrong, rest when it is right."""

from __future__ import annotations

import pytest
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


def at_rest(found: int, unmapped: int = 1000, rounds: int = 30) -> ScanGovernor:
    """A governor whose trickle finds `found` pages a round among those that it unmaps."""
    governor = ScanGovernor()
    until_rest(governor, 1 << 20, 1 << 20)
    for _ in range(rounds):
        governor.update(found, 1 << 20, unmapped, 1 << 20)
    assert governor.resting
    return governor


@pytest.mark.parametrize("usual", [0, 1, 20])
def test_a_trickle_that_finds_far_more_than_it_used_to_ends_the_rest(usual: int) -> None:
    governor = at_rest(usual)
    rounds = 0
    while governor.resting:
        governor.update(170, 1 << 20, 1000, 1 << 20)
        rounds += 1
        assert rounds <= 5, "in five seconds"


@pytest.mark.parametrize(
    ("usual", "now", "unmapped", "why"),
    [
        (20, 50, 1000, "less than three times as many"),
        (0, 6, 1000, "too few to tell"),
        (20, 200, 10_000, "it looks at ten times as much"),
        (20, 0, 0, "the kernel did not come by"),
    ],
)
def test_a_trickle_that_finds_about_what_it_used_to_goes_on(
    usual: int, now: int, unmapped: int, why: str
) -> None:
    governor = at_rest(usual)
    for _ in range(20):
        governor.update(now, 1 << 20, unmapped, 1 << 20)
        assert governor.resting, why


def test_the_first_rounds_of_a_rest_are_no_measure() -> None:
    """Some hot pages are always left over when it comes to rest."""
    governor = at_rest(0, rounds=0)
    for found in (400, 300, 200, 100, 50, 20, 20, 20, 20, 20):
        governor.update(found, 1 << 20, 1000, 1 << 20)
    assert governor.resting


@given(DRAM_PAGES, SLOW_PAGES)
def test_after_it_was_wrong_everything_is_looked_at_again(dram_pages: int, slow_pages: int) -> None:
    governor = ScanGovernor()
    until_rest(governor, dram_pages, slow_pages)
    governor.update(dram_pages, dram_pages, 0, slow_pages)
    assert until_rest(governor, dram_pages, slow_pages) >= 10
