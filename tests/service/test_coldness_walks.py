"""How often generations are walked: soon enough to find what is cold, and seldom enough to cost little."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.kernel.fixtures.simulated import CGROUP, DRAM, SimulatedKernel
from tests.service.test_coldness import ALL, NODE, aged, coldness, fake, stocks
from tierd.core.planner import ColdStock, Plan
from tierd.kernel.generations import Lineage
from tierd.service import coldness as module
from tierd.service.coldness import (
    FIRST_INTERVAL,
    LONGEST_INTERVAL,
    SHORTEST_INTERVAL,
    Coldness,
)

__all__ = ["fake"]


def interval(cold: Coldness, fake: SimulatedKernel) -> float:
    """Seconds between two agings, found by waiting."""
    stocks(cold, fake)
    fake.now += LONGEST_INTERVAL + 1
    stocks(cold, fake)
    begun, before = fake.now, len(aged(fake))
    while len(aged(fake)) == before:
        fake.now += SHORTEST_INTERVAL / 4
        stocks(cold, fake)
    return fake.now - begun


def stock(pages: int) -> tuple[ColdStock, ...]:
    return (ColdStock(CGROUP, 24, DRAM, 40, 1.0, pages, 1.0),)


def steered(fake: SimulatedKernel, rounds: int, plan: Plan, found: tuple[ColdStock, ...]) -> Coldness:
    """After so many rounds, each of which aged, and found the same."""
    cold = coldness(fake)
    for _ in range(rounds):
        fake.now += LONGEST_INTERVAL + 1
        stocks(cold, fake)
        cold.steer(plan, found, 10)
    return cold


TOO_LITTLE = Plan(promote=10, wanted=10_000), stock(10)
ENOUGH = Plan(promote=10, wanted=10), stock(10_000_000)


def test_the_interval_shrinks_when_too_little_is_cold_and_grows_when_enough_is(
    fake: SimulatedKernel,
) -> None:
    fake.stock(CGROUP, 5000)
    usual = interval(coldness(fake), fake)
    assert interval(steered(fake, 3, *TOO_LITTLE), fake) < usual < interval(steered(fake, 3, *ENOUGH), fake)


def test_the_interval_shrinks_for_a_class_that_has_too_much_though_others_have_enough(
    fake: SimulatedKernel,
) -> None:
    fake.stock(CGROUP, 5000)
    plan, cold = ENOUGH
    unmet = steered(fake, 3, replace(plan, unmet=7), cold)
    assert interval(unmet, fake) < interval(coldness(fake), fake)


def test_a_long_interval_ends_when_what_it_found_is_used_up(fake: SimulatedKernel) -> None:
    """The hot set has changed, and the next walk would be half a minute away."""
    fake.stock(CGROUP, 5000)
    cold = steered(fake, 30, *ENOUGH)
    cold.steer(*TOO_LITTLE, 10)
    before = len(aged(fake))
    fake.now += FIRST_INTERVAL
    stocks(cold, fake)
    assert len(aged(fake)) == before + 1
    cold = steered(fake, 30, *ENOUGH)
    cold.begin_anew()
    before = len(aged(fake))
    fake.now += FIRST_INTERVAL
    stocks(cold, fake)
    assert len(aged(fake)) == before + 1


def test_the_interval_has_bounds(fake: SimulatedKernel) -> None:
    fake.stock(CGROUP, 5000)
    assert interval(steered(fake, 100, *TOO_LITTLE), fake) >= SHORTEST_INTERVAL
    assert interval(steered(fake, 100, *ENOUGH), fake) <= LONGEST_INTERVAL + SHORTEST_INTERVAL


def test_walks_that_take_long_are_made_less_often(fake: SimulatedKernel) -> None:
    fake.stock(CGROUP, 5000)
    cold = coldness(fake)
    age = fake.age

    def slow(lineage) -> None:
        fake.now += 2.0
        age(lineage)

    cold._generations.age = slow
    stocks(cold, fake)
    for _ in range(100):
        cold.steer(Plan(promote=10, wanted=10_000), (), 10)
    begun, before = fake.now, len(aged(fake))
    while len(aged(fake)) == before:
        fake.now += 0.1
        stocks(cold, fake)
    assert fake.now - 2.0 - begun >= module.WALK_SHARE * 2.0 - 2.0 - 0.2


def test_the_walks_of_all_cgroups_count(fake: SimulatedKernel) -> None:
    """The last of many may be a small one."""
    for number in range(4):
        fake.stock(f"/pod{number}", 5000, memcg=number)
    cold = coldness(fake)
    age = fake.age

    def slow(lineage) -> None:
        fake.now += 0.001 if lineage.cgroup == "/pod3" else 1.0
        age(lineage)

    cold._generations.age = slow
    for _ in range(2):
        stocks(cold, fake)
    for _ in range(100):
        cold.steer(Plan(promote=10, wanted=10_000), (), 10)
    before = len(aged(fake))
    fake.now += 3 * module.WALK_SHARE - 4.0
    stocks(cold, fake)
    assert len(aged(fake)) == before, "three seconds of walking in nine at most"


def test_a_round_walks_for_some_seconds_at_most_and_the_next_one_goes_on(fake: SimulatedKernel) -> None:
    """Hundreds of gigabytes in small pages: the walk of one cgroup takes seconds, in which nobody reads the
    rings, and that of all of them longer than the watchdog waits."""
    names = [f"/pod{number}" for number in range(20)]
    for number, name in enumerate(names):
        fake.stock(name, 5000, memcg=number)
    cold = coldness(fake)
    age = fake.age

    def slow(lineage: Lineage) -> None:
        fake.now += 1.5
        age(lineage)

    cold._generations.age = slow
    most = 0.0
    for _ in range(12):
        begun = fake.now
        stocks(cold, fake)
        most = max(most, fake.now - begun)
        fake.now += 1.0
    assert most <= module.MOST_WALKED + 1.5
    assert aged(fake) == [f"+ {number}" for number in range(20)], "each in its turn, and once"
    for _ in range(100):
        cold.steer(Plan(promote=10, wanted=10_000), (), 10)
    begun = fake.now
    while len(aged(fake)) < 40:
        stocks(cold, fake)
        fake.now += 1.0
    assert fake.now - begun >= 60, "thirty seconds of walking in ninety at most"


def test_without_walking_it_says_what_was_cold_before(fake: SimulatedKernel) -> None:
    fake.stock(CGROUP, 5000, 100)
    cold = coldness(fake)
    found = cold.stocks(ALL, {DRAM: NODE}, fake.now, walk=False)
    assert sum(stock.pages for stock in found) == 5100 and not aged(fake)


def test_cgroups_that_are_gone_leave_nothing_behind(fake: SimulatedKernel) -> None:
    """On a host of containers they come and go for as long as the daemon runs."""
    cold = coldness(fake)
    for number in range(300):
        fake.cgroups.clear()
        fake.stock(f"/kubepods/pod{number}", 5000, memcg=number)
        stocks(cold, fake)
        fake.now += LONGEST_INTERVAL
    assert sum(len(value) for value in vars(cold).values() if isinstance(value, dict)) <= 10


def test_a_door_that_is_closed_is_an_error(fake: SimulatedKernel) -> None:
    from tierd.kernel.generations import Generations

    with pytest.raises(OSError, match="Bad file descriptor"):
        Coldness(Generations(-1), fake.clock, between=lambda: None).stocks(ALL, {DRAM: NODE}, fake.now)
