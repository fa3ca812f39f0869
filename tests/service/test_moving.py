"""Carrying a plan out on a simulated kernel: slice by slice, above the floor, everything counted."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.kernel.fixtures import MIB
from tests.kernel.fixtures.moving import install_moves
from tests.kernel.fixtures.simulated import (
    CGROUP,
    DRAM,
    MEMCG,
    OTHER,
    PID,
    SLOW,
    START,
    SimulatedKernel,
    simulate,
)
from tests.service.moving_round import Round
from tierd.core.planner import ColdStock, Demotion, Plan, Promotion, floor_bytes
from tierd.core.policy import ProcessSelection
from tierd.kernel import mover
from tierd.kernel.topology import read_topology
from tierd.service import moving
from tierd.service.moving import SLICE, Moved


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedKernel:
    return simulate(tmp_path, monkeypatch)


def test_into_free_room(fake: SimulatedKernel) -> None:
    fake.place(5000)
    moved = Round(fake).run(5000)
    assert (moved.promoted.moved, moved.demoted, fake.commands) == (5000, 0, [])


def test_pages_are_forgotten_before_they_move(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The faults of those who wait for a moving page are read between two batches."""
    fake.place(1000)
    this = Round(fake)
    hot = this.hot()
    for time in (1.0, 1.1):
        this.heat.observe(hot.slot, hot.page, np.full(1000, time), hot.near)
    known: list[int] = []

    def move(pid: int, addresses: np.ndarray, node: int) -> tuple[int, np.ndarray]:
        candidates = this.heat.hottest(1.2, 0.1, 5000).page
        known.append(int(np.isin(addresses >> np.uint64(12), candidates).sum()))
        return fake.move_pages(pid, addresses, node)

    install_moves(monkeypatch, move)
    assert len(this.heat.hottest(1.2, 0.1, 5000)) == 1000
    this.run(1000)
    assert known and not any(known)


def test_an_empty_plan_does_nothing(fake: SimulatedKernel) -> None:
    assert Round(fake).run(0) == Moved()
    assert not fake.commands and not fake.moves


def test_only_what_the_plan_says_goes_up_and_the_hottest_first(fake: SimulatedKernel) -> None:
    fake.place(3000)
    Round(fake).run(1000)
    assert {page for page, node in fake.where.items() if node == DRAM} == set(fake.hot[:1000])


@pytest.mark.parametrize("count", [100, SLICE, 3 * SLICE + 17])
def test_room_is_made_first_and_the_floor_is_kept(fake: SimulatedKernel, count: int) -> None:
    fake.place(count)
    fake.stock(CGROUP, 5 * SLICE)
    this = Round(fake)
    this.room(0)
    moved = this.run(count, count)
    slices = -(-count // SLICE)
    assert moved.promoted.moved > count - 64 * slices, "all but less than one smallest batch of each slice"
    assert fake.demoted <= count + SLICE
    assert fake.least_free >= this.floor_bytes
    assert fake.machine.nodes[DRAM][1] >= this.floor_bytes


def test_the_floor_of_the_policy_counts_as_well(fake: SimulatedKernel) -> None:
    fake.place(1000)
    this = Round(fake, floor=50 * MIB)
    this.room(300)
    moved = this.run(1000)
    assert 0 < moved.promoted.moved <= 300 and fake.least_free >= this.floor_bytes


def test_no_slice_of_demotion_is_larger_than_a_slice(fake: SimulatedKernel) -> None:
    fake.place(10_000)
    fake.stock(CGROUP, 20_000)
    this = Round(fake)
    this.room(0)
    this.run(10_000, 10_000)
    assert max(int(command.split()[-1]) for command in fake.demotions) <= SLICE
    assert this.between >= len(fake.demotions), "the rings are read in between"


def test_no_demotion_when_room_turned_up_meanwhile(fake: SimulatedKernel) -> None:
    fake.place(1000)
    fake.stock(CGROUP, 20_000)
    assert Round(fake).run(1000, 1000).demoted == 0


def test_no_more_is_demoted_than_planned(fake: SimulatedKernel) -> None:
    """Even if it brings no room: somebody else may be filling the node."""
    fake.place(1000)
    fake.stock(CGROUP, 20_000)
    this = Round(fake)
    this.room(-10_000)
    moved = this.run(1000, 700, 300)
    assert (moved.demoted, moved.promoted.moved, moved.promoted.deferred) == (1000, 0, 1000)


def test_each_socket_gets_its_share_in_turn_above_its_own_floor(fake: SimulatedKernel) -> None:
    fake.place(4 * SLICE)
    fake.add_socket(0)
    this = Round(fake)
    dram = read_topology(fake.machine.root).dram
    floors = {node.number: floor_bytes(node, 0) for node in dram}
    assert floors[DRAM] != floors[OTHER]
    for node, cgroup in ((DRAM, CGROUP), (OTHER, "/other")):
        fake.machine.write_free(node, floors[node])
        fake.stock(cgroup, 5 * SLICE, memcg=MEMCG + node, node=node)
    which = np.arange(4 * SLICE)
    plan = Plan(
        tuple(
            Demotion(ColdStock(cgroup, MEMCG + node, node, 40, 10.0, 1 << 20, 0.1), 2 * SLICE, "cold")
            for node, cgroup in ((DRAM, CGROUP), (OTHER, "/other"))
        ),
        (
            Promotion(DRAM, which[::2], "near"),
            Promotion(OTHER, which[1 : 2 * SLICE : 2], "near"),
            Promotion(OTHER, which[2 * SLICE + 1 :: 2], "far"),
        ),
        promote=4 * SLICE,
    )
    moved = this.carry_out(plan)
    assert moved.promoted.moved > 4 * SLICE - 4 * 64 and moved.demoted == 4 * SLICE
    for node, first in ((DRAM, 0), (OTHER, 1)):
        there = {page for page, where in fake.where.items() if where == node}
        assert there <= set(fake.hot[first::2]) and set(moved.arrived[1, node].tolist()) == there
        assert fake.machine.nodes[node][1] >= floors[node]
    turns = [command.split()[1] for command in fake.demotions]
    assert turns == [str(MEMCG + DRAM), str(MEMCG + OTHER)] * 2, "none waits for all of the other"


def test_what_one_socket_has_no_room_for_is_deferred(fake: SimulatedKernel) -> None:
    fake.place(1000)
    fake.add_socket(0)
    which = np.arange(1000)
    plan = Plan((), (Promotion(DRAM, which[:400], "near"), Promotion(OTHER, which[400:], "near")), 1000)
    moved = Round(fake).carry_out(plan)
    assert (moved.promoted.moved, moved.promoted.deferred) == (400, 600)
    assert fake.least_free >= 0 and set(moved.arrived) == {(1, DRAM), (1, OTHER)}


def test_the_pages_of_many_processes_go_up_process_by_process(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call of move_pages has every CPU empty its vectors of pages, so that on a large server a call for
    each process and slice is what takes the time: here 32 processes, whose pages are alike, and 4 slices."""
    processes, each = 32, 1024
    for number in range(1, processes):
        fake.machine.add_process(PID + number, CGROUP, start=START)
    fake.place(processes * each)
    calls: list[tuple[int, int]] = []

    def move(pid: int, addresses: np.ndarray, node: int) -> tuple[int, np.ndarray]:
        calls.append((pid, len(addresses)))
        return fake.move_pages(PID, addresses, node)

    install_moves(monkeypatch, move)
    monkeypatch.setattr(mover, "query_nodes", lambda pid, addresses: fake.query_nodes(PID, addresses))
    looks: list[str] = []
    monkeypatch.setattr(moving, "read_occupancy", lambda root, cgroup, names: looks.append(cgroup) or {})
    this = Round(fake)
    hot = this.hot()
    slots = np.arange(len(hot), dtype=np.int64) * 7 % processes
    this.placed.refresh(ProcessSelection(), 64 * MIB)
    moved = this.run(len(hot), hot=replace(hot, slot=1 + slots))
    assert moved.promoted.moved == processes * each
    assert len({pid for pid, _ in calls}) == processes
    assert len(calls) < 3 * processes, "and not one for each process in each slice"
    first = calls[0][0]
    assert {pid for pid, _ in calls[:2]} == {first}, "the process of the hottest page comes first"
    assert first == this.placed.by_slot(1 + int(slots[0])).id.pid
    assert len(looks) == 1, "what a cgroup holds is asked once a round"


def test_a_plan_of_demotions_only(fake: SimulatedKernel) -> None:
    """Below the floor with a small budget: room comes before anything else."""
    fake.stock(CGROUP, 20_000)
    this = Round(fake)
    this.room(-5000)
    assert this.run(0, 3000).demoted == 3000


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EEXIST, errno.ENOENT])
def test_a_cgroup_that_is_gone_stops_nothing(fake: SimulatedKernel, code: int) -> None:
    fake.place(500)
    fake.refuses = code
    this = Round(fake)
    this.room(200)
    moved = this.run(500, 100, 200)
    assert len(fake.demotions) == 2, "each is tried once"
    assert 0 < moved.promoted.moved <= 200


def test_a_process_that_is_no_longer_placed(fake: SimulatedKernel) -> None:
    fake.place(500)
    this = Round(fake)
    moved = this.run(500, hot=this.hot(slot=77))
    assert moved.promoted.deferred == 500 and not fake.moves


def test_a_process_that_was_replaced(fake: SimulatedKernel) -> None:
    fake.place(500)
    this = Round(fake)
    fake.machine.add_process(PID, CGROUP, start=START + 1)
    assert this.run(500).promoted.deferred == 500 and not fake.moves


def test_no_time_no_moves(fake: SimulatedKernel) -> None:
    fake.place(500)
    fake.stock(CGROUP, 20_000)
    moved = Round(fake).run(500, 500, seconds=0.0)
    assert moved.promoted.deferred == 500 and not fake.moves and not fake.demotions


def test_promoted_pages_are_not_hot_candidates_any_more(fake: SimulatedKernel) -> None:
    fake.place(200)
    this = Round(fake)
    hot = this.hot()
    for time in (1.0, 1.2, 1.4, 1.6):
        this.heat.observe(hot.slot, hot.page, np.full(200, time), hot.near)
    assert len(this.heat.hottest(1.7, 0.1, 1000)) == 200
    this.run(150)
    assert set(this.heat.hottest(1.7, 0.1, 1000).page.tolist()) == set(fake.hot[150:])


def test_what_kswapd_demotes_is_not_counted(fake: SimulatedKernel) -> None:
    fake.place(100)
    fake.machine.vmstat["pgdemote_kswapd"] = 999_999
    fake.machine.write_vmstat()
    assert Round(fake).run(100).demoted == 0


def test_a_huge_page_moves_whole_and_is_counted_whole(fake: SimulatedKernel) -> None:
    assert 0x7F0000000 % 512 == 0
    fake.place(2048)
    fake.make_huge()
    this = Round(fake)
    moved = this.run(3, hot=this.hot().only(np.isin(np.arange(2048), [3, 5, 600])))
    assert (moved.promoted.moved, moved.promoted.along, moved.pages) == (3, 1021, 1024)
    assert len(fake.tried) == 2, "one address for each huge page"


def test_room_made_outside_a_plan(fake: SimulatedKernel) -> None:
    fake.stock(CGROUP, 20_000)
    this = Round(fake)
    this.run(0)
    assert this.executor is not None
    assert this.executor.make_room(ColdStock(CGROUP, MEMCG, DRAM, 40, 10.0, 1 << 20, 0.1), 700) == 700
    fake.refuses = errno.EINVAL
    assert this.executor.make_room(ColdStock(CGROUP, MEMCG, DRAM, 40, 10.0, 1 << 20, 0.1), 700) == 0


def test_what_is_in_dram_already_is_not_planned(fake: SimulatedKernel) -> None:
    """New memory faults as well, wherever it lies."""
    fake.place(1000)
    this = Round(fake)
    this.run(0)
    assert this.executor is not None
    for page in fake.hot[:300]:
        fake.where[page] = DRAM
    left = this.executor.on_slow(this.hot(), this.heat, {SLOW}, 500)
    assert left.page.tolist() == fake.hot[300:], "and what is further behind is not looked at"
    assert len(this.executor.on_slow(this.hot(), this.heat, {SLOW}, 200)) == 800
