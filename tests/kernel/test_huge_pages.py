"""Which ranges can hold huge pages and which do; reading only."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel.fixtures import Machine, fail_reading
from tierd.core.model import HUGE_PAGE_SIZE
from tierd.errors import DeniedError, GoneError, UnsupportedError
from tierd.kernel import huge_pages
from tierd.kernel.huge_pages import Range, huge_bytes, huge_ranges, private_mappings, split
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
