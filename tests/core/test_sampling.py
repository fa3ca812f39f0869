"""Look hard when the picture is wrong, rest when it is right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierd.core.sampling import (
    FULL_SIZE,
    FUTILE_PASSES,
    LASTING,
    TRICKLE_SIZE,
    WORSE,
    WRONG,
    ScanGovernor,
)

DRAM_PAGES = st.integers(1 << 12, 1 << 32)
SLOW_PAGES = st.integers(1 << 12, 1 << 32)
ROUNDS = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 1 << 20)), max_size=40)


def until_rest(governor: ScanGovernor, dram_pages: int, slow_pages: int) -> int:
    """Quiet rounds, each of which unmaps a tenth of what is on slow nodes."""
    rounds = 0
    while not governor.resting:
        governor.update(0, 0, 0, dram_pages, slow_pages // 10, slow_pages)
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
        size = governor.update(found, found, 0, dram_pages, unmapped, slow_pages)
        assert TRICKLE_SIZE <= size <= FULL_SIZE


@given(ROUNDS, DRAM_PAGES, SLOW_PAGES)
def test_full_rate_at_once_when_the_picture_is_wrong(
    rounds: list[tuple[int, int]], dram_pages: int, slow_pages: int
) -> None:
    governor = ScanGovernor()
    for _, unmapped in rounds:
        governor.update(0, 0, 0, dram_pages, unmapped, slow_pages)
    many = int(WRONG * dram_pages) + 1
    assert governor.update(many, many, 0, dram_pages, slow_pages, slow_pages) == FULL_SIZE
    assert not governor.resting


@given(DRAM_PAGES, SLOW_PAGES)
def test_a_trickle_once_everything_was_looked_at(dram_pages: int, slow_pages: int) -> None:
    governor = ScanGovernor()
    assert until_rest(governor, dram_pages, slow_pages) >= 10, "not before it has seen all of it"
    assert governor.update(0, 0, 0, dram_pages, 0, slow_pages) == TRICKLE_SIZE, "and never nothing"


@given(DRAM_PAGES, SLOW_PAGES)
def test_rounds_in_which_the_kernel_did_not_come_by_prove_nothing(dram_pages: int, slow_pages: int) -> None:
    governor = ScanGovernor()
    for _ in range(50):
        assert governor.update(0, 0, 0, dram_pages, 0, slow_pages) == FULL_SIZE


def at_rest(quick: int, unmapped: int = 1000, rounds: int = 30) -> ScanGovernor:
    """A governor whose trickle sees `quick` quick uses a round among the pages that it unmaps."""
    governor = ScanGovernor()
    until_rest(governor, 1 << 20, 1 << 20)
    for _ in range(rounds):
        governor.update(0, 0, 0, 1 << 20, unmapped, 1 << 20, quick)
    assert governor.resting
    return governor


@pytest.mark.parametrize("usual", [0, 1, 20, 40])
def test_a_trickle_that_sees_more_quick_uses_than_it_used_to_ends_the_rest(usual: int) -> None:
    governor = at_rest(usual)
    rounds = 0
    while governor.resting:
        governor.update(0, 0, 0, 1 << 20, 1000, 1 << 20, 170)
        rounds += 1
        assert rounds <= 5, "in five seconds"


@pytest.mark.parametrize(("quick", "noticed"), [(55, False), (170, True)])
def test_in_the_first_rounds_of_a_rest_only_a_great_change_is_noticed(quick: int, noticed: bool) -> None:
    """Nobody knows yet what is usual."""
    governor = at_rest(0, rounds=0)
    for _ in range(3):
        governor.update(0, 0, 0, 1 << 20, 1000, 1 << 20, quick)
        if governor.changed:
            break
    assert governor.changed is noticed


def test_a_workload_that_gets_faster_when_nobody_disturbs_it_has_not_changed() -> None:
    governor = at_rest(0, rounds=0)
    for quick in range(30, 95, 3):
        governor.update(0, 0, 0, 1 << 20, 1000, 1 << 20, quick)
        assert governor.resting


@pytest.mark.parametrize("rested", [False, True])
def test_uses_of_what_was_unmapped_a_round_ago_are_no_change(rested: bool) -> None:
    """The kernel unmaps in bursts, with nothing in between."""
    governor = ScanGovernor()
    if rested:
        until_rest(governor, 1 << 20, 1 << 20)
    for _ in range(30):
        for unmapped, quick in ((30_000, 100), (0, 800), (0, 0)):
            governor.update(10_000, 10_000, 10_000, 1 << 22, unmapped, 10_000_000, quick)
            assert not governor.changed and governor.resting is rested


@pytest.mark.parametrize(
    ("usual", "now", "unmapped", "why"),
    [
        (20, 40, 1000, "less than half as many again as are expected"),
        (40, 55, 1000, "less than half as many again as usual"),
        (0, 2, 20, "luck explains it"),
        (20, 400, 10_000, "it looks at ten times as much"),
        (20, 0, 0, "the kernel did not come by"),
    ],
)
def test_a_trickle_that_sees_about_what_it_used_to_goes_on(
    usual: int, now: int, unmapped: int, why: str
) -> None:
    governor = at_rest(usual)
    for _ in range(20):
        governor.update(0, 0, 0, 1 << 20, unmapped, 1 << 20, now)
        assert governor.resting, why


def test_it_rests_half_a_pass_after_the_last_find_and_not_before_all_was_unmapped() -> None:
    for finds in range(1, 60, 7):
        governor, rounds = ScanGovernor(), 0
        while not governor.resting:
            found = 30_000 if rounds < finds else 0
            governor.update(found, found, found, 1 << 20, 25_000, 1_000_000)
            rounds += 1
        assert max(40, finds + 20) <= rounds <= max(40, finds + 28), finds


def test_a_kernel_that_never_comes_by_costs_no_memory() -> None:
    governor = ScanGovernor()
    for _ in range(10_000):
        governor.update(0, 0, 0, 1 << 20, 0, 1 << 20)
    assert not governor.resting and len(governor._lately) == 0


def look_around(governor: ScanGovernor, found: int, *, limited: bool = False) -> None:
    """One pass over the slow nodes in ten rounds, which find so many pages in all and promote them."""
    for _ in range(10):
        governor.update(found // 10, found // 10, found // 10, 1 << 20, 100_000, 1_000_000, limited=limited)


def test_it_rests_where_looking_hard_does_not_help() -> None:
    """More is hot than fits: as much comes down as goes up."""
    governor = ScanGovernor()
    for _ in range(1 + FUTILE_PASSES):
        assert not governor.resting
        look_around(governor, 50_000)
    assert governor.resting


def test_what_it_was_futile_to_promote_does_not_end_the_rest_until_there_is_far_more() -> None:
    governor = ScanGovernor()
    while not governor.resting:
        governor.update(50_000, 50_000, 0, 1 << 20, 100_000, 1_000_000)
    for _ in range(50):
        governor.update(50_000, 50_000, 0, 1 << 20, 1000, 1_000_000)
        assert governor.resting, "no worse than what was accepted"
    governor.update(int(50_000 * WORSE) + 1, int(50_000 * WORSE) + 1, 0, 1 << 20, 1000, 1_000_000)
    assert not governor.resting


def test_it_goes_on_looking_while_that_helps() -> None:
    governor, found = ScanGovernor(), 1_000_000
    while found > 10_000:
        look_around(governor, found)
        assert not governor.resting
        found = int(found * LASTING * 0.95)


def test_one_pass_in_which_nothing_was_gained_may_be_that_of_a_change() -> None:
    governor = ScanGovernor()
    for found in (100_000, 50_000, 300_000, 100_000, 40_000):
        look_around(governor, found)
        assert not governor.resting


def test_a_pass_limited_by_bandwidth_is_not_futile() -> None:
    governor = ScanGovernor()
    for _ in range(10):
        look_around(governor, 50_000, limited=True)
        assert not governor.resting


@given(DRAM_PAGES, SLOW_PAGES)
def test_after_it_was_wrong_everything_is_looked_at_again(dram_pages: int, slow_pages: int) -> None:
    governor = ScanGovernor()
    until_rest(governor, dram_pages, slow_pages)
    governor.update(dram_pages, dram_pages, 0, dram_pages, 0, slow_pages)
    assert until_rest(governor, dram_pages, slow_pages) >= 10


@pytest.mark.parametrize(("quick", "changed"), [(30, False), (55, False), (170, True)])
def test_a_change_is_noticed_at_full_rate_as_well(quick: int, changed: bool) -> None:
    """Once a pass has told what there is; what it found before does not count then."""
    governor = ScanGovernor()
    for _ in range(11):
        governor.update(2000, 2000, 2000, 1 << 20, 1000, 10_000, 30)
        assert not governor.changed
    noticed = False
    for _ in range(10):
        governor.update(2000, 2000, 2000, 1 << 20, 100, 10_000, quick // 10)
        noticed |= governor.changed
    assert noticed is changed and not governor.resting


def test_the_first_pass_is_no_change() -> None:
    governor = ScanGovernor()
    for _ in range(9):
        governor.update(5000, 5000, 100, 1 << 20, 1000, 10_000, 900)
        assert not governor.changed


LARGE = 256 << 18, 1000 << 18
"""Base pages of DRAM and on slow nodes."""


def large_at_rest(*, gave_up: bool = False) -> ScanGovernor:
    governor, (dram_pages, slow_pages) = ScanGovernor(), LARGE
    while not governor.resting:
        urgent = 1 << 14 if gave_up else 0
        governor.update(urgent, urgent, 0, dram_pages, slow_pages // 10, slow_pages, more=gave_up)
    return governor


@pytest.mark.parametrize(
    ("found", "changed"), [(250, False), (700, False), (2500, True)], ids=["1%", "2.7%", "10% of DRAM"]
)
def test_what_a_trickle_comes_by_stands_for_all_that_it_does_not(found: int, changed: bool) -> None:
    """A tenth of DRAM's pages is hot on the slow nodes, and so few of those that no surprise shows it. The
    trickle takes hours to come by all of them."""
    governor = large_at_rest()
    for _ in range(4):
        governor.glance(0, 20_000)
        assert governor.resting
    governor.update(found, found, found, LARGE[0], 20_000, LARGE[1], fresh=True)
    assert governor.resting, "once is not enough"
    governor.update(found, found, found, LARGE[0], 20_000, LARGE[1], fresh=True)
    assert governor.changed is changed and governor.resting is not changed


def test_what_it_came_by_in_earlier_rounds_counts_once() -> None:
    governor = large_at_rest()
    for _ in range(20):
        governor.update(400, 400, 400, LARGE[0], 100_000, LARGE[1], fresh=True)
    assert governor.resting


@pytest.mark.parametrize(("gave_up", "fresh"), [(True, True), (False, False)])
def test_what_was_given_up_or_known_before_stands_for_nothing(gave_up: bool, fresh: bool) -> None:
    governor = large_at_rest(gave_up=gave_up)
    for _ in range(5):
        governor.update(9000, 9000, 9000, LARGE[0], 100_000, LARGE[1], fresh=fresh)
    assert governor.resting


def test_it_does_not_rest_while_there_is_more_that_is_urgent_than_a_round_considers() -> None:
    """On 256 GiB of DRAM what a round considers is far below one page in a hundred. All of it is urgent, and
    nothing could be moved so far, for want of cold pages that are known."""
    governor, dram_pages, slow_pages = ScanGovernor(), 256 << 18, 1000 << 18
    rounds = 0
    while not governor.resting:
        governor.update(1 << 14, 1 << 14, 0, dram_pages, slow_pages // 10, slow_pages, more=True)
        rounds += 1
    assert rounds == 10 * (1 + FUTILE_PASSES), "but for passes that gain nothing"
    assert until_rest(ScanGovernor(), dram_pages, slow_pages) == 10


def test_it_does_not_rest_while_much_is_worth_a_little() -> None:
    """Or not before two passes have changed nothing about it."""
    governor = ScanGovernor()
    for _ in range(2):
        governor.update(100_000, 0, 0, 1 << 20, 10_000, 10_000)
        assert not governor.resting
    governor.update(1000, 0, 0, 1 << 20, 10_000, 10_000)
    assert governor.resting


def test_uses_of_what_was_unmapped_just_before_the_rest_are_no_change() -> None:
    governor = ScanGovernor()
    while not governor.resting:
        governor.update(0, 0, 0, 1 << 20, 40_000, 1 << 20, 1000)
    governor.update(0, 0, 0, 1 << 20, 4, 1 << 20, 1000)
    assert governor.resting


@pytest.mark.parametrize(("quick", "changed"), [(60, False), (600, True)])
def test_a_glance_looks_for_a_change_only(quick: int, changed: bool) -> None:
    governor = at_rest(30)
    for _ in range(8):
        governor.glance(30, 1000)
        assert governor.resting and not governor.changed
    governor.glance(quick, 1000)
    governor.glance(quick, 1000)
    assert governor.changed == changed and governor.resting != changed
    assert (governor.size == FULL_SIZE) == changed
