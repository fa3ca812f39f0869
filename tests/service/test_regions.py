"""The engine with a source that reports regions, as DAMON does, on a simulated kernel."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernel.fixtures import MIB, numa_stat
from tests.kernel.fixtures.simulated import CGROUP, DRAM, PID, SLOW, SimulatedKernel, SourceDoor
from tests.service import engine_bench
from tests.service.engine_bench import HOT, Bench, with_engine
from tierd.core.access import NO_CPU, Accesses, Looks
from tierd.core.model import PAGE_SIZE
from tierd.core.silence import NOTHING_SEEN
from tierd.core.state import EngineState
from tierd.kernel.soft_dirty import PASS_SECONDS, SoftDirty
from tierd.service.sources import NoSource, Selection

fake = engine_bench.fake


class Regions(SourceDoor):
    """Reports every 2 s in which 2 MiB hot pages lie, on whatever node. `blind`: finds all idle."""

    name = "DAMON"
    looks = Looks(0.1, 20)
    blind = False
    next_report = 0.0

    def read(self) -> Accesses:
        kernel = self._kernel
        if kernel.now < self.next_report:
            return NoSource().read()
        self.next_report = kernel.now + 2.0
        blocks = [] if self.blind else sorted({page // 512 * 512 for page in kernel.hot})
        page = np.array(blocks, dtype=np.uint64)
        time, weight = np.full(len(page), kernel.now), np.full(len(page), 15.0)
        pid, cpu = (np.full(len(page), number, dtype=np.int32) for number in (PID, NO_CPU))
        return Accesses(pid, page, time, cpu, 0, weight, passes=1)


class Written(SourceDoor):
    """Once in two seconds, each page that was written since the last time."""

    name = "soft-dirty bits"
    period = SoftDirty.period
    next_pass = 0.0

    def read(self) -> Accesses:
        kernel = self._kernel
        if kernel.now < self.next_pass:
            return NoSource().read()
        self.next_pass = kernel.now + PASS_SECONDS
        page = np.array(sorted(kernel.hot), dtype=np.uint64)
        pid, cpu = (np.full(len(page), number, dtype=np.int32) for number in (PID, NO_CPU))
        return Accesses(pid, page, np.full(len(page), kernel.now), cpu, passes=1)


@pytest.fixture
def regions(fake: SimulatedKernel) -> Regions:
    return Regions(fake)


def bench(regions: Regions, **engine: float) -> Bench:
    made = Bench(regions._kernel, with_engine(**engine))
    made.selection = Selection(regions, "tested")
    return made


def test_hot_regions_come_to_dram_and_stay(fake: SimulatedKernel, regions: Regions) -> None:
    engine = bench(regions)
    engine.run(20)
    assert regions.watched == [PID]
    assert engine.on_dram > 0.95 * HOT and fake.promoted == engine.on_dram
    assert fake.demoted > 0.8 * HOT and fake.least_free >= engine.floor
    before = fake.promoted, fake.demoted
    engine.run(60)
    assert (fake.promoted, fake.demoted) == before, "they are reported as ever, and moved no more"


def test_what_is_in_dram_hides_no_hot_region_that_is_not(fake: SimulatedKernel, regions: Regions) -> None:
    """More of it than a round looks at: 256 MiB."""
    fake.where.clear()
    fake.hot.clear()
    fake.place(128 * 512, DRAM)
    fake.place(HOT)
    engine = bench(regions)
    engine.run(30)
    assert fake.promoted > 0.95 * HOT


def test_regions_make_no_huge_pages(fake: SimulatedKernel, regions: Regions) -> None:
    """Heat of 2 MiB at a time would take every range for hot throughout."""
    seen: list[object] = []
    engine = bench(regions)
    engine.engine._rebuilder.observe = lambda *given: seen.append(given)
    engine.run(5)
    assert not seen and engine.state.counters.samples


def test_nothing_moves_on_an_all_idle_reading(fake: SimulatedKernel, regions: Regions) -> None:
    """Hot regions are known, and pressure has kept all where it is; then no look finds anything in use."""
    fake.machine.pressure = "90.00"
    fake.machine.write_pressure()
    engine = bench(regions, heat_half_life=1000.0)
    engine.run(5)
    assert engine.state.engine is EngineState.HOLDING and engine.state.plan, "there is something to move"
    regions.blind = True
    engine.run(5)
    fake.stock(CGROUP, 20_000)
    held = numa_stat({DRAM: 20_000 * PAGE_SIZE, SLOW: 300 * MIB})
    fake.machine.put(fake.machine.root.cgroup / CGROUP.lstrip("/") / "memory.numa_stat", held)
    fake.machine.pressure = "0.00"
    fake.machine.write_pressure()
    engine.run(3)
    assert engine.idle
    assert engine.state.engine is EngineState.HOLDING and engine.state.reason == NOTHING_SEEN
    regions.blind = False
    engine.run(3)
    assert not engine.idle, "seen again, it is placed again"


def test_a_source_that_never_sees_moves_nothing(fake: SimulatedKernel, regions: Regions) -> None:
    regions.blind = True
    engine = bench(regions)
    engine.run(10)
    assert engine.idle and engine.state.counters.samples == 0


def test_it_rests_when_the_picture_is_right_and_looks_again_when_it_is_not(
    fake: SimulatedKernel, regions: Regions
) -> None:
    engine = bench(regions)
    engine.run(90)
    assert regions.efforts[0] == 1.0 and engine.on_dram > 0.95 * HOT
    assert engine.state.engine is EngineState.STEADY and regions.efforts[-1] < 1
    first = max(fake.hot) // 512 * 512 + 512
    old, fake.hot = set(fake.hot), set(range(first, first + 4096))
    assert not old & fake.hot
    fake.where.update(dict.fromkeys(fake.hot, SLOW))
    engine.run(10)
    assert 1.0 in regions.efforts[regions.efforts.index(min(regions.efforts)) :]
    assert engine.on_dram > 0.9 * len(fake.hot)


def test_soft_dirty_bits_rest_as_well_and_find_what_is_hot(fake: SimulatedKernel) -> None:
    written = Written(fake)
    made = Bench(fake)
    made.selection = Selection(written, "tested")
    made.run(150)
    assert made.on_dram > 0.95 * HOT and fake.least_free >= made.floor
    assert written.efforts[-1] < 1 and made.state.engine is EngineState.STEADY
