"""Moving against a kernel made of a dict: every page counted once, and the floor kept."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernel.fixtures import MIB, Machine, fail_reading
from tierd.core.budget import LARGEST_BATCH, SMALLEST_BATCH
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
    monkeypatch.setattr(module, "move_pages", made.move_pages)
    return made


def promote(fake: Kernel, pages: np.ndarray, floor: int = FLOOR) -> tuple[Outcome, np.ndarray]:
    outcome, there = Mover(fake.machine.root).promote(PROCESS, pages, DRAM, floor)
    assert outcome.planned == len(pages) == len(there), "every page has one fate"
    assert there.sum() == outcome.moved + outcome.already_there
    now = np.array([fake.where.get(int(page) << 12, -1) == DRAM for page in pages], dtype=bool)
    assert not (there & ~now).any(), "only confirmed moves count"
    return outcome, there


def test_all_goes_well(fake: Kernel) -> None:
    outcome, there = promote(fake, fake.place(5000))
    assert (outcome.moved, outcome.errors, there.all()) == (5000, {}, True)
    assert outcome.seconds >= 0


def test_each_batch_is_announced_before_it_moves(fake: Kernel) -> None:
    announced: list[list[int]] = []

    def announce(pages: np.ndarray) -> None:
        assert len(announced) == len(fake.moves), "before the call, not after"
        announced.append((pages << np.uint64(12)).tolist())

    Mover(fake.machine.root).promote(PROCESS, fake.place(5000), DRAM, FLOOR, announce=announce)
    assert len(announced) > 1 and announced == fake.moves


def test_nothing_to_move(fake: Kernel) -> None:
    outcome, _ = promote(fake, fake.place(0))
    assert outcome == Outcome() and not fake.moves


def test_no_call_takes_more_than_4_mib(fake: Kernel) -> None:
    promote(fake, fake.place(5000))
    assert max(len(call) for call in fake.moves) <= LARGEST_BATCH


def test_each_batch_is_in_order_of_address(fake: Kernel) -> None:
    """The kernel moves runs of one node at once."""
    pages = fake.place(3000)
    promote(fake, np.random.default_rng(1).permutation(pages))
    assert all(call == sorted(call) for call in fake.moves)


def test_the_first_pages_go_first(fake: Kernel) -> None:
    """Pages come in order of preference; when room ends, it is the last that are left."""
    pages = np.random.default_rng(1).permutation(fake.place(5000))
    fake.machine.write_free(DRAM, FLOOR + 2000 * PAGE_SIZE)
    outcome, there = promote(fake, pages)
    assert 0 < outcome.moved <= 2000
    assert there[: outcome.moved].all() and not there[outcome.moved :].any()


def test_pages_already_there_are_not_moved(fake: Kernel) -> None:
    pages = fake.place(600)
    fake.where.update({int(page) << 12: DRAM for page in pages[::3]})
    outcome, there = promote(fake, pages)
    assert (outcome.moved, outcome.already_there, there.all()) == (400, 200, True)
    assert sum(map(len, fake.moves)) == 400


def test_pages_that_are_absent_are_refused_with_their_errno(fake: Kernel) -> None:
    pages = fake.place(300)
    for page in pages[:10]:
        del fake.where[int(page) << 12]
    for page in pages[10:15]:
        fake.where[int(page) << 12] = -errno.EFAULT  # the shared zero page
    outcome, there = promote(fake, pages)
    assert (outcome.moved, outcome.refused) == (285, 15)
    assert outcome.errors == {errno.ENOENT: 10, errno.EFAULT: 5}
    assert not there[:15].any() and there[15:].all()


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EFAULT, errno.EIO, errno.EINVAL, errno.ENOENT])
def test_a_page_that_is_refused(fake: Kernel, code: int) -> None:
    pages = fake.place(300)
    fake.stays[int(pages[7]) << 12] = -code
    outcome, there = promote(fake, pages)
    assert (outcome.moved, outcome.refused, outcome.errors) == (299, 1, {code: 1})
    assert not there[7]


def test_a_page_that_stays_without_a_reason(fake: Kernel) -> None:
    pages = fake.place(300)
    fake.stays[int(pages[7]) << 12] = SLOW
    outcome, _ = promote(fake, pages)
    assert (outcome.moved, outcome.errors) == (299, {0: 1})


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EACCES, errno.ENODEV, errno.EPERM])
def test_a_refused_call_is_not_repeated(fake: Kernel, code: int) -> None:
    fake.move_error = lambda call: code if call >= 2 else 0
    outcome, there = promote(fake, fake.place(5000))
    assert len(fake.moves) == 2, "no storm of calls that must fail"
    assert outcome.moved == len(fake.moves[0]) == there.sum()
    assert (outcome.refused, outcome.errors) == (len(fake.moves[1]), {code: len(fake.moves[1])})
    assert outcome.deferred == 5000 - outcome.moved - outcome.refused


@pytest.mark.parametrize("in_query", [True, False])
def test_every_errno(fake: Kernel, in_query: bool) -> None:
    pages = fake.place(3000)
    for code in sorted(errno.errorcode):
        fake.queries = 0
        if in_query:
            fake.query_error = lambda call, code=code: code
        else:
            fake.move_error = lambda call, code=code: code
        outcome, there = promote(fake, pages)
        assert outcome.moved == outcome.already_there == 0 and not there.any()
        assert fake.queries <= 1 or code not in FATAL, errno.errorcode[code]


@pytest.mark.parametrize("code", [errno.ESRCH, errno.EINVAL])
@pytest.mark.parametrize("in_query", [True, False])
def test_a_process_that_ends_meanwhile_is_no_error(fake: Kernel, code: int, in_query: bool) -> None:
    if in_query:
        fake.query_error = lambda call: code if call > 1 else 0
    else:
        fake.move_error = lambda call: code if call > 1 else 0
    outcome, _ = promote(fake, fake.place(5000))
    assert outcome.refused == 0 and outcome.deferred == 5000 - outcome.moved > 0
    assert len(fake.moves) <= 2


@pytest.mark.parametrize("left", [1, 100])
def test_a_call_that_ends_early_is_asked_again_what_it_did(fake: Kernel, left: int) -> None:
    """A result above 0 leaves the statuses of pages that did move unwritten as well."""
    fake.ends_early = lambda call: left if call == 1 else 0
    pages = fake.place(1500)
    outcome, there = promote(fake, pages)
    assert (outcome.moved, outcome.refused, outcome.errors) == (1500 - left, left, {0: left})
    assert there.sum() == 1500 - left


def test_statuses_of_a_call_that_ends_early_are_not_believed(
    fake: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Statuses have been seen to lie; a query does not."""

    def lie(pid: int, addresses: np.ndarray, node: int) -> tuple[int, np.ndarray]:
        fake.moves.append(addresses.tolist())
        return len(addresses), np.full(len(addresses), node, dtype=np.int32)

    monkeypatch.setattr(module, "move_pages", lie)
    outcome, there = promote(fake, fake.place(200))
    assert (outcome.moved, outcome.refused) == (0, 200) and not there.any()


def test_an_error_while_asking_again(fake: Kernel) -> None:
    """What happened is then not known; nothing may be counted as moved, and nothing be lost."""
    fake.ends_early = lambda call: 10
    fake.query_error = lambda call: errno.EPERM if call == 2 else 0
    outcome, there = promote(fake, fake.place(1500))
    assert outcome.moved == 0 and not there.any()


@pytest.mark.parametrize("room", [0, 1, SMALLEST_BATCH - 1, SMALLEST_BATCH, 100, 700, 3000])
def test_the_floor_is_kept(fake: Kernel, room: int) -> None:
    fake.machine.write_free(DRAM, FLOOR + room * PAGE_SIZE)
    outcome, _ = promote(fake, fake.place(4000))
    assert outcome.moved <= room and outcome.moved > room - SMALLEST_BATCH
    assert outcome.deferred == 4000 - outcome.moved
    assert fake.least_free >= FLOOR


@pytest.mark.parametrize("free", [0, FLOOR - 1, FLOOR])
def test_nothing_moves_at_or_below_the_floor(fake: Kernel, free: int) -> None:
    fake.machine.write_free(DRAM, free)
    outcome, _ = promote(fake, fake.place(100))
    assert outcome.deferred == 100 and not fake.moves


def test_somebody_else_fills_the_node_in_the_middle(fake: Kernel) -> None:
    """Free memory is read before every batch."""

    def grab() -> None:
        fake.machine.write_free(DRAM, FLOOR // 2)

    outcome, _ = Mover(fake.machine.root, between=grab).promote(PROCESS, fake.place(5000), DRAM, FLOOR)
    assert len(fake.moves) == 1
    assert outcome.moved + outcome.deferred == 5000


def unreadable(machine: Machine) -> None:
    machine.put(machine.root.nodes / "node0/meminfo", "nonsense\n")


def missing(machine: Machine) -> None:
    (machine.root.nodes / "node0/meminfo").unlink()


@pytest.mark.parametrize("spoil", [unreadable, missing])
def test_free_memory_that_cannot_be_read_counts_as_none(
    fake: Kernel, spoil: Callable[[Machine], None]
) -> None:
    spoil(fake.machine)
    outcome, _ = promote(fake, fake.place(100))
    assert outcome.deferred == 100 and not fake.moves


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EIO])
def test_free_memory_that_may_not_be_read_counts_as_none(
    fake: Kernel, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fail_reading(monkeypatch, fake.machine.root.nodes / "node0/meminfo", code)
    outcome, _ = promote(fake, fake.place(100))
    assert outcome.deferred == 100 and not fake.moves


def test_another_process_with_the_same_number_is_left_alone(fake: Kernel) -> None:
    fake.machine.add_process(PID, "/db", start=START + 1)
    outcome, _ = promote(fake, fake.place(100))
    assert outcome.deferred == 100 and not fake.moves and not fake.queries


def test_the_process_is_replaced_in_the_middle(fake: Kernel) -> None:
    def replace() -> None:
        fake.machine.add_process(PID, "/db", start=START + 1)

    outcome, _ = Mover(fake.machine.root, between=replace).promote(PROCESS, fake.place(5000), DRAM, FLOOR)
    assert len(fake.moves) == 1
    assert (outcome.moved, outcome.deferred) == (len(fake.moves[0]), 5000 - len(fake.moves[0]))


def test_the_rings_are_read_after_each_batch(fake: Kernel) -> None:
    calls: list[int] = []
    Mover(fake.machine.root, between=lambda: calls.append(len(fake.moves))).promote(
        PROCESS, fake.place(5000), DRAM, FLOOR
    )
    assert calls == list(range(1, len(fake.moves) + 1))


def test_a_slow_kernel_gets_smaller_batches(fake: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 microseconds a page: 20 ms are 200 pages."""
    now = [0.0]
    move = fake.move_pages

    def slow(pid: int, addresses: np.ndarray, node: int) -> tuple[int, np.ndarray]:
        now[0] += 100e-6 * len(addresses)
        return move(pid, addresses, node)

    monkeypatch.setattr(module, "move_pages", slow)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    outcome, _ = promote(fake, fake.place(5000))
    assert outcome.moved == 5000
    assert all(len(call) <= 200 for call in fake.moves[1:])
    assert outcome.seconds == pytest.approx(0.5)


FATES = st.sampled_from(["slow", "slow", "slow", "dram", "absent", "busy", "stays"])
CALL_ERRORS = st.sampled_from([0, 0, 0, 0, *FATAL, errno.EINVAL, errno.EINTR, errno.EFAULT])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fates=st.lists(FATES, max_size=400),
    room=st.integers(-10, 500),
    errors=st.lists(CALL_ERRORS, max_size=4),
    query_errors=st.lists(CALL_ERRORS, max_size=4),
    early=st.lists(st.integers(0, 64), max_size=4),
)
def test_every_planned_page_has_one_fate(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    fates: list[str],
    room: int,
    errors: list[int],
    query_errors: list[int],
    early: list[int],
) -> None:
    fake = install(Kernel(machine), monkeypatch)
    machine.write_free(DRAM, FLOOR + room * PAGE_SIZE)
    pages = fake.place(len(fates))
    for page, fate in zip(pages, fates, strict=True):
        address = int(page) << 12
        if fate == "dram":
            fake.where[address] = DRAM
        elif fate == "absent":
            del fake.where[address]
        elif fate != "slow":
            fake.stays[address] = -errno.EBUSY if fate == "busy" else SLOW
    fake.move_error = lambda call: errors[call - 1] if call <= len(errors) else 0
    fake.query_error = lambda call: query_errors[call - 1] if call <= len(query_errors) else 0
    fake.ends_early = lambda call: min(early[call - 1], len(fake.moves[-1])) if call <= len(early) else 0
    outcome, _ = promote(fake, pages)
    assert min(outcome.moved, outcome.already_there, outcome.refused, outcome.deferred) >= 0
    assert sum(outcome.errors.values()) == outcome.refused, "each refusal has its errno"
    assert outcome.moved <= max(0, room)
    assert fake.least_free >= min(FLOOR, FLOOR + room * PAGE_SIZE)
