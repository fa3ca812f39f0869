"""What a plan for several DRAM nodes keeps to: each page near its users, and the rest as for one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.core.test_planner import LEAST_RATE, demoted, dram, hot, slow, slow_room, stock
from tierd.core.heat import HotPages
from tierd.core.plan_text import plan_lines
from tierd.core.planner import (
    FAR,
    SWAP_GAIN,
    Observation,
    Plan,
    balance_pages,
    least_rate,
    plan,
    rate_in_dram,
    room_pages,
    short_of_room,
)

PLENTY = 1 << 20
SLOW = (slow(PLENTY, 2), slow(PLENTY, 3))
BOTH = (0, 1)


def sockets(*room: int) -> tuple:
    return tuple(dram(pages, number) for number, pages in enumerate(room))


@st.composite
def hot_pages(draw: st.DrawFn) -> HotPages:
    rates = draw(st.lists(st.floats(LEAST_RATE, 500.0), max_size=120))
    return hot(
        rates, draw(st.lists(st.sampled_from([-1, 0, 1, 9]), min_size=len(rates), max_size=len(rates)))
    )


OBSERVATIONS = st.builds(
    Observation,
    hot=hot_pages(),
    cold=st.lists(
        st.builds(
            stock,
            st.integers(1, 100),
            st.floats(0.05, 200.0),
            st.sampled_from(["/a", "/b"]),
            st.sampled_from(BOTH),
        ),
        max_size=6,
    ).map(tuple),
    dram=st.tuples(st.integers(-100, 100), st.integers(-100, 100)).map(lambda room: sockets(*room)),
    slow=st.tuples(st.integers(-50, 300), st.integers(-50, 300)).map(
        lambda room: (slow(room[0], 2), slow(room[1], 3))
    ),
    budget=st.integers(0, 600),
)


def to(made: Plan, node: int) -> list[int]:
    """Places in the list of hot pages that go to `node`, hottest first."""
    return sorted(place for step in made.promotions if step.node == node for place in step.which.tolist())


def down(made: Plan, node: int) -> int:
    return sum(step.pages for step in made.demotions if step.stock.node == node)


def balances(seen: Observation) -> dict[int, int]:
    return {node.number: balance_pages(node, seen.floor) for node in seen.dram}


@settings(max_examples=300)
@given(OBSERVATIONS)
def test_every_page_goes_to_one_place_and_the_budget_holds_for_all(seen: Observation) -> None:
    made = plan(seen)
    everything = to(made, 0) + to(made, 1)
    assert len(everything) == len(set(everything)) == made.promote
    assert made.promote + demoted(made) <= seen.budget
    assert demoted(made) <= slow_room(seen)
    assert all((np.diff(step.which) > 0).all() and step.reason for step in made.promotions), "hottest first"
    assert bool(made.held) == (made.promote < made.wanted)


@settings(max_examples=300)
@given(OBSERVATIONS)
def test_each_node_keeps_its_floor_and_makes_its_own_room(seen: Observation) -> None:
    made = plan(seen)
    for node, balance in balances(seen).items():
        up = len(to(made, node))
        assert balance + down(made, node) - up >= (0 if up else min(0, balance))
        assert down(made, node) <= max(0, up - balance)


@settings(max_examples=300)
@given(OBSERVATIONS)
def test_far_dram_takes_only_what_is_left_over(seen: Observation) -> None:
    """Of a page that goes far, its own node has no room left and holds nothing that is clearly colder."""
    seen = replace(seen, budget=PLENTY, slow=SLOW)
    made = plan(seen)
    for step in made.promotions:
        other = 1 - step.node
        far = seen.hot.near[step.which] == other
        assert far.all() == far.any() == step.reason.endswith(FAR), "and says so"
        if not far.any():
            continue
        assert down(made, step.node) == 0, "nobody makes room for what comes from far"
        assert len(to(made, other)) >= balances(seen)[other], "its own node has room"
        rate = seen.hot.rate[step.which[0]]
        left = down(made, other) if to(made, other) else max(0, -balances(seen)[other])
        for candidate in sorted((s for s in seen.cold if s.node == other), key=lambda s: s.rate):
            left -= candidate.pages
            if left < 0:
                assert rate < SWAP_GAIN * rate_in_dram(candidate.rate, seen.typical) * (1 + 1e-9)
                break


@settings(max_examples=300)
@given(OBSERVATIONS)
def test_without_room_left_over_two_sockets_are_two_machines(seen: Observation) -> None:
    """Each one's plan is that of a machine which has nothing else."""
    pages = replace(seen.hot, near=seen.hot.near & 1)
    seen = replace(seen, hot=pages, budget=PLENTY, slow=SLOW)
    made = plan(seen)
    assume(not any(step.reason.endswith(FAR) for step in made.promotions))
    for node in seen.dram:
        own = seen.hot.only(seen.hot.near == node.number)
        cold = tuple(stock for stock in seen.cold if stock.node == node.number)
        alone = plan(replace(seen, hot=own, cold=cold, dram=(node,)))
        assert len(to(made, node.number)) == alone.promote
        assert down(made, node.number) == alone.demote_pages


@given(OBSERVATIONS, st.integers(0, 300))
def test_a_larger_budget_never_promotes_less(seen: Observation, more: int) -> None:
    assert plan(seen).promote <= plan(replace(seen, budget=seen.budget + more)).promote


@given(OBSERVATIONS)
def test_with_one_dram_node_it_is_no_matter_who_uses_a_page(seen: Observation) -> None:
    one = replace(seen, dram=seen.dram[:1])
    unknown = replace(one, hot=replace(one.hot, near=np.full(len(one.hot), -1, dtype=np.int16)))
    made, same = plan(one), plan(unknown)
    assert to(made, 0) == to(same, 0) == list(range(made.promote))
    assert (made.demotions, made.wanted, made.held) == (same.demotions, same.wanted, same.held)
    assert not any(step.reason.endswith(FAR) for step in made.promotions)


def test_a_page_goes_to_the_dram_near_its_users_though_the_other_is_emptier() -> None:
    made = plan(Observation(hot([5.0] * 10, [0, 1] * 5), (), sockets(5000, 100), SLOW, budget=1000))
    assert to(made, 0) == [0, 2, 4, 6, 8] and to(made, 1) == [1, 3, 5, 7, 9]
    assert not made.demotions and not made.held


def test_colder_pages_of_the_near_node_make_room_though_the_other_has_some() -> None:
    cold = (stock(100, 50.0, node=1), stock(100, 80.0, node=0))
    made = plan(Observation(hot([5.0] * 10, 1), cold, sockets(5000, 0), SLOW, budget=1000))
    assert (to(made, 0), len(to(made, 1))) == ([], 10)
    assert [(step.stock.node, step.pages) for step in made.demotions] == [(1, 10)]


def test_far_dram_beats_slow_memory() -> None:
    """Node 1 is full of what is as hot; the hottest go to what room node 0 has left, and only into room."""
    cold = (stock(100, 0.05, node=1), stock(100, 80.0, node=0))
    seen = Observation(hot([5.0 + n for n in range(20)], [0, 0] + [1] * 18), cold, sockets(8, 0), SLOW, 1000)
    made = plan(seen)
    assert (to(made, 0), to(made, 1)) == (list(range(8)), [])
    assert not made.demotions
    near, far = plan_lines(made)[:2]
    assert (near.pages, near.target_node, far.pages, far.target_node) == (2, 0, 6, 0)
    assert near.reason == "used 23 to 24 times a second"
    assert far.reason == f"used 17 to 22 times a second{FAR}"
    assert "DRAM near those who use them" in made.held


def test_what_is_used_nobody_knows_where_goes_to_the_emptiest_and_then_to_the_other() -> None:
    made = plan(Observation(hot([5.0] * 30), (), sockets(10, 18), SLOW, budget=1000))
    assert to(made, 1) == list(range(18)) and to(made, 0) == list(range(18, 28))
    assert not any(step.reason.endswith(FAR) for step in made.promotions)


def test_far_pages_go_where_most_room_is_left() -> None:
    """Node 1 is emptier, and has more of its own to take up."""
    near = [1] * 30 + [0] * 10
    made = plan(Observation(hot([5.0] * 40, near), (), sockets(0, 32, 5), SLOW, budget=1000))
    assert (to(made, 1), to(made, 2)) == ([*range(30), 35, 36], [30, 31, 32, 33, 34])


def of_slots(pages: HotPages, *slots: int) -> HotPages:
    """The processes of the pages, in turn."""
    return replace(pages, slot=np.resize(np.array(slots, dtype=np.int64), len(pages)))


@settings(max_examples=300)
@given(OBSERVATIONS, st.lists(st.sets(st.sampled_from([1, 2, 3])), min_size=2, max_size=2))
def test_no_page_goes_where_its_owner_may_have_none(seen: Observation, barred: list[set[int]]) -> None:
    """As a cpuset says; and who may have none in any DRAM wants none."""
    pages = of_slots(seen.hot, 1, 2, 3)
    seen = replace(seen, hot=pages, barred={node: frozenset(slots) for node, slots in enumerate(barred)})
    made = plan(seen)
    for node, slots in enumerate(barred):
        assert not set(pages.slot[to(made, node)].tolist()) & slots
    nowhere = np.isin(pages.slot, list(barred[0] & barred[1]))
    without = plan(replace(seen, hot=pages.only(~nowhere)))
    assert (made.wanted, made.urgent, made.promote) == (without.wanted, without.urgent, without.promote)


def test_a_page_that_may_not_be_near_its_users_goes_to_other_dram() -> None:
    pages = of_slots(hot([5.0] * 20, 1), 7, 8)
    seen = Observation(pages, (), sockets(100, 500), SLOW, 1000, barred={1: frozenset({7})})
    made = plan(seen)
    assert (to(made, 0), to(made, 1)) == (list(range(0, 20, 2)), list(range(1, 20, 2)))


def test_room_elsewhere_is_for_those_who_may_have_it() -> None:
    """Node 0 is full of what is as hot. Half of the pages may not go farther, and wait."""
    pages = of_slots(hot([5.0] * 20, 0), 7, 8)
    seen = Observation(pages, (), sockets(0, 500), SLOW, 1000, barred={1: frozenset({7})})
    made = plan(seen)
    assert (to(made, 0), to(made, 1)) == ([], list(range(1, 20, 2)))


def test_with_one_dram_node_too_some_may_have_none() -> None:
    pages = of_slots(hot([5.0] * 20), 7, 8)
    made = plan(Observation(pages, (), sockets(500), SLOW, 1000, barred={0: frozenset({7})}))
    assert to(made, 0) == list(range(1, 20, 2)) and (made.wanted, made.urgent) == (10, 10)
    made = plan(Observation(pages, (), sockets(500), SLOW, 1000, barred={0: frozenset({7, 8})}))
    assert not made.promotions and made.reason and not made.held


def test_what_the_slow_nodes_have_free_is_for_all() -> None:
    cold = (stock(100, 50.0, node=0), stock(100, 50.0, node=1))
    pages = hot([5.0] * 100, [0, 1] * 50)
    made = plan(Observation(pages, cold, sockets(0, 0), (slow(20, 2), slow(50, 3)), budget=1000))
    assert (len(to(made, 0)), len(to(made, 1)), demoted(made)) == (50, 20, 70)


def test_a_page_that_is_hardly_used_goes_nowhere_far() -> None:
    seen = Observation(hot([LEAST_RATE / 2] * 10, 1), (), sockets(100, 0), SLOW, budget=1000)
    assert plan(seen).promote == 0


def test_the_budget_is_shared() -> None:
    """By what each node has to move: three times as much on one side, of which each page is a swap."""
    cold = (stock(1000, 50.0, node=0), stock(1000, 50.0, node=1))
    seen = Observation(hot([5.0] * 400, [0] * 300 + [1] * 100), cold, sockets(0, 0), SLOW, budget=400)
    made = plan(seen)
    assert (len(to(made, 0)), len(to(made, 1)), down(made, 0), down(made, 1)) == (150, 50, 150, 50)
    assert made.limited and "bandwidth" in made.held


def test_what_one_node_is_short_of_takes_no_room_from_the_other() -> None:
    assert room_pages(sockets(100, -5000), 0) == 100
    assert least_rate(sockets(1, -5000), 0, 3.0) == LEAST_RATE
    assert least_rate(sockets(0, -5000), 0, 3.0) == 3.0


@pytest.mark.parametrize(
    ("room", "short"), [((0, 0), {0, 1}), ((2 << 20 | 1, 0), {1}), ((2 << 20, 1), {0, 1})]
)
def test_which_nodes_are_short_of_room(room: tuple[int, int], short: set[int]) -> None:
    """64 GiB each; an eighth of that is 2 Mi pages."""
    assert short_of_room(sockets(*room), 0) == short
