"""The kernel's demotion is on while the policy says place, and only then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.fixtures import Machine
from tests.kernel.fixtures.simulated import SimulatedKernel
from tests.service import engine_bench
from tests.service.engine_bench import HOT, PLACE, Bench, with_engine
from tierd.core.policy import EngineMode
from tierd.core.state import EngineState
from tierd.kernel.demotion import Demotion
from tierd.service import assembly

fake = engine_bench.fake
OBSERVE = with_engine(mode=EngineMode.OBSERVE)


@pytest.fixture
def setting(tmp_path: Path) -> Path:
    path = tmp_path / "demotion_enabled"
    path.write_text("false\n")
    return path


@pytest.fixture
def demotion(setting: Path) -> Iterator[Demotion]:
    descriptor = os.open(setting, os.O_RDWR)
    yield Demotion(descriptor)
    os.close(descriptor)


def test_a_reload_switches_it_with_the_mode(fake: SimulatedKernel, demotion: Demotion) -> None:
    bench = Bench(fake, OBSERVE, demotion=demotion)
    bench.run(10)
    assert not demotion.on and bench.idle
    assert {"promote", "demote"} <= {line.action for line in bench.state.plan}, "and still it plans"
    bench.engine.adopt(PLACE)
    assert demotion.on
    bench.run(30)
    assert bench.on_dram > 0.9 * HOT
    bench.engine.adopt(OBSERVE)
    assert not demotion.on


def test_nothing_moves_while_it_is_off(fake: SimulatedKernel, setting: Path, demotion: Demotion) -> None:
    """Without it the kernel would swap out or drop what it is asked to demote."""
    bench = Bench(fake, demotion=demotion)
    setting.write_text("false\n")  # somebody else
    bench.run(10)
    assert bench.idle and bench.split.calls == 0
    assert bench.state.engine is EngineState.HOLDING and "demotion is off" in bench.state.reason
    bench.engine.adopt(PLACE)
    bench.run(30)
    assert bench.on_dram > 0.9 * HOT, "a reload switches it on again"


DOORS = {"perf.0": 3, "lru_gen": 4, "scan_size_mb": 5, "demotion_enabled": 6}


def test_a_door_that_is_not_there_is_named(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.put("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")
    assert assembly._lacking(machine.root, DOORS) == ""
    doors = {name: number for name, number in DOORS.items() if name != "demotion_enabled"}
    assert "demotion" in assembly._lacking(machine.root, doors)


@pytest.mark.parametrize(
    ("controllers", "reason"),
    [
        (None, "not the unified hierarchy"),
        ("cpuset cpu io pids\n", "cgroup_disable=memory"),
        ("", "of version 1"),
    ],
    ids=["version 1, or both", "disabled", "version 1 has it"],
)
def test_a_machine_that_does_not_tell_memory_by_cgroup_is_left_alone(
    tmp_path: Path, controllers: str | None, reason: str
) -> None:
    machine = Machine(tmp_path)
    machine.put("sys/fs/cgroup/memory/system.slice/memory.usage_in_bytes", "1\n")
    if controllers is not None:
        machine.put("sys/fs/cgroup/cgroup.controllers", controllers)
    assert reason in assembly._lacking(machine.root, DOORS)
