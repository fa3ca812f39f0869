"""A source that does not see a touch, or sees it wrongly, is not used."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tierd.core.access import Accesses
from tierd.kernel.self_test import DEADLINE, CacheMisses, FreshPages, Pages, see_touch

OWN = 4242
PAGE = 0x7F0000123


class Bench:
    """A clock, a touch of a new page each time, and a source that `answer`s touches `after` some of them."""

    def __init__(self, answer: Callable[[int, float], list[tuple[int, int, float]]], after: int = 0) -> None:
        self.now = 5000.0
        self.page = PAGE
        self.answer = answer
        self.after = after

    def touch(self) -> Pages:
        self.page += 3
        return np.array([self.page], dtype=np.uint64)

    def read(self) -> Accesses:
        self.after -= 1
        seen = [] if self.after >= 0 else self.answer(self.page, self.now)
        pid, page, when = zip(*seen, strict=True) if seen else ((), (), ())
        cpu = np.zeros(len(pid), np.int32)
        return Accesses(np.array(pid, np.int32), np.array(page, np.uint64), np.array(when, np.float64), cpu)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def run(self) -> str:
        return see_touch(self.read, self.touch, clock=lambda: self.now, wait=self.wait, process=OWN)


def test_a_touch_that_is_seen() -> None:
    bench = Bench(lambda page, now: [(7, page, now), (OWN, 12, now), (OWN, page, now)])
    assert bench.run() == ""
    assert bench.now == 5000.0, "at once"


def test_a_full_ring_that_lost_the_first_touches() -> None:
    assert Bench(lambda page, now: [(OWN, page, now)], after=10).run() == ""


def test_a_touch_that_is_told_late_counts() -> None:
    assert Bench(lambda page, now: [(OWN, page - 3, now - 0.01)], after=1).run() == ""


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda page, now: [], "nothing"),
        (lambda page, now: [(OWN, 99, now), (7, 98, now)], "not those of tierd"),
        (lambda page, now: [(17, page, now)], "which is process 4242, for process 17"),
        (lambda page, now: [(17, page, now), (OWN, 99, now)], "not those of tierd"),
        (lambda page, now: [(OWN, page, now + 1.7e9)], "not CLOCK_MONOTONIC"),
        (lambda page, now: [(OWN, page, now + 3600)], "not CLOCK_MONOTONIC"),
        (lambda page, now: [(OWN, page, now / 1e9)], "not CLOCK_MONOTONIC"),
        (lambda page, now: [(OWN, page, now * 1e9)], "not CLOCK_MONOTONIC"),
    ],
    ids=[
        "silent",
        "other pages",
        "wrong pid",
        "pid by chance",
        "realtime",
        "boottime",
        "zero",
        "nanoseconds",
    ],
)
def test_failures_are_named_within_the_deadline(answer: object, words: str) -> None:
    bench = Bench(answer)
    assert words in bench.run()
    assert DEADLINE <= bench.now - 5000.0 < 2 * DEADLINE


def test_a_fresh_page_is_new_each_time_and_ours() -> None:
    touch = FreshPages()
    pages = [int(page) for _ in range(20) for page in touch()]
    assert len(set(pages)) == 20
    resident = {
        int(line.split("-")[0], 16) >> 12: int(line.split()[0].split("-")[1], 16) >> 12
        for line in open("/proc/self/maps")
    }
    assert all(any(first <= page < last for first, last in resident.items()) for page in pages)


def test_cache_misses_name_the_memory_they_read() -> None:
    touch = CacheMisses()
    pages = touch()
    assert len(pages) >= (64 << 20) // 4096 and (np.diff(pages) == 1).all()
    assert (touch() == pages).all()


@pytest.fixture
def events() -> Iterator[list[int]]:
    """The page-fault event of this process alone, which needs no more than perf_event_paranoid 2."""
    from tierd.kernel import perf_event, syscalls

    sample = perf_event._SAMPLE_TID_TIME_ADDR_CPU
    attributes = perf_event._attributes(1, 2, 0, 1, sample, 1 << 5 | 1 << 6)
    try:
        opened = syscalls.perf_event_open(attributes, 0, -1)
    except OSError as error:
        pytest.skip(f"this machine opens no event of its own process: {error}")
    yield [opened]
    os.close(opened)


def test_the_kernel_of_this_machine_sees_a_touch(events: list[int]) -> None:
    """The one test with a ring that a kernel wrote."""
    from tierd.kernel.hint_faults import HintFaults
    from tierd.kernel.scanning import ScanRate

    source = HintFaults(events, ScanRate({}))
    try:
        source.start()
    except OSError as error:
        pytest.skip(f"this machine maps no ring: {error}")
    begun = time.monotonic()
    assert see_touch(source.read, FreshPages()) == ""
    assert time.monotonic() - begun < DEADLINE
    FreshPages()()
    seen = source.read()
    assert len(seen) and set(seen.cpu.tolist()) <= os.sched_getaffinity(0)
    source.stop()
