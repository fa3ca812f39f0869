"""One round of moving on a simulated kernel, with all that it takes."""

from __future__ import annotations

import numpy as np

from tests.kernel.fixtures import MIB
from tests.kernel.fixtures.simulated import (
    CGROUP,
    DRAM,
    MEMCG,
    SLOW,
    GenerationsDoor,
    SimulatedKernel,
)
from tierd.core.heat import HeatMap, HotPages
from tierd.core.model import PAGE_SIZE
from tierd.core.planner import ColdStock, Demotion, Plan, Promotion, floor_bytes
from tierd.core.policy import ProcessSelection
from tierd.kernel.topology import read_topology
from tierd.service.moving import Executor, Moved
from tierd.service.placed import PlacedProcesses


def movable(executor: Executor, hot: HotPages) -> HotPages:
    mask = executor.movable(hot.slot, hot.page)
    return hot.only(mask)


class Round:
    """One call of the executor, and what it was given."""

    def __init__(self, fake: SimulatedKernel, *, floor: int = 0) -> None:
        self.fake, self.floor = fake, floor
        self.placed = PlacedProcesses(fake.machine.root)
        self.placed.refresh(ProcessSelection(), 64 * MIB)
        self.heat = HeatMap(20.0)
        self.between = 0
        self.executor: Executor | None = None

    @property
    def floor_bytes(self) -> int:
        return floor_bytes(read_topology(self.fake.machine.root).dram[0], self.floor)

    def room(self, pages: int) -> None:
        """Leave room for so many pages above the floor."""
        self.fake.machine.write_free(DRAM, self.floor_bytes + pages * PAGE_SIZE)

    def hot(self, slot: int = 1, near: int = -1) -> HotPages:
        pages = np.array(self.fake.hot, dtype=np.uint64)
        count = len(pages)
        return HotPages(np.full(count, slot), pages, np.ones(count), np.full(count, near, dtype=np.int16))

    def rounds(self, seconds: int) -> None:
        """A round a second, each with all that may be tried."""
        self.run(0)
        for _ in range(seconds):
            assert self.executor is not None
            hot = movable(self.executor, self.hot())
            away = np.array([self.fake.where[page] == SLOW for page in hot.page.tolist()], dtype=bool)
            hot = hot.only(away)
            self.run(len(hot), hot=hot)
            self.fake.now += 1

    def run(self, promote: int, *demote: int, seconds: float = 30.0, hot: HotPages | None = None) -> Moved:
        stock = ColdStock(CGROUP, MEMCG, DRAM, 40, 10.0, 1 << 20, 0.1)
        plan = Plan(
            tuple(Demotion(stock, pages, "cold") for pages in demote),
            (Promotion(DRAM, np.arange(promote), "hot"),) if promote else (),
            promote,
            demote_pages=sum(demote),
        )
        return self.carry_out(plan, seconds, hot)

    def carry_out(self, plan: Plan, seconds: float = 30.0, hot: HotPages | None = None) -> Moved:
        promoted_before = self.fake.promoted

        def between() -> None:
            self.between += 1

        if self.executor is None:
            self.executor = Executor(
                self.fake.machine.root,
                GenerationsDoor(self.fake),
                self.placed,
                between=between,
                clock=self.fake.clock,
            )
        topology = read_topology(self.fake.machine.root)
        moved = self.executor.execute(plan, hot or self.hot(), self.heat, topology, self.floor, seconds)
        assert moved.promoted.planned == plan.promote, "every page of the plan has one fate"
        assert moved.promoted.carried == self.fake.promoted - promoted_before
        assert moved.demoted == self.fake.demoted, "by the kernel's own count"
        assert moved.pages == moved.promoted.carried + moved.demoted
        return moved
