"""An engine on a simulated kernel, for the tests of what it does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kernel.fixtures import MIB
from tests.kernel.fixtures.simulated import (
    CGROUP,
    DRAM,
    PID,
    START,
    GenerationsDoor,
    SimulatedKernel,
    SourceDoor,
    simulate,
)
from tierd.core.model import HUGE_PAGE_SIZE, ProcessId
from tierd.core.planner import floor_bytes
from tierd.core.policy import EngineMode, EnginePolicy, Policy
from tierd.kernel.topology import read_topology
from tierd.service.engine import Engine
from tierd.service.sources import Selection
from tierd.service.splitting import Keeper

PLACE = Policy(engine=EnginePolicy(mode=EngineMode.PLACE))
HOT = 3000


class Split:
    """In the place of Splitter: each call splits seven huge pages. `which`: numbers of 2 MiB that the first
    call says it has split."""

    def __init__(self) -> None:
        self.available = True
        self.calls = 0
        self.which: list[int] = []
        self.kept: list[int] = []

    def split(
        self, views: object, dram: object, slow: object, seconds: float, keeper: Keeper, *, resting: bool
    ) -> int:
        self.calls += 1
        process = ProcessId(PID, START)
        if self.which:
            keeper.note_split(process, np.array(self.which, dtype=np.uint64))
            self.which = []
        self.kept = [part.start // HUGE_PAGE_SIZE for part in keeper.kept(process)]
        return 7


class Bench:
    """An engine and all that it touches; `run()` lets time pass."""

    def __init__(self, fake: SimulatedKernel, policy: Policy = PLACE, **options: Any) -> None:
        self.fake, self.source, self.split = fake, SourceDoor(fake), Split()
        self.policy = policy
        self.selection = Selection(self.source, "tested")
        self.engine = Engine(
            policy,
            self._select,
            GenerationsDoor(fake),
            self.split,
            fake.machine.root,
            clock=fake.clock,
            **options,
        )

    def _select(self) -> Selection:
        self.selection.source.start()
        return self.selection

    def run(self, seconds: float) -> None:
        end = self.fake.now + seconds
        while self.fake.now < end:
            self.fake.now += self.engine.step()

    @property
    def state(self):
        return self.engine.state

    @property
    def on_dram(self) -> int:
        return sum(self.fake.where[page] == DRAM for page in self.fake.hot)

    @property
    def idle(self) -> bool:
        return not self.fake.moves and not self.fake.demotions

    @property
    def floor(self) -> int:
        return floor_bytes(read_topology(self.fake.machine.root).dram[0], self.policy.engine.dram_floor)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedKernel:
    """3000 hot pages on the slow node, 20,000 cold ones in DRAM, and DRAM at about its floor."""
    made = simulate(tmp_path, monkeypatch)
    made.place(HOT)
    made.stock(CGROUP, 10_000, 10_000)
    made.machine.write_free(DRAM, floor_bytes(read_topology(made.machine.root).dram[0], 0) + 2 * MIB)
    return made


def with_engine(**changes: Any) -> Policy:
    return replace(PLACE, engine=replace(PLACE.engine, **changes))
