"""What a plan keeps to where the policy has classes: promises, limits, and who competes with whom."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_planner import dram, slow
from tierd.core.classes import DEFAULT_CLASS, DramBound, DramShare, ServiceClass
from tierd.core.heat import HotPages
from tierd.core.holdings import Holding, Sharing, Spare, spare_wanted
from tierd.core.model import PAGE_SIZE
from tierd.core.planner import ColdStock, Observation, Plan, plan
from tierd.core.sharing import plan_classes

PLENTY = 1 << 30
GOLD = ServiceClass("gold", dram=DramShare(guaranteed=True), priority=2)
SILVER = ServiceClass("silver", dram=DramShare(minimum=DramBound(per_cent=30)), priority=1)
BRONZE = ServiceClass("bronze", dram=DramShare(maximum=DramBound(per_cent=10)))


def holding(
    service_class: ServiceClass,
    dram: int,
    slow: int,
    *,
    budget: int = PLENTY,
    coldest: float = 0.01,
    overdue: bool = False,
) -> Holding:
    """A class that has so many pages here and there, and what that means for it."""
    share, memory = service_class.dram, dram + slow
    return Holding(
        service_class,
        dram,
        slow,
        share.least(memory * PAGE_SIZE) // PAGE_SIZE,
        share.most(memory * PAGE_SIZE) // PAGE_SIZE,
        budget,
        coldest,
        overdue,
    )


def sharing(*holdings: Holding) -> Sharing:
    """Each class has one process, whose slot is its place plus one, in one cgroup, `/` and its name."""
    places = range(len(holdings))
    return Sharing(
        holdings,
        {place + 1: place for place in places},
        {f"/{holdings[place].service_class.name}": place for place in places},
    )


def hot(**rates: list[float]) -> HotPages:
    """Pages of the classes `c1`, `c2` and so on, by their places, with these rates."""
    pages = sorted(((rate, int(name[1:])) for name, many in rates.items() for rate in many), reverse=True)
    return HotPages(
        np.array([slot for _, slot in pages], dtype=np.int64),
        np.arange(len(pages), dtype=np.uint64),
        np.array([rate for rate, _ in pages]),
        np.full(len(pages), -1, dtype=np.int16),
    )


def stock(service_class: ServiceClass, pages: int, rate: float = 0.01, sequence: int = 7) -> ColdStock:
    return ColdStock(f"/{service_class.name}", hash(service_class.name), 0, sequence, 1 / rate, pages, rate)


def seen(hot: HotPages, *cold: ColdStock, room: int = 0, budget: int = PLENTY) -> Observation:
    return Observation(hot, cold, (dram(room),), (slow(1 << 20),), budget)


def spare(**pages: int) -> Spare:
    """So many pages of the classes `c1`, `c2` and so on, all of node 0, to go to node 1."""
    slots = np.repeat([int(name[1:]) for name in pages], list(pages.values())).astype(np.int64)
    node = np.zeros(len(slots), dtype=np.int16)
    return Spare(slots, np.arange(len(slots), dtype=np.uint64), node, node + np.int16(1))


def pushed(plan: Plan) -> dict[str, int]:
    found: Counter[str] = Counter()
    for step in plan.pushes:
        found[step.service_class] += len(step.pages)
    return dict(found)


def promoted(plan: Plan, hot: HotPages) -> Counter[int]:
    """Pages by slot."""
    which = [step.which for step in plan.promotions]
    return Counter(hot.slot[np.concatenate(which)].tolist() if which else [])


def demoted(plan: Plan) -> Counter[str]:
    found: Counter[str] = Counter()
    for step in plan.demotions:
        found[step.stock.cgroup[1:]] += step.pages
    return found


def test_with_one_class_it_is_the_plan_there_would_be_without() -> None:
    looked = seen(hot(c1=[9, 8, 7, 0.5, 0.001]), stock(DEFAULT_CLASS, 2), room=1)
    expected = plan(looked)
    found = plan_classes(looked, sharing(holding(DEFAULT_CLASS, 10, 10)))
    assert [(step.stock, step.pages) for step in found.demotions] == [
        (step.stock, step.pages) for step in expected.demotions
    ]
    assert [step.which.tolist() for step in found.promotions] == [
        step.which.tolist() for step in expected.promotions
    ]
    assert (found.promote, found.wanted, found.urgent) == (
        expected.promote,
        expected.wanted,
        expected.urgent,
    )


def test_a_class_above_its_max_gives_up_its_coldest_though_dram_is_free() -> None:
    old, young = stock(BRONZE, 30, 0.01), stock(BRONZE, 100, 0.5, 8)
    found = plan_classes(seen(hot(), young, old, room=5000), sharing(holding(BRONZE, 150, 850)))
    assert [(step.stock, step.pages, step.enforced) for step in found.demotions] == [
        (old, 30, True),
        (young, 20, True),
    ]
    assert found.demotions[0].reason == "class bronze has more DRAM than max 10%"


def test_what_cannot_go_down_for_want_of_cold_pages_is_said() -> None:
    found = plan_classes(seen(hot(), stock(BRONZE, 30)), sharing(holding(BRONZE, 150, 850)))
    assert (found.demote_pages, found.unmet) == (30, 20)
    found = plan_classes(seen(hot(), stock(BRONZE, 30), budget=10), sharing(holding(BRONZE, 150, 850)))
    assert (found.demote_pages, found.unmet) == (10, 0), "the budget is no want of cold pages"


def test_what_is_too_much_for_long_goes_down_whatever_its_use() -> None:
    cold, class_ = stock(BRONZE, 30), holding(BRONZE, 150, 850, overdue=True)
    found = plan_classes(seen(hot(), cold), sharing(class_), spare(c1=45))
    assert (pushed(found), demoted(found), found.unmet) == ({"bronze": 45}, {"bronze": 5}, 0)
    (push,) = found.pushes
    assert (push.slot, push.dram, push.slow, push.pages.tolist()) == (1, 0, 1, list(range(45)))
    assert push.reason == "class bronze has more DRAM than max 10%" and found.demote_pages == 50
    assert not found.reason
    found = plan_classes(seen(hot(), budget=20), sharing(class_), spare(c1=200))
    assert pushed(found) == {"bronze": 20}


def test_what_is_owed_for_long_comes_up_whatever_others_use() -> None:
    pages = hot(c1=[0.0] * 300)
    classes = sharing(
        holding(GOLD, 700, 300, overdue=True), holding(SILVER, 400, 600), holding(DEFAULT_CLASS, 150, 100)
    )
    cold = stock(SILVER, 60)
    found = plan_classes(seen(pages, cold, room=20), classes, spare(c2=500, c3=500))
    assert pushed(found) == {"silver": 100, "default": 150}, (
        "the lowest priority first, and no promise broken"
    )
    assert promoted(found, pages) == {1: 270} and not demoted(found)
    assert "class gold is owed DRAM" in found.pushes[0].reason
    found = plan_classes(seen(pages, room=20, budget=100), classes, spare(c2=500, c3=500))
    assert sum(pushed(found).values()) + found.promote <= 100 and found.promote >= 40


def test_what_is_owed_waits_for_cold_pages_first() -> None:
    pages = hot(c1=[0.0] * 300)
    classes = sharing(holding(GOLD, 700, 300), holding(DEFAULT_CLASS, 150, 100))
    found = plan_classes(seen(pages, stock(DEFAULT_CLASS, 40)), classes, spare(c2=150))
    assert not found.pushes and promoted(found, pages) == {1: 40}


@pytest.mark.parametrize(
    ("overdue", "room", "wanted"),
    [
        ((False, False, False), 0, {}),
        ((False, True, False), 0, {1: 50}),
        ((True, False, False), 1000, {}),
        ((True, False, False), 60, {2: 40}),
        ((True, False, False), 0, {2: 80, 1: 20}),
        ((True, True, False), 0, {1: 50, 2: 50}),
    ],
)
def test_who_may_have_to_give_pages_up(overdue: tuple[bool, ...], room: int, wanted: dict[int, int]) -> None:
    gold = holding(GOLD, 300, 100, overdue=overdue[0])
    bronze = holding(replace(BRONZE, priority=1), 150, 850, overdue=overdue[1])
    rest = holding(DEFAULT_CLASS, 80, 10, overdue=overdue[2])
    assert spare_wanted(sharing(gold, bronze, rest), room) == wanted


def test_a_class_at_its_max_swaps_with_itself_and_has_no_room() -> None:
    pages = hot(c1=[50.0] * 40)
    found = plan_classes(
        seen(pages, stock(BRONZE, 15), stock(SILVER, 500), room=5000),
        sharing(holding(BRONZE, 100, 900), holding(SILVER, 900, 100)),
    )
    assert promoted(found, pages) == {1: 15} and demoted(found) == {"bronze": 15}


def test_what_is_hot_and_may_not_come_up_is_no_reason_to_look_harder() -> None:
    pages = hot(c1=[50.0] * 40)
    found = plan_classes(
        seen(pages, stock(SILVER, 500)),
        sharing(holding(BRONZE, 100, 900, coldest=40.0), holding(SILVER, 300, 700, coldest=0.001)),
    )
    assert not found.promote and not found.urgent and not found.wanted


def test_a_class_below_its_min_is_served_whatever_its_pages_are_used() -> None:
    pages = hot(c1=[0.0] * 400, c2=[80.0] * 50)
    found = plan_classes(
        seen(pages, stock(DEFAULT_CLASS, 500, 5.0)),
        sharing(holding(SILVER, 100, 900), holding(DEFAULT_CLASS, 900, 100)),
    )
    assert promoted(found, pages) == {1: 200, 2: 50} and demoted(found)["default"] == 250
    assert found.promotions[0].reason == "class silver is owed DRAM: min 30%"


def test_the_lowest_priority_pays_first_and_never_below_its_own_min() -> None:
    low = replace(SILVER, name="low", priority=0)
    pages = hot(c1=[0.0] * 500)
    found = plan_classes(
        seen(pages, stock(SILVER, 600, 0.01), stock(low, 600, 5.0)),
        sharing(holding(GOLD, 500, 400), holding(SILVER, 500, 500), holding(low, 400, 600)),
    )
    assert promoted(found, pages) == {1: 300}
    assert demoted(found) == {"low": 100, "silver": 200}


def test_what_is_guaranteed_comes_up_before_what_is_promised() -> None:
    pages = hot(c1=[0.0] * 100, c2=[9.0] * 300)
    found = plan_classes(
        seen(pages, stock(DEFAULT_CLASS, 150, 5.0)),
        sharing(holding(GOLD, 900, 100), holding(SILVER, 0, 1000), holding(DEFAULT_CLASS, 900, 0)),
    )
    assert promoted(found, pages) == {1: 100, 2: 50}


def test_a_class_at_its_min_gives_nothing_to_others_and_swaps_with_itself() -> None:
    pages = hot(c1=[50.0] * 20, c2=[90.0] * 500)
    found = plan_classes(
        seen(pages, stock(SILVER, 300, 0.001)),
        sharing(holding(SILVER, 300, 700), holding(replace(DEFAULT_CLASS, priority=5), 100, 900)),
    )
    assert promoted(found, pages) == {1: 20} and demoted(found) == {"silver": 20}


def test_a_higher_priority_has_spare_dram_before_the_hottest_of_a_lower() -> None:
    high, low = replace(DEFAULT_CLASS, name="high", priority=3), replace(DEFAULT_CLASS, name="low")
    pages = hot(c1=[0.1] * 60, c2=[90.0] * 60)
    classes = sharing(holding(high, 0, 1000), holding(low, 1000, 1000))
    found = plan_classes(seen(pages, stock(low, 50, 40.0)), classes)
    assert promoted(found, pages) == {1: 50} and demoted(found) == {"low": 50}
    found = plan_classes(seen(pages, stock(high, 50, 0.001)), classes)
    assert 2 not in promoted(found, pages), "and a lower one takes none of it"


def test_a_class_has_a_bandwidth_of_its_own() -> None:
    pages = hot(c1=[50.0] * 100, c2=[40.0] * 100)
    classes = sharing(holding(BRONZE, 0, 5000, budget=30), holding(DEFAULT_CLASS, 0, 500))
    found = plan_classes(seen(pages, room=1000), classes)
    assert promoted(found, pages) == {1: 30, 2: 100}
    excess = plan_classes(seen(hot(), stock(BRONZE, 200)), sharing(holding(BRONZE, 200, 800, budget=30)))
    assert demoted(excess) == {"bronze": 30}


def test_pages_of_a_process_that_is_placed_no_more_stay() -> None:
    assert plan_classes(seen(hot(c7=[50.0] * 9), room=50), sharing(holding(BRONZE, 0, 500))).promote == 0


def test_nothing_goes_down_where_the_slow_tier_is_full() -> None:
    looked = replace(seen(hot(), stock(BRONZE, 300)), slow=(slow(7),))
    assert demoted(plan_classes(looked, sharing(holding(BRONZE, 300, 700)))) == {"bronze": 7}


counts = st.integers(0, 400)
rates = st.lists(st.sampled_from([0.0, 0.02, 0.5, 3.0, 40.0]), max_size=60)


@settings(max_examples=300)
@given(
    st.tuples(counts, counts),
    st.tuples(counts, counts),
    st.tuples(counts, counts),
    st.tuples(counts, counts),
    st.tuples(rates, rates, rates, rates),
    st.tuples(counts, counts, counts, counts),
    st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    st.tuples(counts, counts, counts, counts),
    st.integers(-50, 200),
    st.integers(0, 600),
)
def test_nobody_loses_what_is_promised_or_gets_more_than_allowed(
    gold: tuple[int, int],
    silver: tuple[int, int],
    bronze: tuple[int, int],
    rest: tuple[int, int],
    used: tuple[list[float], ...],
    cold: tuple[int, ...],
    overdue: tuple[bool, ...],
    whole: tuple[int, ...],
    room: int,
    budget: int,
) -> None:
    holdings = [
        holding(service_class, *held, overdue=late)
        for service_class, held, late in zip(
            (GOLD, SILVER, BRONZE, DEFAULT_CLASS), (gold, silver, bronze, rest), overdue, strict=True
        )
    ]
    # what is cold and what is spare may be the same pages: those of each class are split
    cold = tuple(
        min(pages, held.dram - min(other, held.dram))
        for pages, other, held in zip(cold, whole, holdings, strict=True)
    )
    some = spare(**{f"c{n}": min(many, holdings[n - 1].dram) for n, many in enumerate(whole, 1)})
    pages = hot(**{f"c{n}": many[: holdings[n - 1].slow] for n, many in enumerate(used, 1)})
    stocks = [
        stock(held.service_class, min(held.dram, pages_), rate)
        for held, pages_, rate in zip(holdings, cold, (0.01, 0.3, 0.02, 4.0), strict=True)
    ]
    found = plan_classes(seen(pages, *stocks, room=room, budget=budget), sharing(*holdings), some)
    came, went = promoted(found, pages), demoted(found)
    assert all(went[name] <= stocks[place].pages for place, name in enumerate(("gold", "silver", "bronze")))
    went.update(pushed(found))
    which = np.concatenate([step.which for step in found.promotions] or [np.empty(0, dtype=np.int64)])
    assert len(set(which.tolist())) == len(which) == found.promote <= found.wanted
    assert found.promote + found.demote_pages <= budget
    for place, held in enumerate(holdings, 1):
        name = held.service_class.name
        after = held.dram + came[place] - went[name]
        assert after >= min(held.dram, held.least), name
        assert after <= max(held.dram, held.most), name
    if found.promote:
        assert found.promote - found.demote_pages <= max(0, room)
    assert bool(found.reason) == (not found.promotions and not found.demotions and not found.pushes)


@pytest.mark.parametrize("pages", [0, 3])
def test_no_class_has_a_page_that_may_go_up(pages: int) -> None:
    found = plan_classes(seen(hot(c1=[0.0] * pages)), sharing(holding(DEFAULT_CLASS, 10, 10)))
    assert "no" in found.reason
