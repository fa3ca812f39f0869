"""Which pages of a process lie on a node, on the test's own memory."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.kernel.fixtures import Machine
from tierd.core.model import ProcessId
from tierd.errors import DeniedError, GoneError
from tierd.kernel import residence
from tierd.kernel.paths import Root
from tierd.kernel.residence import bytes_by_node, mapped_ranges, nodes_of, pages_on

SIZE = 4096
ROOT = Root(Path("/"))


def own() -> ProcessId:
    return ProcessId(os.getpid(), int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]))


@pytest.fixture
def pages() -> Iterator[set[int]]:
    """The numbers of every other page of a mapping; the others were never touched."""
    area = mmap.mmap(-1, SIZE * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    for page in range(0, SIZE, 2):
        area[page * mmap.PAGESIZE] = 1
    view = (ctypes.c_char * len(area)).from_buffer(area)
    first = ctypes.addressof(view) // mmap.PAGESIZE
    yield set(range(first, first + SIZE, 2))
    del view
    area.close()


def test_what_is_there_is_found_and_nothing_else(pages: set[int]) -> None:
    found = pages_on(ROOT, own(), {0}, first=0, most=1 << 30, seconds=30)
    assert found.next == 0 and found.pages.dtype == np.uint64
    mine = set(range(min(pages), min(pages) + SIZE))
    assert set(found.pages.tolist()) & mine == pages
    assert len(np.unique(found.pages)) == len(found.pages)


def test_nothing_lies_on_another_node(pages: set[int]) -> None:
    assert not len(pages_on(ROOT, own(), {1, 7}, first=0, most=1 << 30, seconds=30).pages)


def test_it_goes_on_where_it_stopped(pages: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residence, "_PIECE", 64)
    found, first, steps = set[int](), 0, 0
    while steps == 0 or first:
        part = pages_on(ROOT, own(), {0}, first=first, most=500, seconds=30)
        assert len(part.pages) < 500 + 64
        found |= set(part.pages.tolist())
        first, steps = part.next, steps + 1
    assert steps > 3 and pages <= found
    none = pages_on(ROOT, own(), {0}, first=0, most=500, seconds=0)
    assert not len(none.pages) and none.next, "no time, and more to look at"


def test_what_its_owner_has_placed_is_left_out(pages: set[int], tmp_path: Path) -> None:
    """A mapping under mbind(2), in hugetlbfs, or locked, as the kernel would show this one."""

    def found(numa_maps: str, status: str = "VmLck:\t 0 kB", smaps: str = "") -> set[int]:
        machine = Machine(tmp_path).write()
        machine.add_process(os.getpid(), "/a", start=own().start)
        for name, text in (("numa_maps", numa_maps), ("status", status), ("smaps", smaps)):
            machine.put(f"proc/{os.getpid()}/{name}", text + "\n")
        for name in ("maps", "pagemap"):
            link = machine.root.proc / str(os.getpid()) / name
            link.unlink(missing_ok=True)
            link.symlink_to(f"/proc/self/{name}")
        seen = pages_on(machine.root, own(), {0}, first=0, most=1 << 30, seconds=30).pages
        return set(seen.tolist()) & pages

    maps = Path("/proc/self/maps").read_text().splitlines()
    held = next(line for line in maps if _spans(line, min(pages)))
    start = int(held.split("-")[0], 16)
    assert found(f"{start:x} default anon=9 N0=9") == pages == found(f"{start:x} local N0=9")
    assert not found(f"{start:x} bind:0 anon=9 N0=9") and not found(f"{start:x} prefer:0 N0=9")
    assert not found(f"{start:x} default file=/x huge dirty=1 N0=1")
    assert found(f"{start:x} default file=/huge N0=1") == pages
    locked = "VmLck:\t  8 kB"
    lines = f"1-2 r--p 0 00:00 0\nRss: 4 kB\nVmFlags: rd lo\n{held}\nRss: 4 kB\nVmFlags: rd wr"
    assert found(f"{start:x} default N0=9", locked, lines) == pages
    assert not found(f"{start:x} default N0=9", locked, f"{lines} lo ac")


def _spans(line: str, page: int) -> bool:
    start, end = (int(word, 16) // mmap.PAGESIZE for word in line.split()[0].split("-"))
    return start <= page < end


def test_bytes_by_node_are_those_of_numa_maps(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.put(
        "proc/7/numa_maps",
        "7f00 default anon=3 dirty=3 N0=1 N1=2 kernelpagesize_kB=4\n"
        "7f01 bind:0 file=/a\\040N1=7/b huge dirty=1 N0=1 kernelpagesize_kB=2048\n"
        "7f02 default stack\n",
    )
    assert bytes_by_node(machine.root, 7) == {0: 4096 + (2 << 20), 1: 8192}
    with pytest.raises(GoneError):
        bytes_by_node(machine.root, 8)


def test_a_process_that_is_gone_or_another_by_now() -> None:
    with pytest.raises(GoneError):
        pages_on(ROOT, ProcessId(own().pid, 1), {0}, first=0, most=1, seconds=1)
    with pytest.raises(GoneError):
        pages_on(ROOT, ProcessId(2**22 - 7, 1), {0}, first=0, most=1, seconds=1)


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.EPERM, DeniedError), (errno.ESRCH, GoneError), (errno.EINVAL, GoneError)]
)
def test_one_that_may_not_be_looked_at_and_one_that_ends_meanwhile(
    monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    def refuse(pid: int, addresses: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(residence, "query_nodes", refuse)
    with pytest.raises(kind):
        pages_on(ROOT, own(), {0}, first=0, most=1, seconds=1)


def test_a_kernel_without_numa_maps(tmp_path: Path) -> None:
    machine = Machine(tmp_path).write()
    machine.add_process(7, "/a", start=9)
    machine.put("proc/7/pagemap", "")
    with pytest.raises(GoneError, match="numa_maps"):
        pages_on(machine.root, ProcessId(7, 9), {0}, first=0, most=1, seconds=1)


def test_the_node_of_each_page_or_none(pages: set[int]) -> None:
    asked = np.arange(min(pages), max(pages) + 1, dtype=np.uint64)
    found = nodes_of(ROOT, own(), asked)
    assert set(asked[found >= 0].tolist()) == pages
    with pytest.raises(GoneError, match="has ended"):
        nodes_of(ROOT, ProcessId(os.getpid(), 1), asked)


def test_what_is_mapped_is_listed_without_what_is_reserved_only(pages: set[int], tmp_path: Path) -> None:
    found = mapped_ranges(ROOT, os.getpid())
    assert found == sorted(found) and all(start < end for start, end in found)
    assert any(start <= min(pages) and max(pages) < end for start, end in found)
    machine = Machine(tmp_path)
    machine.put(
        "proc/7/maps",
        "5000-7000 r--p 00000000 00:00 0 \n"
        "7000-9000 ---p 00000000 00:00 0 \n"
        "a000-b000 rw-s 00000000 00:01 5 /dev/shm/a [vdso] b\n"
        "c000-d000 r--p 00000000 00:00 0                          [vvar_vclock]\n"
        "e000-f000 r-xp 00000000 00:00 0                          [vdso]\n"
        "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n",
    )
    assert mapped_ranges(machine.root, 7) == [(5, 7), (10, 11)]
    with pytest.raises(GoneError):
        mapped_ranges(machine.root, 8)
