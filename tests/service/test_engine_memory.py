"""The engine and the kinds of memory: near and far DRAM, page cache, shared memory, huge pages, cpusets."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from tests.kernel.fixtures import MIB
from tests.kernel.fixtures.simulated import (
    CGROUP,
    DRAM,
    FIRST_PAGE,
    OTHER,
    SLOW,
    SimulatedKernel,
)
from tests.service import engine_bench
from tests.service.engine_bench import HOT, Bench, with_engine
from tierd.core.model import HUGE_PAGE_SIZE, PAGE_SIZE

fake = engine_bench.fake


@pytest.mark.parametrize(("cpu", "node"), [(0, DRAM), (1, OTHER)])
def test_hot_pages_come_to_the_dram_near_the_cpu_that_uses_them(
    fake: SimulatedKernel, cpu: int, node: int
) -> None:
    """The other one is emptier."""
    fake.add_socket(100 * MIB)
    fake.machine.write_free(OTHER if node == DRAM else DRAM, 500 * MIB)
    fake.machine.write_free(node, 100 * MIB)
    fake.cpu = cpu
    bench = Bench(fake)
    bench.run(10)
    assert sum(fake.where[page] == node for page in fake.hot) > 0.95 * HOT
    assert all(fake.where[page] in (node, SLOW) for page in fake.hot)


def test_a_cpuset_keeps_pages_off_the_other_socket_and_not_off_this_one(fake: SimulatedKernel) -> None:
    """More is hot than finds a place near: the room of the other socket is not for this process, and to try
    it had all its pages left alone for ever longer, those for which room is made near it as well."""
    fake.add_socket(500 * MIB)
    fake.machine.put(f"sys/fs/cgroup{CGROUP}/cpuset.mems.effective", f"{DRAM},{SLOW}\n")
    fake.forbidden = {OTHER}
    fake.stock(CGROUP, 500, 0)
    bench = Bench(fake)
    bench.run(10)
    fake.stock(CGROUP, 10_000, 10_000)
    bench.run(10)
    assert bench.on_dram > 0.95 * HOT
    assert bench.state.counters.refused_pages == 0


def test_page_cache_that_fills_dram_makes_room_for_what_is_hot(fake: SimulatedKernel) -> None:
    """What was read first is in DRAM, what is used is behind it, and nothing else in DRAM is cold. Without
    tierd the kernel would demote it, for it would let DRAM run short."""
    total = fake.machine.nodes[DRAM][0] // PAGE_SIZE
    fake.cgroups.clear()
    fake.stock("/backup", 0, 0, memcg=7)
    fake.cgroups["/backup"].file = {40: total // 8 + 20_000, 41: 100}
    bench = Bench(fake)
    bench.run(30)
    assert bench.on_dram > 0.95 * HOT
    assert fake.least_free >= bench.floor
    assert bench.state.counters.demoted_pages == fake.demoted >= HOT - 512
    left = sum(fake.cgroups["/backup"].file.values())
    fake.place(30_000)
    bench.run(60)
    assert sum(fake.cgroups["/backup"].file.values()) >= total // 8 - 8192, "and not all of it"
    assert left < total // 8 + 20_000


def test_buffers_that_many_processes_map_stay_where_they_are(fake: SimulatedKernel) -> None:
    """Half of what is hot is PostgreSQL's: it cannot come up, so no more of it goes down for the others."""
    where = fake.machine.root.cgroup / CGROUP.lstrip("/") / "memory.numa_stat"
    where.write_text(where.read_text() + f"shmem N0={300 * MIB} N1={300 * MIB}\n")
    fake.stays = dict.fromkeys(fake.hot[: HOT // 2], errno.EACCES)
    bench = Bench(fake)
    bench.run(5)
    demoted = fake.demoted
    fake.place(HOT)
    bench.run(20)
    assert fake.demoted == demoted
    fake.stock("/other", 20_000, memcg=9)
    bench.run(20)
    assert fake.demoted > demoted and bench.on_dram > 0.9 * 1.5 * HOT, "others give"


@pytest.mark.parametrize("large", [True, False])
def test_what_may_not_go_down_or_would_not_come_up_makes_no_room(fake: SimulatedKernel, large: bool) -> None:
    """A cgroup that a cpuset keeps in DRAM, and one of many small processes, are colder than all else."""
    fake.stock("/guaranteed", 50_000, memcg=7, every=1000.0)
    fake.machine.add_process(200, "/guaranteed", resident=256 * MIB if large else 9 * MIB)
    if large:
        fake.machine.put("sys/fs/cgroup/guaranteed/cpuset.mems.effective", f"{DRAM}\n")
    bench = Bench(fake)
    bench.run(30)
    assert bench.on_dram > 0.95 * HOT
    assert not [command for command in fake.commands if command.split()[1] == "7"]


def test_ranges_that_are_hot_throughout_become_huge_pages_again(fake: SimulatedKernel) -> None:
    """3000 hot pages are five whole ranges of 2 MiB and a part of a sixth."""
    bench = Bench(fake)
    first = FIRST_PAGE // 512
    bench.split.which = [first + n for n in range(6)]
    bench.run(60)
    assert bench.state.counters.huge_pages_rebuilt == len(fake.huge) >= 4
    assert bench.split.kept == sorted(fake.huge) and first + 5 not in fake.huge
    assert bench.state.counters.demoted_pages == fake.demoted, "what made room for them as well"
    assert fake.least_free >= bench.floor
    rebuilt = bench.state.counters.huge_pages_rebuilt
    went_down = bench.split.kept[0]
    fake.where.update(dict.fromkeys(range(went_down * 512, went_down * 512 + 512), SLOW))
    fake.huge.discard(went_down)
    bench.run(30)
    assert bench.state.counters.huge_pages_rebuilt == rebuilt + 1, "as a new case"


def test_what_is_rebuilt_counts_against_the_bandwidth(fake: SimulatedKernel) -> None:
    rate = 6 * MIB // 5 * 2
    bench = Bench(fake, with_engine(bandwidth=rate, round=0.2))
    bench.split.which = [FIRST_PAGE // 512 + n for n in range(6)]
    spent = [0]
    for _ in range(90):
        bench.run(1)
        rebuilt = bench.state.counters.huge_pages_rebuilt * HUGE_PAGE_SIZE
        spent.append((fake.promoted + fake.demoted) * PAGE_SIZE + rebuilt)
    assert bench.state.counters.huge_pages_rebuilt >= 4
    each = np.diff(spent)
    assert each.max() <= 2 * rate + HUGE_PAGE_SIZE, "what was saved up, and one too many"


def test_where_huge_pages_are_to_stay_none_is_touched(fake: SimulatedKernel) -> None:
    bench = Bench(fake, with_engine(huge_pages=False))
    bench.run(30)
    assert not bench.split.calls and not fake.collapses


def test_pages_that_several_processes_map_are_not_planned_again_and_again(fake: SimulatedKernel) -> None:
    """Hot for good, and refused for good: it comes to rest, and the other pages come up."""
    shared = fake.hot[:1024]
    fake.stays = dict.fromkeys(shared, errno.EACCES)
    bench = Bench(fake)
    bench.run(120)
    assert bench.on_dram > 0.95 * (HOT - len(shared))
    assert fake.tried.count(shared[0]) <= 8
    assert bench.state.counters.refused_pages <= 8 * len(shared)
    assert bench.state.counters.deferred_pages < HOT, "what is left alone is not in the plan"
