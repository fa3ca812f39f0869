"""Kernel files that read wrong: the round is skipped and says why, the next one tries again."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.kernel.fixtures.moving import install_moves
from tests.kernel.fixtures.simulated import SimulatedKernel
from tests.service import engine_bench
from tests.service.engine_bench import HOT, Bench
from tierd.core.access import Accesses
from tierd.core.state import EngineState, State
from tierd.errors import MalformedError, in_words
from tierd.kernel import generations, own_cost
from tierd.service.events import DEGRADED, HOLDING, Event, events_between
from tierd.service.failed_rounds import FAILED_ROUNDS
from tierd.service.looking import SAMPLE_SECONDS

fake = engine_bench.fake
Spoil = Callable[[SimulatedKernel], Callable[[], None]]


def garbled(*path: str) -> Spoil:
    """A file of /proc or /sys that holds nonsense until it is mended."""

    def spoil(fake: SimulatedKernel) -> Callable[[], None]:
        file = fake.machine.root.path.joinpath(*path)
        text = file.read_text()
        file.write_text("Node, zone what\nhigh\n")
        return lambda: file.write_text(text) and None

    return spoil


def unreadable(*path: str) -> Spoil:
    """A file whose reading fails, by an errno that says neither that it is gone nor that it is forbidden."""

    def spoil(fake: SimulatedKernel) -> Callable[[], None]:
        file = fake.machine.root.path.joinpath(*path)
        text = file.read_text()
        file.unlink()
        file.mkdir()

        def mend() -> None:
            file.rmdir()
            file.write_text(text)

        return mend

    return spoil


def spoil_generations(fake: SimulatedKernel) -> Callable[[], None]:
    def read(_wanted: object) -> object:
        return generations.parse(f"memcg 24 /db\n node 0\n  nonsense {fake.now}\n")

    good, fake.read_generations = fake.read_generations, read  # type: ignore[method-assign]
    return lambda: setattr(fake, "read_generations", good)


def refuse_generations(fake: SimulatedKernel) -> Callable[[], None]:
    def read(_wanted: object) -> object:
        raise OSError(errno.EIO, "Input/output error", "lru_gen")

    good, fake.read_generations = fake.read_generations, read  # type: ignore[method-assign]
    return lambda: setattr(fake, "read_generations", good)


SPOILS = {
    "vmstat": (garbled("proc", "vmstat"), "vmstat: not a counter"),
    "zoneinfo": (garbled("proc", "zoneinfo"), "zoneinfo: no zone has a high watermark"),
    "meminfo": (
        garbled("sys", "devices", "system", "node", "node0", "meminfo"),
        "meminfo: no MemTotal line",
    ),
    "meminfo of the slow node": (
        unreadable("sys", "devices", "system", "node", "node1", "meminfo"),
        "node1/meminfo: Is a directory",
    ),
    "nodelist": (
        garbled("sys", "devices", "virtual", "memory_tiering", "memory_tier22", "nodelist"),
        "not a list of nodes",
    ),
    "lru_gen": (spoil_generations, "lru_gen: not a generation"),
    "lru_gen refused": (refuse_generations, "lru_gen: Input/output error"),
}


class Watched(Bench):
    """Keeps each state, and what the journal would be given."""

    def __init__(self, fake: SimulatedKernel) -> None:
        super().__init__(fake)
        # The door of the bench holds the reader of the moment; a spoilt one must be seen through it.
        self.engine._coldness._generations.read = lambda wanted: fake.read_generations(wanted)
        self.states: list[State] = [self.state]

    def run(self, seconds: float) -> None:
        end = self.fake.now + seconds
        while self.fake.now < end:
            self.fake.now += self.engine.step()
            if self.state is not self.states[-1]:
                self.states.append(self.state)

    @property
    def events(self) -> list[Event]:
        pairs = zip(self.states, self.states[1:], strict=False)
        return [event for pair in pairs for event in events_between(*pair)]


@pytest.mark.parametrize(("spoil", "reason"), SPOILS.values(), ids=SPOILS.keys())
def test_a_file_that_reads_wrong_for_a_moment_costs_a_round(
    fake: SimulatedKernel, spoil: Spoil, reason: str
) -> None:
    bench = Watched(fake)
    bench.run(2)
    mend = spoil(fake)
    bench.run(6)
    assert bench.state.engine is EngineState.HOLDING
    assert bench.state.reason.startswith("a round was skipped: ") and reason in bench.state.reason
    assert [event.type for event in bench.events].count(HOLDING) == 1, "the reason is told once"
    mend()
    bench.run(30)
    assert bench.on_dram > 0.9 * HOT, "and it goes on"
    assert DEGRADED not in [event.type for event in bench.events]


@pytest.mark.parametrize(("spoil", "reason"), SPOILS.values(), ids=SPOILS.keys())
def test_what_keeps_failing_is_degraded_and_still_tried(
    fake: SimulatedKernel, spoil: Spoil, reason: str
) -> None:
    bench = Watched(fake)
    bench.run(2)
    mend = spoil(fake)
    bench.run(6 + FAILED_ROUNDS)
    moved = bench.state.counters.promoted_pages
    bench.run(20)
    assert bench.state.engine is EngineState.DEGRADED and reason in bench.state.reason
    assert bench.state.counters.promoted_pages == moved
    kinds = [event.type for event in bench.events]
    assert (kinds.count(HOLDING), kinds.count(DEGRADED)) == (1, 1), "told twice, however long it lasts"
    mend()
    bench.run(30)
    assert bench.state.engine in (EngineState.CONVERGING, EngineState.STEADY)
    assert bench.on_dram > 0.9 * HOT


def test_the_first_round_may_fail(fake: SimulatedKernel) -> None:
    mend = garbled("proc", "vmstat")(fake)
    zone = garbled("proc", "zoneinfo")(fake)
    bench = Watched(fake)
    bench.run(2)
    assert bench.state.engine is EngineState.HOLDING and bench.state.topology.tiers == ()
    mend()
    zone()
    bench.run(30)
    assert bench.on_dram > 0.9 * HOT


def test_what_was_moved_before_a_reading_failed_is_counted(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tierd.service import moving

    calls = 0

    def read_demoted(root: object) -> int:
        nonlocal calls
        calls += 1
        if calls % 2 == 0:  # the reading after the moves
            raise MalformedError("vmstat: not a counter")
        return 0

    monkeypatch.setattr(moving, "read_demoted", read_demoted)
    bench = Watched(fake)
    bench.run(5)
    assert fake.promoted > 0
    assert bench.state.counters.promoted_pages == fake.promoted
    assert any("vmstat: not a counter" in state.reason for state in bench.states)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EBUSY, "Device or resource busy", "DAMON"), MalformedError("memory blocks: changing")],
)
def test_what_was_moved_when_the_source_failed_is_counted(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The source is read between two calls that move pages, too."""
    bench = Watched(fake)
    read, moves = bench.source.read, 0

    def fail_after_a_move() -> Accesses:
        nonlocal moves
        if moves != len(fake.moves):
            moves = len(fake.moves)
            raise error
        return read()

    def move(pid: int, addresses: np.ndarray, node: int) -> tuple[int, np.ndarray]:
        fake.now += SAMPLE_SECONDS
        return fake.move_pages(pid, addresses, node)

    bench.source.read = fail_after_a_move
    install_moves(monkeypatch, move)
    bench.run(30)
    assert bench.on_dram > 0.9 * HOT
    assert bench.state.counters.promoted_pages == fake.promoted
    assert any(in_words(error) in state.reason for state in bench.states)


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), psutil.AccessDenied()])
def test_what_tierd_costs_may_be_unreadable(
    fake: SimulatedKernel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    bench = Watched(fake)
    bench.run(2)
    known = bench.state.own_cpu_seconds, bench.state.own_resident_bytes

    def fail() -> object:
        raise error

    monkeypatch.setattr(own_cost, "_own", fail)
    bench.run(30)
    assert (bench.state.own_cpu_seconds, bench.state.own_resident_bytes) == known
    assert known[1] > 0
    assert bench.on_dram > 0.9 * HOT


def test_a_defect_still_ends_the_engine(fake: SimulatedKernel) -> None:
    """Only what is expected of a kernel is tried again; a mistake of tierd's own is not hidden."""
    bench = Watched(fake)

    def read(_wanted: object) -> object:
        raise KeyError("a mistake")

    fake.read_generations = read  # type: ignore[method-assign]
    with pytest.raises(KeyError):
        bench.run(5)


def test_descriptors_say_which_file_they_are(tmp_path: Path) -> None:
    from tierd.kernel.scanning import ScanRate

    with pytest.raises(OSError) as caught:
        generations.Generations(-1).read()
    assert in_words(caught.value) == "lru_gen: Bad file descriptor"
    with pytest.raises(OSError) as caught:
        ScanRate({"scan_size_mb": 999}).set_size(4)
    assert in_words(caught.value) == "scan_size_mb: Bad file descriptor"


def test_a_source_that_fails_for_a_moment_costs_a_round(fake: SimulatedKernel) -> None:
    bench = Watched(fake)
    bench.run(2)
    read = bench.source.read

    def fail() -> Accesses:
        raise MalformedError("memory blocks: changing")

    bench.source.read = fail
    bench.run(6)
    assert bench.state.engine is EngineState.HOLDING and "memory blocks" in bench.state.reason
    bench.source.read = read
    bench.run(30)
    assert bench.on_dram > 0.9 * HOT
