"""What one run knows of heat is there in the next: through a real memory file and a stand-in for systemd's
store."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kernel.fixtures.simulated import PID, SLOW, SimulatedKernel
from tests.service import engine_bench, helper_bench
from tests.service.engine_bench import HOT, PLACE, Bench, with_engine
from tests.service.helper_bench import ServiceManager, pipe_doors
from tierd.core.policy import EngineMode, Policy, ProcessMatch, ProcessSelection
from tierd.service import keeping
from tierd.service.descriptor_store import store_descriptors
from tierd.service.keeping import Keeper, take_left

OBSERVE = with_engine(mode=EngineMode.OBSERVE)
NOT_TAKEN = "the heat that the run before has left is not taken over: "

manager = helper_bench.manager


fake = engine_bench.fake


@pytest.fixture(autouse=True)
def own(fake: SimulatedKernel, caplog: pytest.LogCaptureFixture) -> Path:
    """The cgroup of tierd.service, with no limit; and all notes are recorded."""
    caplog.set_level(logging.INFO, "tierd")
    machine, root = fake.machine, fake.machine.root
    own = root.cgroup / "system.slice/tierd.service"
    machine.put(root.boot_id, "b-o-o-t\n")
    machine.put(root.proc / str(os.getpid()) / "cgroup", "0::/system.slice/tierd.service\n")
    machine.put(own / "memory.max", "max\n")
    machine.put(own / "memory.current", f"{300 << 20}\n")
    return own


def run_before(fake: SimulatedKernel, seconds: float = 15.0, keep: str = "") -> None:
    """A run that observes and ends well. keep: what it says of what it does not leave."""
    keeper = Keeper(fake.machine.root, clock=fake.clock)
    bench = Bench(fake, OBSERVE, keeper=keeper)
    bench.run(seconds)
    bench.engine.close()
    assert keeper.keep() == keep


def next_run(fake: SimulatedKernel, manager: ServiceManager, policy: Policy = OBSERVE) -> Bench:
    """A run that finds what systemd hands over, two seconds later."""
    fake.now += 2.0
    descriptors = {name: os.dup(kept[-1]) for name, kept in manager.store.items()}
    return Bench(fake, policy, keeper=take_left(fake.machine.root, descriptors, fake.clock))


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if "run before" in line]


def test_the_next_run_knows_at_once_what_is_hot(
    fake: SimulatedKernel, manager: ServiceManager, caplog: pytest.LogCaptureFixture
) -> None:
    run_before(fake)
    assert list(manager.store) == ["heat"]
    bench = next_run(fake, manager)
    assert manager.store == {}, "out of the store before anything else happens"
    fake.next_faults = fake.now + 60  # nobody is seen to use anything
    bench.run(0.5)
    assert told(caplog) == [
        f"heat of {HOT} pages in 1 process, 2 seconds old, is taken over from the run before"
    ]
    planned = {line.action: line.pages for line in bench.state.plan}
    assert planned["promote"] > 0.9 * HOT

    without = Bench(fake, OBSERVE)
    without.run(0.5)
    assert not any(line.action == "promote" for line in without.state.plan)


def test_a_placement_is_right_sooner_than_without(fake: SimulatedKernel, manager: ServiceManager) -> None:
    run_before(fake)

    def seconds(bench: Bench) -> float:
        began = fake.now
        fake.next_faults = fake.now + 5  # the kernel has to come by first
        while bench.on_dram < 0.9 * HOT and fake.now < began + 60:
            bench.run(0.1)
        return fake.now - began

    with_heat = seconds(next_run(fake, manager, PLACE))
    for page in fake.hot:
        fake.where[page] = SLOW
    without = seconds(Bench(fake, PLACE))
    assert with_heat < without < 60, (with_heat, without)


def test_what_was_taken_is_not_there_after_a_crash(fake: SimulatedKernel, manager: ServiceManager) -> None:
    run_before(fake)
    next_run(fake, manager).run(0.5)  # and no keep()
    assert manager.store == {}


def test_the_doors_of_the_helper_stay_where_they_are(fake: SimulatedKernel, manager: ServiceManager) -> None:
    doors = pipe_doors("lru_gen", "perf.0")
    assert store_descriptors(doors)
    run_before(fake)
    assert list(manager.store) == ["lru_gen", "perf.0", "heat"]
    handed = {**doors, "heat": os.dup(manager.store["heat"][0])}
    take_left(fake.machine.root, handed)
    assert handed == doors and list(manager.store) == ["lru_gen", "perf.0"]


def test_what_cannot_be_used_is_one_note(
    fake: SimulatedKernel, manager: ServiceManager, caplog: pytest.LogCaptureFixture
) -> None:
    run_before(fake)
    bench = next_run(fake, manager)
    fake.machine.put(fake.machine.root.boot_id, "another\n")
    bench.run(15)
    assert told(caplog) == [NOT_TAKEN + "it is of another boot"]
    assert any(line.action == "promote" for line in bench.state.plan), "it goes on by what it sees"


def test_processes_that_are_gone_leave_nothing(
    fake: SimulatedKernel, manager: ServiceManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process has the number now: the pages at its addresses are others."""
    run_before(fake)
    stat = fake.machine.root.proc / str(PID) / "stat"
    before = stat.read_text()
    stat.write_text(before.replace(" 5000", " 5001"))
    assert stat.read_text() != before
    bench = next_run(fake, manager)
    fake.next_faults = fake.now + 60
    bench.run(0.5)
    assert told(caplog) == [NOT_TAKEN + "none of its processes is placed now"]
    assert not any(line.action == "promote" for line in bench.state.plan)


def test_a_descriptor_that_is_something_else_is_one_note(
    fake: SimulatedKernel, manager: ServiceManager, caplog: pytest.LogCaptureFixture
) -> None:
    assert store_descriptors(pipe_doors("heat"))
    next_run(fake, manager).run(0.5)
    assert told(caplog) == [NOT_TAKEN + "it is no file"]


def test_what_is_too_much_is_not_kept(
    fake: SimulatedKernel, manager: ServiceManager, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own / "memory.max").write_text(f"{300 << 20}\n")
    run_before(fake, keep="it takes 0 MiB, and tierd.service may have 0 MiB more")
    (own / "memory.max").write_text(f"{301 << 20}\n")
    run_before(fake)
    assert list(manager.store) == ["heat"]
    monkeypatch.setattr(keeping, "LARGEST", 4096)
    run_before(fake, keep="it takes 0 MiB, and 0 MiB is the most")


def test_a_run_that_knows_nothing_leaves_nothing(fake: SimulatedKernel, manager: ServiceManager) -> None:
    selection = ProcessSelection(include=(ProcessMatch(cgroup="/nothing"),))
    keeper = Keeper(fake.machine.root)
    bench = Bench(fake, replace(OBSERVE, processes=selection), keeper=keeper)
    bench.run(5)
    bench.engine.close()
    assert keeper.keep() == "" and manager.store == {}


def test_without_a_service_manager_nothing_is_kept(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    run_before(fake)


def test_a_store_that_does_not_answer_is_named(
    fake: SimulatedKernel, manager: ServiceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "store_descriptors", lambda doors: False)
    before = os.listdir("/proc/self/fd")
    run_before(fake, keep="systemd does not answer")
    assert os.listdir("/proc/self/fd") == before
