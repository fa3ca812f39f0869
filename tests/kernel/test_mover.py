"""Moving against a kernel made of a dict: every page counted once, and the floor kept."""

from __future__ import annotations

import errno
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernel import mover_bench
from tests.kernel.fixtures import Machine, fail_reading
from tests.kernel.fixtures.moving import install_moves
from tests.kernel.mover_bench import DRAM, FATAL, FLOOR, PID, PROCESS, SLOW, START, Kernel, install, promote
from tierd.core.budget import LARGEST_BATCH, SMALLEST_BATCH
from tierd.core.model import PAGE_SIZE
from tierd.core.outcome import Outcome
from tierd.kernel import mover as module
from tierd.kernel.mover import Mover

machine = mover_bench.machine
fake = mover_bench.fake


def test_all_goes_well(fake: Kernel) -> None:
    outcome, there = promote(fake, fake.place(5000))
    assert (outcome.moved, outcome.errors, there.all()) == (5000, {}, True)
    assert outcome.seconds >= 0


def test_pages_are_announced_before_they_move(fake: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    announced: list[int] = []

    def move(pid: int, addresses: np.ndarray, node: int) -> tuple[int, np.ndarray]:
        assert set(addresses.tolist()) <= set(announced)
        return fake.move_pages(pid, addresses, node)

    def announce(pages: np.ndarray) -> None:
        announced.extend((pages << np.uint64(12)).tolist())

    install_moves(monkeypatch, move)
    Mover(fake.machine.root).promote(PROCESS, fake.place(20_000), DRAM, FLOOR, announce=announce)
    assert len(fake.moves) > 1 and len(announced) == len(set(announced)) == 20_000


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


def test_pages_known_to_be_elsewhere_are_not_asked_about(fake: Kernel) -> None:
    pages = fake.place(5000)
    done = Mover(fake.machine.root).promote(PROCESS, pages, DRAM, FLOOR, elsewhere=True)
    assert (done.outcome.moved, done.there.all(), fake.queries) == (5000, True, 0)
    fake.place(5000)
    fake.ends_early = lambda call: 100 if call == len(fake.moves) else 0
    fake.stays[int(pages[3]) << 12] = -errno.EBUSY
    done = Mover(fake.machine.root).promote(PROCESS, pages, DRAM, FLOOR, elsewhere=True)
    assert fake.queries > 0, "what the statuses do not say is asked"
    assert done.outcome.errors[errno.EBUSY] == 1 and done.outcome.planned == 5000


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


@pytest.mark.parametrize(
    "code", [errno.EBUSY, errno.EFAULT, errno.EIO, errno.EINVAL, errno.ENOENT, errno.EACCES]
)
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
        assert fake.queries + len(fake.moves) <= 3 or code not in FATAL, errno.errorcode[code]
        fake.moves.clear()


@pytest.mark.parametrize("code", [errno.ESRCH, errno.EINVAL])
@pytest.mark.parametrize("in_query", [True, False])
def test_a_process_that_ends_meanwhile_is_no_error(fake: Kernel, code: int, in_query: bool) -> None:
    if in_query:
        fake.query_error = lambda call: code if call > 1 else 0
    else:
        fake.move_error = lambda call: code if call > 1 else 0
    outcome, _ = promote(fake, fake.place(20_000))
    assert outcome.refused == 0 and outcome.deferred == 20_000 - outcome.moved > 0
    assert in_query or len(fake.moves) == 2


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

    install_moves(monkeypatch, lie)
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


@pytest.mark.parametrize(("room", "moved"), [(1, 0), (40, 0), (41, 41), (63, 41)])
def test_the_last_pages_need_no_more_room_than_they_take(fake: Kernel, room: int, moved: int) -> None:
    """Else fewer pages than the smallest batch would wait for ever for room that nobody makes."""
    fake.machine.write_free(DRAM, FLOOR + room * PAGE_SIZE)
    outcome, _ = promote(fake, fake.place(41))
    assert outcome.moved == moved


@pytest.mark.parametrize("free", [0, FLOOR - 1, FLOOR])
def test_nothing_moves_at_or_below_the_floor(fake: Kernel, free: int) -> None:
    fake.machine.write_free(DRAM, free)
    outcome, _ = promote(fake, fake.place(100))
    assert outcome.deferred == 100 and not fake.moves


def test_somebody_else_fills_the_node_in_the_middle(fake: Kernel) -> None:
    """Free memory is read before every batch."""

    def grab() -> None:
        fake.machine.write_free(DRAM, FLOOR // 2)

    mover = Mover(fake.machine.root, between=grab)
    outcome = mover.promote(PROCESS, fake.place(5000), DRAM, FLOOR).outcome
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

    mover = Mover(fake.machine.root, between=replace)
    outcome = mover.promote(PROCESS, fake.place(5000), DRAM, FLOOR).outcome
    assert len(fake.moves) == 1
    assert (outcome.moved, outcome.deferred) == (len(fake.moves[0]), 5000 - len(fake.moves[0]))


def test_the_rings_are_read_after_each_batch(fake: Kernel) -> None:
    calls: list[int] = []
    Mover(fake.machine.root, between=lambda: calls.append(len(fake.moves))).promote(
        PROCESS, fake.place(5000), DRAM, FLOOR
    )
    assert calls == list(range(1, len(fake.moves) + 1))


def test_a_page_that_several_processes_map_ends_nothing(fake: Kernel) -> None:
    """EACCES of one page is not the EACCES of a call, which the next call would get as well."""
    pages = fake.place(5000)
    fake.stays[int(pages[7]) << 12] = -errno.EACCES
    outcome, _ = promote(fake, pages)
    assert (outcome.moved, outcome.errors) == (4999, {errno.EACCES: 1})


def test_a_call_that_was_interrupted_ends_nothing(fake: Kernel) -> None:
    """EINTR from Linux 7.2 on, while the process starts another program."""
    fake.move_error = lambda call: errno.EINTR if call == 2 else 0
    outcome, _ = promote(fake, fake.place(5000))
    assert outcome.deferred == 0 and outcome.errors == {errno.EINTR: len(fake.moves[1])}


def test_no_room_for_one_page_is_no_room_for_the_next(fake: Kernel) -> None:
    pages = fake.place(5000)
    fake.stays[int(pages[7]) << 12] = -errno.ENOMEM
    outcome, _ = promote(fake, pages)
    assert len(fake.moves) == 1 and outcome.deferred > 0


def test_what_moved_before_a_call_failed_is_counted(fake: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel moves a part, finds no room for the rest, and returns nothing but ENOMEM."""

    def half(pid: int, addresses: np.ndarray, node: int) -> tuple[int, np.ndarray]:
        fake.move_pages(pid, addresses[: len(addresses) // 2], node)
        raise OSError(errno.ENOMEM, "move")

    install_moves(monkeypatch, half)
    outcome, there = promote(fake, fake.place(200))
    assert (outcome.moved, outcome.refused, outcome.errors) == (100, 100, {errno.ENOMEM: 100})
    assert there[:100].all() and not there[100:].any()


def test_a_slow_kernel_gets_smaller_batches(fake: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """100 microseconds a page: 20 ms are 200 pages."""
    now = [0.0]
    move = fake.move_pages

    def slow(pid: int, addresses: np.ndarray, node: int) -> tuple[int, np.ndarray]:
        now[0] += 100e-6 * len(addresses)
        return move(pid, addresses, node)

    install_moves(monkeypatch, slow)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    outcome, _ = promote(fake, fake.place(5000))
    assert outcome.moved == 5000
    assert all(len(call) <= 200 for call in fake.moves[3:])
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
    taken_for_huge=st.booleans(),
)
def test_every_planned_page_has_one_fate(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    fates: list[str],
    room: int,
    errors: list[int],
    query_errors: list[int],
    early: list[int],
    taken_for_huge: bool,
) -> None:
    fake = install(Kernel(machine), monkeypatch)
    monkeypatch.setattr(
        module.HugePageFinder, "among", lambda self, process, pages: np.arange(len(pages)) % 3 == 0
    )
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
    outcome, _ = promote(fake, pages, huge=taken_for_huge)
    assert min(outcome.moved, outcome.already_there, outcome.refused, outcome.deferred) >= 0
    assert sum(outcome.errors.values()) == outcome.refused, "each refusal has its errno"
    assert outcome.moved <= max(0, room)
    assert fake.least_free >= min(FLOOR, FLOOR + room * PAGE_SIZE)
