"""Which ranges can hold huge pages and which do; reading only."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.kernel.fixtures import Machine, fail_reading
from tierd.core.model import HUGE_PAGE_SIZE, ProcessId
from tierd.errors import DeniedError, GoneError, UnsupportedError
from tierd.kernel import huge_pages
from tierd.kernel.huge_pages import (
    HugePageFinder,
    Range,
    collapse,
    huge_bytes,
    huge_ranges,
    is_private,
    perhaps_huge,
    private_mappings,
    split,
)
from tierd.kernel.paths import Root

MAPS = (Path(__file__).parent / "recorded/maps.txt").read_text()
ROLLUP = """\
55d0c8a00000-7ffd00021000 ---p 00000000 00:00 0 [rollup]
Rss:              614400 kB
Anonymous:        614400 kB
AnonHugePages:    131072 kB
ShmemPmdMapped:     2048 kB
"""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.put("proc/100/maps", MAPS)
    made.put("proc/100/smaps_rollup", ROLLUP)
    made.put("proc/100/pagemap", "")
    return made


def test_private_writable_mappings_of_2_mib_and_more(machine: Machine) -> None:
    assert list(private_mappings(machine.root, 100)) == [
        Range(0x55D0C9000000, 0x55D0D1000000),
        Range(0x7F0000000000, 0x7F0000400000),
        Range(0x7F0001000000, 0x7F0001400000),
        Range(0x7F0002000000, 0x7F0002400000),  # a file's name cannot add a mapping
    ]


def test_a_process_without_memory(machine: Machine) -> None:
    machine.put("proc/100/maps", "")
    machine.put("proc/100/smaps_rollup", "")
    assert list(private_mappings(machine.root, 100)) == []
    assert huge_bytes(machine.root, 100) == 0


def test_bytes_in_huge_pages(machine: Machine) -> None:
    assert huge_bytes(machine.root, 100) == 128 << 20


READERS: list[tuple[str, Callable[[Root, int], object]]] = [
    ("maps", lambda root, pid: list(private_mappings(root, pid))),
    ("maps", huge_ranges),
    ("smaps_rollup", huge_bytes),
    ("smaps", perhaps_huge),
]


@pytest.mark.parametrize(("name", "read"), READERS)
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOENT, GoneError),
        (errno.ESRCH, GoneError),
        (errno.EACCES, DeniedError),
        (errno.EPERM, DeniedError),
    ],
)
def test_gone_and_denied(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    read: Callable[[Root, int], object],
    code: int,
    kind: type[Exception],
) -> None:
    fail_reading(monkeypatch, machine.root.proc / "100" / name, code)
    with pytest.raises(kind, match=name):
        read(machine.root, 100)


def test_a_process_that_is_gone(machine: Machine) -> None:
    with pytest.raises(GoneError, match="process 101"):
        huge_ranges(machine.root, 101)


def test_a_pagemap_that_may_not_be_opened(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DeniedError, match="CAP_SYS_PTRACE"):
        huge_ranges(machine.root, 100)


def test_a_kernel_without_the_call(machine: Machine) -> None:
    """A plain file knows no PAGEMAP_SCAN, like the pagemap of a kernel before 6.7."""
    with pytest.raises(UnsupportedError, match="PAGEMAP_SCAN"):
        huge_ranges(machine.root, 100)


def test_a_process_that_ends_during_the_scan(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*arguments: object) -> int:
        raise OSError(errno.ESRCH, "No such process")

    monkeypatch.setattr(huge_pages.fcntl, "ioctl", gone)
    with pytest.raises(GoneError, match="pagemap"):
        huge_ranges(machine.root, 100)


def test_no_descriptor_is_left_open(machine: Machine) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for pid in (100, 101):
        with pytest.raises((GoneError, UnsupportedError)):
            huge_ranges(machine.root, pid)
    assert len(os.listdir("/proc/self/fd")) == before


@contextmanager
def memory_of_this_process(ranges: int) -> Iterator[tuple[int, mmap.mmap, int]]:
    """Anonymous memory of so many 2 MiB, aligned: its address, the mapping, and the place of the address in
    it."""
    area = mmap.mmap(-1, (ranges + 1) * HUGE_PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    view = (ctypes.c_char * len(area)).from_buffer(area)
    base = ctypes.addressof(view)
    first = -(-base // HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE
    try:
        yield first, area, first - base
    finally:
        del view
        area.close()


def test_making_a_huge_page_in_this_very_process() -> None:
    """Where madvise forbids huge pages at first, small ones are made; then they become one."""
    with memory_of_this_process(2) as (address, area, offset):
        area.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(512):
            area[offset + page * 4096] = page % 251
        assert is_private(Root(), os.getpid(), address)
        assert not is_private(Root(), os.getpid(), address + HUGE_PAGE_SIZE), "never touched"
        process = os.pidfd_open(os.getpid())
        try:
            with pytest.raises(OSError, match="process_madvise") as caught:
                collapse(process, address)
            if caught.value.errno in (errno.EPERM, errno.ENOSYS):
                pytest.skip(f"not possible here: {caught.value}")
            assert caught.value.errno == errno.EINVAL, "the mapping may not have huge pages"
            area.madvise(mmap.MADV_HUGEPAGE)
            before = huge_bytes(Root(), os.getpid())
            try:
                collapse(process, address)
            except OSError as error:
                assert error.errno in (errno.ENOMEM, errno.EAGAIN, errno.EBUSY), error
                pytest.skip(f"no huge page was free: {error}")
        finally:
            os.close(process)
        assert huge_bytes(Root(), os.getpid()) == before + HUGE_PAGE_SIZE
        assert [area[offset + page * 4096] for page in range(512)] == [page % 251 for page in range(512)]
        try:
            pages = np.array([address >> 12, (address >> 12) + 511, (address >> 12) + 512], dtype=np.uint64)
            found = HugePageFinder(Root()).among(ProcessId(os.getpid(), 1), pages)
            assert found.tolist() == [True, True, False]
        except UnsupportedError as missing:
            pytest.skip(str(missing))


def test_memory_that_a_child_maps_as_well_is_not_private() -> None:
    with memory_of_this_process(1) as (address, area, offset):
        area.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(512):
            area[offset + page * 4096] = 1
        assert is_private(Root(), os.getpid(), address)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        try:
            assert not is_private(Root(), os.getpid(), address)
        finally:
            os.close(writing)
            os.close(reading)
            os.waitpid(child, 0)


def pagemap(machine: Machine, *entries: int) -> None:
    machine.put("proc/100/pagemap", struct.pack(f"<{len(entries)}Q", *entries))


PRESENT, FILE, EXCLUSIVE, SWAPPED = 1 << 63, 1 << 61, 1 << 56, 1 << 62


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        (PRESENT | EXCLUSIVE | 1 << 55, True),  # soft-dirty
        (PRESENT, False),
        (EXCLUSIVE, False),
        (SWAPPED | EXCLUSIVE, False),
        (PRESENT | EXCLUSIVE | FILE, False),
        (0, False),
    ],
)
def test_one_page_of_512_decides(machine: Machine, odd: int, expected: bool) -> None:
    usual = PRESENT | EXCLUSIVE
    pagemap(machine, *[0] * 512, *[usual] * 300, odd, *[usual] * 211)
    assert is_private(machine.root, 100, HUGE_PAGE_SIZE) is expected
    assert not is_private(machine.root, 100, 2 * HUGE_PAGE_SIZE), "beyond the end"


SMAPS = """\
55d0c9000000-55d0d1000000 rw-p 00000000 00:00 0                          [heap]
Size:             131072 kB
AnonHugePages:         0 kB
ShmemPmdMapped:        0 kB
VmFlags: rd wr mr mw me ac
7f0000000000-7f0000400000 rw-p 00000000 00:00 0
AnonHugePages:      2048 kB
ShmemPmdMapped:        0 kB
7f0000400000-7f0000800000 rw-s 00000000 00:01 7  /dev/shm/AnonHugePages: 4096 kB
AnonHugePages:         0 kB
ShmemPmdMapped:     2048 kB
7f0001000000-7f0001400000 rw-s 00000000 00:01 8  /dev/shm/AnonHugePages:
AnonHugePages:         0 kB
"""


def test_mappings_that_hold_huge_pages(machine: Machine) -> None:
    machine.put("proc/100/smaps", SMAPS)
    assert perhaps_huge(machine.root, 100) == (
        Range(0x7F0000000000, 0x7F0000400000),
        Range(0x7F0000400000, 0x7F0000800000),
    )


def test_where_the_kernel_does_not_say_a_mapping_that_holds_some_counts_whole(machine: Machine) -> None:
    """A plain file knows no PAGEMAP_SCAN, as on Linux 6.1. smaps is not read for every batch."""
    machine.put("proc/100/smaps", SMAPS)
    finder = HugePageFinder(machine.root)
    addresses = [0x55D0C9000000, 0x7EFFFFFFF000, 0x7F0000000000, 0x7F00003FF000, 0x7F0000400000]
    pages = np.array([*addresses, 0x7F00007FF000, 0x7F0000800000], dtype=np.uint64) >> np.uint64(12)
    expected = [False, False, True, True, True, True, False]
    assert finder.among(ProcessId(100, 1), pages).tolist() == expected
    (machine.root.proc / "100/smaps").unlink()
    assert finder.among(ProcessId(100, 1), pages).tolist() == expected
    for other in (ProcessId(101, 1), ProcessId(100, 2)):
        with pytest.raises(GoneError):
            finder.among(other, pages)


def test_pages_of_huge_pages_are_found(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Range] = []

    def scan(root: Root, pid: int, within: list[Range]) -> tuple[Range, ...]:
        asked.extend(within)
        return (Range(0x7F0000200000, 0x7F0000600000), Range(0x7F0000600000, 0x7F0000800000))

    monkeypatch.setattr(huge_pages, "huge_ranges", scan)
    pages = np.array([0x7F0000FFF, 0x7F00001FF, 0x7F0000200, 0x7F00007FF, 0x7F0000800], dtype=np.uint64)
    found = HugePageFinder(machine.root).among(ProcessId(100, 1), pages)
    assert found.tolist() == [False, False, True, True, False]
    assert asked == [
        Range(0x7F0000000000, 0x7F0000400000),
        Range(0x7F0000600000, 0x7F0000A00000),
        Range(0x7F0000E00000, 0x7F0001000000),
    ], "only where the pages are, and neighbours at once"


def test_huge_pages_of_this_very_process() -> None:
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not enabled.exists() or "[never]" in enabled.read_text():
        pytest.skip("this kernel makes no transparent huge pages")
    area = mmap.mmap(-1, 5 * HUGE_PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_HUGEPAGE)
    view = (ctypes.c_char * len(area)).from_buffer(area)
    base = ctypes.addressof(view)
    first = -(-base // HUGE_PAGE_SIZE) * HUGE_PAGE_SIZE
    for number in range(3):  # huge pages 0 to 2 of the aligned part; the rest is never touched
        area[first - base + number * HUGE_PAGE_SIZE] = 1
    try:
        found = huge_ranges(Root(), os.getpid())
    except UnsupportedError as missing:
        pytest.skip(str(missing))
    total = huge_bytes(Root(), os.getpid())
    if not total:
        pytest.skip("no huge page was free")
    inside = [r for r in found if r.end > first and r.start < first + 4 * HUGE_PAGE_SIZE]
    assert inside, f"{total} bytes in huge pages, and none where they were made"
    assert all(r.start >= first and r.end <= first + 3 * HUGE_PAGE_SIZE for r in inside)
    assert all(r.start % HUGE_PAGE_SIZE == r.end % HUGE_PAGE_SIZE == 0 and r.huge_pages for r in found)
    assert sum(r.end - r.start for r in found) == total, "two witnesses: the scan and smaps_rollup"
    del view
    area.close()


def test_the_command_that_splits(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "split_huge_pages", os.O_WRONLY | os.O_CREAT)
    split(descriptor, 100, Range(0x7F0000000000, 0x7F0000200000))
    os.close(descriptor)
    assert (tmp_path / "split_huge_pages").read_text() == "100,0x7f0000000000,0x7f0000200000"
