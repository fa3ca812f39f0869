"""The engine on a simulated kernel: when it moves, when it must not, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.kernel.fixtures import MIB, numa_stat
from tests.kernel.fixtures.simulated import (
    CGROUP,
    DRAM,
    PID,
    SLOW,
    SimulatedKernel,
)
from tests.service import engine_bench
from tests.service.engine_bench import HOT, PLACE, Bench, with_engine
from tierd.core.model import PAGE_SIZE
from tierd.core.policy import EngineMode, ProcessMatch, ProcessSelection
from tierd.core.silence import NOTHING_SEEN
from tierd.core.state import EngineState, MissingFeature
from tierd.service.sources import NoSource, Selection

fake = engine_bench.fake


def test_hot_pages_come_to_dram_and_cold_ones_make_room(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.run(30)
    assert bench.on_dram > 0.95 * HOT
    assert 0.8 * HOT < fake.demoted < 2 * HOT + 4096
    assert fake.least_free >= bench.floor
    assert bench.state.processes == bench.state.cgroups == 1


def test_the_counters_are_what_the_kernel_did(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.run(30)
    counters = bench.state.counters
    assert counters.promoted_pages == fake.promoted == bench.on_dram
    assert counters.demoted_pages == fake.demoted
    assert counters.refused_pages == 0
    assert counters.samples > 0 and counters.rounds >= 25
    assert counters.move_seconds > 0
    assert counters.huge_pages_split == 7 * bench.split.calls


def test_a_round_plans_what_the_bandwidth_allows(fake: SimulatedKernel) -> None:
    """Up to what a round considers: a server moves more than 512 MiB in a second."""
    fake.place(150_000)
    fake.stock(CGROUP, 100_000, 100_000)
    bench = Bench(fake, with_engine(mode=EngineMode.OBSERVE, bandwidth=4 << 30))
    bench.run(1.5)
    planned = {line.action: line.pages for line in bench.state.plan}
    assert planned["promote"] > 145_000 and planned["demote"] > 145_000


def test_lost_samples_are_counted(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    fake.lost = 123
    bench.run(3)
    assert bench.state.counters.samples_lost == 123


def test_a_promoted_page_goes_up_once(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.run(60)
    assert fake.promoted <= HOT


def test_observe_mode_plans_and_moves_nothing(fake: SimulatedKernel) -> None:
    bench = Bench(fake, with_engine(mode=EngineMode.OBSERVE))
    bench.run(30)
    assert bench.idle and bench.split.calls == 0
    assert bench.state.engine is EngineState.OBSERVING and "observe" in bench.state.reason
    assert {"promote", "demote"} <= {line.action for line in bench.state.plan}
    assert all(line.pages > 0 and line.reason for line in bench.state.plan)
    assert bench.state.counters.promoted_pages == bench.state.counters.demoted_pages == 0


def test_under_memory_pressure_nothing_is_moved_or_split(fake: SimulatedKernel) -> None:
    fake.machine.pressure = "55.00"
    fake.machine.write_pressure()
    bench = Bench(fake, with_engine(pressure_limit=40.0))
    bench.run(10)
    assert bench.idle
    assert bench.split.calls == 0, "splitting is work as well"
    assert bench.state.engine is EngineState.HOLDING and "55" in bench.state.reason
    fake.machine.pressure = "1.00"
    fake.machine.write_pressure()
    bench.run(30)
    assert bench.on_dram > 0.9 * HOT, "and goes on when it is over"


def test_a_pause_moves_nothing_and_ends_by_itself(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.engine.pause(fake.now + 10, "until noon")
    bench.run(9)
    assert bench.idle and bench.split.calls == 0 and bench.state.counters.samples
    assert bench.state.engine is EngineState.PAUSED
    assert bench.state.reason == "an operator has paused it until noon"
    bench.run(30)
    assert bench.on_dram > 0.9 * HOT and bench.state.engine is not EngineState.PAUSED
    bench.engine.pause(fake.now + 1000, "until night")
    bench.run(3)
    assert bench.state.engine is EngineState.PAUSED
    bench.engine.pause(0.0, "")
    bench.run(3)
    assert bench.state.engine is not EngineState.PAUSED


@pytest.mark.parametrize(
    ("mode", "resident", "otherwise"),
    [(EngineMode.OBSERVE, 1, EngineState.OBSERVING), (EngineMode.PLACE, 1 << 40, EngineState.IDLE)],
)
def test_a_pause_shows_whatever_else_would_be(
    fake: SimulatedKernel, mode: EngineMode, resident: int, otherwise: EngineState
) -> None:
    bench = Bench(fake, with_engine(mode=mode, minimum_process=resident))
    bench.run(3)
    assert bench.state.engine is otherwise
    bench.engine.pause(fake.now + 10, "until noon")
    bench.run(5)
    assert bench.state.engine is EngineState.PAUSED
    assert bench.state.reason == "an operator has paused it until noon"
    bench.run(10)
    assert bench.state.engine is otherwise


@pytest.mark.parametrize("text", [None, "", "some\n"])
def test_pressure_that_cannot_be_read_counts_as_pressure(fake: SimulatedKernel, text: str | None) -> None:
    """A kernel without PSI, or started with psi=0."""
    bench = Bench(fake)
    fake.machine.root.memory_pressure.unlink()
    if text is not None:
        fake.machine.put(fake.machine.root.memory_pressure, text)
    bench.run(10)
    assert bench.idle
    assert bench.state.engine is EngineState.HOLDING and "pressure" in bench.state.reason


def test_one_tier_only(fake: SimulatedKernel) -> None:
    (fake.machine.root.memory_tiers / "memory_tier22/nodelist").write_text("\n")
    bench = Bench(fake)
    bench.run(10)
    assert bench.idle and not fake.commands
    assert bench.state.engine is EngineState.IDLE and "one memory tier" in bench.state.reason


def test_memory_that_is_plugged_in_is_taken_up(fake: SimulatedKernel) -> None:
    nodelist = fake.machine.root.memory_tiers / "memory_tier22/nodelist"
    nodelist.write_text("\n")
    bench = Bench(fake)
    bench.run(10)
    nodelist.write_text("1\n")
    bench.run(30)
    assert bench.on_dram > 0.9 * HOT


def test_memory_that_is_taken_away_ends_nothing(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.run(5)
    fake.hot.clear()
    (fake.machine.root.nodes / "node1/meminfo").unlink()
    bench.run(15)
    assert bench.state.engine is EngineState.IDLE and "one memory tier" in bench.state.reason


def test_no_process_is_selected(fake: SimulatedKernel) -> None:
    bench = Bench(fake, replace(PLACE, processes=ProcessSelection((ProcessMatch(cgroup="/other/*"),))))
    bench.run(10)
    assert bench.idle and not fake.commands
    assert bench.state.engine is EngineState.IDLE and "process" in bench.state.reason


def test_nothing_hot_nothing_moves(fake: SimulatedKernel) -> None:
    """A tracker that sees no access anywhere proves nothing, however cold DRAM looks."""
    fake.hot.clear()
    bench = Bench(fake)
    bench.run(60)
    assert bench.idle


def test_faults_of_other_processes_move_nothing(fake: SimulatedKernel) -> None:
    fake.machine.add_process(PID, "/other", resident=MIB)
    (fake.machine.root.cgroup / CGROUP.lstrip("/") / "cgroup.procs").write_text("")
    fake.machine.add_process(200, CGROUP)
    bench = Bench(fake)
    bench.run(10)
    assert bench.idle and bench.state.counters.samples > 0


def test_what_the_engine_lacks_is_said_and_nothing_moves(fake: SimulatedKernel) -> None:
    missing = (MissingFeature("lru_gen", "cold pages are not known", "mount debugfs"),)
    bench = Bench(fake, missing=missing, lacking="without lru_gen nothing can be placed")
    bench.run(10)
    assert bench.idle
    assert bench.state.engine is EngineState.DEGRADED and "lru_gen" in bench.state.reason
    assert bench.state.missing == missing


def test_a_full_slow_node_stops_demotion(fake: SimulatedKernel) -> None:
    fake.machine.write_free(SLOW, 10 * MIB)
    bench = Bench(fake)
    bench.run(20)
    assert not fake.demotions
    assert fake.promoted <= 2 * MIB // PAGE_SIZE and fake.least_free >= bench.floor


def test_dram_below_its_floor_is_brought_back_first(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    fake.machine.write_free(DRAM, bench.floor - 20 * MIB)
    bench.run(40)
    assert bench.on_dram > 0.9 * HOT
    assert fake.least_free >= bench.floor, "nothing went up before there was room"


def test_the_floor_of_the_policy(fake: SimulatedKernel) -> None:
    bench = Bench(fake, with_engine(dram_floor=30 * MIB))
    bench.run(30)
    assert bench.on_dram > 0.9 * HOT and fake.least_free >= bench.floor


@pytest.mark.parametrize("reloads", [False, True])
def test_bandwidth_is_kept(fake: SimulatedKernel, reloads: bool) -> None:
    rate = 2 * MIB
    policy = with_engine(bandwidth=rate, round=0.2)
    bench = Bench(fake, policy)
    begun = fake.now
    while fake.now < begun + 20:
        bench.run(0.2 if reloads else 1)
        if reloads:
            bench.engine.adopt(policy)
        moved = (fake.promoted + fake.demoted) * PAGE_SIZE
        assert moved <= rate * (fake.now - begun + 2), "what was saved up, and one round ahead"
    assert fake.promoted > 0


def test_a_policy_is_adopted_between_steps(fake: SimulatedKernel) -> None:
    bench = Bench(fake, with_engine(mode=EngineMode.OBSERVE))
    bench.run(10)
    assert bench.idle
    bench.engine.adopt(PLACE)
    bench.run(30)
    assert bench.on_dram > 0.9 * HOT
    counters = bench.state.counters
    bench.engine.adopt(replace(PLACE, processes=ProcessSelection(())))
    bench.run(3)
    assert bench.state.engine is EngineState.IDLE and bench.state.processes == 0
    assert bench.state.counters.promoted_pages == counters.promoted_pages, "counters go on"


def test_an_adopted_policy_counts_in_the_next_step(fake: SimulatedKernel) -> None:
    bench = Bench(fake, with_engine(round=60.0))
    bench.run(1)
    bench.engine.adopt(with_engine(mode=EngineMode.OBSERVE))
    bench.engine.step()
    assert bench.state.engine is EngineState.OBSERVING


def test_tierd_s_own_cgroup_is_neither_aged_nor_demoted(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tierd never touches itself, with any policy."""
    import os

    own = "/system.slice/tierd.service"
    fake.machine.add_process(os.getpid(), own)
    fake.machine.put("proc/self/cgroup", f"0::{own}\n")
    fake.stock(own, 50_000, memcg=77, every=100.0)
    bench = Bench(fake)
    bench.run(20)
    assert bench.on_dram > 0.9 * HOT
    assert not [command for command in fake.commands if command.split()[1] == "77"]


def test_each_round_makes_a_new_state_and_a_step_is_short(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    before = bench.state
    assert before.engine is EngineState.STARTING
    assert 0.02 <= bench.engine.step() <= 1.0
    after = bench.state
    assert after is not before and after.counters.rounds == 1 and after.monotonic == fake.now
    assert after.topology.tiered and after.dram_bytes == 100 * MIB + 4096


def test_closing_stops_the_kernel_s_looking(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    assert not bench.source.started, "the main thread does not wait for it"
    bench.run(1)
    assert bench.source.started and not fake.closed
    bench.engine.close()
    assert fake.closed


SPOILS: list[Callable[[SimulatedKernel], None]] = [
    lambda fake: (fake.machine.root.cgroup / CGROUP.lstrip("/") / "memory.numa_stat").unlink(),
    lambda fake: setattr(fake, "refuses", 22),
    lambda fake: (fake.machine.root.proc / str(PID) / "stat").write_text("nonsense"),
    lambda fake: fake.cgroups.clear(),
]


@pytest.mark.parametrize("spoil", SPOILS, ids=["numa_stat", "lru_gen commands", "stat", "lru_gen empty"])
def test_what_goes_missing_meanwhile_ends_nothing(
    fake: SimulatedKernel, spoil: Callable[[SimulatedKernel], None]
) -> None:
    bench = Bench(fake)
    bench.run(2)
    spoil(fake)
    bench.run(10)
    assert fake.least_free >= bench.floor
    assert bench.state.counters.rounds >= 10


def test_it_looks_hard_until_slow_memory_has_been_looked_at(fake: SimulatedKernel) -> None:
    """No fault in the first seconds proves nothing: the kernel has not come by yet."""
    fake.next_faults = fake.now + 20
    bench = Bench(fake)
    bench.run(3)
    assert set(bench.source.efforts) == {1.0}


def test_the_source_is_named_with_its_reason(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    assert bench.state.source == "none"
    bench.run(1)
    assert (bench.state.source, bench.state.source_reason) == ("hint faults", "tested")


def test_without_a_source_nothing_moves_and_it_says_so(fake: SimulatedKernel) -> None:
    lost = MissingFeature("a source", "nothing is seen", "restart")
    bench = Bench(fake, missing=(MissingFeature("huge pages", "whole", "boot"),))
    bench.selection = Selection(NoSource(), "blind", "no access can be seen", (lost,))
    bench.run(10)
    assert bench.idle and not fake.commands
    assert bench.state.engine is EngineState.DEGRADED and bench.state.reason == "no access can be seen"
    assert bench.state.source == "none" and bench.state.source_reason == "blind"
    assert [missing.feature for missing in bench.state.missing] == ["huge pages", "a source"]
    bench.engine.close()


def test_a_source_that_samples_places_as_well(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.source.period = 10
    bench.run(30)
    assert bench.on_dram > 0.95 * HOT
    bench.engine.adopt(PLACE)
    bench.run(5)
    assert fake.least_free >= bench.floor


def fall_silent(fake: SimulatedKernel, *, young: int) -> Bench:
    """Hot pages become known while pressure keeps all where it is; then nobody is seen for a whole pass, and
    the pressure is over. young: pages of DRAM that were seen to be used."""
    fake.machine.pressure = "90.00"
    fake.machine.write_pressure()
    bench = Bench(fake, with_engine(heat_half_life=1000.0))
    bench.run(5)
    assert bench.state.engine is EngineState.HOLDING and bench.state.plan, "there is something to move"
    fake.next_faults = float("inf")
    bench.run(2)
    fake.stock(CGROUP, 20_000)
    resident = (20_000 + young) * PAGE_SIZE
    fake.machine.put(
        fake.machine.root.cgroup / CGROUP.lstrip("/") / "memory.numa_stat",
        numa_stat({DRAM: resident, SLOW: 300 * MIB}),
    )
    fake.machine.vmstat["numa_pte_updates"] = 300 * MIB // PAGE_SIZE + 1
    fake.machine.pressure = "0.00"
    fake.machine.write_vmstat()
    fake.machine.write_pressure()
    bench.run(3)
    return bench


def test_nothing_moves_on_an_all_idle_reading(fake: SimulatedKernel) -> None:
    """A hypervisor that hides accessed bits, and a source that has fallen silent."""
    bench = fall_silent(fake, young=0)
    assert bench.idle
    assert bench.state.engine is EngineState.HOLDING and bench.state.reason == NOTHING_SEEN
    fake.next_faults = 0.0
    bench.run(20)
    assert bench.on_dram > 0.9 * HOT, "one access seen is proof"


def test_idle_pages_count_where_others_are_seen_to_be_used(fake: SimulatedKernel) -> None:
    assert not fall_silent(fake, young=5000).idle
