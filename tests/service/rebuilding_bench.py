"""A rebuilder of huge pages on a simulated kernel, for the tests of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.kernel.fixtures import MIB
from tests.kernel.fixtures.simulated import (
    CGROUP,
    DRAM,
    FIRST_PAGE,
    MEMCG,
    PID,
    SLOW,
    START,
    GenerationsDoor,
    SimulatedKernel,
    simulate,
)
from tierd.core.model import HUGE_PAGE_SIZE, ProcessId
from tierd.core.outcome import Outcome
from tierd.core.planner import ColdStock, Plan, floor_bytes
from tierd.core.policy import ProcessSelection
from tierd.core.rebuild import FIRST_LOOK
from tierd.kernel.topology import read_topology
from tierd.service.moving import Executor, Moved
from tierd.service.placed import PlacedProcesses
from tierd.service.rebuilding import Allowance, Rebuilder, Rebuilt

PROCESS = ProcessId(PID, START)
FIRST = FIRST_PAGE // 512
STOCK = ColdStock(CGROUP, MEMCG, DRAM, 40, 10.0, 1 << 20, 0.1)
CALM = Plan()
SLOW_PAGES = 100_000


class Bench:
    """A rebuilder and what it works on. Ranges are numbered from 0."""

    def __init__(self, fake: SimulatedKernel) -> None:
        self.fake = fake
        self.placed = PlacedProcesses(fake.machine.root)
        self.placed.refresh(ProcessSelection(), 64 * MIB)
        executor = Executor(
            fake.machine.root,
            GenerationsDoor(fake),
            self.placed,
            between=lambda: None,
            clock=fake.clock,
        )
        self.rebuilder = Rebuilder(fake.machine.root, self.placed, executor, fake.clock)
        self.topology = read_topology(fake.machine.root)
        self.slot = self.placed.slot_of(PROCESS)
        self.unmapped = 0
        self.round()

    @property
    def floor(self) -> int:
        return floor_bytes(self.topology.dram[0], 0)

    def split(self, *ranges: int) -> None:
        self.rebuilder.note_split(PROCESS, np.array([FIRST + n for n in ranges], dtype=np.uint64))

    def bring_up(self, *ranges: int, pages: int = 512) -> None:
        """Promote the first `pages` pages of each range, and tell the rebuilder."""
        first = np.array([FIRST_PAGE + 512 * n for n in ranges], dtype=np.uint64)
        arrived = (first[:, None] + np.arange(pages, dtype=np.uint64)).ravel()
        self.fake.where.update(dict.fromkeys(arrived.tolist(), DRAM))
        self.round(Moved(Outcome(moved=len(arrived)), arrived={(self.slot, DRAM): arrived}), seconds=0.0)

    def round(
        self,
        moved: Moved = Moved(),  # noqa: B008
        plan: Plan = CALM,
        *,
        most: int = 1 << 30,
        seconds: float = 30.0,
    ) -> Rebuilt:
        before, self.unmapped = self.unmapped, self.fake.machine.vmstat.get("numa_pte_updates", 0)
        passes = (self.unmapped - before) / SLOW_PAGES
        return self.rebuilder.rebuild(
            plan, moved, (STOCK,), self.topology, Allowance(0, passes, most, seconds)
        )

    def later(self, seconds: float = FIRST_LOOK + 1) -> Rebuilt:
        self.fake.now += seconds
        return self.round()

    @property
    def huge(self) -> list[int]:
        return sorted(number - FIRST for number in self.fake.huge)

    @property
    def kept(self) -> list[int]:
        return [part.start // HUGE_PAGE_SIZE - FIRST for part in self.rebuilder.kept(PROCESS)]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedKernel:
    """Forty ranges of 2 MiB on the slow node."""
    made = simulate(tmp_path, monkeypatch)
    made.place(40 * 512, SLOW)
    made.hot.clear()
    return made
