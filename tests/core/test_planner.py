"""What any plan keeps to, whatever was seen: floor, budget, gain, order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tierd.core.heat import HotPages
from tierd.core.model import PAGE_SIZE, Node
from tierd.core.planner import (
    AGREEMENT,
    FLOOR_EXTRA,
    FLOOR_WATERMARKS,
    IDLE_WITHOUT_SWAP,
    SLOW_RESERVE,
    SWAP_GAIN,
    URGENT,
    ColdStock,
    Observation,
    Plan,
    balance_pages,
    floor_bytes,
    least_rate,
    plan,
    rate_in_dram,
)

LEAST_RATE = 1 / IDLE_WITHOUT_SWAP


def hot(rates: list[float], near: list[int] | int = -1) -> HotPages:
    """Pages of these rates; near: the node near the users of all of them, or of each, hottest first."""
    rates = sorted(rates, reverse=True)
    count = len(rates)
    return HotPages(
        np.ones(count, dtype=np.int64),
        np.arange(count, dtype=np.uint64),
        np.array(rates),
        np.broadcast_to(np.array(near, dtype=np.int16), count),
    )


def dram(room: int, number: int = 0, high: int = 3 << 20, extra: int = 0) -> Node:
    """A node with room for `room` pages above its floor, or that many too few."""
    floor = FLOOR_WATERMARKS * high + FLOOR_EXTRA + extra
    return Node(number, 64 << 30, max(0, floor + room * PAGE_SIZE), high, True, False)


def slow(room: int, number: int = 1) -> Node:
    """A node with room for `room` pages above its reserve, whose watermark is that of 128 GiB."""
    high = 260 << 20
    return Node(number, 256 << 30, max(0, high + SLOW_RESERVE + room * PAGE_SIZE), high, False, True)


def stock(pages: int, idle: float, name: str = "/a", node: int = 0) -> ColdStock:
    return ColdStock(name, 24, node, 7, idle, pages, 1 / idle)


@pytest.mark.parametrize(("rates", "cut", "more"), [([9.0] * 50, True, True), ([9.0] * 50, False, False)])
def test_whether_more_is_urgent_than_was_considered(rates: list[float], cut: bool, more: bool) -> None:
    seen = Observation(hot(rates), (stock(1000, 30.0),), (dram(0),), (slow(9999),), 1000, cut=cut)
    assert plan(seen).more is more
    lukewarm = replace(seen, hot=hot([*rates, 1 / 30]))
    assert not plan(lukewarm).more, "the last of them is not, so that all that are were considered"


def balance(seen: Observation) -> int:
    """Pages of room above the floor, negative below it, by the rule of the design: 2 x high + 32 MiB."""
    floor = sum(2 * n.high_watermark + (32 << 20) + seen.floor for n in seen.dram)
    return (sum(n.free for n in seen.dram) - floor) // PAGE_SIZE


def slow_room(seen: Observation) -> int:
    """Pages that fit above where kswapd of the slow nodes would begin to drop or swap out what is there."""
    return sum(max(0, n.free - n.high_watermark - (32 << 20)) // PAGE_SIZE for n in seen.slow)


STOCKS = st.lists(
    st.builds(stock, st.integers(1, 400), st.floats(0.05, 200.0), st.sampled_from(["/a", "/b", "/c"])),
    max_size=6,
).map(tuple)
OBSERVATIONS = st.builds(
    Observation,
    hot=st.lists(st.floats(LEAST_RATE, 500.0), max_size=300).map(hot),
    cold=STOCKS,
    dram=st.integers(-300, 400).map(lambda room: (dram(room),)),
    slow=st.integers(-50, 1000).map(lambda room: (slow(room),)),
    budget=st.integers(0, 800),
)


def demoted(made: Plan) -> int:
    return sum(step.pages for step in made.demotions)


@given(OBSERVATIONS)
def test_a_plan_is_consistent(seen: Observation) -> None:
    made = plan(seen)
    assert made.demote_pages == demoted(made)
    assert 0 <= made.promote <= len(seen.hot)
    assert all(0 < step.pages <= step.stock.pages and step.reason for step in made.demotions)
    assert all(step.stock in seen.cold for step in made.demotions)
    assert made.promote == sum(len(step.which) for step in made.promotions)
    assert {step.node for step in made.promotions} <= {node.number for node in seen.dram}
    assert all(step.reason for step in made.promotions), "every step carries its reason"
    if len(seen.dram) == 1 and made.promote:
        assert np.concatenate([step.which for step in made.promotions]).tolist() == [*range(made.promote)]


@settings(max_examples=400)
@given(OBSERVATIONS)
@example(Observation(hot([1.0] * 200), (stock(400, 100.0),), (dram(100),), (slow(1000),), budget=0))
@example(Observation(hot([1.0] * 50), (stock(400, 100.0),), (dram(-100),), (slow(1000),), budget=60))
def test_never_more_than_the_budget(seen: Observation) -> None:
    made = plan(seen)
    assert made.promote + demoted(made) <= seen.budget


@given(OBSERVATIONS)
def test_dram_is_never_filled_below_its_floor(seen: Observation) -> None:
    made = plan(seen)
    assert balance(seen) + demoted(made) - made.promote >= min(0, balance(seen))
    if made.promote:
        assert balance(seen) + demoted(made) - made.promote >= 0


@given(OBSERVATIONS)
def test_no_more_is_demoted_than_is_needed(seen: Observation) -> None:
    made = plan(seen)
    assert demoted(made) <= max(0, made.promote - balance(seen))


@given(OBSERVATIONS)
def test_room_first(seen: Observation) -> None:
    made = plan(seen)
    if made.demotions and balance(seen) >= 0:
        assert made.promote > balance(seen), "demoted although there was room"


@given(OBSERVATIONS)
def test_the_coldest_go_down_first(seen: Observation) -> None:
    made = plan(seen)
    taken = {id(step.stock): step.pages for step in made.demotions}
    warmest = max((-step.stock.idle for step in made.demotions), default=None)
    if warmest is None:
        return
    for candidate in seen.cold:
        if -candidate.idle < warmest:
            assert taken.get(id(candidate), 0) == candidate.pages, "a colder stock was passed over"


@given(OBSERVATIONS)
def test_no_swap_without_a_clear_gain(seen: Observation) -> None:
    """The n-th page beyond the room goes up against the n-th coldest page, and is clearly hotter."""
    made = plan(seen)
    room = balance(seen)
    rates = [s.rate for s in sorted(seen.cold, key=lambda s: s.rate) for _ in range(s.pages)]
    for place in range(max(0, room), made.promote):
        assert seen.hot.rate[place] / rates[place - room] >= SWAP_GAIN * (1 - 1e-9)


@given(OBSERVATIONS)
@example(Observation(hot([1.0] * 150), (stock(150, 100.0),), (dram(-50),), (slow(100),), budget=10**6))
def test_demotion_stops_before_the_slow_node_is_full(seen: Observation) -> None:
    """What does not fit there goes to swap, or is lost to the OOM killer."""
    assert demoted(plan(seen)) <= slow_room(seen)


@given(OBSERVATIONS)
def test_no_demotion_with_a_full_slow_node(seen: Observation) -> None:
    made = plan(replace(seen, slow=(slow(0),)))
    assert not made.demotions
    assert made.promote <= max(0, balance(seen))


@given(OBSERVATIONS, st.integers(0, 4 << 20))
def test_higher_watermarks_never_promote_more(seen: Observation, more: int) -> None:
    raised = tuple(replace(node, high_watermark=node.high_watermark + more) for node in seen.dram)
    assert plan(replace(seen, dram=raised)).promote <= plan(seen).promote


@given(OBSERVATIONS, st.integers(0, 64 << 20))
def test_a_floor_of_the_policy_only_raises_the_floor(seen: Observation, extra: int) -> None:
    made = plan(replace(seen, floor=extra))
    assert made.promote <= plan(seen).promote
    if made.promote:
        assert balance(replace(seen, floor=extra)) + demoted(made) - made.promote >= 0


@given(OBSERVATIONS, st.integers(0, 500))
def test_a_larger_budget_never_promotes_less(seen: Observation, more: int) -> None:
    assert plan(seen).promote <= plan(replace(seen, budget=seen.budget + more)).promote


@given(OBSERVATIONS)
def test_nothing_moves_when_nothing_is_hot(seen: Observation) -> None:
    """A tracker that sees no access anywhere proves nothing: cold pages alone are no reason to move."""
    made = plan(replace(seen, hot=hot([])))
    assert (made.promote, made.demotions, made.wanted) == (0, (), 0)
    assert made.reason


@given(OBSERVATIONS)
def test_without_dram_nothing_moves(seen: Observation) -> None:
    made = plan(replace(seen, dram=()))
    assert (made.promote, made.demotions) == (0, ())


@given(OBSERVATIONS)
def test_why_less_is_done_is_said(seen: Observation) -> None:
    made = plan(seen)
    assert bool(made.held) == (made.promote < made.wanted)
    assert made.promote or not made.limited or seen.budget < 2 or balance(seen) + seen.budget < 2


@given(OBSERVATIONS, st.integers(0, 500))
def test_what_the_budget_does_not_hold_back_more_budget_does_not_move(seen: Observation, more: int) -> None:
    made = plan(seen)
    if not made.limited:
        assert plan(replace(seen, budget=seen.budget + more)).promote == made.promote


@pytest.mark.parametrize(("coldest", "wanted"), [(0.1, 10), (1.9, 10), (5.1, 0)])
def test_what_would_be_worth_moving_is_wanted_with_nothing_cold_at_hand(coldest: float, wanted: int) -> None:
    seen = Observation(hot([10.0] * 10), (), (dram(0),), (slow(100),), budget=1000, coldest=coldest)
    assert (plan(seen).wanted, plan(seen).promote) == (wanted, 0)


@pytest.mark.parametrize(
    ("measured", "typical", "expected"),
    [(1.0, 0.0, 1.0), (1.0, 0.5, 1.0), (1.0, 2.0, 2.0), (1.0, 50.0, AGREEMENT)],
)
def test_where_rates_may_agree_they_are_taken_to(measured: float, typical: float, expected: float) -> None:
    """Walks of page tables and faults do not measure alike; memory that is idle in DRAM is so all the
    same."""
    assert rate_in_dram(measured, typical) == expected
    seen = Observation(
        hot([SWAP_GAIN * expected * 1.01] * 5 + [SWAP_GAIN * expected * 0.99] * 5),
        (stock(50, 1 / measured),),
        (dram(0),),
        (slow(1000),),
        budget=1000,
        coldest=measured,
        typical=typical,
    )
    assert (plan(seen).promote, plan(seen).wanted) == (5, 5)


def test_only_what_is_far_hotter_is_urgent() -> None:
    rates = [10 * URGENT] * 3 + [URGENT * 0.99] * 4
    seen = Observation(hot(rates), (stock(50, 1.0),), (dram(0),), (slow(1000),), budget=1000, coldest=1.0)
    assert (plan(seen).urgent, plan(seen).wanted) == (3, 7)


@pytest.mark.parametrize(("room", "least"), [(1, LEAST_RATE), (0, 3.0)])
def test_what_need_not_be_looked_at(room: int, least: float) -> None:
    assert least_rate((dram(room),), 0, 3.0) == least
    assert least_rate((dram(room),), 0, 0.0) == LEAST_RATE


@given(OBSERVATIONS)
def test_what_is_urgent_is_wanted(seen: Observation) -> None:
    assert plan(seen).urgent <= plan(seen).wanted
    assert plan(replace(seen, budget=0)).urgent == plan(seen).urgent, "whatever comes of it"


@given(OBSERVATIONS)
def test_a_settled_picture_moves_less(seen: Observation) -> None:
    assert plan(replace(seen, settled=True)).promote <= plan(replace(seen, settled=False)).promote


@pytest.mark.parametrize(
    ("settled", "free", "promoted"), [(True, 100, 3), (False, 100, 10), (True, (9 << 30) // PAGE_SIZE, 10)]
)
def test_when_settled_only_what_stands_out_goes_into_a_little_room(
    settled: bool, free: int, promoted: int
) -> None:
    typical = 4 * LEAST_RATE
    rates = [URGENT * typical * 1.01] * 3 + [URGENT * typical * 0.99] * 7
    seen = Observation(
        hot(rates), (), (dram(free),), (slow(100),), budget=1000, typical=typical, settled=settled
    )
    assert plan(seen).promote == promoted


@pytest.mark.parametrize("rate", [LEAST_RATE, 2 * LEAST_RATE, 1.0])
def test_with_room_a_page_used_once_in_a_while_is_worth_the_trip(rate: float) -> None:
    made = plan(Observation(hot([rate] * 10), (), (dram(100),), (slow(100),), budget=1000))
    assert made.promote == 10 and not made.demotions


@pytest.mark.parametrize("idle", [1.0, IDLE_WITHOUT_SWAP, 10 * IDLE_WITHOUT_SWAP])
def test_room_is_never_worth_less_than_a_swap(idle: float) -> None:
    rates = [2 * LEAST_RATE] * 20
    tight = Observation(hot(rates), (stock(100, idle),), (dram(0),), (slow(100),), budget=1000)
    assert plan(replace(tight, dram=(dram(20),))).promote >= plan(tight).promote


def test_a_swap_that_pays() -> None:
    seen = Observation(
        hot([10.0] * 5 + [0.1] * 5), (stock(50, 1.0),), (dram(0),), (slow(1000),), budget=1000
    )
    made = plan(seen)
    assert (made.promote, demoted(made)) == (5, 5), "0.1 a second against once a second does not pay"


def test_room_and_swaps_share_the_budget() -> None:
    seen = Observation(hot([10.0] * 100), (stock(100, 9.0),), (dram(20),), (slow(1000),), budget=60)
    made = plan(seen)
    assert (made.promote, demoted(made)) == (40, 20), "20 into the room, and 20 swaps of two moves each"


def test_below_the_floor_room_is_made_before_anything_goes_up() -> None:
    seen = Observation(hot([10.0] * 10), (stock(500, 9.0),), (dram(-100),), (slow(1000),), budget=1000)
    made = plan(seen)
    assert (made.promote, demoted(made)) == (10, 110)


def test_below_the_floor_a_small_budget_goes_into_room() -> None:
    """However far below: each round comes nearer, or nothing would ever move again."""
    seen = Observation(hot([10.0] * 10), (stock(5000, 9.0),), (dram(-2000),), (slow(9000),), budget=100)
    for _ in range(100):
        made = plan(seen)
        assert made.promote + demoted(made) <= 100
        assert made.demotions and demoted(made) >= made.promote, "no progress"
        if made.promote == 10:
            break
        seen = replace(seen, dram=(dram(balance(seen) + demoted(made) - made.promote),))
    else:
        pytest.fail("never reached the floor")


def test_the_floor_is_twice_the_high_watermark_and_32_mib() -> None:
    node = dram(0, high=5 << 20)
    assert floor_bytes(node, 0) == (10 << 20) + (32 << 20)
    assert floor_bytes(node, 7 << 20) == (49 << 20)
    assert balance_pages(replace(node, free=42 << 20), 0) == 0
    assert balance_pages(replace(node, free=43 << 20), 0) == 256
    assert balance_pages(replace(node, free=41 << 20), 0) == -256


def test_room_is_made_on_the_node_that_is_filled() -> None:
    """Node 1 has the coldest pages, and node 0 the most free memory: demoting on node 1 would not help."""
    seen = Observation(
        hot([5.0] * 100),
        (stock(400, 100.0, node=1), stock(400, 50.0, node=0)),
        (dram(0, 0), dram(-300, 1)),
        (slow(1000),),
        budget=400,
    )
    made = plan(seen)
    assert [(step.node, len(step.which)) for step in made.promotions] == [(0, 100)]
    assert {step.stock.node for step in made.demotions} == {0}
