"""How much is rebuilt at once: room, bandwidth, the floor, and what is given back when DRAM is short."""

from __future__ import annotations

import errno
from dataclasses import replace

import numpy as np
import pytest

from tests.kernel.fixtures import MIB
from tests.kernel.fixtures.simulated import CGROUP, DRAM, FIRST_PAGE, SLOW, SimulatedKernel
from tests.service import rebuilding_bench
from tests.service.rebuilding_bench import Bench
from tierd.core.model import HUGE_PAGE_SIZE, PAGE_SIZE, TierKind, Topology
from tierd.core.planner import Plan, slow_floor_bytes
from tierd.core.rebuild import FIRST_LOOK, RangeBook
from tierd.core.table import Keys
from tierd.service.moving import Moved
from tierd.service.rebuilding import (
    LEAST_AGE,
    LOOKED_AT,
    MOST_LOOKED_AT,
    MOST_REBUILT,
    RELEASE_AFTER,
    Rebuilt,
)

fake = rebuilding_bench.fake


def test_no_more_than_a_few_each_round(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(*range(40))
    bench.bring_up(*range(40))
    assert bench.later().huge_pages == MOST_REBUILT
    assert bench.round(most=5 * MIB).huge_pages == 2, "the bandwidth of the round"
    assert bench.round(most=0).huge_pages == bench.round(most=-5 * MIB).huge_pages == 0
    assert bench.round(seconds=0.0).huge_pages == 0, "no time"
    for _ in range(10):
        bench.later()
    assert bench.huge == list(range(40))


def test_the_bandwidth_pays_for_what_is_copied_and_demoted() -> None:
    assert Rebuilt(3, 100).bytes == 3 * HUGE_PAGE_SIZE + 100 * PAGE_SIZE


def test_room_is_made_first_and_the_floor_is_kept(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    fake.stock(CGROUP, 20_000)
    bench.split(*range(10))
    bench.bring_up(*range(10))
    fake.machine.write_free(DRAM, bench.floor)
    fake.least_free = bench.floor
    done = bench.later()
    assert (done.huge_pages, done.demoted) == (10, 1024)
    assert fake.least_free >= bench.floor


@pytest.mark.parametrize(
    ("below", "most", "dram", "demoted"),
    [
        (0, 1 << 30, 0, 0),
        (300, 1 << 30, 0, 300),
        (1 << 16, 2 * MIB, 0, 512),
        (1 << 16, 1 << 30, 100 * MIB, 1024),
    ],
    ids=["the slow node is full", "almost full", "bandwidth", "others take DRAM"],
)
def test_room_is_made_only_of_what_fits_below_and_may_move(
    fake: SimulatedKernel, below: int, most: int, dram: int, demoted: int
) -> None:
    """What finds no room on the slow node would be swapped out. below: pages of room there. dram: bytes that
    its node is below its floor."""
    bench = Bench(fake)
    fake.stock(CGROUP, 200_000)
    bench.split(*range(10))
    bench.bring_up(*range(10))
    fake.machine.write_free(SLOW, slow_floor_bytes(bench.topology.slow[0]) + below * PAGE_SIZE)
    fake.machine.write_free(DRAM, max(0, bench.floor - dram))
    fake.now += FIRST_LOOK + 1
    assert bench.round(most=most).demoted == demoted
    assert bool(fake.demotions) is bool(demoted)


def test_without_room_nothing_is_rebuilt(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(0)
    bench.bring_up(0)
    fake.refuses = errno.EINVAL
    fake.machine.write_free(DRAM, bench.floor + HUGE_PAGE_SIZE - PAGE_SIZE)
    assert bench.later() == Rebuilt() and not fake.collapses
    fake.machine.write_free(DRAM, bench.floor + HUGE_PAGE_SIZE)
    assert bench.later().huge_pages == 1, "and tried again when there is room"


def test_what_was_asked_for_and_not_demoted_does_not_count(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    fake.where.update({page: DRAM for page in range(FIRST_PAGE, FIRST_PAGE + 3 * 512)})
    bench.split(0, 1, 2)
    bench.bring_up(*range(10, 20))
    fake.now += 20
    bench.round(Moved(demoted=3000, asked={CGROUP: 60_000}), seconds=0.0)
    bench.later()
    assert bench.huge == list(range(10, 20))


SHORT = Plan(wanted=50_000, promote=0)


def test_when_dram_is_short_rebuilt_ranges_are_given_back(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(*range(4))
    bench.bring_up(*range(4))
    bench.later()
    assert bench.kept == [0, 1, 2, 3]
    for _ in range(RELEASE_AFTER):
        bench.round(plan=SHORT)
    assert bench.kept, "not yet: they were just made"
    fake.now += LEAST_AGE
    bench.round()
    for _ in range(RELEASE_AFTER - 1):
        bench.round(plan=SHORT)
    assert bench.kept, "not yet: DRAM was not short for long"
    bench.round(plan=SHORT)
    assert not bench.kept


@pytest.mark.parametrize(
    ("plan", "most"), [(SHORT, 0), (Plan(wanted=50_000, promote=8000), 1 << 30), (Plan(wanted=500), 1 << 30)]
)
def test_waiting_for_bandwidth_or_for_little_is_not_being_short(
    fake: SimulatedKernel, plan: Plan, most: int
) -> None:
    bench = Bench(fake)
    bench.split(*range(4))
    bench.bring_up(*range(4))
    bench.later()
    fake.now += LEAST_AGE
    for _ in range(RELEASE_AFTER + 1):
        bench.round(plan=plan, most=most)
    assert bench.kept == [0, 1, 2, 3]


def of_dram(topology: Topology, total: int) -> Topology:
    """The same machine with DRAM of so many bytes."""
    tiers = tuple(
        replace(tier, nodes=tuple(replace(node, total=total) for node in tier.nodes))
        if tier.kind is TierKind.DRAM
        else tier
        for tier in topology.tiers
    )
    return replace(topology, tiers=tiers)


def test_a_large_machine_rebuilds_and_looks_at_more_at_once(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hot ranges of 256 GiB are 130,000: sixteen a round would take hours."""
    bench = Bench(fake)
    bench.topology = of_dram(bench.topology, 256 << 30)
    bench.split(*range(40))
    bench.bring_up(*range(40))
    assert bench.later().huge_pages == 40
    asked: list[int] = []
    monkeypatch.setattr(
        RangeBook, "due", lambda self, now, most: asked.append(most) or np.empty(0, dtype=np.uint64)
    )
    bench.later(1.0)
    bench.later(1000.0)
    assert LOOKED_AT < asked[0] < asked[1] <= MOST_LOOKED_AT


def test_on_large_dram_a_part_of_what_is_wanted_shows_that_it_is_short(fake: SimulatedKernel) -> None:
    """A round considers fewer pages than one in a hundred of 256 GiB."""
    bench = Bench(fake)
    bench.topology = of_dram(bench.topology, 256 << 30)
    bench.split(*range(4))
    bench.bring_up(*range(4))
    for _ in range(3):
        bench.round(plan=Plan(wanted=1 << 18, more=True))
    fake.now += FIRST_LOOK + 1
    assert bench.round(plan=Plan(wanted=1 << 18, more=True)).huge_pages == 0
    assert bench.round(plan=Plan(wanted=1 << 18)).huge_pages == 4, "that is all there is"


def test_nothing_is_rebuilt_while_dram_is_short(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(*range(4))
    bench.bring_up(*range(4))
    for _ in range(3):
        bench.round(plan=SHORT)
    fake.now += FIRST_LOOK + 1
    assert bench.round(plan=SHORT).huge_pages == 0
    assert bench.round().huge_pages == 4, "and is when it is over"


def test_after_a_rest_it_looks_at_more(fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges are looked at as fast when rounds are rare as when they are not."""
    asked = []
    due = RangeBook.due

    def listen(book: RangeBook, now: float, most: int) -> Keys:
        asked.append(most)
        return due(book, now, most)

    monkeypatch.setattr(RangeBook, "due", listen)
    bench = Bench(fake)
    for seconds in (1.0, 3.0, 30.0):
        bench.later(seconds)
    assert asked[1:] == [LOOKED_AT, 3 * LOOKED_AT, 10 * LOOKED_AT]
