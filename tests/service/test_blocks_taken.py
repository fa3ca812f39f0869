"""Memory blocks and whole nodes that somebody takes from under the engine: named, followed, not fought."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.kernel.fixtures.simulated import SimulatedKernel
from tests.service import engine_bench
from tests.service.engine_bench import Bench
from tierd.core.state import EngineState, State
from tierd.kernel import online_blocks
from tierd.kernel.paths import Root
from tierd.service.events import Event, events_between

fake = engine_bench.fake


def node(fake: SimulatedKernel) -> Path:
    return fake.machine.root.nodes / "node1"


def give_blocks(fake: SimulatedKernel) -> None:
    for number in (32, 33, 34):
        block = node(fake) / f"memory{number}"
        block.mkdir()
        (block / "state").write_text("online\n")


def shrink(fake: SimulatedKernel, bytes_less: int) -> None:
    path = node(fake) / "meminfo"
    less = bytes_less >> 10
    path.write_text(
        re.sub(
            r"(MemTotal|MemFree):( +)(\d+) kB",
            lambda m: f"{m[1]}:{m[2]}{max(0, int(m[3]) - less)} kB",
            path.read_text(),
        )
    )


def watch(bench: Bench, seconds: float) -> list[Event]:
    """Run, and what the journal would be given, the daemon's way: from each state to the next."""
    found: list[Event] = []
    before: State = bench.state
    for _ in range(round(seconds)):
        bench.run(1)
        found += events_between(before, bench.state)
        before = bench.state
    return [event for event in found if event.type.name.startswith("tier-")]


def test_blocks_that_somebody_takes_offline_are_named_once(fake: SimulatedKernel) -> None:
    give_blocks(fake)
    bench = Bench(fake)
    bench.run(3)
    before = bench.state.topology.slow[0].total
    (node(fake) / "memory33/state").write_text("offline\n")
    shrink(fake, 128 << 20)
    (event,) = watch(bench, 15)
    assert event.type.name == "tier-resized"
    assert event.message.endswith("memory blocks 33 went offline")
    assert event.fields["TIERD_BLOCKS_OFFLINE"] == "33"
    assert bench.state.topology.slow[0].total == before - (128 << 20)
    assert (node(fake) / "memory33/state").read_text() == "offline\n"


def test_a_node_that_loses_all_its_memory_ends_nothing(fake: SimulatedKernel) -> None:
    give_blocks(fake)
    bench = Bench(fake)
    bench.run(3)
    shrink(fake, 1 << 50)
    for number in (32, 33, 34):
        shutil.rmtree(node(fake) / f"memory{number}")
    (fake.machine.root.memory_tiers / "memory_tier22/nodelist").write_text("\n")
    (event,) = watch(bench, 20)
    assert event.type.name == "tier-vanished" and "32-34 went offline" in event.message
    assert bench.state.engine is EngineState.IDLE and "one memory tier" in bench.state.reason


def test_a_block_that_goes_offline_is_still_online(tmp_path: Path) -> None:
    root = Root(tmp_path)
    for number in (1, 10):
        block = root.nodes / f"node0/memory{number}"
        block.mkdir(parents=True)
        (block / "state").write_text("going-offline\n" if number == 1 else "offline\n")
    assert online_blocks.read_online_blocks(root, 0) == (1,)
    assert online_blocks.read_online_blocks(root, 3) == ()
