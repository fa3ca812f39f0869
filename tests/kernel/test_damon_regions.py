"""DAMON as a source: reports of regions from rings written as the kernel writes them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.fixtures.rings import FakeKernel, lost, region
from tierd.core.model import ProcessId, ProcessView
from tierd.errors import MalformedError
from tierd.kernel import damon, damon_regions, perf, settings
from tierd.kernel.damon_regions import BELIEVED, PAUSE_SECONDS, SETTLING, DamonRegions
from tierd.kernel.paths import Root
from tierd.kernel.perf import RING_PAGES

FORMAT = (Path(__file__).parent / "recorded/damon_aggregated.format").read_text()
MIB2 = 2 << 20
THREADS = (500, 501)


def view(pid: int, resident: int = 1) -> ProcessView:
    return ProcessView(ProcessId(pid, 1), "db", 0, "/db", resident)


class Monitors:
    """Two monitors, as files that keep what was written; `refuse`: an errno for pids that are gone."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.doors: dict[str, int] = {}
        for number, thread in enumerate(THREADS):
            path = root.damon / str(number)
            path.mkdir(parents=True)
            (path / "pid").write_text(f"{thread}\n")
            for prefix in (damon.STATE_PREFIX, damon.TARGET_PREFIX):
                flags = os.O_RDWR | os.O_CREAT
                self.doors[f"{prefix}{number}"] = os.open(path / prefix, flags)

    def said(self, number: int) -> tuple[str, str]:
        """State and target."""
        found = [
            (self.root.damon / str(number) / prefix).read_text().split("\n")[0]
            for prefix in (damon.STATE_PREFIX, damon.TARGET_PREFIX)
        ]
        return found[0], found[1]

    @property
    def watched(self) -> set[str]:
        return {target for state, target in map(self.said, (0, 1)) if state == "on"}


@pytest.fixture
def monitors(tmp_path: Path) -> Iterator[Monitors]:
    root = Root(tmp_path / "machine")
    path = root.trace_events / "damon/damon_aggregated/format"
    path.parent.mkdir(parents=True)
    path.write_text(FORMAT)
    made = Monitors(root)
    yield made
    for descriptor in made.doors.values():
        os.close(descriptor)


@pytest.fixture
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKernel]:
    monkeypatch.setattr(perf.fcntl, "ioctl", lambda fd, request, argument: None)
    made = FakeKernel(tmp_path / "ring", RING_PAGES)
    yield made
    os.close(made.descriptor)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(monitors: Monitors, ring: FakeKernel, clock: Clock) -> Iterator[DamonRegions]:
    made = DamonRegions(monitors.root, [ring.descriptor], monitors.doors, clock)
    made.start()
    yield made
    made.stop()


def thread_of(source: DamonRegions, pid: int) -> int:
    return next(thread for thread, watched in source._threads.items() if watched == pid)


def test_it_watches_tierd_itself_until_it_is_told_whom(source: DamonRegions, monitors: Monitors) -> None:
    assert monitors.watched == {str(os.getpid())}
    source.watch([view(7), view(8)])
    assert monitors.watched == {"7", "8"}
    source.watch([view(8)])
    assert monitors.watched == {"8"}
    source.stop()
    assert monitors.watched == set()
    source.stop()


def test_the_largest_where_monitors_are_short(source: DamonRegions, monitors: Monitors) -> None:
    source.watch([view(7, 10), view(8, 30), view(9, 20)])
    assert monitors.watched == {"8", "9"}


def test_a_monitor_that_has_stopped_by_itself_is_used_again(
    source: DamonRegions, monitors: Monitors
) -> None:
    source.watch([view(7), view(8)])
    for number in (0, 1):
        (monitors.root.damon / str(number) / "pid").write_text("-1\n")
        os.pwrite(monitors.doors[f"{damon.STATE_PREFIX}{number}"], b"off\n", 0)
    source.watch([view(7), view(8)])
    assert monitors.watched == {"7", "8"}


def test_a_process_that_has_ended_meanwhile_leaves_its_monitor_to_others(
    source: DamonRegions, monitors: Monitors, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        if data == b"on\n" and monitors.said(0)[1] == "7":
            raise OSError(errno.EINVAL, "no such process")
        return write(descriptor, data, offset)

    source.watch([])
    monkeypatch.setattr(damon.os, "pwrite", pwrite)
    source._free.sort(key=lambda monitor: -monitor._state)  # the first monitor is the next
    source.watch([view(7), view(8)])
    assert monitors.watched == {"8"}


@pytest.mark.parametrize("code", [errno.EBUSY, errno.ENODEV])
def test_damon_that_somebody_has_taken_is_an_error(
    source: DamonRegions, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    source.watch([])

    def pwrite(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(code, "taken")

    with monkeypatch.context() as patched:
        patched.setattr(damon.os, "pwrite", pwrite)
        patched.setattr(settings, "_PATIENCE", 0.0)
        with pytest.raises(OSError, match="taken.*DAMON"):
            source.watch([view(7)])


def test_regions_in_use_become_blocks_with_their_share(source: DamonRegions, ring: FakeKernel) -> None:
    source.watch([view(7)])
    thread = thread_of(source, 7)
    start = 100 * MIB2
    ring.write(
        region(0, start, 0, thread=thread, of=3)
        + region(start, start + 2 * MIB2 + MIB2 // 4, 20, thread=thread, of=3, time=3_000_000_000)
        + region(start + 2 * MIB2 + MIB2 // 4, 1 << 47, 0, thread=thread, of=3)
        + region(start, start + MIB2, 9, thread=999, of=1)  # somebody else's
        + lost(4)
    )
    seen = source.read()
    assert seen.pid.tolist() == [7, 7, 7] and seen.time.tolist() == [3.0] * 3
    assert seen.page.tolist() == [100 * 512, 101 * 512, 102 * 512]
    assert seen.weight is not None and seen.weight.tolist() == [20.0, 20.0, 5.0]
    assert seen.lost == 4 and seen.passes == 1
    assert not len(source.read())


def test_an_all_idle_report_is_a_pass_that_saw_nothing(source: DamonRegions, ring: FakeKernel) -> None:
    source.watch([view(7), view(8)])
    one, other = thread_of(source, 7), thread_of(source, 8)
    ring.write(region(0, MIB2, 0, thread=one, of=2) + region(MIB2, 5 * MIB2, 0, thread=one, of=2))
    seen = source.read()
    assert (len(seen), seen.passes) == (0, 0), "the other has not reported"
    ring.write(region(0, MIB2, 0, thread=other, of=1))
    assert source.read().passes == 1
    assert source.read().passes == 0


def test_nobody_watched_is_no_pass(source: DamonRegions) -> None:
    source.watch([])
    assert source.read().passes == 0


def test_the_most_used_where_there_is_too_much(
    source: DamonRegions, ring: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sparse region of many TiB in which one look found use."""
    monkeypatch.setattr(damon_regions, "MOST_BLOCKS", 100)
    source.watch([view(7)])
    thread = thread_of(source, 7)
    ring.write(
        region(0, 1 << 40, 1, thread=thread, of=2)
        + region(1 << 40, (1 << 40) + 4 * MIB2, 3, thread=thread, of=2)
    )
    seen = source.read()
    assert seen.lost == 1 and set((seen.page // 512 * MIB2).tolist()) == {
        (1 << 40) + n * MIB2 for n in range(4)
    }


def test_a_tracepoint_of_another_shape(monitors: Monitors, ring: FakeKernel) -> None:
    path = monitors.root.trace_events / "damon/damon_aggregated/format"
    path.write_text(FORMAT.replace("nr_accesses;\t", "nr_hits;\t"))
    source = DamonRegions(monitors.root, [ring.descriptor], monitors.doors)
    with pytest.raises(MalformedError, match="nr_accesses"):
        source.start()
    source.stop()
    assert monitors.watched == set()


def report(source: DamonRegions, ring: FakeKernel) -> tuple[int, int]:
    """One report of process 7, all of it used: blocks seen, and passes."""
    ring.write(region(100 * MIB2, 101 * MIB2, 20, thread=thread_of(source, 7), of=1))
    seen = source.read()
    return len(seen), seen.passes


def test_at_rest_the_monitors_pause(
    source: DamonRegions, ring: FakeKernel, monitors: Monitors, clock: Clock
) -> None:
    source.watch([view(7)])
    assert [report(source, ring) for _ in range(5)] == [(1, 1)] * 5, "no pause at full effort"
    source.steer(1 / 32)
    assert [report(source, ring) for _ in range(BELIEVED)] == [(1, 1)] * BELIEVED
    assert monitors.watched == set()
    source.steer(1 / 32)
    source.watch([view(7), view(8)])
    clock.now += PAUSE_SECONDS - 1
    assert not source.read().passes and monitors.watched == set()
    clock.now += 1
    source.read()
    assert monitors.watched == {"7", "8"}
    source.watch([view(7)])
    assert [report(source, ring) for _ in range(SETTLING)] == [(0, 0)] * SETTLING
    assert [report(source, ring) for _ in range(BELIEVED)] == [(1, 1)] * BELIEVED
    assert monitors.watched == set()


def test_a_pause_ends_when_it_has_to_look_hard(
    source: DamonRegions, ring: FakeKernel, monitors: Monitors
) -> None:
    source.watch([view(7)])
    source.steer(1 / 32)
    for _ in range(BELIEVED):
        report(source, ring)
    assert monitors.watched == set()
    source.steer(1.0)
    source.read()
    assert monitors.watched == {"7"} and report(source, ring) == (1, 1)


def test_a_source_that_is_not_used_leaves_no_trace(source: DamonRegions, monitors: Monitors) -> None:
    """By which the helper knows that DAMON is not needed."""
    source.stop()
    assert {target for _, target in map(monitors.said, (0, 1))} == {"0"}
