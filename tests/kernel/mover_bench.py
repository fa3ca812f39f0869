"""A mover on a kernel made of a dict, for the tests of what it does."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.kernel.fixtures import MIB, Machine
from tests.kernel.fixtures.moving import install_moves
from tierd.core.model import PAGE_SIZE, ProcessId
from tierd.core.outcome import Outcome
from tierd.kernel import mover as module
from tierd.kernel.mover import Mover
from tierd.kernel.page_calls import STATUS_UNKNOWN

PID, START = 100, 5000
PROCESS = ProcessId(PID, START)
DRAM, SLOW = 0, 1
FLOOR = 32 * MIB
FATAL = (errno.ENOMEM, errno.EACCES, errno.ENODEV, errno.EPERM, errno.ESRCH)
"""After one of these the next call would say the same."""


class Kernel:
    """Pages by address: their node, or a negative errno. A move takes free memory from the node."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.where: dict[int, int] = {}
        self.stays: dict[int, int] = {}  # address: the status that a move of it gets
        self.moves: list[list[int]] = []  # the addresses of each call
        self.queries = 0
        self.least_free = 1 << 62
        self.move_error: Callable[[int], int] = lambda call: 0
        self.query_error: Callable[[int], int] = lambda call: 0
        self.ends_early: Callable[[int], int] = lambda call: 0  # pages left undone, and no status written
        self.changes_node = True

    def place(self, count: int, node: int = SLOW) -> np.ndarray:
        pages = np.arange(0x7F0000000, 0x7F0000000 + count, dtype=np.uint64)
        self.where.update({int(page) << 12: node for page in pages})
        return pages

    def query_nodes(self, pid: int, addresses: np.ndarray) -> np.ndarray:
        assert pid == PID
        self.queries += 1
        if code := self.query_error(self.queries):
            raise OSError(code, "query")
        return np.array([self.where.get(int(a), -errno.ENOENT) for a in addresses], dtype=np.int32)

    def move_pages(self, pid: int, addresses: np.ndarray, node: int) -> tuple[int, np.ndarray]:
        assert pid == PID
        self.moves.append(addresses.tolist())
        if code := self.move_error(len(self.moves)):
            raise OSError(code, "move")
        left = self.ends_early(len(self.moves))
        status = np.full(len(addresses), STATUS_UNKNOWN if left else node, dtype=np.int32)
        total, free = self.machine.nodes[node]
        for place, address in enumerate(addresses.tolist()[: len(addresses) - left]):
            if address in self.stays:
                status[place] = self.stays[address]
            else:
                self.where[address] = node
                free -= PAGE_SIZE
        if self.changes_node:
            self.machine.write_free(node, free)
        self.least_free = min(self.least_free, free)
        return left, status


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path).write()
    made.add_process(PID, "/db", start=START)
    return made


@pytest.fixture
def fake(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return install(Kernel(machine), monkeypatch)


def install(made: Kernel, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    monkeypatch.setattr(module, "query_nodes", made.query_nodes)
    install_moves(monkeypatch, made.move_pages)
    return made


def promote(
    fake: Kernel, pages: np.ndarray, floor: int = FLOOR, *, huge: bool = False
) -> tuple[Outcome, np.ndarray]:
    done = Mover(fake.machine.root).promote(PROCESS, pages, DRAM, floor, huge=huge)
    outcome, there = done.outcome, done.there
    assert outcome.planned == len(pages) == len(there), "every page has one fate"
    assert there.sum() == outcome.moved + outcome.already_there
    assert done.refused.sum() == outcome.refused and not (there & done.refused).any()
    now = np.array([fake.where.get(int(page) << 12, -1) == DRAM for page in pages], dtype=bool)
    assert not (there & ~now).any(), "only confirmed moves count"
    return outcome, there
