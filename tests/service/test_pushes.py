"""Pages that go down one by one, whatever their use, on a simulated kernel."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from tests.kernel.fixtures.simulated import DRAM, SLOW, SimulatedKernel, simulate
from tests.service.test_moving import Round
from tierd.core.budget import BatchSize
from tierd.core.model import PAGE_SIZE
from tierd.core.plan_text import plan_lines
from tierd.core.planner import Plan, Promotion, Push, slow_floor_bytes
from tierd.core.state import PlanLine
from tierd.kernel.topology import read_topology
from tierd.service.moving import SLICE, Moved

PAGES = 2 * SLICE + 100


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedKernel:
    fake = simulate(tmp_path, monkeypatch)
    fake.place(PAGES, DRAM)
    return fake


def push(fake: SimulatedKernel, first: int = 0, last: int = PAGES) -> Push:
    pages = np.array(fake.hot[first:last], dtype=np.uint64)
    return Push("bronze", 1, pages, DRAM, SLOW, "class bronze has more DRAM than max 10%")


def carry_out(this: Round, plan: Plan) -> Moved:
    this.run(0)
    assert this.executor is not None
    topology = read_topology(this.fake.machine.root)
    return this.executor.execute(plan, this.hot(), this.heat, topology, 0, 30.0)


def on(fake: SimulatedKernel, node: int) -> set[int]:
    return {page for page, where in fake.where.items() if where == node}


def test_all_of_a_push_goes_down_and_is_counted_as_the_process_s(fake: SimulatedKernel) -> None:
    this = Round(fake)
    moved = carry_out(this, Plan(pushes=(push(fake, 50),), demote_pages=PAGES - 50))
    assert on(fake, DRAM) == set(fake.hot[:50])
    assert (dict(moved.pushed), moved.down, moved.pages) == ({1: PAGES - 50},) + (PAGES - 50,) * 2
    assert not fake.demotions and moved.demoted == 0
    assert this.executor is not None
    (told,) = this.executor.told(this.placed.views[0])
    assert told[1] == "50 pages went down whatever their use: class bronze has more DRAM than max 10%"


def test_room_is_made_so_before_anything_comes_up(fake: SimulatedKernel) -> None:
    fake.place(500)
    this = Round(fake)
    this.room(0)
    which = np.arange(PAGES, PAGES + 500)
    plan = Plan((), (Promotion(DRAM, which, "owed"),), 500, pushes=(push(fake, 0, 500),))
    moved = carry_out(this, plan)
    assert moved.promoted.moved == 500 and moved.pushed == {1: 500}
    assert fake.least_free >= this.floor_bytes


def test_the_slow_node_keeps_its_reserve(fake: SimulatedKernel) -> None:
    least = slow_floor_bytes(read_topology(fake.machine.root).slow[0])
    assert least == 9000 * PAGE_SIZE + (32 << 20), "its watermark, at which kswapd rests, and a reserve"
    fake.machine.write_free(SLOW, least + 300 * PAGE_SIZE)
    moved = carry_out(Round(fake), Plan(pushes=(push(fake),)))
    assert 0 < moved.down <= 300
    assert fake.machine.nodes[SLOW][1] >= least


def test_what_is_refused_stays_and_is_left_alone_for_a_while(fake: SimulatedKernel) -> None:
    fake.stays = dict.fromkeys(fake.hot[:512], errno.EBUSY)
    this = Round(fake)
    moved = carry_out(this, Plan(pushes=(push(fake, 0, 1024),)))
    assert moved.down == 512 and on(fake, DRAM) >= set(fake.hot[:512])
    tried = len(fake.tried)
    assert carry_out(this, Plan(pushes=(push(fake, 0, 512),))).down == 0
    assert len(fake.tried) == tried


def test_after_enomem_nothing_more_goes_to_that_node_in_that_round(fake: SimulatedKernel) -> None:
    fake.forbids = errno.ENOMEM
    carry_out(Round(fake), Plan(pushes=(push(fake, 0, SLICE), push(fake, SLICE))))
    assert len(fake.tried) == BatchSize().pages, "one call"


def test_a_huge_page_goes_down_whole(fake: SimulatedKernel) -> None:
    fake.make_huge()
    moved = carry_out(Round(fake), Plan(pushes=(push(fake, 0, 3),)))
    assert moved.down == 512 and on(fake, SLOW) == set(fake.hot[:512])


def test_a_process_that_is_placed_no_more_is_passed_over(fake: SimulatedKernel) -> None:
    gone = Push("bronze", 77, np.array([5, 6], dtype=np.uint64), DRAM, SLOW, "too much")
    assert carry_out(Round(fake), Plan(pushes=(gone, push(fake, 0, 10)))).pushed == {1: 10}


def test_they_are_shown_by_class(fake: SimulatedKernel) -> None:
    lines = plan_lines(Plan(pushes=(push(fake, 0, 10), push(fake, 20, 25))))
    words = "class bronze has more DRAM than max 10%"
    assert lines == (PlanLine("demote", "pages of class bronze", 15, DRAM, SLOW, words),)
