"""What may be demoted: only what two generations have passed by, of cgroups that the policy selects."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import pytest

from tests.kernel.fixtures.simulated import CGROUP, DRAM, SLOW, GenerationsDoor, SimulatedKernel, simulate
from tierd.core.planner import AGREEMENT, IDLE_WITHOUT_SWAP, ColdStock
from tierd.core.policy import ProcessMatch, ProcessSelection
from tierd.kernel.generations import Generation, Lineage, parse
from tierd.service.coldness import (
    FIRST_INTERVAL,
    LONGEST_INTERVAL,
    SMALLEST_LINEAGE,
    Coldness,
    rates_of_use,
)


class Selecting(ProcessSelection):
    """In the place of Demotable: what may be asked for anything may be asked for its page cache."""

    def caches(self, cgroup: str) -> bool:
        return self.selects(cgroup)


ALL = Selecting()
NODE = 1 << 18
"""Base pages of a DRAM node."""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedKernel:
    return simulate(tmp_path, monkeypatch)


def coldness(fake: SimulatedKernel) -> Coldness:
    return Coldness(GenerationsDoor(fake), fake.clock, between=lambda: None)


def stocks(cold: Coldness, fake: SimulatedKernel, selection: Selecting = ALL) -> tuple[ColdStock, ...]:
    return cold.stocks(selection, {DRAM: NODE}, fake.now)


def aged(fake: SimulatedKernel) -> list[str]:
    return [command for command in fake.commands if command.startswith("+")]


def test_only_generations_at_least_two_old(fake: SimulatedKernel) -> None:
    fake.stock(CGROUP, 5000, 3000)
    found = stocks(coldness(fake), fake)
    assert found
    youngest = max(fake.cgroups[CGROUP].generations)
    assert all(stock.sequence <= youngest - 2 for stock in found)
    assert sum(stock.pages for stock in found) <= 8000


def test_idleness_lies_between_the_births_of_later_generations() -> None:
    """Pages of a generation were not touched from the birth of the next one to that of the youngest."""

    class Door:
        def read(self, wanted):
            return parse("memcg 9 /a\n node 0\n 1 9000 100 0\n 2 4000 50 0\n 3 2500 60 0\n 4 500 70 0\n")

        def age(self, lineage: object) -> None:
            pass

    found = Coldness(Door(), lambda: 0.0, between=lambda: None).stocks(ALL, {0: NODE}, 0.0)
    assert [(stock.sequence, stock.pages, stock.idle) for stock in found] == [(1, 100, 3.5), (2, 50, 2.0)]
    assert {(stock.cgroup, stock.memcg, stock.node) for stock in found} == {("/a", 9, 0)}


def lineage(*generations: tuple[int, float, int]) -> Lineage:
    """Generations as (sequence, age, pages), oldest first."""
    return Lineage(
        9, "/a", 0, tuple(Generation(number, age, pages, 0) for number, age, pages in generations)
    )


def test_how_soon_idle_pages_are_used_is_measured_by_each_walk() -> None:
    """Of 10,000 pages that were idle for 2 s or more, a tenth was used in the 4 s since the walk before; of
    the oldest half of them, none but ten."""
    before = lineage((1, 20.0, 5000), (2, 9.0, 5000), (3, 6.0, 90_000), (4, 4.0, 1000))
    after = lineage((1, 24.0, 4990), (2, 13.0, 4010), (3, 10.0, 20_000), (4, 8.0, 900), (5, 0.1, 80_000))
    rates = rates_of_use(before, after)
    assert rates[1] == pytest.approx(10 / 5000 / 4, rel=0.01)
    assert rates[2] == pytest.approx(math.log(10 / 9) / 4)
    assert rates[3] == pytest.approx(math.log(100 / 29) / 4), "these and all older ones"


def test_what_came_up_since_the_last_walk_does_not_count() -> None:
    before = lineage((1, 9.0, 5000), (2, 6.0, 11_000), (3, 4.0, 1000))
    after = lineage((1, 13.0, 4500), (2, 10.0, 4500), (3, 8.0, 500), (4, 0.1, 7500))
    assert rates_of_use(before, after, 6000)[2] == pytest.approx(math.log(10 / 9) / 4)
    assert rates_of_use(before, after)[2] == pytest.approx(math.log(16 / 9) / 4)
    assert rates_of_use(before, after, 6000)[1] == rates_of_use(before, after)[1]


def test_a_measure_survives_that_the_kernel_merges_the_oldest_generations() -> None:
    before = lineage((1, 20.0, 5000), (2, 9.0, 5000), (3, 6.0, 1000), (4, 4.0, 1000))
    merged = lineage((2, 13.0, 9000), (3, 10.0, 900), (4, 8.0, 900), (5, 0.1, 1200))
    assert rates_of_use(before, merged)[2] == pytest.approx(math.log(10 / 9) / 4)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ((1, 9.0, 5000), (1, 13.0, 5000), "nobody was seen to use anything"),
        ((1, 9.0, 5000), (1, 13.0, 6000), "more than before"),
        ((1, 9.0, 200), (1, 13.0, 100), "too few to tell"),
    ],
)
def test_what_a_walk_does_not_tell(
    before: tuple[int, float, int], after: tuple[int, float, int], why: str
) -> None:
    assert not rates_of_use(lineage(before, (2, 4.0, 10)), lineage(after, (2, 8.0, 5), (3, 0.1, 5))), why


def test_a_measured_rate_comes_before_what_idleness_suggests(fake: SimulatedKernel) -> None:
    """And an older stock is never said to be used more often than a younger one."""

    class Door:
        def __init__(self) -> None:
            self.texts = [
                "memcg 9 /a\n node 0\n 1 20000 5000 0\n 2 9000 5000 0\n 3 6000 9000 0\n 4 4000 9000 0\n",
                "memcg 9 /a\n node 0\n 1 24000 4000 0\n 2 13000 4900 0\n 3 10000 3000 0\n 4 8000 1 0\n"
                " 5 100 9000 0\n",
            ]

        def read(self, wanted: object) -> tuple[Lineage, ...]:
            return parse(self.texts.pop(0))

        def age(self, lineage: object) -> None:
            pass

    cold = Coldness(Door(), fake.clock, between=lambda: None)  # type: ignore[arg-type]
    assert cold.coldest == 1 / IDLE_WITHOUT_SWAP, "before anything was measured"
    found = cold.stocks(ALL, {0: NODE}, fake.now)
    rates = [stock.rate for stock in found]
    assert rates == sorted(rates) and rates[0] == rates[1] == pytest.approx(math.log(10 / 8.9) / 4, rel=0.01)
    assert cold.coldest == pytest.approx(rates[0])


def test_what_was_cold_in_a_cgroup_that_has_gone_down_is_forgotten(fake: SimulatedKernel) -> None:
    """One of fifty cgroups is idle, all of it goes down, and nobody walks its page tables again: the pages
    of the others are measured against what is in DRAM now, not against that for ever."""
    fake.stock("/busy", 50_000, 50_000, memcg=1)
    fake.stock("/idle", 9000, memcg=2)
    cold = coldness(fake)
    age = fake.age

    def walk(lineage: Lineage) -> None:
        """A tenth of what is old in the one, and a thousandth in the other, was used."""
        generations = fake.cgroups[lineage.cgroup].generations
        for sequence in sorted(generations)[:-2]:
            generations[sequence][1] *= 0.9 if lineage.cgroup == "/busy" else 0.999
        age(lineage)

    cold._generations.age = walk
    stocks(cold, fake)
    for _ in range(2):
        fake.now += FIRST_INTERVAL
        stocks(cold, fake)
    assert cold.coldest == pytest.approx(-math.log(0.999) / FIRST_INTERVAL, rel=0.2)
    for generation in fake.cgroups["/idle"].generations.values():
        generation[1] = 0.0
    fake.now += FIRST_INTERVAL
    stocks(cold, fake)
    assert cold.coldest == pytest.approx(-math.log(0.9) / FIRST_INTERVAL, rel=0.2)


@pytest.mark.parametrize(
    ("left", "expected"),
    [(600, AGREEMENT * math.log(99_000 / 600) / 60), (3000, math.log(99_000 / 3000) / 60)],
    ids=["a few that nobody ever uses", "three in a hundred"],
)
def test_a_few_pages_that_nobody_uses_do_not_tell_how_cold_it_is_in_dram(left: int, expected: float) -> None:
    """Between two walks a minute apart all others were used, nobody knows how often."""

    class Door:
        def __init__(self) -> None:
            self.texts = [
                "memcg 9 /a\n node 0\n 1 90000 99000 0\n 2 80000 1000 0\n 3 60000 100 0\n",
                f"memcg 9 /a\n node 0\n 1 150000 {left} 0\n 2 140000 0 0\n 3 120000 0 0\n"
                f" 4 100 {100_000 - left} 0\n",
            ]

        def read(self, wanted: object) -> tuple[Lineage, ...]:
            return parse(self.texts.pop(0))

        def age(self, lineage: object) -> None:
            pass

    cold = Coldness(Door(), lambda: 100.0, between=lambda: None)  # type: ignore[arg-type]
    cold.stocks(ALL, {0: NODE}, 100.0)
    assert cold.coldest == cold.coldest_in({"/a"}) == pytest.approx(expected, rel=0.01)


def cached(fake: SimulatedKernel, cgroup: str, memcg: int, **file: int) -> None:
    fake.stock(cgroup, 0, 0, memcg=memcg)
    fake.cgroups[cgroup].file = {40 + int(number.removeprefix("g")): pages for number, pages in file.items()}


def test_page_cache_beyond_an_eighth_of_dram_could_go_down(fake: SimulatedKernel) -> None:
    """The oldest first; what is left is as much as the node keeps."""
    cached(fake, "/backup", 1, g0=NODE // 4)
    cached(fake, "/web", 2, g0=NODE // 64, g1=NODE // 4, g2=1000, g3=1000)
    fake.stock(CGROUP, 5000, 3000)
    cold = coldness(fake)
    found = stocks(cold, fake)
    assert {stock.cgroup for stock in found} == {CGROUP} and not any(stock.file for stock in found)
    held = sum(sum(stock.file.values()) for stock in fake.cgroups.values())
    assert held - NODE // 8 - 2000 <= sum(stock.pages for stock in cold.caches) <= held - NODE // 8
    assert all(stock.file and stock.idle > 0 for stock in cold.caches)
    assert [stock.idle for stock in cold.caches] == sorted((s.idle for s in cold.caches), reverse=True)
    youngest = max(fake.cgroups["/web"].generations)
    assert all(stock.sequence <= youngest - 2 for stock in cold.caches)
    assert {"+ 1", "+ 2"} <= set(aged(fake)), "or nobody would tell what is old"


def test_a_little_page_cache_stays(fake: SimulatedKernel) -> None:
    cached(fake, "/backup", 1, g0=NODE // 9)
    cold = coldness(fake)
    for _ in range(3):
        assert stocks(cold, fake) == () == cold.caches
        fake.now += FIRST_INTERVAL
    assert not fake.commands, "and nobody walks anything for it"


def test_of_some_cgroups_page_cache_alone_may_go_down(fake: SimulatedKernel) -> None:
    """A backup is a small process, and what it has read is not its own."""

    class CacheOnly(Selecting):
        def selects(self, cgroup_path: str) -> bool:
            return cgroup_path != "/backup"

        def caches(self, cgroup: str) -> bool:
            return cgroup != "/guaranteed"

    fake.stock("/backup", 9000, 9000, memcg=1)
    fake.stock("/guaranteed", 9000, 9000, memcg=2)
    for name in ("/backup", "/guaranteed"):
        fake.cgroups[name].file = {40: NODE // 4}
    cold = coldness(fake)
    found = stocks(cold, fake, CacheOnly())
    assert found == () and {stock.cgroup for stock in cold.caches} == {"/backup"}
    assert aged(fake) == ["+ 1"] and cold.coldest == 1 / IDLE_WITHOUT_SWAP


def test_a_cgroup_with_young_generations_only_has_nothing_cold(fake: SimulatedKernel) -> None:
    fake.stock(CGROUP)
    assert stocks(coldness(fake), fake) == ()
    fake.cgroups.clear()
    assert stocks(coldness(fake), fake) == ()


def test_what_the_policy_does_not_select_is_neither_aged_nor_offered(fake: SimulatedKernel) -> None:
    fake.stock(CGROUP, 5000, memcg=24)
    fake.stock("/system.slice/web.service", 5000, memcg=25)
    selection = Selecting(exclude=(ProcessMatch(unit="web.service"),))
    cold = coldness(fake)
    for _ in range(20):
        assert {stock.memcg for stock in stocks(cold, fake, selection)} <= {24}
        fake.now += 5
    assert set(aged(fake)) == {"+ 24"}


def test_the_slow_node_is_neither_aged_nor_offered(fake: SimulatedKernel) -> None:
    fake.stock(CGROUP, 5000)
    assert coldness(fake).stocks(ALL, {SLOW: NODE}, fake.now) == ()
    assert not fake.commands


def test_small_cgroups_are_not_walked(fake: SimulatedKernel) -> None:
    fake.stock(CGROUP, SMALLEST_LINEAGE - 1)
    stocks(coldness(fake), fake)
    assert not fake.commands


def test_aging_goes_on_and_not_in_every_round(fake: SimulatedKernel) -> None:
    fake.stock(CGROUP, 5000)
    cold = coldness(fake)
    stocks(cold, fake)
    first = len(aged(fake))
    assert first == 1
    stocks(cold, fake)
    assert len(aged(fake)) == 1, "nothing is due at the same instant"
    fake.now += LONGEST_INTERVAL
    stocks(cold, fake)
    assert len(aged(fake)) == 2


@pytest.mark.parametrize("code", [errno.EEXIST, errno.EINVAL])
def test_the_kernel_was_faster_or_the_cgroup_is_gone(fake: SimulatedKernel, code: int) -> None:
    fake.stock(CGROUP, 5000, 100)
    fake.refuses = code
    cold = coldness(fake)
    assert sum(stock.pages for stock in stocks(cold, fake)) == 5100
    stocks(cold, fake)
    assert len(aged(fake)) == 1, "not tried again at once"


def test_nothing_is_demoted_here(fake: SimulatedKernel) -> None:
    fake.stock(CGROUP, 5000)
    cold = coldness(fake)
    for _ in range(10):
        stocks(cold, fake)
        fake.now += 10
    assert not fake.demotions
