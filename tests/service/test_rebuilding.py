"""Huge pages given back on a simulated kernel: what is rebuilt, what is left, and the floor kept."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.kernel.fixtures import MIB
from tests.kernel.fixtures.simulated import (
    CGROUP,
    DRAM,
    FIRST_PAGE,
    MEMCG,
    PID,
    SLOW,
    START,
    GenerationsDoor,
    SimulatedKernel,
    simulate,
)
from tierd.core.model import HUGE_PAGE_SIZE, PAGE_SIZE, ProcessId, TierKind, Topology
from tierd.core.outcome import Outcome
from tierd.core.planner import ColdStock, Plan, floor_bytes
from tierd.core.policy import ProcessSelection
from tierd.core.rebuild import FIRST_LOOK, SETTLED, UNUSED_SECONDS, RangeBook
from tierd.core.table import Keys
from tierd.kernel.topology import read_topology
from tierd.service.moving import Executor, Moved
from tierd.service.placed import PlacedProcesses
from tierd.service.rebuilding import (
    LEAST_AGE,
    LOOKED_AT,
    MOST_LOOKED_AT,
    MOST_REBUILT,
    RELEASE_AFTER,
    Allowance,
    Rebuilder,
    Rebuilt,
)

PROCESS = ProcessId(PID, START)
FIRST = FIRST_PAGE // 512
STOCK = ColdStock(CGROUP, MEMCG, DRAM, 40, 10.0, 1 << 20, 0.1)
CALM = Plan()
SLOW_PAGES = 100_000
NOTHING = np.empty(0, dtype=np.uint64)


class Bench:
    """A rebuilder and what it works on. Ranges are numbered from 0."""

    def __init__(self, fake: SimulatedKernel) -> None:
        self.fake = fake
        self.placed = PlacedProcesses(fake.machine.root)
        self.placed.refresh(ProcessSelection(), 64 * MIB)
        executor = Executor(
            fake.machine.root,
            GenerationsDoor(fake),
            self.placed,
            between=lambda: None,
            clock=fake.clock,
        )
        self.rebuilder = Rebuilder(fake.machine.root, self.placed, executor, fake.clock)
        self.topology = read_topology(fake.machine.root)
        self.slot = self.placed.slot_of(PROCESS)
        self.unmapped = 0
        self.round()

    @property
    def floor(self) -> int:
        return floor_bytes(self.topology.dram[0], 0)

    def split(self, *ranges: int) -> None:
        self.rebuilder.note_split(PROCESS, np.array([FIRST + n for n in ranges], dtype=np.uint64))

    def bring_up(self, *ranges: int, pages: int = 512) -> None:
        """Promote the first `pages` pages of each range, and tell the rebuilder."""
        first = np.array([FIRST_PAGE + 512 * n for n in ranges], dtype=np.uint64)
        arrived = (first[:, None] + np.arange(pages, dtype=np.uint64)).ravel()
        self.fake.where.update(dict.fromkeys(arrived.tolist(), DRAM))
        self.round(Moved(Outcome(moved=len(arrived)), arrived={(self.slot, DRAM): arrived}), seconds=0.0)

    def round(
        self,
        moved: Moved = Moved(),  # noqa: B008
        plan: Plan = CALM,
        *,
        most: int = 1 << 30,
        seconds: float = 30.0,
    ) -> Rebuilt:
        before, self.unmapped = self.unmapped, self.fake.machine.vmstat.get("numa_pte_updates", 0)
        passes = (self.unmapped - before) / SLOW_PAGES
        return self.rebuilder.rebuild(
            plan, moved, (STOCK,), self.topology, Allowance(0, passes, most, seconds)
        )

    def later(self, seconds: float = FIRST_LOOK + 1) -> Rebuilt:
        self.fake.now += seconds
        return self.round()

    @property
    def huge(self) -> list[int]:
        return sorted(number - FIRST for number in self.fake.huge)

    @property
    def kept(self) -> list[int]:
        return [part.start // HUGE_PAGE_SIZE - FIRST for part in self.rebuilder.kept(PROCESS)]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedKernel:
    """Forty ranges of 2 MiB on the slow node."""
    made = simulate(tmp_path, monkeypatch)
    made.place(40 * 512, SLOW)
    made.hot.clear()
    return made


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


def test_no_more_than_a_few_each_round(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(*range(40))
    bench.bring_up(*range(40))
    assert bench.later().huge_pages == MOST_REBUILT
    assert bench.round(most=5 * MIB).huge_pages == 2, "the bandwidth of the round"
    assert bench.round(most=0).huge_pages == bench.round(most=-5 * MIB).huge_pages == 0
    assert bench.round(seconds=0.0).huge_pages == 0, "no time"
    for _ in range(10):
        bench.later()
    assert bench.huge == list(range(40))


def test_the_bandwidth_pays_for_what_is_copied_and_demoted() -> None:
    assert Rebuilt(3, 100).bytes == 3 * HUGE_PAGE_SIZE + 100 * PAGE_SIZE


def test_room_is_made_first_and_the_floor_is_kept(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    fake.stock(CGROUP, 20_000)
    bench.split(*range(10))
    bench.bring_up(*range(10))
    fake.machine.write_free(DRAM, bench.floor)
    fake.least_free = bench.floor
    done = bench.later()
    assert (done.huge_pages, done.demoted) == (10, 1024)
    assert fake.least_free >= bench.floor


def test_without_room_nothing_is_rebuilt(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(0)
    bench.bring_up(0)
    fake.refuses = errno.EINVAL
    fake.machine.write_free(DRAM, bench.floor + HUGE_PAGE_SIZE - PAGE_SIZE)
    assert bench.later() == Rebuilt() and not fake.collapses
    fake.machine.write_free(DRAM, bench.floor + HUGE_PAGE_SIZE)
    assert bench.later().huge_pages == 1, "and tried again when there is room"


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


def test_what_was_asked_for_and_not_demoted_does_not_count(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    fake.where.update({page: DRAM for page in range(FIRST_PAGE, FIRST_PAGE + 3 * 512)})
    bench.split(0, 1, 2)
    bench.bring_up(*range(10, 20))
    fake.now += 20
    bench.round(Moved(demoted=3000, asked={CGROUP: 60_000}), seconds=0.0)
    bench.later()
    assert bench.huge == list(range(10, 20))


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


SHORT = Plan(wanted=50_000, promote=0)


def test_when_dram_is_short_rebuilt_ranges_are_given_back(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(*range(4))
    bench.bring_up(*range(4))
    bench.later()
    assert bench.kept == [0, 1, 2, 3]
    for _ in range(RELEASE_AFTER):
        bench.round(plan=SHORT)
    assert bench.kept, "not yet: they were just made"
    fake.now += LEAST_AGE
    bench.round()
    for _ in range(RELEASE_AFTER - 1):
        bench.round(plan=SHORT)
    assert bench.kept, "not yet: DRAM was not short for long"
    bench.round(plan=SHORT)
    assert not bench.kept


@pytest.mark.parametrize(
    ("plan", "most"), [(SHORT, 0), (Plan(wanted=50_000, promote=8000), 1 << 30), (Plan(wanted=500), 1 << 30)]
)
def test_waiting_for_bandwidth_or_for_little_is_not_being_short(
    fake: SimulatedKernel, plan: Plan, most: int
) -> None:
    bench = Bench(fake)
    bench.split(*range(4))
    bench.bring_up(*range(4))
    bench.later()
    fake.now += LEAST_AGE
    for _ in range(RELEASE_AFTER + 1):
        bench.round(plan=plan, most=most)
    assert bench.kept == [0, 1, 2, 3]


def of_dram(topology: Topology, total: int) -> Topology:
    """The same machine with DRAM of so many bytes."""
    tiers = tuple(
        replace(tier, nodes=tuple(replace(node, total=total) for node in tier.nodes))
        if tier.kind is TierKind.DRAM
        else tier
        for tier in topology.tiers
    )
    return replace(topology, tiers=tiers)


def test_a_large_machine_rebuilds_and_looks_at_more_at_once(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hot ranges of 256 GiB are 130,000: sixteen a round would take hours."""
    bench = Bench(fake)
    bench.topology = of_dram(bench.topology, 256 << 30)
    bench.split(*range(40))
    bench.bring_up(*range(40))
    assert bench.later().huge_pages == 40
    asked: list[int] = []
    monkeypatch.setattr(RangeBook, "due", lambda self, now, most: asked.append(most) or NOTHING)
    bench.later(1.0)
    bench.later(1000.0)
    assert LOOKED_AT < asked[0] < asked[1] <= MOST_LOOKED_AT


def test_on_large_dram_a_part_of_what_is_wanted_shows_that_it_is_short(fake: SimulatedKernel) -> None:
    """A round considers fewer pages than one in a hundred of 256 GiB."""
    bench = Bench(fake)
    bench.topology = of_dram(bench.topology, 256 << 30)
    bench.split(*range(4))
    bench.bring_up(*range(4))
    for _ in range(3):
        bench.round(plan=Plan(wanted=1 << 18, more=True))
    fake.now += FIRST_LOOK + 1
    assert bench.round(plan=Plan(wanted=1 << 18, more=True)).huge_pages == 0
    assert bench.round(plan=Plan(wanted=1 << 18)).huge_pages == 4, "that is all there is"


def test_nothing_is_rebuilt_while_dram_is_short(fake: SimulatedKernel) -> None:
    bench = Bench(fake)
    bench.split(*range(4))
    bench.bring_up(*range(4))
    for _ in range(3):
        bench.round(plan=SHORT)
    fake.now += FIRST_LOOK + 1
    assert bench.round(plan=SHORT).huge_pages == 0
    assert bench.round().huge_pages == 4, "and is when it is over"


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


def test_after_a_rest_it_looks_at_more(fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges are looked at as fast when rounds are rare as when they are not."""
    asked = []
    due = RangeBook.due

    def listen(book: RangeBook, now: float, most: int) -> Keys:
        asked.append(most)
        return due(book, now, most)

    monkeypatch.setattr(RangeBook, "due", listen)
    bench = Bench(fake)
    for seconds in (1.0, 3.0, 30.0):
        bench.later(seconds)
    assert asked[1:] == [LOOKED_AT, 3 * LOOKED_AT, 10 * LOOKED_AT]
