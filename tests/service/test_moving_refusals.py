"""What the kernel or an owner refuses to move is left alone, for ever longer, and said once."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from tests.kernel.fixtures import fail_reading
from tests.kernel.fixtures.moving import install_moves
from tests.kernel.fixtures.simulated import (
    CGROUP,
    DRAM,
    PID,
    SLOW,
    SimulatedKernel,
    simulate,
)
from tests.service.moving_round import Round, movable
from tierd.core.budget import LARGEST_BATCH
from tierd.kernel import mover
from tierd.service.moving import SHARED_SECONDS, SLICE


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedKernel:
    return simulate(tmp_path, monkeypatch)


def test_pages_that_several_processes_map_are_tried_seldom(
    fake: SimulatedKernel, caplog: pytest.LogCaptureFixture
) -> None:
    """PostgreSQL's buffers: hot, refused, and hot again in the next round."""
    caplog.set_level("DEBUG")
    fake.place(2048)
    shared = fake.hot[512:1024]
    fake.stays = dict.fromkeys(shared, errno.EACCES)
    this = Round(fake)
    this.rounds(600)
    assert this.executor is not None and this.executor.sharing == {CGROUP}
    assert all(fake.where[page] == DRAM for page in fake.hot if page not in fake.stays)
    assert fake.tried.count(shared[0]) <= 9, "at 0, 4, 12, 28, ... seconds"
    named = [record for record in caplog.records if "several processes" in record.getMessage()]
    assert [record.levelname for record in named].count("INFO") == 1
    assert f"process {PID} (workload)" in named[0].getMessage() and hex(shared[0])[2:] not in caplog.text


def test_memory_that_is_shared_no_longer_moves(fake: SimulatedKernel) -> None:
    fake.place(512)
    fake.stays = dict.fromkeys(fake.hot, errno.EACCES)
    this = Round(fake)
    this.rounds(20)
    fake.stays.clear()
    this.rounds(20)
    assert all(node == DRAM for node in fake.where.values())
    fake.now += SHARED_SECONDS
    assert this.executor is not None and not this.executor.sharing
    fake.where.update(dict.fromkeys(fake.hot, SLOW))
    fake.stays = {page: errno.EACCES for page in fake.hot[:1]}
    this.rounds(1)
    fake.where.update(dict.fromkeys(fake.hot, SLOW))
    fake.stays = dict.fromkeys(fake.hot, errno.EACCES)
    fake.tried.clear()
    this.rounds(6)
    assert fake.tried.count(fake.hot[0]) == 2, "the wait begins anew"


def test_one_busy_page_does_not_hold_up_its_neighbours(fake: SimulatedKernel) -> None:
    fake.place(512)
    fake.stays = {fake.hot[7]: errno.EBUSY}
    this = Round(fake)
    this.rounds(1)
    fake.place(400, SLOW)
    fake.stays.clear()
    this.rounds(1)
    assert all(node == DRAM for node in fake.where.values())


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_a_process_that_may_not_use_the_node_is_left_alone(fake: SimulatedKernel, code: int) -> None:
    """A cpuset without DRAM fails the whole call, for any page."""
    fake.place(20_000)
    fake.forbids = code
    this = Round(fake)
    this.rounds(3)
    assert len(fake.tried) <= SLICE * 2, "one call, and then none for some seconds"
    assert this.executor is not None and not this.executor.sharing
    fake.forbids = 0
    this.rounds(10)
    assert all(node == DRAM for node in fake.where.values())


def test_a_full_node_is_nobody_s_fault(fake: SimulatedKernel) -> None:
    fake.place(512)
    fake.forbids = errno.ENOMEM
    this = Round(fake)
    this.rounds(2)
    fake.forbids = 0
    this.rounds(1)
    assert all(node == DRAM for node in fake.where.values())


@pytest.mark.parametrize("pages", [SLICE, 9 * SLICE])
def test_after_enomem_a_node_is_asked_no_more_in_that_round(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    """The call that finds no memory is the one that stalls the machine."""
    fake.machine.add_process(PID + 1, CGROUP)
    fake.place(pages)
    calls: list[int] = []

    def move(pid: int, addresses: np.ndarray, node: int) -> tuple[int, np.ndarray]:
        calls.append(pid)
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    def query(pid: int, addresses: np.ndarray) -> np.ndarray:
        return np.full(len(addresses), SLOW, dtype=np.int32)

    install_moves(monkeypatch, move)
    monkeypatch.setattr(mover, "query_nodes", query)
    this = Round(fake)
    hot = this.hot()
    hot.slot[::2] = 2
    for count in (1, 2, 3):
        moved = this.run(pages, hot=hot)
        assert len(calls) == count
    assert moved.promoted.refused <= LARGEST_BATCH


def test_a_huge_page_without_room_in_one_piece_waits_longer_each_time(fake: SimulatedKernel) -> None:
    """2 MiB in one piece may be lacking for hours, and looking for it compacts memory."""
    fake.place(4 * 512)
    fake.make_huge()
    fake.stays = dict.fromkeys(fake.hot, errno.ENOMEM)
    this = Round(fake)
    this.rounds(60)
    tries = len(fake.tried)
    assert 4 <= tries <= 4 * 5, "after 4, 8, 16, 32 seconds"
    fake.stays.clear()
    this.rounds(60)
    assert all(node == DRAM for node in fake.where.values())


SMAPS = """\
{first:x}-{last:x} rw-p 00000000 00:00 0
Size:               2048 kB
Locked:             2048 kB
VmFlags: rd wr mr mw me lo ac sd
"""


def test_what_its_owner_has_locked_is_not_planned(fake: SimulatedKernel) -> None:
    fake.place(1024)
    smaps = SMAPS.format(first=fake.hot[512] << 12, last=(fake.hot[1023] + 1) << 12)
    fake.machine.put(f"proc/{PID}/smaps", smaps)
    status = fake.machine.put(f"proc/{PID}/status", "VmLck:\t    2048 kB\n")
    this = Round(fake)
    this.rounds(30)
    assert {page for page, node in fake.where.items() if node == SLOW} == set(fake.hot[512:])
    status.write_text("VmLck:\t       0 kB\n")
    this.rounds(30)
    assert all(node == DRAM for node in fake.where.values())


def test_a_process_that_does_not_say_what_is_locked_is_left_alone(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.place(1024)
    status = fake.machine.put(f"proc/{PID}/status", "VmLck:\t       0 kB\n")
    this = Round(fake)
    with monkeypatch.context() as context:
        fail_reading(context, status, errno.EACCES)
        this.rounds(30)
    assert not fake.tried
    this.rounds(30)
    assert all(node == DRAM for node in fake.where.values())


def test_what_is_left_alone_is_not_planned(fake: SimulatedKernel) -> None:
    fake.place(1024)
    fake.stays = dict.fromkeys(fake.hot[:512], errno.EBUSY)
    this = Round(fake)
    this.run(1024)
    assert this.executor is not None
    assert set(movable(this.executor, this.hot()).page.tolist()) == set(fake.hot[512:])
