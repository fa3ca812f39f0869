"""Which pages of a class are looked up: what it is owed, and what has to go down whatever its use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.kernel.fixtures import MIB
from tests.service.test_class_shares import NOTHING, Bench
from tierd.core.heat import HotPages
from tierd.core.holdings import Spare
from tierd.core.model import PAGE_SIZE, Node, ProcessId
from tierd.errors import GoneError
from tierd.kernel.paths import Root
from tierd.kernel.residence import Resident
from tierd.kernel.topology import read_topology
from tierd.service import class_pages
from tierd.service.class_pages import MOST_FOUND, ClassPages, Movable, nearest_with_room
from tierd.service.class_shares import PATIENCE


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def pages(bench: Bench) -> ClassPages:
    return ClassPages(bench.machine.root, bench.placed, lambda: bench.now)


def anything(slots: object, pages: np.ndarray) -> np.ndarray:
    return np.ones(len(pages), dtype=np.bool_)


Finder = Callable[..., Resident]


def finding(pages: dict[int, list[int]], asked: list[tuple[int, int, int]], node: int = 1) -> Finder:
    """In the place of pages_on: these pages of each process lie on the node."""

    def find(
        root: Root, process: ProcessId, nodes: set[int], *, first: int, most: int, seconds: float
    ) -> Resident:
        assert nodes == {node}
        asked.append((process.pid, first, most))
        if process.pid not in pages:
            raise GoneError("it ended")
        left = [page for page in pages[process.pid] if page >= first]
        return Resident(np.array(left[:most], dtype=np.uint64), left[most] if len(left) > most else 0)

    return find


def test_what_is_owed_is_looked_up_for_those_who_lack_it_alone(
    bench: Bench, pages: ClassPages, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(
        class_pages, "pages_on", finding({1: list(range(10, 30)), 2: list(range(500, 20_000))}, asked)
    )
    gold, silver = bench.slot(1), bench.slot(2)
    hot = HotPages(
        np.array([silver, gold]), np.array([500, 11], np.uint64), np.array([9.0, 3.0]), np.zeros(2, np.int16)
    )
    found = pages.with_owed(bench.shares.sharing, hot, [1], lambda slots, numbers: numbers != 12)
    assert [pid for pid, _, _ in asked] == [1, 2]
    assert asked[0][2] == 10 * MIB // PAGE_SIZE and asked[1][2] == 20 * MIB // PAGE_SIZE
    assert found.page[:2].tolist() == [500, 11] and found.rate[:3].tolist() == [9.0, 3.0, 0.0]
    of_gold = found.page[(found.slot == gold) & (found.rate == 0)]
    assert of_gold.tolist() == [page for page in range(10, 30) if page not in (11, 12)]
    assert len(found) == 2 + 18 + 20 * MIB // PAGE_SIZE - 1
    pages.with_owed(bench.shares.sharing, hot, [1], anything)
    assert asked[3] == (2, 500 + 20 * MIB // PAGE_SIZE, 20 * MIB // PAGE_SIZE), "it goes on where it was"


def test_a_round_looks_up_so_many_and_no_more(
    bench: Bench, pages: ClassPages, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.hold(2, "/silver", 0, total=800)
    bench.look()
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(class_pages, "pages_on", finding({2: list(range(1 << 17))}, asked))
    assert len(pages.with_owed(bench.shares.sharing, NOTHING, [1], anything)) == MOST_FOUND
    assert asked[0][0] == 1, "and one that ended is passed over"


def late(bench: Bench) -> None:
    """What is off is so for long."""
    bench.now += PATIENCE
    bench.look()


def spare(bench: Bench, pages: ClassPages, movable: Movable = anything) -> Spare:
    return pages.spare(bench.shares.sharing, read_topology(bench.machine.root), 0, movable)


def test_what_may_have_to_go_is_looked_up_where_it_is_too_much_for_long(
    bench: Bench, pages: ClassPages, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []
    too_much = 40 * MIB // PAGE_SIZE
    monkeypatch.setattr(class_pages, "pages_on", finding({3: list(range(100, 20_000))}, asked, node=0))
    assert not len(spare(bench, pages)) and not asked
    late(bench)
    found = spare(bench, pages, lambda slots, numbers: numbers != 101)
    assert asked == [(3, 0, too_much)], "bronze alone: there is room for what others are owed"
    assert set(found.slot.tolist()) == {bench.slot(3)} and len(found) == too_much - 1
    assert set(found.dram.tolist()) == {0} and set(found.slow.tolist()) == {1}
    spare(bench, pages)
    assert asked[1] == (3, 100 + too_much, too_much), "it goes on where it was"


def test_more_than_is_wanted_is_kept_for_the_next_time(
    bench: Bench, pages: ClassPages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def much(root: Root, process: ProcessId, nodes: set[int], *, first: int, **most: object) -> Resident:
        return Resident(np.arange(first, first + 30_000, dtype=np.uint64), first + 32_768)

    monkeypatch.setattr(class_pages, "pages_on", much)
    late(bench)
    first, second = spare(bench, pages), spare(bench, pages)
    assert first.page[-1] + 1 == second.page[0]


def test_nothing_is_looked_up_where_the_cpuset_has_no_slow_node_or_that_is_full(
    bench: Bench, pages: ClassPages, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(class_pages, "pages_on", finding({3: list(range(100))}, asked, node=0))
    late(bench)
    monkeypatch.setattr(bench.placed, "barred", lambda nodes: {1: frozenset({bench.slot(3)})})
    assert not len(spare(bench, pages)) and not asked
    monkeypatch.undo()
    monkeypatch.setattr(class_pages, "pages_on", finding({3: list(range(100))}, asked, node=0))
    assert len(spare(bench, pages)) == 100
    bench.machine.nodes[1] = (4096 * MIB, 0)
    bench.machine.write()
    assert not len(spare(bench, pages))


def test_where_nothing_may_be_moved_there_is_no_hurry(
    bench: Bench, pages: ClassPages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(slots: object, numbers: np.ndarray) -> np.ndarray:
        return np.zeros(len(numbers), dtype=np.bool_)

    def round_with(movable: Movable) -> bool:
        pages.with_owed(bench.shares.sharing, NOTHING, [1], movable)
        spare(bench, pages, movable)
        return pages.hopeless

    monkeypatch.setattr(class_pages, "pages_on", lambda *_, **__: Resident(np.arange(9, dtype=np.uint64)))
    assert not round_with(anything) and round_with(nothing)
    late(bench)
    assert not round_with(anything) and round_with(nothing)
    for pid, cgroup, dram in ((1, "/gold.slice/a", 100), (2, "/silver", 30), (3, "/x", 10)):
        bench.hold(pid, cgroup, dram, command=b"bronze" if pid == 3 else b"work")
    bench.look()
    assert not round_with(nothing), "there was nothing to look for"


def test_a_process_that_ends_is_passed_over(
    bench: Bench, pages: ClassPages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(class_pages, "pages_on", finding({}, [], node=0))
    late(bench)
    assert not len(spare(bench, pages))


def test_pages_go_down_to_the_nearest_node_with_room() -> None:
    node = Node(0, 1 << 30, 0, 0, True, False, distances=((0, 10), (1, 21), (2, 17), (3, 17)))
    far, near, emptier = (replace(node, number=number, free=number << 28) for number in (1, 2, 3))
    assert nearest_with_room(node, (far, near, emptier)) == emptier
    assert nearest_with_room(node, (far, near)) == near
    assert nearest_with_room(node, (far, replace(near, free=0))) == far
    assert nearest_with_room(node, (replace(far, free=1),)) is None
    assert nearest_with_room(node, (replace(far, number=9), near)) == near, "unknown is far"
