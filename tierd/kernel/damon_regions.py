"""DAMON as a source of access information: reports of regions, streamed through the tracepoint with which a
monitor sends them (damon:damon_aggregated)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from tierd.core.access import NO_CPU, Accesses, Looks
from tierd.core.model import HUGE_PAGE_SIZE, PAGE_SIZE, ProcessView
from tierd.kernel.damon import INTERVAL, LOOKS, MONITORS, NAME, STATE_PREFIX, TARGET_PREFIX, Monitor
from tierd.kernel.files import read_text
from tierd.kernel.paths import Root
from tierd.kernel.perf import Records, SampleStream, trace_layout

FIELDS: Final = ("nr_regions", "start", "end", "nr_accesses")
"""What is read of the tracepoint (include/trace/events/damon.h)."""
MOST_BLOCKS: Final = 1 << 17
"""Blocks of 2 MiB taken from one reading, the most used first: 256 GiB in use within 2 s."""
SETTLING: Final = 3
"""Reports that are passed over after a pause: a monitor begins with REGIONS[0] equal regions, in which hot
and cold memory lie together, and has told them apart by then."""
BELIEVED: Final = 2
"""Reports of each stretch that are gone by at rest."""
PAUSE_SECONDS: Final = 40.0
"""Between two stretches: with reports of 2 s, DAMON works for a fifth of the time, and a change is seen
within 50 s. Longer intervals would have to be committed instead, for which 6.12 has the writer wait for the
next report of each monitor."""


class DamonRegions:
    """Satisfies core.access.AccessSource. The descriptors stay the caller's."""

    name = NAME
    reason = (
        f"regions, in which scattered hot pages are lost, of the {MONITORS} largest processes; only where "
        "neither hint faults nor hardware samples can be had"
    )
    period = None
    looks = Looks(INTERVAL, LOOKS)

    def __init__(
        self,
        root: Root,
        descriptors: Iterable[int],
        doors: Mapping[str, int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """descriptors: of the tracepoint on each CPU. doors: those of the monitors (tierd.kernel.doors)."""
        self._root = root
        self._clock = clock
        self._descriptors = tuple(descriptors)
        self._free = [
            Monitor(root, number, doors[f"{STATE_PREFIX}{number}"], doors[f"{TARGET_PREFIX}{number}"])
            for number in range(MONITORS)
            if {f"{STATE_PREFIX}{number}", f"{TARGET_PREFIX}{number}"} <= doors.keys()
        ]
        self._watching: dict[int, Monitor] = {}
        self._threads: dict[int, int] = {}
        self._reported: dict[int, float] = {}
        self._stream: SampleStream | None = None
        self._pids: Sequence[int] = ()
        self._resting = False
        self._paused_until: float | None = None
        self._done = self._unsettled = 0

    def start(self) -> None:
        """Watches tierd itself until it is told whom to watch."""
        text = read_text(self._root.trace_events / "damon/damon_aggregated/format")
        self._stream = SampleStream(self._descriptors, trace_layout(text, FIELDS))
        self._stream.enable(True)
        self._pids = [os.getpid()]
        self._follow(self._pids)

    def watch(self, processes: Sequence[ProcessView]) -> None:
        """The largest ones."""
        largest = sorted(processes, key=lambda view: (-view.resident, view.id.pid))
        self._pids = [view.id.pid for view in largest]
        if self._paused_until is None:
            self._follow(self._pids)

    def _follow(self, pids: Sequence[int]) -> None:
        wanted = pids[: len(self._free) + len(self._watching)]
        running = {pid for pid, monitor in self._watching.items() if monitor.thread}
        for pid in set(self._watching) - (running & set(wanted)):
            monitor = self._watching[pid]
            monitor.stop()
            self._free.append(self._watching.pop(pid))
        for pid in wanted:
            if pid in self._watching:
                continue
            try:
                self._free[-1].start(pid)
            except ProcessLookupError:
                continue  # it has ended since the list was made
            self._watching[pid] = self._free.pop()
        self._threads = {monitor.thread: pid for pid, monitor in self._watching.items()}
        self._reported = {pid: self._reported.get(pid, 0.0) for pid in self._watching}

    def read(self) -> Accesses:
        """What was found in use, for each 2 MiB. What was found idle is told by `passes` alone: that may be
        a hole of many TiB. Raises OSError."""
        assert self._stream is not None, "read before start"
        self._resume()
        threads = self._threads
        records, lost = self._stream.read()
        records = records[np.isin(records["pid"], list(threads))]
        passes = self._count_passes(records)
        settled = self._done >= self._unsettled
        self._done += passes
        if self._resting and self._done >= self._unsettled + BELIEVED:
            self._pause()
        if not settled:
            records, passes = records[:0], 0
        used = records[(records["nr_accesses"] > 0) & (records["end"] > records["start"])]
        used, dropped = _most_used(used)
        pids = np.array([threads[thread] for thread in used["pid"].tolist()], dtype=np.int32)
        times = (used["time"] / 1e9).astype(np.float64)
        row, block, share = _blocks(used["start"], used["end"])
        return Accesses(
            pids[row],
            block * np.uint64(HUGE_PAGE_SIZE // PAGE_SIZE),
            times[row],
            np.full(len(row), NO_CPU, dtype=np.int32),
            lost + dropped,
            np.minimum(used["nr_accesses"], LOOKS)[row] * share,
            passes,
        )

    def _count_passes(self, records: Records) -> int:
        """How often all that are watched have reported all of their regions since."""
        for thread, pid in self._threads.items():
            mine = records["nr_regions"][records["pid"] == thread]
            self._reported[pid] += float((1 / np.maximum(mine, 1)).sum())
        whole = int(min(self._reported.values(), default=0.0) + 1e-6)
        for pid in self._reported:
            self._reported[pid] -= whole
        return whole

    def steer(self, effort: float) -> None:
        """At rest (any effort below 1) monitors pause most of the time. DAMON by itself looks at fewer
        regions where there is less to tell apart."""
        if self._resting != (effort < 1):
            self._resting = effort < 1
            self._done = self._unsettled = 0

    def _pause(self) -> None:
        """Whoever sets DAMON up meanwhile keeps it: then the next stretch fails, and nothing is placed."""
        if self._paused_until is None and self._watching:
            self._follow([])
            self._paused_until = self._clock() + PAUSE_SECONDS

    def _resume(self) -> None:
        if self._paused_until is None or (self._resting and self._clock() < self._paused_until):
            return
        self._paused_until = None
        self._done = 0
        self._unsettled = SETTLING if self._resting else 0
        self._follow(self._pids)

    def stop(self) -> None:
        self._follow([])
        for monitor in self._free:
            monitor.release()
        if self._stream is not None:
            self._stream.enable(False)
            self._stream.close()
            self._stream = None


def _most_used(records: Records) -> tuple[Records, int]:
    """The records, in order of time, that are MOST_BLOCKS at most, and how many were dropped."""
    blocks = (records["end"] - records["start"]) // np.uint64(HUGE_PAGE_SIZE) + np.uint64(2)
    if blocks.sum() <= MOST_BLOCKS:
        return records, 0
    order = np.lexsort((blocks, -records["nr_accesses"].astype(np.int64)))
    kept = np.sort(order[np.cumsum(blocks[order]) <= MOST_BLOCKS])
    return records[kept], len(records) - len(kept)


def _blocks(
    start: npt.NDArray[np.uint64], end: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64], npt.NDArray[np.float64]]:
    """The blocks of 2 MiB that each region touches: which region, the block's number, the share of it."""
    size = np.uint64(HUGE_PAGE_SIZE)
    first = start // size
    counts = ((end - np.uint64(1)) // size - first).astype(np.int64) + 1
    row = np.arange(len(start)).repeat(counts)
    before = np.cumsum(counts) - counts
    block = first[row] + (np.arange(len(row)) - before[row]).astype(np.uint64)
    held = np.minimum(end[row], (block + np.uint64(1)) * size) - np.maximum(start[row], block * size)
    return row, block, held / HUGE_PAGE_SIZE
