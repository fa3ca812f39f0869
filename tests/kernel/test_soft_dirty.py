"""Soft-dirty bits, on recorded trees and, where this kernel has them, on this process."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from tierd.core.model import ProcessId, ProcessView
from tierd.errors import UnsupportedError
from tierd.kernel.paths import Root
from tierd.kernel.self_test import FreshPages, see_touch
from tierd.kernel.soft_dirty import LONGEST_PASS_SECONDS, PASS_SECONDS, SoftDirty, find_soft_dirty

A, B = ProcessId(101, 7), ProcessId(102, 7)
PRESENT, DIRTY = 1 << 63, 1 << 55
MAPS = """\
00010000-00014000 rw-p 00000000 00:00 0                                  [heap]
00020000-00022000 r--p 00000000 00:00 0                                  /usr/lib/x
00030000-00032000 rw-s 00000000 00:01 5                                  /dev/shm/y
"""


def views(*processes: ProcessId) -> list[ProcessView]:
    return [ProcessView(process, "db", 0, "/db", 1) for process in processes]


class Kernel:
    """Processes whose pagemap is a file; clearing the bits does what the kernel does."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = Root(path)
        self.now = 100.0
        self.cost = 0.0
        self.cleared: list[int] = []
        write = os.write

        def clear(descriptor: int, data: bytes) -> int:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.name == "clear_refs":
                assert data == b"4"
                self.cleared.append(int(path.parent.name))
                self.now += self.cost
                for page in (*range(0x10, 0x14), *range(0x20, 0x22), *range(0x30, 0x32)):
                    self.mark(int(path.parent.name), page, PRESENT)
            return write(descriptor, data)

        patch.setattr("tierd.kernel.soft_dirty.os.write", clear)
        self.source = SoftDirty(self.root, lambda: self.now)

    def add(self, process: ProcessId) -> None:
        home = self.root.proc / str(process.pid)
        home.mkdir(parents=True)
        (home / "maps").write_text(MAPS)
        (home / "clear_refs").write_text("")
        (home / "pagemap").write_bytes(bytes(8 * 0x40))
        fields = " ".join(["0"] * 18)
        (home / "stat").write_text(f"{process.pid} (x) S {fields} {process.start} 0\n")

    def mark(self, pid: int, page: int, bits: int = PRESENT | DIRTY) -> None:
        with open(self.root.proc / str(pid) / "pagemap", "r+b") as file:
            file.seek(8 * page)
            file.write(struct.pack("<Q", bits))

    def read(self) -> list[tuple[int, int]]:
        self.now += PASS_SECONDS
        seen = self.source.read()
        assert len(seen.pid) == len(seen.page) == len(seen.time)
        assert not len(seen) or seen.time[0] == self.now
        self.passes = seen.passes
        return list(zip(seen.pid.tolist(), seen.page.tolist(), strict=True))


@pytest.fixture
def kernel_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel(tmp_path, monkeypatch)
    for process in (A, B):
        made.add(process)
    return made


def test_pages_written_since_the_last_look(kernel_of: Kernel) -> None:
    kernel_of.source.watch(views(A, B))
    kernel_of.mark(101, 0x10)
    assert kernel_of.read() == [] and kernel_of.cleared == [101, 102], "written at any time before"
    for pid, page in ((101, 0x11), (101, 0x31), (102, 0x13), (102, 0x21)):
        kernel_of.mark(pid, page)
    kernel_of.mark(101, 0x12, DIRTY)
    assert kernel_of.read() == [(101, 0x11), (101, 0x31), (102, 0x13)]
    assert kernel_of.passes == 1
    assert kernel_of.read() == [] and kernel_of.passes == 1, "an all-idle reading"
    kernel_of.now -= PASS_SECONDS
    assert kernel_of.read() == [] and kernel_of.passes == 0, "none was due"


def test_nothing_is_cleared_before_its_time(kernel_of: Kernel) -> None:
    kernel_of.source.watch(views(A))
    kernel_of.read()
    kernel_of.now += PASS_SECONDS - 0.1
    assert not len(kernel_of.source.read()) and kernel_of.cleared == [101]


def test_at_rest_it_looks_twice_a_minute(kernel_of: Kernel) -> None:
    kernel_of.source.watch(views(A))
    kernel_of.source.steer(1 / 32)
    kernel_of.read()
    kernel_of.now += LONGEST_PASS_SECONDS - PASS_SECONDS - 0.1
    kernel_of.read()
    assert kernel_of.cleared == [101]
    kernel_of.source.steer(1.0)
    kernel_of.read()
    kernel_of.read()
    assert kernel_of.cleared == [101, 101, 101]


def test_a_pass_that_took_long_is_not_soon_repeated(kernel_of: Kernel) -> None:
    kernel_of.cost = 0.3
    kernel_of.source.watch(views(A))
    kernel_of.read()
    kernel_of.read()
    assert kernel_of.cleared == [101]
    kernel_of.now += 30
    kernel_of.read()
    assert kernel_of.cleared == [101, 101]


def test_many_processes_are_looked_at_in_several_readings(kernel_of: Kernel) -> None:
    kernel_of.cost = 1.0
    kernel_of.source.watch(views(A, B))
    kernel_of.read()
    assert kernel_of.cleared == [101]
    kernel_of.source.read()
    assert kernel_of.cleared == [101, 102]


def test_a_process_that_is_another_one_by_now_is_not_touched(kernel_of: Kernel) -> None:
    kernel_of.source.watch(views(ProcessId(101, 8), ProcessId(999, 1), B))
    kernel_of.read()
    assert kernel_of.cleared == [102]


def test_a_process_that_comes_back_into_the_selection_begins_anew(kernel_of: Kernel) -> None:
    kernel_of.source.watch(views(A))
    kernel_of.read()
    kernel_of.source.watch(views())
    kernel_of.mark(101, 0x11)
    kernel_of.source.watch(views(A))
    assert kernel_of.read() == []


@pytest.mark.parametrize(
    ("effective", "words"), [("0000000000880004", "CAP_DAC_OVERRIDE"), ("x", "cannot be read")]
)
def test_without_the_capability_it_is_named_with_what_would_help(
    tmp_path: Path, effective: str, words: str
) -> None:
    status = Root(tmp_path).proc / "self/status"
    status.parent.mkdir(parents=True)
    status.write_text(f"Name:\tx\nCapEff:\t{effective}\n")
    with pytest.raises(UnsupportedError, match=words):
        find_soft_dirty(Root(tmp_path))
    status.write_text("CapEff:\t0000000000880006\n")
    find_soft_dirty(Root(tmp_path))


def test_on_this_process() -> None:
    """A kernel without CONFIG_MEM_SOFT_DIRTY has clear_refs as well, and fails the self-test."""
    source = SoftDirty(Root())
    try:
        source.start()
    except OSError:
        pytest.skip("clear_refs of this process is not ours to write")
    trouble = see_touch(source.read, FreshPages())
    assert trouble == "" or "delivered nothing" in trouble
