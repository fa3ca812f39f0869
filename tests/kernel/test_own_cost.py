"""What tierd itself may have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kernel.fixtures import Machine
from tierd.kernel.own_cost import read_own_room


@pytest.mark.parametrize(("most", "room"), [("max", None), ("1000", 400), ("500", -100), (None, None)])
def test_what_its_cgroup_leaves_it(tmp_path: Path, most: str | None, room: int | None) -> None:
    machine = Machine(tmp_path).write()
    machine.put(f"proc/{os.getpid()}/cgroup", "0::/system.slice/tierd.service\n")
    cgroup = machine.root.cgroup / "system.slice/tierd.service"
    machine.put(cgroup / "memory.current", "600\n")
    if most is not None:
        machine.put(cgroup / "memory.max", f"{most}\n")
    assert read_own_room(machine.root) == room
