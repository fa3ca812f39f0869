"""Huge pages given back on a simulated kernel: what is rebuilt, what is left, and when."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from tests.kernel.fixtures import MIB
from tests.kernel.fixtures.simulated import (
    CGROUP,
    DRAM,
    FIRST_PAGE,
    PID,
    SLOW,
    START,
    SimulatedKernel,
)
from tests.service import rebuilding_bench
from tests.service.rebuilding_bench import FIRST, PROCESS, SLOW_PAGES, Bench
from tierd.core.policy import ProcessSelection
from tierd.core.rebuild import FIRST_LOOK, SETTLED, UNUSED_SECONDS
from tierd.service.moving import Moved
from tierd.service.rebuilding import Rebuilt

fake = rebuilding_bench.fake


def test_a_range_that_was_brought_up_is_rebuilt_and_kept(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(0, 1, 2)
    bench.bring_up(0, 2)
    bench.bring_up(1, pages=300)
    assert bench.later() == Rebuilt(2, 0)
    assert bench.huge == bench.kept == [0, 2]
    assert bench.later().huge_pages == 0 and len(fake.collapses) == 2, "once"


def test_what_khugepaged_makes_of_ranges_that_belong_together_is_kept(fake: SimulatedKernel) -> None:
    """And only those: 0 was brought up, 1 half of it, 2 not at all, and nobody has split 3."""
    bench = Bench(fake)
    bench.split(0, 1, 2)
    bench.bring_up(0)
    bench.bring_up(1, pages=256)
    made = np.array([FIRST, FIRST + 1, FIRST + 2, FIRST + 3], dtype=np.uint64)
    assert bench.rebuilder.adopt(PROCESS, made).tolist() == [FIRST]
    assert bench.kept == [0] and not fake.collapses
    assert not len(bench.rebuilder.adopt(PROCESS, made[:0]))


def test_what_is_known_of_a_range_outlives_what_khugepaged_made_of_it(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(0)
    bench.bring_up(0)
    bench.split(0)
    bench.later()
    assert bench.huge == [0]


def test_half_hot_ranges_stay_small(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(*range(20))
    bench.bring_up(*range(20), pages=256)
    for _ in range(20):
        bench.later()
    assert not fake.collapses


def test_a_process_that_was_never_split_is_left_alone(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.bring_up(*range(20))
    bench.later()
    assert not fake.collapses


def test_a_range_whose_page_went_down_meanwhile_is_not_rebuilt(fake: SimulatedKernel) -> None:
    """Asked right before: one page of 512, which a sample of them does not show."""
    bench = Bench(fake)
    bench.split(0, 1)
    bench.bring_up(0, 1)
    fake.where[FIRST_PAGE + 5] = SLOW
    assert bench.later().huge_pages == 1 and bench.huge == [1]


def test_a_page_that_is_missing(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(0)
    bench.bring_up(0)
    del fake.where[FIRST_PAGE + 64]
    bench.later()
    assert not fake.collapses


def test_what_others_map_as_well_is_not_copied(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(0, 1)
    bench.bring_up(0, 1)
    fake.shared = {FIRST}
    bench.later()
    assert bench.huge == [1] and fake.collapses == [FIRST + 1]


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOMEM, errno.EBUSY])
def test_what_fails_for_now_is_tried_again(fake: SimulatedKernel, code: int) -> None:
    bench = Bench(fake)
    bench.split(0)
    bench.bring_up(0)
    fake.collapse_error = lambda number: code
    bench.later()
    bench.round()
    assert len(fake.collapses) == 1 and not bench.kept, "not at once"
    fake.collapse_error = lambda number: 0
    assert bench.later(2 * FIRST_LOOK + 1).huge_pages == 1


@pytest.mark.parametrize(("code", "tried"), [(errno.ENOMEM, 1), (errno.EAGAIN, 5), (errno.EINVAL, 5)])
def test_no_2_mib_in_one_piece_for_one_means_none_for_the_next(
    fake: SimulatedKernel, code: int, tried: int
) -> None:
    bench = Bench(fake)
    bench.split(*range(5))
    bench.bring_up(*range(5))
    fake.collapse_error = lambda number: code
    bench.later()
    assert len(fake.collapses) == tried


def test_without_permission_it_is_said_once_and_given_up(
    fake: SimulatedKernel, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(fake)
    bench.split(*range(5))
    bench.bring_up(*range(5))
    fake.collapse_error = lambda number: errno.EPERM
    for _ in range(20):
        bench.later()
    assert len(fake.collapses) == 1
    assert [record.levelname for record in caplog.records].count("WARNING") == 1


def test_a_range_that_stayed_is_rebuilt_where_heat_is_coarse(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    fake.where.update({page: DRAM for page in range(FIRST_PAGE, FIRST_PAGE + 3 * 512)})
    bench.split(0, 1, 2)
    bench.bring_up(*range(10, 20))
    fake.now += 20
    # 100 MiB of the cgroup are in DRAM; the kernel demoted half of what it was asked for
    bench.round(Moved(demoted=3300, asked={CGROUP: 6600}), seconds=0.0)
    assert bench.later().huge_pages == 13 and bench.huge == [0, 1, 2, *range(10, 20)]


def look_past(fake: SimulatedKernel, pages: int) -> None:
    """The kernel has unmapped so many pages of the slow tier."""
    fake.machine.vmstat["numa_pte_updates"] = fake.machine.vmstat.get("numa_pte_updates", 0) + pages
    fake.machine.write_vmstat()


def test_cold_ranges_are_rebuilt_on_the_slow_tier(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(0, 1)
    look_past(fake, SLOW_PAGES)
    bench.later(UNUSED_SECONDS - 60)
    page = np.array([FIRST_PAGE + 7], dtype=np.uint64)
    bench.rebuilder.observe(np.array([bench.slot]), page)
    bench.later(61)
    assert bench.huge == bench.kept == [1]
    bench.rebuilder.observe(np.array([bench.slot]), page + np.uint64(512))
    assert bench.kept, "whoever uses it while it is rebuilt waits for that in a fault"
    fake.now += SETTLED
    bench.rebuilder.observe(np.array([bench.slot]), page + np.uint64(512))
    assert not bench.kept, "in use: page by page again"


def test_nobody_looked_so_nothing_is_cold(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(0, 1)
    look_past(fake, SLOW_PAGES // 2)
    for _ in range(10):
        bench.later(UNUSED_SECONDS)
    assert not fake.collapses


def test_a_process_that_was_replaced(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(0)
    bench.bring_up(0)
    fake.machine.add_process(PID, CGROUP, start=START + 1)
    bench.later()
    assert not fake.collapses


def test_a_process_that_is_gone_is_forgotten(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(0)
    bench.bring_up(0)
    (fake.machine.root.cgroup / CGROUP.lstrip("/") / "cgroup.procs").write_text("")
    bench.placed.refresh(ProcessSelection(), 64 * MIB)
    bench.later(120)
    assert not fake.collapses
    bench.split(0)
    assert not bench.kept, "and is no reason to fail"


def test_a_process_that_ends_in_the_middle(fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    def gone(pid: int) -> int:
        raise ProcessLookupError(errno.ESRCH, "No such process")

    bench = Bench(fake)
    bench.split(0)
    bench.bring_up(0)
    monkeypatch.setattr(os, "pidfd_open", gone)
    assert bench.later() == Rebuilt()


def test_no_descriptor_is_left_open(fake: SimulatedKernel) -> None:
    import os

    bench = Bench(fake)
    before = len(os.listdir("/proc/self/fd"))
    bench.split(*range(40))
    bench.bring_up(*range(40))
    for _ in range(5):
        bench.later()
    assert len(os.listdir("/proc/self/fd")) == before
