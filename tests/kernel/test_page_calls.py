"""move_pages(2) itself, in query mode, on the test's own memory."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest

from tierd.kernel import page_calls
from tierd.kernel.page_calls import MPOL_MF_MOVE, STATUS_UNKNOWN, MoveCall, query_nodes

PAGES = 16


@pytest.fixture
def memory() -> Iterator[tuple[mmap.mmap, np.ndarray]]:
    """A mapping whose even pages were written to, and the addresses of its pages."""
    area = mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area.madvise(mmap.MADV_NOHUGEPAGE)
    for page in range(0, PAGES, 2):
        area[page * mmap.PAGESIZE] = 1
    view = (ctypes.c_char * len(area)).from_buffer(area)
    base = ctypes.addressof(view)
    yield area, np.arange(PAGES, dtype=np.uint64) * np.uint64(mmap.PAGESIZE) + np.uint64(base)
    del view
    area.close()


def test_pages_that_are_there_and_pages_that_were_never_touched(
    memory: tuple[mmap.mmap, np.ndarray],
) -> None:
    _, addresses = memory
    status = query_nodes(os.getpid(), addresses)
    assert status.dtype == np.int32 and len(status) == PAGES
    assert (status[::2] >= 0).all(), "the node of each page"
    assert (status[1::2] == -errno.ENOENT).all()


def test_addresses_in_a_slice_of_a_larger_array(memory: tuple[mmap.mmap, np.ndarray]) -> None:
    """A view with strides must not be read as if it lay together."""
    _, addresses = memory
    assert (query_nodes(os.getpid(), addresses[::2]) >= 0).all()
    assert (query_nodes(os.getpid(), addresses[1::2]) == -errno.ENOENT).all()


def test_no_addresses() -> None:
    assert len(query_nodes(os.getpid(), np.empty(0, dtype=np.uint64))) == 0


def test_what_is_no_memory() -> None:
    status = query_nodes(os.getpid(), np.array([0, 1 << 40], dtype=np.uint64))
    assert set(status.tolist()) <= {-errno.EFAULT, -errno.ENOENT}


def test_a_process_that_is_gone() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(OSError) as caught:
        query_nodes(child.pid, np.array([4096], dtype=np.uint64))
    assert caught.value.errno == errno.ESRCH and "move_pages" in str(caught.value)


class Kernel:
    """Takes the place of the system call and remembers what it was given."""

    def __init__(self, result: int = 0, status: int | None = None) -> None:
        self.result, self.status = result, status

    def __call__(self, name: str, pid: object, count: object, pages: object, nodes, status, flags) -> int:
        self.name, self.pid, self.count, self.flags = name, pid.value, count.value, flags.value
        self.addresses = list((ctypes.c_uint64 * count.value).from_address(pages.value))
        self.nodes = list((ctypes.c_int * count.value).from_address(nodes.value)) if nodes else None
        statuses = (ctypes.c_int * count.value).from_address(status.value)
        self.before = list(statuses)
        if self.status is not None:
            statuses[:] = [self.status] * count.value
        return self.result


def test_moving_asks_for_one_node_and_only_pages_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """MPOL_MF_MOVE_ALL would move what other processes map as well, and is never used."""
    kernel = Kernel(status=1)
    monkeypatch.setattr(page_calls, "call", kernel)
    made = MoveCall(77, np.array([4096, 8192], dtype=np.uint64), 1)
    result, status = made.move(0, 2), made.status
    assert (kernel.name, kernel.pid, kernel.count) == ("move_pages", 77, 2)
    assert (kernel.addresses, kernel.nodes, kernel.flags) == ([4096, 8192], [1, 1], MPOL_MF_MOVE)
    assert MPOL_MF_MOVE == 2
    assert (result, status.tolist()) == (0, [1, 1])


def test_a_call_that_ends_early_leaves_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(result=2)
    monkeypatch.setattr(page_calls, "call", kernel)
    made = MoveCall(77, np.array([4096, 8192], dtype=np.uint64), 1)
    result, status = made.move(0, 2), made.status
    assert (result, status.tolist()) == (2, [STATUS_UNKNOWN] * 2)
    assert STATUS_UNKNOWN < -4095, "no errno and no node"


def test_a_query_names_no_nodes_and_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(status=0)
    monkeypatch.setattr(page_calls, "call", kernel)
    query_nodes(77, np.array([4096], dtype=np.uint64))
    assert kernel.nodes is None and kernel.flags == 0


def test_a_part_is_moved_and_the_others_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(status=1)
    monkeypatch.setattr(page_calls, "call", kernel)
    made = MoveCall(77, np.array([4096, 8192, 12288, 16384], dtype=np.uint64), 1)
    assert made.move(1, 2) == 0
    assert (kernel.addresses, kernel.nodes) == ([8192, 12288], [1, 1])
    assert made.status.tolist() == [STATUS_UNKNOWN, 1, 1, STATUS_UNKNOWN]
