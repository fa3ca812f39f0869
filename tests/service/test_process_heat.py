"""What the engine tells of the heat of a process, and what becomes of it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.kernel.fixtures.simulated import DRAM, PID, SLOW, START, SimulatedKernel
from tests.service import engine_bench
from tests.service.engine_bench import HOT, PLACE, Bench, with_engine
from tierd.core.model import ProcessId, Topology
from tierd.core.policy import EngineMode
from tierd.errors import GoneError, InvalidError, TierdError
from tierd.kernel import residence
from tierd.kernel.topology import read_topology
from tierd.service.process_heat import process_heat

fake = engine_bench.fake
PROCESS = ProcessId(PID, START)


def test_the_engine_tells_what_it_knows_and_remembers_what_it_promoted(fake: SimulatedKernel) -> None:
    bench = Bench(fake, with_engine(mode=EngineMode.OBSERVE))
    assert bench.engine.heat(PROCESS) is None, "it is not placed yet"
    bench.run(10)
    watched = bench.engine.heat(PROCESS)
    assert watched is not None and set(fake.hot) <= set(watched.page.tolist())
    assert not watched.remembered.any()
    bench.engine.adopt(PLACE)
    bench.run(20)
    assert bench.on_dram > 0.95 * HOT
    after = bench.engine.heat(PROCESS)
    assert after is not None
    up = {page for page in fake.hot if fake.where[page] == DRAM}
    assert set(after.page[after.remembered].tolist()) == up
    assert np.median(after.rate[after.remembered]) > 0.5
    assert bench.engine.heat(ProcessId(PID, START + 1)) is None


def asked(fake: SimulatedKernel, bench: Bench, bins: int = 64, topology: Topology | None = None) -> Any:
    def ask(question):
        future: Future = Future()
        future.set_result(question(bench.engine))
        return future

    topology = read_topology(fake.machine.root) if topology is None else topology
    return process_heat(fake.machine.root, PID, bins, bench.policy, topology, ask)


def test_rates_and_places_by_address(fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lower half of what is mapped is in DRAM, and the upper half on a slow node."""
    monkeypatch.setattr(
        residence,
        "query_nodes",
        lambda pid, addresses: np.where(addresses >> np.uint64(12) < middle, DRAM, SLOW).astype(np.int32),
    )
    low, high = min(fake.hot), max(fake.hot) + 1
    middle = (low + high) // 2
    fake.machine.put(f"proc/{PID}/maps", f"{low << 12:x}-{high << 12:x} rw-p 00000000 00:00 0 \n")
    bench = Bench(fake, with_engine(mode=EngineMode.OBSERVE))
    with pytest.raises(TierdError, match="has not begun to place process"):
        asked(fake, bench)
    bench.run(10)
    rows = asked(fake, bench)
    assert 32 < len(rows) <= 64 and sum(row.known for row in rows) == len(fake.hot)
    assert all(row.pages == row.end - row.start and (row.rate or 0) > 0.1 for row in rows)
    assert all(row.dram == row.pages for row in rows if row.end <= middle)
    assert all(row.dram == 0 for row in rows if row.start >= middle)
    assert {(row.pages, row.dram) for row in asked(fake, bench, topology=Topology(()))} == {(None, None)}


def test_what_cannot_be_answered(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.run(3)
    for bins in (0, 257):
        with pytest.raises(InvalidError, match=f"bins are 1 to 256, not {bins}"):
            asked(fake, bench, bins)
    bench.policy = replace(PLACE, engine=replace(PLACE.engine, minimum_process=1 << 40))
    with pytest.raises(TierdError, match=f"does not place process {PID}: it is smaller than min"):
        asked(fake, bench)
    bench.policy = PLACE
    (fake.machine.root.proc / f"{PID}/stat").unlink()
    with pytest.raises(GoneError):
        asked(fake, bench)
