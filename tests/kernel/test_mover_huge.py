"""Moving huge pages: whole, by one address each, above the floor."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from tests.kernel import mover_bench
from tests.kernel.fixtures import Machine
from tests.kernel.mover_bench import DRAM, FLOOR, SLOW, Kernel, install, promote
from tierd.core.budget import LARGEST_BATCH
from tierd.core.model import PAGE_SIZE
from tierd.errors import DeniedError, GoneError
from tierd.kernel import mover as module

machine = mover_bench.machine
fake = mover_bench.fake


class HugeKernel(Kernel):
    """Some ranges of 2 MiB are huge pages: they move whole, by the first address of them in a call."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine)
        self.huge: set[int] = set()  # numbers of 2 MiB ranges
        self.looked = 0

    def place_huge(self, count: int, node: int = SLOW) -> np.ndarray:
        begin = 0x7F0000000 + len(self.where)
        pages = np.arange(begin, begin + 512 * count, dtype=np.uint64)
        self.where.update({int(page) << 12: node for page in pages})
        self.huge.update((pages >> np.uint64(9)).tolist())
        return pages

    def move_pages(self, pid: int, addresses: np.ndarray, node: int) -> tuple[int, np.ndarray]:
        heads = [a for a in addresses.tolist() if a >> 21 in self.huge]
        assert len({head >> 21 for head in heads}) == len(heads), "one address per huge page"
        result, status = super().move_pages(pid, addresses, node)
        total, free = self.machine.nodes[node]
        for head in heads:
            if self.where[head] == node:
                rest = [(head >> 21 << 21) + 4096 * n for n in range(512)]
                free -= PAGE_SIZE * sum(self.where[a] != node for a in rest)
                self.where.update(dict.fromkeys(rest, node))
        self.machine.write_free(node, free)
        self.least_free = min(self.least_free, free)
        return result, status

    def among(self, pages: np.ndarray) -> np.ndarray:
        self.looked += 1
        return np.isin(pages >> np.uint64(9), np.array(sorted(self.huge), dtype=np.uint64))


@pytest.fixture
def big(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> HugeKernel:
    made = HugeKernel(machine)
    monkeypatch.setattr(module.HugePageFinder, "among", lambda self, process, pages: made.among(pages))
    install(made, monkeypatch)
    return made


def test_a_huge_page_moves_by_one_address(big: HugeKernel) -> None:
    pages = big.place_huge(3)
    outcome, there = promote(big, pages, huge=True)
    assert (outcome.moved, outcome.along, there.all()) == (3 * 512, 0, True)
    assert sum(map(len, big.moves)) == 3 and max(map(len, big.moves)) * 512 <= LARGEST_BATCH


def test_pages_that_come_along_are_counted_and_not_planned(big: HugeKernel) -> None:
    pages = big.place_huge(2)
    outcome, there = promote(big, pages[[5, 700, 7]], huge=True)
    assert (outcome.planned, outcome.moved, outcome.along, outcome.carried) == (3, 3, 1021, 1024)
    assert there.all() and not big.machine.nodes[DRAM][1] % 4096


def test_small_pages_go_before_huge_ones(big: HugeKernel) -> None:
    """It takes 2 MiB of room to bring one page of a huge page."""
    huge, small = big.place_huge(2), big.place_huge(1)
    big.huge -= set((small >> np.uint64(9)).tolist())
    big.machine.write_free(DRAM, FLOOR + 900 * PAGE_SIZE)
    outcome, there = promote(big, np.concatenate([huge[:2], small[:300]]), huge=True)
    assert (outcome.moved, outcome.along, outcome.deferred) == (301, 511, 1) or outcome.moved == 302
    assert there[2:].all() and big.least_free >= FLOOR


@pytest.mark.parametrize("room", [0, 100, 511, 512, 600, 1024, 1500])
def test_the_floor_is_kept_with_huge_pages(big: HugeKernel, room: int) -> None:
    pages = big.place_huge(5)
    big.machine.write_free(DRAM, FLOOR + room * PAGE_SIZE)
    outcome, _ = promote(big, pages[::512], huge=True)
    assert outcome.carried == room // 512 * 512 and outcome.deferred == 5 - room // 512
    assert min(big.least_free, big.machine.nodes[DRAM][1]) >= FLOOR


def test_a_huge_page_that_is_refused(big: HugeKernel) -> None:
    pages = big.place_huge(2)
    big.stays[int(pages[0]) << 12] = -errno.EACCES
    outcome, there = promote(big, pages[[0, 3, 600]], huge=True)
    assert (outcome.moved, outcome.along, outcome.refused) == (1, 511, 2)
    assert outcome.errors == {errno.EACCES: 2}, "the pages of a huge page have one fate"
    assert there.tolist() == [False, False, True]


def test_a_range_taken_for_a_huge_page_that_is_none(
    big: HugeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux 6.1 names mappings only: one page moves, and the others are for the next round."""
    pages = big.place_huge(2)
    big.huge.clear()
    monkeypatch.setattr(
        module.HugePageFinder, "among", lambda self, process, pages: np.ones(len(pages), dtype=bool)
    )
    outcome, there = promote(big, pages[:1000], huge=True)
    assert (outcome.moved, outcome.along, outcome.refused, outcome.deferred) == (2, 0, 0, 998)
    assert there[[0, 512]].all()


def test_a_huge_page_that_is_there_already(big: HugeKernel) -> None:
    pages = big.place_huge(2, DRAM)
    outcome, _ = promote(big, pages[:600], huge=True)
    assert (outcome.already_there, outcome.along) == (600, 0) and not big.moves


@pytest.mark.parametrize("error", [GoneError("exited"), DeniedError("no")])
def test_what_is_not_known_may_be_huge(
    big: HugeKernel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(self: object, process: object, pages: np.ndarray) -> np.ndarray:
        raise error

    monkeypatch.setattr(module.HugePageFinder, "among", fail)
    outcome, there = promote(big, big.place_huge(2)[::100], huge=True)
    assert there.all() and outcome.carried == 1024


def test_nobody_looks_for_huge_pages_where_there_are_none(big: HugeKernel) -> None:
    promote(big, big.place(300))
    assert not big.looked
