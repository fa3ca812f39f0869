"""Which page faults made their page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.kernel.fixtures import MIB, Machine
from tierd.core.model import PAGE_SIZE, ProcessId
from tierd.core.policy import ProcessSelection
from tierd.service.first_touches import FEWEST, FirstTouches
from tierd.service.placed import PlacedProcesses

RESIDENT = 256 * MIB


class Reading:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.placed = PlacedProcesses(machine.root)
        self.touches = FirstTouches(machine.root, self.placed)
        self.resident = {100: RESIDENT, 101: RESIDENT}
        self.seen: set[int] = set()
        self.refresh()

    def refresh(self) -> None:
        self.placed.refresh(ProcessSelection(), 64 * MIB)
        self.touches.refresh()

    def grow(self, pages: int, pid: int = 100) -> None:
        self.resident[pid] += pages * PAGE_SIZE
        self.machine.grow(pid, self.resident[pid])

    def known(self, slots: np.ndarray, pages: np.ndarray) -> np.ndarray:
        return np.array([page in self.seen for page in pages.tolist()], dtype=bool)

    def read(self, *pages: int, other: tuple[int, ...] = ()) -> list[int]:
        """Which of these pages the fault made; `other`: of process 101."""
        slots = [self.placed.slot_of(ProcessId(pid, 5000)) for pid in (100, 101)]
        both = np.array([*pages, *other], dtype=np.uint64)
        whose = np.array([slots[0]] * len(pages) + [slots[1]] * len(other), dtype=np.int64)
        return both[self.touches.among(whose, both, self.known)].tolist()


@pytest.fixture
def reading(tmp_path: Path) -> Reading:
    machine = Machine(tmp_path)
    for pid in (100, 101):
        machine.add_process(pid, "/db", resident=RESIDENT)
    return Reading(machine)


def test_a_process_that_stays_as_large_as_it_is_makes_none(reading: Reading) -> None:
    assert reading.read(*range(5000)) == []


def test_what_a_process_has_grown_by_was_made(reading: Reading) -> None:
    reading.grow(1000)
    assert reading.read(*range(1000), other=tuple(range(5000, 9000))) == list(range(1000))
    assert reading.read(*range(2000, 3000)) == [], "once"


def test_what_is_known_was_there_before(reading: Reading) -> None:
    reading.seen = set(range(500))
    reading.grow(400)
    assert reading.read(*range(1000)) == list(range(500, 1000))


def test_of_many_new_pages_a_few_may_have_been_made_and_nobody_knows_which(reading: Reading) -> None:
    reading.grow(100)
    assert reading.read(*range(1000)) == []


def test_a_huge_page_is_one_fault(reading: Reading) -> None:
    reading.grow(512 * 100)
    assert reading.read(*range(0, 51200, 512)) == list(range(0, 51200, 512))


def test_a_few_faults_are_not_worth_asking(reading: Reading) -> None:
    reading.grow(FEWEST)
    assert reading.read(*range(FEWEST - 1)) == []


def test_a_look_at_the_process_list_takes_nothing_from_what_is_still_in_the_rings(reading: Reading) -> None:
    reading.grow(1000)
    reading.refresh()
    assert reading.read(*range(1000)) == list(range(1000))
    reading.grow(1000)
    reading.refresh()
    assert reading.read(*range(2000, 3000)) == list(range(2000, 3000))
    reading.grow(1000)
    reading.refresh()
    reading.refresh()
    assert reading.read(*range(5000, 6000)) == [], "it was long ago"


def test_a_process_that_has_ended(reading: Reading) -> None:
    reading.grow(1000)
    (reading.machine.root.proc / "100/statm").unlink()
    assert reading.read(*range(1000)) == []
    slots = np.full(1000, 77)
    assert not reading.touches.among(slots, np.arange(1000, dtype=np.uint64), reading.known).any()
