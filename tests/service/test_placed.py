"""Processes and their slots: numbers that never mean two processes at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel.fixtures import MIB, Machine
from tierd.core.model import ProcessId, ProcessView
from tierd.core.policy import ProcessMatch, ProcessSelection
from tierd.service import placed as module
from tierd.service.placed import PlacedProcesses

ALL = ProcessSelection()


def slots_of(placed: PlacedProcesses, *pids: int) -> list[int]:
    return [int(slot) for slot in placed.slots_of(np.array(pids, dtype=np.int32))]


def test_before_the_first_look_nothing_is_placed(tmp_path: Path) -> None:
    placed = PlacedProcesses(Machine(tmp_path).root)
    assert len(placed) == 0 and placed.views == () and len(placed.slots) == 0
    assert slots_of(placed, 1, 2) == [0, 0] and slots_of(placed) == []


def test_slots_and_processes(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for pid in (300, 100, 200):
        machine.add_process(pid, "/db")
    placed = PlacedProcesses(machine.root)
    placed.refresh(ALL, 64 * MIB)
    slots = slots_of(placed, 100, 200, 300)
    assert len(set(slots)) == 3 and min(slots) >= 1
    assert sorted(placed.slots.tolist()) == sorted(slots)
    assert slots_of(placed, 99, 150, 300, 301, -1) == [0, 0, slots[2], 0, 0]
    for pid, slot in zip((100, 200, 300), slots, strict=True):
        view = placed.by_slot(slot)
        assert view is not None and view.id.pid == pid
    assert placed.by_slot(0) is None and placed.by_slot(max(slots) + 1) is None


def test_who_may_not_have_memory_where(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for pid, cgroup in ((100, "/db"), (200, "/vm.slice/a"), (300, "/vm.slice/b")):
        machine.add_process(pid, cgroup)
    placed = PlacedProcesses(machine.root)
    placed.refresh(ALL, 64 * MIB)
    assert placed.barred([0, 1]) == {}, "without the controller"
    machine.put("sys/fs/cgroup/cpuset.mems.effective", "0-3\n")
    machine.put("sys/fs/cgroup/vm.slice/cpuset.mems.effective", "0,2\n")
    placed.refresh(ALL, 64 * MIB)
    assert placed.barred([0, 1]) == {1: frozenset(slots_of(placed, 200, 300))}


def test_a_slot_is_kept_while_the_process_lives(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_process(200, "/db")
    placed = PlacedProcesses(machine.root)
    placed.refresh(ALL, 64 * MIB)
    before = slots_of(placed, 200)
    machine.add_process(100, "/db")
    placed.refresh(ALL, 64 * MIB)
    assert slots_of(placed, 200) == before and slots_of(placed, 100) != before


def test_a_number_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_process(100, "/db", start=1)
    placed = PlacedProcesses(machine.root)
    placed.refresh(ALL, 64 * MIB)
    (old,) = slots_of(placed, 100)
    (machine.root.cgroup / "db/cgroup.procs").write_text("")
    machine.add_process(100, "/db", start=2)
    placed.refresh(ALL, 64 * MIB)
    (new,) = slots_of(placed, 100)
    assert new != old and placed.by_slot(old) is None


def test_a_policy_that_selects_others(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.add_process(100, "/db")
    machine.add_process(200, "/web")
    placed = PlacedProcesses(machine.root)
    placed.refresh(ALL, 64 * MIB)
    placed.refresh(ProcessSelection((ProcessMatch(cgroup="/web"),)), 64 * MIB)
    assert [view.id.pid for view in placed.views] == [200] and slots_of(placed, 100) == [0]


LOOKS = st.lists(st.sets(st.integers(1, 12), max_size=5), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(LOOKS)
def test_slots_stay_within_what_the_heat_map_can_tell_apart(looks: list[set[int]]) -> None:
    """Processes come and go for as long as the daemon runs, and 2^18 slots are not for ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LAST_SLOT", 7)
        placed = PlacedProcesses(Machine(Path("/nonexistent")).root)
        alive: dict[int, int] = {}
        for number, pids in enumerate(looks):
            # each look finds new processes under these numbers, half of the old ones stay
            views = tuple(
                ProcessView(ProcessId(pid, number - number % (1 + pid % 3)), "x", 0, "/db", MIB)
                for pid in pids
            )
            patch.setattr(module, "selected_processes", lambda *_, views=views: views)
            placed.refresh(ALL, 0)
            slots = {view.id: slots_of(placed, view.id.pid)[0] for view in views}
            assert sorted(set(slots.values())) == sorted(slots.values()), "one slot, one process"
            assert all(1 <= slot <= 7 for slot in slots.values())
            assert all(slots[key] == slot for key, slot in alive.items() if key in slots), "kept"
            alive = slots
