"""Huge pages are split only where DRAM is contended for, and only with what the policy selected."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.kernel.fixtures import MIB, Machine, numa_stat
from tests.kernel.fixtures.moving import Watch
from tierd.core.model import HUGE_PAGE_SIZE, ProcessId, ProcessView
from tierd.errors import DeniedError, GoneError, MalformedError, UnsupportedError
from tierd.kernel import huge_pages
from tierd.kernel.huge_pages import Range
from tierd.service import splitting
from tierd.service.splitting import Splitter

DRAM, SLOW = frozenset({0}), frozenset({1})
CONTENDED, FITTING = "/contended", "/fitting"
FIRST = 0x7F0000000000


class Pages:
    """Huge pages of processes; a write of the door splits those in its range."""

    def __init__(self) -> None:
        self.ranges: dict[int, set[int]] = {}
        self.commands: list[tuple[int, Range]] = []
        self.raises: Exception | None = None
        self.looks: list[int] = []

    def huge_ranges(
        self, root: object, pid: int, within: Iterable[Range] | None = None
    ) -> tuple[Range, ...]:
        self.looks.append(pid)
        if self.raises:
            raise self.raises
        found = tuple(Range(start, start + HUGE_PAGE_SIZE) for start in sorted(self.ranges[pid]))
        if within is None:
            return found
        return tuple(r for part in within for r in found if part.start <= r.start < part.end)

    def huge_bytes(self, root: object, pid: int) -> int:
        return HUGE_PAGE_SIZE * len(self.ranges[pid])

    def split(self, descriptor: int, pid: int, target: Range) -> None:
        self.commands.append((pid, target))
        self.ranges[pid] = {s for s in self.ranges[pid] if not target.start <= s < target.end}


class Memory:
    """In the place of Rebuilder: keeps some ranges, and hears what was split."""

    def __init__(self) -> None:
        self.keeps: dict[int, tuple[Range, ...]] = {}
        self.heard: dict[int, list[int]] = {}
        self.adopts: dict[int, list[int]] = {}

    def adopt(self, process: ProcessId, ranges: np.ndarray) -> np.ndarray:
        wanted = np.array(self.adopts.get(process.pid, []), dtype=np.uint64)
        return np.intersect1d(ranges, wanted)

    def kept(self, process: ProcessId) -> tuple[Range, ...]:
        return self.keeps.get(process.pid, ())

    def note_split(self, process: ProcessId, ranges: np.ndarray) -> None:
        self.heard.setdefault(process.pid, []).extend(ranges.tolist())


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Pages:
    fake = Pages()
    for name in ("huge_ranges", "huge_bytes", "split"):
        monkeypatch.setattr(huge_pages, name, getattr(fake, name))
    monkeypatch.setattr(splitting, "ProcessWatch", Watch)
    for pid in (100, 101):
        fake.ranges[pid] = {0x7F0000000000 + n * HUGE_PAGE_SIZE for n in range(50)}
    return fake


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    for pid in (100, 101):
        made.add_process(pid, CONTENDED, start=1)
    contended = numa_stat({0: 200 * MIB, 1: 300 * MIB}, huge={0: 100 * MIB, 1: 0})
    made.put(made.root.cgroup / "contended/memory.numa_stat", contended)
    fitting = numa_stat({0: 200 * MIB}, huge={0: 100 * MIB})
    made.put(made.root.cgroup / "fitting/memory.numa_stat", fitting)
    return made


@pytest.fixture
def door(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "split_huge_pages", os.O_WRONLY | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def view(pid: int, cgroup: str) -> ProcessView:
    return ProcessView(ProcessId(pid, 1), "x", 0, cgroup, 500 * MIB)


def test_without_a_door_it_is_not_available(machine: Machine, door: int) -> None:
    assert not Splitter(machine.root, None).available
    assert Splitter(machine.root, door).available


@pytest.mark.parametrize("below", [0, MIB])
def test_a_cgroup_that_fits_in_dram_is_left_alone(
    machine: Machine, pages: Pages, door: int, memory: Memory, below: int
) -> None:
    """Also when a little of its page cache has gone down."""
    text = numa_stat({0: 200 * MIB, 1: below}, huge={0: 100 * MIB})
    machine.put(machine.root.cgroup / "fitting/memory.numa_stat", text)
    views = (view(100, CONTENDED), view(101, FITTING))
    assert Splitter(machine.root, door).split(views, DRAM, SLOW, 60.0, memory) == 50
    assert {pid for pid, _ in pages.commands} == {100}
    assert len(pages.ranges[100]) == 0 and len(pages.ranges[101]) == 50


def test_a_cgroup_without_huge_pages_in_dram_is_left_alone(
    machine: Machine, pages: Pages, door: int, memory: Memory
) -> None:
    text = numa_stat({0: 200 * MIB, 1: 300 * MIB}, huge={0: 0, 1: 100 * MIB})
    machine.put(machine.root.cgroup / "contended/memory.numa_stat", text)
    assert Splitter(machine.root, door).split((view(100, CONTENDED),), DRAM, SLOW, 60.0, memory) == 0
    assert not pages.commands


def test_what_the_kernel_made_and_the_keeper_would_have_made_stays(
    machine: Machine, pages: Pages, door: int, memory: Memory
) -> None:
    first = 0x7F0000000000 // HUGE_PAGE_SIZE
    memory.adopts[100] = [first + 3, first + 4, first + 1000]
    assert Splitter(machine.root, door).split((view(100, CONTENDED),), DRAM, SLOW, 60.0, memory) == 48
    assert {start // HUGE_PAGE_SIZE - first for start in pages.ranges[100]} == {3, 4}
    assert len(memory.heard[100]) == 48


def test_no_time_nothing_split(machine: Machine, pages: Pages, door: int, memory: Memory) -> None:
    assert Splitter(machine.root, door).split((view(100, CONTENDED),), DRAM, SLOW, -1.0, memory) == 0
    assert not pages.commands


def test_only_what_is_really_split_is_counted(
    machine: Machine, pages: Pages, door: int, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pinned pages stay huge: the answer comes from looking again."""

    def reluctant(descriptor: int, pid: int, target: Range) -> None:
        inside = [start for start in pages.ranges[pid] if target.start <= start < target.end]
        pages.ranges[pid] -= {start for start in inside if start < FIRST + 10 * HUGE_PAGE_SIZE}

    monkeypatch.setattr(huge_pages, "split", reluctant)
    assert Splitter(machine.root, door).split((view(100, CONTENDED),), DRAM, SLOW, 60.0, memory) == 10


@pytest.mark.parametrize(
    "error",
    [
        GoneError("exited"),
        DeniedError("permission denied"),
        MalformedError("nonsense"),
        OSError(22, "Invalid argument"),
        ProcessLookupError(3, "No such process"),
    ],
)
def test_one_process_that_cannot_be_split_stops_no_other(
    machine: Machine,
    pages: Pages,
    door: int,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def ranges(root: object, pid: int, within: Iterable[Range] | None = None) -> tuple[Range, ...]:
        if pid == 100:
            raise error
        return pages.huge_ranges(root, pid, within)

    monkeypatch.setattr(huge_pages, "huge_ranges", ranges)
    views = (view(100, CONTENDED), view(101, CONTENDED))
    assert Splitter(machine.root, door).split(views, DRAM, SLOW, 60.0, memory) == 50


def test_a_kernel_that_does_not_say_where_they_are(
    machine: Machine, pages: Pages, door: int, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux 6.1: every mapping that could hold some is written to the door."""
    pages.raises = UnsupportedError("no PAGEMAP_SCAN")
    whole = Range(0x7F0000000000, 0x7F0000000000 + 50 * HUGE_PAGE_SIZE)
    monkeypatch.setattr(huge_pages, "private_mappings", lambda root, pid: iter([whole]))
    assert Splitter(machine.root, door).split((view(100, CONTENDED),), DRAM, SLOW, 60.0, memory) == 50
    written = sorted((target.start, target.end) for _, target in pages.commands)
    assert written[0][0] == whole.start and written[-1][1] == whole.end
    assert all(end - start < whole.end - whole.start for start, end in written), "a little at a time"


@pytest.mark.parametrize("text", ["", "anon N0=many\n"])
def test_a_cgroup_that_cannot_be_read_is_left_alone(
    machine: Machine, pages: Pages, door: int, memory: Memory, text: str
) -> None:
    machine.put(machine.root.cgroup / "contended/memory.numa_stat", text)
    views = (view(100, CONTENDED), view(101, "/gone"))
    assert Splitter(machine.root, door).split(views, DRAM, SLOW, 60.0, memory) == 0


def test_a_process_that_got_the_number_of_another_is_left_alone(
    machine: Machine, pages: Pages, door: int, memory: Memory
) -> None:
    """Views are seconds old, and its pages may be those of a process that the policy excludes."""
    machine.add_process(100, "/excluded", start=2)
    assert Splitter(machine.root, door).split((view(100, CONTENDED),), DRAM, SLOW, 60.0, memory) == 0
    assert not pages.commands and not memory.heard


def test_what_was_found_is_not_split_in_a_process_that_got_its_number_since(
    machine: Machine, pages: Pages, door: int, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranges that there was no time for in one round are split in the next."""
    now = [100.0]
    monkeypatch.setattr(splitting.time, "monotonic", lambda: now[0])
    look = pages.huge_ranges

    def slow_look(*arguments: object) -> tuple[Range, ...]:
        now[0] += 1.0
        return look(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(huge_pages, "huge_ranges", slow_look)
    splitter = Splitter(machine.root, door)
    assert splitter.split((view(100, CONTENDED),), DRAM, SLOW, 0.5, memory) == 0
    machine.add_process(100, "/excluded", start=2)
    assert splitter.split((view(100, CONTENDED),), DRAM, SLOW, 60.0, memory) == 0
    assert not pages.commands


def test_a_number_that_changes_hands_between_two_writes(
    machine: Machine, pages: Pages, door: int, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = pages.split

    def last_split(descriptor: int, pid: int, target: Range) -> None:
        split(descriptor, pid, target)
        machine.add_process(100, "/excluded", start=2)

    monkeypatch.setattr(huge_pages, "split", last_split)
    Splitter(machine.root, door).split((view(100, CONTENDED),), DRAM, SLOW, 60.0, memory)
    assert len(pages.commands) == 1


def test_what_was_rebuilt_is_left_whole(machine: Machine, pages: Pages, door: int, memory: Memory) -> None:
    """Three huge pages in the middle of others."""
    kept = Range(FIRST + 10 * HUGE_PAGE_SIZE, FIRST + 13 * HUGE_PAGE_SIZE)
    memory.keeps[100] = (kept,)
    assert Splitter(machine.root, door).split((view(100, CONTENDED),), DRAM, SLOW, 60.0, memory) == 47
    assert pages.ranges[100] == {kept.start + n * HUGE_PAGE_SIZE for n in range(3)}


def test_it_is_remembered_which_were_split(
    machine: Machine, pages: Pages, door: int, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = FIRST + 7 * HUGE_PAGE_SIZE
    split = pages.split

    def reluctant(descriptor: int, pid: int, target: Range) -> None:
        split(descriptor, pid, target)
        pages.ranges[pid].add(pinned)

    monkeypatch.setattr(huge_pages, "split", reluctant)
    Splitter(machine.root, door).split((view(100, CONTENDED),), DRAM, SLOW, 60.0, memory)
    first = FIRST // HUGE_PAGE_SIZE
    assert memory.heard == {100: [first + n for n in range(50) if n != 7]}


def test_a_process_without_anything_to_split_is_not_looked_at_all_the_time(
    machine: Machine, pages: Pages, door: int, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cgroup has huge pages in DRAM for good: those that were rebuilt."""
    now = [100.0]
    monkeypatch.setattr(splitting.time, "monotonic", lambda: now[0])
    memory.keeps[100] = (Range(FIRST, FIRST + 50 * HUGE_PAGE_SIZE),)
    splitter = Splitter(machine.root, door)
    for _ in range(100):
        now[0] += 0.1
        splitter.split((view(100, CONTENDED),), DRAM, SLOW, 60.0, memory)
    assert 8 <= len(pages.looks) <= 11, "once a second"
    memory.keeps.clear()
    now[0] += 1.1
    assert splitter.split((view(100, CONTENDED),), DRAM, SLOW, 60.0, memory) == 50


@pytest.mark.parametrize(("resting", "looks"), [(False, 20), (True, 5)])
def test_looks_that_take_long_are_few_and_fewer_at_rest(
    machine: Machine,
    pages: Pages,
    door: int,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
    resting: bool,
    looks: int,
) -> None:
    """Each takes 0.1 s of the 100 s that pass."""
    now = [100.0]
    monkeypatch.setattr(splitting.time, "monotonic", lambda: now[0])
    look = pages.huge_ranges

    def slow_look(*arguments: object) -> tuple[Range, ...]:
        now[0] += 0.1
        return look(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(huge_pages, "huge_ranges", slow_look)
    memory.keeps[100] = (Range(FIRST, FIRST + 50 * HUGE_PAGE_SIZE),)
    splitter = Splitter(machine.root, door)
    while now[0] < 200:
        now[0] += 0.2
        splitter.split((view(100, CONTENDED),), DRAM, SLOW, 60.0, memory, resting=resting)
    assert len(pages.looks) in (looks - 1, looks)


@pytest.mark.parametrize("says_where", [True, False])
def test_looking_through_a_large_process_leaves_time_for_splitting_it(
    machine: Machine,
    pages: Pages,
    door: int,
    memory: Memory,
    monkeypatch: pytest.MonkeyPatch,
    says_where: bool,
) -> None:
    """A look through hundreds of gigabytes takes longer than a round may, and 16 huge pages take 0.1 s: what
    a look has found is split in the rounds that follow, and not looked for again in each."""
    now = [100.0]
    monkeypatch.setattr(splitting.time, "monotonic", lambda: now[0])
    look, split = pages.huge_ranges, pages.split
    looks = [0]

    def slow_look(root: object, pid: int, within: Iterable[Range] | None = None) -> tuple[Range, ...]:
        if within is None:
            looks[0] += 1
            now[0] += 2.0
        return look(root, pid, within)

    def slow_split(*arguments: object) -> None:
        now[0] += 0.1
        split(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(huge_pages, "huge_ranges", slow_look)
    monkeypatch.setattr(huge_pages, "split", slow_split)
    whole = Range(FIRST, FIRST + 200 * HUGE_PAGE_SIZE)
    monkeypatch.setattr(huge_pages, "private_mappings", lambda root, pid: iter([whole]))
    if not says_where:
        pages.raises = UnsupportedError("no PAGEMAP_SCAN")
    pages.ranges[100] = {FIRST + n * HUGE_PAGE_SIZE for n in range(150, 200)}
    splitter, done = Splitter(machine.root, door), 0
    for _ in range(12):
        done += splitter.split((view(100, CONTENDED),), DRAM, SLOW, 0.3, memory)
        now[0] += 1.0
    assert (done, len(pages.ranges[100])) == (50, 0)
    assert looks[0] <= 3


def test_a_process_that_is_gone_is_forgotten(
    machine: Machine, pages: Pages, door: int, memory: Memory
) -> None:
    memory.keeps[100] = (Range(FIRST, FIRST + 50 * HUGE_PAGE_SIZE),)
    splitter = Splitter(machine.root, door)
    splitter.split((view(100, CONTENDED),), DRAM, SLOW, 60.0, memory)
    splitter.split((), DRAM, SLOW, 60.0, memory)
    splitter.split((view(100, CONTENDED),), DRAM, SLOW, 60.0, memory)
    assert pages.looks == [100, 100], "a new process with that number is looked at, at once"
